"""
A timer that is not moved each time that its deadline is, and that is patient.

A deadline that is put off with each request costs nothing but a number: the
timer fires at the one that was set first, and whoever has it looks whether it
is over, and sets it again if not.

If it fires late, it is this process that had no turn: what has come from
others meanwhile waits to be read, and puts the deadline off once it is.  So it
waits as much more as it was late, as L{reverseproxy.net.lenient_timeouts} has it.
"""

from __future__ import annotations

__all__ = ["LazyTimer"]

from collections.abc import Callable
from math import inf

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.net.lenient_timeouts import MAX_EXTENSIONS, timer_lag


class LazyTimer:
    """
    The timer of one connection.

    @ivar fires_at: when it fires; infinity if it does not, minus infinity when it
        never will any more.
    """

    __slots__ = ("_call", "_clock", "_excuses", "_seconds", "_told", "fires_at")

    def __init__(self, clock: IReactorTime, told: Callable[[], None]) -> None:
        """
        @param told: called when it fires.
        """
        self.fires_at = inf
        self._clock = clock
        self._told: Callable[[], None] | None = told
        self._call: IDelayedCall | None = None
        self._seconds = 0.0  # for which it was set
        self._excuses = 0

    def look_at(self, when: float) -> None:
        """Fire at a time of the clock, at the latest."""
        if when < self.fires_at:
            self._set(max(0.0, when - self._clock.seconds()), when)

    def _set(self, seconds: float, when: float) -> None:
        self.fires_at = when
        self._seconds = seconds
        if self._call is not None:
            self._call.cancel()  # to move it forward, Twisted would look for it among all that there are
        self._call = self._clock.callLater(seconds, self._fired)

    def _fired(self) -> None:
        self._call = None
        now = self._clock.seconds()
        late = timer_lag(self.fires_at, now)
        if late and self._excuses < MAX_EXTENSIONS:
            self._excuses += 1
            more = min(late, self._seconds)
            self._set(more, now + more)
            return
        self._excuses = 0
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
