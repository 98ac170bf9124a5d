"""Tests for L{reverseproxy.logs.bounds}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.logs.bounds import KIND_BURST, KIND_PER_SECOND, KINDS, RARE, LogBounds

HOUR = 3600.0


class LogBoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 1000.0

    def bounds(self, per_hour: float = 1_000_000) -> LogBounds:
        return LogBounds(per_hour, lambda: self.now)

    def write(self, bounds: LogBounds, kind: object, size: int = 200) -> bool:
        if bounds.ask(kind) < 0:
            return False
        bounds.wrote(size)
        return True

    def test_one_kind(self) -> None:
        """A burst, then some in the long run; how many were left out is said once."""
        bounds = self.bounds()
        written = sum(self.write(bounds, "bad head") for _ in range(10_000))
        self.assertEqual(written, KIND_BURST)
        self.now += 1 / KIND_PER_SECOND + 0.01
        self.assertEqual(bounds.ask("bad head"), 10_000 - KIND_BURST)
        bounds.wrote(200)
        self.assertEqual(bounds.ask("bad head"), -1)
        self.assertEqual(bounds.left_out, 10_001 - KIND_BURST)

    def test_another_kind_is_heard(self) -> None:
        """Even if all kinds that there are flood, one that did not is written."""
        bounds = self.bounds(100_000)
        for kind in range(50):
            for _ in range(1000):
                self.write(bounds, kind)
        self.assertTrue(self.write(bounds, "stopping"))
        self.assertFalse(self.write(bounds, "stopping"))
        self.now += RARE
        self.assertTrue(self.write(bounds, "stopping"))

    def test_clock_that_is_set_back(self) -> None:
        bounds = self.bounds()
        self.assertTrue(self.write(bounds, 1))
        self.now -= 500
        self.assertTrue(self.write(bounds, 1))

    def test_kinds_are_bounded(self) -> None:
        bounds = self.bounds()
        for kind in range(3 * KINDS):
            bounds.ask(kind)
        self.assertLessEqual(len(bounds._kinds), KINDS + 1)

    @given(
        st.lists(
            st.tuples(st.integers(0, 40), st.integers(1, 3000), st.sampled_from([0.0, 0.001, 1.0, 60.0])),
            max_size=400,
        )
    )
    def test_an_hour(self, events: list[tuple[int, int, float]]) -> None:
        """Whatever comes, no hour has more than it may, but for the last line of each share."""
        self.now = 0.0
        limit = 20_000
        bounds = self.bounds(limit)
        written = 0
        for kind, size, pause in events:
            self.now += pause
            if self.now > HOUR:
                break
            if self.write(bounds, kind, size):
                written += size
        self.assertLessEqual(written, limit + 2 * 3000)
