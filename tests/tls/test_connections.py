"""Tests for TLS over this project's connections, beyond the contract of transports."""

from __future__ import annotations

import socket
from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet.error import ConnectionDone, ConnectionLost
from twisted.internet.protocol import Protocol
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory

from reverseproxy.errors import TlsFailed
from reverseproxy.tls import inspect_factory, openssl, wrap_server
from tests.transport.contract import CallableFactory, HalfRecorder, Recorder, reset
from tests.transport.secure import Secure, SecureSocket
from tests.transport.test_contract import BIG


class ConnectionTests(Secure):
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

    async def test_the_peer_ends_before_all_is_sent(self) -> None:
        """An end-of-file does not cut off what is still to be sent."""
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

    # reading

    async def test_one_read_is_bounded(self) -> None:
        protocol, peer = await self.connect()
        await self.send(peer, BIG)
        await self.until(lambda: len(protocol.data) == len(BIG))
        self.assertLessEqual(max(map(len, protocol.pieces)), openssl.ROOM + openssl.RECORD)

    # other protocols between the socket and TLS

    async def test_behind_a_protocol_that_looks_at_data(self) -> None:
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

        await self.converse(protocol, CallableFactory(Between))

    async def test_in_a_wrapper(self) -> None:
        protocol = Recorder()
        secure = wrap_server(CallableFactory(lambda: protocol), self.server_tls, clock=self.reactor)
        wrapping: Any = WrappingFactory(secure)
        wrapping.protocol = ProtocolWrapper
        await self.converse(protocol, wrapping)

    async def test_behind_the_inspector(self) -> None:
        protocol = Recorder()
        secure = wrap_server(CallableFactory(lambda: protocol), self.server_tls, clock=self.reactor)
        await self.converse(protocol, inspect_factory(CallableFactory(lambda: None), secure))

    async def converse(self, protocol: Any, factory: Any) -> None:
        self.protocols.append(protocol)
        plain = self.socket()
        plain.connect_ex(self.listen_with(factory))
        peer = SecureSocket(self.client_tls.clientConnectionForTLS(None).get_context(), plain, server=False)
        await self.until(lambda: peer.shake_hands() and protocol.transport.established)
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


class UnixConnectionTests(Secure):
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
