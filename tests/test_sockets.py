"""Tests for L{reverseproxy.sockets}, over real sockets."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
    connectProtocol,
)
from twisted.internet.interfaces import IListeningPort
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import deferLater
from twisted.internet.testing import StringTransport
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.trial.unittest import SynchronousTestCase, TestCase

from reverseproxy import sockets
from reverseproxy.sockets import tune

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


class TuneTests(SynchronousTestCase):
    def test_values(self) -> None:
        for seconds, values in (
            (60.0, (30, 10, 3, 60000)),
            (10.0, (5, 1, 3, 10000)),
            (0.25, (1, 1, 3, 250)),
            (1e9, (32767, 32767, 3, 2**31 - 1)),
        ):
            for family in (socket.AF_INET, socket.AF_INET6):
                with socket.socket(family) as connection:
                    tune(HandleOnly(connection), seconds)
                    self.assertEqual(tuning(connection), expected(*values))

    def test_the_default(self) -> None:
        with socket.socket() as connection:
            tune(HandleOnly(connection))
            self.assertEqual(tuning(connection), expected(30, 10, 3, 60000))

    def test_platforms_that_know_less(self) -> None:
        for name in ("_IDLE", "_INTERVAL", "_COUNT", "_USER_TIMEOUT"):
            self.patch(sockets, name, None)
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
            self.assertEqual(tuning(transport.getHandle()), expected(6, 2, 3, 12000))

    async def test_unix(self) -> None:
        path = self.mktemp()
        transport = await self.served(
            UNIXServerEndpoint(reactor, path), lambda _: UNIXClientEndpoint(reactor, path)
        )
        self.assertEqual(transport.getHandle().getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE), 0)
