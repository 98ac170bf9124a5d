"""
What an agent's link reports of its connection, of any kind.

A slot dials again at once or waits, depending on whether its link was used and
on which end has closed it.  The hosting listener's protocols receive bytes in
many ways; each is tested on each kind of connection.
"""

from __future__ import annotations

import contextlib
import json
import random
import socket
from random import Random
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.redial import EndedUnused
from reverseproxy.wire.http2.frames import PREFACE, settings
from reverseproxy.wire.mosn.frames import ConnectionInit
from tests.integration import bolt
from tests.integration.configs import quick_agent
from tests.transport.contract import Contract, Recorder, reset
from tests.transport.secure import Secure
from tests.transport.streams import Streams
from tests.tunnel.memory import INIT, SUCCESS

BIG = random.Random(11).randbytes(2**21)
"""So much that the kernel moves it, where it can."""


class Link(AgentLink):
    """One that a test of connections can watch."""

    def __init__(self, sink: Any, clock: Any) -> None:
        super().__init__(lambda _: ConnectionInit("clientCluster"), sink, clock, 15.0, secure=False)
        self.events: list[str] = []
        self.told: list[Failure] = []
        self.lost = self.told.append

    def connectionMade(self) -> None:
        super().connectionMade()
        self.events.append("made")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        super().connectionLost(reason)
        self.events.append("lost")


@implementer(IConnectionSink)
class Sink:
    """A hosting listener that records."""

    name = "hosting"

    def __init__(self) -> None:
        self.hosted = Recorder()

    def build_protocol(self, info: ConnectionInfo) -> Any:
        return self.hosted


