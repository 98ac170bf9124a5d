"""Tests for L{reverseproxy.identity.allowance}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.identity.allowance import NOTHING, Allowance, clean_domain, parse_ports


class AllowanceTests(SynchronousTestCase):
    def test_domains(self) -> None:
        for text, wanted in {
            "App.Example.com.": "app.example.com",
            "*.x.example": "*.x.example",
            " a ": "a",
            "xn--bcher-kva.example": "xn--bcher-kva.example",
        }.items():
            self.assertEqual(clean_domain(text), wanted)
        for text in (
            "",
            "*",
            "a b",
            "*.*",
            "a.*.b",
            "-a",
            "a-",
            "a..b",
            "a:80",
            "a/b",
            "bücher.example",
            "a" * 64,
        ):
            self.assertRaises(ValueError, clean_domain, text)
        self.assertRaises(ValueError, clean_domain, ".".join(["a" * 60] * 5))

    def test_ports(self) -> None:
        self.assertEqual(parse_ports("2222"), (2222, 2222))
        self.assertEqual(parse_ports("2200-2299"), (2200, 2299))
        for text in ("", "0", "65536", "3-2", "1-", "-1", "a", "1-2-3", "²"):
            self.assertRaises(ValueError, parse_ports, text)

    def test_what_is_permitted(self) -> None:
        some = Allowance.of(["a.example", "*.x.example"], ["80", "1000-1002"])
        for domain, wanted in {
            "a.example": True,
            "b.a.example": False,
            "x.example": False,
            "a.x.example": True,
            "a.b.x.example": True,
            "*.x.example": True,
            "*.a.x.example": True,
            "*.example": False,
            "evilx.example": False,
        }.items():
            self.assertEqual(some.permits_domain(domain), wanted, domain)
        self.assertEqual(
            [p for p in (79, 80, 81, 999, 1000, 1002, 1003) if some.permits_port(p)], [80, 1000, 1002]
        )
        self.assertTrue(Allowance.of(["*"], []).permits_domain("any.example"))
        self.assertFalse(NOTHING.permits_domain("a") or NOTHING.permits_port(1))
        both = some | Allowance.of(["b.example"], ["90"])
        self.assertTrue(both.permits_domain("b.example") and both.permits_port(90) and both.permits_port(80))
