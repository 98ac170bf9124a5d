"""A server and its agents in memory, for strangers that mean no good."""

from __future__ import annotations

__all__ = ["CLIENTS", "SERVICE", "Dialled", "HttpService", "RpcService", "World"]

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.host import Fault
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.wire.rpc.xprotocol import Kind, RpcFrameDecoder, XProtocol
from tests.integration import configs
from tests.proxy.http2_memory import Http2Peer, Message

CLIENTS = 2045
SERVICE = "127.0.0.1:8000"

STRICT = {
    "consecutive_5xx": 1,
    "consecutive_resets": 1,
    "consecutive_gateway_errors": 1,
    "max_ejection_percent": 100,
}
"""One failure of a host is enough to leave it out."""

# Requests of RPC have no path.
RPC_RULE = {
    "match": {"headers": [{"name": "service", "value": ".*"}]},
    "route": {"cluster_name": "clientCluster", "timeout": "2s"},
}


class Dialled:
    """A connection to a listener, as the peers of the tests have them."""

    def __init__(self, reactor: MemoryReactor, port: int = CLIENTS) -> None:
        self.reactor = reactor
        self.recorder = reactor.dial("127.0.0.1", port, Recorder())
        self._mark = 0

    @property
    def lost(self) -> bool:
        return self.recorder.reason is not None

    def send(self, data: bytes) -> None:
        self.recorder.transport.write(data)
        self.reactor.settle()

    def take(self) -> bytes:
        data = self.recorder.data[self._mark :]
        self._mark += len(data)
        return bytes(data)


class HttpService(Protocol):
    """Answers in HTTP/1, and closes the connection where that is not what was asked in."""

    transport: Any

    def __init__(self, world: World) -> None:
        self.world = world
        self.data = b""

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        head, end, _ = self.data.partition(b"\r\n\r\n")
        if not head.startswith((b"GET ", b"POST ")):
            self.world.confused += 1
            self.transport.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            self.transport.loseConnection()
        elif end:
            self.data = b""
            self.world.reactor.callLater(
                0.5 if b"/slow" in head else 0.0,
                self.transport.write,
                b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nserved",
            )


class RpcService(Protocol):
    """Answers frames half a second later, but those of whom the world is deaf to."""

    transport: Any

    def __init__(self, protocol: XProtocol, world: World) -> None:
        self.protocol = protocol
        self.world = world
        self.decoder = RpcFrameDecoder(protocol)

    def dataReceived(self, data: bytes) -> None:
        for frame in self.decoder.feed(data):
            if frame.kind is Kind.REQUEST and not self.world.silent:
                reply = bytes(self.protocol.reply(frame, 200))
                self.world.reactor.callLater(0.5, self.transport.write, reply)


class World:
    """
    A server whose clients may speak anything, and an agent.

    @ivar confused: how often its service got what it does not speak.
    @ivar silent: whether the service answers nothing.
    """

    def __init__(
        self,
        speaks: str,
        *,
        streams: bool,
        announce: bool = True,
        service: Callable[[World], Protocol] | None = None,
        clients: str = "Auto",
        tunnel: dict[str, Any] | None = None,
    ) -> None:
        self.reactor = MemoryReactor()
        self.confused = 0
        self.silent = False
        document = configs.server(
            client=f"127.0.0.1:{CLIENTS}", tunnel="127.0.0.1:2047", tunnel_config=tunnel
        )
        [config] = document["servers"]
        config["routers"][0]["virtual_hosts"][0]["routers"].insert(0, RPC_RULE)
        proxy = config["listeners"][0]["filter_chains"][0]["filters"][0]["config"]
        proxy["downstream_protocol"] = clients
        document["cluster_manager"]["clusters"][0]["outlier_detection"] = STRICT
        self.server = run(document, self.reactor)
        if service is not None:
            self.reactor.listenTCP(
                8000,
                Factory.forProtocol(partial(service, self)),
                interface="127.0.0.1",  # type: ignore[arg-type]
            )
        document = configs.agent(
            ["127.0.0.1:2047"],
            "" if service is None else SERVICE,
            connections=2,
            mux=streams,
            announce=announce,
            answer="served",
        )
        [config] = document["servers"]
        rule = {**RPC_RULE, "route": {"cluster_name": "serverCluster"}}
        config["routers"][0]["virtual_hosts"][0]["routers"].insert(0, rule)
        proxy = config["listeners"][0]["filter_chains"][0]["filters"][0]["config"]
        proxy["downstream_protocol"] = speaks
        document["cluster_manager"]["clusters"][0]["outlier_detection"] = STRICT
        self.agent = run(document, self.reactor)
        for _ in range(12):  # no first host is waited for any more
            self.reactor.advance(1.0)

    def advance(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.reactor.advance(0.1)

    @property
    def cluster(self) -> Any:
        return self.server.clusters.get("clientCluster")

    def client(self) -> Dialled:
        return Dialled(self.reactor)

    def http1(self, text: bytes = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") -> bytes:
        client = self.client()
        client.send(text)
        self.advance(0.5)
        return client.take()

    def http2(self, fields: Any, body: bytes = b"") -> Any:
        peer = Http2Peer(self.client(), client=True)  # type: ignore[arg-type]
        parts = peer.pieces(1, body, True) if body else []
        peer.send(peer.headers(1, fields, not body), *parts)
        self.advance(0.5)
        peer.look()
        return peer.messages.get(1) or Message([[(b":status", b"0")]])

    def rpc(self, data: bytes) -> bytes:
        client = self.client()
        client.send(data)
        self.advance(0.5)
        return client.take()

    def check(self, case: SynchronousTestCase, kind: str, left: int) -> None:
        """
        Look what it has cost the hosts.

        @param left: how many connections may have been lost.
        """
        cluster = self.cluster
        case.assertLessEqual(cluster.left, left, kind)
        case.assertEqual(cluster.ejector.total, 0, kind)
        case.assertEqual([each.health.faults for each in cluster.hosts.values()], [Fault(0)] * 2, kind)
        case.assertEqual([each.ejector.total for each in self.agent.clusters], [0], kind)
