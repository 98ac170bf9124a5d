"""Whole servers and agents with a directory in etcd, all of it in memory: what clients and operators see."""

from __future__ import annotations

import json
from functools import partial
from random import Random
from typing import Any

from prometheus_client.parser import text_string_to_metric_families
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.admin.fleet import merge_fleets
from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.testing import Recorder
from tests.admin.world import parse_answer
from tests.fleet.fake_etcd import FakeEtcd, Store
from tests.fleet.worlds import FleetWorld

ADMIN = 9900


class EtcdWorld(FleetWorld):
    """A fleet whose directory is in an etcd in memory."""

    def __init__(self) -> None:
        super().__init__()
        clock: Any = self.reactor
        self.etcd = Store(clock)

    def _directory(self, name: str, config: Any, who: Any, world: Any, publishes: bool) -> Any:
        etcd: Any = FakeEtcd(self.etcd)
        settings = Settings(config.server_id, "/fleet/", 10)
        return FleetDirectory(self.reactor, etcd, settings, Random(1), who, publishes)

    def pass_time(self, seconds: float) -> None:
        until = self.reactor.seconds() + seconds
        while self.reactor.seconds() < until:
            self.etcd.tick(0.05)
            self.reactor.settle()

    def query(self, number: int, path: str) -> Any:
        """Ask the admin API of a server."""
        client: Recorder = self.reactor.dial("127.0.0.1", ADMIN + number, Recorder())
        client.transport.write(
            f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n".encode()
        )
        self.reactor.settle()
        return parse_answer(client.data)


def with_admin(number: int, document: dict[str, Any]) -> dict[str, Any]:
    """A configuration with an admin API."""
    address = {"socket_address": {"address": "127.0.0.1", "port_value": ADMIN + number}}
    return {**document, "admin": {"address": address}}


class WholeTests(SynchronousTestCase):
    """Two servers, alpha and beta, and an agent that is only at alpha."""

    def setUp(self) -> None:
        self.world = EtcdWorld()
        self.addCleanup(self.world.stop)
        for number, name in enumerate(("alpha", "beta")):
            self.world.server(name, change=partial(with_admin, number))
        self.world.agent(0, answer="of alpha")
        self.world.pass_time(1)

    def test_reached_from_the_other_server(self) -> None:
        self.assertIn(b"of alpha", self.world.ask(1))

    def test_known_within_a_second(self) -> None:
        self.world.agent(0, answer="another")
        names = [key for key in self.world.etcd.keys if key.startswith("/fleet/hosts/")]
        self.assertEqual(len(names), 2)
        self.assertEqual(len(self.world.fleet("beta").remote.hosts), 2)

    def test_served_while_etcd_is_away(self) -> None:
        """With what is known; and when it is back, after an agent has come and one has gone, with what is."""
        self.world.etcd.go_down()
        self.world.pass_time(60)
        self.assertIn(b"of alpha", self.world.ask(1))
        self.world.agent(0, answer="of alpha")
        self.world.etcd.come_back()
        self.world.pass_time(5)
        self.assertEqual(len(self.world.fleet("beta").remote.hosts), 2)
        self.assertIn(b"of alpha", self.world.ask(1))

    def test_emptied_etcd(self) -> None:
        self.world.etcd.wipe()
        for _ in range(12):
            self.world.pass_time(0.5)
            self.assertIn(b"of alpha", self.world.ask(1))
        self.assertEqual(len(self.world.etcd.keys), 3)

    def test_planned_stop(self) -> None:
        stopped = self.world.servers["alpha"].stopService()
        self.world.pass_time(10)
        self.successResultOf(stopped)
        self.assertEqual(list(self.world.etcd.keys), ["/fleet/servers/beta"])
        self.assertEqual(self.world.fleet("beta").peers(), [])

    def test_admin(self) -> None:
        """Each server names the others."""
        for number, name, other, hosts in ((0, "alpha", "beta", 0), (1, "beta", "alpha", 1)):
            found = self.world.query(number, "/api/tunnel/v1/fleet").json
            self.assertEqual(found["server"], name)
            [peer] = found["servers"]
            self.assertEqual((peer["server"], peer["hosts"], peer["state"]), (other, hosts, "up"))
            self.assertEqual(peer["address"], f"127.0.0.1:{4001 - number}")
            self.assertTrue(found["directory"]["up"])
            self.assertEqual(found["directory"]["servers"], 1)
            self.assertEqual(found["problems"], [])

    def test_metrics(self) -> None:
        self.world.ask(1)
        self.world.etcd.go_down()
        self.world.pass_time(5)
        text = self.world.query(1, "/metrics").body.decode()
        found = {
            (sample.name.removeprefix("reverseproxy_fleet_"), tuple(sample.labels.values())): sample.value
            for family in text_string_to_metric_families(text)
            for sample in family.samples
            if sample.name.startswith("reverseproxy_fleet_")
        }
        self.assertEqual(found["directory_down", ()], 1)
        self.assertEqual(found["hosts", ()], 1)
        self.assertEqual(found["links", ("alpha", "up")], 1)
        self.assertEqual(found["forwarded_total", ("alpha",)], 1)
        self.assertGreater(found["directory_failures_total", ()], 0)

    def test_several_workers(self) -> None:
        """What they know is the same, and what they count is added up."""
        told = self.world.servers["beta"].answer("fleet", {})
        json.dumps(told)
        one = merge_fleets([(0, told)])
        both = merge_fleets([(1, told), (2, told), (3, None)])
        self.assertEqual([each["worker"] for each in both["servers"]], [1, 2])
        self.assertEqual([each["worker"] for each in one["servers"]], [None])
        self.assertEqual(both["directory"]["hosts"], one["directory"]["hosts"])
        self.assertEqual(both["directory"]["requests"], 2 * one["directory"]["requests"])
        self.assertEqual(merge_fleets([(0, None)])["server"], None)
