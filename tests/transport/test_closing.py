"""Unit tests for connections that are being closed."""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.backlog import NOTHING, Backlog
from reverseproxy.transport.closing import LINGER, CloseLimits, DelayedClose, UnreceivedBytes


class Waiting:
    """A transport with bytes that its peer has not received."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.taken = 0  # counts, as bytes may be written anew
        self.aborts = 0

    def backlog(self) -> Backlog:
        return Backlog(self.size, self.taken) if self.size else NOTHING

    def take(self, size: int) -> None:
        self.size, self.taken = self.size - size, self.taken + size

    def abortConnection(self) -> None:
        self.aborts += 1


class UnreceivedBytesTests(SynchronousTestCase):
    def begin(self, size: int, limits: CloseLimits) -> tuple[Waiting, UnreceivedBytes]:
        transport = Waiting(size)
        return transport, UnreceivedBytes(limits, transport)

    def test_nothing_is_left(self) -> None:
        _, unreceived = self.begin(0, CloseLimits())
        self.assertEqual((unreceived.look(), unreceived.left), (0.0, 0))

    def test_what_was_received_a_moment_ago(self) -> None:
        """The peer may be about to respond to it, or to close, so that it has one more period."""
        transport, unreceived = self.begin(7, CloseLimits())
        self.assertEqual((unreceived.look(), unreceived.left), (LINGER, 7))
        transport.take(7)
        self.assertEqual((unreceived.look(), unreceived.left), (LINGER, 0))
        self.assertEqual(unreceived.look(), 0.0)

    def test_a_peer_that_stands_still(self) -> None:
        """It is given up after the last look within its time, with the reason."""
        for stall, looks in ((LINGER, 1), (60.0, 12), (61.0, 13)):
            told: list[str] = []
            transport, unreceived = self.begin(1000, CloseLimits(stall=stall, told=told.append))
            unreceived.look()
            for _ in range(looks - 1):
                self.assertEqual(unreceived.look(), LINGER)
            transport.take(1)
            for _ in range(looks):
                self.assertEqual(unreceived.look(), LINGER)
                self.assertEqual(told, [])
            self.assertEqual(unreceived.look(), 0.0)
            self.assertEqual(told, [f"it has taken nothing of the last 999 bytes for {stall:g} s"])

    def test_limits_shorter_than_the_time_to_close(self) -> None:
        _, unreceived = self.begin(1, CloseLimits(stall=2.0))
        self.assertEqual([unreceived.period, unreceived.look(), unreceived.look()], [2.0, 2.0, 0.0])

    def test_a_peer_that_may_stand_still(self) -> None:
        for limits in (CloseLimits(excused=True), CloseLimits(stall=inf)):
            _, unreceived = self.begin(1, limits)
            self.assertEqual({unreceived.look() for _ in range(1000)}, {LINGER})


class DelayedCloseTests(SynchronousTestCase):
    def begin(self, size: int, stall: float = 60.0, **options: Any) -> Waiting:
        self.clock, transport = Clock(), Waiting(size)
        self.closing = DelayedClose(self.clock, transport, CloseLimits(stall=stall), **options)
        return transport

    def check(self, transport: Waiting, periods: int) -> None:
        """It is aborted after so many periods, and not before."""
        for _ in range(periods - 1):
            self.clock.advance(LINGER)
        self.clock.advance(LINGER - 0.1)
        self.assertEqual(transport.aborts, 0)
        self.clock.advance(0.1)
        self.assertEqual((transport.aborts, self.clock.getDelayedCalls()), (1, []))

    def test_a_peer_that_has_everything_and_stays(self) -> None:
        self.check(self.begin(0), 1)

    def test_a_peer_that_has_just_received_the_end(self) -> None:
        transport = self.begin(10)
        self.clock.advance(LINGER - 0.1)
        transport.take(10)
        self.clock.advance(0.1)
        self.check(transport, 1)

    def test_what_does_not_count(self) -> None:
        """What was unreceived at first is forgotten if it is received by the first look, and no later."""
        transport = self.begin(10, counts_present=False)
        transport.take(10)
        self.check(transport, 1)
        transport = self.begin(10, counts_present=False)
        self.clock.advance(LINGER)
        transport.take(10)
        self.check(transport, 2)

    def test_a_peer_that_receives_slowly(self) -> None:
        """Its time begins with the end, as far as that is known."""
        for counts in (True, False):
            transport = self.begin(1000, counts_present=counts)
            for _ in range(36):
                transport.take(1)
                self.clock.advance(LINGER)
            transport.take(transport.size)
            self.check(transport, 2)

    def test_a_peer_that_receives_no_more(self) -> None:
        for stall, periods in ((LINGER, 1), (60.0, 12)):
            for counts in (True, False):
                self.check(self.begin(1000, stall, counts_present=counts), periods)
                transport = self.begin(1000, stall, counts_present=counts)
                transport.take(1)
                self.clock.advance(LINGER)
                self.check(transport, periods)

    def test_another_way_to_give_up(self) -> None:
        ends: list[str] = []
        transport = self.begin(0, give_up=lambda: ends.append("given up"))
        self.clock.advance(LINGER)
        self.assertEqual((ends, transport.aborts), (["given up"], 0))

    def test_that_it_is_stopped(self) -> None:
        transport = self.begin(0)
        for _ in range(2):
            self.closing.stop()
        self.assertEqual((transport.aborts, self.clock.getDelayedCalls()), (0, []))

    def test_that_it_is_stopped_by_what_it_does(self) -> None:
        self.begin(0, give_up=lambda: self.closing.stop())
        self.clock.advance(LINGER)
        self.assertEqual(self.clock.getDelayedCalls(), [])
