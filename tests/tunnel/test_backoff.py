"""Tests for L{reverseproxy.tunnel.agent.backoff}."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.backoff import Backoff


class Highest(Random):
    """Randomness that always chooses the upper end."""

    def uniform(self, a: float, b: float) -> float:
        return b


class BackoffTests(SynchronousTestCase):
    def test_ceiling_doubles_to_the_cap(self) -> None:
        backoff = Backoff(3.0, 60.0, Highest())
        self.assertEqual([backoff.failed() for _ in range(7)], [3, 6, 12, 24, 48, 60, 60])

    def test_reset_begins_anew(self) -> None:
        backoff = Backoff(3.0, 60.0, Highest())
        backoff.failed()
        backoff.failed()
        backoff.reset()
        self.assertEqual(backoff.failures, 0)
        self.assertEqual(backoff.failed(), 3.0)

    def test_cap_below_the_base_is_raised_to_it(self) -> None:
        self.assertEqual(Backoff(8.0, 1.0, Highest()).failed(), 8.0)

    @given(st.integers(0, 2**32), st.integers(1, 300))
    def test_jitter_is_full_and_never_above_the_cap(self, seed: int, failures: int) -> None:
        backoff = Backoff(1.0, 60.0, Random(seed))
        for number in range(failures):
            delay = backoff.failed()
            self.assertTrue(0.0 <= delay <= min(60.0, 2.0**number))

    @given(st.integers(0, 2**32))
    def test_a_lasting_failure_is_never_tried_again_at_once(self, seed: int) -> None:
        """But soon to begin with, and not often after a while."""
        backoff = Backoff(1.0, 60.0, Random(seed))
        for ceiling in (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0):
            delay = backoff.failed(lasting=True)
            self.assertTrue(ceiling / 2 <= delay <= ceiling, delay)

    def test_the_server_s_time(self) -> None:
        backoff = Backoff(1.0, 60.0, Highest())
        self.assertAlmostEqual(backoff.postponed(5.0), 5.5)
        self.assertEqual([backoff.postponed(each) for each in (59.9, 60.0, 1e9)], [60.0] * 3)
        self.assertAlmostEqual(backoff.postponed(0.001), 0.22)
        self.assertEqual(Backoff(0.1, 0.1, Highest()).postponed(0.001), 0.1)
        self.assertEqual(backoff.failures, 0)

    @given(st.integers(0, 2**32), st.floats(0.001, 86400.0))
    def test_the_server_s_time_is_spread_and_never_above_the_cap(self, seed: int, seconds: float) -> None:
        delay = Backoff(1.0, 60.0, Random(seed)).postponed(seconds)
        if seconds >= 60.0:
            self.assertTrue(30.0 <= delay <= 60.0)
        else:
            self.assertTrue(min(max(seconds, 0.2), 60.0) <= delay <= min(max(seconds, 0.2) * 1.1, 60.0))

    def test_jitter_spreads(self) -> None:
        delays = {round(Backoff(60.0, 60.0, Random(seed)).failed()) for seed in range(200)}
        self.assertGreater(len(delays), 40)
        self.assertLess(min(delays), 5)
        self.assertGreater(max(delays), 55)
