"""Tests for L{reverseproxy.tunnel.agent.polling}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.polling import PollingLister, check_keys, read_seconds


class Lister(PollingLister):
    """Asks the test."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(5.0, clock)
        self.asked: list[Deferred[Sequence[Any]]] = []
        self.errors: list[str] = []

    async def fetch(self) -> Sequence[Any]:
        self.asked.append(Deferred())
        return await self.asked[-1]

    def failed(self, error: Exception) -> None:
        self.errors.append(str(error))


class PollingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.lister = Lister(self.clock)
        self.lists: list[Sequence[str]] = []

    def test_answers(self) -> None:
        """The next question comes an interval after the answer, whatever that was."""
        self.lister.start(self.lists.append)
        self.clock.advance(60)
        self.assertEqual(len(self.lister.asked), 1)
        self.lister.asked[0].callback(["a:1"])
        self.clock.advance(4.9)
        self.assertEqual(len(self.lister.asked), 1)
        self.clock.advance(0.1)
        self.lister.asked[1].errback(ValueError("no list"))
        self.assertEqual((self.lists, self.lister.errors), ([["a:1"]], ["no list"]))
        self.clock.advance(5)
        self.lister.asked[2].callback([])
        self.assertEqual(self.lists, [["a:1"], []])

    def test_stop(self) -> None:
        """Nothing is asked, updated or logged any more; it can be started again."""
        self.lister.start(self.lists.append)
        self.lister.stop()
        self.assertEqual((self.lister.errors, self.clock.getDelayedCalls()), ([], []))
        self.lister.start(self.lists.append)
        self.lister.asked[1].callback(["a:1"])
        self.lister.stop()
        self.lister.stop()
        self.assertEqual((self.lists, self.clock.getDelayedCalls()), ([["a:1"]], []))


class ConfigTests(SynchronousTestCase):
    def test_keys(self) -> None:
        check_keys("the lister x", {"a": 1}, ("a", "b"))
        with self.assertRaisesRegex(ValueError, "the lister x: unknown key 'c'; the keys are a, b"):
            check_keys("the lister x", {"c": 1}, ("a", "b"))

    def test_seconds(self) -> None:
        self.assertEqual(read_seconds("x", {}, "interval", 2.0, 0.1), 2.0)
        self.assertEqual(read_seconds("x", {"interval": 7}, "interval", 2.0, 0.1), 7.0)
        for bad in (True, "7", None, 0, 0.09, 3601, float("nan"), float("inf")):
            with self.assertRaisesRegex(ValueError, "x: interval must be a number of seconds, 0.1 to 3600"):
                read_seconds("x", {"interval": bad}, "interval", 2.0, 0.1, 3600)
