"""Tests for L{reverseproxy.tunnel.agent.outage}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.agent.outage import MOST_REASONS, REMIND, Outage
from tests.tunnel.logged import Events, capture


def warnings(events: Events) -> list[str]:
    return [formatEvent(event) for event in events if event["log_level"] is LogLevel.warn]


class OutageTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.outage = Outage("agent of cluster c: s", self.clock.seconds)

    def test_one_line_for_many_connections(self) -> None:
        with capture() as events:
            for number in range(16):
                self.outage.failed(f"#{number}", "nothing listens there", 1.5)
            self.assertEqual(
                warnings(events), ["agent of cluster c: s: nothing listens there; next attempt in 1.50 s"]
            )
            self.assertEqual(len(events), 16)  # the others are there for whoever wants to know
            self.clock.advance(2)
            self.assertEqual(self.outage.over(), ", after 2.0 s and 16 failed attempts")
            self.assertEqual(self.outage.over(), "")
            self.outage.failed("#1", "nothing listens there", 1.5)
            self.assertEqual(len(warnings(events)), 2)

    def test_it_is_not_forgotten(self) -> None:
        with capture() as events:
            for _ in range(int(3 * REMIND)):
                self.outage.failed("#1", "no answer", 9.0)
                self.clock.advance(1)
            found = warnings(events)
            self.assertEqual(len(found), 3)
            self.assertEqual(
                found[2],
                "agent of cluster c: s: no answer (for 2m0s now, 121 failed attempts); next attempt in "
                "9.00 s",
            )

    def test_other_reasons(self) -> None:
        with capture() as events:
            for reason in ("no answer", "the server rejected the credential", "no answer"):
                self.outage.failed("#1", reason, 9.0)
            self.assertEqual(len(warnings(events)), 2)
            for number in range(100):  # whatever a server makes up
                self.outage.failed("#1", f"reason {number}", 9.0)
            self.assertEqual(len(warnings(events)), MOST_REASONS)
