"""Tests for L{reverseproxy.tunnel.agent.dial_turns}."""

from __future__ import annotations

from twisted.internet.defer import CancelledError, Deferred
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.dial_turns import DialTurn, DialTurns


class DialTurnsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.turns = DialTurns(2)

    def test_in_order(self) -> None:
        first, _ = (self.successResultOf(self.turns.take()) for _ in range(2))
        third, fourth = self.turns.take(), self.turns.take()
        self.assertNoResult(third)
        self.assertEqual((self.turns.taken, self.turns.waiting), (2, 2))
        first.end()
        self.successResultOf(third)
        self.assertNoResult(fourth)
        self.assertEqual((self.turns.taken, self.turns.waiting), (2, 1))

    def test_a_turn_ends_once(self) -> None:
        turn = self.successResultOf(self.turns.take())
        turn.end()
        turn.end()
        self.assertEqual(self.turns.taken, 0)

    def test_who_gives_up_is_passed_by(self) -> None:
        first, _ = (self.successResultOf(self.turns.take()) for _ in range(2))
        gone, next_ = self.turns.take(), self.turns.take()
        gone.cancel()
        self.failureResultOf(gone, CancelledError)
        first.end()
        self.successResultOf(next_)
        self.assertEqual(self.turns.taken, 2)

    def test_any_number_that_fails_at_once(self) -> None:
        first = self.successResultOf(self.turns.take())
        ended: list[DialTurn] = []

        def fail(turn: DialTurn) -> None:
            ended.append(turn)
            turn.end()

        waiting: list[Deferred[None]] = [self.turns.take().addCallback(fail) for _ in range(1)]
        waiting += [self.turns.take().addCallback(fail) for _ in range(5000)]
        first.end()
        self.assertEqual((len(ended), self.turns.taken, self.turns.waiting), (5001, 0, 0))

    def test_an_error_of_who_has_it_stops_nobody(self) -> None:
        first, second = (self.successResultOf(self.turns.take()) for _ in range(2))
        failing = self.turns.take().addCallback(lambda turn: 1 / 0)
        last = self.turns.take()
        first.end()
        self.failureResultOf(failing, ZeroDivisionError)
        second.end()
        self.successResultOf(last)

    def test_closed(self) -> None:
        first, _ = (self.successResultOf(self.turns.take()) for _ in range(2))
        third = self.turns.take()
        self.turns.close()
        first.end()
        self.assertNoResult(third)
