"""
How much may be logged, whoever causes it: pure, given the time.

Anybody who reaches a port can cause lines: a handshake that fails, a head that
makes no sense, a connection that there is no place for.  Some of these lines
are bounded where they come from, which saves the work of making them; but there
are more than a hundred places, and one that is forgotten fills the disk.  So
all lines of a log go through a L{LogBounds}, which knows what kind each is: the
module and the format that it is made from.

One kind may have L{KIND_BURST} lines at once, and some a minute in the long run.
All kinds together share a number of bytes.  When these are used up, lines of a
kind of which there were none lately still pass, from a second share: what is
written once is worth more than the thousandth of another kind.
"""

from __future__ import annotations

__all__ = ["KINDS", "KIND_BURST", "KIND_PER_SECOND", "RARE", "LogBounds"]

from collections.abc import Callable, Hashable
from time import monotonic
from typing import Final

from reverseproxy.limits.refusals import REFUSALS

KIND_BURST: Final = 500.0
"""Lines of one kind that may be written at once, after a quiet time."""

KIND_PER_SECOND: Final = 0.1
"""Lines of one kind in the long run."""

RARE: Final = 120.0
"""Seconds without a line of its kind after which one may use the second share."""

KINDS: Final = 1024
"""Kinds that are told apart; more than there are in the whole program."""

_HOUR: Final = 3600.0


class _Bytes:
    """A bucket of bytes: something may be taken as long as there is anything left."""

    __slots__ = ("_burst", "_left", "_per_second", "_updated")

    def __init__(self, burst: float, per_second: float, now: float) -> None:
        self._burst = self._left = burst
        self._per_second = per_second
        self._updated = now

    def some_left(self, now: float) -> bool:
        self._left = min(self._left + max(now - self._updated, 0.0) * self._per_second, self._burst)
        self._updated = now
        return self._left > 0

    def take(self, size: int) -> None:
        self._left -= size


class _Kind:
    """Lines of one kind."""

    __slots__ = ("left", "left_out", "updated", "written")

    def __init__(self, now: float) -> None:
        self.left = KIND_BURST
        self.updated = now
        self.written = now - RARE
        self.left_out = 0

    def has_turn(self, now: float) -> bool:
        self.left = min(self.left + max(now - self.updated, 0.0) * KIND_PER_SECOND, KIND_BURST)
        self.updated = now
        return self.left >= 1.0

    def wrote(self, now: float) -> int:
        self.left = max(self.left - 1.0, 0.0)
        self.written = now
        left_out, self.left_out = self.left_out, 0
        return left_out


class LogBounds:
    """
    Decides line by line.

    @ivar left_out: how many lines were not written, of all kinds.
    """

    def __init__(self, per_hour: float, seconds: Callable[[], float] = monotonic) -> None:
        """
        @param per_hour: bytes that are written in the first hour of a flood at the
            most, but for the last line; in each further one it is three quarters
            of that.
        @param seconds: tells the time.
        """
        now = seconds()
        self._seconds = seconds
        share = per_hour / 8
        self._common = _Bytes(share, 4 * share / _HOUR, now)
        self._second = _Bytes(share, 2 * share / _HOUR, now)
        self._bucket = self._common
        self._kinds: dict[Hashable, _Kind] = {}
        self.left_out = 0

    def ask(self, kind: Hashable) -> int:
        """
        Ask for one line; if it is written, L{wrote} has to be called next.

        @param kind: what it is about.
        @return: -1 if it is not to be written; else how many lines of this kind
            were not, since the last one that was.
        """
        now = self._seconds()
        found = self._kinds.get(kind)
        if found is None:
            if len(self._kinds) >= KINDS:
                kind = None
            found = self._kinds.setdefault(kind, _Kind(now))
        if found.has_turn(now) and self._common.some_left(now):
            self._bucket = self._common
        elif now - found.written >= RARE and self._second.some_left(now):
            self._bucket = self._second
        else:
            found.left_out += 1
            self.left_out += 1
            REFUSALS["log"] += 1
            return -1
        return found.wrote(now)

    def wrote(self, size: int) -> None:
        """Say how many bytes the line that was asked for last has."""
        self._bucket.take(size)
