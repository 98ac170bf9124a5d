from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.rpc.deadlines import Deadlines


class DeadlinesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.expired: list[str] = []
        self.deadlines: Deadlines[str] = Deadlines(self.clock, self.expired.append)

    def test_expires(self) -> None:
        self.deadlines.add("a", 1.0)
        self.clock.advance(0.99)
        self.assertEqual(self.expired, [])
        self.clock.advance(0.03)
        self.assertEqual(self.expired, ["a"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_discarded(self) -> None:
        time = self.deadlines.add("a", 1.0)
        self.deadlines.add("b", 1.0)
        self.deadlines.discard("a", time)
        self.clock.advance(2)
        self.assertEqual(self.expired, ["b"])
        self.deadlines.discard("b", time)

    def test_a_shorter_one_later(self) -> None:
        self.deadlines.add("a", 60)
        self.deadlines.add("b", 1)
        self.clock.advance(2)
        self.assertEqual(self.expired, ["b"])
        self.clock.advance(59)
        self.assertEqual(self.expired, ["b", "a"])

    def test_few_timers(self) -> None:
        for _ in range(1000):
            self.deadlines.add(str(len(self.deadlines._entries)), 60)
            self.clock.advance(0.001)
        self.assertLessEqual(len(self.deadlines._entries), 3)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_close(self) -> None:
        self.deadlines.close()
        time = self.deadlines.add("a", 1)
        self.deadlines.close()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.deadlines.discard("a", time)

    def test_expiring_may_change_everything(self) -> None:
        def expire(item: str) -> None:
            self.expired.append(item)
            for other in ("a", "b"):
                self.deadlines.discard(other, time)
            if len(self.expired) == 1:
                self.deadlines.add("c", 0.001)

        self.deadlines = Deadlines(self.clock, expire)
        time = self.deadlines.add("a", 1)
        self.deadlines.add("b", 1)
        self.clock.advance(1.1)
        self.assertEqual(len(self.expired), 1)
        self.clock.advance(0.1)
        self.assertEqual(self.expired[1:], ["c"])

    def test_close_while_expiring(self) -> None:
        self.deadlines = Deadlines(self.clock, lambda item: self.deadlines.close())
        self.deadlines.add("a", 1)
        self.deadlines.add("b", 60)
        self.clock.advance(2)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    @given(st.lists(st.tuples(st.floats(0.001, 1e5), st.floats(0, 100)), max_size=20))
    def test_never_early_and_not_much_too_late(self, steps: list[tuple[float, float]]) -> None:
        clock = Clock()
        wanted: dict[int, float] = {}

        def expire(item: int) -> None:
            self.assertGreaterEqual(clock.seconds(), wanted.pop(item) - 1e-6)

        deadlines: Deadlines[int] = Deadlines(clock, expire)
        for number, (seconds, pause) in enumerate(steps):
            wanted[number] = clock.seconds() + seconds
            time = deadlines.add(number, seconds)
            self.assertLessEqual(time, clock.seconds() + seconds + max(2**-7, seconds / 64) + 1e-6)
            clock.advance(pause)
        clock.advance(2e5)
        self.assertEqual(wanted, {})
