"""Servers of a fleet, with a real etcd between them, as processes."""

from __future__ import annotations

import json
from collections.abc import Callable
from tempfile import mkdtemp
from typing import Any

from twisted.internet import reactor as global_reactor
from twisted.internet.task import deferLater

from tests.fleet.certificates import Authority
from tests.fleet.real_etcd import ETCD, RealEtcd
from tests.integration.clients import Load, fetch
from tests.integration.configs import agent, server
from tests.integration.harness import DEADLINE, SERVING, IntegrationTestCase, ReverseProxy

reactor: Any = global_reactor

READY = r"^worker \d+ is ready, process "
LOG_FORMAT = (
    '{"server": "%upstream_server%", "by": "%forwarded_by%", "protocol": "%protocol%", '
    '"client": "%downstream_remote_address%"}'
)


class _Fleet(IntegrationTestCase):
    async def begin(self) -> None:
        self.etcd = RealEtcd(mkdtemp(prefix="etcd"))
        self.addCleanup(self.etcd.stop)
        await self.etcd.start()
        self.authority = Authority()
        self.clients: dict[str, int] = {}
        self.tunnels: dict[str, int] = {}
        self.ports: dict[str, tuple[int, int, int]] = {}

    async def server(self, name: str, workers: int = 1, **more: Any) -> ReverseProxy:
        """Run a server of the fleet, again at the same ports if it has been there before."""
        if name not in self.ports:
            self.ports[name] = (self.reserve_port(), self.reserve_port(), self.reserve_port())
        client, tunnel, peer = self.ports[name]
        logs = {"access_logs": [{"log_path": "stdout", "log_format": LOG_FORMAT}]}
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
            "etcd": {"endpoints": [self.etcd.endpoint], "lease_ttl": "3s"},
            "peers": {
                "address": f"127.0.0.1:{peer}",
                "tls_context": self.authority.of_server(name),
                **logs,
            },
        }
        for listener in document["servers"][0]["listeners"]:
            listener["reuseport"] = True
        options = ("--workers", str(workers)) if workers > 1 else ()
        cloud = self.run_proxy(document, f"server-{name}", *options)
        if workers > 1:
            await cloud.counted(READY, workers)
        else:
            await cloud.port("tunnelListener")
        return cloud

    async def agent(self, name: str, *servers: str, backend: str, **more: Any) -> ReverseProxy:
        addresses = [f"127.0.0.1:{self.ports[each][1]}" for each in servers]
        edge = self.run_proxy(agent(addresses, backend, **more), f"agent-{name}")
        await edge.counted(SERVING, len(servers))
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


class FleetTests(_Fleet):
    async def test_two_servers(self) -> None:
        """One story, as processes take longer to start than to tell it."""
        await self.begin()
        one, two = await self.run_backend("one"), await self.run_backend("two")
        a = await self.server("a")
        b = await self.server("b")
        await self.agent("one", "a", "b", backend=one.address)
        await self.agent("two", "a", backend=two.address, mux=False, connections=4)
        # Either server reaches either agent, and both of them say so.
        await self.reaches("b", {"one", "two"})
        await self.reaches("a", {"one", "two"})
        mark_a, mark_b = a.mark(), b.mark()
        for _ in range(4):
            await fetch(self.ports["b"][0], "/logged")
        line = json.loads(await b.wait_for(lambda line: '"server": "a"' in line and line, mark_b))
        self.assertEqual((line["by"], line["protocol"]), ("-", "Http1"))
        forwarded = json.loads(await a.wait_for(lambda line: '"by": "b"' in line and line, mark_a))
        self.assertEqual((forwarded["server"], forwarded["protocol"]), ("-", "Http1"))
        self.assertTrue(forwarded["client"].startswith("127.0.0.1:"))

        # A planned stop: nothing fails.
        load = Load(self.ports["b"][0], clients=8).start()
        await load.answers(200)
        self.assertEqual(await a.stop(), 0)
        await load.answers(200)
        await load.stop()
        self.assertEqual(load.failures, [])
        await self.reaches("b", {"one"})

        # It comes back, and is killed: others are without it within 5 s.
        a = await self.server("a")
        await self.reaches("b", {"one", "two"})
        load = Load(self.ports["b"][0], clients=4, method="GET").start()
        await load.answers(50)
        mark = b.mark()
        await a.kill()
        await b.logged("^fleet: the link to server a is lost", mark, timeout=5.0)
        await load.answers(200)
        await load.stop()
        self.assertEqual(load.failures, [])

    async def test_workers(self) -> None:
        """Whichever worker has the agent, and whichever gets the request."""
        await self.begin()
        backend = await self.run_backend("one")
        await self.server("a", workers=2)
        await self.server("b")
        for mux in (True, False):
            edge = await self.agent("one", "a", backend=backend.address, connections=2, mux=mux)
            await self.reaches("b", {"one"})
            load = Load(self.ports["b"][0], clients=8, limit=400).start()
            await load.finished()
            self.assertEqual(load.failures, [])
            await edge.stop()


if ETCD is None:
    del FleetTests
