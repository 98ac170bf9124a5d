"""Tests for L{reverseproxy.tunnel.server.joins}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.handshake import Hangup, Refusal
from reverseproxy.tunnel.server.joins import LONG_PATIENCE, PATIENCE, JoinGate, JoinRate
from reverseproxy.wire.mosn.frames import Status


class GateTests(SynchronousTestCase):
    def test_without_a_limit(self) -> None:
        gate = JoinGate(0)
        self.assertEqual([gate.ask(0.0, 0.0) for _ in range(10_000)], [0.0] * 10_000)

    def test_a_burst_and_then_evenly(self) -> None:
        gate = JoinGate(10)
        waits = [gate.ask(5.0, 1.0) for _ in range(20)]
        self.assertEqual(waits[:10], [0.0] * 10)
        for number, wait in enumerate(waits[10:], 1):
            self.assertAlmostEqual(wait, number / 10)

    def test_who_can_t_wait_is_told_when_to_come_back(self) -> None:
        gate = JoinGate(10)
        for _ in range(15):
            gate.ask(0.0, 1.0)
        backs = [-gate.ask(0.0, 0.5) for _ in range(30)]
        for number, back in enumerate(backs):
            self.assertAlmostEqual(back, 0.7 + number / 10)

    def test_those_who_come_back_as_told_may_join(self) -> None:
        gate = JoinGate(100)
        coming = dict.fromkeys(range(1000), 0.0)
        joined: list[float] = []
        asked = 0
        while coming:
            agent = min(coming, key=lambda each: coming[each])
            now = coming.pop(agent)
            asked += 1
            wait = gate.ask(now, 0.05)
            if wait < 0:
                coming[agent] = now - wait
            else:
                joined.append(now + wait)
        # Each comes twice at the most, and in the end they are as even as can be.
        self.assertLessEqual(asked, 2000)
        for second in range(1, 9):
            self.assertIn(sum(second <= each < second + 1 for each in joined), range(98, 103))
        self.assertTrue(8.8 <= max(joined) <= 9.2)

    def test_a_quiet_time_is_saved_up_for_a_second(self) -> None:
        gate = JoinGate(8)
        for now in (0.0, 1000.0):
            self.assertEqual(sum(gate.ask(now, 0.0) == 0.0 for _ in range(80)), 8)
            # What was promised before the quiet time is no longer of interest.
            self.assertEqual(gate.ask(now, 0.0), -(80 - 8 + 2) / 8)

    def test_connections_that_are_used_up(self) -> None:
        gate = JoinGate(10)
        for _ in range(50):
            gate.ask(0.0, 5.0)
        now = 100.0
        for _ in range(1000):
            now += 0.001
            gate.credit()
            self.assertEqual(gate.ask(now, 0.0), 0.0)

    def test_many_that_leave_at_once(self) -> None:
        gate = JoinGate(10)
        for _ in range(1000):
            gate.credit()
        self.assertIn(sum(gate.ask(0.0, 0.0) == 0.0 for _ in range(1000)), (9, 10))

    @given(
        st.integers(1, 50),
        st.lists(st.tuples(st.floats(0, 0.5), st.floats(0, 2.0)), max_size=200),
    )
    def test_never_more_than_the_rate(self, rate: int, arrivals: list[tuple[float, float]]) -> None:
        gate = JoinGate(rate)
        now, joined = 0.0, []
        for pause, patience in arrivals:
            now += pause
            wait = gate.ask(now, patience)
            if wait >= 0:
                self.assertLessEqual(wait, patience)
                joined.append(now + wait)
            else:
                self.assertGreater(-wait, patience)
        joined.sort()
        for first, begin in enumerate(joined):
            for last in range(first, len(joined)):
                allowed = (joined[last] - begin + 1.0) * rate + 1
                self.assertLessEqual(last - first + 1, allowed + 1e-6)


class RateTests(SynchronousTestCase):
    """Who waits, who is told to come back, and who is cut off."""

    def test_longest_wait(self) -> None:
        """No longer than the handshake allows, and no more connections than half of what may be pending."""
        self.assertEqual(JoinRate(0, 60.0, 100).longest_wait, 1.0)
        self.assertEqual(JoinRate(1, 60.0, 100).longest_wait, LONG_PATIENCE)
        self.assertEqual(JoinRate(1, 8.0, 100).longest_wait, 4.0)
        self.assertEqual(JoinRate(25, 60.0, 100).longest_wait, 2.0)

    def test_both_kinds_of_agents(self) -> None:
        rate = JoinRate(1, 8.0, 100)
        self.assertEqual(rate.ask(0.0, ours=True), 0.0)
        self.assertEqual(rate.ask(0.0, ours=True), PATIENCE)
        refusal = rate.ask(0.0, ours=True)
        assert isinstance(refusal, Refusal)
        self.assertEqual(
            (refusal.status, refusal.retry_after, refusal.result), (Status.UNKNOWN, 3.0, "too_many")
        )
        self.assertEqual([rate.ask(0.0, ours=False) for _ in range(3)], [2.0, 3.0, 4.0])
        self.assertEqual(rate.ask(0.0, ours=False), Hangup("too many join at once", "too_many"))
        rate.credit()
        self.assertEqual(rate.ask(0.0, ours=False), 4.0)

    def test_take_over(self) -> None:
        """Turns that were given stay, unless the rate is another."""
        rate = JoinRate(1, 8.0, 100)
        rate.ask(0.0, ours=False)
        rate.take_over(JoinRate(1, 6.0, 100))
        self.assertEqual((rate.longest_wait, rate.ask(0.0, ours=False)), (3.0, 1.0))
        rate.take_over(JoinRate(10, 6.0, 100))
        self.assertEqual(rate.ask(0.0, ours=False), 0.0)
