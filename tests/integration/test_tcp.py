"""TCP sessions through a tunnel: order of speech, half-close, volume."""

from __future__ import annotations

import select
import socket
import threading

from tests.integration.clients import RawPeer, connect_raw, gather, listen_raw, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase, resident_bytes

MB = 1 << 20


class Echo(RawPeer):
    """Sends back what it gets, and closes when the other end has."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)

    def readConnectionLost(self) -> None:
        self.transport.loseConnection()


class Greeter(Echo):
    """Speaks first, as an SSH or MySQL server does."""

    def connectionMade(self) -> None:
        self.transport.write(b"welcome\r\n")


class Counter(RawPeer):
    """Answers with the number of bytes, once the other end has sent them all."""

    def readConnectionLost(self) -> None:
        super().readConnectionLost()
        self.transport.write(b"%d bytes" % len(self.received))
        self.transport.loseConnection()


class DelayedClose(RawPeer):
    """Answers the first bytes, ends its own direction, and reads on."""

    def dataReceived(self, data: bytes) -> None:
        if not self.received:
            self.transport.write(b"that was all")
            self.transport.loseWriteConnection()
        super().dataReceived(data)


class TcpTests(IntegrationTestCase):
    async def start(self, backend: int, connections: int = 2, **more: object) -> int:
        """Start server and agent; the port for clients."""
        self.cloud = self.run_proxy(server(kind="tcp"), "server")
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(
            quick_agent(tunnel, f"127.0.0.1:{backend}", kind="tcp", connections=connections, **more),
            "agent",
        )
        await self.cloud.counted(JOINED, connections)
        return await self.cloud.port("clientListener")

    async def test_echo(self) -> None:
        backend = await listen_raw(self, Echo)
        port = await self.start(backend.port)
        peer = await connect_raw(self, port)
        for size in (1, 1000, 100_000):
            peer.received = b""
            peer.transport.write(b"e" * size)
            await peer.bytes(size)
        peer.transport.loseWriteConnection()
        await peer.closed()

    async def test_backend_speaks_first(self) -> None:
        backend = await listen_raw(self, Greeter)
        port = await self.start(backend.port)
        for _ in range(4):
            peer = await connect_raw(self, port)
            await peer.contains(b"welcome\r\n")
            peer.transport.write(b"hello")
            await peer.contains(b"hello")
            peer.transport.loseConnection()

    async def test_half_close_by_the_client(self) -> None:
        backend = await listen_raw(self, Counter)
        port = await self.start(backend.port)
        peer = await connect_raw(self, port)
        peer.transport.write(b"x" * 300_000)
        peer.transport.loseWriteConnection()
        self.assertEqual(await peer.closed(), b"300000 bytes")

    async def test_half_close_by_the_backend(self) -> None:
        backend = await listen_raw(self, DelayedClose)
        port = await self.start(backend.port, 1)
        peer = await connect_raw(self, port)
        peer.transport.write(b"hello; ")
        self.assertEqual(await peer.closed(), b"that was all")
        self.assertFalse(peer.lost)
        behind = await backend.next()
        peer.transport.write(b"but I have more to say")
        await behind.contains(b"but I have more to say")
        peer.transport.loseWriteConnection()
        await behind.closed()

    async def test_sessions_do_not_mix(self) -> None:
        backend = await listen_raw(self, Echo)
        port = await self.start(backend.port, 4)

        async def session(number: int) -> None:
            peer = await connect_raw(self, port)
            sent = b"%04d" % number * 5000
            peer.transport.write(sent)
            self.assertEqual(await peer.bytes(len(sent)), sent)
            peer.transport.loseConnection()

        # each session uses up its reverse connection, so that agents redial all the time
        for turn in range(5):
            await gather(session(4 * turn + i) for i in range(4))

    async def test_reset_by_the_client_reaches_the_backend(self) -> None:
        backend = await listen_raw(self)
        port = await self.start(backend.port, 1)
        peer = await connect_raw(self, port)
        peer.transport.write(b"before the reset")
        behind = await backend.next()
        await behind.contains(b"before the reset")
        peer.transport.abortConnection()
        await behind.closed()

    async def test_backend_that_comes_later(self) -> None:
        later = self.reserve_port()
        self.cloud = self.run_proxy(server(kind="tcp"), "server")
        tunnel, port = await self.cloud.port("tunnelListener"), await self.cloud.port("clientListener")
        edge = self.run_proxy(
            quick_agent(tunnel, f"127.0.0.1:{later}", kind="tcp", reconnect_max_duration="300ms", mux=False),
            "agent",
        )
        await edge.logged("connection refused")
        peer = await connect_raw(self, port)
        peer.transport.write(b"anybody?")
        self.assertEqual(await peer.closed(), b"")
        await listen_raw(self, Echo, later)
        await self.cloud.counted(JOINED, 1)
        peer = await connect_raw(self, port)
        peer.transport.write(b"anybody?")
        await peer.contains(b"anybody?")


class VolumeTests(IntegrationTestCase):
    """A gigabyte, the reader of which stands still at first."""

    total = 1024 * MB
    flat = 24 * MB

    async def test_download_with_a_slow_reader(self) -> None:
        await self.transfer(upload=False)

    async def test_upload_with_a_slow_reader(self) -> None:
        await self.transfer(upload=True)

    async def transfer(self, upload: bool) -> None:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.settimeout(DEADLINE)
        self.addCleanup(listening.close)
        self.cloud = self.run_proxy(server(kind="tcp"), "server")
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(
            quick_agent(tunnel, f"127.0.0.1:{listening.getsockname()[1]}", kind="tcp"), "agent"
        )
        await self.cloud.counted(JOINED, 1)
        port = await self.cloud.port("clientListener")
        before = self.memory()
        received, peaks = await threaded(self.pump, port, listening, upload)
        self.assertEqual(received, self.total)
        growth = [after - then for after, then in zip(peaks, before, strict=True)]
        self.assertLess(max(growth), self.flat, f"memory grew by {growth} bytes")

    def memory(self) -> tuple[int, int]:
        return resident_bytes(self.cloud.pid), resident_bytes(self.edge.pid)

    def pump(self, port: int, listening: socket.socket, upload: bool) -> tuple[int, tuple[int, int]]:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
            if upload:
                client.sendall(b"!")
            backend, _ = listening.accept()
            with backend:
                if upload:
                    assert backend.recv(1) == b"!"
                sender, reader = (client, backend) if upload else (backend, client)
                stalled = threading.Event()
                writing = threading.Thread(target=self.send, args=(sender, stalled), daemon=True)
                writing.start()
                # nothing is read until nothing more can be sent
                assert stalled.wait(DEADLINE)
                peaks = self.memory()
                total, buffer = 0, bytearray(MB)
                reader.settimeout(DEADLINE)
                while count := reader.recv_into(buffer, 8192 if total < 50 * MB else MB):
                    if total // (64 * MB) != (total + count) // (64 * MB):
                        now = self.memory()
                        peaks = (max(peaks[0], now[0]), max(peaks[1], now[1]))
                    total += count
                writing.join(DEADLINE)
                return total, peaks

    def send(self, sender: socket.socket, stalled: threading.Event) -> None:
        block = memoryview(bytes(MB))
        sender.setblocking(False)
        left = self.total
        while left:
            try:
                left -= sender.send(block[: min(left, MB)])
            except BlockingIOError:
                if not select.select([], [sender], [], 0.5)[1]:
                    stalled.set()
                    select.select([], [sender], [], DEADLINE)
        stalled.set()
        sender.shutdown(socket.SHUT_WR)
