"""
Time limits between real processes, with keys of a second and less.

What flows slowly has to take its time, which is why the service and the clients
send a byte for each L{TICK}; everything else is waited for.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import DataReceived, ResponseReceived, StreamEnded, StreamReset, TrailersReceived
from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from reverseproxy.wire.rpc.bolt import encode_request, encode_response
from reverseproxy.wire.rpc.dubbo import encode_frame, encode_string
from tests.integration.clients import RawPeer, connect_raw, gather, init_frame, listen_raw
from tests.integration.configs import quick_agent, server, tcp_filter
from tests.integration.harness import JOINED, IntegrationTestCase, ReverseProxy
from tests.integration.http2_configs import spoken
from tests.integration.test_bolt import cloud_config, edge_config

TICK = 0.2
"""Seconds between two bytes of what is slow."""

BYTES = 9
"""How many there are: enough to last longer than every limit here."""

SHORT = {"stream_idle_timeout": "1s", "upgrade_idle_timeout": "1s"}
BEGIN = "800ms"

LARGE = 16 << 20
"""Bytes: more than kernels and streams keep for somebody who does not read."""

LOGGED = [{"log_path": "stdout", "log_format": "json"}]


def slowly(send: Callable[[bytes], object], data: bytes, then: Callable[[], object]) -> None:
    """Send bytes one by one, and call back behind the last one."""
    send(data[:1])
    if len(data) == 1:
        then()
    else:
        reactor.callLater(TICK, slowly, send, data[1:], then)  # type: ignore[attr-defined]


class Service(RawPeer):
    """A service of HTTP/1: what it does is the path of a request."""

    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        head, blank, body = self.received.partition(b"\r\n\r\n")
        path = head.split(b" ")[1:2]
        if not blank or path == [b"/busy"]:
            return
        write = self.transport.write
        if path == [b"/upload"]:
            if len(body) == BYTES:
                self._answer(b"Content-Length: %d\r\n\r\n" % BYTES + body)
            return
        if path == [b"/echo"]:
            write(body)
            return
        self.received = head.replace(path[0], b"/busy") + blank
        if path == [b"/slow"]:
            self._answer(b"Content-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")
            slowly(lambda byte: write(b"1\r\n" + byte + b"\r\n"), b"x" * BYTES, lambda: write(b"0\r\n\r\n"))
        elif path == [b"/stall"]:
            self._answer(b"Content-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        elif path == [b"/large"]:
            self._answer(b"Content-Length: %d\r\n\r\n" % LARGE + b"x" * LARGE)
        elif path == [b"/deaf"]:
            self.transport.pauseProducing()
        elif path == [b"/upgrade"]:
            write(b"HTTP/1.1 101 Fine\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n")
            self.received = b"GET /echo\r\n\r\n"

    def _answer(self, rest: bytes) -> None:
        self.transport.write(b"HTTP/1.1 200 OK\r\n" + rest)
        self.received = b""


class Echo(RawPeer):
    """A service of anything: what comes goes back."""

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data)


class Http2Client(RawPeer):
    """
    A client of HTTP/2 with one request.

    @ivar head: fields of the answer, and its trailers.
    @ivar code: of a reset.
    """

    def __init__(self) -> None:
        super().__init__()
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        self.head: dict[str, str] = {}
        self.body = b""
        self.ended = False
        self.code: int | None = None

    def connectionMade(self) -> None:
        self.h2.initiate_connection()
        self.flush()

    def flush(self) -> None:
        self.transport.write(self.h2.data_to_send())

    def ask(self, method: str, path: str, *fields: tuple[str, str]) -> None:
        head = [(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path), *fields]
        self.h2.send_headers(1, head, end_stream=method == "GET")
        self.flush()

    def data(self, data: bytes, end: bool = False) -> None:
        self.h2.send_data(1, data, end)
        self.flush()

    def dataReceived(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, ResponseReceived | TrailersReceived):
                self.head.update(event.headers)
            elif isinstance(event, DataReceived):
                self.body += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, 1)
            elif isinstance(event, StreamReset):
                self.code = event.error_code
            if isinstance(event, StreamEnded | StreamReset):
                self.ended = True
        self.flush()
        self._look()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)

    def over(self) -> Deferred[bytes]:
        """Wait for the end of the answer."""
        return self.until(lambda: self.ended)


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    """Write a request of HTTP/1."""
    return "\r\n".join([f"{method} {path} HTTP/1.1", "Host: a", *fields, "", ""]).encode()


class TimeTestCase(IntegrationTestCase):
    async def over(self, process: ReverseProxy, reason: str, key: str) -> None:
        """Wait for what is logged of a time that is over, in both logs."""
        await process.logged(f"{reason}; see .*{key}")
        await process.wait_for(rf'"flag": ?"{reason}"')


class HttpTests(TimeTestCase):
    """HTTP/1, HTTP/2, gRPC and upgrades; each end of the tunnel with short times in its turn."""

    async def start(self, tunnel: str, who: str) -> tuple[int, ReverseProxy]:
        """
        Start everything.

        @param who: the end with short times.
        @return: the port for clients, and that end.
        """
        service = await listen_raw(self, Service)
        configs: dict[str, Any] = {"server": server(client_listener={"access_logs": LOGGED})}
        cloud = edge = None
        for name in ("server", "agent"):
            if name == "agent":
                assert cloud is not None
                port = await cloud.port("tunnelListener")
                configs[name] = quick_agent(
                    port, f"127.0.0.1:{service.port}", hosting={"access_logs": LOGGED}, mux=tunnel == "Http1"
                )
            config = configs[name]
            entry = config["servers"][0]
            if name == who:
                entry["listeners"][0]["filter_chains"][0]["filters"][0]["config"] |= SHORT
                entry["routers"][0]["virtual_hosts"][0]["routers"][0]["route"]["timeout"] = BEGIN
            near, far = ("Http1,Http2", tunnel) if name == "server" else (tunnel, "Http1")
            if name == "server":
                cloud = self.run_proxy(spoken(config, near, far), name)
            else:
                edge = self.run_proxy(spoken(config, near, far), name)
        assert cloud is not None
        assert edge is not None
        self.edge = edge
        await cloud.counted(JOINED, 1)
        return await cloud.port("clientListener"), cloud if who == "server" else edge

    async def http1(self, port: int, *data: bytes) -> RawPeer:
        client: RawPeer = await connect_raw(self, port)
        client.transport.write(b"".join(data))
        return client

    async def http2(self, port: int, *args: Any) -> Http2Client:
        client: Http2Client = await connect_raw(self, port, Http2Client)
        client.ask(*args)
        return client

    # what flows

    async def flowing(self, port: int) -> None:
        await gather(
            [
                self.download(port),
                self.upload(port),
                self.session(port),
                self.download2(port),
                self.upload2(port),
            ]
        )

    async def download(self, port: int) -> None:
        client = await self.http1(port, get("/slow", "Accept: text/event-stream"))
        answer = await client.contains(b"0\r\n\r\n")
        self.assertEqual(answer.count(b"1\r\nx\r\n"), BYTES)

    async def download2(self, port: int) -> None:
        client = await self.http2(port, "GET", "/slow")
        await client.over()
        self.assertEqual((client.head[":status"], client.body, client.code), ("200", b"x" * BYTES, None))

    async def upload(self, port: int) -> None:
        client = await self.http1(port, get("/upload", f"Content-Length: {BYTES}", method="POST"))
        slowly(client.transport.write, b"x" * BYTES, bool)
        answer = await client.contains(b"x" * BYTES)
        self.assertTrue(answer.startswith(b"HTTP/1.1 200 "), answer)

    async def upload2(self, port: int) -> None:
        client = await self.http2(port, "POST", "/upload", ("content-length", str(BYTES)))
        slowly(client.data, b"x" * BYTES, lambda: client.data(b"", True))
        await client.over()
        self.assertEqual((client.head[":status"], client.body), ("200", b"x" * BYTES))

    async def session(self, port: int) -> None:
        client = await self.switched(port)
        slowly(client.transport.write, b"x" * BYTES, bool)
        await client.contains(b"\r\n\r\n" + b"x" * BYTES)
        client.transport.loseConnection()

    async def switched(self, port: int) -> RawPeer:
        client = await self.http1(port, get("/upgrade", "Connection: upgrade", "Upgrade: echo"))
        await client.contains(b" 101 ")
        return client

    # what stands still

    async def standing(self, port: int, process: ReverseProxy, tunnel: str) -> None:
        """Each kind of client, for each of the three stages of an exchange."""
        client = await self.http1(port, get("/never"))
        client2 = await self.http2(port, "GET", "/never")
        await client.contains(b" 504 ")
        await client2.over()
        self.assertEqual(client2.head[":status"], "504")
        await self.over(process, f"the response did not begin within {BEGIN}", "timeout of the route")

        client = await self.http1(port, get("/stall"))
        client2 = await self.http2(port, "GET", "/stall")
        grpc = (("content-type", "application/grpc"), ("te", "trailers"))
        call = await self.http2(port, "GET", "/stall", *grpc)
        answer = await client.closed()
        self.assertTrue(answer.endswith(b"1\r\nx\r\n"), answer)
        await client2.over()
        self.assertEqual((client2.body, client2.code), (b"x", ErrorCodes.INTERNAL_ERROR))
        await call.over()
        # HTTP/1 in the tunnel can say that it ends before its time, but not why.
        told = "14" if (tunnel, process) == ("Http1", self.edge) else "4"
        self.assertEqual((call.head.get("grpc-status"), call.code), (told, None), call.head)
        await self.over(process, "the host sent nothing of the response for 1s", "stream_idle_timeout")

        client = await self.http1(port, get("/upload", f"Content-Length: {BYTES}", method="POST"), b"x")
        client2 = await self.http2(port, "POST", "/upload")
        client2.data(b"x")
        answer = await client.contains(b" 408 ")
        await client2.over()
        self.assertEqual(client2.head[":status"], "408")
        await self.over(process, "the client sent nothing of the request for 1s", "stream_idle_timeout")

        client = await self.switched(port)
        await client.closed()
        await process.wait_for('"flag": ?"(idle timeout|nothing has passed for )')

    async def check(self, tunnel: str, who: str) -> ReverseProxy:
        port, process = await self.start(tunnel, who)
        await gather([self.flowing(port), self.standing(port, process, tunnel)])
        self.port = port
        return process

    async def test_the_server_on_streams(self) -> None:
        process = await self.check("Http1", "server")
        client = await self.http1(self.port)
        client.transport.pauseProducing()
        client.transport.write(get("/large"))
        await self.over(process, "the client took nothing of the response for 1s", "stream_idle_timeout")

    async def test_the_agent_on_streams(self) -> None:
        process = await self.check("Http1", "agent")
        await self.http1(
            self.port, get("/deaf", f"Content-Length: {LARGE}", method="POST"), b"x" * (LARGE - 1)
        )
        await self.over(process, "the host took nothing of the request for 1s", "stream_idle_timeout")

    async def test_the_server_over_http2(self) -> None:
        await self.check("Http2", "server")

    async def test_the_agent_over_http2(self) -> None:
        await self.check("Http2", "agent")


class TcpTests(TimeTestCase):
    async def check(self, who: str) -> None:
        service = await listen_raw(self, Echo)
        cloud_filter = tcp_filter("clientCluster", **({"idle_timeout": "1s"} if who == "server" else {}))
        config = server(kind="tcp", client_filter=cloud_filter, client_listener={"access_logs": LOGGED})
        cloud = self.run_proxy(config, "server")
        edge = quick_agent(await cloud.port("tunnelListener"), f"127.0.0.1:{service.port}", kind="tcp")
        if who == "agent":
            listener = edge["servers"][0]["listeners"][0]
            listener["filter_chains"][0]["filters"][0]["config"]["idle_timeout"] = "1s"
            listener["access_logs"] = LOGGED
        agent = self.run_proxy(edge, "agent")
        await cloud.counted(JOINED, 1)
        client = await connect_raw(self, await cloud.port("clientListener"))
        slowly(client.transport.write, b"x" * BYTES, bool)
        await client.bytes(BYTES)
        await client.closed()
        process = cloud if who == "server" else agent
        await process.wait_for('"flag": ?"(idle timeout|nothing has passed for )')

    async def test_sessions(self) -> None:
        await gather([self.check(who) for who in ("server", "agent")])


class Rpc(NamedTuple):
    """
    What is different from one RPC protocol to the other.

    @ivar number: where the id of a frame is.
    @ivar late: whether this is an answer that says that there was none in time.
    """

    request: bytes
    answer: bytes
    number: slice
    late: Callable[[bytes], bool]


def _rpc(protocol: str) -> Rpc:
    if protocol == "dubbo":
        body = b"".join(map(encode_string, ("2.0.2", "echo", "1.0", "say")))
        good = encode_frame(2, 1, b"\x91" * 60, 20)
        return Rpc(encode_frame(0xC2, 1, body), good, slice(4, 12), lambda data: data[3] == 30)
    version = 2 if protocol == "boltv2" else 1
    at, number = (12, slice(6, 10)) if version == 2 else (10, slice(5, 9))
    return Rpc(
        encode_request(1, {"service": "echo"}, timeout=0, version=version),
        encode_response(1, content=b"x" * 60, version=version),
        number,
        lambda data: data[at : at + 2] == b"\0\7",
    )


class RpcTests(TimeTestCase):
    """An answer that comes slowly, one that stands still, none, and a request that is never complete."""

    mux = False

    async def check(self, protocol: str) -> None:
        """With the service at the agent, which has the short times, and in place of the agent."""
        recorder = await listen_raw(self)
        options = {"extend_config": {"sub_protocol": protocol}}
        config = cloud_config(proxy=options, listener={"access_logs": LOGGED})
        cloud = self.run_proxy(config, "server")
        edge = edge_config(
            await cloud.port("tunnel_server_listener"),
            f"127.0.0.1:{recorder.port}",
            proxy={**options, **SHORT},
            rules=(self.rule("serverCluster"),),
        )
        edge["servers"][0]["listeners"][0]["access_logs"] = LOGGED
        agent = self.run_proxy(edge, "agent")
        await cloud.counted(JOINED, 1)
        port = await cloud.port("clientListener")
        late = await self.late(protocol, port)
        service: RawPeer = await recorder.next()
        await self.times(protocol, port, late, service, agent)

        config = cloud_config(
            proxy={**options, **SHORT}, listener={"access_logs": LOGGED}, rules=(self.rule("clientCluster"),)
        )
        cloud = self.run_proxy(config, "server")
        service = await connect_raw(self, await cloud.port("tunnel_server_listener"))
        service.transport.write(init_frame("clientCluster"))
        await service.frame()
        await cloud.counted(JOINED, 1)
        port = await cloud.port("clientListener")
        late = await self.late(protocol, port)
        await self.times(protocol, port, late, service, cloud)
        client = await connect_raw(self, port)
        client.transport.write(_rpc(protocol).request[:-1])
        await client.closed()
        await cloud.logged("in the midst of a frame; see stream_idle_timeout")

    def rule(self, cluster: str) -> dict[str, Any]:
        match = {"headers": [{"name": "service", "value": ".*"}]}
        return {"match": match, "route": {"cluster_name": cluster, "timeout": BEGIN}}

    async def late(self, protocol: str, port: int) -> RawPeer:
        """Make a request."""
        client: RawPeer = await connect_raw(self, port)
        client.transport.write(_rpc(protocol).request)
        return client

    async def times(
        self, protocol: str, port: int, late: RawPeer, service: RawPeer, process: ReverseProxy
    ) -> None:
        rpc = _rpc(protocol)
        size = 16 if protocol == "dubbo" else 20

        async def asked() -> bytes:
            await service.bytes(len(rpc.request))
            answer = bytearray(rpc.answer)
            answer[rpc.number] = service.received[rpc.number]
            service.received = b""
            return bytes(answer)

        await asked()
        data = await late.bytes(size)
        self.assertTrue(rpc.late(data), data)
        await process.logged(f"the response did not begin within {BEGIN}; see .*timeout of the route")

        client = await self.late(protocol, port)
        answer = await asked()
        done: Deferred[None] = Deferred()
        service.transport.write(answer[:20])
        slowly(service.transport.write, answer[20 : 20 + BYTES], lambda: done.callback(None))
        await done
        service.transport.write(answer[20 + BYTES :])
        self.assertEqual(await client.bytes(len(rpc.answer)), rpc.answer)

        client = await self.late(protocol, port)
        answer = await asked()
        service.transport.write(answer[:30])
        data = await client.bytes(size)
        self.assertTrue(rpc.late(data), data)
        await self.over(process, "the host sent nothing of the response for 1s", "stream_idle_timeout")

    async def test_every_protocol(self) -> None:
        await gather([self.check(protocol) for protocol in ("bolt", "boltv2", "dubbo")])
