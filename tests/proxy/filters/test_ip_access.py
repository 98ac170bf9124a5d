"""Tests for L{reverseproxy.proxy.filters.ip_access}."""

from __future__ import annotations

from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.filters import LocalReply
from reverseproxy.proxy.filters.ip_access import AddressSet, parse_address
from tests.proxy.filters.build import chain, request, steps

LISTS: list[dict[str, Any]] = [
    {"action": "deny", "addrs": ["10.0.0.66", "2001:db8:bad::/48"]},
    {"action": "allow", "addrs": ["10.0.0.0/8", "2001:db8::/32", "::1"]},
    {"action": "deny", "addrs": ["192.0.2.0/24", "10.0.0.7"]},
]


class DecisionTests(SynchronousTestCase):
    def allowed(self, remote: str, **config: Any) -> bool:
        headers = config.pop("headers", {})
        found = steps(chain(("ip_access", config)), request(remote=remote, **headers))
        if found:
            [refusal] = found
            assert isinstance(refusal, LocalReply)
            self.assertEqual((refusal.status, refusal.flag), (403, "refused by ip_access"))
        return not found

    def test_lists(self) -> None:
        """The first list that has the address decides, and the default for the others."""
        for remote, expected in (
            ("10.0.0.66:1", False),
            ("10.0.0.67:1", True),
            ("10.0.0.7:1", True),  # an earlier list has it
            ("[2001:db8:bad::1]:1", False),
            ("[2001:db8::1]:1", True),
            ("[::1]:1", True),
            ("192.0.2.1:1", False),
            ("203.0.113.1:1", None),
            ("[::2]:1", None),
        ):
            for default in ("allow", "deny"):
                found = self.allowed(remote, default_action=default, ips=LISTS)
                self.assertEqual(found, default == "allow" if expected is None else expected, remote)

    def test_defaults(self) -> None:
        self.assertTrue(self.allowed("1.1.1.1:1"))
        self.assertTrue(self.allowed("1.1.1.1:1", default_action=""))
        self.assertFalse(self.allowed("1.1.1.1:1", default_action="deny"))

    def test_ipv4_as_ipv6(self) -> None:
        """However an address of IPv4 is written, on either side, it is the same one."""
        for listed in ("10.0.0.1", "::ffff:10.0.0.1", "::ffff:a00:1", "10.0.0.0/31", "::ffff:10.0.0.0/127"):
            lists = [{"action": "deny", "addrs": [listed]}]
            for remote in ("10.0.0.1:1", "[::ffff:10.0.0.1]:1", "[::ffff:a00:1]:1"):
                self.assertFalse(self.allowed(remote, ips=lists), (listed, remote))

    def test_header(self) -> None:
        lists = [{"action": "allow", "addrs": ["10.0.0.1", "::1"]}]
        config = {"header": "X-Real-IP", "ips": lists, "default_action": "deny"}
        for value, expected in (
            ("10.0.0.1", True),
            ("10.0.0.1:80", True),
            ("::1", True),
            ("[::1]", True),
            ("[::1]:80", True),
            ("10.0.0.2", False),
        ):
            found = self.allowed("1.1.1.1:1", headers={"x_real_ip": value}, **config)
            self.assertEqual(found, expected, value)

    def test_without_the_header(self) -> None:
        """The connection's address counts then."""
        lists = [{"action": "allow", "addrs": ["10.0.0.1"]}]
        config = {"header": "x-real-ip", "ips": lists, "default_action": "deny"}
        self.assertTrue(self.allowed("10.0.0.1:1", **config))
        self.assertTrue(self.allowed("10.0.0.1:1", headers={"x_real_ip": ""}, **config))
        self.assertFalse(self.allowed("10.0.0.2:1", **config))

    def test_a_header_that_evades(self) -> None:
        """What can't be read is refused, where MOSN lets it pass the lists by."""
        lists = [{"action": "deny", "addrs": ["10.0.0.66"]}]
        for value in (
            "10.0.0.66, 10.0.0.1",
            "10.0.0.1,10.0.0.66",
            "010.0.0.66",
            "10.0.0.66:",
            "10.0.0.66:http",
            "[10.0.0.66",
            "[::1]x",
            "localhost",
            "unknown",
            " ",
            "\u0661.1.1.1",
        ):
            found = self.allowed("1.1.1.1:1", headers={"x_real_ip": value}, header="x-real-ip", ips=lists)
            self.assertFalse(found, value)

    def test_unix_sockets_are_in_no_list(self) -> None:
        for default in ("allow", "deny"):
            config = {"default_action": default, "ips": LISTS}
            self.assertEqual(self.allowed("unix:", **config), default == "allow")
            self.assertEqual(self.allowed("unix:/run/x:1", **config), default == "allow")

    def test_zones(self) -> None:
        lists = [{"action": "deny", "addrs": ["fe80::/10"]}]
        self.assertFalse(self.allowed("[fe80::1%eth0]:1", ips=lists))

    def test_before_there_is_a_route(self) -> None:
        """A filter that refuses keeps the router from being asked."""
        filters = chain(("fault", {"abort": {"percentage": 100}}), ("ip_access", {"default_action": "deny"}))
        [refusal] = steps(filters, request())
        assert isinstance(refusal, LocalReply)
        self.assertEqual(refusal.status, 403)


ADDRESSES = st.ip_addresses()


class AddressSetTests(SynchronousTestCase):
    @given(st.lists(st.tuples(ADDRESSES, st.integers(0, 32)), max_size=5), ADDRESSES)
    def test_as_a_slow_look(self, ranges: list[Any], address: Any) -> None:
        networks = [ip_network(f"{base}/{length}", strict=False) for base, length in ranges]
        expected = any(address.version == each.version and address in each for each in networks)
        self.assertEqual(address in AddressSet(networks), expected)
        for base, _ in ranges:
            self.assertIn(base, AddressSet(networks))

    @given(ADDRESSES, st.integers(0, 65535))
    def test_parse(self, address: Any, port: int) -> None:
        mapped = getattr(address, "ipv4_mapped", None) or address
        texts = [str(address)]
        if address.version == 6:
            texts += [f"[{address}]", f"[{address}]:{port}"]
        else:
            texts.append(f"{address}:{port}")
        for text in texts:
            self.assertEqual(parse_address(text), mapped)
        self.assertEqual(parse_address("10.0.0.1"), ip_address("10.0.0.1"))
