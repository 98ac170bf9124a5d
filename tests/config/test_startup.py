"""Tests for L{reverseproxy.config.startup}."""

from __future__ import annotations

from typing import Any

import trustme
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.startup import MOST, startup_lines
from tests.config.documents import AGENT, TUNNEL_SERVER, edited, parse


class StartupTests(SynchronousTestCase):
    def lines(self, document: dict[str, Any], *changes: tuple[str, Any]) -> dict[str, str]:
        found = startup_lines(parse(edited(document, *changes)).config)
        self.assertEqual(len(found), 5)
        return dict(line.split(": ", 1) for line in found)

    def test_a_server(self) -> None:
        self.assertEqual(
            self.lines(
                TUNNEL_SERVER,
                ("servers[0].listeners[0].address", "0.0.0.0:80"),
                ("admin", {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}}),
            ),
            {
                "listening": "clients (Http1), agents (agents)",
                "joining": "agents accepts any agent that can connect",
                "open to the network": "clients in plaintext",
                "TLS": "at no listener",
                "admin": "at 127.0.0.1:9901",
            },
        )

    def test_a_port_that_the_system_chooses(self) -> None:
        """It is said once it is known."""
        for port, admin in ((0, "admin: at 127.0.0.1:40123"), (9901, "admin: at 127.0.0.1:9901")):
            address = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}
            config = parse(edited(TUNNEL_SERVER, ("admin", address))).config
            self.assertEqual(startup_lines(config)[-1], f"admin: at 127.0.0.1:{port}")
            self.assertEqual(startup_lines(config, "127.0.0.1:40123")[-1], admin)

    def test_what_agents_must_show(self) -> None:
        made = trustme.CA()
        issued = made.issue_cert("localhost")
        certificates = {
            "status": True,
            "cert_chain": issued.cert_chain_pems[0].bytes().decode(),
            "private_key": issued.private_key_pem.bytes().decode(),
            "ca_cert": made.cert_pem.bytes().decode(),
            "verify_client": True,
            "require_client_cert": True,
        }
        chain = "servers[0].listeners[1].filter_chains[0]"
        policy = {"credential_policy": "static", "validators": {"static": {"tokens": {"a": "b"}}}}
        found = self.lines(
            TUNNEL_SERVER,
            ("servers[0].listeners[1].address", ":9999"),
            (f"{chain}.tls_context", certificates),
            (f"{chain}.filters[0].config", policy),
        )
        self.assertEqual(
            found["joining"],
            "agents accepts agents with a credential of policy static and a client certificate",
        )
        self.assertEqual(found["open to the network"], "agents with client certificates")
        self.assertEqual(found["TLS"], "at agents")

    def test_an_agent(self) -> None:
        self.assertEqual(
            self.lines(AGENT),
            {
                "listening": "nothing",
                "joining": "cluster edge of 127.0.0.1:9999, over 1 connection each",
                "open to the network": "nothing",
                "TLS": "at no listener, not to servers",
                "admin": "none",
            },
        )

    def test_many(self) -> None:
        """However many there are, a line is one that can be read."""
        listener = edited(TUNNEL_SERVER)["servers"][0]["listeners"][0]
        many = [{**listener, "name": f"l{n}", "address": f"127.0.0.1:{1000 + n}"} for n in range(MOST + 3)]
        self.assertRegex(
            self.lines(TUNNEL_SERVER, ("servers[0].listeners", many))["listening"], r"l7 \(.*\) and 3 more$"
        )
