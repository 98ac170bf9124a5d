"""
What has come of orders that were passed on to other servers.

Each process that gets one says how many connections of the agent it has let go of, and be it
none.  Who is of an older version, or has too much to do, says nothing in time.

    {"done": "5f1c...", "connections": 2, "problem": ""}
"""

from __future__ import annotations

__all__ = ["PATIENCE", "OrderResults", "OrderResult"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.errors import WireError
from reverseproxy.fleet.incoming_links import IncomingLink

PATIENCE: Final = 1.0
"""Seconds that other servers have to answer."""

_MOST_CONNECTIONS: Final = 2**31
_MOST_TEXT: Final = 256


@dataclass(slots=True)
class OrderResult:
    """
    What a server has done.

    @ivar connections: how many it has let go of.
    @ivar confirmed: whether all of its processes that were told have answered.
    @ivar problem: what could not be done; empty if there is nothing.
    """

    connections: int = 0
    confirmed: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON."""
        return {"connections": self.connections, "confirmed": self.confirmed, "problem": self.problem}


@dataclass(slots=True)
class _Waiting:
    """
    An order, until all have answered.

    @ivar missing: the links whose answers are missing.
    @ivar found: what has come, by server.
    """

    missing: set[IncomingLink]
    found: dict[str, OrderResult]
    over: Deferred[dict[str, OrderResult]] = field(default_factory=Deferred)
    timer: IDelayedCall | None = None


class OrderResults:
    """Waits for what other servers say of orders."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: dict[str, _Waiting] = {}

    def wait(self, order_id: str, links: Iterable[IncomingLink]) -> Deferred[dict[str, OrderResult]]:
        """
        Wait for what comes of an order, for L{PATIENCE} at the most.

        @param links: what it is told over.
        @return: what each server has done; never fails.
        """
        missing = set(links)
        if not missing or order_id in self._open:
            return succeed({link.server: OrderResult() for link in missing})
        waiting = _Waiting(missing, {link.server: OrderResult() for link in missing})
        self._open[order_id] = waiting
        waiting.timer = self._clock.callLater(PATIENCE, partial(self._over, order_id))
        return waiting.over

    def heard(self, link: IncomingLink, message: Mapping[str, Any]) -> None:
        """
        A server has said what it has done.

        @raise WireError: if it makes no sense.
        """
        order_id, connections, problem = (
            message.get("done"),
            message.get("connections"),
            message.get("problem"),
        )
        if not isinstance(order_id, str) or not isinstance(problem, str) or not problem.isprintable():
            raise WireError("it has done something that is not known")
        if type(connections) is not int or not 0 <= connections <= _MOST_CONNECTIONS:
            raise WireError("it has let go of what is no number of connections")
        waiting = self._open.get(order_id)
        if waiting is None or link not in waiting.missing:
            return  # too late
        waiting.missing.discard(link)
        done = waiting.found[link.server]
        done.connections += connections
        done.problem = done.problem or problem[:_MOST_TEXT]
        done.confirmed = all(each.server != link.server for each in waiting.missing)
        if not waiting.missing:
            self._over(order_id)

    def _over(self, order_id: str) -> None:
        waiting = self._open.pop(order_id)
        if waiting.timer is not None and waiting.timer.active():
            waiting.timer.cancel()
        waiting.over.callback(waiting.found)

    def stop(self) -> None:
        """Wait for nobody any more."""
        for order_id in list(self._open):
            self._over(order_id)
