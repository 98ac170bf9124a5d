"""Tests for L{reverseproxy.fleet.retry_loop}, with a simulated clock."""

from __future__ import annotations

from random import Random

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.retry_loop import RetryLoop
from reverseproxy.tunnel.agent.backoff import Backoff


class RoutineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.steps = 0
        self.errors: list[Exception] = []
        self.problem: Exception | None = None
        self.wakes = True
        backoff = Backoff(1.0, 4.0, Random(1))
        self.routine = RetryLoop(self.clock, backoff, self.step, self.failed, "no more of it")
        self.routine.start()

    async def step(self) -> None:
        """Wait a minute, or fail."""
        self.steps += 1
        if self.problem is not None:
            raise self.problem
        await self.routine.wait(60, self.wakes)

    async def failed(self, error: Exception) -> None:
        """Take note of a failure."""
        self.errors.append(error)
        await self.routine.pause()

    def test_again_and_again(self) -> None:
        self.clock.pump([60] * 3)
        self.assertEqual(self.steps, 4)

    def test_woken(self) -> None:
        """Out of a wait that can be ended, and of no other."""
        self.wakes = False
        self.routine.wake()
        self.assertEqual(self.steps, 2)
        self.routine.wake()
        self.assertEqual(self.steps, 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_failures(self) -> None:
        """It goes on, after waits that grow."""
        self.problem = ValueError("x")
        self.routine.wake()
        self.clock.pump([0.5] * 100)
        self.assertGreater(len(self.errors), 10)
        self.assertLess(len(self.errors), 60)
        self.assertEqual(self.routine.backoff.failures, len(self.errors))

    def test_stopped(self) -> None:
        """Nothing is left of it, and it may begin anew."""
        self.routine.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.routine.wake()
        self.assertEqual(self.steps, 1)
        self.routine.start()
        self.assertEqual(self.steps, 2)
        self.routine.stop()

    def test_what_a_request_fails_with_when_it_is_cancelled(self) -> None:
        """It is none of its failures."""

        async def step() -> None:
            self.routine.alive = False
            raise ValueError("cancelled")

        self.routine.stop()
        self.routine._step = step
        self.routine.start()
        self.assertEqual(self.errors, [])
        self.assertEqual(self.flushLoggedErrors(), [])

    def test_mistake_in_what_sees_to_failures(self) -> None:
        """It is in the log."""

        async def failed(error: Exception) -> None:
            raise RuntimeError("a mistake")

        self.routine._failed = failed
        self.problem = ValueError("x")
        self.routine.wake()
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])
