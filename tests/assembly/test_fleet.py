"""A reload of C{fleet}: how etcd is reached may change."""

from __future__ import annotations

import json
import os
from pathlib import Path
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.directory import make_client
from reverseproxy.config.loader import loads
from reverseproxy.config.models import EtcdConfig
from reverseproxy.errors import ConfigError
from reverseproxy.fleet.directory import FleetDirectory
from reverseproxy.testing import MemoryReactor
from tests.integration import configs


def document(
    etcd: dict[str, Any] | None = None, peers: dict[str, Any] | None = None, name: str = "alpha"
) -> dict[str, Any]:
    """A server of a fleet."""
    return {
        **configs.server(client="127.0.0.1:2000", tunnel="127.0.0.1:3000"),
        "fleet": {
            "server_id": name,
            "etcd": {"endpoints": ["127.0.0.1:2379"], **(etcd or {})},
            "peers": {"address": "127.0.0.1:4000", **(peers or {})},
        },
    }


class ReloadTests(SynchronousTestCase):
    """One configuration after another, with an etcd that is never there."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        loaded = loads(json.dumps(document()), "x")
        self.service = ReverseProxy(loaded.config, self.reactor, Random(1))
        self.service.startService()
        self.addCleanup(self.stop)
        self.reactor.advance(1)
        fleet: Any = self.service._world.fleet
        self.directory: FleetDirectory = fleet.directory

    def stop(self) -> None:
        """End it."""
        stopped = self.service.stopService()
        for _ in range(200):
            self.reactor.advance(0.25)
        self.successResultOf(stopped)

    def take(self, new: dict[str, Any]) -> Any:
        """Go on with another configuration."""
        return self.service.living.take(loads(json.dumps(new), "x"), 2)

    def endpoints(self) -> list[str]:
        """Where etcd is looked for."""
        return sorted(self.directory._publisher.etcd._endpoints)

    def test_other_endpoints(self) -> None:
        """They are asked from now on, and what is published stays."""
        old = self.directory._publisher.etcd
        report = self.take(document({"endpoints": ["127.0.0.1:1", "127.0.0.1:2"], "lease_ttl": "20s"}))
        self.assertEqual(report.changes["settings"], ["fleet.etcd"])
        self.assertEqual(report.restart, {})
        self.assertEqual(self.endpoints(), ["127.0.0.1:1", "127.0.0.1:2"])
        self.assertIsNot(self.directory._publisher.etcd, old)
        self.assertIs(self.directory._follower.etcd, self.directory._publisher.etcd)
        self.assertEqual(self.directory.settings.ttl, 20)
        self.reactor.advance(5)
        self.assertGreater(self.directory._publisher.etcd.requests, 0)

    def test_only_the_lease(self) -> None:
        """Connections stay what they are."""
        old = self.directory._publisher.etcd
        self.take(document({"lease_ttl": "1m"}))
        self.assertEqual(self.directory.settings.ttl, 60)
        self.assertIs(self.directory._publisher.etcd, old)

    def test_nothing(self) -> None:
        self.assertEqual(self.take(document()).changes, {})

    def test_what_takes_a_restart(self) -> None:
        """It is said, and all else counts."""
        report = self.take(
            document({"prefix": "/other", "lease_ttl": "20s"}, {"address": "127.0.0.1:4001"}, "beta")
        )
        self.assertEqual(list(report.restart), ["fleet.server_id", "fleet.peers", "fleet.etcd.prefix"])
        self.assertEqual(self.directory.settings.ttl, 20)
        self.assertEqual(self.directory.settings.prefix, "/reverseproxy/fleet/")
        self.assertEqual(self.directory.server_id, "alpha")

    def test_no_fleet_any_more(self) -> None:
        new = document()
        del new["fleet"]
        self.assertEqual(list(self.take(new).restart), ["fleet"])

    def test_what_can_not_be_used(self) -> None:
        """It is in its place, and nothing has changed."""
        path = Path(self.mktemp())
        path.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        tls = {"status": True, "ca_cert": str(path)}
        error = self.assertRaises(
            ConfigError, self.take, document({"endpoints": ["127.0.0.1:9"], "tls_context": tls})
        )
        self.assertEqual([each.path for each in error.problems], ["fleet.etcd.tls_context.ca_cert"])
        self.assertEqual(self.endpoints(), ["127.0.0.1:2379"])


class BuildingTests(SynchronousTestCase):
    """What only building shows."""

    def test_all_that_is_wrong_at_once(self) -> None:
        """Each in its place, and warnings with it."""
        directory = Path(self.mktemp())
        directory.mkdir()
        peers = {
            "access_logs": [
                {"log_path": "stdout", "log_format": "%nothing%"},
                {"log_path": str(directory)},
                {"log_path": "stdout", "log_format": "%open"},
            ]
        }
        broken = directory / "ca.pem"
        broken.write_text("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n")
        etcd = {"tls_context": {"status": True, "ca_cert": str(broken)}}
        config = loads(json.dumps(document(etcd, peers)), "x").config
        error = self.assertRaises(
            ConfigError, ReverseProxy, config, MemoryReactor(), Random(1), "x.json", dry=True
        )
        logs = "fleet.peers.access_logs"
        self.assertEqual(
            [(each.file, each.path) for each in error.problems],
            [
                ("x.json", f"{logs}[1].log_path"),
                ("x.json", f"{logs}[2].log_format"),
                ("x.json", "fleet.etcd.tls_context.ca_cert"),
            ],
        )
        self.assertEqual([each.path for each in error.warnings], [f"{logs}[0].log_format"])


class PasswordTests(SynchronousTestCase):
    """Where the password of etcd comes from."""

    def password(self, **facts: str) -> str:
        """Find it."""
        etcd = EtcdConfig(endpoints=("127.0.0.1:1",), user="me", **facts)
        found: str = make_client(etcd, None, MemoryReactor())._password()
        return found

    def test_file(self) -> None:
        """It is read at each log-in, so that it may change."""
        path = Path(self.mktemp())
        path.write_text("one\n")
        self.assertEqual(self.password(password_file=str(path)), "one")
        path.write_text("")
        self.assertRaises(ValueError, self.password, password_file=str(path))
        path.unlink()
        self.assertRaises(OSError, self.password, password_file=str(path))

    def test_environment(self) -> None:
        self.patch(os, "environ", {"SECRET": "two"})
        self.assertEqual(self.password(password_env="SECRET"), "two")
        self.assertRaises(ValueError, self.password, password_env="NONE")
