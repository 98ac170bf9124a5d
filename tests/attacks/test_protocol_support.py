"""Requests in protocols that no host speaks do not cost a host anything."""

from __future__ import annotations

from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from tests.attacks.memory import HttpService, World
from tests.proxy import test_forged
from tests.wire.http2_frames import GET, POST

UPGRADE = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
GRPC = [*POST, (b"te", b"trailers"), (b"content-type", b"application/grpc")]

UNTRUSTED: dict[str, Callable[[World], object]] = {
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
        for kind, stranger in UNTRUSTED.items():
            for _ in range(2):
                stranger(world)
                world.check(self, kind, left=0)
                self.assertTrue(world.http1().startswith(b"HTTP/1.1 200 "), kind)

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
            for kind, stranger in UNTRUSTED.items():
                world = World(speaks, streams=False, announce=False)
                for _ in range(12):
                    stranger(world)
                self.assertTrue(world.http1().startswith(b"HTTP/1.1 200 "), kind)
                world.check(self, kind, left=4)  # after 0, 1, 3 and 7 seconds of 6

    def test_services(self) -> None:
        for kind, stranger in UNTRUSTED.items():
            world = World("Auto", streams=True, announce=True, service=HttpService)
            for _ in range(4):
                stranger(world)
            self.assertTrue(world.http1().startswith(b"HTTP/1.1 200 "), kind)
            world.check(self, kind, left=0)
            self.assertLessEqual(world.confused, 3, kind)


class GoneTests(SynchronousTestCase):
    """Clients that ask, and don't wait for the answer."""

    def test_connections_without_streams_stay(self) -> None:
        world = World("Http1", streams=False, announce=True, service=HttpService)
        for _ in range(5):
            clients = [world.client() for _ in range(2)]
            for client in clients:
                client.send(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
                client.recorder.transport.abortConnection()
            world.advance(1.0)
        world.check(self, "gone", left=0)
