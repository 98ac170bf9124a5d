"""Tests for L{reverseproxy.tunnel.agent.polling}."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.polling import PollingLister


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
