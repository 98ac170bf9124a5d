"""Tests for L{reverseproxy.workers.policy}: to which worker a connection moves."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.policy import LASTING, MARGIN, Standing, is_pressing, may_spare, to_give, to_owe

ages = st.floats(0, 600)
numbers = st.integers(0, 10_000)


class PressingTests(SynchronousTestCase):
    def test_where_nothing_is_under_way(self) -> None:
        self.assertTrue(is_pressing(0.0, True, 0))

    def test_who_has_none_does_not_wait(self) -> None:
        self.assertTrue(is_pressing(0.0, False, 100))

    def test_what_is_free_for_a_moment_stays(self) -> None:
        self.assertEqual(
            [is_pressing(age, True, 1) for age in (0.0, MARGIN, 2 * MARGIN)], [False, False, True]
        )


class StandingTests(SynchronousTestCase):
    """What has lasted counts, between workers that both have connections."""

    def test_the_least_of_a_while(self) -> None:
        standing = Standing()
        for step, age in enumerate((0.03, 0.02, 0.04, 0.05, 0.06, 0.07)):
            standing.note(step * 0.01, age)
        self.assertEqual(standing.least(0.05), 0.02)
        standing.note(0.07, 0.08)
        self.assertEqual(standing.least(0.07), 0.04)  # as it was when the time that counts began

    def test_not_known_for_long_enough(self) -> None:
        standing = Standing()
        self.assertEqual(standing.least(0.0), 0.0)
        standing.note(1.0, 10.0)
        self.assertEqual([standing.least(1.0), standing.least(1.0 + LASTING - 0.001)], [0.0, 0.0])
        self.assertEqual(standing.least(1.0 + LASTING), 10.0)

    def test_a_worker_that_was_not_given_the_processor(self) -> None:
        """Its requests have waited long at one moment, and hardly at all before and after."""
        standing = Standing()
        for step in range(20):
            standing.note(step * 0.01, 0.2 if step == 10 else 0.001)
            self.assertLessEqual(standing.least(step * 0.01), 0.001)

    def test_a_queue_that_empties_does_not_stand(self) -> None:
        standing = Standing()
        for step in range(20):
            standing.note(step * 0.01, 0.0 if step % 4 == 3 else 0.03)
            self.assertEqual(standing.least(step * 0.01), 0.0)

    @given(st.lists(st.tuples(st.floats(0.001, 0.1), ages), min_size=1, max_size=60))
    def test_bounds(self, steps: list[tuple[float, float]]) -> None:
        """Never more than any sample of the time that counts; and what is kept is bounded by that time."""
        standing, now, noted = Standing(), 0.0, []
        for pause, age in steps:
            now += pause
            standing.note(now, age)
            noted.append((now, age))
            recent = [each for when, each in noted if when >= now - LASTING]
            self.assertLessEqual(standing.least(now), min(recent))
            self.assertLessEqual(len(standing._samples), len(recent) + 1)

    def test_what_is_free_for_a_moment_is_not_spared(self) -> None:
        self.assertEqual(
            [may_spare(True, rested) for rested in (0.0, LASTING, 2 * LASTING)], [False, False, True]
        )
        self.assertTrue(may_spare(False, 0.0))


class GiveTests(SynchronousTestCase):
    def test_half_and_no_more_than_wait(self) -> None:
        cases = ((0, 5), (1, 5), (7, 5), (8, 5), (100, 5), (9, 0))
        self.assertEqual([to_give(free, waiting, free) for free, waiting in cases], [0, 1, 4, 4, 5, 0])

    def test_not_if_hardly_any_is_free(self) -> None:
        self.assertEqual([to_give(free, 100, 32) for free in (1, 4, 5, 16)], [0, 0, 3, 8])

    @given(numbers, numbers, numbers)
    def test_bounds(self, free: int, waiting: int, busy: int) -> None:
        self.assertTrue(0 <= to_give(free, waiting, free + busy) <= min(free, waiting))

    @given(numbers, numbers)
    def test_the_only_one_goes_as_well(self, free: int, waiting: int) -> None:
        """Or it would never."""
        self.assertEqual(to_give(free, waiting, free) > 0, free > 0 and waiting > 0)


class OweTests(SynchronousTestCase):
    def test_by_how_much_longer_it_has_waited(self) -> None:
        self.assertEqual(to_owe(0.1, 0.0, 100, 64), 16)
        self.assertEqual(to_owe(0.1, 0.05, 100, 64), 5)
        self.assertEqual(to_owe(0.1, 0.0, 3, 64), 3)

    def test_at_least_one(self) -> None:
        self.assertEqual(to_owe(0.1, 0.0, 10, 1), 1)

    def test_not_for_a_little(self) -> None:
        self.assertEqual(to_owe(MARGIN, 0.0, 10, 10), 0)
        self.assertEqual([to_owe(0.1, own, 10, 10) > 0 for own in (0.07, 0.08)], [True, False])

    @given(ages, ages, numbers, numbers)
    def test_bounds(self, age: float, own: float, waiting: int, connections: int) -> None:
        number = to_owe(age, own, waiting, connections)
        self.assertTrue(0 <= number <= min(waiting, connections))

    @given(ages, ages, numbers, numbers)
    def test_never_both_ways(self, one: float, other: float, waiting: int, connections: int) -> None:
        """Connections don't go to and fro between two that wait for them."""
        both = to_owe(one, other, waiting, connections), to_owe(other, one, waiting, connections)
        self.assertIn(0, both)

    @given(ages, ages, ages, numbers, numbers)
    def test_who_waits_longer_is_owed_no_less(
        self, age: float, more: float, own: float, waiting: int, connections: int
    ) -> None:
        less = to_owe(age, own, waiting, connections)
        self.assertGreaterEqual(to_owe(age + more, own, waiting, connections), less)
