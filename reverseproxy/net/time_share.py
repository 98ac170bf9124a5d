"""
A limit on the share of the process's time that work for clients takes.

A client without credentials can cause work that costs it next to nothing, such as a TLS
handshake: some milliseconds of CPU, for a few hundred bytes.  So all work of a kind has a
share of the time together.  Each step of it is charged with the time that it took; while
the share is used up, further steps are queued, and taken round robin by client address,
however many connections an address has.  Other work is done in between.

The queue is bounded: when it is full, the address with the most entries loses its
last one.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "MOST", "QueuedStep", "TimeShare"]

from collections import OrderedDict
from collections.abc import Callable
from typing import Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.limits.connection_limit import ConnectionLimit

log = Logger()

AT_ONCE: Final = 0.005
"""Seconds of work that are done without a pause after a time without any (a burst)."""

MOST: Final = 2048
"""Steps that may be queued."""


class QueuedStep:
    """
    A step that is queued.

    @ivar address: of its client.
    @ivar take: takes the step.
    @ivar drop: called instead, with the reason, if it is dropped.
    """

    __slots__ = ("_share", "address", "drop", "take")

    expendable = True

    def __init__(
        self, share: TimeShare, address: str, take: Callable[[], object], drop: Callable[[str], object]
    ) -> None:
        self._share = share
        self.address = address
        self.take = take
        self.drop = drop

    def cancel(self) -> None:
        """Remove it from the queue; does nothing if it was taken or dropped."""
        self._share.forget(self)


class TimeShare:
    """
    Schedules steps of work, so that all of them take no more than a share of the time.

    Its length is the number of queued steps.

    @ivar share: the share of the time that they may take; at most 1.
    """

    def __init__(
        self,
        clock: IReactorTime,
        share: float,
        what: str,
        failure: str,
        on_overflow: Callable[[], object] = lambda: None,
    ) -> None:
        """
        @param what: what the steps belong to, in the plural, for the reason why one was dropped.
        @param failure: what is logged if a step raises an exception.
        @param on_overflow: called for each step that is dropped as the queue is full.
        """
        self.share = share
        self._clock = clock
        self._seconds = clock.seconds
        self._what = what
        self._failure = failure
        self._on_overflow = on_overflow
        self._booked = float("-inf")  # until when the share is used up
        self._queued: ConnectionLimit[QueuedStep] = ConnectionLimit(MOST)
        self._queues: OrderedDict[str, OrderedDict[QueuedStep, None]] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        return len(self._queued)

    def ask(
        self, address: str, take: Callable[[], object], drop: Callable[[str], object]
    ) -> QueuedStep | None:
        """
        Take a step, now or later.

        @param address: the client's, by which steps are queued.
        @param take: takes the step.
        @param drop: called instead, with the reason, if the queue is full.
        @return: L{None} if the step has been taken, or dropped.
        """
        if not self._queues and self._booked <= self._seconds():
            self._take(take)
            return None
        step = QueuedStep(self, address, take, drop)
        self._queues.setdefault(address, OrderedDict())[step] = None
        self._queued.add(address, step)
        if self._timer is None:
            self._plan()
        if len(self._queued) <= MOST:
            return step
        found = self._queued.victim(address)
        last = step if found is None else next(reversed(self._queues[found[0]]))
        self.forget(last)
        self._on_overflow()
        last.drop(f"too many {self._what} wait")
        return None if last is step else step

    def forget(self, step: QueuedStep) -> None:
        """Remove a step from the queue."""
        queue = self._queues.get(step.address)
        if queue is None or step not in queue:
            return
        self._queued.discard(step.address, step)
        del queue[step]
        if not queue:
            del self._queues[step.address]
        if not self._queues and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _plan(self) -> None:
        self._timer = self._clock.callLater(max(self._booked - self._seconds(), 0.0), self._go_on)

    def _go_on(self) -> None:
        """Take queued steps, as long as the share allows."""
        self._timer = None
        while self._queues and self._booked <= self._seconds():
            address, queue = self._queues.popitem(last=False)
            step, _ = queue.popitem(last=False)
            self._queued.discard(address, step)
            if queue:
                self._queues[address] = queue  # behind other addresses
            try:
                self._take(step.take)
            except Exception:
                log.failure(self._failure)
                step.drop("its protocol failed")
        if self._queues and self._timer is None:
            self._plan()

    def _take(self, take: Callable[[], object]) -> None:
        began = self._seconds()
        try:
            take()
        finally:
            now = self._seconds()
            saved = now - AT_ONCE / self.share
            self._booked = max(self._booked, saved) + (now - began) / self.share
