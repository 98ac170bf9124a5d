"""
How the directory of a fleet grows: what one agent costs, measured, and what many cost, from that.

    python -m benchmarks.fleet_growth [--agents 20000] [--watchers 20]

Measured are memory and CPU for an agent that another server has, as this project's own code
knows it; and with a real etcd of one node: how many agents a second can be published, and how
many changes a second it can tell of.  From these follow the tables: what is in etcd and in each
server, how long a server takes to know all when it starts, and how long it takes until all know
of all again when a server is lost, and its agents join the others.
"""

from __future__ import annotations

import argparse
import gc
import json
import resource
import subprocess
import sys
import time
from base64 import b64encode
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.defer import Deferred
from twisted.internet.task import deferLater

from benchmarks.processes import free_ports
from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ClusterConfig
from reverseproxy.fleet.directory import FleetDirectory, Settings
from reverseproxy.fleet.etcd import Etcd
from reverseproxy.fleet.etcd_json import EtcdError, LineReader, read_watch, watch_body
from reverseproxy.fleet.keys import host_path, server_path
from reverseproxy.fleet.records import HostRecord, ServerRecord
from reverseproxy.fleet.remote_hosts import RemoteHosts
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.fleet.view import Change, View
from reverseproxy.identity import AgentIdentity

reactor: Any = global_reactor

PREFIX = "/reverseproxy/fleet/"
CLUSTERS = 100
GRID = ((3, 10_000), (10, 100_000), (30, 300_000), (100, 1_000_000))


def record(number: int, server: str) -> HostRecord:
    """An agent such as there are many."""
    name = f"edge-{number:07}"
    identity = AgentIdentity(name, "static", None, f"{name}.example", "0123456789ab", 1)
    return HostRecord(
        f"cluster-{number % CLUSTERS}",
        f"{number:032x}",
        server,
        f"{name}.example",
        10,
        2,
        {"zone": f"eu-{number % 3}"},
        identity,
        tells=True,
    )


class Links:
    """Links to servers, all of which work."""

    def __init__(self) -> None:
        self.link = Link()

    def add(self, server: Any) -> None:
        """There is one."""

    def get(self, server: str) -> Link:
        """It works."""
        return self.link


class Link:
    """A link that works."""

    usable = True
    leaving = False
    rtt = None
    record = ServerRecord("s", "127.0.0.1:1")


def resident() -> int:
    """Bytes of memory of this process."""
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * resource.getpagesize()


def message(changes: Iterable[Change]) -> bytes:
    """Changes as etcd tells of them."""
    events = []
    for each in changes:
        kv: dict[str, Any] = {
            "key": b64encode((PREFIX + each.path).encode()).decode(),
            "mod_revision": str(each.revision),
        }
        if each.value is None:
            events.append({"type": "DELETE", "kv": kv})
        else:
            kv |= {"create_revision": str(each.revision), "version": "1", "lease": "2324035699068124421"}
            events.append({"kv": {**kv, "value": b64encode(each.value).decode()}})
    header = {"cluster_id": "1", "member_id": "1", "revision": "2", "raft_term": "2"}
    return json.dumps({"result": {"header": header, "events": events}}).encode() + b"\n"


def knowing(agents: int) -> dict[str, float]:
    """
    What it costs to know of agents of others, up to their being hosts of clusters.

    @return: bytes for each; and microseconds for each to be told that it is there, and that it is gone.
    """
    clusters = ClusterManager()
    for number in range(CLUSTERS):
        clusters.add(make_cluster(ClusterConfig(name=f"cluster-{number}"), reactor, Random(1)))
    remote = RemoteHosts(clusters, reactor, Traffic())
    links: Any = Links()
    remote.links = links
    for cluster in clusters:
        remote.share(cluster)
    view = View("own")
    lines = LineReader()
    size = len(PREFIX)

    def take(changes: list[Change]) -> None:
        for line in lines.feed(message(changes)):
            found = [Change(e.key[size:], e.value, e.revision) for e in read_watch(line).events]
            for notice in chain.from_iterable(view.changed(found, 0.0)):
                getattr(remote, notice.method)(*notice.arguments)

    take([Change(server_path("s"), ServerRecord("s", "127.0.0.1:1").encode(), 1)])
    gc.collect()
    before, cpu = resident(), 0.0
    making = 0.0
    for start in range(0, agents, 100):
        found = [record(number, "s") for number in range(start, start + 100)]
        changes = [Change(host_path(each.key), each.encode(), 2 + start) for each in found]
        began = time.process_time()
        message(changes)
        making += time.process_time() - began
        began = time.process_time()
        take(changes)
        cpu += time.process_time() - began
    gc.collect()
    assert len(remote.hosts) == agents
    size_of_each = (resident() - before) / agents
    joined = (cpu - making) / agents * 1e6
    gone = [Change(host_path(record(n, "s").key), None, agents + 10) for n in range(min(agents, 10_000))]
    data = message(gone)
    began = time.process_time()
    for line in lines.feed(data):
        found_gone = [Change(e.key[size:], e.value, e.revision) for e in read_watch(line).events]
        for notice in chain.from_iterable(view.changed(found_gone, 0.0)):
            getattr(remote, notice.method)(*notice.arguments)
    left = (time.process_time() - began) / len(gone) * 1e6
    return {"bytes": size_of_each, "joined": joined, "left": left}


