"""Clients that close their side behind what they ask for: real processes, and whatever is between them."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

from OpenSSL import SSL

from tests.integration.backend import pattern
from tests.integration.clients import fetch, threaded
from tests.integration.configs import http_filter, quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase, certificates
from tests.integration.http2_configs import spoken

SIZE = 3_000_000


def _get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: a\r\n\r\n".encode()


def _converse(port: int, data: bytes, secure: bool, then: Any = None) -> bytes:
    """
    Send something and an end-of-file, and receive everything.

    @param then: called when the end-of-file is sent.
    """
    with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as sock:
        if not secure:
            sock.sendall(data)
            sock.shutdown(socket.SHUT_WR)
            if then is not None:
                then()
            received = bytearray()
            while piece := sock.recv(1 << 18):
                received += piece
            return bytes(received)
        sock.setblocking(True)
        tls = SSL.Connection(SSL.Context(SSL.TLS_CLIENT_METHOD), sock)
        tls.set_connect_state()
        tls.do_handshake()
        tls.sendall(data)
        tls.shutdown()  # close_notify, and no end-of-file of TCP
        if then is not None:
            then()
        received = bytearray()
        with contextlib.suppress(SSL.ZeroReturnError):
            while True:
                received += tls.recv(1 << 18)
        return bytes(received)


class HalfCloseTests(IntegrationTestCase):
    async def check(
        self,
        *options: str,
        between: str = "Http1",
        client: str = "Http1",
        secure: bool = False,
        kind: str = "http",
        **tunnel: Any,
    ) -> None:
        """
        Ask for something that takes its time, and for something large, with an end-of-file behind each.

        @param between: what is spoken in the tunnel.
        @param client: what the client listener takes.
        @param kind: of the server's filter for clients.
        """
        backend = await self.run_backend()
        more: dict[str, Any] = {}
        if secure:
            certificate, private = certificates(self.directory).issue("127.0.0.1")
            more["client_tls"] = {"status": True, "cert_chain": certificate, "private_key": private}
        config = server(kind=kind, **more)
        if kind == "http":
            spoken(config, client, between)
        cloud = self.run_proxy(config, "server", *options)
        tunnel_port, port = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        agent = spoken(quick_agent(tunnel_port, backend.address, connections=2, **tunnel), between, "Http1")
        self.run_proxy(agent, "agent", *options)
        await cloud.counted(JOINED, 2)

        def release() -> None:
            # The service has the request, and the proxies have had time for the end behind it.
            for path in ("/held?key=half&n=1", "/bytes?n=1", "/release?key=half"):
                _converse(backend.port, _get(path), False)

        received = await threaded(_converse, port, _get("/hold?key=half"), secure, release)
        self.assertTrue(received.startswith(b"HTTP/1.1 200 "), received)
        received = await threaded(_converse, port, _get("/echo") * 2 + _get(f"/bytes?n={SIZE}"), secure)
        self.assertEqual(received.count(b"HTTP/1.1 200 "), 3)
        self.assertTrue(received.endswith(b"\r\n\r\n" + pattern(SIZE)))
        # What carried it is as good as before.
        answer = await fetch(port, "/echo", "POST", b"again") if not secure else None
        self.assertTrue(answer is None or answer.body == b"again")

    async def test_plain(self) -> None:
        await self.check(mux=False)

    async def test_streams(self) -> None:
        await self.check()

    async def test_stock_transport(self) -> None:
        await self.check("--transport", "stock", mux=False)

    async def test_http2_between(self) -> None:
        await self.check(between="Http2", client="Http1,Http2")

    async def test_any_protocol(self) -> None:
        await self.check(client="Auto")

    async def test_tls(self) -> None:
        await self.check(secure=True, mux=False)

    async def test_tls_on_stock_transport(self) -> None:
        await self.check("--transport", "stock", secure=True)

    async def test_workers(self) -> None:
        await self.check("--workers", "2", mux=False)

    async def test_bytes_on_plain_connections(self) -> None:
        """The server passes on bytes, and the end; it is the agent that sees a request."""
        await self.check(kind="tcp", mux=False)

    async def test_bytes_on_streams(self) -> None:
        await self.check(kind="tcp")

    async def test_as_it_was(self) -> None:
        backend = await self.run_backend()
        proxy = http_filter("client_router", abort_on_half_close=True)
        cloud = self.run_proxy(server(client_filter=proxy), "server")
        tunnel_port, port = await cloud.port("tunnelListener"), await cloud.port("clientListener")
        self.run_proxy(quick_agent(tunnel_port, backend.address), "agent")
        await cloud.counted(JOINED, 1)
        self.assertEqual(await threaded(_converse, port, _get("/hold?key=never"), False), b"")
