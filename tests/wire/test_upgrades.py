"""Tests for L{reverseproxy.wire.http.upgrades}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http.upgrades import agrees, may_pass, passed_on


class OfferTests(SynchronousTestCase):
    def test_passed_on(self) -> None:
        for value, good in (
            (b"websocket", b"websocket"),
            (b"WebSocket", b"WebSocket"),
            (b" tcp\t", b"tcp"),
            (b"SPDY/3.1", b"SPDY/3.1"),
            (b"a,b ,\tc/1", b"a, b, c/1"),
            (b",, websocket,", b"websocket"),
            (b"h2c, websocket, TLS/1.0", b"websocket"),
            (b"connect-udp", b"connect-udp"),
            (b"", b""),
            (b" , ", b""),
        ):
            self.assertEqual(passed_on(value), good, value)

    def test_what_would_change_what_the_proxy_does(self) -> None:
        for protocol in (
            *(b"h2c", b"H2C", b"h2", b"h2-14", b"h2c-17", b"h3", b"h3-29", b"HTTP/2.0", b"http/1.1", b"HTTP"),
            *(b"TLS/1.0", b"tls", b"TLS/1.3", b"SHTTP/1.3", b"https", b"SSL/3.0", b"h2c/1"),
        ):
            self.assertFalse(may_pass(protocol), protocol)
            self.assertEqual(passed_on(protocol), b"")
        for protocol in (b"h2cx", b"http2", b"h22", b"xh2c", b"tlsx"):
            self.assertTrue(may_pass(protocol), protocol)

    def test_malformed(self) -> None:
        for protocol in (b"a b", b"a/", b"/a", b"a/b/c", b"a\x00", b"\xe9", b'"a"', b"a;b", b""):
            self.assertFalse(may_pass(protocol), protocol)

    def test_h2c_where_it_is_allowed(self) -> None:
        self.assertEqual(passed_on(b"h2c", True), b"h2c")
        self.assertEqual(passed_on(b"H2c, HTTP/2.0, h2, TLS", True), b"H2c")

    def test_agreement(self) -> None:
        for offered, chosen, good in (
            (b"websocket", b"websocket", True),
            (b"websocket", b"WebSocket", True),
            (b"WebSocket", b"websocket", True),
            (b"SPDY/3.1, websocket", b"SPDY/3.1", True),
            (b"SPDY/3.1, websocket", b"spdy/3.1", True),
            (b"SPDY/3.1, websocket", b"websocket", True),
            (b"SPDY/3.1, SPDY/3", b"SPDY/3", True),
            (b"SPDY/3.1", b"SPDY", True),
            (b"SPDY", b"SPDY/3.1", True),
            (b"a, b", b"a, b", True),
            (b"a, b", b"b,a", True),
            (b"SPDY/3.1", b"SPDY/3", False),
            (b"websocket", b"tcp", False),
            (b"a, b", b"a, c", False),
            (b"websocket", b"", False),
            (b"websocket", b" ,", False),
            (b"websocket", b"h2c", False),
        ):
            self.assertIs(agrees(offered, chosen), good, (offered, chosen))