def cpu_of(pid: int) -> float:
    """Seconds of CPU that a process has had."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def start(directory: str, endpoint: str, peer_port: int) -> subprocess.Popen[bytes]:
    """Start an etcd of one node."""
    client, peer = f"http://{endpoint}", f"http://127.0.0.1:{peer_port}"
    return subprocess.Popen(
        [
            *("etcd", "--data-dir", directory, "--log-level", "fatal", "--unsafe-no-fsync"),
            *("--listen-client-urls", client, "--advertise-client-urls", client),
            *("--listen-peer-urls", peer, "--initial-advertise-peer-urls", peer),
            *("--initial-cluster", f"default={peer}"),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


async def storing(agents: int, watchers: int) -> dict[str, float]:
    """
    What etcd does with agents that one server publishes, and others watch.

    @param watchers: how many watch beside the one.
    @return: agents a second, with nobody and with all of them watching; microseconds of etcd's CPU for
        each agent, and for each agent and who watches; bytes in its database and memory for each.
    """
    client_port, peer_port = free_ports(2)
    endpoint = f"127.0.0.1:{client_port}"
    with TemporaryDirectory() as directory:
        etcd = start(directory, endpoint, peer_port)
        try:
            client = Etcd(reactor, [endpoint], timeout=10)
            for _ in range(100):
                try:
                    await client.revision(PREFIX)
                    break
                except EtcdError:
                    await deferLater(reactor, 0.1)
            empty = _memory(etcd.pid)
            alone = await _publish(endpoint, etcd.pid, "alone", agents, 0)
            watched = await _publish(endpoint, etcd.pid, "watched", agents, watchers)
            found = await client.call("maintenance/status", {})
            await client.close()
            return {
                "alone": alone[0],
                "watched": watched[0],
                "write": alone[1],
                "tell": max(watched[1] - alone[1], 0.0) / watchers,
                "stored": int(found["dbSize"]) / (2 * agents),
                "memory": (_memory(etcd.pid) - empty) / (2 * agents),
            }
        finally:
            etcd.kill()
            etcd.wait()


def _memory(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


async def _publish(endpoint: str, pid: int, name: str, agents: int, watchers: int) -> tuple[float, float]:
    """
    Publish agents.

    @return: agents a second, and microseconds of etcd's CPU for each.
    """
    watching = watch_all(endpoint, watchers)
    await deferLater(reactor, 1)
    own = ServerRecord(name, "127.0.0.1:1")
    directory = FleetDirectory(
        reactor, Etcd(reactor, [endpoint], timeout=10), Settings(name, PREFIX, 60), Random(1), lambda: own
    )
    for number in range(agents):
        directory.publish(record(number, name))
    cpu, began = cpu_of(pid), time.monotonic()
    directory.start()
    while directory.figures.waiting or not directory.figures.puts:
        await deferLater(reactor, 0.01)
    seconds = time.monotonic() - began
    await deferLater(reactor, 2)
    spent = cpu_of(pid) - cpu
    await directory.stop(stays=True)
    for each in watching:
        each.kill()
        each.wait()
    return agents / seconds, spent / agents * 1e6


def watch_all(endpoint: str, watchers: int) -> list[subprocess.Popen[bytes]]:
    """Watch, as so many servers, and throw away what comes: what is made of it is measured elsewhere."""
    url = f"http://{endpoint}/v3/watch"
    command = ["curl", "-sN", "-o", "/dev/null", "-d", json.dumps(watch_body(PREFIX, 1)), url]
    return [subprocess.Popen(command) for _ in range(watchers)]


def report(known: dict[str, float], store: dict[str, float]) -> str:
    """All of it as text."""
    rows = [
        f"an agent of another server: {known['bytes']:,.0f} bytes, {known['joined']:.0f} us to be known, "
        f"{known['left']:.0f} us to be forgotten",
        f"etcd: {store['alone']:,.0f} agents a second with nobody watching, {store['watched']:,.0f} with all",
        f"etcd: CPU {store['write']:.0f} us to write each, {store['tell']:.1f} us to tell one server of it",
        f"etcd: {store['stored']:,.0f} bytes stored, {store['memory']:,.0f} in memory for each agent",
        "",
        f"{'servers':>8} {'agents':>10} {'etcd':>9} {'each server':>12} {'start':>8} "
        f"{'loss: agents':>13} {'told by etcd':>13} {'etcd':>8} {'each server':>12}",
    ]
    for servers, agents in GRID:
        lost = agents // servers
        changes = 2 * lost * (servers - 1)  # gone, and come again, told to all others
        writing = lost * store["write"] / 1e6
        telling = changes * store["tell"] / 1e6
        own = lost * (known["joined"] + known["left"]) / 1e6
        rows.append(
            f"{servers:>8} {agents:>10,} {agents * store['memory'] / 1e6:>6,.0f} MB "
            f"{agents * known['bytes'] / 1e6:>9,.0f} MB {agents * known['joined'] / 1e6:>6,.1f} s "
            f"{lost:>13,} {changes:>13,} {writing + telling:>6,.1f} s {own:>10,.1f} s"
        )
    return "\n".join(rows)


def main() -> None:
    """Measure, and say what follows."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--agents", type=int, default=20_000)
    parser.add_argument("--watchers", type=int, default=20)
    options = parser.parse_args()
    known = knowing(options.agents)
    failed: list[Any] = []
    store: dict[str, float] = {}

    def done(found: dict[str, float]) -> None:
        store.update(found)

    running = Deferred.fromCoroutine(storing(options.agents, options.watchers))
    running.addCallbacks(done, failed.append)
    running.addBoth(lambda _: reactor.stop())
    reactor.run()
    for each in failed:
        each.raiseException()
    sys.stdout.write(f"{report(known, store)}\n")


if __name__ == "__main__":
    main()
