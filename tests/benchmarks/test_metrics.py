"""Tests for L{benchmarks.metrics}: rounds are compared with those beside them."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.metrics import compare


class CompareTests(SynchronousTestCase):
    def test_rounds_side_by_side(self) -> None:
        """A machine that becomes slower and slower makes no difference."""
        more, noise = compare([100.0, 110.0, 121.0, 110.0, 200.0, 220.0])
        self.assertEqual([round(each, 3) for each in more], [0.1, 0.1, 0.1])
        self.assertEqual([round(each, 3) for each in noise], [0.1, 0.818])
