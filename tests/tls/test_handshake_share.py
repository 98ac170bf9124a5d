"""Tests for L{reverseproxy.tls.handshake_share}."""

from __future__ import annotations

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.net import time_share
from reverseproxy.tls.handshake_share import SHARE, handshake_share_of, set_handshake_share


class HandshakeShareTests(SynchronousTestCase):
    """One for each reactor, and a limit for all of them."""

    def setUp(self) -> None:
        self.clock = Clock()

    def test_one_for_each_reactor(self) -> None:
        self.addCleanup(set_handshake_share, SHARE)
        share = handshake_share_of(self.clock)
        self.assertIs(handshake_share_of(self.clock), share)
        self.assertIsNot(handshake_share_of(Clock()), share)
        set_handshake_share(10)
        self.assertEqual((share.share, handshake_share_of(Clock()).share), (0.1, 0.1))

    def test_dropped_handshakes_are_counted(self) -> None:
        self.patch(time_share, "MOST", 1)
        share, before, reasons = handshake_share_of(self.clock), REFUSALS["tls_waiting"], list[str]()

        def work() -> None:
            self.clock.rightNow += 1.0

        for _ in range(3):
            share.ask("a", work, reasons.append)
        self.assertEqual(reasons, ["too many TLS handshakes wait"])
        self.assertEqual(REFUSALS["tls_waiting"] - before, 1)
