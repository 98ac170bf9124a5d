"""Tests for L{reverseproxy.admin.audit}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.access import Caller, Role
from reverseproxy.admin.audit import Audit
from reverseproxy.admin.orders import MOST_AUDITED
from tests.tunnel.logged import capture

OPS = Caller("ops", Role.OPERATE)
AGENT = {"id": "0d1c", "identity": "token:edge-7", "targets": {"identity": ["identity", "token:edge-7"]}}


class AuditTests(SynchronousTestCase):
    def test_lines(self) -> None:
        """Each change is a line of the log, under the name that it has always had there."""
        audit = Audit()
        with capture() as events:
            audit.note(OPS, "weight", "5 now")
            audit.note_configuration(OPS, "reload", "generation 2")
            audit.note_agent(OPS, "drain", AGENT, "2 connections", connections=2)
        self.assertEqual(
            events.text().splitlines(),
            [
                "audit: ops: weight: 5 now",
                "audit: ops: reload of configuration: generation 2",
                "audit: ops: drain agent 0d1c (token:edge-7): 2 connections",
            ],
        )
        self.assertEqual({event["log_namespace"] for event in events}, {"reverseproxy.admin.api"})

    def test_entries(self) -> None:
        audit = Audit()
        audit.note(OPS, "weight", "5 now")
        audit.note_agent(OPS, "drain", AGENT, "2 connections", connections=2, order="a")
        found = sorted(audit.entries([]), key=lambda entry: entry["what"])
        self.assertEqual(
            [(each["what"], each["agent"]) for each in found], [("drain", "0d1c"), ("weight", None)]
        )
        self.assertEqual((found[0]["connections"], found[1]["targets"]), (2, {}))
        self.assertEqual((audit.identity_of("0d1c"), audit.identity_of("else")), ("token:edge-7", ""))
        self.assertEqual((audit.targets_of("0d1c"), audit.targets_of("else")), ([AGENT["targets"]], []))

    def test_bound(self) -> None:
        audit = Audit()
        for number in range(MOST_AUDITED + 5):
            audit.note(OPS, "weight", str(number))
        self.assertEqual(len(audit.entries([])), MOST_AUDITED)
