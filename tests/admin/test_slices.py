"""Tests for L{reverseproxy.admin.slices}: long work in short turns."""

from __future__ import annotations

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.slices import SLICE, Steps, at_once, in_slices, portions
from tests.admin.world import World


class SlicesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.done = 0

    def work(self, steps: int, takes: float, fails: bool = False) -> Steps[str]:
        for _ in range(steps):
            self.clock.rightNow += takes
            self.done += 1
            yield
        if fails:
            raise ValueError("wrong")
        return "all"

    def test_short(self) -> None:
        """What takes no time is done in the turn in which it is asked for."""
        self.assertEqual(self.successResultOf(in_slices(self.work(1000, 0.0), self.clock)), "all")

    def test_long(self) -> None:
        """No turn goes on for much longer than it may, and all others come in between."""
        result = in_slices(self.work(10, SLICE / 2), self.clock)
        turns = [self.done]
        while not result.called:
            [turn] = self.clock.getDelayedCalls()
            self.clock.calls.clear()  # as Clock.advance() would go on as long as there are some
            turn.func()
            turns.append(self.done)
        self.assertEqual(turns, [2, 4, 6, 8, 10, 10])
        self.assertEqual(self.successResultOf(result), "all")

    def test_failure(self) -> None:
        result = in_slices(self.work(2, SLICE, True), self.clock)
        self.clock.pump([0, 0])
        self.failureResultOf(result, ValueError)
        self.assertRaises(ValueError, at_once, self.work(2, SLICE, True))

    def test_cancelled(self) -> None:
        """Nobody works for somebody who has gone."""
        result = in_slices(self.work(10, SLICE), self.clock)
        result.cancel()
        self.failureResultOf(result, CancelledError)
        self.assertEqual((self.done, self.clock.getDelayedCalls()), (1, []))

    def test_much_work(self) -> None:
        """However much there is, a turn takes no longer, and all work goes on."""
        works = [in_slices(self.work(4, SLICE / 2), self.clock) for _ in range(20)]
        self.assertEqual(self.done, 2)
        turns = 1
        while self.clock.getDelayedCalls():
            [turn] = self.clock.getDelayedCalls()
            self.clock.calls.clear()
            before = self.done
            turn.func()
            self.assertLessEqual(self.done - before, 3)
            turns += 1
            if turns == 21:
                self.assertFalse(any(work.called for work in works[1:]))
        self.assertEqual([self.successResultOf(work) for work in works], ["all"] * 20)

    def test_work_after_work(self) -> None:
        """What is asked for when something is done is done in the same turn, if there is time."""
        results: list[str] = []

        def then(result: str) -> None:
            results.append(result)
            in_slices(self.work(1, 0.0), self.clock).addCallback(results.append)

        in_slices(self.work(1, 0.0), self.clock).addCallback(then)
        self.assertEqual((results, self.clock.getDelayedCalls()), (["all", "all"], []))
        # Nothing is kept of what has failed.
        self.failureResultOf(in_slices(self.work(1, 0.0, True), self.clock), ValueError)
        self.assertEqual(self.successResultOf(in_slices(self.work(1, 0.0), self.clock)), "all")

    def test_at_once(self) -> None:
        self.assertEqual(at_once(self.work(10, SLICE)), "all")


class PortionsTests(SynchronousTestCase):
    def test_everything_once(self) -> None:
        numbers = dict.fromkeys(range(10))
        found = portions(numbers.keys(), 4, lambda: 0)
        self.assertEqual(list(found), [[0, 1, 2, 3], [4, 5, 6, 7], [8, 9]])
        self.assertEqual(list(portions({}.values(), 4, lambda: 0)), [])

    def test_what_comes_and_leaves_meanwhile(self) -> None:
        """It is not known who has left, so that as many are given twice; but none is left out."""
        numbers, left = dict.fromkeys(range(10)), [5]
        found = portions(numbers.keys(), 4, lambda: left[0])
        self.assertEqual(next(found), [0, 1, 2, 3])
        del numbers[9]
        left[0] += 1
        self.assertEqual(next(found), [3, 4, 5, 6])
        numbers[10] = None
        self.assertEqual(next(found), [7, 8, 10])
        del numbers[0]
        left[0] += 1
        numbers[11] = None
        self.assertEqual(list(found), [[11]])

    def test_all_leave(self) -> None:
        numbers, left = dict.fromkeys(range(10)), [0]
        found = portions(numbers.keys(), 4, lambda: left[0])
        next(found)
        numbers.clear()
        left[0] = 10
        self.assertEqual(list(found), [])


class ChangesMeanwhileTests(SynchronousTestCase):
    """What a long answer is about comes and goes while it is made."""

    def test_an_agent_leaves(self) -> None:
        world = World()
        agents = [world.agent(host_name=f"box-{number}") for number in range(3)]
        inspector, cluster = world.proxy.inspector, world.proxy.clusters.get("clientCluster")
        questions = {
            "agents": {"limit": 100},
            "clusters": {},
            "hosts": {"cluster": "clientCluster"},
            "metrics": {},
            "agent_metrics": {},
        }
        for question, arguments in questions.items():
            steps = inspector.begin(question, arguments)
            next(steps)
            for host in list(cluster.hosts.values()):
                cluster.remove_host(host, "gone")
            at_once(steps)
            world.reactor.advance(30)
            world.reactor.settle()
            self.assertEqual(len(cluster.hosts), len(agents), question)
