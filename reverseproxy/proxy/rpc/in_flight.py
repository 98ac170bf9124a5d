"""
Which requests are under way on a connection to a host, by the ids that they have there.

They are numbered from 1 as MOSN does (docs/mosn.rst 6.5), and from 1 again behind
the largest id that the protocol has.  An id that somebody still waits with is not
given again; one that nobody waits with any more is, but only when all others have
been, so that a late response hardly ever meets another request.
"""

from __future__ import annotations

__all__ = ["InFlight"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.heartbeats import Heartbeat
    from reverseproxy.proxy.rpc.interfaces import IRpcExchange


class InFlight:
    """
    See the module's text.

    @ivar requests: who waits for the response to which request.
    @ivar heartbeats: the same for heartbeats.
    """

    __slots__ = ("_last", "_max_id", "heartbeats", "requests")

    def __init__(self, max_id: int) -> None:
        """
        @param max_id: the largest id; more than there can be requests under way.
        """
        self.requests: dict[int, IRpcExchange] = {}
        self.heartbeats: dict[int, Heartbeat] = {}
        self._max_id = max_id
        self._last = 0

    def next_id(self) -> int:
        """Find the id of the next frame."""
        number = self._last
        while True:
            number = number + 1 if number < self._max_id else 1
            if number not in self.requests and number not in self.heartbeats:
                self._last = number
                return number

    def take_all(self) -> list[IRpcExchange]:
        """Forget all requests: there will be no responses."""
        exchanges = list(self.requests.values())
        self.requests.clear()
        return exchanges
