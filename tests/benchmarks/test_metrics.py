"""Tests for L{benchmarks.metrics}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.metrics import ratio
from benchmarks.model import interval


class CompareTests(SynchronousTestCase):
    def test_sites_that_differ(self) -> None:
        """What one site costs more than the other makes no difference, nor does a slower machine."""
        self.assertAlmostEqual(ratio([110.0, 150.0], [200.0, 330.0]), 0.1)
        self.assertAlmostEqual(ratio([100.0, 150.0], [100.0, 150.0]), 0.0)

    def test_interval(self) -> None:
        """The median lies between the 40th and the 61st of a hundred; of few rounds, anywhere among them."""
        self.assertEqual(interval([3.0, 1.0, 2.0]), (1.0, 3.0))
        low, high = interval([number / 100 for number in range(101)])
        self.assertLess(low, 0.5)
        self.assertGreater(high, 0.5)
        self.assertEqual((round(low, 2), round(high, 2)), (0.4, 0.61))
