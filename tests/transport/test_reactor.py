"""Tests for L{reverseproxy.transport.reactor}."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from twisted.internet import reactor
from twisted.internet.endpoints import (
    HostnameEndpoint,
    TCP4ClientEndpoint,
    TCP4ServerEndpoint,
    UNIXClientEndpoint,
    UNIXServerEndpoint,
)
from twisted.internet.error import CannotListenError, ConnectError, ConnectionRefusedError
from twisted.internet.error import TimeoutError as TooLate
from twisted.internet.interfaces import (
    IReactorFDSet,
    IReactorPluggableNameResolver,
    IReactorSocket,
    IReactorTCP,
    IReactorTime,
    IReactorUNIX,
    IStreamClientEndpoint,
)
from twisted.internet.task import Clock
from twisted.internet.testing import MemoryReactorClock
from zope.interface.verify import verifyObject

from reverseproxy.transport import is_supported, turn_end_of, with_streams
from reverseproxy.transport.stream import StreamTransport
from tests.transport.contract import CallableFactory, Contract, Recorder


class ReactorTests(Contract):
    async def joined(self, server: Any, client: Callable[[int], IStreamClientEndpoint]) -> None:
        """
        Check that two endpoints come together over our connections.

        @param client: makes one, given the port of C{server}.
        """
        accepted = Recorder()
        self.protocols.append(accepted)
        port = await server.listen(CallableFactory(lambda: accepted))
        self.ports.append(port)
        dialled: Any = await client(getattr(port.getHost(), "port", 0)).connect(CallableFactory(Recorder))
        self.protocols.append(dialled)
        await self.until(lambda: accepted.events)
        for each in (accepted, dialled):
            self.assertIsInstance(each.transport, StreamTransport)
        dialled.transport.write(b"hello")
        await self.until(lambda: accepted.data == b"hello")

    async def test_endpoints(self) -> None:
        await self.joined(
            TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1"),
            lambda port: TCP4ClientEndpoint(self.reactor, "127.0.0.1", port),
        )

    async def test_endpoints_by_name(self) -> None:
        await self.joined(
            TCP4ServerEndpoint(self.reactor, 0, interface="127.0.0.1"),
            lambda port: HostnameEndpoint(self.reactor, "localhost", port),
        )

    async def test_endpoints_on_unix_sockets(self) -> None:
        path = self.path()
        await self.joined(
            UNIXServerEndpoint(self.reactor, path), lambda _: UNIXClientEndpoint(self.reactor, path)
        )

    async def test_nobody_listens(self) -> None:
        # Bound, so that nobody else can listen there.
        bound = self.socket()
        bound.bind(("127.0.0.1", 0))
        endpoint = TCP4ClientEndpoint(self.reactor, *bound.getsockname())
        with self.assertRaises(ConnectionRefusedError):
            await endpoint.connect(CallableFactory(Recorder))
        with self.assertRaises(ConnectError):
            await UNIXClientEndpoint(self.reactor, self.path()).connect(CallableFactory(Recorder))

    async def test_nobody_accepts(self) -> None:
        full = self.listening_socket()
        full.listen(0)
        filling = [self.socket() for _ in range(4)]
        for each in filling:
            each.connect_ex(full.getsockname())
        endpoint = TCP4ClientEndpoint(self.reactor, *full.getsockname(), timeout=0.05)  # type: ignore[arg-type]
        with self.assertRaises(TooLate):
            await endpoint.connect(CallableFactory(Recorder))

    async def test_a_port_that_is_taken(self) -> None:
        taken = self.listening_socket()
        self.assertRaises(
            CannotListenError,
            self.reactor.listenTCP,
            taken.getsockname()[1],
            CallableFactory(Recorder),
            interface="127.0.0.1",
        )

    async def test_adopting_a_unix_port(self) -> None:
        self.family = "UNIX"
        listening = self.listening_socket()
        protocol = Recorder()
        self.protocols.append(protocol)
        port = self.reactor.adoptStreamPort(
            listening.fileno(), socket.AF_UNIX, CallableFactory(lambda: protocol)
        )
        self.ports.append(port)
        peer = self.socket()
        peer.connect_ex(listening.getsockname())
        await self.until(lambda: protocol.events)
        self.assertIsInstance(protocol.transport, StreamTransport)

    async def test_the_rest_is_the_reactor_s(self) -> None:
        for interface in (
            IReactorFDSet,
            IReactorPluggableNameResolver,
            IReactorSocket,
            IReactorTCP,
            IReactorTime,
            IReactorUNIX,
        ):
            self.assertTrue(verifyObject(interface, self.reactor))
        self.assertEqual(self.reactor.threadpool, reactor.threadpool)  # type: ignore[attr-defined]
        self.assertIs(self.reactor.nameResolver, reactor.nameResolver)  # type: ignore[attr-defined]
        self.assertRaises(AttributeError, getattr, self.reactor, "nonsense")

    async def test_the_end_of_a_turn_of_any_reactor(self) -> None:
        for each in (self.reactor, reactor):
            told: list[int] = []
            turn_end_of(each)(lambda told=told: told.append(1))
            self.assertEqual(told, [])
            await self.until(lambda told=told: told)
        self.assertEqual(turn_end_of(self.reactor), self.reactor.call_at_turn_end)

    async def test_where_it_is_supported(self) -> None:
        self.assertTrue(is_supported(reactor))
        self.assertFalse(is_supported(MemoryReactorClock()))
        self.assertFalse(is_supported(Clock()))

    async def test_what_is_left_is_seen(self) -> None:
        """Trial looks for what a test has left in the reactor."""
        own = with_streams(reactor)
        descriptor = self.listening_socket()
        own.addReader(descriptor)
        self.assertIn(own.poller, reactor.getReaders())  # type: ignore[attr-defined]
        own.removeReader(descriptor)
        self.assertNotIn(own.poller, reactor.getReaders())  # type: ignore[attr-defined]


# It only exists to be derived from.
del Contract
