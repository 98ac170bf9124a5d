"""Totals of one process's counters, in all and by rule, computed on demand."""

from __future__ import annotations

__all__ = ["by_route", "fed_by_agents", "sample", "summary"]

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.admin.slices import Steps
from reverseproxy.metrics import RequestTally
from reverseproxy.metrics.history import Sample
from reverseproxy.metrics.latency import class_names, classes_of

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts

STRIDE: Final = 2
"""How many rules are processed in one step; see L{reverseproxy.admin.slices}."""

CLUSTERS: Final = 100
"""How many clusters are processed in one step."""

LINKS: Final = 100
"""How many connections of an agent are processed in one step."""

ERRORS = 5
"""The first digit of statuses of server errors."""


def sample(parts: Parts) -> Steps[Sample]:
    """Return the current values of the counters that the history needs."""
    found = Sample(agents=len(parts.agent_index))
    for tally in list(parts.tallies.values()):
        for number, ((cluster, *_), cell) in enumerate(list(tally.cells.items())):
            if number % STRIDE == 0:
                yield
            for hundred, ended in classes_of(cell.total.ends).items():
                found.requests += ended
                found.clusters[cluster] = found.clusters.get(cluster, 0) + ended
                if hundred == ERRORS:
                    found.errors += ended
    found.clusters.pop("", None)
    return found


def _add(lists: Iterable[list[int]]) -> list[int]:
    return [sum(numbers) for numbers in zip(*lists, strict=True)]


def _lately(tallies: Iterable[RequestTally], now: float) -> Steps[list[int]]:
    times: list[int] = []
    for number, cell in enumerate([cell for tally in tallies for cell in tally.cells.values()]):
        if number % STRIDE == 0:
            yield
        latest = cell.lately(now, cell.total)
        times = _add([times, latest]) if times else latest
    return times


def summary(parts: Parts, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
    """Return a few numbers that summarize the state of the process."""
    now = yield from sample(parts)
    times = yield from _lately(parts.tallies.values(), parts.seconds())
    active = waiting = 0
    for number, cluster in enumerate(list(parts.clusters)):
        if number % CLUSTERS == 0:
            yield
        active += cluster.active
        waiting += cluster.waiting
    return {
        "agents": len(parts.agent_index),
        "connections": parts.agent_index.connections,
        "requests": now.requests,
        "errors": now.errors,
        "in_flight": active,
        "waiting": waiting,
        "refused": sum(len(server.tally.refusals) for server in parts.tunnels.values()),
        "servers": sum(len(agent.by_server) for agent in parts.agents),
        "times": times,
        "uptime_seconds": round(parts.seconds() - parts.started, 3),
        "history": parts.sampler.history.to_json(),
    }


def fed_by_agents(parts: Parts) -> Steps[dict[str, int]]:
    """Return the number of connections, streams or whole ones, that agents pass to each hosting listener."""
    found: dict[str, int] = {}
    for agent in parts.agents:
        name = agent.plan.sink.name
        for index, link in enumerate(agent.links):
            if index % LINKS == 0:
                yield
            found[name] = found.get(name, 0) + link.held
    return found


def by_route(parts: Parts, arguments: Mapping[str, Any]) -> Steps[list[dict[str, Any]]]:
    """Return the counters of each rule that has taken requests, by listener."""
    found: dict[tuple[str, str, str], dict[str, Any]] = {}
    now = parts.seconds()
    for tally in list(parts.tallies.values()):
        for number, ((_, virtual_host, route), cell) in enumerate(list(tally.cells.items())):
            if number % STRIDE == 0:
                yield
            total = cell.total
            times = cell.lately(now, total)
            ends = class_names(classes_of(total.ends))
            known = found.get((tally.listener, virtual_host, route))
            if known is None:
                found[tally.listener, virtual_host, route] = {
                    "listener": tally.listener,
                    "virtual_host": virtual_host,
                    "route": route,
                    "ends": ends,
                    "times": times,
                    "received": total.received,
                    "sent": total.sent,
                }
                continue
            known["ends"] = {
                name: known["ends"].get(name, 0) + ends.get(name, 0) for name in {**known["ends"], **ends}
            }
            known["times"] = _add([known["times"], times])
            known["received"] += total.received
            known["sent"] += total.sent
    return list(found.values())
