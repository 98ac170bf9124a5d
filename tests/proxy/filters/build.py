"""Requests and filters for tests."""

from __future__ import annotations

from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.internet.task import Clock

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.filters import FilterChain, FilteredRequest, build_chain
from reverseproxy.proxy.filters.chain import Step
from reverseproxy.routing import ClusterRoute, RouteResult
from tests.config.documents import LISTENER, TUNNEL_SERVER, edited, parse
from tests.routing.build import facts as make_facts

ROUTE = ClusterRoute("c")


class FixedRouter:
    """Says the same of every request, and notes when it is asked."""

    def __init__(self, result: RouteResult | None) -> None:
        self.result = result
        self.asked = 0

    def match(self, facts: Any) -> RouteResult | None:
        self.asked += 1
        return self.result


def chain(
    *filters: tuple[str, dict[str, Any]],
    clock: IReactorTime | None = None,
    draw: float = 0.0,
    share: int = 1,
) -> FilterChain | None:
    """Build filters of their types and options, as documents have them."""
    document = edited(
        TUNNEL_SERVER,
        (
            f"{LISTENER}.stream_filters",
            [{"type": name, "config": config, "ignore_unsupported": True} for name, config in filters],
        ),
    )
    configs = parse(document).config.server.listeners[0].stream_filters
    return build_chain(configs, clock or Clock(), lambda: draw, share)


def request(
    path: str = "/",
    remote: str = "10.9.9.9:1234",
    size: int = 0,
    query: str = "",
    **headers: str,
) -> FilteredRequest:
    """A request; header names are written with underscores."""
    target = f"{path}?{query}" if query else path
    info = ConnectionInfo(remote, "10.0.0.1:80")
    return FilteredRequest(make_facts(path, query=query, **headers), target, info, size)


def steps(
    filters: FilterChain | None, asked: FilteredRequest, result: RouteResult | None = ROUTE
) -> list[Step]:
    """All that filters want, with waits passed over; as an exchange, it stops at a refusal."""
    assert filters is not None
    passage = filters.passage(asked, FixedRouter(result))  # type: ignore[arg-type]
    found: list[Step] = []
    while (step := passage.advance()) is not None:
        found.append(step)
        if not isinstance(step, float):
            break
    return found
