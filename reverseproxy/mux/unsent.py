"""Which streams of a connection that is lost have certainly never left."""

from __future__ import annotations

__all__ = ["UnsentStreams"]

from typing import Any

from reverseproxy.transport.departures import Departures


class UnsentStreams:
    """
    Remembers how far a connection had got when its streams were opened.

    What that says of those that were opened last is found when the connection is lost, see
    L{Departures}.
    """

    __slots__ = ("_departures", "_newest")

    def __init__(self) -> None:
        self._newest = 0  # of those that we have opened
        self._departures: Departures | None = None

    def opened(self, number: int) -> None:
        """We have opened a stream."""
        self._newest = number

    def note(self, transport: Any, waits: bool) -> None:
        """
        Remember how far a connection has got, as the peer has acknowledged nothing for a while.

        @param waits: whether that is still so.
        """
        departures = self._departures
        if departures is None:
            if not waits:
                return
            departures = self._departures = Departures(transport)
        if waits:
            departures.note(self._newest)
        else:
            departures.forget()

    def includes(self, number: int) -> bool:
        """Find, once the connection is lost, whether nothing of a stream has ever left."""
        stayed = None if self._departures is None else self._departures.stayed
        return stayed is not None and number > stayed and not (number ^ self._newest) & 1
