"""Strangers that speak what hosts don't: it costs no host anything."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.host import Fault
from reverseproxy.testing import MemoryReactor, Recorder, run
from tests.integration import configs
from tests.proxy import test_forged
from tests.proxy.http2_memory import Http2Peer, Message
from tests.wire.http2_frames import GET, POST

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
GRPC = [*POST, (b"te", b"trailers"), (b"content-type", b"application/grpc")]


class Dialled:
    """A connection to a listener, as the peers of the tests have them."""

    def __init__(self, reactor: MemoryReactor, port: int) -> None:
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


class Service(Protocol):
    """Answers in HTTP/1, and closes the connection where that is not what was asked in."""

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


class World:
    """A server whose clients may speak anything, and agents whose listener takes one protocol."""

    def __init__(self, speaks: str, *, streams: bool, announce: bool, service: str = "") -> None:
        self.reactor = MemoryReactor()
        self.confused = 0
        self.reactor.listenTCP(8000, Factory.forProtocol(partial(Service, self)), interface="127.0.0.1")
        document = configs.server(client="127.0.0.1:2045", tunnel="127.0.0.1:2047")
        [listener, _] = document["servers"][0]["listeners"]
        listener["filter_chains"][0]["filters"][0]["config"]["downstream_protocol"] = "Auto"
        [cluster] = document["cluster_manager"]["clusters"]
        cluster["outlier_detection"] = {
            "consecutive_5xx": 1,
            "consecutive_resets": 1,
            "consecutive_gateway_errors": 1,
            "max_ejection_percent": 100,
        }
        self.server = run(document, self.reactor)
        document = configs.agent(
            ["127.0.0.1:2047"], service, connections=2, mux=streams, announce=announce, answer="served"
        )
        [listener] = document["servers"][0]["listeners"]
        listener["filter_chains"][0]["filters"][0]["config"]["downstream_protocol"] = speaks
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
        return Dialled(self.reactor, 2045)

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
        Look whether somebody else is served, and what it has cost the hosts.

        @param left: how many connections may have been lost.
        """
        cluster = self.cluster
        case.assertTrue(self.http1().startswith(b"HTTP/1.1 200 "), kind)
        case.assertLessEqual(cluster.left, left, kind)
        case.assertEqual(cluster.ejector.total, 0, kind)
        case.assertEqual([each.faults for each in cluster.hosts.values()], [Fault(0)] * 2, kind)


STRANGERS: dict[str, Callable[[World], object]] = {
    "HTTP/1": World.http1,
    "HTTP/2": lambda world: world.http2(GET),
    "HTTP/2 with a body": lambda world: world.http2(POST, b"x"),
    "gRPC": lambda world: world.http2(GRPC, b"x"),
    "upgrade": lambda world: world.http1(UPGRADE),
    **{
        protocol.name: lambda world, data=bytes(data): world.rpc(data)  # type: ignore[misc]
        for protocol, data in test_forged.RpcTests.REQUESTS
    },
    "text": lambda world: world.http1(b"what is this?\r\n\r\n"),
}


class AnnouncedTests(SynchronousTestCase):
    """Agents of ours say what their listener takes."""

    def check(self, speaks: str, streams: bool) -> None:
        world = World(speaks, streams=streams, announce=True)
        for kind, stranger in STRANGERS.items():
            for _ in range(2):
                stranger(world)
                world.check(self, kind, left=0)

    def test_http1(self) -> None:
        for streams in (False, True):
            self.check("Http1", streams)

    def test_http2(self) -> None:
        for streams in (False, True):
            self.check("Http2", streams)

    def test_both(self) -> None:
        """RPC alone is strange to them."""
        for streams in (False, True):
            self.check("Http1,Http2", streams)


class FoundOutTests(SynchronousTestCase):
    """Others don't, so that strangers are an experiment: a rare one, and nobody's fault."""

    def test_agents(self) -> None:
        for speaks in ("Http1", "Http2"):
            for kind, stranger in STRANGERS.items():
                world = World(speaks, streams=False, announce=False)
                for _ in range(12):
                    stranger(world)
                world.check(self, kind, left=4)  # after 0, 1, 3 and 7 seconds of 6

    def test_services(self) -> None:
        for kind, stranger in STRANGERS.items():
            world = World("Auto", streams=True, announce=True, service="127.0.0.1:8000")
            for _ in range(4):
                stranger(world)
            world.check(self, kind, left=0)
            self.assertEqual(world.agent.clusters.get("serverCluster").ejector.total, 0, kind)
            self.assertLessEqual(world.confused, 3, kind)


class GoneTests(SynchronousTestCase):
    """Clients that ask, and don't wait for the answer."""

    def test_connections_without_streams_stay(self) -> None:
        world = World("Http1", streams=False, announce=True, service="127.0.0.1:8000")
        for _ in range(5):
            clients = [world.client() for _ in range(2)]
            for client in clients:
                client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                client.recorder.transport.abortConnection()
            world.advance(1.0)
        world.check(self, "gone", left=0)
