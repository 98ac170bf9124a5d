"""Tests for L{reverseproxy.tunnel.server.exclusions}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.identity import AgentIdentity, CertificateSubject
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Principal, Refusal
from reverseproxy.tunnel.server.exclusions import LONGEST_ABSENCE, MOST, Exclusions, target_of
from reverseproxy.wire.mosn.extensions import Announcement

SUBJECT = CertificateSubject("x509:ab", "CN=edge")
TOKEN = AgentIdentity("edge", "static", SUBJECT, "box", "aaaaaaaaaaaa", 1)


class ExclusionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.exclusions = Exclusions(self.clock.seconds)

    def test_targets(self) -> None:
        """The strongest thing that is known counts; a process only if that is asked for."""
        self.assertEqual(target_of(TOKEN, "10.0.0.1"), ("token", "static", "edge"))
        self.assertEqual(target_of(TOKEN, "10.0.0.1", process=True), ("process", "aaaaaaaaaaaa"))
        self.assertEqual(
            target_of(AgentIdentity(certificate=SUBJECT), "10.0.0.1"), ("certificate", "x509:ab")
        )
        claimed = AgentIdentity(claim="edge")
        self.assertEqual(target_of(claimed, "10.0.0.1", process=True), ("address", "10.0.0.1"))

    def test_who_is_kept_out(self) -> None:
        self.exclusions.exclude(("token", "static", "edge"), 10.0, "banned by ops")
        self.assertEqual(self.exclusions.find(TOKEN, "10.0.0.1"), (10.0, "banned by ops"))
        self.assertEqual(self.exclusions.find(TOKEN, "10.9.9.9"), (10.0, "banned by ops"))
        self.assertIsNone(self.exclusions.find(AgentIdentity("edge", "other"), "10.0.0.1"))
        self.assertIsNone(self.exclusions.find(AgentIdentity(claim="edge"), "10.0.0.1"))
        self.clock.advance(9.5)
        found = self.exclusions.find(TOKEN, "10.0.0.1")
        assert found is not None
        self.assertApproximates(found[0], 0.5, 1e-9)
        self.clock.advance(0.5)
        self.assertIsNone(self.exclusions.find(TOKEN, "10.0.0.1"))

    def test_an_agent_that_proves_more_than_it_is_known_by(self) -> None:
        """Who is kept out by certificate or address does not get in with a token."""
        for target in (("certificate", "x509:ab"), ("address", "10.0.0.1"), ("process", "aaaaaaaaaaaa")):
            self.exclusions.exclude(target, 10.0, "x")
            self.assertIsNotNone(self.exclusions.find(TOKEN, "10.0.0.1"), target)
            self.assertTrue(self.exclusions.lift(target))
            self.assertIsNone(self.exclusions.find(TOKEN, "10.0.0.1"))
            self.assertFalse(self.exclusions.lift(target))

    def test_bound(self) -> None:
        for number in range(MOST):
            self.exclusions.exclude(("address", str(number)), 10.0, "x")
        self.exclusions.exclude(("address", "5"), 20.0, "once more")
        with self.assertRaisesRegex(ValueError, "1000 agents are kept out already"):
            self.exclusions.exclude(("address", "x"), 10.0, "x")
        self.clock.advance(10)
        self.exclusions.exclude(("address", "x"), 10.0, "x")
        self.assertEqual(len(self.exclusions), 2)

    def test_refusals(self) -> None:
        """An agent of ours is told when to ask again; one of MOSN's is cut off."""
        info = ConnectionInfo("10.0.0.1:5", "10.0.0.2:6")
        ours = Accepted("c", "", 1, Principal("static", "edge"), Announcement("a"), used_policy="static")
        mosns = Accepted("c", "", 1, None, None)
        self.assertIsNone(self.exclusions.refuse(ours, info))
        for target in (("token", "static", "edge"), ("address", "10.0.0.1")):
            self.exclusions.exclude(target, 90.0, "banned by ops")
        refusal = self.exclusions.refuse(ours, info)
        assert isinstance(refusal, Refusal)
        self.assertEqual((refusal.retry_after, refusal.result), (LONGEST_ABSENCE, "banned"))
        reason = "banned by ops; it is kept out for 90 s more"
        self.assertEqual(self.exclusions.refuse(mosns, info), Hangup(reason, "banned"))
        self.clock.advance(80)
        refusal = self.exclusions.refuse(ours, info)
        assert isinstance(refusal, Refusal)
        self.assertEqual(refusal.retry_after, 10.0)
