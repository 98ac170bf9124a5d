"""The directory over three nodes of etcd, of which some are killed, and one stands still."""

from __future__ import annotations

import shutil
import signal
import subprocess
from pathlib import Path
from random import Random
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase

from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError
from reverseproxy.fleet.records import ServerRecord
from tests.fleet.real_etcd import ETCD, free_ports
from tests.fleet.test_etcd import until
from tests.fleet.test_view import Mirror, host

reactor: Any = global_reactor

TTL = 2


class Cluster:
    """Three nodes."""

    def __init__(self, directory: str) -> None:
        self.directory = Path(directory)
        self.clients = free_ports(3)
        self.peers = free_ports(3)
        self.processes: list[subprocess.Popen[bytes]] = [self._start(number) for number in range(3)]

    @property
    def endpoints(self) -> list[str]:
        """Where clients dial them."""
        return [f"127.0.0.1:{port}" for port in self.clients]

    def _start(self, number: int) -> subprocess.Popen[bytes]:
        assert ETCD is not None
        client, peer = (f"http://127.0.0.1:{ports[number]}" for ports in (self.clients, self.peers))
        everybody = ",".join(f"n{each}=http://127.0.0.1:{port}" for each, port in enumerate(self.peers))
        return subprocess.Popen(
            [
                *(ETCD, "--name", f"n{number}", "--data-dir", str(self.directory / str(number))),
                *("--listen-client-urls", client, "--advertise-client-urls", client),
                *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
                *("--initial-cluster", everybody, "--log-level", "fatal", "--unsafe-no-fsync"),
            ],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def kill(self, number: int) -> None:
        """End one, as a machine that fails does."""
        self.processes[number].kill()
        self.processes[number].wait()

    def restart(self, number: int) -> None:
        """Start one again."""
        self.processes[number] = self._start(number)

    def send(self, number: int, what: signal.Signals) -> None:
        """Send one a signal."""
        self.processes[number].send_signal(what)

    async def leader(self) -> int:
        """Which of them leads, as soon as one does that all of them know of."""
        for _ in range(200):
            try:
                found = [await self._status(endpoint) for endpoint in self.endpoints]
                return [each["header"]["member_id"] for each in found].index(found[0]["leader"])
            except (EtcdError, KeyError, ValueError):
                await deferLater(reactor, 0.1)
        raise AssertionError("nobody leads")

    async def _status(self, endpoint: str) -> Any:
        client = Etcd(reactor, [endpoint])
        try:
            return await client.call("maintenance/status", {})
        finally:
            await client.close()

    def stop(self) -> None:
        """End all of them."""
        for process in self.processes:
            process.kill()
            process.wait()
        shutil.rmtree(self.directory, ignore_errors=True)


class ThreeNodesTests(TestCase):
    """Two servers, with links that are up; each begins at another node."""

    timeout = 120

    async def setUp(self) -> None:
        self.cluster = Cluster(mkdtemp(prefix="etcd"))
        self.addCleanup(self.cluster.stop)
        await self.cluster.leader()
        self.count = 0
        self.alpha, self.beta = (self.server(name, first) for first, name in enumerate(("alpha", "beta")))
        self.heard = Mirror()
        self.left: list[Any] = []
        self.patch(self.heard, "host_left", lambda *what: self.left.append(what))
        self.beta.listen(self.heard)  # type: ignore[arg-type]

    def server(self, name: str, first: int) -> FleetDirectory:
        """Make a server."""
        record = ServerRecord(name, "127.0.0.1:7000")
        endpoints = self.cluster.endpoints[first:] + self.cluster.endpoints[:first]
        etcd = Etcd(reactor, endpoints, timeout=1)
        directory = FleetDirectory(reactor, etcd, Settings(name, "/fleet/", TTL), Random(), lambda: record)
        directory.judge(lambda server: True)
        directory.start()
        self.addCleanup(directory.stop)
        return directory

    async def known(self, what: str, within: float) -> None:
        """Something that is published is known soon, and nothing that was known before is forgotten."""
        self.count += 1
        record = host("alpha", agent=f"{self.count:032x}")
        self.alpha.publish(record)
        took = await until(lambda: record.key in self.heard.hosts, what)
        print(f"{what}: known after {took:.2f} s")  # noqa: T201
        self.assertLess(took, within)
        self.assertEqual(len(self.heard.hosts), self.count)
        self.assertEqual(self.left, [])

    async def test_nodes_fail(self) -> None:
        """One after the other, and two at once, for longer than leases last."""
        await self.known("all three nodes are there", 5)
        leader = await self.cluster.leader()
        self.cluster.kill(leader)
        await self.known("the leader is killed", 12)
        self.cluster.restart(leader)
        await self.cluster.leader()
        asked = self.cluster.endpoints.index(self.alpha._publisher.etcd.endpoint)
        self.cluster.send(asked, signal.SIGSTOP)
        await self.known("the node stands still that is asked", 15)
        self.cluster.send(asked, signal.SIGCONT)
        await self.cluster.leader()
        for number in (0, 1):
            self.cluster.kill(number)
        await until(lambda: not (self.alpha.up or self.beta.up), "it should be known that etcd is away")
        await deferLater(reactor, TTL)
        for number in (0, 1):
            self.cluster.restart(number)
        await self.known("two nodes were killed, and are started again", 15)
        await until(lambda: not self.beta.held, "nobody is held any more")
        self.assertEqual(self.left, [])


if ETCD is None:
    del ThreeNodesTests
