"""Tests for L{reverseproxy.config._admin} and its checks."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ConfigError
from tests.config.documents import TUNNEL_SERVER, edited, parse

PEM = "-----BEGIN CERTIFICATE-----"
TLS = {"status": True, "cert_chain": PEM, "private_key": PEM}
CLIENT_TLS = {**TLS, "ca_cert": PEM, "verify_client": True}


def at(address: str, **more: Any) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": address, "port_value": 34901}}, **more}


class AdminTests(SynchronousTestCase):
    def bound(self, admin: Any) -> tuple[str, list[str]]:
        loaded = parse(edited(TUNNEL_SERVER, ("admin", admin)))
        found = loaded.config.admin
        warnings = [str(each) for each in loaded.warnings if "admin" in str(each)]
        return "" if found is None else found.bound, warnings

    def problems(self, admin: Any) -> str:
        with self.assertRaises(ConfigError) as caught:
            parse(edited(TUNNEL_SERVER, ("admin", admin)))
        return str(caught.exception)

    def test_this_machine(self) -> None:
        self.assertEqual(self.bound(at("127.0.0.1")), ("127.0.0.1:34901", []))
        self.assertEqual(self.bound(at("::1")), ("[::1]:34901", []))
        self.assertEqual(self.bound(at("localhost")), ("localhost:34901", []))
        self.assertEqual(self.bound({"address": {"pipe": {"path": "/run/a"}}}), ("unix:/run/a", []))

    def test_nowhere(self) -> None:
        self.assertEqual(self.bound(None), ("", []))
        [warning] = self.bound({})[1]
        self.assertIn("has neither socket_address nor pipe: there is no admin API", warning)

    def test_mosn_s_samples(self) -> None:
        """MOSN lets everybody in at 0.0.0.0: here it is this machine alone, and a warning."""
        for address in ("0.0.0.0", "::", "10.0.0.1", "admin.example", ""):
            bound, [warning] = self.bound(at(address))
            self.assertEqual(bound, "127.0.0.1:34901")
            self.assertIn("listens at 127.0.0.1 instead of", warning)

    def test_elsewhere_takes_tls_and_names(self) -> None:
        text = self.problems(at("0.0.0.0", tokens_file="/t"))
        self.assertIn("admin.address.socket_address.address: others than this machine", text)
        self.assertIn("takes tls_context with status: true;", text)
        self.assertIn("takes tokens_file or certificates;", self.problems(at("0.0.0.0", tls_context=TLS)))
        self.assertEqual(self.bound(at("0.0.0.0", tls_context=TLS, tokens_file="/t")), ("0.0.0.0:34901", []))
        certificates = [{"name": "CN=ops", "role": "operate"}]
        self.assertEqual(
            self.bound(at("0.0.0.0", tls_context=CLIENT_TLS, certificates=certificates)),
            ("0.0.0.0:34901", []),
        )

    def test_certificates_that_nobody_verifies(self) -> None:
        for context in (None, TLS, {**CLIENT_TLS, "ca_cert": ""}, {**CLIENT_TLS, "status": False}):
            text = self.problems(at("127.0.0.1", tls_context=context, certificates=[{"name": "CN=ops"}]))
            self.assertIn("admin.certificates: no certificate would be verified", text)

    def test_plaintext_instead_of_tls(self) -> None:
        text = self.problems(at("0.0.0.0", tls_context={**TLS, "fall_back": True}, tokens_file="/t"))
        self.assertIn("admin.tls_context.fall_back: would let the admin API be reached in plaintext", text)

    def test_both_addresses(self) -> None:
        admin = at("127.0.0.1")
        admin["address"]["pipe"] = {"path": "/x"}
        self.assertIn("admin.address: socket_address and pipe can't be used together", self.problems(admin))

    def test_values(self) -> None:
        self.assertIn(
            "is out of range", self.problems({"address": {"socket_address": {"port_value": 65536}}})
        )
        self.assertIn("path: missing key", self.problems({"address": {"pipe": {}}}))
        self.assertIn(
            "mode: 512 is out of range", self.problems({"address": {"pipe": {"path": "/x", "mode": 512}}})
        )
