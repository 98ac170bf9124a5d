"""Which streams of a lost connection were certainly never sent."""

from __future__ import annotations

__all__ = ["UnsentStreams"]

from typing import Any

from reverseproxy.transport.departures import Departures


class UnsentStreams:
    """
    Remembers how much of a connection had been sent when its streams were opened.

    Which streams were never sent is found when the connection is lost; see L{Departures}.
    """

    __slots__ = ("_departures", "_newest")

    def __init__(self) -> None:
        self._newest = 0  # the number of the last stream opened here
        self._departures: Departures | None = None

    def opened(self, number: int) -> None:
        """Note that a stream was opened at this end."""
        self._newest = number

    def note(self, transport: Any, waits: bool) -> None:
        """
        Note how much was sent, as the peer has acknowledged nothing for a while.

        @param waits: whether the peer still acknowledges nothing.
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
        """Return, once the connection is lost, whether nothing of a stream was ever sent."""
        stayed = None if self._departures is None else self._departures.stayed
        return stayed is not None and number > stayed and not (number ^ self._newest) & 1
