"""The C{fleet} of a configuration."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import Loaded, loads
from reverseproxy.errors import ConfigError

CERTIFICATE = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nAA==\n-----END PRIVATE KEY-----\n"
TLS = {"status": True, "ca_cert": CERTIFICATE, "cert_chain": CERTIFICATE, "private_key": KEY}


def fleet(**parts: Any) -> dict[str, Any]:
    """A fleet that is all right, unless parts of it are not."""
    return {
        "server_id": parts.get("server_id", "alpha"),
        "etcd": {"endpoints": ["127.0.0.1:2379"], **parts.get("etcd", {})},
        "peers": {"address": "127.0.0.1:7000", **parts.get("peers", {})},
    }


def load(document: Any) -> Loaded:
    """Load a configuration with a fleet."""
    return loads(json.dumps({"servers": [{"listeners": []}], "fleet": document}), "x.json")


class FleetConfigTests(SynchronousTestCase):
    """What is taken, and what is refused."""

    def problems(self, document: Any) -> dict[str, str]:
        """What is wrong, by the place."""
        error = self.assertRaises(ConfigError, load, document)
        return {each.path: each.message for each in error.problems}

    def test_good(self) -> None:
        found = load(fleet()).config.fleet
        assert found is not None
        assert found.etcd is not None
        assert found.peers is not None
        self.assertEqual(found.server_id, "alpha")
        self.assertEqual(found.etcd.prefix, "/reverseproxy/fleet/")
        self.assertEqual(found.etcd.lease_ttl, 10.0)
        self.assertEqual(found.peers.advertised, "127.0.0.1:7000")
        self.assertEqual(load(fleet()).warnings, ())
        self.assertIs(load(None).config.fleet, None)

    def test_far(self) -> None:
        """Between machines it takes TLS; without it, to etcd, there is a warning."""
        loaded = load(
            fleet(
                etcd={"endpoints": ["etcd.example:2379"], "prefix": "/a/b"},
                peers={
                    "address": "0.0.0.0:7000",
                    "advertised_address": "a.example:7000",
                    "tls_context": TLS,
                },
            )
        )
        assert loaded.config.fleet is not None
        assert loaded.config.fleet.etcd is not None
        self.assertEqual(loaded.config.fleet.etcd.prefix, "/a/b/")
        self.assertEqual([each.path for each in loaded.warnings], ["fleet.etcd.endpoints"])

    def test_everything_missing(self) -> None:
        self.assertEqual(list(self.problems({})), ["fleet.server_id", "fleet.etcd", "fleet.peers"])
        empty = {"server_id": "a", "etcd": {}, "peers": {}}
        self.assertEqual(list(self.problems(empty)), ["fleet.etcd.endpoints", "fleet.peers.address"])

    def test_all_errors_at_once(self) -> None:
        found = self.problems(
            fleet(
                server_id="a b",
                etcd={
                    "endpoints": ["h:1", "h:1"],
                    "user": "me",
                    "prefix": "a b",
                    "lease_ttl": "1s",
                    "tls_context": {"status": True, "fall_back": True},
                },
                peers={"address": "0.0.0.0:7000", "tls_context": {"status": True, "insecure_skip": True}},
            )
        )
        self.assertEqual(
            set(found),
            {
                "fleet.server_id",
                "fleet.etcd.endpoints",
                "fleet.etcd.user",
                "fleet.etcd.prefix",
                "fleet.etcd.lease_ttl",
                "fleet.etcd.tls_context.fall_back",
                "fleet.peers.advertised_address",
                "fleet.peers.tls_context.insecure_skip",
                "fleet.peers.tls_context.ca_cert",
                "fleet.peers.tls_context.cert_chain",
                "fleet.peers.tls_context.private_key",
            },
        )

    def test_links_in_plaintext(self) -> None:
        """Only within one machine."""
        for address in ("10.0.0.1:7000", "a.example:7000"):
            self.assertIn("fleet.peers.tls_context", self.problems(fleet(peers={"address": address})))
        self.assertIn("fleet.peers.address", self.problems(fleet(peers={"address": ":7000"})))
        load(fleet(peers={"address": "[::1]:0"}))

    def test_passwords(self) -> None:
        both = {"user": "me", "password_file": "a", "password_env": "B"}
        self.assertIn("fleet.etcd.password_env", self.problems(fleet(etcd=both)))
        self.assertIn("fleet.etcd.password_env", self.problems(fleet(etcd={"password_env": "B"})))
        load(fleet(etcd={"user": "me", "password_env": "B"}))

    def test_password_that_others_may_read(self) -> None:
        path = Path(self.mktemp())
        path.write_text("secret")
        for mode, places in ((0o644, ["fleet.etcd.password_file"]), (0o600, [])):
            os.chmod(path, mode)
            loaded = load(fleet(etcd={"user": "me", "password_file": str(path)}))
            self.assertEqual([each.path for each in loaded.warnings], places)

    def test_urls(self) -> None:
        """Etcd has URLs in its own configuration."""
        found = self.problems(fleet(etcd={"endpoints": ["https://etcd.example:2379", "[::1]:2379"]}))
        self.assertEqual(list(found), ["fleet.etcd.endpoints[0]"])
        self.assertIn("tls_context", found["fleet.etcd.endpoints[0]"])

    def test_no_member(self) -> None:
        """An empty list is as wrong as none."""
        found = self.problems(fleet(etcd={"endpoints": []}))
        self.assertEqual(found, {"fleet.etcd.endpoints": "is empty: write where its members take clients"})

    def test_unknown_keys(self) -> None:
        """What looks like a key is not passed over: all of them protect something."""
        self.assertEqual(list(self.problems(fleet(etcd={"endpoint": "x"}))), ["fleet.etcd.endpoint"])


class ListenerTests(SynchronousTestCase):
    """What takes the links of other servers is a listener like others, but for where it stands."""

    def test_it_is_bound_with_the_others(self) -> None:
        tls = {"tls_context": TLS, "address": "192.0.2.1:7000"}
        [listener] = load(fleet(peers=tls)).config.listening
        self.assertEqual(
            (listener.name, listener.address, listener.bind_port), ("fleet", "192.0.2.1:7000", True)
        )
        self.assertTrue(listener.filter_chain.tls_contexts)
        [listener] = load(fleet()).config.listening
        self.assertFalse(listener.filter_chain.tls_contexts)

    def test_another_one_can_not_be_called_so(self) -> None:
        listeners = [{"name": "fleet", "address": "127.0.0.1:1", "bind_port": True}]
        document = {"servers": [{"listeners": listeners}], "fleet": fleet()}
        error = self.assertRaises(ConfigError, loads, json.dumps(document), "x.json")
        self.assertIn('fleet: a listener is called "fleet"', str(error))
