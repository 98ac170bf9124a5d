"""Every protocol reaches agents of another server of a fleet: real processes, and real clients of gRPC."""

from __future__ import annotations

import json
from tempfile import mkdtemp
from typing import Any

from tests.faults.test_service_death import (
    PROTOCOLS,
    Asking,
    Life,
    Service,
    _listener,
    agent_config,
    server_config,
)
from tests.fleet.certificates import Authority
from tests.fleet.real_etcd import ETCD, RealEtcd
from tests.integration.clients import gather
from tests.integration.grpc_results import ENDINGS, KINDS
from tests.integration.harness import DEADLINE, Child, ReverseProxy

CALLS = "callsCluster"


class FleetProtocolTests(Life):
    """One fleet for all: agents with streams, and such with one thing at a time, are at the other server."""

    async def server(self, name: str) -> ReverseProxy:
        """Run a server, with what is listened at for each protocol, and for a real service of gRPC."""
        document = server_config(True)
        listener, router = _listener("calls", "grpc", CALLS, True)
        [found] = document["servers"]
        found["default_log_level"] = "DEBUG"  # says which hosts of others there are
        found["listeners"].append(listener)
        found["routers"].append(router)
        clusters = document["cluster_manager"]["clusters"]
        clusters.append({"name": CALLS})
        for each in clusters:
            each["lb_type"] = "LB_ROUNDROBIN"
        document["fleet"] = {
            "server_id": name,
            "etcd": {"endpoints": [self.etcd.endpoint]},
            "peers": {"address": "127.0.0.1:0", "tls_context": self.authority.of_server(name)},
        }
        return self.run_proxy(document, f"server-{name}")

    def agent(self, services: dict[str, Service], mux: bool, calls: str) -> ReverseProxy:
        """Run an agent."""
        document = agent_config(self.tunnel, services, mux, 1 if mux else 3)
        listener, router = _listener("calls", "grpc", "callsService", False)
        [found] = document["servers"]
        found["listeners"].append(listener)
        found["routers"].append(router)
        entry = next(each for each in document["extends"] if each["config"]["hosting_listener"] == "grpc")
        more = {"hosting_listener": "calls", "cluster": CALLS}
        document["extends"].append({**entry, "config": {**entry["config"], **more}})
        document["cluster_manager"]["clusters"].append(
            {"name": "callsService", "hosts": [{"address": f"127.0.0.1:{calls}"}]}
        )
        return self.run_proxy(document, "streams" if mux else "plain")

    async def call(self, port: int, scenario: str) -> dict[str, Any]:
        """Run a scenario of L{tests.integration.grpc_client}."""
        child = Child(f"gRPC client {scenario}")
        self.spawn(child, "-m", "tests.integration.grpc_client", str(port), scenario)
        line = await child.wait_for(r"^result (.*)$", timeout=3 * DEADLINE)
        found: dict[str, Any] = json.loads(line.group(1))
        return found

    async def begin(self) -> None:
        """Run everything; clients come to server b, and agents to server a."""
        self.etcd = RealEtcd(mkdtemp(prefix="etcd"))
        self.addCleanup(self.etcd.stop)
        calls = Child("gRPC service")
        self.spawn(calls, "-m", "tests.integration.grpc_backend")
        await self.etcd.start()
        self.authority = Authority()
        self.ones = {kind: Service(self, kind, b"one") for kind in PROTOCOLS}
        self.twos = {kind: Service(self, kind, b"two") for kind in PROTOCOLS}
        for each in (*self.ones.values(), *self.twos.values()):
            await each.live()
        a, b = await self.server("a"), await self.server("b")
        self.tunnel = await a.port("tunnelListener")
        port = (await calls.wait_for(r"^listening on (\d+)$")).group(1)
        self.agents = [self.agent(self.ones, True, port), self.agent(self.twos, False, port)]
        # Each of both is one host to the other server, in each cluster.
        await b.logged("^fleet: linked to server a")
        await b.counted("^cluster .*: host a/.* joined", 2 * len(PROTOCOLS) + 2)
        self.ports = {kind: await b.port(kind) for kind in (*PROTOCOLS, "calls")}

    async def test_all(self) -> None:
        await self.begin()
        asks = await self.askers(self.ports)
        self.clients = {kind: [Asking(ask) for ask in asks[kind]] for kind in PROTOCOLS}
        everyone = [each for clients in self.clients.values() for each in clients]
        for asking in everyone:
            self.addCleanup(asking.stop)
        await self.until_all(lambda counts: counts[b"one"] > 5 and counts[b"two"] > 5)
        await gather([each.stop() for each in everyone])
        self.assertEqual({kind: self.failures(kind) for kind in PROTOCOLS if self.failures(kind)}, {})

        port = self.ports["calls"]
        kinds, statuses, endings = await gather([self.call(port, each) for each in ("kinds", "statuses")]) + [
            await self.call(port, "endings")
        ]
        self.assertEqual(kinds, KINDS)
        self.assertEqual(statuses["14"], [14, "as you wish: é"])
        self.assertEqual(endings, ENDINGS)


if ETCD is None:
    del FleetProtocolTests
