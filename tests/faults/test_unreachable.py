"""
Agents whose services can't be reached, each in another way, beside one whose service can: real processes.

No request is lost, whatever it is, and none gets anywhere twice.
"""

from __future__ import annotations

import socket
from collections import Counter
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import TCP4ServerEndpoint
from twisted.internet.protocol import Protocol
from twisted.internet.task import deferLater

from reverseproxy.cluster.endpoints import CallableFactory
from tests.faults import test_service_death
from tests.faults.test_service_death import PROTOCOLS, Service, agent_config, server_config
from tests.integration.clients import gather

TRIES = 12
"""Requests in each protocol, which every agent is asked for some of."""


class _Closing(Protocol):
    """Takes a connection, and closes it: at once, or when something has come."""

    transport: Any

    def __init__(self, seen: list[bytes], at_once: bool) -> None:
        self._seen = seen
        self._at_once = at_once

    def connectionMade(self) -> None:
        if self._at_once:
            self.transport.loseConnection()

    def dataReceived(self, data: bytes) -> None:
        self._seen.append(data)
        self.transport.abortConnection()


class UnreachableTests(test_service_death.Life):
    connections = 1

    def black_hole(self) -> str:
        """An address from which no answer comes: its queue of connections is full."""
        hole = socket.socket()
        self.addCleanup(hole.close)
        hole.bind(("127.0.0.1", 0))
        hole.listen(0)
        for _ in range(4):
            filling = socket.socket()
            filling.setblocking(False)
            filling.connect_ex(hole.getsockname())
            self.addCleanup(filling.close)
        return f"127.0.0.1:{hole.getsockname()[1]}"

    def kinds(self) -> dict[str, dict[str, Any]]:
        """What is wrong, and the clusters that make it so."""
        plaintext = {kind: each.port for kind, each in self.good.items()}
        return {
            "socket": {"hosts": [{"address": "unix:/tmp/there is no such thing"}]},
            "name": {"hosts": [{"address": "nobody.invalid:80"}]},
            "hole": {"hosts": [{"address": self.black_hole()}], "connect_timeout": "300ms"},
            "tls": {
                "hosts": [{"address": f"127.0.0.1:{plaintext['tcp']}"}],
                "tls_context": {"status": True, "insecure_skip": True},
                "connect_timeout": "1s",
            },
        }

    async def world(self, mux: bool) -> dict[str, int]:
        self.good = {kind: Service(self, kind, b"one") for kind in PROTOCOLS}
        for each in self.good.values():
            await each.live()
        cloud = self.run_proxy(server_config(mux), "server")
        port = await cloud.port("tunnelListener")
        ports = {kind: await cloud.port(kind) for kind in PROTOCOLS}
        agents = [self.config(port, mux, {})]
        agents += [self.config(port, mux, cluster) for cluster in self.kinds().values()]
        for config in agents:
            self.run_proxy(config, "agent")
        # An agent that relays bytes dials its service before it is asked for anything, and may not stay.
        relaying = len(agents) - 1 if not mux else 0
        await cloud.counted(" joined with weight ", len(agents) * len(PROTOCOLS) - relaying)
        return ports

    def config(self, port: int, mux: bool, cluster: dict[str, Any]) -> dict[str, Any]:
        """An agent with services that are found out by requests alone."""
        config = agent_config(port, self.good, mux, self.connections)
        for each in config["cluster_manager"]["clusters"]:
            each.update(cluster)
        for each in config["extends"]:
            each["config"]["service_check_interval"] = "0s"
        return config

    async def ask_all(self, mux: bool) -> None:
        ports = await self.world(mux)
        asks = await self.askers(ports)
        failed: Counter[str] = Counter()

        async def ask(kind: str, number: int) -> None:
            try:
                answer = await asks[kind][number % len(asks[kind])]()
            except Exception as error:
                answer = repr(error).encode()
            if answer != b"one":
                failed[f"{kind}: {answer!r}"] += 1

        await gather([ask(kind, number) for number in range(TRIES) for kind in PROTOCOLS])
        self.assertEqual(dict(failed), {})

    async def test_streams(self) -> None:
        await self.ask_all(True)

    async def test_plain(self) -> None:
        await self.ask_all(False)

    async def test_services_that_take_connections(self) -> None:
        """What they have had is not sent to another one, nor what they may have had."""
        self.good = {kind: Service(self, kind, b"one") for kind in PROTOCOLS}
        for at_once in (False, True):
            seen: list[bytes] = []
            closing = CallableFactory(partial(_Closing, seen, at_once))
            listening = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(closing)
            cluster = {"hosts": [{"address": f"127.0.0.1:{listening.getHost().port}"}]}
            cloud = self.run_proxy(server_config(True), "server")
            port = await cloud.port("tunnelListener")
            ports = {kind: await cloud.port(kind) for kind in PROTOCOLS}
            for _ in range(2):
                self.run_proxy(self.config(port, True, cluster), "agent")
            await cloud.counted(" joined with weight ", 2 * len(PROTOCOLS))
            asks = await self.askers(ports)
            for kind in ("http1", "http2", "grpc", "bolt", "dubbo", "tcp"):
                seen.clear()
                try:
                    answer = await asks[kind][0]()
                except Exception as error:
                    answer = repr(error).encode()
                self.assertNotEqual(answer, b"one")
                await deferLater(reactor, 0.2)
                if kind in ("http1", "http2"):
                    wanted = [each for each in seen if each.startswith(b"POST")]
                    self.assertEqual(len(wanted), 0 if at_once else 1, (kind, at_once, seen))
                self.assertLessEqual(len(seen), 1, (kind, at_once, seen))
            await cloud.kill()
            await listening.stopListening()
