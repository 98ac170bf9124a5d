"""
Tunnels over links that are slow, lossy or gone: real processes, in namespaces where that is possible.

Elsewhere the same is done over a relay on loopback, which is slow, or stops.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from typing import Any, ClassVar

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import UNIXClientEndpoint, UNIXServerEndpoint, connectProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater

from tests.faults.networks import Network, SlowRelay, can_make_networks
from tests.integration.clients import RawPeer, gather
from tests.integration.configs import agent, server
from tests.integration.harness import JOINED, LEFT, SLOW_MACHINE, TWISTD, IntegrationTestCase, ReverseProxy

ENTER = "import ctypes, os; ctypes.CDLL(None).setns(os.open('/var/run/netns/{}', os.O_RDONLY), 0x40000000); "
RATE = 128_000
WITHIN = 5.0
"""Seconds after which a connection whose network is gone is given up."""


class _Sink(Protocol):
    """Answers when a request is complete; each ends with two line feeds."""

    transport: Any
    _tail = b""

    def dataReceived(self, data: bytes) -> None:
        self._tail = (self._tail + data)[-2:]
        if self._tail == b"\n\n":
            self.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")


class LinkCase(IntegrationTestCase):
    """
    One server, one agent, and the network between them.

    @cvar networks: whether there can be one.
    """

    networks: ClassVar[bool | None] = None
    rate = 0
    delay = 0.0
    loss = 0.0
    network: Network | SlowRelay | None = None

    def setUp(self) -> None:
        super().setUp()
        if LinkCase.networks is None:
            LinkCase.networks = can_make_networks()
        sinks = Factory.forProtocol(_Sink)
        sinks.noisy = False
        self.sinks = sinks
        # The paths of Unix sockets are short.
        short = tempfile.mkdtemp()
        self.addCleanup(shutil.rmtree, short)
        self.service, self.clients = f"{short}/service", f"{short}/clients"

    def proxy(self, config: dict[str, Any], name: str, where: str) -> ReverseProxy:
        """Start one on a host of the network, if there is one."""
        child = ReverseProxy(name)
        file = self.directory / f"{name}.json"
        file.write_text(json.dumps(config))
        self.spawn(
            child,
            "-c",
            (ENTER.format(where) if where else "") + TWISTD,
            *("--nodaemon", "--pidfile=", "reverseproxy", "--log-format", "json", "--config", str(file)),
        )
        return child

    async def start(self, connections: int, mux: bool) -> ReverseProxy:
        listening = await UNIXServerEndpoint(reactor, self.service).listen(self.sinks)
        self.addCleanup(listening.stopListening)
        near = far = ""
        address = "127.0.0.1"
        if self.networks:
            network = self.network = Network()
            self.addCleanup(network.close)
            network.rate, network.delay, network.loss = self.rate, self.delay, self.loss
            near, far = network.near, network.far
            address = network.addresses[near]
        cloud = self.proxy(
            server(client=self.clients, client_listener={"network": "unix"}, tunnel="0.0.0.0:0"),
            "server",
            near,
        )
        port = self.port = await cloud.port("tunnelListener")
        if not self.networks:
            relay = self.network = SlowRelay(port, (self.rate or 10**9) / 8)
            port = await relay.listen(self)
        config = agent([f"{address}:{port}"], f"unix:{self.service}", connections=connections, mux=mux)
        self.proxy(config, "agent", far)
        await cloud.counted(JOINED, connections)
        return cloud

    async def post(self, size: int, body: bytes = b"x") -> bytes:
        peer = await connectProtocol(UNIXClientEndpoint(reactor, self.clients), RawPeer())
        self.addCleanup(peer.transport.abortConnection)
        peer.transport.write(
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
            + body * (size - 2)
            + b"\n\n"
        )
        received: bytes = await peer.closed()
        return received

    def left(self, cloud: ReverseProxy) -> list[str]:
        return [line for line in cloud.lines if " left, " in line]

    def say(self, text: str) -> None:
        """Print a figure, and be done with the network."""
        assert self.network is not None
        self.network.rate = 10**9
        where = "over a network" if self.networks else "over a relay"
        print(f"{where}: {text}")  # noqa: T201


class SlowTests(LinkCase):
    """Links with room for a megabyte, on which what is sent takes six seconds."""

    rate = RATE

    async def test_streams(self) -> None:
        """One of the connections is at rest, and its questions wait behind what others send."""
        self.rate = RATE // 2
        cloud = await self.start(3, True)
        begun = reactor.seconds()
        answers = await gather([self.post(22_000), self.post(22_000)])
        self.say(f"44 kB in {reactor.seconds() - begun:.1f} s, {len(self.left(cloud))} connections lost")
        self.assertEqual([b"200 OK" in answer for answer in answers], [True, True])
        self.assertEqual(self.left(cloud), [])

    async def test_plain_connections(self) -> None:
        """Those that are at rest wait behind what others send."""
        cloud = await self.start(4, False)
        begun = reactor.seconds()
        answers = await gather([self.post(44_000), self.post(44_000)])
        self.say(f"88 kB in {reactor.seconds() - begun:.1f} s, {len(self.left(cloud))} connections lost")
        self.assertEqual([b"200 OK" in answer for answer in answers], [True, True])
        self.assertEqual(self.left(cloud), [])


class LossyTests(LinkCase):
    """Every twentieth packet is lost, and a round trip takes 100 ms."""

    loss = 0.05
    delay = 0.05

    async def test_streams(self) -> None:
        cloud = await self.start(4, True)
        for _ in range(3):
            answers = await gather([self.post(30_000) for _ in range(8)])
            self.assertEqual([b"200 OK" in answer for answer in answers], [True] * 8)
        self.say(f"{len(self.left(cloud))} connections lost")
        self.assertEqual(self.left(cloud), [])


class BlackHoleTests(LinkCase):
    """One of two agents is behind a network that is gone; requests may not be sent twice."""

    async def test_requests_that_may_not_be_repeated(self) -> None:
        cloud = await self.start(2, True)
        near = "" if self.network is None or isinstance(self.network, SlowRelay) else self.network.near
        self.proxy(agent([f"127.0.0.1:{self.port}"], f"unix:{self.service}", connections=2), "other", near)
        await cloud.counted(JOINED, 4)
        await gather([self.post(100) for _ in range(10)])
        assert self.network is not None
        self.network.gone = True
        mark = cloud.mark()
        posts = []
        for _ in range(150):
            posts.append(Deferred.fromCoroutine(self.post(100)))
            await deferLater(reactor, 1 / 60)
        await cloud.counted(LEFT, 2, mark)
        answers = await gather(posts)
        lost = sum(b"200 OK" not in answer for answer in answers)
        self.say(f"{lost} of {len(answers)} requests lost at 60 in a second")
        self.network.gone = False
        # Those of a good second; it is half of all that come until the connections are given up otherwise.
        self.assertLess(lost, 45 if self.networks else 80)


class GoneTests(LinkCase):
    """The network is gone, and nobody says so."""

    async def died(self, cloud: ReverseProxy, count: int) -> float:
        assert self.network is not None
        self.network.gone = True
        begun, mark = reactor.seconds(), cloud.mark()
        await cloud.counted(LEFT, count, mark)
        took: float = reactor.seconds() - begun
        self.network.gone = False
        return took

    async def test_at_rest(self) -> None:
        cloud = await self.start(2, True)
        took = await self.died(cloud, 2)
        self.say(f"found dead after {took:.1f} s")
        self.assertLess(took, WITHIN + SLOW_MACHINE)

    async def test_in_the_middle_of_something(self) -> None:
        self.rate = RATE
        cloud = await self.start(1, True)
        posting = Deferred.fromCoroutine(self.post(400_000))
        await deferLater(reactor, 1.0)
        took = await self.died(cloud, 1)
        answer = await posting
        self.say(f"found dead after {took:.1f} s")
        self.assertIn(b" 502 ", answer)
        self.assertLess(took, WITHIN + SLOW_MACHINE)
