"""
How long others may take, not counting what this process takes itself.

A process that waits for a processor, or for its machine, hears late of everything at
once: that the time for an answer is over, and only then the answer, which its kernel
has had for long.  A timer that goes off late says more of this process than of anybody
else.  So whatever judges others by the time that they take gives them as much more as
the timer was late.
"""

from __future__ import annotations

__all__ = ["LATE", "MAX_EXTENSIONS", "LenientTimeout", "add_lenient_timeout", "timer_lag"]

from collections.abc import Callable
from typing import Any, Final, TypeVar

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError  # noqa: A004 - what Twisted's own are
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.python.failure import Failure

_T = TypeVar("_T")

LATE: Final = 0.25
"""Seconds by which a timer may be late before that counts."""

MAX_EXTENSIONS: Final = 3
"""How often in a row others get more time; who is late at every turn has to judge at last."""


def timer_lag(due: float, now: float) -> float:
    """
    Say how late we are ourselves.

    @param due: when a timer should have gone off.
    @return: seconds; 0.0 if that is nothing out of the ordinary.
    """
    late = now - due
    return late if late > LATE else 0.0


class LenientTimeout:
    """
    Calls something when somebody has had his time.

    If it is this process that is late, he has as much more as it was, but no more
    than he had in the first place.
    """

    __slots__ = ("_call", "_clock", "_due", "_excuses", "_seconds", "_timer")

    def __init__(self, clock: IReactorTime, seconds: float, call: Callable[[], object]) -> None:
        """
        @param seconds: how long he has.
        """
        self._clock = clock
        self._seconds = seconds
        self._call = call
        self._excuses = 0
        self._timer: IDelayedCall | None = None
        self._wait(seconds)

    def _wait(self, seconds: float) -> None:
        self._due = self._clock.seconds() + seconds
        self._timer = self._clock.callLater(seconds, self._over)

    def _over(self) -> None:
        self._timer = None
        late = timer_lag(self._due, self._clock.seconds())
        if late and self._excuses < MAX_EXTENSIONS:
            self._excuses += 1
            self._wait(min(late, self._seconds))
        else:
            self._call()

    def active(self) -> bool:
        """Whether he still has time."""
        return self._timer is not None

    def cancel(self) -> None:
        """Stop, if it is not over."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()


def add_lenient_timeout(
    deferred: Deferred[_T],
    seconds: float,
    clock: IReactorTime,
    too_late: Callable[[Any, float], Any] | None = None,
) -> Deferred[_T]:
    """
    Cancel a L{Deferred} that has had its time, as C{addTimeout} does, but by L{LenientTimeout}.

    @param too_late: given what it came to when it was cancelled, and the seconds, and
        makes its result of that; by default that is L{TimeoutError}, if it
        was cancelled.
    @return: the same.
    """
    over = False

    def end() -> None:
        nonlocal over
        over = True
        deferred.cancel()

    timer = LenientTimeout(clock, seconds, end)

    def done(result: Any) -> Any:
        timer.cancel()
        if not over:
            return result
        if too_late is not None:
            return too_late(result, seconds)
        if isinstance(result, Failure):
            result.trap(CancelledError)
            raise TimeoutError(f"nothing has come within {seconds:g} s")
        return result

    return deferred.addBoth(done)
