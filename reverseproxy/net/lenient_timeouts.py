"""
Timeouts of peers that don't count the delays of this process.

A process that was not scheduled, or whose machine was suspended, sees everything late: first
that a timeout has expired, and only then the data that its kernel received long ago.  So a
timer that fires late says nothing about the peer, and the peer gets as much more time as the
timer was late.
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
"""Seconds by which a timer may be late without an extension."""

MAX_EXTENSIONS: Final = 3
"""How many extensions in a row a peer gets, as a busy process may always be late."""


def timer_lag(due: float, now: float) -> float:
    """
    Return how late this process is.

    @param due: when a timer should have fired.
    @return: seconds; 0.0 up to L{LATE}.
    """
    late = now - due
    return late if late > LATE else 0.0


class LenientTimeout:
    """
    Calls a function when a peer's time is over.

    If this process is late, the peer gets as much more time as it was late, at most
    its original time.
    """

    __slots__ = ("_call", "_clock", "_due", "_excuses", "_seconds", "_timer")

    def __init__(self, clock: IReactorTime, seconds: float, call: Callable[[], object]) -> None:
        """
        @param seconds: the peer's time.
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
        """Whether the peer still has time."""
        return self._timer is not None

    def cancel(self) -> None:
        """Cancel the timeout, if it has not fired."""
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
    Cancel a L{Deferred} after a L{LenientTimeout}; otherwise like C{addTimeout}.

    @param too_late: called with the result after the cancellation, and the seconds; returns
        the result.  By default a cancelled Deferred fails with L{TimeoutError}.
    @return: the same Deferred.
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
