"""
A service behind one of two agents dies, and comes back: real processes.

All protocols at once: each client goes on asking, and must not notice.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred, ensureDeferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure

from tests.integration.bolt import BoltClient, BoltService
from tests.integration.clients import RawPeer, gather
from tests.integration.harness import IntegrationTestCase, ReverseProxy
from tests.mosn.http2 import Http2Answerer, Http2Asker
from tests.mosn.rpc import CODECS, RpcAnswerer, RpcAsker
from tests.mosn.talk import Asker, Unexpected

SPOKEN = {
    "http1": "Http1",
    "http2": "Http2",  # in the tunnel alone; clients and services speak HTTP/1
    "grpc": "Http2",
    "upgrade": "Http1",
    "bolt": "X",
    "dubbo": "X",
    "tcp": "",
}
"""The protocols, and how configurations name them."""

PROTOCOLS = tuple(SPOKEN)
BODY = b"x" * 1000
SWITCH = b"Connection: Upgrade\r\nUpgrade: websocket\r\n"


class _Echo(Protocol):
    """Answers each request, of HTTP/1 or of lines, with the service's name."""

    transport: Any

    def __init__(self, service: Service) -> None:
        self._service = service
        self._data = b""

    def connectionMade(self) -> None:
        self._service.connections.add(self)

    def dataReceived(self, data: bytes) -> None:
        self._data += data
        name = self._service.name
        kind = self._service.kind
        if kind == "upgrade" and self._data.endswith(b"\r\n\r\n"):
            self._data = b""
            self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n" + SWITCH + b"\r\n")
        elif kind in ("tcp", "upgrade"):
            if self._data.endswith(b"\n"):
                self._data = b""
                self._service.answer(lambda: self.transport.write(name + b"\n"))
        elif self._data.endswith(BODY):
            self._data = b""
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(name), name)
            self._service.answer(lambda: self.transport.write(answer))

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._service.connections.discard(self)


class _NamedHttp2(Http2Answerer):
    """Answers with the service's name."""

    name = b""

    def _respond(self, stream: Any) -> None:
        stream.body = self.name
        super()._respond(stream)


class _NamedRpc(RpcAnswerer):
    """The same in an RPC protocol."""

    name = b""

    def _respond(self, frame: Any) -> None:
        super()._respond(frame._replace(body=self.name))


class _Talking(Protocol):
    """A connection whose end is played without one."""

    transport: Any

    def __init__(self, talk: Any, connections: set[Any]) -> None:
        self.talk = talk
        self._connections = connections
        self._waiting: set[Deferred[bytes]] = set()

    def connectionMade(self) -> None:
        self._connections.add(self)
        if isinstance(self.talk, Asker):
            self.talk.begin()
            self._write()

    def dataReceived(self, data: bytes) -> None:
        try:
            self.talk.feed(data)
        except Unexpected:
            self._fail(Failure())
            self.transport.abortConnection()
        self._write()

    def say(self, what: Callable[[], None]) -> None:
        """Let the end say something, and write it."""
        what()
        self._write()

    def _write(self) -> None:
        for piece in self.talk.take():
            if self.transport is not None:
                self.transport.write(piece)

    def _fail(self, reason: Failure) -> None:
        waiting, self._waiting = self._waiting, set()
        for each in waiting:
            each.errback(reason)

    def ask(self, body: bytes) -> Deferred[bytes]:
        """Ask something, at the end that asks."""
        answer: Deferred[bytes] = Deferred()

        def answered(body: bytes) -> None:
            self._waiting.discard(answer)
            answer.callback(body)

        self._waiting.add(answer)
        self.talk.ask(body, answered)
        self._write()
        return answer

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self._connections.discard(self)
        self._fail(reason)


