"""
How much is read in one turn of the reactor, so that turns stay short.

In one turn, each connection that is readable is read once.  What that costs depends
on the sender: a quarter of a megabyte of one upload costs next to nothing, and as
much of frames of twelve bytes takes a tenth of a second; and a hundred connections
may send either.  A small request waits for several such turns.  So the time that a
turn has taken decides how much is read in the next ones.

It also decides how many connections are read in one turn.  Ten thousand readable
connections are, at worst, ten thousand handshakes or answers; timers, such as those
of pings, would be delayed by all of them.  The kernel keeps the others, in the order
in which they became readable.
"""

from __future__ import annotations

__all__ = ["FEWEST", "LARGEST", "LONG", "MOST", "PORTIONS", "SHORT", "SMALLEST", "Portions"]

from typing import Final

LARGEST: Final = 256 * 1024
"""Bytes."""

SMALLEST: Final = 16 * 1024
"""Bytes; smaller reads would mean more work for the same data, and no shorter turns."""

MOST: Final = 1024
"""Connections."""

FEWEST: Final = 64
"""Connections; with fewer, most time would go into the turns themselves."""

LONG: Final = 0.01
"""Seconds of a turn, above which less is read: an answer takes some four turns."""

SHORT: Final = 0.004
"""Seconds of a turn, below which more is read again."""


class Portions:
    """
    The limits of one turn.

    @ivar size: bytes of one read.
    @ivar events: connections that are read or written to in one turn.
    @ivar full: whether both have their largest values.
    """

    __slots__ = ("events", "full", "size")

    def __init__(self) -> None:
        self.size = LARGEST
        self.events = MOST
        self.full = True

    def turned(self, seconds: float) -> None:
        """Adapt to how long a turn took, in seconds."""
        if seconds > LONG:
            self.size = max(self.size // 2, SMALLEST)
            self.events = max(self.events // 2, FEWEST)
            self.full = False
        elif seconds < SHORT and not self.full:
            self.size = min(self.size * 2, LARGEST)
            self.events = min(self.events * 2, MOST)
            self.full = self.size == LARGEST and self.events == MOST


PORTIONS: Final = Portions()
"""The limits of this process, which has one reactor."""
