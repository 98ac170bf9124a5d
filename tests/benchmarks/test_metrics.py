"""Tests for L{benchmarks.metrics}: rounds are compared with those beside them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.metrics import compare
from benchmarks.model import interval


class CompareTests(SynchronousTestCase):
    def test_rounds_side_by_side(self) -> None:
        """A machine that becomes slower and slower makes no difference."""
        more, noise = compare([100.0, 110.0, 121.0, 110.0, 200.0, 220.0])
        self.assertEqual([round(each, 3) for each in more], [0.1, 0.1, 0.1])
        self.assertEqual([round(each, 3) for each in noise], [0.1, 0.818])

    def test_interval(self) -> None:
        """The median lies between the 40th and the 61st of a hundred; of few rounds, anywhere among them."""
        self.assertEqual(interval([3.0, 1.0, 2.0]), (1.0, 3.0))
        low, high = interval([number / 100 for number in range(101)])
        self.assertLess(low, 0.5)
        self.assertGreater(high, 0.5)
        self.assertEqual((round(low, 2), round(high, 2)), (0.4, 0.61))
