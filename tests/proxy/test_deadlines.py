"""Tests for L{reverseproxy.proxy.http.deadlines}."""

from __future__ import annotations

from math import inf
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.http.deadlines import (
    LOOKS,
    Clock,
    ExchangeState,
    FrameWatch,
    Pace,
    ProgressWatch,
    TimeLimits,
)
from reverseproxy.proxy.http.deadlines import (
    ExchangeStage as Stage,
)

LIMITS = TimeLimits(60.0, 300.0)


def state(stage: Stage, **more: Any) -> ExchangeState:
    known: dict[str, Any] = {
        "asked_at": inf if stage is Stage.REQUEST else 0.0,
        "attempt": 1,
        "moved": 0,
        "taken": 0,
        "unsettled": False,
        "excused": False,
    }
    return ExchangeState(stage, **{**known, **more})


class PaceTests(SynchronousTestCase):
    def test_counts_quiet_looks_in_a_row(self) -> None:
        pace = Pace()
        self.assertEqual([pace.look(seen) for seen in (1, 1, 1, 2, 2)], [0, 1, 2, 0, 1])

    def test_an_excuse_counts_as_movement(self) -> None:
        pace = Pace()
        self.assertEqual([pace.look(1, excused) for excused in (False, False, True, False)], [0, 1, 0, 1])


class WatchTests(SynchronousTestCase):
    def test_what_moves_may_take_any_time(self) -> None:
        for stage in (Stage.REQUEST, Stage.RESPONSE):
            watch, now = ProgressWatch(), 0.0
            for look in range(1000):
                # The last look before it would be over finds a single byte.
                found = watch.look(now, LIMITS, state(stage, moved=look // LOOKS))
                self.assertEqual(found, now + 75.0)
                now += 75.0

    def test_what_stands_still_is_over(self) -> None:
        for stage in (Stage.REQUEST, Stage.RESPONSE):
            watch = ProgressWatch()
            found = [watch.look(now, LIMITS, state(stage)) for now in (0.0, 75.0, 150.0, 225.0, 300.0)]
            self.assertEqual(found, [75.0, 150.0, 225.0, 300.0, Clock.IDLE])

    def test_a_leap_of_the_clock_is_one_look(self) -> None:
        watch = ProgressWatch()
        watch.look(0.0, LIMITS, state(Stage.RESPONSE))
        self.assertEqual(watch.look(1e6, LIMITS, state(Stage.RESPONSE)), 1e6 + 75.0)

    def test_what_others_judge_is_never_over(self) -> None:
        watch = ProgressWatch()
        for now in range(0, 10_000, 75):
            self.assertEqual(watch.look(now, LIMITS, state(Stage.RESPONSE, excused=True)), now + 75.0)

    def test_no_limit(self) -> None:
        limits = TimeLimits(inf, inf)
        for stage in Stage:
            self.assertEqual(ProgressWatch().look(0.0, limits, state(stage)), inf)

    def test_the_response_must_begin(self) -> None:
        watch = ProgressWatch()
        self.assertEqual(watch.look(15.0, LIMITS, state(Stage.WAIT)), 60.0)
        self.assertIs(watch.look(60.0, LIMITS, state(Stage.WAIT)), Clock.BEGIN)

    def test_the_wait_begins_when_the_host_has_taken_the_request(self) -> None:
        watch = ProgressWatch()
        for number in range(100):
            now = 15.0 * number
            found = watch.look(now, LIMITS, state(Stage.WAIT, taken=number, unsettled=True))
            self.assertEqual(found, now + 15.0)
        self.assertEqual(watch.look(1500.0, LIMITS, state(Stage.WAIT, taken=None)), 1560.0)
        self.assertIs(watch.look(1560.0, LIMITS, state(Stage.WAIT, taken=None)), Clock.BEGIN)

    def test_a_host_that_takes_nothing_more(self) -> None:
        watch = ProgressWatch()
        for now in (0.0, 15.0, 30.0, 45.0):
            watch.look(now, LIMITS, state(Stage.WAIT, taken=7, unsettled=True))
        self.assertIs(watch.look(60.0, LIMITS, state(Stage.WAIT, taken=7, unsettled=True)), Clock.BEGIN)

    def test_another_attempt_gets_no_more_time(self) -> None:
        watch = ProgressWatch()
        watch.look(15.0, LIMITS, state(Stage.WAIT, taken=1))
        self.assertIs(watch.look(60.0, LIMITS, state(Stage.WAIT, attempt=2, taken=2)), Clock.BEGIN)

    def test_the_whole_response(self) -> None:
        limits = LIMITS._replace(to_the_end=True)
        watch = ProgressWatch()
        self.assertEqual(watch.look(30.0, limits, state(Stage.RESPONSE)), 60.0)
        self.assertIs(watch.look(60.0, limits, state(Stage.RESPONSE, moved=1)), Clock.END)
        self.assertIs(ProgressWatch().look(60.0, limits, state(Stage.WAIT, unsettled=True)), Clock.END)
        # As long as the request is coming, that time has not begun.
        self.assertEqual(ProgressWatch().look(99.0, limits, state(Stage.RESPONSE, asked_at=inf)), 174.0)

    def test_attempts(self) -> None:
        watch = ProgressWatch()
        self.assertEqual(watch.attempt_ends(5.0, 2.0, 1.0, state(Stage.REQUEST)), 7.0)
        self.assertEqual(watch.attempt_ends(5.0, 2.0, 1.0, state(Stage.WAIT)), 3.0)
        self.assertEqual(watch.attempt_ends(5.0, 2.0, 1.0, state(Stage.WAIT, asked_at=4.5)), 6.5)
        self.assertEqual(watch.attempt_ends(6.0, 2.0, 1.0, state(Stage.WAIT, taken=1)), 8.0)


class FrameWatchTests(SynchronousTestCase):
    def test_the_frame_that_came_first(self) -> None:
        watch = FrameWatch()
        self.assertFalse(watch.follows(None))
        self.assertTrue(watch.follows((3, 100)))
        self.assertTrue(watch.follows((3, 200)))
        self.assertFalse(watch.follows((4, 10)))
