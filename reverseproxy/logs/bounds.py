"""
A rate limit for all lines of a log; pure, with an injected clock.

Every peer that can reach a port can cause log lines: a handshake that fails, an
invalid request, a connection beyond the limit.  Some of these lines have a
L{Throttle<reverseproxy.logs.throttle.Throttle>} where they are written, which
saves the work of formatting them; but there are more than a hundred such places,
and a forgotten one could fill the disk.  So all lines of a log pass a
L{LogBounds}, which distinguishes kinds of lines by their namespace and format
string.

Each kind may have L{KIND_BURST} lines at once, and L{KIND_PER_SECOND} in the long
run.  All kinds share a budget of bytes.  When it is exhausted, lines of a kind
that was not written for L{RARE} seconds still pass, from a second budget, as a
rare line is worth more than the thousandth of another kind.
"""

from __future__ import annotations

__all__ = ["KINDS", "KIND_BURST", "KIND_PER_SECOND", "RARE", "LogBounds"]

from collections.abc import Callable, Hashable
from time import monotonic
from typing import Final

from reverseproxy.limits.refusals import REFUSALS

KIND_BURST: Final = 500.0
"""The maximum number of lines of one kind at once."""

KIND_PER_SECOND: Final = 0.1
"""The rate of lines of one kind in the long run, per second."""

RARE: Final = 120.0
"""Seconds without a line of a kind after which its next line may use the second budget."""

KINDS: Final = 1024
"""The maximum number of kinds that are distinguished; more than the program has."""

_HOUR: Final = 3600.0


class _Bytes:
    """A token bucket of bytes, which a single line may overdraw."""

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
    """
    The token bucket of the lines of one kind.

    @ivar left: lines that may be written.
    @ivar updated: when C{left} was updated.
    @ivar written: when a line was last written.
    @ivar left_out: lines that were not written since then.
    """

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
    A rate limit for the lines of one log.

    @ivar left_out: the number of lines of all kinds that were not written.
    """

    def __init__(self, per_hour: float, seconds: Callable[[], float] = monotonic) -> None:
        """
        @param per_hour: the maximum number of bytes in the first hour of a flood, to
            which the last line may add; in each later hour it is three quarters of that.
        @param seconds: returns the time in seconds of a monotonic clock.
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
        Decide about one line; the caller must call L{wrote} if it writes the line.

        @param kind: the kind of line.
        @return: -1 if the line must not be written; else the number of lines of this
            kind that were left out before it.
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
        """Subtract the size, in bytes, of the line that L{ask} allowed last."""
        self._bucket.take(size)
