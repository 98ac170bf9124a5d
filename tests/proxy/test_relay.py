"""Tests for L{reverseproxy.proxy.relay}, over real sockets."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP4ServerEndpoint
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import Clock, deferLater
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface import implementer

from reverseproxy.proxy.relay import EARLY_LIMIT, RelayEnd, couple
from reverseproxy.transport.closing import LINGER
from tests.streams import reactor


@implementer(IHalfCloseableProtocol)
class Outsider(Protocol):
    """A peer of one end: keeps what it gets, and can wait for things."""

    transport: Any

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = False
        self.closed: Deferred[None] = Deferred()
        self._wanted: list[tuple[int, Deferred[None]]] = []
        self._end: Deferred[None] | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data
        for wanted in [w for w in self._wanted if len(self.data) >= w[0]]:
            self._wanted.remove(wanted)
            wanted[1].callback(None)

    def receive(self, count: int) -> Deferred[None]:
        """Fires once C{count} bytes have arrived in all."""
        wanted: Deferred[None] = Deferred()
        self._wanted.append((count, wanted))
        self.dataReceived(b"")
        return wanted

    def end(self) -> Deferred[None]:
        """Fires once the other side has closed its half."""
        self._end = Deferred()
        if self.ended:
            self._end.callback(None)
        return self._end

    def readConnectionLost(self) -> None:
        self.ended = True
        if self._end is not None:
            self._end.callback(None)

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.closed.callback(None)


class RelayTests(TestCase):
    async def pair(self, end: RelayEnd) -> Outsider:
        """Connect an end to an outsider over loopback."""
        accepted: Deferred[None] = Deferred()

        class Ends(Factory):
            noisy = False

            def buildProtocol(self, addr: object) -> RelayEnd:
                accepted.callback(None)
                return end

        port = await TCP4ServerEndpoint(reactor, 0, interface="127.0.0.1").listen(Ends())
        outside = await TCP4ClientEndpoint(reactor, "127.0.0.1", port.getHost().port).connect(
            Factory.forProtocol(Outsider)
        )
        await accepted
        await port.stopListening()

        async def close() -> None:
            outside.transport.abortConnection()
            await outside.closed

        self.addCleanup(lambda: None if outside.closed.called else Deferred.fromCoroutine(close()))
        return outside

    async def relay(self) -> tuple[RelayEnd, Outsider, RelayEnd, Outsider]:
        left, right = RelayEnd(reactor), RelayEnd(reactor)
        client = await self.pair(left)
        server = await self.pair(right)
        return left, client, right, server

    async def test_bytes_both_ways(self) -> None:
        left, client, right, server = await self.relay()
        couple(left, right)
        client.transport.write(b"question")
        await server.receive(8)
        server.transport.write(b"answer")
        await client.receive(6)
        self.assertEqual((bytes(server.data), bytes(client.data)), (b"question", b"answer"))
        self.assertEqual((left.received, right.received), (8, 6))

    async def test_bytes_before_the_coupling_come_first(self) -> None:
        left, client, right, server = await self.relay()
        client.transport.write(b"early ")
        server.transport.write(b"greeting ")
        while not (left.received and right.received):
            await deferLater(reactor, 0)
        couple(left, right)
        client.transport.write(b"late")
        await server.receive(10)
        await client.receive(9)
        self.assertEqual(bytes(server.data), b"early late")
        self.assertEqual(bytes(client.data), b"greeting ")

    async def test_half_close_is_passed_on_and_the_other_way_goes_on(self) -> None:
        left, client, right, server = await self.relay()
        couple(left, right)
        client.transport.write(b"x" * 300_000)
        client.transport.loseWriteConnection()
        await server.end()
        self.assertEqual(len(server.data), 300_000)
        server.transport.write(b"y" * 300_000)
        await client.receive(300_000)
        server.transport.loseConnection()
        await client.end()
        client.transport.loseConnection()
        await client.closed
        await server.closed
        while not (left.lost and right.lost):
            await deferLater(reactor, 0)

    async def test_half_close_before_the_coupling(self) -> None:
        left, client, right, server = await self.relay()
        client.transport.write(b"all")
        client.transport.loseWriteConnection()
        while not left._read_closed:
            await deferLater(reactor, 0)
        couple(left, right)
        await server.end()
        self.assertEqual(bytes(server.data), b"all")
        server.transport.write(b"reply")
        await client.receive(5)

    async def test_a_loss_closes_the_other_side_after_its_bytes(self) -> None:
        left, client, right, server = await self.relay()
        couple(left, right)
        reasons: list[Failure] = []
        left.on_close = reasons.append
        right.on_close = reasons.append
        server.transport.write(b"z" * 1_000_000)
        server.transport.loseConnection()
        await client.receive(1_000_000)
        client.transport.loseConnection()
        await client.closed
        await server.closed
        while len(reasons) < 2:
            await deferLater(reactor, 0)
        self.assertTrue(left.lost)
        self.assertTrue(right.lost)

    async def test_coupling_with_a_lost_end_closes_the_other(self) -> None:
        left, client, right, server = await self.relay()
        client.transport.abortConnection()
        while not left.lost:
            await deferLater(reactor, 0)
        couple(left, right)
        await server.end()

    async def test_abort(self) -> None:
        left, client, right, server = await self.relay()
        couple(left, right)
        left.abort()
        await client.closed
        await server.end()

    async def test_a_slow_reader_stops_the_sender(self) -> None:
        left, client, right, server = await self.relay()
        couple(left, right)
        client.transport.pauseProducing()
        block = b"b" * (1 << 20)
        sent = 0

        class Source:
            def resumeProducing(self) -> None:
                nonlocal sent
                sent += 1
                server.transport.write(block)

            def stopProducing(self) -> None:
                pass

        server.transport.registerProducer(Source(), False)
        before = -1
        quiet = 0
        while quiet < 50:  # nothing has moved for fifty turns of the reactor
            quiet = quiet + 1 if (sent, right.received) == before else 0
            before = (sent, right.received)  # type: ignore[assignment]
            await deferLater(reactor, 0.001)
        # What is under way is in kernel buffers and in one bounded buffer of ours.
        ours = right.received - len(client.data)
        self.assertLess(len(left.transport.dataBuffer) + left.transport._tempDataLen, 3 * 65536)
        self.assertLess(sent, 40)
        server.transport.unregisterProducer()
        client.transport.resumeProducing()
        await client.receive(sent << 20)
        self.assertEqual(len(client.data), sent << 20)
        self.assertGreaterEqual(ours, 0)


class CloseTests(SynchronousTestCase):
    def test_a_peer_that_does_not_read_is_aborted_at_the_deadline(self) -> None:
        clock = Clock()
        transport = StringTransport()
        end = RelayEnd(clock)
        end.makeConnection(transport)
        transport.registerProducer(object(), True)
        end.close()
        end.close()
        self.assertTrue(transport.disconnecting)
        self.assertIsNone(transport.producer)
        clock.advance(LINGER)
        self.assertTrue(transport.disconnected)

    def test_an_uncoupled_end_stops_reading_at_its_limit(self) -> None:
        end = RelayEnd(Clock())
        transport = StringTransport()
        end.makeConnection(transport)
        end.dataReceived(b"x" * EARLY_LIMIT)
        self.assertEqual(transport.producerState, "producing")
        end.dataReceived(b"x")
        self.assertEqual(transport.producerState, "paused")
