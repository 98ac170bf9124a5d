"""Tests for L{reverseproxy.tls.wording}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tls.wording import explain


class ExplainTests(SynchronousTestCase):
    def test_it(self) -> None:
        for reason, expected in (
            ("http request", "it speaks plain HTTP (http request)"),
            (
                "TLS: tlsv1 alert unknown ca",
                "it does not know the authority of our certificate (tlsv1 alert unknown ca)",
            ),
            (
                "tlsv13 alert certificate required",
                "it demands a certificate of ours (tlsv13 alert certificate required)",
            ),
            ("certificate verify failed: expired", "certificate verify failed: expired"),
            ("the other end closed the connection", "the other end closed the connection"),
            ("", ""),
        ):
            self.assertEqual(explain(reason), expected)
