"""Tests for L{reverseproxy.identity}."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.identity import AgentIdentity, CertificateSubject, shown_agent_id

SUBJECT = CertificateSubject("x509:ab", "CN=edge-7,O=Acme", ("DNS:edge-7.example",))


class AgentIdentityTests(SynchronousTestCase):
    """What is said of an agent."""

    def test_proved_by_a_token(self) -> None:
        identity = AgentIdentity("edge-7", "static", claim="box")
        self.assertTrue(identity.proved)
        self.assertEqual(identity.principal, "token:edge-7")
        self.assertEqual(identity.proofs, "token of policy static")
        self.assertEqual(str(identity), 'agent edge-7 (token of policy static) that calls itself "box"')

    def test_proved_by_a_certificate(self) -> None:
        identity = AgentIdentity(certificate=SUBJECT)
        self.assertTrue(identity.proved)
        self.assertEqual(identity.principal, "certificate:CN=edge-7,O=Acme")
        self.assertEqual(str(identity), "agent CN=edge-7,O=Acme (certificate)")

    def test_proved_by_both(self) -> None:
        identity = AgentIdentity("edge-7", "static", SUBJECT)
        self.assertEqual(identity.principal, "token:edge-7")
        self.assertEqual(str(identity), f"agent edge-7 ({identity.proofs})")
        self.assertEqual(identity.proofs, "token of policy static, certificate CN=edge-7,O=Acme")

    def test_not_proved(self) -> None:
        """A name that is only claimed is never the identity, and a good credential may be nobody's."""
        identity = AgentIdentity(claim="token:admin")
        self.assertFalse(identity.proved)
        self.assertEqual((identity.principal, identity.proofs), ("unproved", ""))
        self.assertEqual(str(identity), 'an unproved agent that calls itself "token:admin"')
        self.assertEqual(str(AgentIdentity()), "an unproved agent")
        nobody = AgentIdentity(policy="test")
        self.assertFalse(nobody.proved)
        self.assertEqual(nobody.principal, "unproved")
        self.assertEqual(str(nobody), "an unproved agent (policy test names nobody)")

    def test_a_claim_stays_in_its_quotes(self) -> None:
        identity = AgentIdentity(claim='x" (token of policy static) \\')
        text = str(identity)
        self.assertEqual(text, 'an unproved agent that calls itself "x\\" (token of policy static) \\\\"')

    def test_names_are_bounded_and_printable(self) -> None:
        identity = AgentIdentity("a\n" * 1000, "static")
        self.assertEqual(identity.principal, "token:" + "a?" * 128 + "...")
        self.assertTrue(str(identity).isprintable())

    def test_a_certificate_without_a_subject(self) -> None:
        self.assertEqual(str(CertificateSubject("x509:ab", "", ("DNS:a.example",))), "DNS:a.example")
        self.assertEqual(str(CertificateSubject("x509:ab")), "x509:ab")

    def test_between_processes(self) -> None:
        for identity in [
            AgentIdentity(),
            AgentIdentity("edge-7", "static", SUBJECT, "box", "0123456789ab", 1),
        ]:
            text = json.dumps(identity.to_json())
            self.assertEqual(AgentIdentity.from_json(json.loads(text)), identity)

    def test_agent_ids_are_shortened(self) -> None:
        """Who knows all of an id may close connections: logs must not tell it."""
        shown = shown_agent_id("secret-1")
        self.assertRegex(shown, "^[0-9a-f]{12}$")
        self.assertEqual(shown, shown_agent_id("secret-1"))
        self.assertNotEqual(shown, shown_agent_id("secret-2"))
