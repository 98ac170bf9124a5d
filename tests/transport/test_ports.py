"""Tests for L{reverseproxy.transport.ports}: what one turn takes, with our connections and Twisted's."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

from twisted.internet import reactor
from twisted.internet.interfaces import IReactorSocket, IReactorTCP, IReactorUNIX
from twisted.internet.protocol import Factory
from twisted.internet.task import Clock
from zope.interface.verify import verifyObject

from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.transport import ports, with_bounds
from tests.transport.contract import Contract, Family, Recorder

MOST = 8


class PortsTests(Contract):
    """Ports of our reactor."""

    def setUp(self) -> None:
        super().setUp()
        self.patch(ports, "MOST", MOST)

    def crowd(self, family: Family, address: Any, count: int) -> None:
        self.family = family
        for _ in range(count):
            self.socket().connect_ex(address)

    def build(self) -> Recorder:
        self.protocols.append(Recorder())
        return self.protocols[-1]

    async def check(self, port: Any, family: Family, address: Any) -> None:
        """Whoever connects, and however often: no turn takes more than so many, and all are taken."""
        self.ports.append(port)
        before = len(self.protocols)
        port.stopReading()
        self.crowd(family, address, 5 * MOST)
        taken = []
        while len(self.protocols) < before + 5 * MOST:
            so_far = len(self.protocols)
            port.doRead()
            taken.append(len(self.protocols) - so_far)
        self.assertEqual(max(taken), MOST)
        port.startReading()

    async def test_tcp(self) -> None:
        port = self.reactor.listenTCP(0, Factory.forProtocol(self.build), 1024, "127.0.0.1")
        await self.check(port, "TCP4", ("127.0.0.1", port.getHost().port))

    async def test_unix(self) -> None:
        path = self.path()
        await self.check(self.reactor.listenUNIX(path, Factory.forProtocol(self.build), 1024), "UNIX", path)

    async def test_a_file_that_is_gone(self) -> None:
        """The port is closed all the same, and what somebody else has put in its place stays."""
        for successor in (False, True):
            path = self.path()
            port: Any = self.reactor.listenUNIX(path, Factory.forProtocol(self.build), 16)
            os.unlink(path)
            if successor:
                Path(path).write_text("theirs")
            fileno = port.fileno()
            await port.stopListening()
            self.assertRaises(OSError, os.fstat, fileno)
            self.assertEqual(os.path.exists(path), successor)

    async def test_a_file_that_is_there(self) -> None:
        path = self.path()
        port = self.reactor.listenUNIX(path, Factory.forProtocol(self.build), 16)
        await port.stopListening()
        self.assertFalse(os.path.exists(path))

    async def test_what_waits_at_the_end(self) -> None:
        """It would be reset; nobody who comes later waits."""
        path = self.path()
        factory = Factory.forProtocol(self.build)
        tcp = self.reactor.listenTCP(0, factory, 1024, "127.0.0.1")
        where: tuple[tuple[Any, Family, Any], ...] = (
            (tcp, "TCP4", ("127.0.0.1", tcp.getHost().port)),
            (self.reactor.listenUNIX(path, factory, 1024), "UNIX", path),
        )
        for port, family, address in where:
            before = len(self.protocols)
            self.crowd(family, address, 3 * MOST + 1)
            port.stop_taking()
            self.assertEqual(len(self.protocols), before + 3 * MOST + 1)
            self.family = family
            self.assertNotEqual(self.socket().connect_ex(address), 0)

    async def test_a_port_that_somebody_else_has_bound(self) -> None:
        with socket.create_server(("127.0.0.1", 0), backlog=1024) as bound:
            bound.setblocking(False)
            address = bound.getsockname()
            port = self.reactor.adoptStreamPort(
                bound.fileno(), socket.AF_INET, Factory.forProtocol(self.build)
            )
        await self.check(port, "TCP4", address)

    async def test_a_unix_socket_that_somebody_else_has_bound(self) -> None:
        path = self.path()
        with socket.socket(socket.AF_UNIX) as bound:
            bound.bind(path)
            bound.listen(1024)
            bound.setblocking(False)
            port = self.reactor.adoptStreamPort(
                bound.fileno(), socket.AF_UNIX, Factory.forProtocol(self.build)
            )
        await self.check(port, "UNIX", path)

    async def test_few_descriptors(self) -> None:
        few = Descriptors(64)
        self.patch(Descriptors, "current", classmethod(lambda cls: few))
        port = self.reactor.listenTCP(0, Factory.forProtocol(self.build), 1024, "127.0.0.1")
        self.ports.append(port)
        port.numberAccepts = 1000
        self.assertEqual(port.numberAccepts, few.reserve // 8)


class TwistedPortsTests(PortsTests):
    """Ports of Twisted's reactor."""

    fast = False

    def setUp(self) -> None:
        super().setUp()
        self.reactor = with_bounds(reactor)

    async def test_it_stands_for_the_reactor(self) -> None:
        for interface in (IReactorTCP, IReactorUNIX, IReactorSocket):
            verifyObject(interface, self.reactor)
        self.assertIs(self.reactor.getDelayedCalls.__self__, reactor)
        self.assertIn(repr(reactor), repr(self.reactor))

    async def test_no_real_reactor(self) -> None:
        clock = Clock()
        self.assertIs(with_bounds(clock), clock)
