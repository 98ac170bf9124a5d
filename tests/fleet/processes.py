"""Servers of a fleet, their agents and their etcd, as processes, and what may be in the way between them."""

from __future__ import annotations

__all__ = ["FleetCase"]

import json
from collections.abc import Callable
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from tests.fleet.certificates import Authority
from tests.fleet.real_etcd import RealEtcd, Relay
from tests.integration.clients import connect_raw, fetch, init_frame
from tests.integration.configs import agent, server
from tests.integration.harness import DEADLINE, SERVING, IntegrationTestCase, ReverseProxy

reactor: Any = global_reactor

READY = r"^worker \d+ is ready, process "
LEASE = 3.0
TOKEN = "a token of an operator's"
LOG_FORMAT = (
    '{"server": "%upstream_server%", "by": "%forwarded_by%", "protocol": "%protocol%", '
    '"client": "%downstream_remote_address%"}'
)


class FleetCase(IntegrationTestCase):
    """
    A fleet, whose servers are called C{a}, C{b}, and so on.

    @ivar ports: of each server, for clients, agents, other servers and operators.
    @ivar stores: what may be in the way from each server to etcd.
    @ivar ways: what may be in the way from other servers to each one.
    @cvar logs: whether servers write a line for each request.
    """

    logs = True

    async def begin(self) -> None:
        self.etcd = RealEtcd(mkdtemp(prefix="etcd"))
        self.addCleanup(self.etcd.stop)
        await self.etcd.start()
        self.authority = Authority()
        self.tokens = self.directory / "tokens.json"
        self.tokens.write_text(json.dumps([{"name": "ops", "token": TOKEN, "role": "operate"}]))
        self.ports: dict[str, tuple[int, int, int, int]] = {}
        self.stores: dict[str, Relay] = {}
        self.ways: dict[str, Relay] = {}

    def prepare(self, name: str) -> None:
        """Find ports for a server."""
        if name not in self.ports:
            client, tunnel, peer, admin = (self.reserve_port() for _ in range(4))
            self.ports[name] = client, tunnel, peer, admin

    async def relay(self, name: str) -> None:
        """Have what may be in the way of a server."""
        self.prepare(name)
        for relays, target in ((self.stores, self.etcd.relay.port), (self.ways, self.ports[name][2])):
            found = relays[name] = Relay()
            # Each server is a host of its own: what is known of the way to one is not of all.
            found.host, found.target = f"127.0.0.{len(self.ways) + 2}", target
            await found.listen()
            self.addCleanup(found.stop)

    def document(self, name: str, **more: Any) -> dict[str, Any]:
        """Configure a server."""
        client, tunnel, peer, admin = self.ports[name]
        logs = {"access_logs": [{"log_path": "stdout", "log_format": LOG_FORMAT}]} if self.logs else {}
        document = server(
            client=f"127.0.0.1:{client}",
            tunnel=f"127.0.0.1:{tunnel}",
            client_listener={**logs, "reuseport": True},
            tunnel_listener={"reuseport": True},
            cluster={"lb_type": "LB_ROUNDROBIN", "connect_timeout": "5s"},
            **more,
        )
        document["servers"][0]["default_log_level"] = "INFO"
        document["fleet"] = {
            "server_id": name,
            "etcd": {"endpoints": [self.etcd.endpoint], "lease_ttl": f"{LEASE:g}s"},
            "peers": {
                "address": f"127.0.0.1:{peer}",
                "tls_context": self.authority.of_server(name),
                **logs,
            },
        }
        if name in self.stores:
            document["fleet"]["etcd"]["endpoints"] = [self.stores[name].address]
            document["fleet"]["peers"]["advertised_address"] = self.ways[name].address
        document["admin"] = {
            "address": {"socket_address": {"address": "127.0.0.1", "port_value": admin}},
            "tokens_file": str(self.tokens),
        }
        document["cluster_manager"]["clusters"] += [
            {"name": name, "type": "SIMPLE"} for name in ("spareCluster", "otherCluster")
        ]
        for listener in document["servers"][0]["listeners"]:
            listener["reuseport"] = True
        return document

    async def server(
        self, name: str, *options: str, workers: int = 1, environ: dict[str, str] | None = None, **more: Any
    ) -> ReverseProxy:
        """Run a server of the fleet, again at the same ports if it has been there before."""
        self.prepare(name)
        if workers > 1:
            options += ("--workers", str(workers))
        cloud = self.run_proxy(self.document(name, **more), f"server-{name}", *options, **(environ or {}))
        if workers > 1:
            await cloud.counted(READY, workers)
        else:
            await cloud.port("tunnelListener")
        return cloud

    async def agent(
        self, name: str, *servers: str, backend: str, clusters: tuple[str, ...] = (), **more: Any
    ) -> ReverseProxy:
        """
        Run an agent of some servers.

        @param clusters: which it serves beside C{clientCluster}.
        """
        addresses = [f"127.0.0.1:{self.ports[each][1]}" for each in servers]
        document = agent(addresses, backend, **more)
        [entry] = document["extends"]
        document["extends"] += [
            {**entry, "config": {**entry["config"], "cluster": each}} for each in clusters
        ]
        edge = self.run_proxy(document, f"agent-{name}")
        await edge.counted(SERVING, len(servers) * (1 + len(clusters)))
        return edge

    async def until(self, look: Callable[[], Any], what: str) -> None:
        """Ask again and again."""
        deadline = reactor.seconds() + DEADLINE
        while not await look():
            if reactor.seconds() > deadline:
                raise self.failureException(f"{what} within {DEADLINE:g} s")
            await deferLater(reactor, 0.05)

    async def backends(self, name: str, times: int = 8) -> set[str]:
        """Which backends answer at a server."""
        found = set()
        for _ in range(times):
            answer = await fetch(self.ports[name][0], "/echo")
            found.add(answer.headers.get("x-backend", str(answer.status)))
        return found

    async def reaches(self, name: str, backends: set[str]) -> None:
        async def look() -> bool:
            return await self.backends(name) == backends

        await self.until(look, f"{name} should reach {backends}")

    async def spare(self, name: str) -> Any:
        """Connect an agent to a server that serves a cluster of which nobody asks anything."""
        peer = await connect_raw(self, self.ports[name][1])
        peer.transport.write(init_frame("spareCluster", host_name=f"spare-{id(peer)}"))
        self.assertEqual((await peer.frame())[1]["status"], 1)
        return peer

    async def operate(self, name: str, path: str, method: str = "GET") -> Any:
        """Ask a server's admin API."""
        headers = {"Authorization": f"Bearer {TOKEN}"}
        answer = await fetch(self.ports[name][3], f"/api/tunnel/v1/{path}", method, headers=headers)
        return json.loads(answer.body)

    async def peer(self, name: str, other: str) -> dict[str, Any]:
        """What a server says of another one; empty if it knows none."""
        answer = await self.operate(name, "fleet")
        found = [each for each in answer["servers"] if each["server"] == other]
        return found[0] if found else {}

    async def has(self, name: str, other: str, hosts: int) -> float:
        """Wait until a server has hosts of another one; the seconds that it took."""
        began = reactor.seconds()

        async def look() -> bool:
            return bool((await self.peer(name, other)).get("hosts") == hosts)

        await self.until(look, f"{name} should have {hosts} hosts of {other}")
        return float(reactor.seconds() - began)
