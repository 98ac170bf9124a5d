"""Tests for L{reverseproxy.net.time_share}."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.net import time_share as time_share_module
from reverseproxy.net.time_share import AT_ONCE, QueuedStep, TimeShare

STEP = 0.002
"""Seconds that a step takes."""


class TimeShareTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.overflows: list[None] = []
        self.share = TimeShare(
            self.clock, 0.5, "of them", "one of them failed", lambda: self.overflows.append(None)
        )
        self.taken: list[str] = []
        self.dropped: list[str] = []

    def work(self, name: str) -> None:
        """Take a step, which takes its time; timers wait meanwhile."""
        self.taken.append(name)
        self.clock.rightNow += STEP

    def ask(self, address: str, name: str, work: Callable[[], object] | None = None) -> QueuedStep | None:
        return self.share.ask(
            address, work or partial(self.work, name), lambda reason: self.dropped.append(name)
        )

    def test_at_once_while_there_is_time(self) -> None:
        for number in range(10):
            self.assertIsNone(self.ask("a", str(number)))
            self.clock.advance(2 * STEP)
        self.assertEqual((len(self.taken), self.clock.getDelayedCalls()), (10, []))

    def test_no_more_than_their_share(self) -> None:
        for number in range(1000):
            self.ask("a", str(number))
        self.assertLessEqual(len(self.taken), AT_ONCE / STEP / 0.5 + 1)
        before, began = len(self.taken), self.clock.seconds()
        longest = 0.0
        while self.clock.seconds() < began + 1.0:
            at = self.clock.seconds()
            self.clock.advance(0.0005)
            longest = max(longest, self.clock.seconds() - at)
        worked = (len(self.taken) - before) * STEP
        self.assertApproximates(worked, 0.5, 0.02)
        # One step at a time, with something else to do in between.
        self.assertLess(longest, 2 * STEP)
        self.assertEqual(self.taken, [str(number) for number in range(len(self.taken))])

    def test_addresses_take_turns(self) -> None:
        for number in range(100):
            self.ask("many", f"many {number}")
        self.ask("one", "one")
        self.assertNotIn("one", self.taken)
        before = len(self.taken)
        while "one" not in self.taken:
            self.clock.advance(0.0005)
        self.assertLessEqual(len(self.taken) - before, 2)

    def test_cancelled(self) -> None:
        for number in range(5):
            self.ask("a", str(number))
        waiting = self.ask("b", "gone")
        assert waiting is not None
        waiting.cancel()
        waiting.cancel()
        self.clock.pump([0.001] * 100)
        self.assertNotIn("gone", self.taken)
        waiting.cancel()
        self.assertEqual((len(self.share), self.clock.getDelayedCalls()), (0, []))

    def test_the_last_of_the_address_with_most_is_dropped(self) -> None:
        self.patch(time_share_module, "MOST", 10)
        for number in range(30):
            self.ask("many", f"many {number}")
        most = len(self.share)
        self.assertEqual(most, 10)
        self.assertIsNotNone(self.ask("one", "one"))
        self.assertEqual(len(self.share), 10)
        self.assertEqual(len(self.taken) + len(self.dropped) + 10, 31)
        self.assertEqual(len(self.overflows), len(self.dropped))
        self.assertNotIn("one", self.dropped)
        self.clock.pump([0.001] * 200)
        self.assertIn("one", self.taken)
        # Whoever came first is served first: nobody waits for ever.
        self.assertEqual(self.taken[:5], [f"many {number}" for number in range(5)])

    def test_others_go_on_after_a_failure(self) -> None:
        for number in range(5):
            self.ask("a", str(number))
        self.ask("a", "bad", lambda: 1 / 0)
        self.ask("a", "good")
        self.clock.pump([0.001] * 100)
        self.assertEqual((self.dropped, self.taken[-1]), (["bad"], "good"))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
