"""Tests for L{reverseproxy.clock}."""

from __future__ import annotations

import time
from typing import Any

from twisted.internet.selectreactor import SelectReactor
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.clock import use_monotonic_time


class WallReactor(SelectReactor):
    """One that nobody runs, with a wall clock that is set by hand."""

    wall = 1_784_030_400.0

    def seconds(self) -> float:
        return self.wall


class MonotonicTimeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor: Any = WallReactor()
        self.addCleanup(self.reactor.disconnectAll)

    def test_steps_of_the_wall_clock_change_nothing(self) -> None:
        use_monotonic_time(self.reactor)
        call = self.reactor.callLater(5, lambda: None)
        for step in (-7200.0, 7200.0):
            self.reactor.wall += step
            self.assertApproximates(self.reactor.timeout(), 5.0, 1.0)
            self.assertApproximates(call.getTime() - time.monotonic(), 5.0, 1.0)

    def test_pending_calls_keep_their_delays(self) -> None:
        called: list[int] = []
        delays = [50, 0, 30, 7]
        calls = {delay: self.reactor.callLater(delay, called.append, delay) for delay in delays}
        calls[30].delay(5)
        self.reactor.runUntilCurrent()  # which puts them into the heap
        pending = self.reactor.callLater(9, called.append, 9)
        use_monotonic_time(self.reactor)
        del calls[0]
        for delay, call in ((50, calls[50]), (35, calls[30]), (7, calls[7]), (9, pending)):
            self.assertApproximates(call.getTime() - time.monotonic(), delay, 1.0)
        calls[50].reset(3)
        self.assertApproximates(self.reactor.timeout(), 3.0, 1.0)
        for call in (*calls.values(), pending):
            call.reset(0)
        self.reactor.runUntilCurrent()
        self.assertEqual(sorted(called), [0, 7, 9, 30, 50])

    def test_once_is_enough(self) -> None:
        use_monotonic_time(self.reactor)
        call = self.reactor.callLater(5, lambda: None)
        use_monotonic_time(self.reactor)
        self.assertApproximates(call.getTime() - time.monotonic(), 5.0, 1.0)

    def test_only_reactors(self) -> None:
        clock = Clock()
        use_monotonic_time(clock)
        clock.advance(3)
        self.assertEqual(clock.seconds(), 3)

    def test_no_other_reactor(self) -> None:
        use_monotonic_time(self.reactor)
        other: Any = WallReactor()
        self.addCleanup(other.disconnectAll)
        self.assertEqual(other.seconds(), WallReactor.wall)
