"""Tests for L{reverseproxy.routing.hashing}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing.hashing import cookie_key, find_cookie, header_key, source_ip_key
from tests.routing.build import facts


class HashKeyTests(SynchronousTestCase):
    """What the keys are."""

    def test_sourceIp(self) -> None:
        """The address, in one form only."""
        for address, expected in [
            ("10.0.0.1", b"10.0.0.1"),
            ("::ffff:10.0.0.1", b"10.0.0.1"),
            ("2001:db8::1", b"2001:db8::1"),
            ("unix:/run/a", b"unix:/run/a"),
            ("", None),
        ]:
            self.assertEqual(source_ip_key(facts(), address), expected)

    def test_header(self) -> None:
        """The header's name, as it is configured, and its value."""
        key = header_key("X-User")
        self.assertEqual(key(facts(x_user="a"), "10.0.0.1"), b"X-User:a")
        self.assertEqual(key(facts(x_user="\u00e9\udcff"), "10.0.0.1"), b"X-User:\xc3\xa9\xff")
        self.assertEqual(key(facts(x_user=""), "10.0.0.1"), b"X-User:")
        self.assertIsNone(key(facts(), "10.0.0.1"))

    def test_cookie(self) -> None:
        """The cookie's name and value."""
        key = cookie_key("id")
        self.assertEqual(key(facts(cookie="a=b; id=7"), "10.0.0.1"), b"id=7")
        self.assertIsNone(key(facts(cookie="a=b"), "10.0.0.1"))
        self.assertIsNone(key(facts(), "10.0.0.1"))

    @given(st.text(), st.text())
    def test_sameAgain(self, value: str, address: str) -> None:
        """The same request has the same key, and another value another one."""
        key = header_key("a")
        self.assertEqual(key(facts(a=value), address), key(facts(a=value), ""))
        self.assertNotEqual(key(facts(a=value), address), key(facts(a=value + "x"), address))


class CookieTests(SynchronousTestCase):
    """L{find_cookie}."""

    def test_table(self) -> None:
        """The first of the name; names are case-sensitive."""
        for cookies, expected in [
            ("id=7", "7"),
            ("a=1; id=7; id=8", "7"),
            ("a=1;id=7", "7"),
            ("a=1;\t id = 7 ;b=2", "7"),
            ('id="7"', "7"),
            ('id="', '"'),
            ("id=", ""),
            ("id=a=b", "a=b"),
            ("id=1,2", "1,2"),
            ("id", None),
            ("ID=7", None),
            ("xid=7", None),
            ("", None),
        ]:
            self.assertEqual(find_cookie(facts(cookie=cookies), "id"), expected, cookies)
