"""Tests for L{reverseproxy.fleet.order_results}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.orders import merge_audits, merge_order_results
from reverseproxy.errors import WireError
from reverseproxy.fleet.order_results import PATIENCE, OrderResult, OrderResults


class Link:
    """A link of a server's process."""

    def __init__(self, server: str) -> None:
        self.server = server


class AnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.answers = OrderResults(self.clock)
        self.links: list[Any] = [Link("b"), Link("b"), Link("c")]

    def done(self, number: int, connections: Any = 0, problem: Any = "", order: Any = "1") -> None:
        message = {"done": order, "connections": connections, "problem": problem}
        self.answers.heard(self.links[number], message)

    def test_all_answer(self) -> None:
        """What the processes of a server have let go of counts together; each link answers once."""
        waiting = self.answers.wait("1", self.links)
        self.done(0, 2)
        self.done(0, 7)
        self.done(2)
        self.assertNoResult(waiting)
        self.done(1, 1, "it is not kept out")
        found = {"b": OrderResult(3, True, "it is not kept out"), "c": OrderResult(0, True)}
        self.assertEqual(self.successResultOf(waiting), found)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.done(1, 5)

    def test_some_do_not(self) -> None:
        """As servers of older versions, or such as stand still."""
        waiting = self.answers.wait("1", self.links)
        self.done(0, 2)
        self.clock.advance(PATIENCE)
        self.assertEqual(self.successResultOf(waiting), {"b": OrderResult(2, False), "c": OrderResult()})
        self.done(1, 5)

    def test_nobody_is_told(self) -> None:
        self.assertEqual(self.successResultOf(self.answers.wait("1", [])), {})

    def test_the_same_order_once_more(self) -> None:
        first = self.answers.wait("1", self.links)
        again = self.answers.wait("1", self.links)
        self.assertEqual(self.successResultOf(again), {"b": OrderResult(), "c": OrderResult()})
        self.answers.stop()
        self.successResultOf(first)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_nonsense(self) -> None:
        for more in (
            {"connections": -1},
            {"connections": True},
            {"connections": None},
            {"connections": 2**40},
            {"problem": None},
            {"problem": "\n"},
            {"order": 5},
        ):
            with self.assertRaises(WireError, msg=more):
                self.done(0, **more)


class MergeTests(SynchronousTestCase):
    """Merging the answers of several workers about one order."""

    def test_done(self) -> None:
        one = {"b": OrderResult(1, True).to_json(), "c": OrderResult(2, True).to_json()}
        other = {"b": OrderResult(2, False, "full").to_json()}
        found = {"b": OrderResult(3, False, "full").to_json(), "c": OrderResult(2, True).to_json()}
        self.assertEqual(merge_order_results([one, other]), found)

    def test_audits(self) -> None:
        """The deciding server's entry comes first, then that of a process that had the agent."""
        kick = {"what": "kick", "order": "1", "connections": 2, "kept_out": None}
        heard = {"what": "ban", "order": "1", "connections": 0, "kept_out": {"seconds": 5}}
        both = {**kick, "connections": 4, "kept_out": {"seconds": 5}}
        self.assertEqual(merge_audits([], [heard, kick, heard, kick]), [both])
        self.assertEqual(merge_audits([], [kick, kick, heard]), [both])
        own = {"what": "kick", "order": "1", "told": "passed on"}
        other = {"what": "weight"}
        self.assertEqual(merge_audits([own, other], [heard, heard]), [own, other])
