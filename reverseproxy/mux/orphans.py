"""Streams that we have closed, and whose peer has not ended its half."""

from __future__ import annotations

__all__ = ["ORPHAN_TIMEOUT", "Orphans"]

from typing import Final

ORPHAN_TIMEOUT: Final = 60.0
"""Seconds that a peer may take to end its half of a stream that we have closed."""


class Orphans:
    """The numbers of streams that nobody listens to, and until when they are borne.  Pure, given the time."""

    __slots__ = ("_until",)

    def __init__(self) -> None:
        self._until: dict[int, float] = {}  # in the order of time, as all have as much of it

    def __len__(self) -> int:
        return len(self._until)

    def add(self, number: int, now: float) -> None:
        """Wait for the end of a stream, for a while."""
        self._until[number] = now + ORPHAN_TIMEOUT

    def ended(self, number: int) -> None:
        """A stream is over, if it was one of these."""
        self._until.pop(number, None)

    def expire(self, now: float) -> list[int]:
        """Take out those whose peer has not ended them for too long."""
        expired = []
        for number, until in self._until.items():
            if until > now:
                break
            expired.append(number)
        for number in expired:
            del self._until[number]
        return expired
