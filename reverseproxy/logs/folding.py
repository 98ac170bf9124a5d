"""
Lines about strangers who do the same again and again: one for each of them in a period.

A peer that is refused dials again, in a second or at once, and so it goes on until somebody
has mended it.  The first time is a line; what follows within a period is counted, and said
in one line when the period is over, with which the next one begins.
"""

from __future__ import annotations

__all__ = ["MOST", "PERIOD", "Folding"]

from collections.abc import Callable, Hashable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.logs import LeftOut

PERIOD: Final = 60.0
"""Seconds that one line stands for."""

MOST: Final = 1000
"""How many strangers are told apart at once; the first ones are forgotten for others."""

Say = Callable[[LeftOut], object]


class _Folded:
    """
    What one stranger does.

    @ivar until: the end of its period.
    @ivar count: how often it has done it, since the last line.
    @ivar say: writes a line of what it has done last.
    """

    __slots__ = ("count", "say", "until")

    def __init__(self, until: float) -> None:
        self.until = until
        self.count = 0
        self.say: Say = lambda left_out: None


class Folding:
    """Folds lines of the same kind about the same peer into one."""

    def __init__(self, clock: IReactorTime, period: float = PERIOD, most: int = MOST) -> None:
        """
        @param clock: tells the time.
        @param period: seconds that one line stands for.
        @param most: how many strangers are told apart.
        """
        self._clock = clock
        self._period = period
        self._most = most
        self._known: dict[Hashable, _Folded] = {}  # in the order in which their periods end
        self._timer: IDelayedCall | None = None

    def note(self, key: Hashable, say: Say) -> None:
        """
        Say that something has happened, now or together with what follows.

        @param key: who has done what.
        @param say: writes the line; it is given how many such lines were left out before.
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
        """Say what has not been said yet, and wait for nothing more."""
        for key in list(self._known):
            self._tell(key)
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def _tell(self, key: Hashable) -> bool:
        """
        Write down what one has done, and forget it.

        @return: whether there was something.
        """
        folded = self._known.pop(key)
        if folded.count:
            # The line is for the last time, and the others are those that it stands for.
            folded.say(LeftOut(folded.count - 1))
        return folded.count > 0

    def _end(self, now: float) -> None:
        while self._known:
            key, folded = next(iter(self._known.items()))
            if folded.until > now:
                break
            told = self._tell(key)
            if told:
                # It goes on: what follows is for the line of the next period.
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
