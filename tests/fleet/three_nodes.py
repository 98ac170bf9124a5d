"""
The directory over three nodes of etcd, of which some are killed, paused and cut off.

It takes half a minute, and so is no test of every run: C{python -m tests.fleet.three_nodes}.
"""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.gateway import EtcdError
from reverseproxy.fleet.records import ServerRecord
from tests.fleet.real_etcd import ETCD, free_ports
from tests.fleet.test_etcd import until
from tests.fleet.test_view import host

reactor: Any = global_reactor


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


class Bench:
    """Two servers; what is published by one is looked for at the other."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster = cluster
        self.count = 0
        self.servers = [self.server(name) for name in ("alpha", "beta")]

    def server(self, name: str) -> FleetDirectory:
        """Make a server."""
        record = ServerRecord(name, "127.0.0.1:7000")
        etcd = Etcd(reactor, self.cluster.endpoints, timeout=2)
        directory = FleetDirectory(reactor, etcd, Settings(name, "/fleet/", 5), Random(), lambda: record)
        directory.judge(lambda server: True)
        directory.start()
        return directory

    async def known(self, what: str) -> None:
        """Something that is published is known."""
        alpha, beta = self.servers
        self.count += 1
        record = host("alpha", agent=f"{self.count:032x}")
        alpha.publish(record)
        took = await until(lambda: record.key in beta.hosts, what)
        assert len(beta.hosts) == self.count, "something was forgotten"
        sys.stdout.write(f"{what}: known after {took:.2f} s\n")
        sys.stdout.flush()


async def run() -> None:
    """Do it all."""
    with TemporaryDirectory() as directory:
        cluster = Cluster(directory)
        try:
            await cluster.leader()
            bench = Bench(cluster)
            await bench.known("all three nodes are there")
            for what, choose in (("the leader is killed", 0), ("a follower is killed", 1)):
                number = (await cluster.leader() + choose) % 3
                cluster.kill(number)
                await bench.known(what)
                cluster.restart(number)
                await bench.known("it is started again")
            number = await cluster.leader()
            cluster.send(number, signal.SIGSTOP)
            await bench.known("the leader is paused")
            cluster.send(number, signal.SIGCONT)
            await bench.known("it goes on")
            for number in (0, 1):
                cluster.kill(number)
            await deferLater(reactor, 6)
            assert not bench.servers[0].up, "two of three nodes are gone"
            for number in (0, 1):
                cluster.restart(number)
            await bench.known("two nodes were killed, and are started again")
            for server in bench.servers:
                await server.stop()
        finally:
            for process in cluster.processes:
                process.kill()
                process.wait()


def main() -> None:
    """Run it, and say whether all went well."""
    failed: list[Any] = []
    running = Deferred.fromCoroutine(run())
    running.addErrback(failed.append)
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
    for each in failed:
        sys.stderr.write(each.getTraceback())
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