class Service(Factory):
    """
    A service that can die, and come back on the same port.

    @ivar delay: seconds that it takes to answer.
    @ivar had: how many requests it has had.
    """

    noisy = False
    delay = 0.0
    had = 0

    def __init__(self, test: Any, kind: str, name: bytes) -> None:
        self.kind = kind
        self.name = name
        self.port = test.reserve_port()
        self.connections: set[Any] = set()
        self.bolt = BoltService(name)
        self.bolt.take = lambda connection, message: self.answer(  # type: ignore[method-assign]
            partial(self.bolt.answer, connection, message)
        )
        self._listening: Any = None
        test.addCleanup(self.die)

    def answer(self, write: Callable[[], object]) -> None:
        """Answer a request, in its time."""
        self.had += 1
        if self.delay:
            reactor.callLater(self.delay, write)
        else:
            write()

    def buildProtocol(self, addr: object) -> Any:
        if self.kind == "bolt":
            return self.bolt.buildProtocol(addr)
        if self.kind not in ("grpc", "dubbo"):
            return _Echo(self)
        answerer: Any = _NamedHttp2() if self.kind == "grpc" else _NamedRpc(CODECS[self.kind])
        answerer.name = self.name
        talking = _Talking(answerer, self.connections)
        answerer.answer = lambda respond: self.answer(lambda: talking.say(respond))
        return talking

    async def live(self) -> None:
        endpoint = TCP4ServerEndpoint(reactor, self.port, interface="127.0.0.1")
        self._listening = await endpoint.listen(self)

    async def die(self) -> None:
        listening, self._listening = self._listening, None
        if listening is not None:
            await listening.stopListening()
        for each in [*self.connections, *self.bolt.connections]:
            if each.transport is not None:
                each.transport.abortConnection()
        self.bolt.connections.clear()


class Asking:
    """
    A client that asks again and again.

    @ivar answers: how often each service has answered, and how often there was no good answer.
    """

    def __init__(self, ask: Callable[[], Any]) -> None:
        self.answers: Counter[bytes] = Counter()
        self.failed: list[str] = []
        self._ask = ask
        self._going = True
        self._idle = False
        self._gate: Deferred[None] | None = None
        self._done = ensureDeferred(self._run())

    async def _run(self) -> None:
        while self._going:
            self._idle, gate = True, self._gate
            if gate is not None:
                await gate
            self._idle = False
            try:
                answer = await self._ask()
            except Exception as error:
                self.failed.append(f"{type(error).__name__}: {error}")
            else:
                if answer in (b"one", b"two"):
                    self.answers[answer] += 1
                else:
                    self.failed.append(repr(answer))
            await deferLater(reactor, 0.005)

    async def rest(self) -> None:
        """Finish what is under way, and ask no more."""
        self._gate = Deferred()
        while not self._idle:
            await deferLater(reactor, 0.002)

    def go_on(self) -> None:
        gate, self._gate = self._gate, None
        assert gate is not None
        gate.callback(None)

    def stop(self) -> Deferred[None]:
        self._going = False
        return self._done


def _listener(name: str, kind: str, cluster: str, bound: bool, upstream: str = "") -> tuple[Any, Any]:
    """A listener, and the router that it needs."""
    spoken = SPOKEN[kind]
    if kind == "http2" and bound:
        spoken = "Http1"
    each: dict[str, Any] = {"type": "tcp_proxy", "config": {"cluster": cluster}}
    if kind != "tcp":
        config: dict[str, Any] = {"downstream_protocol": spoken, "router_config_name": f"{name}_router"}
        if spoken == "X":
            config["extend_config"] = {"sub_protocol": kind}
        each = {"type": "proxy", "config": config}
    route: dict[str, Any] = {"cluster_name": cluster}
    if upstream:
        route["upstream_protocol"] = upstream
    rules = [{"match": {"prefix": "/"}, "route": route}]
    if spoken == "X":
        rules = [{"match": {"headers": [{"name": "service", "value": ".*", "regex": True}]}, "route": route}]
    router = {
        "router_config_name": f"{name}_router",
        "virtual_hosts": [{"name": name, "domains": ["*"], "routers": rules}],
    }
    listener = {
        "name": name,
        "address": "127.0.0.1:0",
        "bind_port": bound,
        "filter_chains": [{"filters": [each]}],
    }
    return listener, router


