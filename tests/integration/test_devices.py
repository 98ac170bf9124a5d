"""Old devices and odd methods, between curl's library and real processes."""

from __future__ import annotations

import contextlib
import socket
import socketserver
import threading
from typing import Any

from tests.integration.clients import threaded
from tests.integration.configs import quick_agent, server
from tests.integration.harness import DEADLINE, JOINED, IntegrationTestCase
from tests.integration.http2_configs import spoken
from tests.integration.test_curl import HTTP1, PRIOR_KNOWLEDGE, Curl
from tests.wire.http1_cases import BAD_RESPONSES, ODD_RESPONSES, ODD_UNTIL_CLOSE, respond

METHODS = ("FOO", "LIST", "RDG_OUT_DATA", "M-SEARCH", "propfind", "get", "!#$%&'*+.^_`|~", "X" * 64)


class Device(socketserver.BaseRequestHandler):
    """Answers requests without bodies by their paths: C{/odd/N}, C{/close/N}, C{/bad/N}, C{/line}."""

    def handle(self) -> None:
        self.request.settimeout(DEADLINE)
        received = b""
        with contextlib.suppress(OSError):
            while True:
                while b"\r\n\r\n" not in received:
                    data = self.request.recv(65536)
                    if not data:
                        return
                    received += data
                head, _, received = received.partition(b"\r\n\r\n")
                line = head.split(b"\r\n")[0]
                _, kind, number, *_ = (line.split(b" ")[1] + b"/0").split(b"/")
                index = int(number)
                if kind == b"odd":
                    self.request.sendall(ODD_RESPONSES[index][1])
                elif kind == b"close":
                    self.request.sendall(ODD_UNTIL_CLOSE[index][1])
                    return
                elif kind == b"bad":
                    self.request.sendall(BAD_RESPONSES[index][1])
                    return
                else:
                    self.request.sendall(respond(b"Content-Length: %d" % len(line), body=line))


class Devices(socketserver.ThreadingTCPServer):
    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 100

    def handle_error(self, request: Any, client_address: Any) -> None:
        """It is for the client to complain."""


class DeviceTests(IntegrationTestCase):
    async def start(self, client: str, between: str, **tunnel: Any) -> str:
        """Start devices, server and agent; the URL for clients."""
        devices = Devices(("127.0.0.1", 0), Device)
        threading.Thread(target=devices.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(devices.server_close)
        self.addCleanup(lambda: threaded(devices.shutdown))
        port = devices.server_address[1]
        cloud = self.run_proxy(spoken(server(), client, "" if between == "Auto" else between), "server")
        agent = quick_agent(await cloud.port("tunnelListener"), f"127.0.0.1:{port}", connections=2, **tunnel)
        self.run_proxy(spoken(agent, between, "Http1"), "agent")
        await cloud.counted(JOINED, 2)
        return f"http://127.0.0.1:{await cloud.port('clientListener')}"

    def check(self, base: str, version: int) -> None:
        """Ask for everything that devices may answer, on one connection as far as possible."""
        curl = Curl(base, version)
        for index, (name, _, _, body, _) in enumerate(ODD_RESPONSES):
            answer = curl.ask(f"/odd/{index}")
            self.assertEqual((answer.status, answer.version), (200, "1.1" if version == HTTP1 else "2"), name)
            self.assertEqual(answer.body, body, name)
            self.assertNotIn(b"\n", b"".join(answer.headers).replace(b"\r\n", b""), name)
        for index, (name, _, body) in enumerate(ODD_UNTIL_CLOSE):
            answer = curl.ask(f"/close/{index}")
            self.assertEqual((answer.status, answer.body), (200, body), name)
        for index, (name, _) in enumerate(BAD_RESPONSES):
            self.assertEqual(curl.ask(f"/bad/{index}").status, 502, name)
        for method in METHODS:
            answer = curl.ask("/line", method)
            self.assertEqual((answer.status, answer.body), (200, f"{method} /line HTTP/1.1".encode()))

    async def run_all(self, client: str, between: str, *versions: int, **tunnel: Any) -> None:
        base = await self.start(client, between, **tunnel)
        for version in versions:
            await threaded(self.check, base, version)

    async def test_plain(self) -> None:
        await self.run_all("Http1", "Http1", HTTP1, mux=False)

    async def test_streams_and_detection(self) -> None:
        await self.run_all("Auto", "Auto", HTTP1, PRIOR_KNOWLEDGE)

    async def test_http2_between(self) -> None:
        await self.run_all("Http1,Http2", "Http2", HTTP1, PRIOR_KNOWLEDGE)

    async def test_a_raw_client(self) -> None:
        """Empty lines and an odd method, byte by byte, on a listener that tells protocols apart."""
        base = await self.start("Auto", "Http1")

        def run() -> bytes:
            with socket.create_connection(
                ("127.0.0.1", int(base.rpartition(":")[2])), timeout=DEADLINE
            ) as sock:
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                for byte in b"\r\n\r\nfoo-BAR_1 /line HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n":
                    sock.sendall(bytes([byte]))
                received = b""
                while data := sock.recv(65536):
                    received += data
                return received

        received = await threaded(run)
        self.assertTrue(received.startswith(b"HTTP/1.1 200 OK\r\n"), received)
        self.assertTrue(received.endswith(b"\r\n\r\nfoo-BAR_1 /line HTTP/1.1"), received)
