"""Tests for L{reverseproxy.routing.hosts}."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ConfigError
from reverseproxy.routing import ClusterRoute, RouteInput, Router, RouteResult
from reverseproxy.routing.hosts import Domains, shown
from tests.routing.build import config, facts, rule, virtual_host


def result(name: str) -> ClusterRoute:
    return ClusterRoute(name)


def domains(*names: str, ignore_port: bool = False) -> Domains:
    found = Domains(ignore_port)
    for name in names:

        def rules(facts: RouteInput, name: str = name) -> RouteResult | None:
            return result(name)

        assert not found.add(name, rules)
    return found


def taker(found: Domains, host: str) -> str | None:
    """The domain that takes a host."""
    match = found.matcher()(facts(host=host))
    return match.cluster_name if isinstance(match, ClusterRoute) else None


class MosnTests(SynchronousTestCase):
    """What holds by default, as in MOSN."""

    def test_a_domain_without_a_port_is_for_a_host_without_one(self) -> None:
        found = domains("a.example", "*.b.example")
        for host, expected in (
            ("a.example", "a.example"),
            ("A.Example", "a.example"),
            ("a.example:8080", None),
            ("a.example.", None),
            ("x.b.example", "*.b.example"),
            ("x.b.example:80", None),
            ("x.b.example.", None),
        ):
            self.assertEqual(taker(found, host), expected, host)


class IgnorePortTests(SynchronousTestCase):
    def test_exact(self) -> None:
        found = domains("a.example", ignore_port=True)
        for host in ("a.example", "a.example:80", "A.EXAMPLE:65535", "a.example.", "a.example.:8080"):
            self.assertEqual(taker(found, host), "a.example", host)
        for host in ("b.example", "a.example..", ".a.example", "xa.example:80", "", "."):
            self.assertIsNone(taker(found, host), host)

    def test_wildcard(self) -> None:
        found = domains("*.example", ignore_port=True)
        for host in ("a.example", "a.example:80", "a.b.example.", "a.example.:1"):
            self.assertEqual(taker(found, host), "*.example", host)
        for host in (".example", ".example:80", "example", "example:80"):
            self.assertIsNone(taker(found, host), host)

    def test_ipv6(self) -> None:
        """However the configuration writes it, the brackets make no difference."""
        for domain in ("[::1]", "[::1]:*"):
            found = domains(domain, ignore_port=True)
            for host in ("[::1]", "[::1]:80", "[::1]:443"):
                self.assertEqual(taker(found, host), domain, host)
            for host in ("[::2]", "[::2]:80", "::1"):
                self.assertIsNone(taker(found, host), host)

    def test_a_domain_with_the_port_comes_first(self) -> None:
        found = domains(
            "a.example", "a.example:8080", "b.example", "b.example:*", "*.example", "*:81", ignore_port=True
        )
        for host, expected in (
            ("a.example:8080", "a.example:8080"),
            ("a.example:81", "a.example"),
            ("a.example", "a.example"),
            ("b.example:9", "b.example:*"),
            ("c.example:81", "*:81"),
            ("c.example:82", "*.example"),
        ):
            self.assertEqual(taker(found, host), expected, host)

    def test_a_dot_in_the_domain(self) -> None:
        found = domains("a.example.", "*.b.example.", ignore_port=True)
        self.assertEqual(taker(found, "a.example"), "a.example.")
        self.assertEqual(taker(found, "x.b.example:1"), "*.b.example.")

    def test_the_default_is_the_default(self) -> None:
        found = domains("*", "a.example", ignore_port=True)
        self.assertEqual(taker(found, "b.example:80"), "*")
        self.assertEqual(taker(found, "a.example:80"), "a.example")

    def test_the_same_domain_twice(self) -> None:
        for first, second in (("a", "A."), ("[::1]:80", "[::1]:80"), ("*.a", "*.a.")):
            found = domains(first, ignore_port=True)
            self.assertIn("occurs twice", found.add(second, lambda facts: None))
        self.assertEqual(domains("a").add("a.", lambda facts: None), "")

    def test_of_a_router(self) -> None:
        """The key of the configuration is what does this."""
        hosts = config(virtual_host(["a.example"], rule("c")))
        for ignore in (False, True):
            router = Router(hosts.model_copy(update={"ignore_host_port": ignore}))
            found = router.match(facts(host="a.example:8080"))
            self.assertEqual(found is not None, ignore)
        twice = config(virtual_host(["a", "a."], rule("c"))).model_copy(update={"ignore_host_port": True})
        with self.assertRaisesRegex(ConfigError, r"domains\[1\]: 'a\.' occurs twice"):
            Router(twice)

    @given(
        st.sampled_from(("a.example", "*.example", "*", "[::1]", "b")),
        st.sampled_from(("a.example", "x.example", "b", "[::1]", "[::2]", "*.example")),
    )
    def test_it_only_takes_more(self, domain: str, host: str) -> None:
        """A host that is taken without the key is taken by the same domain with it."""
        strict, loose = taker(domains(domain), host), taker(domains(domain, ignore_port=True), host)
        self.assertIn(strict, (None, loose))


class ExplainTests(SynchronousTestCase):
    names = ("a.example", "*.b.example", "c.example:8080", "c.example:8443", "d.example.", "[::1]")

    def check(self, host: str, expected: str) -> None:
        self.assertEqual(domains(*self.names).explain(host), expected)

    def test_taken(self) -> None:
        """It is not for the Host then."""
        for host in ("a.example", "x.b.example", "c.example:8080", "[::1]"):
            self.check(host, "")
        self.assertEqual(domains("*").explain("anything:1"), "")
        self.assertEqual(domains("*", "a").explain("anything:1"), "")

    def test_port_and_dot(self) -> None:
        key = "set ignore_host_port to true on the router"
        for host, hint in (
            ("a.example:8080", f'one takes "a.example", without the port: to take both, {key}'),
            ("a.example.", f'one takes "a.example", without the dot at its end: to take both, {key}'),
            (
                "A.example.:1",
                f'one takes "a.example", without the port and the dot at its end: to take both, {key}',
            ),
            ("x.b.example:1", f'one takes "x.b.example", without the port: to take both, {key}'),
            ("c.example", "one takes it with the port 8080 or 8443"),
            (
                "c.example.:8080",
                f'one takes "c.example", without the dot at its end: to take both, {key}',
            ),
        ):
            self.check(host, f"no domain takes the Host {shown(host)}; {hint}")

    def test_what_is_advised_helps(self) -> None:
        for host in ("a.example:8080", "a.example.", "x.b.example:1", "c.example.:8080"):
            self.assertIn("ignore_host_port", domains(*self.names).explain(host))
            self.assertIsNotNone(taker(domains(*self.names, ignore_port=True), host), host)

    def test_no_advice(self) -> None:
        self.check("other.example", 'no domain takes the Host "other.example"')
        self.check("other.example:1", 'no domain takes the Host "other.example:1"')
        self.check("::1", '"::1" is no host name, optionally with a port')
        self.check("", 'it names no host, and only a router whose one domain is "*" takes such requests')
        self.assertEqual(domains().explain("a"), "there is no virtual host")

    def test_shown(self) -> None:
        """Nothing that a client sends garbles a log or a page."""
        self.assertEqual(shown("<script>\x1b[2J\u2028"), '"?script??[2J?"')
        self.assertEqual(len(shown("a" * 5000)), 105)

    @given(st.text(max_size=20))
    def test_any_host(self, host: str) -> None:
        for found in (domains(*self.names), domains(*self.names, ignore_port=True), domains("*")):
            reason = found.explain(host)
            self.assertTrue(reason.isascii() and (reason == "" or reason.isprintable()))
            self.assertEqual(bool(reason), taker(found, host) is None)
