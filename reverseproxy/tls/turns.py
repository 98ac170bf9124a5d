"""
How much of a process's time strangers may have for TLS handshakes.

A handshake is the most that anybody can make a server do who has shown nothing:
some milliseconds, for a few hundred bytes.  So handshakes of clients have a share
of the time.  Each of their steps is charged with what it took; as long as they
have used up more than their share, further steps wait, and addresses have their
turns one after the other, however many connections each of them has.  What else
there is to do is done in between.

Those that wait are bounded, too: beyond that, the address that has most of them
loses its last one.

There is one L{HandshakeTurns} for each reactor, as it is the reactor's time.
"""

from __future__ import annotations

__all__ = ["AT_ONCE", "MOST", "SHARE", "HandshakeTurns", "Waiting", "set_share", "turns_of"]

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
"""Percent of the time, if nothing else is configured."""

AT_ONCE: Final = 0.005
"""Seconds of work after a quiet time that are done without a pause."""

MOST: Final = 2048
"""Steps of handshakes that may wait."""


class Waiting:
    """A step of a handshake that waits for its turn."""

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
        """It is of no use any more; harmless if it has had its turn."""
        self._turns.forget(self)


class HandshakeTurns:
    """
    Paces the handshakes of all clients.

    @ivar share: which part of the time they may have; up to 1.
    """

    def __init__(self, clock: IReactorTime, share: float) -> None:
        self.share = share
        self._clock = clock
        self._seconds = clock.seconds
        self._booked = float("-inf")  # until when their share is used up
        self._queued: ConnectionLimit[Waiting] = ConnectionLimit(MOST)
        self._queues: OrderedDict[str, OrderedDict[Waiting, None]] = OrderedDict()
        self._timer: IDelayedCall | None = None

    def __len__(self) -> int:
        """How many steps wait."""
        return len(self._queued)

    def ask(self, address: str, go: Callable[[], object], drop: Callable[[str], object]) -> Waiting | None:
        """
        Take the next step of a handshake, now or later.

        @param address: whom it is counted with.
        @param go: takes the step.
        @param drop: called instead if too many wait, with the reason.
        @return: L{None} if it has been taken, or dropped.
        """
        if not self._queues and self._booked <= self._seconds():
            self._take(go)
            return None
        waiting = Waiting(self, address, go, drop)
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

    def forget(self, waiting: Waiting) -> None:
        """Let a step wait no longer."""
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
        """Take those steps that there is time for."""
        self._timer = None
        while self._queues and self._booked <= self._seconds():
            address, queue = self._queues.popitem(last=False)
            waiting, _ = queue.popitem(last=False)
            self._queued.discard(address, waiting)
            if queue:
                self._queues[address] = queue  # behind those of others
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
    """Find the turns of a reactor."""
    turns = _turns.get(clock)
    if turns is None:
        turns = _turns[clock] = HandshakeTurns(clock, _share)
    return turns


def set_share(percent: int) -> None:
    """Set the share of this process, whatever reactors it has."""
    global _share
    _share = percent / 100
    for turns in _turns.values():
        turns.share = _share
