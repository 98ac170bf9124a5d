"""
A timer that is not rescheduled each time its deadline is moved, and that is lenient.

Moving a deadline with each request costs nothing but storing a number: the timer
fires at the deadline that was set first, and its owner checks whether the current one
has passed, and sets the timer again if not.

If the timer fires late, this process was not running: what peers have sent meanwhile
has not been read yet, and moves the deadline once it is.  So the timer waits as much
longer as it was late; see L{reverseproxy.net.lenient_timeouts}.
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

    @ivar fires_at: when it fires, in the clock's seconds; infinity if it is not set,
        minus infinity once it is stopped.
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
        """Fire at this time of the clock, or earlier if it is set already."""
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
        """Stop for good, and drop the reference to the owner."""
        self.fires_at = -inf
        self._told = None
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
