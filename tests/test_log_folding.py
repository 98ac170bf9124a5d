"""Tests for L{reverseproxy.logs.folding}: one line for what one peer does again and again."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.logs import LeftOut
from reverseproxy.logs.folding import PERIOD, Folding


class FoldingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.folding = Folding(self.clock, most=3)
        self.lines: list[str] = []

    def note(self, who: str, what: str = "") -> None:
        def say(left_out: LeftOut) -> None:
            self.lines.append(f"{who}{what}{left_out}")

        self.folding.note(who, say)

    def test_once(self) -> None:
        """It is said at once, and once; nothing is left to be done then."""
        self.note("a")
        self.assertEqual((self.lines, self.clock.getDelayedCalls()), (["a"], []))
        self.clock.advance(2 * PERIOD)
        self.note("a")
        self.assertEqual(self.lines, ["a", "a"])

    def test_again_and_again(self) -> None:
        """What follows is one line when the period is over, of the last time."""
        self.note("a", " 0")
        for number in range(1, 6):
            self.clock.advance(1)
            self.note("a", f" {number}")
        self.assertEqual(self.lines, ["a 0"])
        self.clock.advance(PERIOD - 5)
        self.assertEqual(self.lines, ["a 0", "a 5 (4 such lines left out before)"])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_it_goes_on(self) -> None:
        """There is one line in each period as long as it does, and after a quiet one it is said at once."""
        for second in range(3 * int(PERIOD)):
            self.note("a", f" {second}")
            self.clock.advance(1)
        self.assertEqual([line.split(" (")[0] for line in self.lines], ["a 0", "a 59", "a 119", "a 179"])
        self.assertIn("(59 such lines left out before)", self.lines[2])
        self.clock.advance(PERIOD)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.note("a", " again")
        self.assertEqual(self.lines[4:], ["a again"])

    def test_each_for_itself(self) -> None:
        self.note("a")
        self.clock.advance(PERIOD / 2)
        for who in "bab":
            self.note(who)
        self.assertEqual(self.lines, ["a", "b"])
        self.clock.advance(PERIOD / 2)
        self.assertEqual(self.lines, ["a", "b", "a"])
        self.clock.advance(PERIOD / 2)
        self.assertEqual(self.lines, ["a", "b", "a", "b"])

    def test_stop(self) -> None:
        for who in "aab":
            self.note(who)
        self.folding.stop()
        self.assertEqual((self.lines, self.clock.getDelayedCalls()), (["a", "b", "a"], []))

    def test_many(self) -> None:
        """No more than so many are kept; who has to go for others is told of."""
        for who in "aaabcde":
            self.note(who)
        self.assertEqual(self.lines, ["a", "b", "c", "a (1 such line left out before)", "d", "e"])
        self.clock.advance(2 * PERIOD)
        self.assertEqual(len(self.lines), 6)
