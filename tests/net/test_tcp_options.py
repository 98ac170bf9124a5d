"""Tests for L{reverseproxy.net.tcp_options}, over real sockets."""

from __future__ import annotations

import socket
from struct import pack
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from reverseproxy.net import dead_peers, tcp_options
from reverseproxy.net.dead_peers import PeerSweep, watch_for_reset
from reverseproxy.net.tcp_options import tune

NAMES = ("TCP_KEEPIDLE", "TCP_KEEPINTVL", "TCP_KEEPCNT", "TCP_USER_TIMEOUT")


def tuning(connection: socket.socket) -> list[int | bool]:
    """What the kernel knows: the flags, then what the platform has of the rest."""
    found: list[int | bool] = [
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) != 0,
        connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) != 0,
    ]
    return found + [
        connection.getsockopt(socket.IPPROTO_TCP, getattr(socket, name))
        for name in NAMES
        if hasattr(socket, name)
    ]


def expected(*values: int) -> list[int | bool]:
    """The same, as it should be."""
    return [True, True, *(value for name, value in zip(NAMES, values, strict=True) if hasattr(socket, name))]


class HandleOnly:
    """A transport that is a socket and nothing else."""

    def __init__(self, handle: Any) -> None:
        self._handle = handle

    def getHandle(self) -> Any:
        return self._handle


def without_tcp_info(test: SynchronousTestCase) -> None:
    """Let this be a platform without C{TCP_INFO}, for the time of a test."""
    for module in (dead_peers, tcp_options):
        test.patch(module, "TCP_INFO", None)


class TuneTests(SynchronousTestCase):
    def test_values(self) -> None:
        for seconds, values in (
            (60.0, (30, 10, 3, 0)),
            (10.0, (5, 1, 55, 0)),
            (5.0, (2, 1, 58, 0)),
            (3.0, (1, 1, 59, 0)),
            (0.25, (1, 1, 59, 0)),
            (1e9, (32767, 32767, 3, 0)),
        ):
            for family in (socket.AF_INET, socket.AF_INET6):
                with socket.socket(family) as connection:
                    tune(HandleOnly(connection), seconds)
                    self.assertEqual(tuning(connection), expected(*values))

    def test_the_default(self) -> None:
        with socket.socket() as connection:
            tune(HandleOnly(connection))
            self.assertEqual(tuning(connection), expected(30, 10, 3, 0))

    def test_a_peer_at_rest_has_no_more_than_its_time(self) -> None:
        """From the kernel, which is not the judge where it can be asked what it knows."""
        without_tcp_info(self)
        for seconds in range(2, 600):
            with socket.socket() as connection:
                tune(HandleOnly(connection), seconds)
                idle, interval, probes, _ = tuning(connection)[2:]
            self.assertLessEqual(idle + interval * probes, seconds)

    def test_platforms_without_tcp_info(self) -> None:
        without_tcp_info(self)
        for seconds, most in ((60.0, 60000), (0.25, 250), (1e9, 2**31 - 1)):
            with socket.socket() as connection:
                tune(HandleOnly(connection), seconds)
                self.assertEqual(tuning(connection)[-1], most)
        clock = Clock()
        PeerSweep(clock).start()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_platforms_that_know_less(self) -> None:
        without_tcp_info(self)
        for name in ("_IDLE", "_INTERVAL", "_COUNT", "_USER_TIMEOUT"):
            self.patch(tcp_options, name, None)
        with socket.socket() as connection:
            before = tuning(connection)
            tune(HandleOnly(connection))
            self.assertEqual(tuning(connection), [True, True, *before[2:]])

    def test_a_connection_that_is_closed(self) -> None:
        connection = socket.socket()
        connection.close()
        tune(HandleOnly(connection))

    def test_what_is_no_socket(self) -> None:
        for transport in (None, object(), StringTransport(), HandleOnly(object())):
            tune(transport)


class TransportTests(TestCase):
    async def served(self, server: Any, make_client: Any, wrap: bool = False) -> Any:
        made: list[Protocol] = []

        class Server(Protocol):
            def connectionMade(self) -> None:
                made.append(self)
                tune(self.transport, 12.0)

        factory: Any = Factory.forProtocol(Server)
        if wrap:
            factory = WrappingFactory(factory)  # type: ignore[no-untyped-call]
        port: IListeningPort = await server.listen(factory)
        self.addCleanup(port.stopListening)
        client = await connectProtocol(make_client(port), Protocol())
        client.transport.write(b"x")
        while not made:
            await deferLater(reactor, 0)
        self.addCleanup(client.transport.abortConnection)
        transport: Any = made[0].transport
        self.addCleanup(transport.abortConnection)
        return transport

    async def test_tcp(self) -> None:
        for wrap in (False, True):
            transport = await self.served(
                TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1"),
                lambda port: TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port),
                wrap,
            )
            self.assertEqual(isinstance(transport, ProtocolWrapper), wrap)
            self.assertEqual(tuning(transport.getHandle()), expected(6, 2, 27, 0))

    async def test_peers_that_are_gone_behind_their_end(self) -> None:
        """Nobody reads any more, but the kernel knows, or finds out by asking."""
        for way in ("reset", "close"):
            ended: Deferred[None] = Deferred()
            lost: Deferred[None] = Deferred()

            @implementer(IHalfCloseableProtocol)
            class Server(Protocol):
                def connectionMade(self) -> None:
                    tune(self.transport, 2.0)

                def readConnectionLost(self, ended: Deferred[None] = ended) -> None:
                    watch_for_reset(self.transport)
                    ended.callback(None)

                def writeConnectionLost(self) -> None:
                    raise AssertionError

                def connectionLost(self, reason: Any, lost: Deferred[None] = lost) -> None:
                    lost.callback(None)

            factory = Factory.forProtocol(Server)
            port: Any = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(factory)
            self.addCleanup(port.stopListening)
            sweep = PeerSweep(reactor)  # type: ignore[arg-type]
            sweep.start()
            self.addCleanup(sweep.stop)
            with socket.create_connection(("127.0.0.1", port.getHost().port)) as client:
                # How long its kernel remembers a connection that it has closed.
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_LINGER2, 1)
                client.shutdown(socket.SHUT_WR)
                await ended
                self.assertFalse(lost.called)  # it waits for something
                if way == "reset":
                    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, pack("ii", 1, 0))
            await lost

    async def test_unix(self) -> None:
        path = self.mktemp()
        transport = await self.served(
            UNIXServerEndpoint(reactor, path), lambda _: UNIXClientEndpoint(reactor, path)
        )
        self.assertEqual(transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)
