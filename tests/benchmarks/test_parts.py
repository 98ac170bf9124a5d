from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.parts import group_rates


class GroupRatesTests(SynchronousTestCase):
    """L{group_rates} takes half of the slower one's peak."""

    def test_fasterOnesShareHalfOfTheBase(self) -> None:
        self.assertEqual(
            group_rates({"base": 20_050.0, "a": 40_000.0, "b": 30_000.0}, "base"),
            {10_000.0: ["base", "a", "b"]},
        )

    def test_slowerOnesHaveTheirOwn(self) -> None:
        self.assertEqual(
            group_rates({"base": 20_000.0, "fast": 40_000.0, "slow": 8_000.0}, "base"),
            {4_000.0: ["base", "slow"], 10_000.0: ["base", "fast"]},
        )

    def test_almostTheSameIsTheSame(self) -> None:
        self.assertEqual(
            group_rates({"base": 20_000.0, "fast": 40_000.0, "slow": 19_000.0}, "base"),
            {9_500.0: ["base", "slow", "fast"]},
        )

    def test_withoutTheBase(self) -> None:
        self.assertEqual(group_rates({"a": 10_000.0}, "base"), {5_000.0: ["a"]})
