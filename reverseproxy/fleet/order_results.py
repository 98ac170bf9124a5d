"""
Results of orders that this server has passed on to other servers.

Each process that gets an order answers with the number of the agent's connections that it has closed or
drained, even if that is 0. A process of an older version, or one that is too busy, does not answer in
time.

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
"""Seconds to wait for the results of one order."""

_MOST_CONNECTIONS: Final = 2**31
_MOST_TEXT: Final = 256


@dataclass(slots=True)
class OrderResult:
    """
    The result of one order at one server.

    @ivar connections: how many connections of the agent the order was applied to.
    @ivar confirmed: whether every process of the server that got the order has answered.
    @ivar problem: the first error that a process has reported; empty if there is none.
    """

    connections: int = 0
    confirmed: bool = False
    problem: str = ""

    def to_json(self) -> dict[str, Any]:
        """Return all fields as JSON."""
        return {"connections": self.connections, "confirmed": self.confirmed, "problem": self.problem}


@dataclass(slots=True)
class _Waiting:
    """
    An order whose results are still coming in.

    @ivar missing: the links over which no answer has come yet.
    @ivar found: the results so far, by server id.
    @ivar over: fires with C{found} when all have answered, or the time is up.
    """

    missing: set[IncomingLink]
    found: dict[str, OrderResult]
    over: Deferred[dict[str, OrderResult]] = field(default_factory=Deferred)
    timer: IDelayedCall | None = None


class OrderResults:
    """Collects the results of orders, with a timeout for each order."""

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._open: dict[str, _Waiting] = {}

    def wait(self, order_id: str, links: Iterable[IncomingLink]) -> Deferred[dict[str, OrderResult]]:
        """
        Wait for the results of an order, for at most L{PATIENCE}.

        @param order_id: the order's id; results of an id that is waited for already are not collected
            again.
        @param links: the links over which the order is sent.
        @return: a L{Deferred} with the result of each server, by id; never fails.
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
        Take the result that one process of a server has sent.

        @raise WireError: if the message is malformed.
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
        """Complete all waits with the results that have come so far."""
        for order_id in list(self._open):
            self._over(order_id)
