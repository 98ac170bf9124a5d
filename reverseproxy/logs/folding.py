"""
Combine log lines about the same repeated action of a peer: one line for each peer in a period.

A refused peer reconnects, after a second or at once, until its operator has repaired it.
The first refusal is logged at once.  Further ones within a period are counted, and logged
as one line at the end of the period, with which the next period begins.
"""

from __future__ import annotations

__all__ = ["MOST", "PERIOD", "Folding"]

from collections.abc import Callable, Hashable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.logs import LeftOut

PERIOD: Final = 60.0
"""The length of a period in seconds."""

MOST: Final = 1000
"""The maximum number of peers that are distinguished; beyond that the oldest one is logged and forgotten."""

Say = Callable[[LeftOut], object]


class _Folded:
    """
    The current period of one peer.

    @ivar until: the end of the period, in seconds of the clock.
    @ivar count: the number of occurrences since the last line.
    @ivar say: writes the line about the latest occurrence.
    """

    __slots__ = ("count", "say", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.say: Say = lambda left_out: None


class Folding:
    """Combines log lines of the same kind about the same peer."""

    def __init__(self, clock: IReactorTime, period: float = PERIOD, most: int = MOST) -> None:
        """
        @param period: the length of a period in seconds.
        @param most: the maximum number of peers that are distinguished.
        """
        self._clock = clock
        self._period = period
        self._most = most
        self._known: dict[Hashable, _Folded] = {}  # in the order in which their periods end
        self._timer: IDelayedCall | None = None

    def note(self, key: Hashable, say: Say) -> None:
        """
        Log an occurrence, now or at the end of the period.

        @param key: the kind of line and the peer.
        @param say: writes the line, given the number of similar lines that were left out before.
        """
        now = self._clock.seconds()
        self._end(now)
        known = self._known.get(key)
        if known is not None:
            known.count += 1
            known.say = say
            self._expect(now)
            return
        if len(self._known) >= self._most:
            self._tell(next(iter(self._known)))
        self._known[key] = _Folded(now + self._period)
        say(LeftOut())

    def stop(self) -> None:
        """Write all lines that are due at the ends of their periods now, and cancel the timer."""
        for key in list(self._known):
            self._tell(key)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tell(self, key: Hashable) -> bool:
        """
        End a period, and write its line if there were occurrences.

        @return: whether a line was written.
        """
        folded = self._known.pop(key)
        if folded.count:
            # The line is about the latest occurrence; all others were left out.
            folded.say(LeftOut(folded.count - 1))
        return folded.count > 0

    def _end(self, now: float) -> None:
        while self._known:
            key, folded = next(iter(self._known.items()))
            if folded.until > now:
                break
            told = self._tell(key)
            if told:
                # As the peer has not stopped, the next occurrence waits for the end of another period.
                self._known[key] = _Folded(now + self._period)

    def _expect(self, now: float) -> None:
        if self._timer is None:
            first = next(folded.until for folded in self._known.values() if folded.count)
            self._timer = self._clock.callLater(max(0.0, first - now), self._look)

    def _look(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        self._end(now)
        if any(folded.count for folded in self._known.values()):
            self._expect(now)
