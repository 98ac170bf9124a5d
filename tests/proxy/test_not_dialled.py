"""
Services that can't be reached, in any way and in any protocol: the agent reports that nothing was sent.

Services that accept a connection and close it may have acted on what they received.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from twisted.internet.error import (
    ConnectError,
    ConnectionRefusedError,
    DNSLookupError,
    TCPTimedOutError,
    TimeoutError,
)
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import CertificateRejected, TlsFailed
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.rpc.server import RpcProxy
from tests.proxy import rpc_world, test_forged
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.test_forged import reverse
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http2_frames import POST

FAILURES = {
    "nobody listens": ConnectionRefusedError(),
    "no such Unix socket": ConnectError(osError=2, string="No such file or directory"),
    "no such name": DNSLookupError("no results for hostname lookup"),
    "no route": ConnectError(osError=113, string="No route to host"),
    "nobody answers": TCPTimedOutError(),
    "nobody answers in time": TimeoutError(),
    "no TLS": TlsFailed("wrong version number"),
    "a certificate of another": CertificateRejected("it is for another name"),
}
WAYS = [*FAILURES.values(), "wait"]
MARK = b"x-reverseproxy-unsent"


class UnreachableTests(SynchronousTestCase):
    """C{"wait"} is one whose first packet is dropped: the connect times out, or the request before that."""

    def fail_with(self, world: Any, way: Any) -> None:
        for endpoint in world.endpoints:
            endpoint.answer = way

    def pass_time(self, world: Any, way: Any) -> None:
        if way == "wait":
            world.run(31.0)

    def http1_requests(self) -> Iterator[bytes]:
        for upgrade in (b"", b"Connection: Upgrade\r\nUpgrade: websocket\r\n"):
            yield b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n%b\r\nx" % upgrade
            yield b"GET / HTTP/1.1\r\nHost: a\r\n%b\r\n" % upgrade

    def test_http1(self) -> None:
        for way in WAYS:
            for request in self.http1_requests():
                world = World()
                self.fail_with(world, way)
                client = world.client(**reverse())
                client.send(request)
                self.pass_time(world, way)
                self.assertIn(b"\r\n" + MARK + b": request\r\n", client.take(), (way, request))
                world.check_idle(self.fail)

    def test_http2(self) -> None:
        for way in WAYS:
            for routes in (HTTP1, HTTP2):
                for more in ([], [(b"te", b"trailers"), (b"content-type", b"application/grpc")]):
                    world = Http2World(routes=routes)
                    self.fail_with(world, way)
                    client = world.connect(**reverse())
                    number = client.ask([*POST, *more], b"x")
                    self.pass_time(world, way)
                    self.assertEqual(client[number].header(MARK), b"request", way)
                    world.check_idle(self.fail)

    def test_rpc(self) -> None:
        for way in WAYS:
            for protocol, request in test_forged.RpcTests.REQUESTS:
                world = rpc_world.World(1, protocol=protocol)
                self.fail_with(world, way)
                info = ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", **reverse())
                client = rpc_world.Peer(Wire(world.clock).connect(RpcProxy(world.settings, info)), protocol)
                client.send(request)
                self.pass_time(world, way)
                self.assertIsNotNone(protocol.unsent(client.one()), (way, protocol))
                world.check_idle(self.fail)

    def test_less_time_than_a_connect_takes(self) -> None:
        """A request whose time is over while its service is dialled was not sent either."""
        timeout = {"match": {"prefix": "/"}, "route": {"cluster_name": "c", "timeout": "2s"}}
        world = World(routes=[timeout])
        self.fail_with(world, "wait")
        client = world.client(**reverse())
        client.send(next(self.http1_requests()))
        world.run(3.0, 0.5)
        answer = client.take()
        self.assertTrue(answer.startswith(b"HTTP/1.1 504 "), answer)
        self.assertIn(MARK + b": request", answer)
        bolt, _ = test_forged.RpcTests.REQUESTS[0]
        rpc = rpc_world.World(1)
        self.fail_with(rpc, "wait")
        info = ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", **reverse())
        peer = rpc_world.Peer(Wire(rpc.clock).connect(RpcProxy(rpc.settings, info)))
        peer.send(rpc_world.request(7, "quick"))
        rpc.run(3.0, 0.5)
        self.assertIsNotNone(bolt.unsent(peer.one()))


class BrokenOffTests(SynchronousTestCase):
    """What has been written may have been read."""

    def test_http1(self) -> None:
        for end in ("end", "reset"):
            world = World(2)
            client = world.client(**reverse())
            client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
            [wire] = [wire for each in world.endpoints for wire in each.wires]
            getattr(wire, end)()
            world.turn(1.0)
            answer = client.take()
            self.assertTrue(answer.startswith(b"HTTP/1.1 502 "), answer)
            self.assertNotIn(MARK, answer)
            self.assertEqual(sum(len(each.wires) for each in world.endpoints), 1)
            world.check_idle(self.fail)

    def test_http2(self) -> None:
        for end in ("end", "reset"):
            for routes in (HTTP1, HTTP2):
                world = Http2World(2, routes=routes)
                client = world.connect(**reverse())
                number = client.ask(POST, b"x")
                [wire] = [wire for each in world.endpoints for wire in each.wires]
                if routes is HTTP2:
                    world.peer(wire)
                getattr(wire, end)()
                world.turn(1.0)
                answer = client[number]
                self.assertGreaterEqual(answer.status, 500)
                self.assertIsNone(answer.header(MARK))
                self.assertEqual(sum(len(each.wires) for each in world.endpoints), 1)
                world.check_idle(self.fail)

    def test_rpc(self) -> None:
        for end in ("end", "reset"):
            for protocol, request in test_forged.RpcTests.REQUESTS:
                world = rpc_world.World(2, protocol=protocol)
                info = ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", **reverse())
                client = rpc_world.Peer(Wire(world.clock).connect(RpcProxy(world.settings, info)), protocol)
                client.send(request)
                [wire] = [wire for each in world.endpoints for wire in each.wires]
                getattr(wire, end)()
                world.turn(1.0)
                answer = client.one()
                self.assertGreaterEqual(protocol.http_status(answer), 500)
                self.assertIsNone(protocol.unsent(answer))
                self.assertEqual(sum(len(each.wires) for each in world.endpoints), 1)
                world.check_idle(self.fail)
