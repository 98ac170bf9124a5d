"""Streams that are closed here, and whose peer has not ended its half."""

from __future__ import annotations

__all__ = ["ORPHAN_TIMEOUT", "Orphans"]

from typing import Final

ORPHAN_TIMEOUT: Final = 60.0
"""Seconds that a peer has to end its half of a stream that is closed here."""


class Orphans:
    """The numbers of such streams, with their deadlines.  No I/O: the time is passed in."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[int, float] = {}  # in the order of deadlines, as all have the same timeout

    def __len__(self) -> int:
        return len(self._until)

    def add(self, number: int, now: float) -> None:
        """Add a stream."""
        self._until[number] = now + ORPHAN_TIMEOUT

    def ended(self, number: int) -> None:
        """Remove a stream, if it is one of these, as its peer has ended it."""
        self._until.pop(number, None)

    def expire(self, now: float) -> list[int]:
        """Remove the streams whose deadline is over, and return their numbers."""
        expired = []
        for number, until in self._until.items():
            if until > now:
                break
            expired.append(number)
        for number in expired:
            del self._until[number]
        return expired
