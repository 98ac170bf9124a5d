"""Tests for L{reverseproxy.transport.portions}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.portions import FEWEST, LARGEST, LONG, MOST, SHORT, SMALLEST, Portions


class PortionsTests(SynchronousTestCase):
    def test_long_turns(self) -> None:
        portions = Portions()
        self.assertEqual(portions.size, LARGEST)
        portions.turned(LONG * 1.1)
        self.assertEqual((portions.size, portions.events, portions.full), (LARGEST // 2, MOST // 2, False))
        for _ in range(20):
            portions.turned(1.0)
        self.assertEqual((portions.size, portions.events), (SMALLEST, FEWEST))

    def test_short_turns(self) -> None:
        portions = Portions()
        portions.turned(1.0)
        portions.turned((LONG + SHORT) / 2)
        self.assertEqual(portions.size, LARGEST // 2)
        portions.turned(SHORT / 2)
        portions.turned(SHORT / 2)
        self.assertEqual((portions.size, portions.events, portions.full), (LARGEST, MOST, True))

    @given(st.lists(st.floats(0, 1)))
    def test_bounds(self, turns: list[float]) -> None:
        portions = Portions()
        for seconds in turns:
            portions.turned(seconds)
            self.assertTrue(SMALLEST <= portions.size <= LARGEST)
            self.assertEqual(LARGEST % portions.size, 0)
            self.assertTrue(FEWEST <= portions.events <= MOST)
            self.assertEqual(portions.full, portions.size == LARGEST and portions.events == MOST)
