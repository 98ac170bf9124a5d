"""
What protocols may expect of a connection, of any kind.

The same tests for Twisted's own connections and ours show differences between
the two, and changes in Twisted.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
from typing import Any

from OpenSSL import SSL
from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    ILoggingContext,
    INegotiated,
    IPushProducer,
    IReadDescriptor,
    IReadWriteDescriptor,
    ISSLTransport,
    ISystemHandle,
    ITCPTransport,
    ITransport,
    IWriteDescriptor,
)
from zope.interface.verify import verifyObject

from reverseproxy.transport.backlog import Backlog, backlog_of
from tests.transport.contract import CallableFactory, Contract, HalfRecorder, Recorder, read_now, reset
from tests.transport.secure import Secure
from tests.transport.streams import Streams, StreamSocket

BIG = random.Random(7).randbytes(3 * 2**20 + 12345)
"""More than any socket buffers, and no piece of it like another."""


class Oops(Exception):
    """What a protocol of a test raises."""


class Producer:
    """
    Writes a number of blocks, as it is asked to.

    @ivar depth: how many calls of C{write} are under way.
    """

    def __init__(self, transport: Any, blocks: int, block: bytes = b"x" * 10000) -> None:
        self.transport = transport
        self.left = blocks
        self.block = block
        self.asked = 0
        self.paused = False
        self.pauses = 0
        self.stopped = 0
        self.writing = False
        self.nested = False

    def write(self) -> None:
        self.left -= 1
        self.writing = True
        self.transport.write(self.block)
        self.writing = False

    def resumeProducing(self) -> None:
        self.asked += 1
        self.paused = False
        self.nested = self.nested or self.writing
        if self.left:
            self.write()
        else:
            self.transport.unregisterProducer()

    def pauseProducing(self) -> None:
        self.paused = True
        self.pauses += 1

    def stopProducing(self) -> None:
        self.stopped += 1


class Pushing(Producer):
    def resumeProducing(self) -> None:
        self.asked += 1
        self.paused = False
        while self.left and not self.paused:
            self.write()
        if not self.left:
            self.transport.unregisterProducer()


class _Contract(Contract):
    """
    The tests; those for which there is no network come in L{_TcpContract}.

    @cvar most_asked: how often a producer is not asked for more before what is
        on its way fills up.
    """

    most_asked = 3

    async def filled(self) -> None:
        """Wait until what a producer wrote has filled what is on its way."""

    # writing

    async def test_writes_arrive_in_order(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.write(b"one ")
        protocol.transport.write(b"")
        protocol.transport.writeSequence([b"two ", b"three ", b""])
        protocol.transport.writeSequence([])
        protocol.transport.write(b"four")
        self.assertEqual(await self.receive(peer, 18), b"one two three four")

    async def test_only_bytes(self) -> None:
        protocol, _ = await self.connect()
        for wrong in ("text", None, 7, bytearray(b"x")):
            self.assertRaises(TypeError, protocol.transport.write, wrong)
        self.assertRaises(TypeError, protocol.transport.writeSequence, ["text"])

    async def test_a_slow_reader_gets_everything(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        self.assertEqual(protocol.events, ["made"])
        received = await self.receive(peer, len(BIG))
        self.assertEqual(hashlib.sha256(received).digest(), hashlib.sha256(BIG).digest())

    async def test_what_the_peer_has_not_taken(self) -> None:
        """Somebody who decides that a peer stands still must see it take a little."""
        protocol, peer = await self.connect(small=True)
        transport = protocol.transport
        await self.until(lambda: not backlog_of(transport).size)  # TLS says something of its own
        transport.write(BIG)
        await self.settled(transport)
        waits = backlog_of(transport)
        self.assertEqual(backlog_of(transport), waits)
        self.assertGreater(waits.size, 2**20)
        for _ in range(4):
            await self.receive(peer, 2**19)
            await self.until(lambda before=waits: backlog_of(transport).mark != before.mark)  # type: ignore[misc]
            waits = await self.settled(transport)
        await self.receive(peer, len(BIG) - 4 * 2**19)
        await self.until(lambda: not backlog_of(transport).size)
        transport.abortConnection()
        await self.until(lambda: "lost" in protocol.events)
        self.assertEqual(backlog_of(transport).size, 0)

    async def settled(self, transport: Any) -> Backlog:
        """Let everything that moves by itself come to rest."""
        before, waits = None, backlog_of(transport)
        while before != waits:
            await self.turn(10)
            before, waits = waits, backlog_of(transport)
        return waits

    async def test_many_writes_to_a_slow_reader(self) -> None:
        protocol, peer = await self.connect(small=True)
        numbers = random.Random(1)
        pieces = [bytes([n % 256]) * numbers.randrange(1, 3000) for n in range(1500)]
        for piece in pieces[:1000]:
            protocol.transport.write(piece)
        expected = b"".join(pieces)
        received = await self.receive(peer, len(expected) // 3)
        for piece in pieces[1000:]:
            protocol.transport.write(piece)
        received += await self.receive(peer, len(expected) - len(received))
        self.assertEqual(received, expected)
        # And at once again, when all is sent.
        protocol.transport.write(b"more")
        self.assertEqual(await self.receive(peer, 4), b"more")

    async def test_writing_in_dataReceived(self) -> None:
        protocol, peer = await self.connect()
        protocol.on_data = protocol.transport.write
        await self.send(peer, b"echo")
        self.assertEqual(await self.receive(peer, 4), b"echo")

    async def test_writing_in_connectionMade(self) -> None:
        class Greeting(Recorder):
            def connectionMade(self) -> None:
                self.transport.write(b"hello")
                super().connectionMade()

        _, peer = await self.connect(Greeting)
        self.assertEqual(await self.receive(peer, 5), b"hello")

    # producers

    async def test_a_push_producer_is_paused_and_resumed(self) -> None:
        protocol, peer = await self.connect(small=True)
        producer = Pushing(protocol.transport, 300)
        protocol.transport.registerProducer(producer, True)
        self.assertEqual(producer.asked, 0)
        producer.resumeProducing()
        self.assertTrue(producer.paused)
        self.assertEqual(producer.pauses, 1)
        await self.filled()
        self.assertTrue(producer.paused)
        left = producer.left
        await self.turn(10)
        # It is not resumed before what it wrote is out.
        self.assertEqual(producer.left, left)
        received = await self.receive(peer, 300 * 10000)
        self.assertEqual(received, b"x" * 3000000)
        self.assertGreater(producer.asked, 1)
        self.assertEqual(producer.left, 0)
        self.assertFalse(producer.nested)

    async def test_what_waits_is_bounded(self) -> None:
        protocol, _ = await self.connect(small=True)
        producer = Pushing(protocol.transport, 2**20)
        protocol.transport.registerProducer(producer, True)
        producer.resumeProducing()
        await self.turn(10)
        self.assertLess(producer.asked, self.most_asked)
        # As much as the kernel takes, one write, and the high-water mark.
        self.assertGreater(producer.left, 2**20 - 2000)

    async def test_a_pull_producer(self) -> None:
        protocol, peer = await self.connect()
        producer = Producer(protocol.transport, 20)
        protocol.transport.registerProducer(producer, False)
        # Asked once when it is registered, and later never from within its own write.
        self.assertEqual(producer.asked, 1)
        self.assertEqual(await self.receive(peer, 200000), b"x" * 200000)
        await self.until(lambda: producer.asked == 21)
        self.assertFalse(producer.nested)
        self.assertEqual(producer.pauses, 0)

    async def test_a_pull_producer_and_a_slow_reader(self) -> None:
        protocol, peer = await self.connect(small=True)
        producer = Producer(protocol.transport, 10, b"y" * 300000)
        protocol.transport.registerProducer(producer, False)
        await self.turn(10)
        self.assertGreater(producer.left, 1)
        self.assertEqual(len(await self.receive(peer, 3000000)), 3000000)
        await self.until(lambda: producer.asked == 11)

    async def test_one_producer_at_a_time(self) -> None:
        protocol, _ = await self.connect()
        first, second = Pushing(protocol.transport, 0), Pushing(protocol.transport, 0)
        protocol.transport.registerProducer(first, True)
        self.assertRaises(RuntimeError, protocol.transport.registerProducer, second, True)
        protocol.transport.unregisterProducer()
        protocol.transport.registerProducer(second, True)

    async def test_a_producer_is_stopped_when_the_connection_is_lost(self) -> None:
        protocol, peer = await self.connect()
        producer = Pushing(protocol.transport, 0)
        protocol.transport.registerProducer(producer, True)
        peer.close()
        await self.until(lambda: "lost" in protocol.events)
        self.assertEqual(producer.stopped, 1)
        late = Pushing(protocol.transport, 0)
        protocol.transport.registerProducer(late, True)
        self.assertEqual(late.stopped, 1)

    async def test_a_producer_that_is_unregistered_hears_nothing_more(self) -> None:
        protocol, peer = await self.connect(small=True)
        producer = Pushing(protocol.transport, 2**20)
        protocol.transport.registerProducer(producer, True)
        producer.resumeProducing()
        protocol.transport.unregisterProducer()
        asked, left = producer.asked, producer.left
        await self.receive(peer, (2**20 - left) * 10000)
        await self.turn()
        self.assertEqual((producer.asked, producer.left, producer.stopped), (asked, left, 0))

    async def test_closing_waits_for_a_paused_producer(self) -> None:
        protocol, peer = await self.connect(small=True)
        producer = Pushing(protocol.transport, 200)
        protocol.transport.registerProducer(producer, True)
        producer.resumeProducing()
        protocol.transport.loseConnection()
        self.assertEqual(len(await self.receive_end(peer)), 2000000)
        await self.done(protocol)

    async def test_closing_waits_for_a_pull_producer(self) -> None:
        protocol, peer = await self.connect()
        producer = Producer(protocol.transport, 20)
        protocol.transport.registerProducer(producer, False)
        protocol.transport.loseConnection()
        self.assertEqual(len(await self.receive_end(peer)), 200000)
        await self.done(protocol)

    async def test_stopConsuming_closes(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.registerProducer(Pushing(protocol.transport, 0), True)
        protocol.transport.write(b"last")
        protocol.transport.stopConsuming()
        self.assertEqual(await self.receive_end(peer), b"last")
        await self.done(protocol)

    async def test_a_producer_that_fails(self) -> None:
        protocol, peer = await self.connect(small=True)

        class Failing(Pushing):
            def resumeProducing(self) -> None:
                if self.asked:
                    raise Oops
                super().resumeProducing()

        producer = Failing(protocol.transport, 300)
        protocol.transport.registerProducer(producer, True)
        producer.resumeProducing()
        with contextlib.suppress(ConnectionResetError):
            await self.receive_end(peer)
        await self.lost(protocol, Oops)
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)

    # reading

    async def test_everything_arrives(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, BIG)
        await self.until(lambda: sum(map(len, protocol.pieces)) == len(BIG))
        self.assertEqual(protocol.data, BIG)

    async def test_each_piece_is_a_copy(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, b"first")
        await self.until(lambda: protocol.pieces)
        await self.send(peer, b"other")
        await self.until(lambda: len(protocol.pieces) == 2)
        self.assertEqual(protocol.pieces, [b"first", b"other"])
        self.assertEqual({type(piece) for piece in protocol.pieces}, {bytes})

    async def test_a_pause_in_dataReceived_stops_at_once(self) -> None:
        protocol, peer = await self.connect()
        protocol.on_data = lambda data: protocol.transport.pauseProducing()
        for pieces in (1, 2, 3):
            # There is always more than one read takes.
            self.fill(peer)
            await self.until(lambda pieces=pieces: len(protocol.pieces) == pieces)
            self.fill(peer)
            await self.turn(10)
            self.assertEqual(len(protocol.pieces), pieces)
            protocol.transport.resumeProducing()
        await self.until(lambda: len(protocol.pieces) == 4)

    def fill(self, peer: socket.socket) -> None:
        """Send as much as the kernel takes."""
        with contextlib.suppress(BlockingIOError):
            while True:
                peer.send(BIG[: 2**16])

    async def test_what_came_during_a_pause_is_read_later(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.pauseProducing()
        await self.send(peer, b"early")
        await self.turn(10)
        self.assertEqual(protocol.pieces, [])
        protocol.transport.pauseProducing()
        protocol.transport.resumeProducing()
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.data == b"early")

    async def test_an_end_during_a_pause_is_met_later(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.pauseProducing()
        await self.send(peer, b"last")
        peer.close()
        await self.turn(10)
        self.assertEqual((protocol.pieces, protocol.events), ([], ["made"]))
        protocol.transport.resumeProducing()
        await self.done(protocol)
        self.assertEqual(protocol.data, b"last")

    async def test_a_pause_for_another_connection(self) -> None:
        first, first_peer = await self.connect()
        second, second_peer = await self.connect()
        for one, other in ((first, second), (second, first)):
            one.on_data = lambda data, other=other: other.transport.pauseProducing()
        first_peer.send(b"x")
        second_peer.send(b"x")
        await self.until(lambda: first.pieces or second.pieces)
        await self.turn(10)
        # Both had something to read, but whoever came first has paused the other.
        self.assertEqual(len(first.pieces) + len(second.pieces), 1)

    async def test_another_connection_that_is_closed_in_the_same_turn(self) -> None:
        first, first_peer = await self.connect()
        second, second_peer = await self.connect()
        for one, other in ((first, second), (second, first)):
            one.on_data = lambda data, other=other: other.transport.abortConnection()
        first_peer.send(b"x")
        second_peer.send(b"x")
        await self.until(lambda: "lost" in first.events + second.events)
        await self.turn(10)
        self.assertEqual(len(first.pieces) + len(second.pieces), 1)

    async def test_another_protocol_takes_over(self) -> None:
        protocol, peer = await self.connect()
        other = Recorder()
        protocol.transport.protocol = other
        other.makeConnection(protocol.transport)
        await self.send(peer, b"for the other")
        await self.until(lambda: other.data)
        self.assertEqual(protocol.data, b"")
        peer.close()
        await self.done(other)
        protocol.events.append("lost")

    async def test_dataReceived_may_be_replaced(self) -> None:
        protocol, peer = await self.connect()
        received: list[bytes] = []
        protocol.dataReceived = received.append
        await self.send(peer, b"x")
        await self.until(lambda: received)
        self.assertEqual((received, protocol.pieces), ([b"x"], []))

    # closing

    async def test_the_peer_closes(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, b"last")
        peer.close()
        await self.done(protocol)
        self.assertEqual(protocol.data, b"last")
        self.assertEqual(protocol.events, ["made", "lost"])

    async def test_closing_sends_what_was_written(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        self.assertEqual(protocol.events, ["made"])
        self.assertTrue(protocol.transport.disconnecting)
        protocol.transport.loseConnection()
        self.assertEqual(await self.receive_end(peer), BIG)
        await self.done(protocol)

    async def test_closing_with_nothing_to_send(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.loseConnection()
        self.assertEqual(protocol.events, ["made"])
        self.assertEqual(await self.receive_end(peer), b"")
        await self.done(protocol)

    async def test_nothing_is_read_after_closing(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        await self.send(peer, b"too late")
        protocol.transport.resumeProducing()
        await self.turn(10)
        self.assertEqual((protocol.pieces, protocol.events), ([], ["made"]))

    async def test_what_is_written_right_after_closing_is_sent(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.write(b"one ")
        protocol.transport.loseConnection()
        protocol.transport.write(b"two")
        self.assertEqual(await self.receive_end(peer), b"one two")

    async def test_closing_in_dataReceived(self) -> None:
        protocol, peer = await self.connect()

        def answer(data: bytes) -> None:
            protocol.transport.write(b"answer")
            protocol.transport.loseConnection()
            self.assertEqual(protocol.events, ["made"])

        protocol.on_data = answer
        await self.send(peer, b"question")
        self.assertEqual(await self.receive_end(peer), b"answer")
        await self.done(protocol)

    async def test_closing_in_connectionMade(self) -> None:
        class Short(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.write(b"bye")
                self.transport.loseConnection()

        protocol, peer = await self.connect(Short)
        self.assertEqual(await self.receive_end(peer), b"bye")
        await self.done(protocol)

    async def test_stopProducing_closes(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.write(b"last")
        protocol.transport.stopProducing()
        self.assertEqual(await self.receive_end(peer), b"last")
        await self.done(protocol)

    async def test_a_lost_connection_can_be_called(self) -> None:
        protocol, peer = await self.connect()
        peer.close()
        await self.done(protocol)
        transport = protocol.transport
        transport.write(b"x")
        transport.writeSequence([b"x"])
        transport.pauseProducing()
        transport.resumeProducing()
        transport.unregisterProducer()
        transport.loseConnection()
        transport.abortConnection()
        await self.turn()
        self.assertEqual(protocol.events, ["made", "lost"])
        self.assertFalse(transport.connected)
        self.assertTrue(transport.disconnected)

    async def test_connectionLost_may_call_the_transport(self) -> None:
        protocol, peer = await self.connect()

        def call() -> None:
            protocol.transport.write(b"x")
            protocol.transport.loseConnection()
            protocol.transport.abortConnection()
            protocol.transport.resumeProducing()

        protocol.on_lost = call
        peer.close()
        await self.done(protocol)

    # aborting

    async def test_aborting(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        protocol.transport.abortConnection()
        protocol.transport.abortConnection()
        protocol.transport.write(b"never")
        protocol.transport.loseConnection()
        self.assertEqual(protocol.events, ["made"])
        await self.aborted(protocol)
        self.assertLess(len(read_now(peer)), len(BIG))

    async def test_nothing_is_received_after_aborting(self) -> None:
        protocol, peer = await self.connect()
        peer.send(b"x")
        protocol.transport.abortConnection()
        protocol.transport.resumeProducing()
        await self.aborted(protocol)
        self.assertEqual(protocol.pieces, [])

    async def test_nothing_is_sent_after_aborting(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.abortConnection()
        protocol.transport.write(b"never")
        self.assertEqual(read_now(peer), b"")
        await self.aborted(protocol)
        self.assertEqual(read_now(peer), b"")

    async def test_aborting_in_dataReceived(self) -> None:
        protocol, peer = await self.connect()
        protocol.on_data = lambda data: (
            protocol.transport.abortConnection(),
            self.assertEqual(protocol.events, ["made"]),
        )
        await self.send(peer, b"x")
        await self.aborted(protocol)

    async def test_aborting_with_a_producer(self) -> None:
        protocol, _ = await self.connect(small=True)
        producer = Pushing(protocol.transport, 2**20)
        protocol.transport.registerProducer(producer, True)
        producer.resumeProducing()
        asked = producer.asked
        protocol.transport.abortConnection()
        await self.aborted(protocol)
        self.assertEqual((producer.stopped, producer.asked), (1, asked))

    # half-closing

    async def test_the_peer_half_closes_first(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        await self.send(peer, b"question")
        peer.shutdown(socket.SHUT_WR)
        await self.until(lambda: "read lost" in protocol.events)
        self.assertEqual(protocol.data, b"question")
        await self.turn(10)
        self.assertEqual(protocol.events, ["made", "read lost"])
        protocol.transport.write(b"answer")
        protocol.transport.loseWriteConnection()
        self.assertEqual(await self.receive_end(peer), b"answer")
        await self.until(lambda: "write lost" in protocol.events)
        protocol.transport.loseConnection()
        await self.done(protocol)
        self.assertEqual(protocol.events, ["made", "read lost", "write lost", "lost"])

    async def test_we_half_close_first(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.transport.write(b"question")
        protocol.transport.loseWriteConnection()
        self.assertEqual(protocol.events, ["made"])
        self.assertEqual(await self.receive_end(peer), b"question")
        await self.until(lambda: "write lost" in protocol.events)
        protocol.transport.write(b"never")
        protocol.transport.writeSequence([b"never"])
        await self.send(peer, b"answer")
        await self.until(lambda: protocol.data == b"answer")
        peer.close()
        await self.until(lambda: "read lost" in protocol.events)
        protocol.transport.loseConnection()
        await self.done(protocol)
        self.assertEqual(protocol.events, ["made", "write lost", "read lost", "lost"])

    async def test_half_closing_sends_what_was_written(self) -> None:
        protocol, peer = await self.connect(HalfRecorder, small=True)
        protocol.transport.write(BIG)
        protocol.transport.loseWriteConnection()
        self.assertEqual(await self.receive_end(peer), BIG)
        self.assertEqual(protocol.events, ["made", "write lost"])

    async def test_a_half_closed_connection_is_closed(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        peer.shutdown(socket.SHUT_WR)
        await self.until(lambda: "read lost" in protocol.events)
        protocol.transport.write(b"last")
        protocol.transport.loseConnection()
        self.assertEqual(await self.receive_end(peer), b"last")
        await self.done(protocol)

    async def test_closing_in_readConnectionLost(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.on_read_lost = lambda: protocol.transport.loseConnection()
        peer.shutdown(socket.SHUT_WR)
        self.assertEqual(await self.receive_end(peer), b"")
        await self.done(protocol)

    async def test_closing_in_writeConnectionLost(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.on_write_lost = lambda: protocol.transport.loseConnection()
        protocol.transport.loseWriteConnection()
        self.assertEqual(await self.receive_end(peer), b"")
        await self.done(protocol)

    async def test_a_protocol_that_can_t_half_close(self) -> None:
        protocol, peer = await self.connect()
        peer.shutdown(socket.SHUT_WR)
        await self.done(protocol)
        self.assertEqual(await self.receive_end(peer), b"")
        protocol, peer = await self.connect()
        protocol.transport.loseWriteConnection()
        self.assertEqual(await self.receive_end(peer), b"")
        await self.send(peer, b"still heard")
        await self.until(lambda: protocol.data == b"still heard")

    async def test_the_end_is_told_once(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        peer.shutdown(socket.SHUT_WR)
        await self.until(lambda: "read lost" in protocol.events)
        await self.turn(10)
        self.assertEqual(protocol.events.count("read lost"), 1)

    # protocols that fail

    async def failing(self, kind: type[Recorder] = Recorder) -> tuple[Any, socket.socket, Any, socket.socket]:
        protocol, peer = await self.connect(kind)
        other, other_peer = await self.connect()
        return protocol, peer, other, other_peer

    async def unharmed(self, other: Any, peer: socket.socket) -> None:
        """Check that another connection has gone on, and the failure has been logged."""
        self.assertEqual(len(self.flushLoggedErrors(Oops)), 1)
        await self.send(peer, b"ping")
        await self.until(lambda: other.data == b"ping")
        other.transport.write(b"pong")
        self.assertEqual(await self.receive(peer, 4), b"pong")

    def fail_now(self, *_: object) -> None:
        raise Oops

    async def test_dataReceived_fails(self) -> None:
        protocol, peer, other, other_peer = await self.failing()
        protocol.on_data = self.fail_now
        peer.send(b"x")
        other_peer.send(b"")
        await self.lost(protocol, Oops)
        await self.unharmed(other, other_peer)

    async def test_dataReceived_fails_after_aborting(self) -> None:
        protocol, peer, other, other_peer = await self.failing()
        protocol.on_data = lambda data: (protocol.transport.abortConnection(), self.fail_now())
        peer.send(b"x")
        await self.lost(protocol, Oops)
        await self.unharmed(other, other_peer)

    async def test_readConnectionLost_fails(self) -> None:
        protocol, peer, other, other_peer = await self.failing(HalfRecorder)
        protocol.on_read_lost = self.fail_now
        peer.shutdown(socket.SHUT_WR)
        await self.lost(protocol, Oops)
        await self.unharmed(other, other_peer)

    async def test_writeConnectionLost_fails(self) -> None:
        protocol, _, other, other_peer = await self.failing(HalfRecorder)
        protocol.on_write_lost = self.fail_now
        protocol.transport.loseWriteConnection()
        await self.lost(protocol, Oops)
        await self.unharmed(other, other_peer)

    async def test_connectionLost_fails(self) -> None:
        protocol, peer, other, other_peer = await self.failing()
        protocol.on_lost = self.fail_now
        peer.close()
        await self.done(protocol)
        await self.unharmed(other, other_peer)

    async def test_connectionLost_fails_after_dataReceived(self) -> None:
        protocol, peer, other, other_peer = await self.failing()
        protocol.on_data = self.fail_now

        def fail_otherwise() -> None:
            raise ZeroDivisionError

        protocol.on_lost = fail_otherwise
        peer.send(b"x")
        await self.lost(protocol, Oops)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        await self.unharmed(other, other_peer)

    # facts

    async def test_interfaces(self) -> None:
        protocol, _ = await self.connect()
        for interface in (
            ITransport,
            IConsumer,
            IPushProducer,
            IReadDescriptor,
            IWriteDescriptor,
            IReadWriteDescriptor,
            IHalfCloseableDescriptor,
            ISystemHandle,
            ILoggingContext,
            *(() if self.family == "UNIX" else (ITCPTransport,)),
        ):
            self.assertTrue(verifyObject(interface, protocol.transport))
        self.assertIsInstance(protocol.transport.getHandle(), socket.socket)
        self.assertIn("Recorder", protocol.transport.logPrefix())

    async def test_options_of_TCP_can_always_be_set(self) -> None:
        protocol, _ = await self.connect()
        for value in (True, False):
            protocol.transport.setTcpNoDelay(value)
            self.assertEqual(protocol.transport.getTcpNoDelay(), value and self.family != "UNIX")
            protocol.transport.setTcpKeepAlive(value)
            self.assertEqual(protocol.transport.getTcpKeepAlive(), value)

    async def test_addresses(self) -> None:
        protocol, peer = await self.connect()
        host, other = protocol.transport.getHost(), protocol.transport.getPeer()
        ours, theirs = peer.getpeername(), peer.getsockname()
        if self.family == "TCP4":
            self.assertEqual(host, IPv4Address("TCP", *ours))
            self.assertEqual(other, IPv4Address("TCP", *theirs))
        elif self.family == "TCP6":
            self.assertEqual(host, IPv6Address("TCP", *ours))
            self.assertEqual(other, IPv6Address("TCP", *theirs))
        elif self.server:
            self.assertEqual(host, UNIXAddress(ours))
            self.assertIsInstance(other, UNIXAddress)
        else:
            self.assertIsInstance(host, UNIXAddress)
            self.assertEqual(other, UNIXAddress(theirs))

    # many

    async def test_many_connections(self) -> None:
        made = [await self.connect() for _ in range(100)]
        for protocol, _ in made:
            protocol.on_data = protocol.transport.write
        for number, (_, peer) in enumerate(made):
            peer.send(b"%d" % number)
        for number, (_, peer) in enumerate(made):
            expected = b"%d" % number
            self.assertEqual(await self.receive(peer, len(expected)), expected)
        for _, peer in made:
            peer.close()
        await self.until(lambda: all("lost" in protocol.events for protocol, _ in made))

    # the other end is gone

    def vanish(self, peer: socket.socket) -> None:
        """Close a socket so that what is written to it from now on fails."""
        if self.family == "UNIX":
            peer.close()
        else:
            reset(peer)

    async def vanished(self, protocol: Recorder) -> None:
        """Wait for the end; over a Unix socket the peer has closed, which may be met first."""
        await self.lost(protocol, ConnectionLost, *([ConnectionDone] if self.family == "UNIX" else []))

    async def test_a_write_that_fails(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        self.vanish(peer)
        for _ in range(3):
            protocol.transport.write(b"x" * 1000)
            # It is not for the caller to hear of it.
            self.assertEqual(protocol.events, ["made"])
        await self.broken(protocol)
        closed = ["read lost"] if self.family == "UNIX" else []
        self.assertEqual(protocol.events, ["made", *closed, "lost"])

    async def test_a_write_that_fails_in_dataReceived(self) -> None:
        protocol, peer = await self.connect()
        other, other_peer = await self.connect()
        other.on_data = lambda data: (
            self.vanish(peer),
            protocol.transport.write(b"x"),
            protocol.transport.write(b"x"),
            self.assertEqual(protocol.events, ["made"]),
        )
        other_peer.send(b"go")
        await self.vanished(protocol)
        self.assertEqual(other.events, ["made"])

    async def test_a_write_that_fails_in_its_own_dataReceived(self) -> None:
        protocol, peer = await self.connect()
        protocol.on_data = lambda data: (
            self.vanish(peer),
            protocol.transport.write(b"x"),
            protocol.transport.write(b"x"),
            self.assertEqual(protocol.events, ["made"]),
        )
        peer.send(b"go")
        await self.vanished(protocol)

    async def test_a_write_that_fails_while_paused(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.pauseProducing()
        self.vanish(peer)
        protocol.transport.write(b"x")
        await self.broken(protocol)

    async def test_closing_after_a_write_that_fails(self) -> None:
        protocol, peer = await self.connect()
        self.vanish(peer)
        protocol.transport.write(b"x")
        protocol.transport.loseConnection()
        await self.broken(protocol)

    async def test_aborting_after_a_write_that_fails(self) -> None:
        protocol, peer = await self.connect()
        self.vanish(peer)
        protocol.transport.write(b"x")
        protocol.transport.abortConnection()
        await self.aborted(protocol)

    async def test_a_producer_whose_write_fails(self) -> None:
        protocol, peer = await self.connect()
        producer = Pushing(protocol.transport, 2**20)
        protocol.transport.registerProducer(producer, True)
        self.vanish(peer)
        producer.resumeProducing()
        self.assertTrue(producer.paused)
        self.assertGreater(producer.left, 2**20 - 100)
        await self.vanished(protocol)
        self.assertEqual(producer.stopped, 1)

    async def test_the_answer_before_the_end_is_heard(self) -> None:
        protocol, peer = await self.connect()
        peer.send(b"no, thanks")
        peer.close()
        protocol.transport.write(b"x")
        protocol.transport.write(b"x")
        await self.lost(protocol, ConnectionLost, ConnectionDone)
        self.assertEqual(protocol.data, b"no, thanks")

    # ports

    async def test_no_protocol(self) -> None:
        if self.server:
            peer = self.socket()
            peer.connect_ex(self.listen(lambda: None))
            self.assertEqual(await self.receive_end(peer), b"")
            return
        listening = self.listening_socket()
        factory, _ = self.dial(listening.getsockname(), lambda: None)
        await self.until(lambda: factory.lost)
        assert factory.lost is not None
        self.assertEqual(factory.lost.type, ConnectionDone)

    async def test_a_port_that_is_closed(self) -> None:
        where = self.listen(Recorder)
        await self.ports.pop().stopListening()
        self.assertRaises((ConnectionRefusedError, FileNotFoundError), self.connect_now, where)

    def connect_now(self, where: Any) -> None:
        peer = self.socket()
        peer.setblocking(True)
        peer.connect(where)


class _TcpContract(_Contract):
    """Connections that can be reset."""

    async def test_a_reset(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        reset(peer)
        await self.broken(protocol)
        self.assertEqual(protocol.events, ["made", "lost"])

    async def test_a_reset_with_data_to_send(self) -> None:
        protocol, peer = await self.connect(HalfRecorder, small=True)
        protocol.transport.write(BIG)
        reset(peer)
        await self.broken(protocol)
        self.assertEqual(protocol.events, ["made", "lost"])

    async def test_a_reset_after_we_half_closed(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.transport.loseWriteConnection()
        await self.until(lambda: "write lost" in protocol.events)
        reset(peer)
        await self.broken(protocol)

    async def test_a_reset_while_closing(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        reset(peer)
        await self.broken(protocol)

    async def test_a_reset_of_what_was_not_read(self) -> None:
        protocol, peer = await self.connect()
        peer.send(b"data")
        reset(peer)
        await self.broken(protocol)

    async def test_aborting_resets(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.abortConnection()
        await self.aborted(protocol)
        await self.is_reset(peer)

    async def test_closing_does_not_reset(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.loseConnection()
        await self.done(protocol)
        self.assertEqual(await self.hear(peer), b"")

    async def test_adopting_a_port(self) -> None:
        if not self.server:
            return
        protocol = Recorder()
        self.protocols.append(protocol)
        listening = self.listening_socket()
        factory = CallableFactory(lambda: protocol)
        port = self.reactor.adoptStreamPort(listening.fileno(), listening.family, factory)
        self.ports.append(port)
        peer = self.socket()
        peer.connect_ex(listening.getsockname())
        await self.until(lambda: protocol.events)
        protocol.transport.write(b"hello")
        self.assertEqual(await self.receive(peer, 5), b"hello")
        self.assertEqual(port.getHost().port, listening.getsockname()[1])


class StockServerTests(_TcpContract):
    fast = False


class StockClientTests(_TcpContract):
    fast = False
    server = False


class StockServer6Tests(_TcpContract):
    fast = False
    family = "TCP6"


class StockUnixServerTests(_Contract):
    fast = False
    family = "UNIX"


class StockUnixClientTests(_Contract):
    fast = False
    family = "UNIX"
    server = False


class FastServerTests(_TcpContract):
    pass


class FastClientTests(_TcpContract):
    server = False


class FastServer6Tests(_TcpContract):
    family = "TCP6"


class FastClient6Tests(_TcpContract):
    family = "TCP6"
    server = False


class FastUnixServerTests(_Contract):
    family = "UNIX"


class FastUnixClientTests(_Contract):
    family = "UNIX"
    server = False


class _StreamContract(Streams, _TcpContract):
    """
    What is the same for a stream of many on one connection.

    A reset is on its way for a while; what happened before it came has happened.
    """

    most_asked = 6  # a stream's window is larger than what a transport buffers

    async def filled(self) -> None:
        await self.turn(10)

    async def test_interfaces(self) -> None:
        protocol, _ = await self.connect()
        for interface in (ITransport, IConsumer, IPushProducer, ITCPTransport, ILoggingContext):
            self.assertTrue(verifyObject(interface, protocol.transport))
        self.assertIn("Recorder", protocol.transport.logPrefix())
        self.assertIn("Recorder", repr(protocol.transport))

    async def test_options_of_TCP_can_always_be_set(self) -> None:
        protocol, _ = await self.connect()
        for value in (True, False):
            protocol.transport.setTcpNoDelay(value)
            self.assertTrue(protocol.transport.getTcpNoDelay())
            protocol.transport.setTcpKeepAlive(value)
            self.assertEqual(protocol.transport.getTcpKeepAlive(), value)

    async def test_no_protocol(self) -> None:
        await self.join()
        peer = StreamSocket()
        await self.sessions[1].open(CallableFactory(lambda: peer))
        await self.is_reset(peer)  # type: ignore[arg-type]

    async def test_closing_after_a_write_that_fails(self) -> None:
        protocol, peer = await self.connect()
        self.vanish(peer)
        protocol.transport.write(b"x")
        protocol.transport.loseConnection()
        await self.lost(protocol, ConnectionDone, ConnectionLost)


class StreamAcceptedTests(_StreamContract):
    pass


class StreamOpenedTests(_StreamContract):
    server = False


class StreamOverStockTests(_StreamContract):
    fast = False


class _SecureContract(Secure, _TcpContract):
    """
    What is the same for TLS.

    It does at once what TCP leaves to the reactor: to say that our half is closed.
    """

    async def test_interfaces(self) -> None:
        protocol, _ = await self.connect()
        for interface in (ISSLTransport, INegotiated, IConsumer, IPushProducer, ISystemHandle, ITCPTransport):
            self.assertTrue(interface.providedBy(protocol.transport), interface)
        self.assertIsInstance(protocol.transport.getHandle(), SSL.Connection)
        self.assertEqual(protocol.transport.logPrefix(), "TLS")

    async def test_another_protocol_takes_over(self) -> None:
        protocol, peer = await self.connect()
        other = Recorder()
        protocol.transport.wrappedProtocol = other
        other.makeConnection(protocol.transport)
        await self.send(peer, b"for the other")
        await self.until(lambda: other.data)
        self.assertEqual(protocol.data, b"")
        peer.close()
        await self.done(other)
        protocol.events.append("lost")

    async def test_what_is_written_right_after_closing_is_sent(self) -> None:
        """It is not: our close_notify is on its way."""
        protocol, peer = await self.connect()
        protocol.transport.write(b"one ")
        protocol.transport.loseConnection()
        protocol.transport.write(b"two")
        self.assertEqual(await self.receive_end(peer), b"one ")

    async def test_we_half_close_first(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.transport.write(b"question")
        protocol.transport.loseWriteConnection()
        self.assertEqual(await self.receive_end(peer), b"question")
        self.assertEqual(protocol.events, ["made", "write lost"])
        protocol.transport.write(b"never")
        protocol.transport.writeSequence([b"never"])
        await self.send(peer, b"answer")
        await self.until(lambda: protocol.data == b"answer")
        peer.close()
        await self.done(protocol)
        self.assertEqual(protocol.events, ["made", "write lost", "read lost", "lost"])

    async def test_writeConnectionLost_fails(self) -> None:
        protocol, _, other, other_peer = await self.failing(HalfRecorder)
        protocol.on_write_lost = self.fail_now
        self.assertRaises(Oops, protocol.transport.loseWriteConnection)
        other.on_data = lambda data: None
        await self.send(other_peer, b"ping")
        await self.until(lambda: other.data == b"ping")


class SecureServerTests(_SecureContract):
    pass


class SecureClientTests(_SecureContract):
    server = False


class SecureClient6Tests(_SecureContract):
    family = "TCP6"
    server = False


class SecureStockServerTests(_SecureContract):
    fast = False


class SecureStockClientTests(_SecureContract):
    fast = False
    server = False


# They only exist to be derived from.
del Contract, _Contract, _TcpContract, _StreamContract, _SecureContract
