"""Tests of L{reverseproxy.addresses}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.addresses import host_of, is_unix, join_host_port, split_host_port


class AddressTests(SynchronousTestCase):
    """Addresses taken apart and put together."""

    def test_split(self) -> None:
        self.assertEqual(split_host_port("10.0.0.7:80"), ("10.0.0.7", 80))
        self.assertEqual(split_host_port("[::1]:80"), ("::1", 80))
        self.assertEqual(split_host_port(":80"), ("", 80))
        for wrong in ("", "host", "host:", "host:http"):
            self.assertRaises(ValueError, split_host_port, wrong)

    def test_host(self) -> None:
        for address, host in (("example.com:443", "example.com"), ("[::1]:443", "::1"), ("unix:/x:1", "")):
            self.assertEqual(host_of(address), host)

    def test_join(self) -> None:
        self.assertEqual(join_host_port("10.0.0.1", 80), "10.0.0.1:80")
        self.assertEqual(join_host_port("a", 1), "a:1")
        self.assertEqual(join_host_port("2001:db8::1", 80), "[2001:db8::1]:80")

    def test_unix(self) -> None:
        self.assertTrue(is_unix("unix:/run/socket"))
        self.assertFalse(is_unix("unix.example.com:80"))
