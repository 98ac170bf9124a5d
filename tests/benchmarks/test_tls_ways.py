"""Tests for L{benchmarks.tls_ways}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.rows import _OURS
from benchmarks.tls_ways import ROWS, RUN, judge
from reverseproxy.tls import transport


class WaysTests(SynchronousTestCase):
    def test_rounds_side_by_side(self) -> None:
        costs = [100.0, 110.0, 110.0, 100.0] * 4
        more, low, high, noise = judge(costs)
        self.assertEqual([round(each, 3) for each in (more, low, high, noise)], [0.1, 0.1, 0.1, 0.0])

    def test_rows(self) -> None:
        """They are the benchmark's."""
        self.assertEqual({name: _OURS[name][1] for name in ROWS}, dict(ROWS))

    def test_what_is_replaced(self) -> None:
        """What keeps a socket from OpenSSL is what connections ask."""
        self.assertIn("transport.can_have_socket = ", RUN)
        self.assertIn("can_have_socket", transport.TlsTransport.makeConnection.__code__.co_names)
