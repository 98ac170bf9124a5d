"""Agents that vanish without a word: both ends notice, and requests go elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, connectProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from reverseproxy.addresses import split_host_port
from reverseproxy.app import ReverseProxy
from reverseproxy.net import dead_peers
from tests.blackhole import blackhole
from tests.config.documents import parse
from tests.integration import configs
from tests.integration.harness import SLOW_MACHINE
from tests.streams import reactor
from tests.tunnel.logged import capture

WITHIN = 5.0
"""Seconds, with no timeout configured."""

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"


class Client(Protocol):
    """Asks once."""

    def __init__(self) -> None:
        self.data = b""
        self.closed: Deferred[bytes] = Deferred()

    def connectionMade(self) -> None:
        assert self.transport is not None
        self.transport.write(REQUEST)

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(self.data)


class DeadPeerTests(TestCase):
    def start(self, document: Any) -> ReverseProxy:
        app = ReverseProxy(parse(document).config, reactor, Random(), "c.json")
        app.privilegedStartService()
        app.startService()
        self.addCleanup(app.stopService)
        return app

    async def until(self, true: Callable[[], object]) -> None:
        while not true():
            await deferLater(reactor, 0.005)

    async def get(self, server: ReverseProxy) -> bytes:
        bound = server.listeners["clientListener"].bound
        assert bound is not None
        client = await connectProtocol(TCP4ClientEndpoint(reactor, *split_host_port(bound)), Client())
        return await client.closed

    def cut_off(self, server: ReverseProxy, agent: ReverseProxy) -> list[Any]:
        """Let all packets between them be dropped; returns the server's hosts."""
        [cluster] = server.clusters
        [same_agent] = {
            tuple(host.same_agent)
            for host in cluster.hosts.values()
            if host.hostname == agent.agents[0].plan.config.host_name
        }
        addresses = {host.address for host in same_agent}
        ends = [
            entry.connection
            for entry in dead_peers._watched.values()
            if entry.connection.fileno() >= 0
            and {f"{ip}:{port}" for ip, port in _names(entry.connection)} & addresses
        ]
        self.assertEqual(len(ends), 2 * len(addresses))
        blackhole(*ends)
        return list(same_agent)

    async def vanish(self, mux: bool) -> None:
        server = self.start(configs.server(cluster={"lb_type": "LB_ROUNDROBIN"}))
        bound = server.listeners["tunnelListener"].bound
        one, _ = (
            self.start(
                configs.agent(
                    [str(bound)],
                    connections=3,
                    host_name=name,
                    answer=name,
                    mux=mux,
                    reconnect_base_duration="60s",
                )
            )
            for name in ("one", "two")
        )
        [cluster] = server.clusters
        await self.until(lambda: len(cluster.hosts) == 6)
        answers = [await self.get(server) for _ in range(6)]
        self.assertEqual({answer.rpartition(b"\r\n")[2] for answer in answers}, {b"one", b"two"})

        with capture() as events:
            links: list[Any] = [
                core.link for peer in one.agents[0]._peers.values() for core in peer._cores.values()
            ]
            dead = self.cut_off(server, one)
            began = reactor.seconds()
            asking = gatherResults([Deferred.fromCoroutine(self.get(server)) for _ in range(6)])
            await self.until(lambda: not set(dead) & set(cluster.hosts.values()))
            noticed = reactor.seconds() - began
            await self.until(lambda: all(link.gone for link in links))
            noticed_there = reactor.seconds() - began
            answers = await asking
        self.assertLess(max(noticed, noticed_there), WITHIN + SLOW_MACHINE)
        for answer in answers:
            self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)
            self.assertTrue(answer.endswith(b"two"))
        self.assertRegex(events.text(), "is gone: |no answer to a ping|nothing has come for")

    async def test_lent_connections(self) -> None:
        await self.vanish(mux=False)

    async def test_connections_with_streams(self) -> None:
        await self.vanish(mux=True)


def _names(connection: Any) -> list[Any]:
    try:
        return [connection.getsockname()[:2], connection.getpeername()[:2]]
    except OSError:
        return []
