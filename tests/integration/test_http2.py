"""HTTP/2 through a tunnel, to it and behind it, with real clients and servers."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable, Iterator
from typing import Any

import httpx
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, DataReceived, RequestReceived, ResponseReceived, StreamEnded
from hpack import Encoder
from hyperframe.frame import DataFrame, Frame, GoAwayFrame, HeadersFrame, PingFrame, SettingsFrame
from websockets.sync.client import connect as connect_websocket

from tests.integration.backend import pattern
from tests.integration.clients import (
    RawPeer,
    connect_raw,
    fetch,
    gather,
    init_frame,
    listen_raw,
    response_frame,
    threaded,
)
from tests.integration.configs import quick_agent, server
from tests.integration.harness import (
    DEADLINE,
    JOINED,
    LEFT,
    SERVING,
    Backend,
    IntegrationTestCase,
    certificates,
    resident_bytes,
)
from tests.integration.http2_configs import spoken
from tests.integration.test_curl import PRIOR_KNOWLEDGE, Curl, at_once

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"


def http2(port: int, **more: Any) -> httpx.Client:
    """A client that begins with HTTP/2 at once."""
    return httpx.Client(
        base_url=f"http://127.0.0.1:{port}", http1=False, http2=True, timeout=DEADLINE, **more
    )


def http1(port: int) -> httpx.Client:
    return httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=DEADLINE)


class FrameClient:
    """
    A client that does as RFC 9113 says at the end of a connection, which httpx can't.

    @ivar bodies: of the answers, by stream.
    @ivar goaways: the last stream of each GOAWAY.
    @ivar closed: whether the server has closed the connection.
    """

    def __init__(self, port: int) -> None:
        self._socket = socket.create_connection(("127.0.0.1", port), timeout=DEADLINE)
        self._encoder = Encoder()
        self._number = 1
        self._data = b""
        self._pings: list[bytes] = []
        self.bodies: dict[int, bytes] = {}
        self.goaways: list[int] = []
        self.closed = False
        self._socket.sendall(PREFACE + SettingsFrame(0).serialize())

    def ask(self, path: bytes, *fields: tuple[bytes, bytes]) -> None:
        """Send a request."""
        head = [(b":method", b"GET"), (b":scheme", b"http"), (b":authority", b"a"), (b":path", path)]
        frame = HeadersFrame(self._number, self._encoder.encode([*head, *fields]))
        frame.flags |= {"END_HEADERS", "END_STREAM"}
        self._number += 2
        self._socket.sendall(frame.serialize())

    def answer_pings(self) -> None:
        """Answer the PINGs that have come."""
        for data in self._pings:
            self._socket.sendall(PingFrame(0, data, flags=["ACK"]).serialize())

    def until(self, done: Callable[[], object]) -> None:
        """Read until something is true."""
        while not done():
            data = self._socket.recv(65536)
            self.closed = not data
            assert data or done(), "the server has closed the connection"
            self._data += data
            while len(self._data) >= 9:
                frame, size = Frame.parse_frame_header(memoryview(self._data[:9]))
                if len(self._data) < 9 + size:
                    break
                frame.parse_body(memoryview(self._data[9 : 9 + size]))
                self._data = self._data[9 + size :]
                self._take_in(frame)

    def _take_in(self, frame: Any) -> None:
        if isinstance(frame, DataFrame):
            self.bodies[frame.stream_id] = self.bodies.get(frame.stream_id, b"") + frame.data
        elif isinstance(frame, GoAwayFrame):
            self.goaways.append(frame.last_stream_id)
        elif isinstance(frame, PingFrame):
            self._pings.append(frame.opaque_data)
        elif isinstance(frame, SettingsFrame) and "ACK" not in frame.flags:
            self._socket.sendall(SettingsFrame(0, flags=["ACK"]).serialize())

    def close(self) -> None:
        """Close the connection."""
        self._socket.close()


class Http2Backend(Backend):
    """L{tests.integration.backend} under hypercorn, which speaks HTTP/2 as well."""

    async def started(self) -> Http2Backend:
        line = await self.wait_for(r"Running on https?://127\.0\.0\.1:(\d+)")
        self.port = int(line.group(1))
        return self


class Http2TestCase(IntegrationTestCase):
    async def run_http2_backend(self, *options: str) -> Http2Backend:
        backend = Http2Backend("http2 backend")
        self.spawn(
            backend,
            *("-m", "hypercorn", "tests.integration.backend:application", "--bind", "127.0.0.1:0"),
            *("--workers", "0", "--graceful-timeout", "0", *options),
            REVERSEPROXY_BACKEND="http2 backend",
        )
        return await backend.started()

    async def start(self, connections: int = 1, **more: Any) -> int:
        """Start a backend of HTTP/1, and HTTP/2 in front of it; the port for clients."""
        self.backend = await self.run_backend()
        self.cloud = self.run_proxy(spoken(server(**more), "Http2"), "server")
        tunnel = await self.cloud.port("tunnelListener")
        config = quick_agent(tunnel, self.backend.address, connections=connections)
        self.edge = self.run_proxy(spoken(config, "Http2", "Http1"), "agent")
        await self.cloud.counted(JOINED, connections)
        return await self.cloud.port("clientListener")


class TranslationTests(Http2TestCase):
    mux = False

    async def test_every_combination(self) -> None:
        """Client, tunnel and backend speak either version: eight ways."""
        backends = {"Http1": await self.run_backend(), "Http2": await self.run_http2_backend()}
        config = spoken(server(), "Auto")
        tunnel_cluster = config["cluster_manager"]["clusters"][0]
        config["cluster_manager"]["clusters"] = [{**tunnel_cluster, "name": f"over{v}"} for v in backends]
        rules = config["servers"][0]["routers"][0]["virtual_hosts"][0]
        rules["routers"] = [
            {
                "match": {"prefix": "/", "headers": [{"name": "x-tunnel", "value": v}]},
                "route": {"cluster_name": f"over{v}", "upstream_protocol": v},
            }
            for v in backends
        ]
        self.cloud = self.run_proxy(config, "server")
        tunnel = await self.cloud.port("tunnelListener")
        config = spoken(quick_agent(tunnel, "127.0.0.1:1"), "Auto")
        entry = config["extends"][0]
        config["extends"] = [
            {**entry, "config": {**entry["config"], "cluster": f"over{v}"}} for v in backends
        ]
        cluster = config["cluster_manager"]["clusters"][0]
        config["cluster_manager"]["clusters"] = [
            {**cluster, "name": f"to{v}", "hosts": [{"address": backend.address}]}
            for v, backend in backends.items()
        ]
        rules = config["servers"][0]["routers"][0]["virtual_hosts"][0]
        rules["routers"] = [
            {
                "match": {"prefix": "/", "headers": [{"name": "x-backend", "value": v}]},
                "route": {"cluster_name": f"to{v}", "upstream_protocol": v},
            }
            for v in backends
        ]
        self.run_proxy(config, "agent")
        await self.cloud.counted(r"^cluster over.*: host .* joined ", 2)
        port = await self.cloud.port("clientListener")

        def run() -> list[str]:
            wrong = []
            for version, make in (("HTTP/1.1", http1), ("HTTP/2", http2)):
                with make(port) as client:
                    for tunnel_version in backends:
                        for backend_version in backends:
                            name = f"{version} client, {tunnel_version} tunnel, {backend_version} backend"
                            headers = {"x-tunnel": tunnel_version, "x-backend": backend_version}
                            try:
                                self.check(client, version, headers)
                            except Exception as error:
                                wrong.append(f"{name}: {error!r}")
            return wrong

        self.assertEqual(await threaded(run), [])

    def check(self, client: httpx.Client, version: str, headers: dict[str, str]) -> None:
        """Requests of all kinds, with answers of all kinds."""
        plain = client.get("/bytes?n=1000", headers=headers)
        assert (plain.http_version, plain.status_code, plain.content) == (version, 200, pattern(1000))
        expected = {"Http1": "backend", "Http2": "http2 backend"}[headers["x-backend"]]
        assert plain.headers["x-backend"] == expected
        assert int(plain.headers["content-length"]) == 1000
        empty = client.get("/bytes?n=0", headers=headers)
        assert (empty.status_code, empty.content) == (200, b"")
        head = client.head("/bytes?n=1000", headers=headers)
        assert (head.headers["content-length"], head.content) == ("1000", b"")
        body = pattern(300_000)
        echo = client.post("/echo", content=body, headers={**headers, "x-id": "7"})
        assert (echo.content == body, echo.headers["x-id"]) == (True, "7")

        def pieces() -> Iterator[bytes]:
            for number in range(100):
                yield b"piece %d;" % number

        echo = client.post("/echo", content=pieces(), headers=headers)
        assert echo.content == b"".join(pieces())
        chunks = client.get("/chunks?n=50&size=3000", headers=headers)
        assert chunks.content == pattern(3000) * 50
        cookies = client.get("/headers", headers={**headers, "cookie": "a=1; b=2", "te": "trailers"})
        lines = cookies.content.split(b"\n")
        assert b"cookie: a=1; b=2" in lines, lines
        assert client.get("/echo", headers={"x-tunnel": "nobody"}).status_code == 404

    async def test_websocket_over_an_http2_tunnel(self) -> None:
        self.backend = await self.run_backend()
        self.cloud = self.run_proxy(spoken(server(), "Http1", "Http2"), "server")
        tunnel = await self.cloud.port("tunnelListener")
        self.edge = self.run_proxy(
            spoken(quick_agent(tunnel, self.backend.address), "Http2", "Http1"), "agent"
        )
        await self.cloud.counted(JOINED, 1)
        port = await self.cloud.port("clientListener")

        def run() -> list[str | bytes]:
            seen: list[str | bytes] = []
            url = f"ws://127.0.0.1:{port}/ws"
            with connect_websocket(url, open_timeout=DEADLINE) as one:
                with connect_websocket(url, open_timeout=DEADLINE) as other:
                    for message in ("text", b"bytes", "x" * 300_000):
                        for socket_ in (one, other):
                            socket_.send(message)
                            seen.append(socket_.recv(timeout=DEADLINE))
                one.send("still here")
                seen.append(one.recv(timeout=DEADLINE))
            return seen

        # Both at once, on the only connection of the tunnel, which lives on.
        for _ in range(2):
            each = ["text", "text", b"bytes", b"bytes", "x" * 300_000, "x" * 300_000, "still here"]
            self.assertEqual(await threaded(run), each)
        self.assertEqual((await fetch(port, "/echo", "POST", b"more")).body, b"more")
        self.assertEqual(self.cloud.find(lambda line: JOINED[1:20] in line and "left" in line), [])


class TlsTests(Http2TestCase):
    async def test_alpn_at_both_ends(self) -> None:
        authority = certificates(self.directory)
        chain, key = authority.issue("127.0.0.1")
        backend = await self.run_http2_backend("--certfile", chain, "--keyfile", key)
        tls = {"status": True, "cert_chain": chain, "private_key": key}
        self.cloud = self.run_proxy(
            spoken(server(client_tls={**tls, "alpn": "h2,http/1.1"}, tls=tls), "Http2"), "server"
        )
        tunnel = await self.cloud.port("tunnelListener")
        trust = {"status": True, "ca_cert": authority.ca_file, "server_name": "127.0.0.1"}
        config = quick_agent(tunnel, backend.address, tls=trust, backend_tls={**trust, "alpn": "h2"})
        self.edge = self.run_proxy(spoken(config, "Http2"), "agent")
        await self.cloud.counted(JOINED, 1)
        port = await self.cloud.port("clientListener")

        def run() -> None:
            context = ssl.create_default_context(cafile=authority.ca_file)
            with httpx.Client(
                base_url=f"https://127.0.0.1:{port}", http2=True, verify=context, timeout=DEADLINE
            ) as client:
                for size in (0, 1000, 2_000_000):
                    answer = client.post("/echo", content=pattern(size))
                    assert answer.http_version == "HTTP/2"
                    assert answer.content == pattern(size)

        await threaded(run)

    async def test_host_that_speaks_http1_only(self) -> None:
        authority = certificates(self.directory)
        chain, key = authority.issue("127.0.0.1")
        backend = Backend("tls backend")
        self.spawn(
            backend,
            *("-m", "uvicorn", "tests.integration.backend:application", "--host", "127.0.0.1", "--port", "0"),
            *("--lifespan", "off", "--ssl-certfile", chain, "--ssl-keyfile", key),
        )
        line = await backend.wait_for(r"running on https://127\.0\.0\.1:(\d+)")
        backend.port = int(line.group(1))
        config = spoken(server(cluster={"hosts": [{"address": backend.address}]}), "Http2")
        config["cluster_manager"]["clusters"][0]["tls_context"] = {
            "status": True,
            "ca_cert": authority.ca_file,
            "server_name": "127.0.0.1",
        }
        cloud = self.run_proxy(config, "server")
        port = await cloud.port("clientListener")

        def run() -> int:
            with http2(port) as client:
                return client.get("/").status_code

        self.assertEqual(await threaded(run), 502)


class LoadTests(Http2TestCase):
    mux = False

    async def test_large_bodies_share_a_connection(self) -> None:
        # Not with httpx: of its threads, one may wait for bytes that another has taken already.
        url = f"http://127.0.0.1:{await self.start()}"
        bodies = [pattern(3_000_000 + number) for number in range(5)]
        curls = [Curl(url, PRIOR_KNOWLEDGE) for _ in bodies]
        answers = await threaded(at_once, curls, "/echo", "POST", bodies)
        self.assertEqual([(each.version, each.status) for each in answers], [("2", 200)] * len(bodies))
        self.assertTrue(all(got.body == sent for got, sent in zip(answers, bodies, strict=True)))

    async def test_slow_client_stalls_nobody_and_takes_no_memory(self) -> None:
        port = await self.start()
        before = [resident_bytes(each.pid) for each in (self.cloud, self.edge)]

        def run() -> float:
            with (
                http2(port) as slow,
                http2(port) as quick,
                slow.stream("GET", "/bytes?n=100000000") as stalled,
            ):
                reading = stalled.iter_raw(1000)
                next(reading)
                begun = time.monotonic()
                for number in range(100):
                    assert quick.post("/echo", content=b"%d" % number).content == b"%d" % number
                took = time.monotonic() - begun
                grown = [
                    resident_bytes(each.pid) - was
                    for each, was in zip((self.cloud, self.edge), before, strict=True)
                ]
                assert max(grown) < 30_000_000, grown
                return took

        self.assertLess(await threaded(run), 20)

    async def test_requests_under_way_survive_a_stop(self) -> None:
        port = await self.start()
        client = FrameClient(port)
        self.addCleanup(client.close)
        for number in range(3):
            client.ask(b"/hold?key=stop&i=%d" % number, (b"x-id", b"%d" % number))
        await fetch(self.backend.port, "/held?key=stop&n=3")
        stopping = self.cloud.stop()
        await threaded(client.until, lambda: client.goaways)
        # This one was sent before the client had heard of it, as it were.
        client.ask(b"/hold?key=stop&i=3", (b"x-id", b"3"))
        client.answer_pings()
        await fetch(self.backend.port, "/held?key=stop&n=4")
        await fetch(self.backend.port, "/release?key=stop")
        await threaded(client.until, lambda: client.closed)
        self.assertEqual(client.bodies, {1: b"0", 3: b"1", 5: b"2", 7: b"3"})
        self.assertEqual(client.goaways[:2], [2**31 - 1, 7])
        client.close()
        self.assertEqual(await stopping, 0)

    async def test_agent_that_is_killed(self) -> None:
        port = await self.start(2)
        config = quick_agent(await self.cloud.port("tunnelListener"), self.backend.address)
        client = http2(port)
        self.addCleanup(client.close)
        self.assertEqual((await threaded(client.get, "/bytes?n=3")).status_code, 200)
        self.run_proxy(spoken(config, "Http2", "Http1"), "second agent")
        await self.cloud.counted(JOINED, 3)
        await self.edge.kill()
        self.assertEqual((await threaded(client.get, "/bytes?n=3")).status_code, 200)


class BadPeerTests(Http2TestCase):
    async def test_bad_clients_cost_themselves(self) -> None:
        port = await self.start()
        good = http2(port)
        self.addCleanup(good.close)
        for bad in (
            b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(9),
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
            + b"\0\0\0\4\0\0\0\0\0"
            + b"\0\0\x08\6\0\0\0\0\0pingpong" * 5000,
        ):
            mark = self.cloud.mark()
            await threaded(self.talk, port, bad)
            await self.cloud.logged("broke the rules of HTTP/2", since=mark)
            self.assertEqual((await threaded(good.get, "/bytes?n=3")).content, pattern(3))

    def talk(self, port: int, data: bytes) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as peer:
            peer.sendall(data)
            while peer.recv(65536):
                pass


class Http2End:
    """The other end of a tunnel, by the h2 library: HTTP/2 on a connection that began with tunnel frames."""

    def __init__(self, peer: RawPeer, client: bool) -> None:
        self.peer = peer
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding="utf-8"))
        self.heads: dict[int, dict[str, str]] = {}
        self.bodies: dict[int, bytes] = {}
        self.ended: set[int] = set()
        self.goaways = 0
        self.flush(begin=True)

    def flush(self, begin: bool = False) -> None:
        """Send what there is to send."""
        if begin:
            self.h2.initiate_connection()
        self.peer.transport.write(self.h2.data_to_send())

    async def until(self, done: Callable[[], object]) -> None:
        """Take in what comes until something is true."""
        while not done():
            await self.peer.until(lambda: self.peer.received)
            data, self.peer.received = self.peer.received, b""
            for event in self.h2.receive_data(data):
                if isinstance(event, RequestReceived | ResponseReceived):
                    self.heads[event.stream_id] = dict(event.headers)
                elif isinstance(event, DataReceived):
                    self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + event.data
                    self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
                elif isinstance(event, StreamEnded):
                    self.ended.add(event.stream_id)
                elif isinstance(event, ConnectionTerminated):
                    self.goaways += 1
            self.flush()


class MosnTests(Http2TestCase):
    """Tunnels whose other end does what MOSN's does: frames of the tunnel, then plain HTTP/2."""

    async def test_agent_like_mosns(self) -> None:
        self.cloud = self.run_proxy(spoken(server(), "Http2"), "server")
        peer = await connect_raw(self, await self.cloud.port("tunnelListener"))
        peer.transport.write(init_frame("clientCluster"))
        self.assertEqual(await peer.frame(), (2, {"status": 1}))
        await self.cloud.counted(JOINED, 1)
        port = await self.cloud.port("clientListener")
        self.assertEqual(peer.received, b"")  # nothing is said before the first request
        client = http2(port)
        self.addCleanup(client.close)
        answers = [threaded(client.post, f"/{n}", content=b"body %d" % n) for n in range(3)]
        end = Http2End(peer, client=False)
        await end.until(lambda: len(end.ended) == 3)
        for number in sorted(end.ended, reverse=True):
            end.h2.send_headers(number, [(":status", "200"), ("x-path", end.heads[number][":path"])])
            end.h2.send_data(number, end.bodies[number], end_stream=True)
        end.flush()
        for number, answer in enumerate(await gather(answers)):
            self.assertEqual((answer.headers["x-path"], answer.content), (f"/{number}", b"body %d" % number))
        # MOSN says GOAWAY when it stops; a request that it has not seen goes to the next agent.
        other = await connect_raw(self, await self.cloud.port("tunnelListener"))
        other.transport.write(init_frame("clientCluster"))
        await other.frame()
        await self.cloud.counted(JOINED, 2)
        mark = self.cloud.mark()
        end.h2.close_connection(last_stream_id=max(end.ended))
        end.flush()
        await self.cloud.logged(LEFT, since=mark)
        await peer.closed()
        answer = threaded(client.get, "/again")
        successor = Http2End(other, client=False)
        await successor.until(lambda: successor.ended)
        successor.h2.send_headers(1, [(":status", "204")], end_stream=True)
        successor.flush()
        self.assertEqual((await answer).status_code, 204)

    async def test_server_like_mosns(self) -> None:
        backend = await self.run_backend()
        accepting = await listen_raw(self)
        self.edge = self.run_proxy(
            spoken(quick_agent(accepting.port, backend.address), "Http2", "Http1"), "agent"
        )
        peer = await accepting.next()
        flag, document = await peer.frame()
        self.assertEqual((flag, document["cluster_name"]), (1, "clientCluster"))
        peer.transport.write(response_frame(1))
        await self.edge.logged(SERVING)
        self.assertEqual(peer.received, b"")
        end = Http2End(peer, client=True)
        for number, path in ((1, "/bytes?n=100000"), (3, "/echo"), (5, "/bytes?n=7")):
            head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
            end.h2.send_headers(number, head, end_stream=number != 3)
        end.h2.send_data(3, b"hello", end_stream=True)
        end.flush()
        await end.until(lambda: len(end.ended) == 3)
        self.assertEqual(end.bodies, {1: pattern(100_000), 3: b"hello", 5: pattern(7)})
        # When the agent stops it announces that by a frame of the tunnel, and says no GOAWAY, at which
        # MOSN would begin anew on the same connection; what it sends meanwhile is still served.
        stopping = self.edge.stop()
        aside = await accepting.next()
        self.assertEqual((await aside.frame())[0], 3)
        head = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/bytes?n=9")]
        end.h2.send_headers(7, head, end_stream=True)
        end.flush()
        await end.until(lambda: 7 in end.ended)
        self.assertEqual((end.bodies[7], end.goaways), (pattern(9), 0))
        self.assertEqual(await stopping, 0)
