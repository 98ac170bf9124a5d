"""HTTP through a tunnel: sizes, streams, early answers and upgrades."""

from __future__ import annotations

import hashlib
import http.client
import socket
from collections.abc import Iterator

from websockets.sync.client import connect as connect_websocket

from tests.integration.backend import pattern
from tests.integration.clients import ask, connect_raw, fetch, gather, threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase


class HttpTests(IntegrationTestCase):
    async def start(self, connections: int = 2) -> int:
        """Start backend, server and agent; the port for clients."""
        self.backend = await self.run_backend()
        self.cloud = self.run_proxy(server(), "server")
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(
            quick_agent(tunnel, self.backend.address, connections=connections), "agent"
        )
        await self.cloud.counted(JOINED, connections)
        return await self.cloud.port("clientListener")

    async def test_bodies_of_many_sizes(self) -> None:
        port = await self.start()
        for size in (0, 1, 1024, 65535, 65536, 1_000_000, 20_000_000):
            down = await fetch(port, f"/bytes?n={size}")
            self.assertEqual((down.status, len(down.body)), (200, size))
            self.assertEqual(hashlib.sha256(down.body).digest(), hashlib.sha256(pattern(size)).digest())
            up = await fetch(port, "/echo", "POST", pattern(size), {"x-id": str(size)})
            self.assertEqual((up.status, up.headers["x-id"]), (200, str(size)))
            self.assertTrue(up.body == pattern(size), f"body of {size} bytes was changed")

    async def test_chunked_both_ways(self) -> None:
        port = await self.start()

        def pieces() -> Iterator[bytes]:
            for number in range(500):
                yield b"piece %d;" % number

        up = await fetch(port, "/echo", "POST", pieces())
        self.assertEqual(up.body, b"".join(pieces()))
        down = await fetch(port, "/chunks?n=100&size=5000")
        self.assertEqual(down.body, pattern(5000) * 100)
        self.assertEqual(down.headers.get("transfer-encoding"), "chunked")

    async def test_head_and_keep_alive(self) -> None:
        port = await self.start()

        def run() -> list[tuple[int, int]]:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=DEADLINE)
            seen = []
            for method in ("GET", "HEAD", "GET"):
                answer = ask(connection, "/bytes?n=1000", method)
                seen.append((int(answer.headers["content-length"]), len(answer.body)))
            connection.close()
            return seen

        self.assertEqual(await threaded(run), [(1000, 1000), (1000, 0), (1000, 1000)])

    async def test_answer_before_the_end_of_the_request(self) -> None:
        port = await self.start()
        peer = await connect_raw(self, port)
        peer.transport.write(b"POST /early HTTP/1.1\r\nHost: test\r\nContent-Length: 100000000\r\n\r\nbegin")
        received = await peer.contains(b"too much")
        self.assertIn(b"413", received.split(b"\r\n")[0])
        answer = await fetch(port, "/echo", "POST", b"fine")
        self.assertEqual((answer.status, answer.body), (200, b"fine"))

    async def test_pipelined_requests_are_answered_in_order(self) -> None:
        port = await self.start()
        peer = await connect_raw(self, port)
        peer.transport.write(
            b"".join(
                b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 3\r\nX-Id: %d\r\n\r\n%03d" % (i, i)
                for i in range(20)
            )
        )
        received = await peer.contains(b"\r\n\r\n019")
        bodies = [part[:3] for part in received.split(b"\r\n\r\n")[1:]]
        self.assertEqual(bodies, [b"%03d" % i for i in range(20)])

    async def test_websocket(self) -> None:
        port = await self.start(1)

        def run() -> list[str | bytes]:
            seen: list[str | bytes] = []
            with connect_websocket(f"ws://127.0.0.1:{port}/ws", open_timeout=DEADLINE) as socket_:
                for message in ("text", b"bytes", "x" * 100_000):
                    socket_.send(message)
                    seen.append(socket_.recv(timeout=DEADLINE))
            return seen

        for _ in range(3):
            # the only reverse connection is used up by each, and made anew
            self.assertEqual(await threaded(run), ["text", b"bytes", "x" * 100_000])

    async def test_more_requests_than_connections_wait_their_turn(self) -> None:
        port = await self.start(2)
        held = [fetch(port, "/hold?key=turn", headers={"x-id": str(i)}) for i in range(2)]
        await fetch(self.backend.port, "/held?key=turn&n=2")
        queued = [fetch(port, "/echo", "POST", b"%d" % i) for i in range(6)]
        await fetch(self.backend.port, "/release?key=turn")
        self.assertEqual([a.body for a in await gather(held)], [b"0", b"1"])
        self.assertEqual([a.body for a in await gather(queued)], [b"%d" % i for i in range(6)])

    async def test_client_that_goes_away_frees_its_connection(self) -> None:
        port = await self.start(1)
        peer = await connect_raw(self, port)
        peer.transport.write(b"GET /hold?key=gone HTTP/1.1\r\nHost: test\r\n\r\n")
        await fetch(self.backend.port, "/held?key=gone&n=1")
        peer.transport.abortConnection()
        answer = await fetch(port, "/echo", "POST", b"next")
        self.assertEqual((answer.status, answer.body), (200, b"next"))

    async def test_malformed_requests_are_refused_and_reach_no_backend(self) -> None:
        port = await self.start(1)
        for request, status in (
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost : a\r\n\r\n", b"400"),
            (b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"y" * 100_000 + b"\r\n\r\n", b"431"),
            (b"NONSENSE\r\n\r\n", b"400"),
        ):
            peer = await connect_raw(self, port)
            peer.transport.write(request)
            received = await peer.closed()
            self.assertEqual(received.split(b" ")[1:2], [status], (request[:80], received[:200]))
        answer = await fetch(port, "/echo", "POST", b"still fine")
        self.assertEqual(answer.body, b"still fine")

    async def test_slow_client_does_not_fill_memory(self) -> None:
        port = await self.start(1)

        def run() -> int:
            with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as client:
                client.sendall(b"GET /bytes?n=50000000 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
                total = 0
                while data := client.recv(4096 if total < 1_000_000 else 1 << 20):
                    total += len(data)
                return total

        self.assertGreater(await threaded(run), 50_000_000)
