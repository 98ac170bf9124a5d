"""Tests for L{reverseproxy.cluster.balancers.slow_start}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.slow_start import SlowStart

STARTS = st.builds(SlowStart, st.floats(0, 1000), st.floats(0.05, 20), st.floats(0.001, 1))


class SlowStartTests(SynchronousTestCase):
    def test_even(self) -> None:
        """The weight grows evenly by default, from the least part on."""
        start = SlowStart(100.0)
        for age, factor in ((0, 0.1), (10, 0.1), (50, 0.5), (99, 0.99), (100, 1.0), (1e9, 1.0)):
            self.assertAlmostEqual(start.factor(age), factor)

    def test_aggression(self) -> None:
        """Above 1 the beginning is faster, below 1 slower."""
        self.assertAlmostEqual(SlowStart(100.0, aggression=2.0).factor(25), 0.5)
        self.assertAlmostEqual(SlowStart(100.0, aggression=0.5).factor(50), 0.25)

    def test_first_second(self) -> None:
        """A host is a second old at the least, as in MOSN."""
        start = SlowStart(10.0, least=0.01)
        self.assertEqual(start.factor(0), start.factor(1))
        self.assertAlmostEqual(start.factor(0), 0.1)
        self.assertEqual(SlowStart(1.0).factor(0), 1.0)

    @given(STARTS, st.floats(0, 2000), st.floats(0, 2000))
    def test_monotone(self, start: SlowStart, one: float, other: float) -> None:
        """The weight never shrinks with age, and is always a part of the whole one."""
        younger, older = sorted((one, other))
        self.assertLessEqual(start.factor(younger), start.factor(older))
        for age in (one, other):
            self.assertTrue(0 < start.factor(age) <= 1)
        self.assertEqual(start.factor(start.window), 1.0)
