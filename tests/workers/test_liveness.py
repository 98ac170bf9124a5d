"""Workers that hang, workers that are only slow, and workers that are replaced in turn."""

from __future__ import annotations

import os
from collections.abc import Hashable

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.liveness import (
    ASK,
    LOOK,
    PATIENCE,
    STARTING,
    STARVED,
    LivenessChecks,
    ProcessStats,
    read_process_stats,
)
from reverseproxy.workers.renewal import Renewal

ASLEEP = ProcessStats("S", 1.0)


class RoundsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Hashable] = []
        self.hung: list[tuple[Hashable, float, float]] = []
        self.lives: dict[int, ProcessStats | None] = {1: ASLEEP, 2: ASLEEP}
        self.rounds = LivenessChecks(
            self.clock,
            self.asked.append,
            lambda worker, seconds: self.hung.append((worker, seconds, self.clock.seconds())),
            self.lives.get,
        )
        self.rounds.start()
        self.addCleanup(self.rounds.stop)
        for pid, worker in ((1, "one"), (2, "two")):
            self.rounds.watch(worker, pid)
            self.rounds.heard(worker)

    def turn(self, seconds: float, *answering: str) -> None:
        for _ in range(round(seconds / LOOK)):
            self.asked.clear()
            self.clock.advance(LOOK)
            for worker in answering:
                if worker in self.asked:
                    self.rounds.heard(worker)

    def test_those_that_answer(self) -> None:
        self.turn(60, "one", "two")
        self.assertEqual(self.hung, [])

    def test_how_often_they_are_asked(self) -> None:
        count = 0
        for _ in range(20):
            self.asked.clear()
            self.clock.advance(LOOK)
            count += self.asked.count("one")
            for worker in self.asked:
                self.rounds.heard(worker)
        self.assertEqual(count, round(20 * LOOK / ASK))

    def test_one_that_is_stopped(self) -> None:
        """Whenever that happens, it takes no more than five seconds until it is known."""
        for answered in range(1, 8):
            self.setUp()
            self.lives[1] = ProcessStats("T", 1.0)
            self.turn(answered * LOOK, "one", "two")
            self.turn(10, "two")
            [(worker, _, when)] = self.hung
            self.assertEqual(worker, "one")
            self.assertLessEqual(when - answered * LOOK, 5.0)

    def test_one_in_an_endless_loop(self) -> None:
        for _ in range(10):
            life = self.lives[1]
            assert life is not None
            self.lives[1] = ProcessStats("R", life.used + LOOK)
            self.turn(LOOK, "two")
        self.assertEqual([worker for worker, *_ in self.hung], ["one"])

    def test_one_that_waits_for_the_processor(self) -> None:
        for _ in range(20):
            life = self.lives[1]
            assert life is not None
            self.lives[1] = ProcessStats("R", life.used + LOOK / 10)
            self.turn(LOOK, "two")
        self.assertEqual(self.hung, [])
        self.turn(STARVED, "two")
        self.assertEqual([worker for worker, *_ in self.hung], ["one"])

    def test_where_the_kernel_tells_nothing(self) -> None:
        self.lives[1] = None
        self.turn(ASK + PATIENCE + LOOK, "two")
        self.assertEqual([worker for worker, *_ in self.hung], ["one"])

    def test_it_was_us_who_stood_still(self) -> None:
        self.turn(1)
        self.clock.advance(3600)
        self.assertEqual(self.hung, [])
        self.turn(PATIENCE - LOOK)
        self.assertEqual(self.hung, [])
        for worker in ("one", "two"):
            self.rounds.heard(worker)
        self.turn(10, "one", "two")
        self.assertEqual(self.hung, [])

    def test_they_were_given_something_to_do(self) -> None:
        self.rounds.excuse(20)
        self.turn(19.5)
        self.assertEqual(self.hung, [])
        self.turn(1)
        self.assertEqual(len(self.hung), 2)

    def test_one_that_is_starting(self) -> None:
        self.rounds.watch("three", 2)
        self.turn(STARTING - LOOK, "one", "two")
        self.assertEqual(self.hung, [])
        self.turn(2 * LOOK, "one", "two")
        self.assertEqual([worker for worker, *_ in self.hung], ["three"])

    def test_one_that_is_gone(self) -> None:
        self.turn(2, "two")
        self.rounds.forget("one")
        self.rounds.heard("one")
        self.turn(10, "two")
        self.assertEqual(self.hung, [])


class LifeTests(SynchronousTestCase):
    def test_our_own(self) -> None:
        life = read_process_stats(os.getpid())
        assert life is not None
        self.assertEqual(life.state, "R")
        self.assertGreater(life.used, 0.0)

    def test_of_nobody(self) -> None:
        self.assertIsNone(read_process_stats(2**30))


class RenewalTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.replaced: list[int] = []
        self.away: set[int] = set()
        self.renewal = Renewal(self.replace)

    def replace(self, number: int) -> bool:
        if number in self.away:
            return False
        self.replaced.append(number)
        return True

    def test_one_after_the_other(self) -> None:
        self.assertEqual(self.renewal.add([1, 2, 3]), [1, 2, 3])
        self.assertEqual(self.replaced, [1])
        self.renewal.ready(3)  # such as after a crash
        self.assertEqual(self.replaced, [1])
        for number in (1, 2):
            self.renewal.ready(number)
        self.assertEqual(self.replaced, [1, 2, 3])
        self.assertTrue(self.renewal.under_way)
        self.renewal.ready(3)
        self.assertFalse(self.renewal.under_way)

    def test_each_of_them_once(self) -> None:
        self.renewal.add([1, 2])
        self.assertEqual(self.renewal.add([2, 1]), [])
        self.renewal.ready(1)
        self.assertEqual(self.renewal.add([1]), [1])
        self.renewal.ready(2)
        self.assertEqual(self.replaced, [1, 2, 1])

    def test_one_that_is_away(self) -> None:
        self.away = {1, 3}
        self.renewal.add([1, 2, 3])
        self.assertEqual(self.replaced, [2])
        self.renewal.ready(2)
        self.assertFalse(self.renewal.under_way)