class _Links(Contract):
    server = False

    async def tearDown(self) -> None:
        await super().tearDown()
        for app in self.apps:
            for host in list(app.clusters.get("serverCluster").hosts.values()):
                host.close("the test is over")
        await self.turn()

    def setUp(self) -> None:
        super().setUp()
        self.apps: list[ReverseProxy] = []

    async def accepted(self, sink: Any, early: bytes = b"") -> tuple[Any, Any]:
        """
        Have a server accept a link.

        @param early: comes right behind the answer.
        """
        link: Any
        link, peer = await self.connect(lambda: Link(sink, self.reactor))  # type: ignore[arg-type, return-value]
        greeting = link.greet()
        self.assertEqual(await self.receive(peer, len(INIT)), INIT)
        await self.send(peer, SUCCESS + early)
        await greeting
        await self.until(lambda: link.inner is not None or link.gone)
        return link, peer

    async def ends(self, link: Any, unused: bool = False) -> None:
        """
        Wait until the slot is told, once.

        @param unused: whether it is to be told that the server has ended the
            link, and had sent nothing.
        """
        await self.until(lambda: link.told)
        await self.turn()
        [reason] = link.told
        self.assertIn(
            reason.type, [EndedUnused] if unused else [ConnectionDone, ConnectionLost, ConnectionAborted]
        )

    def hosting(self, protocol: str) -> tuple[Any, socket.socket]:
        """Make a hosting listener as an agent does; give it, and where the service listens."""
        service = self.plain_socket()
        port = service.getsockname()[1]
        document = quick_agent(1, f"127.0.0.1:{port}", kind="tcp" if protocol == "tcp" else "http")
        if protocol != "tcp":
            [server] = document["servers"]
            server["listeners"][0]["filter_chains"][0]["filters"][0]["config"]["downstream_protocol"] = (
                protocol
            )
            rules = server["routers"][0]["virtual_hosts"][0]["routers"]
            rules.append({**rules[0], "match": {"headers": [{"name": "service", "value": ".*"}]}})
        app = ReverseProxy(loads(json.dumps(document), "document").config, self.reactor, Random(1))
        self.apps.append(app)
        return app.listeners["serverListener"], service

    def plain_socket(self) -> socket.socket:
        listening = socket.create_server(("127.0.0.1", 0))
        listening.setblocking(False)
        self.peers.append(listening)
        return listening

    async def take(self, service: socket.socket) -> socket.socket:
        """Accept what the hosting listener dials."""
        taken: list[socket.socket] = []

        def accepted() -> bool:
            try:
                taken.append(service.accept()[0])
            except BlockingIOError:
                return False
            return True

        await self.until(accepted)
        taken[0].setblocking(False)
        self.peers.append(taken[0])
        return taken[0]

    async def relayed(self, early: bytes = b"") -> tuple[Any, Any, socket.socket]:
        """Have a link relayed to a service: the link, the server's end, the service's."""
        sink, service = self.hosting("tcp")
        link, peer = await self.accepted(sink, early)
        backend = await self.take(service)
        await self.until(lambda: link.inner._peer is not None)
        return link, peer, backend

    async def leave(self, peer: Any, backend: socket.socket) -> None:
        """Have the server end the session, and the service see that."""
        peer.close()
        await self.receive_end(backend)
        backend.close()

    # used

    async def test_a_byte(self) -> None:
        sink = Sink()
        link, peer = await self.accepted(sink)
        self.assertFalse(link.used)
        await self.send(peer, b"x")
        await self.until(lambda: sink.hosted.data == b"x")
        self.assertTrue(link.used)
        peer.close()
        await self.ends(link)

    async def test_a_byte_behind_the_answer(self) -> None:
        sink = Sink()
        link, _ = await self.accepted(sink, b"x")
        await self.until(lambda: sink.hosted.pieces)
        self.assertEqual(sink.hosted.pieces, [b"x"])
        self.assertTrue(link.used)

    async def test_a_relay(self) -> None:
        link, peer, backend = await self.relayed()
        self.assertFalse(link.used)
        await self.send(peer, b"hello")
        self.assertEqual(await self.receive(backend, 5), b"hello")
        self.assertTrue(link.used)
        self.assertTrue(link.busy)
        await self.leave(peer, backend)
        await self.ends(link)

    async def test_a_relay_of_what_came_behind_the_answer(self) -> None:
        link, peer, backend = await self.relayed(b"hello")
        self.assertTrue(link.used)
        await self.send(peer, b", and more")
        self.assertEqual(await self.receive(backend, 15), b"hello, and more")

    async def test_a_relay_of_much(self) -> None:
        """Where the connection can do that, nobody sees a byte of it."""
        link, peer, backend = await self.relayed()
        received = bytearray()
        view = memoryview(BIG)
        while len(received) < len(BIG):
            if view:
                await self.send(peer, view[: 2**16])  # type: ignore[arg-type]
                view = view[2**16 :]
            try:
                received += backend.recv(2**18)
            except BlockingIOError:
                await self.turn(1)
        self.assertEqual(bytes(received), BIG)
        self.assertTrue(link.used)

    async def test_what_we_send_is_no_use(self) -> None:
        for banner in (b"SSH-2.0-server\r\n", BIG):
            link, peer, backend = await self.relayed()
            received = bytearray()
            view = memoryview(banner)
            while len(received) < len(banner):
                with contextlib.suppress(BlockingIOError):
                    view = view[backend.send(view) :] if view else view
                try:
                    received += peer.recv(2**18)
                except BlockingIOError:
                    await self.turn(1)
            self.assertEqual(bytes(received), banner)
            self.assertFalse(link.used)
            self.assertFalse(link.busy)
            await self.leave(peer, backend)
            await self.ends(link, unused=True)

    async def request(self, protocol: str, sent: bytes, wanted: bytes) -> None:
        """Send a request through a link that hosts a protocol; the service must see it."""
        sink, service = self.hosting(protocol)
        link, peer = await self.accepted(sink)
        self.assertFalse(link.used)
        await self.send(peer, sent)
        backend = await self.take(service)
        received = bytearray()
        while wanted not in received:
            try:
                received += backend.recv(2**18)
            except BlockingIOError:
                await self.turn(1)
        self.assertTrue(link.used)
        self.assertTrue(link.busy)
        service.close()  # what asks again, perhaps in another protocol, learns at once that nobody is there
        peer.close()
        backend.close()
        await self.ends(link)

    async def test_http1(self) -> None:
        for protocol in ("Http1", "Auto"):
            await self.request(protocol, b"GET /one HTTP/1.1\r\nhost: a\r\n\r\n", b"/one")

    async def test_http1_with_a_long_body(self) -> None:
        head = b"POST /long HTTP/1.1\r\nhost: a\r\ncontent-length: 300000\r\n\r\n"
        await self.request("Http1", head + b"b" * 200_000, b"b" * 180_000)

    async def test_http2(self) -> None:
        # :method: GET, :scheme: http, :path: /, :authority: a
        request = b"\x00\x00\x06\x01\x05\x00\x00\x00\x01\x82\x86\x84\x41\x01a"
        for protocol in ("Http2", "Auto"):
            await self.request(protocol, PREFACE + settings([]) + request, b"PRI * HTTP/2.0")

    async def test_bolt(self) -> None:
        for protocol in ("bolt", "Http1,bolt"):
            await self.request(protocol, bolt.request(1, b"content"), b"content")

    # lost

    async def test_the_server_closes_it_unused(self) -> None:
        link, peer = await self.accepted(Sink())
        peer.close()
        await self.ends(link, unused=True)
        self.assertFalse(link.used)
        link, peer, backend = await self.relayed()
        await self.leave(peer, backend)
        await self.ends(link, unused=True)

    async def test_the_server_closes_it_with_the_answer(self) -> None:
        link: Any
        link, peer = await self.connect(lambda: Link(Sink(), self.reactor))  # type: ignore[arg-type, return-value]
        greeting = link.greet()
        await self.receive(peer, len(INIT))
        await self.send(peer, SUCCESS)
        peer.close()
        await greeting
        await self.ends(link, unused=True)

    async def test_the_server_ends_its_half(self) -> None:
        link, peer, backend = await self.relayed()
        peer.shutdown(socket.SHUT_WR)
        self.assertEqual(await self.receive_end(backend), b"")
        backend.close()
        await self.ends(link, unused=True)

    async def test_the_server_resets_it(self) -> None:
        for sent, unused in ((b"", True), (b"x", False)):
            link, peer, backend = await self.relayed()
            await self.send(peer, sent)
            await self.receive(backend, len(sent))
            if self.family == "UNIX":  # which knows no resets
                await self.leave(peer, backend)
                await self.ends(link, unused)
            else:
                reset(peer)
                await self.ends(link, unused)

    async def test_the_service_ends_it(self) -> None:
        for half in (True, False):
            link, peer, backend = await self.relayed()
            if half:
                backend.shutdown(socket.SHUT_WR)
            else:
                backend.close()
            self.assertEqual(await self.receive_end(peer), b"")
            peer.close()
            await self.ends(link)
            self.assertFalse(link.used)

    async def test_the_service_breaks_it_off(self) -> None:
        link, peer, backend = await self.relayed()
        reset(backend)
        self.assertEqual(await self.receive_end(peer), b"")
        peer.close()
        await self.ends(link)
        self.assertFalse(link.used)

    async def test_the_service_can_t_be_reached(self) -> None:
        sink, service = self.hosting("tcp")
        service.close()
        link, _ = await self.accepted(sink)
        await self.ends(link)
        self.assertFalse(link.used)

    async def test_we_abort_it(self) -> None:
        link, _ = await self.accepted(Sink())
        link.transport.abortConnection()
        await self.ends(link)


class OwnTests(_Links):
    pass


class Own6Tests(_Links):
    family = "TCP6"


class OwnUnixTests(_Links):
    family = "UNIX"


class StockTests(_Links):
    fast = False


class StockUnixTests(_Links):
    fast = False
    family = "UNIX"


class SecureTests(Secure, _Links):
    pass


class SecureStockTests(Secure, _Links):
    fast = False


class StreamTests(Streams, _Links):
    pass


class StreamOverStockTests(Streams, _Links):
    fast = False


# They only exist to be derived from.
del Contract, Streams, Secure, _Links
