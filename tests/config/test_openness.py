"""Tests for the loader's warnings about configurations that are open to anyone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from tests.config.documents import AGENT, CHAIN, CONFIG, FILTER, LISTENER, TUNNEL_SERVER, edited, warnings

PEM = "-----BEGIN X-----"
TLS = {"status": True, "cert_chain": PEM, "private_key": PEM}
MUTUAL = {**TLS, "ca_cert": PEM, "verify_client": True, "require_client_cert": True}
AGENTS = "servers[0].listeners[1]"
TUNNEL = f"{AGENTS}.filter_chains[0].filters[0]"


def opened(*changes: tuple[str, Any]) -> list[str]:
    """What is said of a tunnel listener at all addresses."""
    return warnings(edited(TUNNEL_SERVER, (f"{AGENTS}.address", "0.0.0.0:9999"), *changes))


class TunnelTests(SynchronousTestCase):
    def test_all(self) -> None:
        [line] = opened()
        self.assertTrue(
            line.startswith(f"{TUNNEL}: any agent that can connect to 0.0.0.0:9999 can join any cluster"),
            line,
        )
        for key in ("credential_policy", "verify_client", "require_client_cert", "tls_context"):
            self.assertIn(key, line)

    def test_addresses(self) -> None:
        for address, said in (
            ("127.0.0.1:9999", False),
            ("127.9.9.9:9999", False),
            ("[::1]:9999", False),
            ("localhost:9999", False),
            ("[::ffff:127.0.0.1]:9999", False),
            ("[::ffff:10.0.0.1]:9999", True),
            (":9999", True),
            ("[::]:9999", True),
            ("192.0.2.1:9999", True),
            ("[2001:db8::1]:9999", True),
            ("edge.example:9999", True),
        ):
            found = warnings(edited(TUNNEL_SERVER, (f"{AGENTS}.address", address)))
            self.assertEqual(len(found), said, (address, found))

    def test_unix(self) -> None:
        changes = ((f"{AGENTS}.address", "/run/a"), (f"{AGENTS}.network", "unix"))
        self.assertEqual(warnings(edited(TUNNEL_SERVER, *changes)), [])

    def test_what_closes_it(self) -> None:
        tls = f"{AGENTS}.filter_chains[0].tls_context"
        policy = {"credential_policy": "static", "validators": {"static": {"file": "/no"}}}
        self.assertEqual(opened((tls, MUTUAL)), [])
        self.assertEqual(opened((tls, TLS), (f"{TUNNEL}.config", policy)), [])
        [line] = opened((tls, TLS))
        self.assertIn("can join", line)
        self.assertNotIn("tls_context", line)
        lines = opened((f"{TUNNEL}.config", policy))
        self.assertIn(
            f"{TUNNEL}: without TLS, the traffic can be read and changed on its way: set tls_context", lines
        )

    def test_policies_of_clusters(self) -> None:
        tls = (f"{AGENTS}.filter_chains[0].tls_context", TLS)
        second = ("cluster_manager.clusters[1]", {"name": "other"})
        for policies, said in (
            ({"edge": "p"}, 'cluster "other"'),
            ({"edge": "p", "other": "p"}, None),
            ({"edge": "p", "other": ""}, 'cluster "other"'),
            ({}, "any cluster"),
        ):
            config = {"cluster_credential_policies": policies}
            lines = opened(tls, second, (f"{TUNNEL}.config", config))
            self.assertEqual(bool(lines), said is not None, (policies, lines))
            if said is not None:
                self.assertIn(f"can join {said} ", lines[0])

    def test_plaintext_beside_tls(self) -> None:
        tls = (f"{AGENTS}.filter_chains[0].tls_context", MUTUAL)
        lines = opened(tls, (f"{AGENTS}.inspector", True))
        self.assertTrue(any(line.startswith(f"{AGENTS}.inspector: plaintext") for line in lines), lines)
        self.assertTrue(any("can join any cluster" in line for line in lines), lines)
        policy = {"credential_policy": "static", "validators": {"static": {"file": "/no"}}}
        lines = opened((tls[0], TLS), (f"{TUNNEL}.config", policy), (f"{AGENTS}.inspector", True))
        [line] = lines
        self.assertIn("agents may come without TLS", line)


class CertificateTests(SynchronousTestCase):
    def found(self, context: dict[str, Any], *changes: tuple[str, Any]) -> list[str]:
        return warnings(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context), *changes))

    def test_halves(self) -> None:
        context = {**TLS, "ca_cert": PEM}
        [line] = self.found({**context, "require_client_cert": True})
        self.assertTrue(line.startswith(f"{CHAIN}.tls_context.require_client_cert: "), line)
        self.assertIn("set verify_client as well", line)
        [line] = self.found({**context, "verify_client": True})
        self.assertIn("set require_client_cert", line)
        self.assertEqual(self.found(MUTUAL), [])
        self.assertEqual(self.found(TLS), [])

    def test_sets(self) -> None:
        changes = (f"{CHAIN}.tls_context_set", [TLS, {**TLS, "ca_cert": PEM, "require_client_cert": True}])
        [line] = warnings(edited(TUNNEL_SERVER, changes))
        self.assertTrue(line.startswith(f"{CHAIN}.tls_context_set[1].require_client_cert: "), line)

    def test_fall_back(self) -> None:
        [line] = self.found({**MUTUAL, "fall_back": True})
        self.assertTrue(line.startswith(f"{CHAIN}.tls_context.fall_back: "), line)

    def test_inspector(self) -> None:
        [line] = self.found(MUTUAL, (f"{LISTENER}.inspector", True))
        self.assertTrue(line.startswith(f"{LISTENER}.inspector: "), line)
        self.assertEqual(self.found(TLS, (f"{LISTENER}.inspector", True)), [])


class ClientTests(SynchronousTestCase):
    def test_trusted_proxies(self) -> None:
        for ranges, said in (
            (["*"], 1),
            (["::/0"], 1),
            (["10.0.0.0/8", "0.0.0.0/0"], 1),
            (["10.0.0.0/8"], 0),
        ):
            for address, far in (("0.0.0.0:2045", 1), ("127.0.0.1:2045", 0)):
                found = warnings(
                    edited(
                        TUNNEL_SERVER,
                        (f"{FILTER}.config.trusted_proxies", ranges),
                        (f"{LISTENER}.address", address),
                    )
                )
                self.assertEqual(len(found), said * far, found)

    def test_lists_of_addresses_that_nobody_is_believed_to_know(self) -> None:
        path, proxies = f"{LISTENER}.stream_filters", f"{FILTER}.config.trusted_proxies"
        for header, said in (("X-Forwarded-For", 1), ("x-real-ip", 1), ("x-client", 0), ("", 0)):
            lists = [{"action": "allow", "addrs": ["10.0.0.0/8"]}]
            config = {"default_action": "deny", "header": header, "ips": lists}
            filters = [{"type": "ip_access", "config": config}]
            found = warnings(edited(TUNNEL_SERVER, (path, filters)))
            self.assertEqual(len(found), said, found)
            if said:
                self.assertTrue(found[0].startswith(f"{path}[0].config.header: "), found)
            self.assertEqual(warnings(edited(TUNNEL_SERVER, (path, filters), (proxies, ["10.0.0.1"]))), [])

    def test_agents(self) -> None:
        path = f"{CONFIG}.server_list"
        for servers, said in (
            (["192.0.2.1:9999"], 1),
            (["127.0.0.1:9999", "edge.example:9999"], 1),
        ):
            found = warnings(edited(AGENT, (path, servers)))
            self.assertEqual(len(found), said, found)
        self.assertIn("there is no TLS to edge.example:9999", found_in(AGENT, path, ["edge.example:9999"]))
        tls = (f"{CONFIG}.tls_context", {"status": True})
        self.assertEqual(warnings(edited(AGENT, (path, ["edge.example:9999"]), tls)), [])
        off = (f"{CONFIG}.enable", False)
        found = warnings(edited(AGENT, (path, ["edge.example:9999"]), off))
        self.assertNotIn("TLS", "".join(found))


def found_in(document: dict[str, Any], path: str, value: Any) -> str:
    [line] = warnings(edited(document, (path, value)))
    return line


class FileTests(SynchronousTestCase):
    """Files with secrets that others on the machine can read."""

    def file(self, mode: int, text: str = PEM) -> str:
        path = os.path.abspath(self.mktemp())
        Path(path).write_text(text)
        os.chmod(path, mode)
        return path

    def test_modes(self) -> None:
        for mode, said in (
            (0o600, ""),
            (0o400, ""),
            (0o700, ""),
            (0o711, ""),
            (0o640, "its group on this machine can read"),
            (0o644, "everybody on this machine can read"),
            (0o604, "everybody on this machine can read"),
            (0o620, "its group on this machine can write"),
        ):
            path = self.file(mode)
            context = {**TLS, "cert_chain": self.file(0o644), "private_key": path}
            found = warnings(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context)))
            self.assertEqual(len(found), bool(said), found)
            if said:
                self.assertTrue(found[0].startswith(f"{CHAIN}.tls_context.private_key: {said}"), found)
                self.assertIn(path, found[0])
                self.assertIn(f"(mode {mode:04o}): chmod 600", found[0])

    def test_where(self) -> None:
        path = self.file(0o644)
        policy = {"credential_policy": "static", "validators": {"static": {"file": path}}}
        admin = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": 1}},
            "tokens_file": path,
        }
        for document, place, value, said in (
            (TUNNEL_SERVER, f"{TUNNEL}.config", policy, f"{TUNNEL}.config.validators.static.file"),
            (TUNNEL_SERVER, "admin", admin, "admin.tokens_file"),
            (AGENT, f"{CONFIG}.credential_config", {"file": path}, f"{CONFIG}.credential_config.file"),
            (
                AGENT,
                f"{CONFIG}.tls_context",
                {"status": True, "cert_chain": self.file(0o644), "private_key": path},
                f"{CONFIG}.tls_context.private_key",
            ),
            (
                TUNNEL_SERVER,
                "cluster_manager.clusters[0].tls_context",
                {"status": True, "cert_chain": self.file(0o644), "private_key": path},
                "cluster_manager.clusters[0].tls_context.private_key",
            ),
        ):
            found = [line for line in warnings(edited(document, (place, value))) if path in line]
            self.assertEqual([line.partition(": ")[0] for line in found], [said])

    def test_off(self) -> None:
        context = {"status": False, "private_key": self.file(0o644)}
        self.assertEqual(warnings(edited(TUNNEL_SERVER, (f"{CHAIN}.tls_context", context))), [])

    def test_the_configuration_itself(self) -> None:
        """It is a file with secrets if they stand in it; what they are is not shown."""
        tokens = {
            "credential_policy": "static",
            "validators": {"static": {"tokens": [{"name": "a", "token": "s3"}]}},
        }
        for document, place, value in (
            (TUNNEL_SERVER, f"{TUNNEL}.config", tokens),
            (AGENT, f"{CONFIG}.credential_config", {"token": "s3cret"}),
            (TUNNEL_SERVER, f"{CHAIN}.tls_context", TLS),
        ):
            for mode, said in ((0o644, 1), (0o600, 0)):
                file = self.file(mode, "{}")
                found = [line for line in warnings(edited(document, (place, value)), file) if "chmod" in line]
                self.assertEqual(len(found), said, found)
                self.assertNotIn("s3", "".join(found))
                if said:
                    self.assertIn("the file of this configuration, which holds", found[0])