def server_config(mux: bool) -> dict[str, Any]:
    pairs = [
        _listener(kind, kind, f"{kind}Cluster", True, "Http2" if kind == "http2" else "")
        for kind in PROTOCOLS
    ]
    tunnel = {
        "name": "tunnelListener",
        "address": "127.0.0.1:0",
        "bind_port": True,
        "filter_chains": [{"filters": [{"type": "tunnel", "config": {"mux": mux}}]}],
    }
    return {
        "servers": [
            {
                "default_log_level": "INFO",
                "routers": [router for _, router in pairs],
                "listeners": [*(listener for listener, _ in pairs), tunnel],
            }
        ],
        "cluster_manager": {"clusters": [{"name": f"{kind}Cluster"} for kind in PROTOCOLS]},
    }


def agent_config(port: int, services: dict[str, Service], mux: bool, connections: int) -> dict[str, Any]:
    pairs = [
        _listener(kind, kind, f"{kind}Service", False, "Http1" if kind == "http2" else "")
        for kind in PROTOCOLS
    ]
    return {
        "servers": [
            {
                "default_log_level": "INFO",
                "routers": [router for _, router in pairs],
                "listeners": [listener for listener, _ in pairs],
            }
        ],
        "extends": [
            {
                "type": "tunnel_agent",
                "config": {
                    "enable": True,
                    "hosting_listener": kind,
                    "server_list": [f"127.0.0.1:{port}"],
                    "cluster": f"{kind}Cluster",
                    "connection_num": connections,
                    "reconnect_base_duration": "100ms",
                    "mux": mux,
                },
            }
            for kind in PROTOCOLS
        ],
        "cluster_manager": {
            "clusters": [
                {"name": f"{kind}Service", "hosts": [{"address": f"127.0.0.1:{services[kind].port}"}]}
                for kind in PROTOCOLS
            ]
        },
    }


