"""
The requests under way on a connection to a host, by the ids that they have there.

Ids count from 1 as MOSN's do (docs/mosn.rst 6.5), and start again after the largest
id of the protocol.  An id in use is skipped; one that is free again is reused only
after all others, so that a late response hardly ever meets another request.
"""

from __future__ import annotations

__all__ = ["InFlight"]

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.heartbeats import Heartbeat
    from reverseproxy.proxy.rpc.interfaces import IRpcExchange


class InFlight:
    """
    The requests and heartbeats under way on one connection, by id.

    @ivar requests: the exchanges that wait for a response.
    @ivar heartbeats: the heartbeats that wait for a reply.
    """

    __slots__ = ("_last", "_max_id", "heartbeats", "requests")

    def __init__(self, max_id: int) -> None:
        """
        @param max_id: the largest id; more than the number of requests that can be under way.
        """
        self.requests: dict[int, IRpcExchange] = {}
        self.heartbeats: dict[int, Heartbeat] = {}
        self._max_id = max_id
        self._last = 0

    def next_id(self) -> int:
        """Return the id for the next frame."""
        number = self._last
        while True:
            number = number + 1 if number < self._max_id else 1
            if number not in self.requests and number not in self.heartbeats:
                self._last = number
                return number

    def take_all(self) -> list[IRpcExchange]:
        """Remove all requests, and return their exchanges."""
        exchanges = list(self.requests.values())
        self.requests.clear()
        return exchanges
