"""
A limit on the share of the process's time that TLS handshakes with clients take.

A handshake is the most work that a client can cause without authentication: some
milliseconds of CPU, for a few hundred bytes.  So all handshakes together have a
share of the time.  Each step of a handshake is charged with the time that it took;
while the share is used up, further steps are queued, and served round robin by
client address, however many connections an address has.  Other work is done in
between.

The queue is bounded: when it is full, the address with the most entries loses its
last one.

There is one L{HandshakeTurns} for each reactor.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "MOST", "SHARE", "HandshakeTurns", "QueuedTurn", "set_share", "turns_of"]

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, Final
from weakref import WeakKeyDictionary

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.limits.connection_limit import ConnectionLimit
from reverseproxy.limits.refusals import REFUSALS

log = Logger()

SHARE: Final = 50
"""The default share, in percent of the time."""

AT_ONCE: Final = 0.005
"""Seconds of work that are done without a pause after a time without handshakes (a burst)."""

MOST: Final = 2048
"""Steps of handshakes that may be queued."""


class QueuedTurn:
    """A queued step of a handshake."""

    __slots__ = ("_turns", "address", "drop", "go")

    expendable = True

    def __init__(
        self, turns: HandshakeTurns, address: str, go: Callable[[], object], drop: Callable[[str], object]
    ) -> None:
        self._turns = turns
        self.address = address
        self.go = go
        self.drop = drop

    def cancel(self) -> None:
        """Remove it from the queue; does nothing if it has had its turn."""
        self._turns.forget(self)


class HandshakeTurns:
    """
    Schedules the steps of all handshakes with clients.

    @ivar share: the share of the time that they may take; at most 1.
    """

    def __init__(self, clock: IReactorTime, share: float) -> None:
        self.share = share
        self._clock = clock
        self._seconds = clock.seconds
        self._booked = float("-inf")  # until when their share is used up
        self._queued: ConnectionLimit[QueuedTurn] = ConnectionLimit(MOST)
        self._queues: OrderedDict[str, OrderedDict[QueuedTurn, None]] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """Return how many steps are queued."""
        return len(self._queued)

    def ask(self, address: str, go: Callable[[], object], drop: Callable[[str], object]) -> QueuedTurn | None:
        """
        Take the next step of a handshake, now or later.

        @param address: the client's, by which steps are queued.
        @param go: takes the step.
        @param drop: called instead, with the reason, if the queue is full.
        @return: L{None} if the step has been taken, or dropped.
        """
        if not self._queues and self._booked <= self._seconds():
            self._take(go)
            return None
        waiting = QueuedTurn(self, address, go, drop)
        self._queues.setdefault(address, OrderedDict())[waiting] = None
        self._queued.add(address, waiting)
        if self._timer is None:
            self._plan()
        if len(self._queued) <= MOST:
            return waiting
        found = self._queued.victim(address)
        last = waiting if found is None else next(reversed(self._queues[found[0]]))
        self.forget(last)
        REFUSALS["tls_waiting"] += 1
        last.drop("too many TLS handshakes wait")
        return None if last is waiting else waiting

    def forget(self, waiting: QueuedTurn) -> None:
        """Remove a step from the queue."""
        queue = self._queues.get(waiting.address)
        if queue is None or waiting not in queue:
            return
        self._queued.discard(waiting.address, waiting)
        del queue[waiting]
        if not queue:
            del self._queues[waiting.address]
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
            waiting, _ = queue.popitem(last=False)
            self._queued.discard(address, waiting)
            if queue:
                self._queues[address] = queue  # behind other addresses
            try:
                self._take(waiting.go)
            except Exception:
                log.failure("a protocol failed at the end of its TLS handshake")
                waiting.drop("its protocol failed")
        if self._queues and self._timer is None:
            self._plan()

    def _take(self, go: Callable[[], object]) -> None:
        began = self._seconds()
        try:
            go()
        finally:
            now = self._seconds()
            saved = now - AT_ONCE / self.share
            self._booked = max(self._booked, saved) + (now - began) / self.share


_share = SHARE / 100
_turns: WeakKeyDictionary[Any, HandshakeTurns] = WeakKeyDictionary()


def turns_of(clock: IReactorTime) -> HandshakeTurns:
    """Return the L{HandshakeTurns} of a reactor."""
    turns = _turns.get(clock)
    if turns is None:
        turns = _turns[clock] = HandshakeTurns(clock, _share)
    return turns


def set_share(percent: int) -> None:
    """Set the share for all reactors of this process."""
    global _share
    _share = percent / 100
    for turns in _turns.values():
        turns.share = _share
