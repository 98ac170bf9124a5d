"""Tests for the HTTP/1 proxy over real sockets, between the standard library's client and server."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import http.server
import random
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import ServerFactory
from twisted.internet.task import deferLater
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.host import StaticHost
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import ClusterConfig, HostConfig, RouterConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.http import http1_pool  # noqa: F401  it registers its pool
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.relay import BODY_TAIL, LONG_BODY
from reverseproxy.routing import Router
from tests.streams import reactor

_T = TypeVar("_T")

DEADLINE = 30.0


class Handler(http.server.BaseHTTPRequestHandler):
    """Echoes requests in many ways."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *args: Any) -> None:
        pass

    def body(self) -> bytes:
        if self.headers.get("transfer-encoding") == "chunked":
            data = b""
            while size := int(self.rfile.readline(), 16):
                data += self.rfile.read(size)
                self.rfile.readline()
            self.rfile.readline()
            return data
        return self.rfile.read(int(self.headers.get("content-length", 0)))

    def do_GET(self) -> None:
        self.server.connections.add(self.client_address)  # type: ignore[attr-defined]
        if self.path == "/early":
            self.rfile.read(1_000_000)
            self.wfile.write(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno")
            while self.rfile.read(100_000):
                pass
            self.close_connection = True
            return
        data = self.body() or b"x" * int(self.headers.get("x-size", 0))
        if self.path == "/odd":
            self.wfile.write(b"HTTP/1.1 200\nX :a\n\tb\nContent-Length: %d\n\n" % len(data))
            for start in range(0, len(data), 100_000):
                self.wfile.write(data[start : start + 100_000])
            return
        self.send_response(200)
        self.send_header("X-Method", self.command)
        if self.path == "/chunked":
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for start in range(0, len(data), 1000):
                part = data[start : start + 1000]
                self.wfile.write(b"%x\r\n%b\r\n" % (len(part), part))
            self.wfile.write(b"0\r\n\r\n")
        elif self.path == "/close":
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(data)
        elif self.path == "/short":
            self.send_header("Content-Length", str(len(data) + 1))
            self.end_headers()
            self.wfile.write(data)
            self.close_connection = True
        else:
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(data)

    def do_POST(self) -> None:
        self.do_GET()

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_PUT(self) -> None:
        self.do_GET()


class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        pass


class SocketTests(TestCase):
    timeout = 60

    def setUp(self) -> Any:
        self.server = Server(("127.0.0.1", 0), Handler)
        self.server.connections = set()  # type: ignore[attr-defined]
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()
        self.addCleanup(self.server.server_close)
        self.addCleanup(lambda: deferToThread(self.server.shutdown))
        number = self.server.server_address[1]
        config = ClusterConfig(name="c")
        self.cluster = Cluster(config, make_balancer(config, random.Random(1)), reactor)  # type: ignore[arg-type]
        self.host = StaticHost(
            HostConfig(address=f"127.0.0.1:{number}"),
            TCP4ClientEndpoint(reactor, "127.0.0.1", int(number)),
            reactor,  # type: ignore[arg-type]
        )
        self.cluster.add_host(self.host)
        self.addCleanup(lambda: self.cluster.close("test over"))
        self.router = Router(
            RouterConfig.model_validate(
                {
                    "virtual_hosts": [
                        {
                            "domains": ["*"],
                            "routers": [{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}],
                        }
                    ]
                }
            )
        )
        self.records: list[AccessRecord] = []
        settings = HttpSettings(
            "test",
            self.router,
            ClusterManager([self.cluster]),
            reactor,  # type: ignore[arg-type]
            access_log=self.records.append,
        )
        self.proxies: list[Http1Proxy] = []

        def build(address: Any) -> Http1Proxy:
            proxy = Http1Proxy(settings, ConnectionInfo("127.0.0.1:1", "127.0.0.1:2"))
            self.proxies.append(proxy)
            return proxy

        factory = ServerFactory()
        factory.noisy = False
        factory.buildProtocol = build  # type: ignore[method-assign]
        port = reactor.listenTCP(0, factory, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.addCleanup(self.close_clients)
        self.port = port.getHost().port

    def close_clients(self) -> None:
        for proxy in self.proxies:
            proxy.transport.abortConnection()

    def run_client(self, function: Callable[[http.client.HTTPConnection], _T]) -> Deferred[_T]:
        """Run a function in a thread, with a connection to the proxy."""

        def run() -> _T:
            connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=DEADLINE)
            try:
                return function(connection)
            finally:
                connection.close()

        return deferToThread(run)

    async def until(self, true: Callable[[], object]) -> None:
        """Wait for the reactor to bring something about; trial's timeout is the deadline."""
        while not true():
            await deferLater(reactor, 0.001)

    async def test_bodies(self) -> None:
        # Those that are long go from socket to socket, but for their ends.
        sizes = (0, 1, 1000, LONG_BODY, LONG_BODY + BODY_TAIL, LONG_BODY + BODY_TAIL + 1, 300_000, 3_000_000)

        def run(connection: http.client.HTTPConnection) -> None:
            for path in ("/length", "/chunked", "/close"):
                for size in sizes:
                    data = random.Random(size).randbytes(size)
                    for body in (data, chunks(data)):
                        connection.request("POST", path, body, encode_chunked=True, headers=headers(body))
                        response = connection.getresponse()
                        received = response.read()
                        self.assertEqual((response.status, len(received)), (200, size))
                        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(data).digest())

        def chunks(data: bytes) -> Iterator[bytes]:
            for start in range(0, len(data), 50_000):
                yield data[start : start + 50_000]

        def headers(body: object) -> dict[str, str]:
            return {} if isinstance(body, bytes) else {"Transfer-Encoding": "chunked"}

        await self.run_client(run)
        self.assertEqual((self.cluster.active, len(self.proxies)), (0, 1))
        expected = [size for _ in range(3) for size in sizes for _ in range(2)]
        self.assertEqual([record.bytes_received for record in self.records], expected)
        self.assertEqual([record.bytes_sent for record in self.records], expected)

    async def test_long_body_behind_an_odd_head(self) -> None:
        """It goes from socket to socket like any other, but the head does not."""

        def run(connection: http.client.HTTPConnection) -> None:
            for size in (3, 3_000_000, 3_000_001):
                with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
                    sock.sendall(
                        b"GET /odd HTTP/1.1\r\nHost: a\r\nConnection: close\r\nX-Size: %d\r\n\r\n" % size
                    )
                    received = b""
                    while data := sock.recv(65536):
                        received += data
                expected = (
                    b"HTTP/1.1 200 \r\nX: a b\r\nContent-Length: %d\r\nConnection: close\r\n\r\n" % size
                )
                self.assertEqual(received[: len(expected)], expected)
                self.assertEqual(len(received) - len(expected), size)

        await self.run_client(run)
        self.assertEqual(len(self.server.connections), 1)  # type: ignore[attr-defined]

    async def test_connections_are_reused(self) -> None:
        def run(connection: http.client.HTTPConnection) -> None:
            for number in range(50):
                method = ("GET", "HEAD", "PUT")[number % 3]
                connection.request(method, "/length", headers={"X-Size": "100"})
                response = connection.getresponse()
                self.assertEqual(response.getheader("x-method"), method)
                self.assertEqual(response.getheader("content-length"), "100")
                self.assertEqual(len(response.read()), 0 if method == "HEAD" else 100)

        await self.run_client(run)
        await self.run_client(run)
        self.assertEqual(len(self.server.connections), 1)  # type: ignore[attr-defined]

    async def test_many_clients(self) -> None:
        def run(connection: http.client.HTTPConnection) -> int:
            good = 0
            name = str(id(connection)).encode()
            for number in range(20):
                body = b"%b-%d" % (name, number)
                connection.request("POST", "/chunked" if number % 2 else "/length", body)
                good += connection.getresponse().read() == body
            return good

        self.assertEqual(await gatherResults([self.run_client(run) for _ in range(8)]), [20] * 8)
        self.assertEqual(self.cluster.active, 0)

    async def test_truncated(self) -> None:
        def run(connection: http.client.HTTPConnection) -> None:
            for size in (3, 2_000_000):
                connection.request("POST", "/short", b"a" * size)
                response = connection.getresponse()
                with self.assertRaises((http.client.IncompleteRead, ConnectionError)):
                    response.read()
                connection.close()

        await self.run_client(run)
        self.assertEqual([record.bytes_sent for record in self.records], [3, 2_000_000])
        self.assertEqual(self.cluster.active, 0)

    async def test_host_down(self) -> None:
        await deferToThread(self.server.shutdown)
        self.server.server_close()

        def run(connection: http.client.HTTPConnection) -> None:
            for _ in range(2):
                connection.request("GET", "/")
                response = connection.getresponse()
                self.assertEqual((response.status, response.getheader("content-type")), (502, "text/plain"))
                response.read()

        await self.run_client(run)

    async def test_rejected_upload_gets_its_answer(self) -> None:
        """The reply survives although the client sends on: the connection is not reset under it."""

        def run(connection: http.client.HTTPConnection) -> None:
            sock = socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE)
            with sock:
                sock.sendall(b"POST / HTTP/1.1\r\nContent-Length: 3000000\r\n\r\n")
                for _ in range(30):
                    sock.sendall(b"x" * 100_000)
                received = b""
                while data := sock.recv(65536):
                    received += data
            self.assertEqual(received.split(b"\r\n")[0], b"HTTP/1.1 400 Bad Request")

        await self.run_client(run)

    async def test_client_that_leaves_in_a_long_upload(self) -> None:
        def run(connection: http.client.HTTPConnection) -> None:
            with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
                sock.sendall(b"POST /length HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
                sock.sendall(b"x" * 3_000_000)

        await gatherResults([self.run_client(run) for _ in range(3)])

        def after(connection: http.client.HTTPConnection) -> int:
            connection.request("POST", "/length", b"abc")
            return len(connection.getresponse().read())

        self.assertEqual(await self.run_client(after), 3)
        await self.until(lambda: not self.cluster.active)

    async def test_answer_in_a_long_upload(self) -> None:
        """It is passed on, and what comes of the upload after that goes nowhere."""

        def run(connection: http.client.HTTPConnection) -> None:
            for _ in range(3):
                with socket.create_connection(("127.0.0.1", self.port), timeout=DEADLINE) as sock:
                    sock.sendall(b"POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n")
                    for _ in range(30):
                        sock.sendall(b"x" * 100_000)
                    received = sock.recv(65536)
                    with contextlib.suppress(ConnectionError):
                        sock.sendall(b"x" * 3_000_000)
                        while data := sock.recv(65536):
                            received += data
                self.assertTrue(received.startswith(b"HTTP/1.1 403 Forbidden\r\n"), received)
                self.assertTrue(received.endswith(b"\r\n\r\nno"), received)

        await self.run_client(run)
        await self.until(lambda: not self.cluster.active)
        self.assertEqual(self.host.pools["Http1"].idle, 0)  # type: ignore[attr-defined]

    async def test_client_that_leaves(self) -> None:
        def run(connection: http.client.HTTPConnection) -> None:
            connection.request("GET", "/length", headers={"X-Size": "50000000"})
            connection.getresponse().read(1000)

        await gatherResults([self.run_client(run) for _ in range(5)])

        def after(connection: http.client.HTTPConnection) -> int:
            connection.request("POST", "/length", b"abc")
            return len(connection.getresponse().read())

        self.assertEqual(await self.run_client(after), 3)
        self.assertEqual(self.cluster.active, 0)
