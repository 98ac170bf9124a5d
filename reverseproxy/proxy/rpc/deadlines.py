"""Deadlines for thousands of requests on one connection, with few timers."""

from __future__ import annotations

__all__ = ["Deadlines"]

from collections.abc import Callable
from heapq import heappop, heappush
from math import ceil, frexp, ldexp
from typing import Final, Generic, TypeVar

from twisted.internet.interfaces import IDelayedCall, IReactorTime

_T = TypeVar("_T")

_FINEST: Final = 2.0**-7


class Deadlines(Generic[_T]):
    """
    Deadlines of items: a callback is called for each item that is not discarded in time.

    Deadlines are rounded up, by a 64th of the time at the most and 8 ms at the
    least, so that deadlines at about the same time share one entry; adding and
    discarding take constant time.
    """

    __slots__ = ("_clock", "_entries", "_expire", "_timer", "_times")

    def __init__(self, clock: IReactorTime, expire: Callable[[_T], None]) -> None:
        """
        @param expire: called with each item whose deadline has passed.
        """
        self._clock = clock
        self._expire = expire
        self._entries: dict[float, set[_T]] = {}
        self._times: list[float] = []  # a heap of the keys of _entries
        self._timer: IDelayedCall | None = None

    def add(self, item: _T, seconds: float) -> float:
        """
        Set a deadline.

        @param seconds: from now, more than 0.
        @return: a key for L{discard}.
        """
        grain = max(_FINEST, ldexp(1.0, frexp(seconds)[1] - 7))
        time = ceil((self._clock.seconds() + seconds) / grain) * grain
        entry = self._entries.get(time)
        if entry is None:
            entry = self._entries[time] = set()
            heappush(self._times, time)
            if self._times[0] == time:
                self._set_timer(time)
        entry.add(item)
        return time

    def discard(self, item: _T, time: float) -> None:
        """
        Cancel a deadline.

        @param time: what L{add} returned; the deadline may have passed.
        """
        entry = self._entries.get(time)
        if entry is not None:
            entry.discard(item)

    def close(self) -> None:
        """Cancel all deadlines."""
        for entry in self._entries.values():
            entry.clear()
        self._entries.clear()
        self._times.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _set_timer(self, time: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._clock.callLater(max(0.0, time - self._clock.seconds()), self._fired)

    def _fired(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        while self._times and self._times[0] <= now:
            time = heappop(self._times)
            entry = self._entries[time]
            while entry:
                self._expire(entry.pop())
            self._entries.pop(time, None)
        if self._times and self._timer is None:
            self._set_timer(self._times[0])
