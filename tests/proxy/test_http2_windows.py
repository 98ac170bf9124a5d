"""Data that waits for slow readers in HTTP/2: its limits, and the frames that their peers get meanwhile."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.http.http2_connection import Http2Protocol
from reverseproxy.proxy.http.http2_pool import POOL, Http2Pool
from reverseproxy.transport.memory import HELD, WINDOWS, HeldBytes
from reverseproxy.wire.http2.frames import ErrorCode, Setting
from reverseproxy.wire.window import TELL_EVERY
from tests.proxy.http2_memory import Http2Peer, Http2World, Message
from tests.proxy.memory import Wire
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import respond
from tests.wire.http2_frames import OK, POST

KB = 1000


class WindowsTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.before = (HELD.total, WINDOWS.taken, WINDOWS.streams)

    def tearDown(self) -> None:
        self.assertEqual((HELD.total, WINDOWS.taken, WINDOWS.streams), self.before)

    def world(self, **more: Any) -> Http2World:
        world = Http2World(**more)
        self.addCleanup(world.check_idle, self.fail)
        return world

    def limit(self, size: int) -> HeldBytes:
        """Bound what all connections may hold."""
        memory = HeldBytes(size)
        self.patch(Http2Protocol, "memory", memory)
        return memory

    def upload(self, world: Http2World, client: Http2Peer, size: int) -> tuple[int, Wire]:
        """Send a part of a body to a host that takes nothing of it."""
        number = client.ask(POST, bytes(size), end=False)
        return number, world.host()

    def opened(self, peer: Http2Peer, number: int) -> int:
        """By how many bytes the window of a stream was opened until now."""
        return sum(size for stream, size in peer.look().windows if stream == number)


class UploadTests(WindowsTestCase):
    def world(self, **more: Any) -> Http2World:
        return super().world(**{"routes": HTTP1, **more})

    def test_a_client_hears_of_what_a_slow_host_takes(self) -> None:
        world = self.world()
        world.endpoint.automatic = False
        client = world.connect()
        number, host = self.upload(world, client, 200 * KB)
        self.assertEqual(self.opened(client, number), 0)
        world.turn(TELL_EVERY)
        self.assertEqual(self.opened(client, number), 0)  # none of it was taken
        told = []
        for _ in range(4):
            host.receive(10 * KB)
            world.turn(TELL_EVERY)
            told.append(self.opened(client, number))
        # But for the head of the request and for chunks, that is what was taken.
        for count, size in enumerate(told, 1):
            self.assertTrue(0 <= count * 10 * KB - size <= 300, told)
        host.receive()
        world.turn()
        self.assertEqual(self.opened(client, number), 200 * KB)
        client.send(client.rst(number))

    def test_nothing_is_told_of_what_waits_for_a_host(self) -> None:
        world = self.world()
        world.endpoint.answer = "wait"
        client = world.connect()
        number = client.ask(POST, bytes(200 * KB), end=False)
        world.turn(TELL_EVERY)
        self.assertEqual(self.opened(client, number), 0)
        client.send(client.rst(number))
        world.turn(20)

    def test_what_all_hold_is_bounded(self) -> None:
        memory = self.limit(500 * KB)
        world = self.world()
        world.endpoint.automatic = False
        clients = [world.connect() for _ in range(4)]
        sizes = (100 * KB, 220 * KB, 150 * KB, 120 * KB)
        numbers = []
        for client, size in zip(clients, sizes, strict=True):
            numbers.append(self.upload(world, client, size)[0])
            self.assertLessEqual(memory.total, memory.limit)
        world.turn()
        resets = [
            client.look().messages.get(number, Message()).reset
            for client, number in zip(clients, numbers, strict=True)
        ]
        self.assertEqual(resets, [None, ErrorCode.ENHANCE_YOUR_CALM, None, None])
        self.assertEqual(memory.total, 370 * KB)
        # The others go on, and so does its connection.
        again, host = self.upload(world, clients[1], 10 * KB)
        host.receive()
        clients[1].send(clients[1].data(again, b"", True))
        host.send(respond(b"Content-Length: 0"))
        self.assertTrue(clients[1][again].ended)
        for index in (0, 2, 3):
            clients[index].send(clients[index].rst(numbers[index]))
        self.assertEqual((memory.total, memory._holders), (0, {}))

    def test_many_streams_of_one_client(self) -> None:
        memory = self.limit(1000 * KB)
        world = self.world()
        world.endpoint.automatic = False
        client = world.connect()
        for _ in range(50):
            client.ask(POST, bytes(200 * KB), end=False)
            self.assertLessEqual(memory.total, memory.limit)
        world.turn()
        resets = [message.reset for number, message in client.look().messages.items() if message.reset]
        self.assertEqual(resets, [ErrorCode.ENHANCE_YOUR_CALM] * 45)
        client.wire.reset()
        self.assertEqual((memory.total, memory._holders), (0, {}))

    def test_a_connection_that_is_lost_holds_nothing(self) -> None:
        for end in ("reset", "goaway", "mistake"):
            memory = self.limit(1000 * KB)
            world = self.world()
            world.endpoint.automatic = False
            client = world.connect()
            self.upload(world, client, 200 * KB)
            self.assertEqual(memory.total, 200 * KB)
            if end == "reset":
                client.wire.reset()
            elif end == "mistake":
                client.send(b"\0\0\0\x05\0\0\0\0\1")
            else:
                client.wire.end()
            world.turn(20)
            self.assertEqual((memory.total, memory._holders), (0, {}), end)


class DownloadTests(WindowsTestCase):
    def world(self, **more: Any) -> Http2World:
        return super().world(routes=HTTP2, **more)

    def download(self, world: Http2World, client: Http2Peer, size: int) -> tuple[int, Http2Peer, int]:
        """Have a host send a part of a body to a client that takes nothing of it."""
        number = client.ask()
        host = self.hosts.get(id(world.host())) or world.peer()
        self.hosts[id(world.host())] = host
        at_host = max(host.look().messages)
        host.send(host.headers(at_host, OK), *host.pieces(at_host, bytes(size), False))
        return number, host, at_host

    def setUp(self) -> None:
        super().setUp()
        self.hosts: dict[int, Http2Peer] = {}

    def test_a_host_hears_of_what_a_slow_client_takes(self) -> None:
        world = self.world()
        client = world.connect({Setting.INITIAL_WINDOW_SIZE: 0})
        client.send(client.window(0, 1_000_000))
        number, host, at_host = self.download(world, client, 200 * KB)
        for _ in range(3):
            client.send(client.window(number, 20 * KB))
            world.turn(TELL_EVERY)
        self.assertEqual(self.opened(host, at_host), 60 * KB)
        client.send(client.window(number, 200 * KB))
        world.turn()
        self.assertEqual(self.opened(host, at_host), 200 * KB)
        client.send(client.rst(number))

    def test_a_slow_client_of_http1(self) -> None:
        world = self.world()
        client = world.http1_client()
        client.automatic = False
        client.send(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n")
        host = world.peer()
        host.send(
            host.headers(1, [*OK, (b"content-length", b"200000")]), *host.pieces(1, bytes(150_000), False)
        )
        client.receive(50 * KB)
        world.turn(TELL_EVERY)
        self.assertTrue(0 <= 50 * KB - self.opened(host, 1) <= 300)
        host.send(*host.pieces(1, bytes(50_000), True))
        while client.buffered:
            client.receive()
            world.turn()
        self.assertTrue(client.take().endswith(bytes(200_000)))

    def test_what_all_hold_is_bounded(self) -> None:
        memory = self.limit(400 * KB)
        world = self.world()
        client = world.connect({Setting.INITIAL_WINDOW_SIZE: 0})
        found = [self.download(world, client, size) for size in (100 * KB, 200 * KB, 150 * KB)]
        world.turn()
        host = found[0][1].look()
        self.assertEqual(
            [host[at_host].reset for _, _, at_host in found], [None, ErrorCode.ENHANCE_YOUR_CALM, None]
        )
        self.assertEqual(client[found[1][0]].reset, ErrorCode.INTERNAL_ERROR)
        self.assertEqual(memory.total, 250 * KB)
        client.wire.reset()
        self.assertEqual(memory.total, 0)


class ConfigurationTests(WindowsTestCase):
    def test_windows_of_a_cluster(self) -> None:
        windows = {"initial_window_size": 70_000, "max_window_size": 50_000, "max_window_growth": 9}
        world = self.world(routes=HTTP2, cluster={"http2_windows": windows})
        client = world.connect()
        number = client.ask()
        host = world.peer()
        self.assertEqual(host.settings_seen[0][Setting.INITIAL_WINDOW_SIZE], 70_000)
        pool = world.hosts[0].pools[POOL]
        assert isinstance(pool, Http2Pool)
        self.assertEqual((pool.limits.max_window, pool.limits.receive_budget), (70_000, 9))
        client.send(client.rst(number))
