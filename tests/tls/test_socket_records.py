"""Tests for L{reverseproxy.tls.socket_records}: what is not in the contract of transports."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from reverseproxy.errors import TlsFailed
from reverseproxy.tls import inspect_factory, openssl, socket_records, wrap_server
from tests.transport.contract import CallableFactory, HalfRecorder, Recorder, reset
from tests.transport.secure import Secure, SecureSocket
from tests.transport.test_contract import BIG


class WireTests(Secure):
    def message(self, protocol: Recorder) -> str:
        assert protocol.reason is not None
        return protocol.reason.getErrorMessage()

    # the end

    async def test_a_truncation(self) -> None:
        for kind in (Recorder, HalfRecorder):
            protocol, peer = await self.connect(kind)
            await self.send(peer, b"half of it")
            peer.plain.shutdown(socket.SHUT_WR)
            await self.broken(protocol)
            self.assertEqual(protocol.data, b"half of it")
            self.assertIn("truncated", self.message(protocol))
            self.assertEqual(protocol.events, ["made", "lost"])

    async def test_a_truncation_in_the_middle_of_a_record(self) -> None:
        protocol, peer = await self.connect()
        peer.plain.send(b"\x17\x03\x03\x01\x00abc")
        await self.turn()
        self.assertEqual(protocol.events, ["made"])
        peer.plain.shutdown(socket.SHUT_WR)
        await self.broken(protocol)
        self.assertIn("truncated", self.message(protocol))

    async def test_damaged_data(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, b"intact")
        peer.plain.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        await self.broken(protocol)
        self.assertEqual(protocol.data, b"intact")
        self.assertIn("TLS: ", self.message(protocol))
        with self.assertRaises(ConnectionResetError) as caught:
            await self.hear(peer)
        self.assertIn("alert", str(caught.exception))

    async def test_damaged_data_behind_a_whole_record(self) -> None:
        protocol, peer = await self.connect()
        protocol.transport.pauseProducing()
        await self.send(peer, BIG[: 2**14])
        peer.plain.send(b"\x17\x03\x03\x00\x20" + bytes(32))
        protocol.transport.resumeProducing()
        await self.broken(protocol)
        self.assertEqual(protocol.data, BIG[: 2**14])
        self.assertIn("TLS: ", self.message(protocol))

    async def test_an_end_that_is_met_while_paused(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.on_data = lambda data: protocol.transport.pauseProducing()
        protocol.transport.pauseProducing()
        await self.send(peer, BIG[: 2**14])
        peer.shutdown(socket.SHUT_WR)
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.pieces)
        await self.turn()
        self.assertEqual(protocol.events, ["made"])
        protocol.transport.resumeProducing()
        self.assertEqual(protocol.events, ["made", "read lost"])
        protocol.transport.resumeProducing()
        self.assertEqual(protocol.events, ["made", "read lost"])

    async def test_lost_before_the_end_is_told(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.on_data = lambda data: protocol.transport.pauseProducing()
        protocol.transport.pauseProducing()
        await self.send(peer, BIG[: 2**14])
        peer.shutdown(socket.SHUT_WR)
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.pieces)
        reset(peer.plain)
        protocol.transport.write(b"x")
        protocol.transport.write(b"x")
        await self.broken(protocol)
        self.assertEqual(protocol.events, ["made", "read lost", "lost"])

    async def test_aborted_when_it_is_delivered(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        protocol.transport.pauseProducing()
        protocol.on_data = lambda data: protocol.transport.abortConnection()
        await self.send(peer, BIG[: 2**14])
        peer.shutdown(socket.SHUT_WR)
        protocol.transport.resumeProducing()
        await self.aborted(protocol)
        self.assertEqual(protocol.events, ["made", "lost"])

    async def test_what_comes_after_the_end(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        peer.shutdown(socket.SHUT_WR)
        await self.until(lambda: "read lost" in protocol.events)
        low = protocol.transport.transport
        self.assertIsNone(low.doRead())
        peer.plain.send(b"nonsense")
        await self.turn()
        protocol.transport.write(b"still open")
        self.assertEqual(await self.receive(peer, 10), b"still open")
        peer.plain.shutdown(socket.SHUT_WR)
        await self.until(lambda: low not in self.reactor.getReaders())
        protocol.transport.write(b"still open")
        self.assertEqual(await self.receive(peer, 10), b"still open")
        self.assertEqual(protocol.events, ["made", "read lost"])

    async def test_a_reset_after_the_end(self) -> None:
        protocol, peer = await self.connect(HalfRecorder)
        peer.shutdown(socket.SHUT_WR)
        await self.until(lambda: "read lost" in protocol.events)
        reset(peer.plain)
        await self.broken(protocol)

    # closing when the socket takes no more

    async def test_closing_does_not_read_before_all_is_sent(self) -> None:
        """OpenSSL sends no more once it has met an end-of-file."""
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        protocol.transport.loseConnection()
        peer.plain.shutdown(socket.SHUT_WR)
        self.assertEqual(await self.receive_end(peer), BIG)
        await self.done(protocol)

    async def test_the_peer_closes_before_all_is_sent(self) -> None:
        for kind in (Recorder, HalfRecorder):
            protocol, peer = await self.connect(kind, small=True)
            protocol.on_read_lost = protocol.transport.loseConnection
            protocol.transport.write(BIG)
            peer.shutdown(socket.SHUT_WR)
            await self.turn()
            protocol.transport.write(b"never")
            self.assertEqual(await self.receive_end(peer), BIG)
            await self.done(protocol)

    async def test_close_notify_has_to_wait(self) -> None:
        protocol, _ = await self.connect(HalfRecorder)
        connection = protocol.transport.getHandle()
        shutdown = mock.Mock(side_effect=[SSL.WantWriteError, None])
        with mock.patch.object(connection, "shutdown", shutdown):
            protocol.transport.loseWriteConnection()
            self.assertEqual(protocol.events, ["made"])
            await self.until(lambda: "write lost" in protocol.events)
        self.assertEqual(shutdown.call_count, 2)

    async def test_nobody_is_left_to_tell(self) -> None:
        protocol, _ = await self.connect(HalfRecorder)
        connection = protocol.transport.getHandle()
        with mock.patch.object(connection, "shutdown", mock.Mock(side_effect=SSL.Error([]))):
            protocol.transport.loseWriteConnection()
        self.assertEqual(protocol.events, ["made", "write lost"])

    async def test_a_producer_that_closes_a_lost_connection(self) -> None:
        protocol, peer = await self.connect()
        transport = protocol.transport

        class Closing:
            def stopProducing(self) -> None:
                transport.unregisterProducer()
                transport.loseConnection()

        transport.registerProducer(Closing(), True)
        protocol.on_data = lambda data: 1 / 0
        await self.send(peer, b"x")
        await self.lost(protocol, ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        # To the peer this is a truncation, and not an end.
        await self.is_reset(peer)

    # what OpenSSL has to do between

    async def test_it_must_send_before_it_reads_on(self) -> None:
        protocol, peer = await self.connect()
        low = protocol.transport.transport
        with (
            mock.patch.object(socket_records, "read", return_value=-1),
            mock.patch.object(socket_records, "get_error", return_value=openssl.WANT_WRITE),
        ):
            self.assertIsNone(low.doRead())
        self.assertEqual((self.reactor.getReaders(), self.reactor.getWriters()), (self.listening(), [low]))
        await self.send(peer, b"go on")
        await self.until(lambda: protocol.data == b"go on")
        self.assertEqual(self.reactor.getWriters(), [])

    async def test_it_must_send_before_it_reads_on_but_is_paused(self) -> None:
        protocol, peer = await self.connect()
        low = protocol.transport.transport
        with (
            mock.patch.object(socket_records, "read", return_value=-1),
            mock.patch.object(socket_records, "get_error", return_value=openssl.WANT_WRITE),
        ):
            low.doRead()
        protocol.transport.pauseProducing()
        await self.send(peer, b"go on")
        await self.turn(10)
        self.assertEqual(protocol.data, b"")
        protocol.transport.resumeProducing()
        await self.until(lambda: protocol.data == b"go on")

    def listening(self) -> list[Any]:
        return [each for each in self.reactor.getReaders() if each in self.ports]

    async def test_it_must_read_before_it_sends_on(self) -> None:
        protocol, peer = await self.connect()
        low = protocol.transport.transport
        with (
            mock.patch.object(socket_records, "write", return_value=-1),
            mock.patch.object(socket_records, "get_error", return_value=openssl.WANT_READ),
        ):
            protocol.transport.write(b"hello")
            self.assertIsNone(low.doWrite())
        # It does not spin until then.
        self.assertEqual(self.reactor.getWriters(), [])
        self.assertEqual(low.unsent, 5)
        await self.send(peer, b"x")
        self.assertEqual(await self.receive(peer, 5), b"hello")

    async def test_it_fails_to_send(self) -> None:
        protocol, _ = await self.connect()

        def fail(*_: object) -> None:
            raise SSL.Error([("", "", "out of order")])

        with (
            mock.patch.object(socket_records, "write", return_value=-1),
            mock.patch.object(socket_records, "get_error", return_value=1),
            mock.patch.object(socket_records, "raise_error", fail),
        ):
            protocol.transport.write(b"hello")
        await self.broken(protocol)
        self.assertIn("out of order", self.message(protocol))

    async def test_an_error_without_an_explanation(self) -> None:
        protocol, _ = await self.connect()
        with mock.patch.object(protocol.transport.getHandle(), "_raise_ssl_error"):
            self.assertRaises(SSL.Error, openssl.raise_error, protocol.transport.getHandle(), 0)

    # reading

    async def test_one_read_is_bounded(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, BIG)
        await self.until(lambda: len(protocol.data) == len(BIG))
        self.assertLessEqual(max(map(len, protocol.pieces)), openssl.ROOM + openssl.RECORD)

    async def test_small_writes_to_a_slow_reader_become_large_records(self) -> None:
        protocol, peer = await self.connect(small=True)
        protocol.transport.write(BIG)
        for start in range(0, 50_000, 100):
            protocol.transport.write(BIG[start : start + 100])
        await self.receive(peer, len(BIG))
        records = []
        received = b""
        while len(received) < 50_000:
            try:
                records.append(peer.recv(2**14))
            except BlockingIOError:
                await self.turn(1)
                continue
            received += records[-1]
        self.assertEqual(received, BIG[:50_000])
        self.assertLess(len(records), 30)

    # writing

    async def test_what_is_written_again_from_another_place(self) -> None:
        """Whatever modes pyOpenSSL gives to connections, what did not fit is neither lost nor doubled."""
        moving = SSL._lib.SSL_MODE_ACCEPT_MOVING_WRITE_BUFFER | SSL._lib.SSL_MODE_ENABLE_PARTIAL_WRITE
        connect = self.server_tls.serverConnectionForTLS

        def without(*arguments: Any) -> SSL.Connection:
            connection = connect(*arguments)
            SSL._lib.SSL_clear_mode(connection._ssl, moving)
            return connection

        with mock.patch.object(self.server_tls, "serverConnectionForTLS", without):
            protocol, peer = await self.connect(small=True)
        # In pieces that are put together anew for each attempt, and in one that moves along.
        for size in (700, 40_000, 1_000_000):
            for start in range(0, 1_000_000, size):
                protocol.transport.write(BIG[start : start + size])
            self.assertGreater(protocol.transport.transport.unsent, 0)
            expected = BIG[: -(-1_000_000 // size) * size]
            self.assertEqual(await self.receive(peer, len(expected)), expected)
        self.assertEqual(protocol.events, ["made"])

    async def test_many_records_are_one_write_to_the_kernel(self) -> None:
        for cork in (socket_records._TCP_CORK, None):
            with mock.patch.object(socket_records, "_TCP_CORK", cork):
                protocol, peer = await self.connect()
                low = protocol.transport.transport
                protocol.transport.write(BIG[:50_000])
                self.assertEqual(await self.receive(peer, 50_000), BIG[:50_000])
                if socket_records._TCP_CORK is not None:
                    # What is not full has been sent all the same.
                    self.assertEqual(low.socket.getsockopt(socket.IPPROTO_TCP, socket_records._TCP_CORK), 0)

    # when there is a wire

    async def test_afterwards_the_socket_is_another_s(self) -> None:
        protocol, peer = await self.connect()
        connection = protocol.transport.getHandle()
        peer.close()
        await self.done(protocol)
        self.assertIsNone(protocol.transport.getHandle())
        self.assertRaises(SSL.Error, connection.send, b"into whatever has the number now")
        self.assertRaises(TypeError, connection.bio_read, 1)

    async def test_it_waits_until_nothing_is_on_its_way_through_memory(self) -> None:
        class Paused(Recorder):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.pauseProducing()

        with mock.patch.object(self, "assertEqual"):
            protocol, peer = await self.connect(Paused)
        self.assertIsNone(protocol.transport._filter)
        protocol.transport.resumeProducing()
        for number in range(1, 4):
            await self.send(peer, b"x")
            await self.until(lambda number=number: len(protocol.data) == number)
        self.assertIsNotNone(protocol.transport._filter)

    async def test_not_behind_a_protocol_that_looks_at_data(self) -> None:
        protocol = Recorder()
        secure = wrap_server(CallableFactory(lambda: protocol), self.server_tls, clock=self.reactor)

        class Between(Protocol):
            def connectionMade(self) -> None:
                self.inner: Any = secure.buildProtocol(None)
                self.inner.makeConnection(self.transport)

            def dataReceived(self, data: bytes) -> None:
                self.inner.dataReceived(data)

            def connectionLost(self, reason: Any = None) -> None:
                self.inner.connectionLost(reason)

        await self.converse(protocol, CallableFactory(Between), False)

    async def test_not_in_a_wrapper(self) -> None:
        protocol = Recorder()
        secure = wrap_server(CallableFactory(lambda: protocol), self.server_tls, clock=self.reactor)
        wrapping: Any = WrappingFactory(secure)
        wrapping.protocol = ProtocolWrapper
        await self.converse(protocol, wrapping, False)

    async def test_behind_the_inspector(self) -> None:
        protocol = Recorder()
        secure = wrap_server(CallableFactory(lambda: protocol), self.server_tls, clock=self.reactor)
        await self.converse(protocol, inspect_factory(CallableFactory(lambda: None), secure), True)

    async def converse(self, protocol: Any, factory: Any, bound: bool) -> None:
        self.protocols.append(protocol)
        plain = self.socket()
        plain.connect_ex(self.listen_with(factory))
        peer = SecureSocket(self.client_tls.clientConnectionForTLS(None).get_context(), plain, False)
        await self.until(lambda: peer.shake_hands() and protocol.transport.established)
        self.assertEqual(protocol.transport._filter is not None, bound)
        protocol.on_data = protocol.transport.write
        await self.send(peer, b"echo")
        self.assertEqual(await self.receive(peer, 4), b"echo")
        peer.close()
        await self.lost(protocol, ConnectionDone, ConnectionLost)

    async def test_a_handshake_that_fails(self) -> None:
        protocol = Recorder()
        self.protocols.append(protocol)
        plain = self.socket()
        plain.connect_ex(self.listen(lambda: protocol))
        plain.send(b"\x16\x03\x01\x00\x05hello")
        await self.lost(protocol, TlsFailed)


class UnixWireTests(Secure):
    family = "UNIX"

    async def test_a_conversation(self) -> None:
        protocol = Recorder()
        self.protocols.append(protocol)
        plain = self.socket()
        plain.connect_ex(self.listen(lambda: protocol))
        context = self.client_tls.clientConnectionForTLS(None).get_context()
        peer = SecureSocket(context, plain, server=False)
        await self.until(lambda: peer.shake_hands() and protocol.transport.established)
        protocol.transport.write(BIG)
        self.assertEqual(await self.receive(peer, len(BIG)), BIG)
        peer.close()
        await self.lost(protocol, ConnectionDone)
