"""
How much is done in one turn of the reactor, so that everybody's turn comes soon.

In one turn, each connection that has something is read once.
What that costs is the sender's choice: a quarter of a megabyte of one upload is
nothing, and as much of frames of twelve bytes takes a tenth of a second; and
a hundred connections may send either.  Whoever asks for something small waits
for several such turns.  So the time of a turn decides how much is read in
the next ones.

It decides as well how many connections have their turn in one.  Ten thousand
that all have something are ten thousand handshakes, or answers, at the worst;
timers, such as those that ask peers whether they are there, would wait for all
of them.  The kernel keeps the others, in the order in which they have come.
"""

from __future__ import annotations

__all__ = ["FEWEST", "LARGEST", "LONG", "MOST", "PORTIONS", "SHORT", "SMALLEST", "Portions"]

from typing import Final

LARGEST: Final = 256 * 1024
"""Bytes."""

SMALLEST: Final = 16 * 1024
"""Bytes; with less, much would be as much work, and of no more use."""

MOST: Final = 1024
"""Connections."""

FEWEST: Final = 64
"""Connections; with less, turns themselves are what takes the time."""

LONG: Final = 0.01
"""Seconds of a turn, from which on less is done: an answer takes some four turns."""

SHORT: Final = 0.004
"""Seconds of a turn, below which more is done again."""


class Portions:
    """
    What a turn brings.

    @ivar size: bytes that may be read at once.
    @ivar events: connections that have their turn in one.
    @ivar full: whether both are as large as they may be.
    """

    __slots__ = ("events", "full", "size")

    def __init__(self) -> None:
        self.size = LARGEST
        self.events = MOST
        self.full = True

    def turned(self, seconds: float) -> None:
        """Say how long a turn took."""
        if seconds > LONG:
            self.size = max(self.size // 2, SMALLEST)
            self.events = max(self.events // 2, FEWEST)
            self.full = False
        elif seconds < SHORT and not self.full:
            self.size = min(self.size * 2, LARGEST)
            self.events = min(self.events * 2, MOST)
            self.full = self.size == LARGEST and self.events == MOST


PORTIONS: Final = Portions()
"""Those of this process, which has one reactor."""
