"""Tests for L{reverseproxy.tunnel.server.judging}."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import Identity
from reverseproxy.tunnel.server.guesses import FIRST_WAIT, FREE
from reverseproxy.tunnel.server.judging import CredentialJudge
from tests.tunnel.logged import capture


class Validator:
    """Answers as it is told."""

    verdict: Any = None

    def validate(self, *asked: str) -> Any:
        if isinstance(self.verdict, Exception):
            raise self.verdict
        return self.verdict


class JudgeTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.made: list[str] = []
        self.judge = CredentialJudge("door", self.clock, self.find, ["simple", "needy"])

    def find(self, policy: str, options: Mapping[str, Any]) -> Validator:
        if policy == "needy":
            raise ValueError("it has to be configured")
        self.made.append(policy)
        return Validator()

    def verdict(self, validator: Validator | None) -> Any:
        return Deferred.fromCoroutine(self.judge.validate(validator, "c", "", "cluster"))

    def test_policies_that_are_not_configured(self) -> None:
        """Their validators are made once, and only for policies that may be used."""
        with capture() as events:
            found = self.judge.find_unconfigured("simple")
            self.assertIs(self.judge.find_unconfigured("simple"), found)
            self.assertIsNone(self.judge.find_unconfigured("needy"))
            self.assertIsNone(self.judge.find_unconfigured("needy"))
            self.assertIsNone(self.judge.find_unconfigured("other"))
        self.assertEqual((self.made, list(self.judge.unconfigured)), (["simple"], [found]))
        self.assertEqual(len(events), 2)
        self.assertIn(
            "door: agents use the credential policy needy, which is not configured here", events.text()
        )

    def test_take_over(self) -> None:
        newer = CredentialJudge("door", self.clock, self.find, ["other"])
        self.judge.find_unconfigured("simple")
        self.judge.take_over(newer)
        found = newer.find_unconfigured("other")
        self.assertEqual(list(self.judge.unconfigured), [found])
        self.assertIsNone(self.judge.find_unconfigured("simple"))

    def test_verdicts(self) -> None:
        """A validator that fails lets nobody in."""
        self.assertIsNone(self.successResultOf(self.verdict(None)))
        validator = Validator()
        self.assertIsNone(self.successResultOf(self.verdict(validator)))
        validator.verdict = Identity("anna")
        self.assertEqual(self.successResultOf(self.verdict(validator)), Identity("anna"))
        validator.verdict = ValueError("broken")
        self.assertIsNone(self.successResultOf(self.verdict(validator)))
        self.assertEqual(len(self.flushLoggedErrors(ValueError)), 1)

    def test_a_verdict_that_takes_time(self) -> None:
        validator = Validator()
        validator.verdict = late = Deferred[Identity]()
        verdict = self.verdict(validator)
        self.assertNoResult(verdict)
        late.callback(Identity("anna"))
        self.assertEqual(self.successResultOf(verdict), Identity("anna"))
        validator.verdict = Deferred[Identity]()
        verdict = self.verdict(validator)
        verdict.cancel()  # the agent has closed the connection
        self.assertIsNone(self.successResultOf(verdict))

    def test_who_guesses_waits(self) -> None:
        for _ in range(int(FREE) + 1):
            self.judge.count_refusal("1.1.1.1")
        waiting = Deferred.fromCoroutine(self.judge.wait_for_turn("1.1.1.1"))
        self.assertNoResult(waiting)
        self.successResultOf(Deferred.fromCoroutine(self.judge.wait_for_turn("2.2.2.2")))
        self.clock.advance(FIRST_WAIT)
        self.successResultOf(waiting)