class Life(IntegrationTestCase):
    """Two agents with all services, and clients of all of them."""

    connections = 1

    async def connect(self, port: int, protocol: Callable[[], Any] = RawPeer) -> Any:
        return await connectProtocol(HostnameEndpoint(reactor, "127.0.0.1", port), protocol())

    async def _post(self, port: int) -> bytes:
        peer = await self.connect(port)
        try:
            peer.transport.write(
                b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%b"
                % (len(BODY), BODY)
            )
            data = await peer.closed(10)
        finally:
            peer.transport.abortConnection()
        head, _, body = data.partition(b"\r\n\r\n")
        return body if b" 200 OK" in head else data

    async def _session(self, port: int) -> bytes:
        peer = await self.connect(port)
        try:
            peer.transport.write(b"hello\n")
            return (await peer.until(lambda: peer.received.endswith(b"\n") or peer.eof, 10)).strip()
        finally:
            peer.transport.abortConnection()

    async def _upgraded(self, port: int) -> bytes:
        peer = await self.connect(port)
        try:
            peer.transport.write(b"GET / HTTP/1.1\r\nHost: a\r\n" + SWITCH + b"\r\n")
            await peer.until(lambda: peer.received.endswith(b"\r\n\r\n") or peer.eof, 10)
            if b" 101 " in peer.received:
                peer.transport.write(b"hello\n")
                await peer.until(lambda: peer.received.endswith((b"one\n", b"two\n")) or peer.eof, 10)
            head, _, body = peer.received.partition(b"\r\n\r\n")
            return body.strip() or head
        finally:
            peer.transport.abortConnection()

    def _talk(self, kind: str, port: int) -> Callable[[], Any]:
        """A client that keeps its connection, for as long as it is good."""
        open_: set[Any] = set()

        async def ask() -> bytes:
            if not open_:
                asker = Http2Asker() if kind == "grpc" else RpcAsker(CODECS[kind])
                client = await self.connect(port, lambda: _Talking(asker, open_))
                self.addCleanup(client.transport.abortConnection)
            client = next(iter(open_))
            answer: bytes = await client.ask(BODY).addTimeout(10, reactor)
            return answer

        return ask

    async def askers(self, ports: dict[str, int]) -> dict[str, list[Callable[[], Any]]]:
        """What asks once, as often as there are clients of a protocol."""
        # So many that both workers have some, as a worker with connections of one agent prefers those.
        bolts = [await self.connect(ports["bolt"], BoltClient) for _ in range(10)]
        for each in bolts:
            self.addCleanup(each.transport.abortConnection)

        async def call(bolt: BoltClient) -> bytes:
            message = await bolt.ask(b"", {"service": "any"}, timeout=10_000)
            return bytes(message.content) or message.raw.hex().encode()

        return {
            **{kind: [self._talk(kind, ports[kind]) for _ in range(10)] for kind in ("grpc", "dubbo")},
            "upgrade": [partial(self._upgraded, ports["upgrade"])] * 2,
            "http1": [partial(self._post, ports["http1"])] * 3,
            "http2": [partial(self._post, ports["http2"])] * 3,
            "tcp": [partial(self._session, ports["tcp"])] * 2,
            "bolt": [partial(call, bolt) for bolt in bolts],
        }

    async def start(self, mux: bool, *options: str) -> ReverseProxy:
        self.ones = {kind: Service(self, kind, b"one") for kind in PROTOCOLS}
        self.twos = {kind: Service(self, kind, b"two") for kind in PROTOCOLS}
        for each in (*self.ones.values(), *self.twos.values()):
            await each.live()
        cloud = self.run_proxy(server_config(mux), "server", *options)
        port = await cloud.port("tunnelListener")
        ports = {kind: await cloud.port(kind) for kind in PROTOCOLS}
        self.agents = [
            self.run_proxy(agent_config(port, services, mux, self.connections), "agent")
            for services in (self.ones, self.twos)
        ]
        await cloud.counted(" joined with weight ", 2 * self.connections * len(PROTOCOLS))
        asks = await self.askers(ports)
        self.clients = {kind: [Asking(ask) for ask in asks[kind]] for kind in PROTOCOLS}
        for clients in self.clients.values():
            for asking in clients:
                self.addCleanup(asking.stop)
        await self.until_all(lambda counts: counts[b"one"] > 5 and counts[b"two"] > 5)
        return cloud

    def counts(self, kind: str) -> Counter[bytes]:
        return sum((each.answers for each in self.clients[kind]), Counter())

    def failures(self, kind: str) -> list[str]:
        return [reason for each in self.clients[kind] for reason in each.failed]

    async def until_all(self, wanted: Callable[[Counter[bytes]], bool]) -> dict[str, float]:
        """Wait until something holds for every protocol; gives the seconds that each took."""
        begun = reactor.seconds()
        before = {kind: self.counts(kind) for kind in PROTOCOLS}
        took: dict[str, float] = {}
        while len(took) < len(PROTOCOLS) and reactor.seconds() - begun < 10:
            for kind in PROTOCOLS:
                if kind not in took and wanted(self.counts(kind) - before[kind]):
                    took[kind] = reactor.seconds() - begun
            await deferLater(reactor, 0.02)
        self.assertEqual(sorted(took), sorted(PROTOCOLS), {kind: self.failures(kind) for kind in PROTOCOLS})
        return took

    async def die_and_come_back(self, mux: bool, *options: str) -> None:
        await self.start(mux, *options)
        everyone = [each for clients in self.clients.values() for each in clients]
        # Not while a request is with it: that one would be the service's to lose.
        await gather([each.rest() for each in everyone])
        for service in self.ones.values():
            await service.die()
        for asking in everyone:
            asking.go_on()
        await deferLater(reactor, 1.5)
        for service in self.ones.values():
            await service.live()
        took = await self.until_all(lambda counts: counts[b"one"] > 3)
        await gather([each.stop() for each in everyone])
        failures = {kind: self.failures(kind) for kind in PROTOCOLS}
        answers = {kind: self.counts(kind).total() for kind in PROTOCOLS}
        lost = {kind: len(each) for kind, each in failures.items()}
        back = {kind: round(seconds, 2) for kind, seconds in took.items()}
        print(f"failed: {lost} of {answers}; back after {back} s")  # noqa: T201
        self.assertEqual({kind: each for kind, each in failures.items() if each}, {})
        self.assertLess(max(took.values()), 3.0)


class StreamsTests(Life):
    async def test_streams(self) -> None:
        await self.die_and_come_back(True)

    async def test_streams_and_workers(self) -> None:
        self.connections = 2
        await self.die_and_come_back(True, "--workers", "2")


class PlainTests(Life):
    connections = 3

    async def test_plain(self) -> None:
        await self.die_and_come_back(False)

    async def test_plain_and_workers(self) -> None:
        await self.die_and_come_back(False, "--workers", "2")
