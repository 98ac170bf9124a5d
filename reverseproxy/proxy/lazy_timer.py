"""
A timer that is not moved each time that its deadline is.

A deadline that is put off with each request costs nothing but a number: the
timer fires at the one that was set first, and whoever has it looks whether it
is over, and sets it again if not.
"""

from __future__ import annotations

__all__ = ["LazyTimer"]

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime


class LazyTimer:
    """
    The timer of one connection.

    @ivar fires_at: when it fires; infinity if it does not, minus infinity when it
        never will any more.
    """

    __slots__ = ("_call", "_clock", "_told", "fires_at")

    def __init__(self, clock: IReactorTime, told: Callable[[], None]) -> None:
        """
        @param told: called when it fires.
        """
        self.fires_at = inf
        self._clock = clock
        self._told: Callable[[], None] | None = told
        self._call: IDelayedCall | None = None

    def look_at(self, when: float) -> None:
        """Fire at a time of the clock, at the latest."""
        if when < self.fires_at:
            self.fires_at = when
            delay = max(0.0, when - self._clock.seconds())
            if self._call is not None:
                self._call.cancel()  # to move it forward, Twisted would look for it among all that there are
            self._call = self._clock.callLater(delay, self._fired)

    def _fired(self) -> None:
        self._call = None
        self.fires_at = inf
        if self._told is not None:
            self._told()

    def stop(self) -> None:
        """Fire never more; whoever has it is let go of."""
        self.fires_at = -inf
        self._told = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
