"""
How much is read from a connection at once, so that everybody's turn comes soon.

In one turn of the reactor, each connection that has something is read once.
What that costs is the sender's choice: a quarter of a megabyte of one upload is
nothing, and as much of frames of twelve bytes takes a tenth of a second; and
a hundred connections may send either.  Whoever asks for something small waits
for several such turns.  So the time of a turn decides how much is read in
the next ones.
"""

from __future__ import annotations

__all__ = ["LARGEST", "LONG", "PORTIONS", "SHORT", "SMALLEST", "Portions"]

from typing import Final

LARGEST: Final = 256 * 1024
"""Bytes."""

SMALLEST: Final = 16 * 1024
"""Bytes; with less, much would be as much work, and of no more use."""

LONG: Final = 0.01
"""Seconds of a turn, from which on less is read: an answer takes some four turns."""

SHORT: Final = 0.004
"""Seconds of a turn, below which more is read again."""


class Portions:
    """
    What a turn brings.

    @ivar size: bytes that may be read at once.
    """

    __slots__ = ("size",)

    def __init__(self) -> None:
        self.size = LARGEST

    def turned(self, seconds: float) -> None:
        """Say how long a turn took."""
        if seconds > LONG:
            self.size = max(self.size // 2, SMALLEST)
        elif seconds < SHORT and self.size < LARGEST:
            self.size *= 2


PORTIONS: Final = Portions()
"""Those of this process, which has one reactor."""
