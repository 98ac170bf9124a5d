"""Tests for L{reverseproxy.tunnel.server.revocation}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.interfaces import IRevoking
from reverseproxy.tunnel.server.revocation import AT_ONCE, GRACE, Revocations
from tests.tunnel.logged import capture


class Joined:
    """A connection that is judged as the test says."""

    def __init__(self, verdict: Any = "") -> None:
        self.verdict = verdict
        self.judged: list[bool] = []
        self.revoked: list[tuple[str, float]] = []

    def judge_again(self, credentials: bool) -> Any:
        self.judged.append(credentials)
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict

    def revoke(self, reason: str, grace: float) -> None:
        self.revoked.append((reason, grace))


@implementer(IRevoking)
class Validator:
    changed = False

    def look(self) -> bool:
        changed, self.changed = self.changed, False
        return changed

    def judge_again(self, *_: str) -> None:
        return None

    validate = judge_again


class RevocationsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.joined: list[Joined] = []
        self.validators: list[Any] = [object(), Validator()]
        self.revocations = Revocations("test", lambda: self.validators, self.clock)

    def join(self, joined: list[Joined]) -> None:
        """Have these joined, and no others."""
        for each in self.joined:
            self.revocations.discard(each)
        for each in joined:
            self.revocations.add(each)
        self.joined = joined

    def test_when_something_has_changed(self) -> None:
        self.join([Joined(), Joined("no more")])
        self.revocations.look()
        self.assertEqual((self.joined[0].judged, self.revocations.reviews), ([], 0))
        self.validators[1].changed = True
        with capture() as events:
            self.revocations.look()
        self.assertEqual([each.revoked for each in self.joined], [[], [("no more", GRACE)]])
        self.assertIn("test: 1 connection of agents revoked", events.text())
        self.revocations.look(changed=True)
        self.assertEqual(self.joined[0].judged, [False, False])

    def test_many(self) -> None:
        """Others have their turn in between."""
        self.join([Joined() for _ in range(2 * AT_ONCE + 1)])
        self.revocations.review(True)
        self.assertEqual(sum(bool(each.judged) for each in self.joined), AT_ONCE)
        self.clock.advance(0)
        self.assertEqual([each.judged for each in self.joined], [[True]] * len(self.joined))

    def test_again_in_the_middle(self) -> None:
        """All are judged after the last change."""
        self.join([Joined() for _ in range(2 * AT_ONCE)])
        self.revocations.review(True)
        for each in self.joined:
            each.verdict = "no more"
        self.revocations.review(False)
        self.clock.pump([0] * 10)
        self.assertTrue(all(each.revoked for each in self.joined))
        self.assertEqual(self.joined[-1].judged, [True, True])

    def test_a_verdict_that_takes_time(self) -> None:
        slow: Deferred[str] = Deferred()
        self.join([Joined(slow), Joined("no more")])
        self.revocations.review(False)
        self.assertEqual(self.joined[1].revoked, [("no more", GRACE)])
        slow.callback("neither")
        self.assertEqual(self.joined[0].revoked, [("neither", GRACE)])

    def test_one_that_can_t_be_judged(self) -> None:
        self.join([Joined(ValueError("broken")), Joined("no more")])
        self.revocations.review(False)
        self.assertEqual([each.revoked for each in self.joined], [[], [("no more", GRACE)]])
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_all_of_them(self) -> None:
        self.join([Joined(), Joined()])
        with capture() as events:
            self.revocations.revoke_all("the end")
        self.assertEqual([each.revoked for each in self.joined], [[("the end", GRACE)]] * 2)
        self.assertIn("2 connections revoked: the end", events.text())
