"""Tests for L{reverseproxy.tunnel.server.guesses}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.server.guesses import FORGET, FREE, LONGEST_WAIT, MAX_ADDRESSES, GuessGate


class GuessGateTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.gate = GuessGate()
        self.now = 1000.0

    def guess(self, address: str = "a") -> float:
        """One guess after the other: how long it took."""
        wait = self.gate.wait(address, self.now)
        self.now += wait
        self.gate.refuse(address, self.now)
        return wait

    def test_mistakes_cost_nothing(self) -> None:
        self.assertEqual([self.guess() for _ in range(FREE)], [0.0] * FREE)

    def test_guesses_get_slower(self) -> None:
        waits = [self.guess() for _ in range(FREE + 60)]
        self.assertEqual(max(waits), LONGEST_WAIT)
        begun, count = self.now, 0
        while self.now < begun + 3600:
            self.guess()
            count += 1
        self.assertLess(count, 3600 / LONGEST_WAIT + 20)

    def test_many_at_once_take_turns(self) -> None:
        for _ in range(FREE + 10):
            self.gate.refuse("a", self.now)
        waits = [self.gate.wait("a", self.now) for _ in range(4)]
        self.assertEqual(waits, [LONGEST_WAIT * turn for turn in (1, 2, 3, 4)])

    def test_others_do_not_wait(self) -> None:
        for _ in range(FREE + 10):
            self.gate.refuse("a", self.now)
        self.assertEqual(self.gate.wait("b", self.now), 0.0)

    def test_it_is_forgotten(self) -> None:
        for _ in range(FREE + 10):
            self.gate.refuse("a", self.now)
        self.assertEqual(self.gate.wait("a", self.now + 11 * FORGET), 0.0)

    def test_bounded(self) -> None:
        for number in range(MAX_ADDRESSES + 10):
            for _ in range(FREE + 5):
                self.gate.refuse(str(number), self.now)
        self.assertEqual(self.gate.wait("0", self.now), 0.0)
        self.assertGreater(self.gate.wait(str(MAX_ADDRESSES), self.now), 0.0)
        self.assertLessEqual(len(self.gate._refused), MAX_ADDRESSES)
