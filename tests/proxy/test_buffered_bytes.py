"""Each protocol counts the bytes that it buffers of incomplete messages, and releases them."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectionDone
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.buffered_bytes import TRUSTED, UNTRUSTED, BufferBudget
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.tunnel.server.filter import TunnelServer
from reverseproxy.wire.http2.frames import PREFACE, FrameType, frame, settings
from reverseproxy.wire.mosn.frames import ConnectionInit, encode
from tests.proxy import rpc_world, test_tcp
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.rpc_world import request, response
from tests.tunnel.logged import capture


def clear(books: BufferBudget) -> None:
    """Release what other tests have left."""
    for ranking in list(books._accounts.values()):
        for account in list(ranking._sizes):
            account.close()


class BufferedBytesTests(SynchronousTestCase):
    def setUp(self) -> None:
        for books in (UNTRUSTED, TRUSTED):
            clear(books)
            self.assertEqual(books.total, 0)
            self.addCleanup(clear, books)
        self.patch(UNTRUSTED, "limit", 1_000_000)
        self.patch(TRUSTED, "limit", 2_000_000)
        self.numbers = iter(range(1, 250))

    def info(self, reverse: bool = False, address: str = "") -> ConnectionInfo:
        address = address or f"10.9.0.{next(self.numbers)}"
        return ConnectionInfo(remote=f"{address}:1234", local="10.0.0.1:80", reverse=reverse)

    def rpc(self, world: rpc_world.World, automatic: bool = True, **info: Any) -> Wire:
        return Wire(world.clock, automatic).connect(RpcProxy(world.settings, self.info(**info)))

    # RPC

    def test_parts_of_frames(self) -> None:
        """Many that never end: the largest is closed, with a reason; who has less goes on."""
        world = rpc_world.World(1)
        polite = self.rpc(world)
        polite.send(request(7, content=b"x" * 20_000)[:-1])
        hostile = [self.rpc(world) for _ in range(20)]
        with capture() as logged:
            for part in (request(1, content=b"x" * 1_000_000)[:100_000], *[b"y" * 50_000] * 9):
                for wire in hostile:
                    wire.send(part)
                    self.assertLessEqual(UNTRUSTED.total, 1_000_000)
                world.turn()
        self.assertGreater(sum(wire.lost for wire in hostile), 10)
        self.assertIn("too much is kept for peers that do not finish", logged.text())
        polite.send(request(7, content=b"x" * 20_000)[-1:])
        world.turn()
        self.assertEqual(len(world.host().frames()), 1)
        self.assertFalse(polite.lost)

    def test_a_frame_that_ends(self) -> None:
        world = rpc_world.World(1)
        wire = self.rpc(world)
        data = request(1, content=b"x" * 50_000)
        wire.send(data[:30_000])
        self.assertEqual(UNTRUSTED.total, 30_000)
        wire.send(data[30_000:])
        world.turn()
        world.host().send(response(world.host().one().id))
        world.turn()
        self.assertEqual(UNTRUSTED.total, 0)
        wire.send(data[:30_000])
        wire.reset()
        world.turn()
        self.assertEqual(UNTRUSTED.total, 0)

    def test_requests_that_wait(self) -> None:
        """No more of them are read when there are too many, long before connections are closed."""
        world = rpc_world.World(1)
        wires = [self.rpc(world) for _ in range(8)]
        for number in range(60):
            for wire in wires:
                if wire.reading:
                    wire.send(request(number + 1, content=b"x" * 30_000))
            world.turn()
        self.assertEqual([wire for wire in wires if wire.lost], [])
        self.assertTrue(any(not wire.reading for wire in wires))
        for _ in range(3):
            host = world.host()
            host.send(*(response(frame.id) for frame in host.frames()))
            world.turn()
        self.assertTrue(all(wire.reading for wire in wires))
        self.assertEqual(UNTRUSTED.total, 0)

    def test_answers_that_are_not_taken(self) -> None:
        world = rpc_world.World(1)
        wire = self.rpc(world, automatic=False)
        for number in range(30):
            wire.send(request(number + 1))
        world.turn()
        for each in world.host().frames():
            world.host().send(response(each.id, content=b"x" * 20_000))
        world.turn()
        self.assertGreater(UNTRUSTED.total, 200_000)
        while wire.buffered:
            wire.receive()
            world.turn()
        self.assertEqual(UNTRUSTED.total, 0)

    def test_what_servers_and_hosts_send(self) -> None:
        """Of those that are known it is counted apart."""
        world = rpc_world.World(1)
        wire = self.rpc(world, reverse=True)
        wire.send(request(1, content=b"x" * 50_000)[:30_000])
        self.assertEqual((UNTRUSTED.total, TRUSTED.total), (0, 30_000))
        other = self.rpc(world)
        other.send(request(1))
        world.turn()
        world.host().send(response(1, content=b"x" * 70_000)[:60_000])
        self.assertEqual((UNTRUSTED.total, TRUSTED.total), (0, 90_000))
        TRUSTED.limit = 80_000
        with capture() as logged:
            world.host().send(b"x")
            world.turn()
        self.assertEqual(TRUSTED.total, 30_000)
        self.assertIn("is cut off", logged.text())

    # HTTP/1

    def http1(self, world: World, **info: Any) -> Wire:
        return Wire(world.clock).connect(Http1Proxy(world.settings, self.info(**info)))

    def test_parts_of_heads(self) -> None:
        UNTRUSTED.limit = 100_000
        world = World()
        wires = [self.http1(world) for _ in range(30)]
        for wire in wires:
            wire.send(b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 7000)
        world.turn()
        self.assertLessEqual(UNTRUSTED.total, 100_000)
        self.assertEqual(sum(wire.lost for wire in wires), 30 - 100_000 // 7028)
        last = wires[-1]
        last.send(b"\r\n\r\n")
        world.turn()
        world.host().send(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        world.turn()
        self.assertIn(b"200 OK", last.written)
        for wire in wires:
            wire.reset()
        world.turn()
        self.assertEqual(UNTRUSTED.total, 0)

    def test_bodies_that_wait_for_a_host(self) -> None:
        world = World()
        world.endpoint.answer = "wait"
        wire = self.http1(world)
        wire.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 200000\r\n\r\n" + b"x" * 90_000)
        world.turn()
        self.assertEqual(UNTRUSTED.total, 90_000)
        world.endpoint.dials[0].succeed()
        world.turn()
        wire.send(b"x" * 1000)
        self.assertEqual(UNTRUSTED.total, 0)

    def test_requests_behind_one(self) -> None:
        world = World()
        wire = self.http1(world)
        wire.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n" * 1000)
        world.turn()
        self.assertGreater(UNTRUSTED.total, 25_000)
        wire.reset()
        world.turn()
        self.assertEqual(UNTRUSTED.total, 0)

    # HTTP/2

    def test_field_blocks(self) -> None:
        UNTRUSTED.limit = 100_000
        world = Http2World()
        peers = [world.connect(remote=self.info().remote, greet=False).wire for _ in range(20)]
        for wire in peers:
            wire.send(PREFACE + settings([]) + frame(FrameType.HEADERS, 0, 1, b"x" * 10_000))
        world.turn()
        self.assertLessEqual(UNTRUSTED.total, 100_000)
        self.assertEqual(sum(wire.lost for wire in peers), 10)
        for wire in peers:
            wire.reset()
        world.turn()
        self.assertEqual(UNTRUSTED.total, 0)

    # other bytes

    def test_sessions_that_wait_for_a_host(self) -> None:
        world = test_tcp.World()
        world.endpoints[0].answer = "wait"
        client = world.client()
        client.send(b"x" * 50_000)
        self.assertEqual(UNTRUSTED.total, 50_000)
        world.endpoints[0].dials[0].succeed()
        world.clock.advance(0)
        self.assertEqual(UNTRUSTED.total, 0)
        another = world.client()
        another.send(b"x" * 50_000)
        UNTRUSTED.limit = 40_000
        another.send(b"x")
        world.clock.advance(0)
        self.assertTrue(another.aborted)
        self.assertIn("too much is kept", world.records[0].flag)

    def test_handshakes_of_tunnels(self) -> None:
        clusters = ClusterManager([])
        server = TunnelServer("t", TunnelConfig(), clusters, Clock(), lambda *_: None, ())  # type: ignore[arg-type, return-value]
        connections = []
        for _ in range(5):
            transport = StringTransport()
            connection = server.build_protocol(self.info())
            transport.registerProducer(object(), True)  # type: ignore[arg-type]
            connection.makeConnection(transport)
            connection.dataReceived(encode(ConnectionInit("c", host_name="h" * 30_000))[:20_000])
            connections.append((connection, transport))
        self.assertEqual(UNTRUSTED.total, 100_000)
        UNTRUSTED.limit = 90_000
        connections[0][0].dataReceived(b"h")
        self.assertLessEqual(UNTRUSTED.total, 80_001)
        self.assertEqual(sum(transport.disconnecting for _, transport in connections), 1)
        for connection, _ in connections:
            connection.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(UNTRUSTED.total, 0)

    def test_nothing_is_counted_of_what_comes_whole(self) -> None:
        world = World()
        proxy = Http1Proxy(world.settings, ConnectionInfo(remote="10.9.9.9:1", local="10.0.0.1:80"))
        wire = Wire(world.clock).connect(proxy)
        for _ in range(3):
            wire.send(b"GET /direct HTTP/1.1\r\nHost: a\r\n\r\n")
            world.turn()
        self.assertIsNone(proxy._counted)
