from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

from OpenSSL import SSL
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import INegotiated, ISSLTransport, ISystemHandle, ITCPTransport
from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.logger import capturedLogs, formatEvent
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.errors import TlsFailed
from reverseproxy.limits.buffered_bytes import BufferBudget
from reverseproxy.net import time_share as time_share_module
from reverseproxy.tls import (
    ClientTls,
    ServerTls,
    TlsTransport,
    opening,
    record_layer,
    records,
    wrap_client,
    wrap_server,
)
from reverseproxy.tls.handshake_share import SHARE, handshake_share_of
from reverseproxy.tls.opening import MOST_EARLY
from reverseproxy.tls.records import DirectRecords, PublicRecords, Records
from reverseproxy.transport.backlog import NOTHING, Backlog
from reverseproxy.transport.closing import LINGER
from tests.certs import Certificates
from tests.tls.memory import FakeTcp, HalfRecorder, Recorder, TlsPair, Wire, factory_of

MEGABYTE = bytes(range(256)) * 4096


class Source:
    """A producer of so many bytes, and what was asked of it."""

    def __init__(self, consumer: Any, data: bytes, block: int = 20_000) -> None:
        self.consumer = consumer
        self.data = data
        self.block = block
        self.paused = self.stopped = False

    def resumeProducing(self) -> None:
        self.paused = False

    def pauseProducing(self) -> None:
        self.paused = True

    def stopProducing(self) -> None:
        self.stopped = True

    def give(self) -> None:
        """Write as long as it may."""
        while self.data and not self.paused:
            block, self.data = self.data[: self.block], self.data[self.block :]
            self.consumer.write(block)


class Pull:
    """A producer that writes a block whenever it is asked."""

    def __init__(self, consumer: Any, data: bytes) -> None:
        self.consumer = consumer
        self.data = data
        self.stopped = False

    def resumeProducing(self) -> None:
        block, self.data = self.data[:30_000], self.data[30_000:]
        self.consumer.write(block)
        if not self.data:
            self.consumer.unregisterProducer()

    def stopProducing(self) -> None:
        self.stopped = True


class TransportTestCase(SynchronousTestCase):
    records: type[Records] = DirectRecords

    def setUp(self) -> None:
        self.patch(record_layer, "records_of", self.records)
        self.certs = Certificates(Path(self.mktemp()))
        self.clock = Clock()
        self.server_tls = ServerTls([self.certs.server_context()])
        self.client_tls = ClientTls(self.certs.client_context(), "localhost")

    def pair(
        self,
        near: Recorder | None = None,
        far: Recorder | None = None,
        clock: bool = True,
        timeout: float | None = None,
        pump: bool = True,
    ) -> TlsPair:
        return TlsPair(
            self.client_tls,
            self.server_tls,
            near,
            far,
            self.clock if clock else None,
            timeout,
            pump,
        )

    def assert_closed(self, pair: TlsPair, near: type[Exception], far: type[Exception]) -> None:
        """Both ends are closed, with these reasons, and nothing is left to happen."""
        assert pair.near.reason is not None
        assert pair.far.reason is not None
        pair.near.reason.trap(near)
        pair.far.reason.trap(far)
        self.assertFalse(pair.client.connected or pair.server.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class TimeShareTests(TransportTestCase):
    """A client's handshake waits, if others have used up the time for handshakes."""

    def setUp(self) -> None:
        super().setUp()
        share = handshake_share_of(self.clock)
        # Handshakes have had a second of work.
        share.ask("others", lambda: setattr(self.clock, "rightNow", self.clock.rightNow + 1.0), self.fail)
        self.share = share

    def test_it_waits(self) -> None:
        pair = self.pair()
        self.assertEqual((pair.far.events, len(self.share)), (["made"], 1))
        pair.near.transport.write(b"early")
        self.clock.advance(1.0 / SHARE * 100)
        pair.pump()
        self.assertEqual((pair.far.events[:2], pair.far.received), (["made", "handshake"], b"early"))
        self.assertEqual(len(self.share), 0)

    def test_it_is_too_late(self) -> None:
        pair = self.pair(timeout=0.5)
        self.clock.advance(0.6)
        pair.pump()
        assert pair.far.reason is not None
        pair.far.reason.trap(TlsFailed)
        self.assertEqual((len(self.share), self.clock.getDelayedCalls()), (0, []))

    def test_it_leaves(self) -> None:
        pair = self.pair()
        pair.near.transport.abortConnection()
        pair.pump()
        self.assertEqual((len(self.share), self.clock.getDelayedCalls()), (0, []))

    def begun(self, far: Recorder | None = None) -> TlsPair:
        """A client whose last message waits: in TLS 1.3, its handshake is complete."""
        pair = self.pair(far=far)
        self.clock.advance(1.0 / SHARE * 100)
        self.share.ask(
            "others", lambda: setattr(self.clock, "rightNow", self.clock.rightNow + 1.0), self.fail
        )
        pair.pump()
        self.assertEqual((pair.near.events, pair.far.events), (["made", "handshake"], ["made"]))
        return pair

    def go_on(self, pair: TlsPair) -> None:
        self.assertEqual(len(self.share), 1)
        self.clock.advance(1.0 / SHARE * 100)
        pair.pump()
        self.assertEqual(len(self.share), 0)

    def test_it_sends_much_at_once(self) -> None:
        """It is read no further than a bound, and loses nothing."""
        pair = self.begun()
        pair.near.transport.write(MEGABYTE)
        pair.pump()
        self.assertFalse(pair.server.reading)
        self.assertGreater(len(pair.client.out), len(MEGABYTE) - 2 * MOST_EARLY)
        self.go_on(pair)
        self.assertEqual((pair.far.received, pair.far.reason), (MEGABYTE, None))

    def test_it_sends_much_to_one_who_does_not_read(self) -> None:
        far = HalfRecorder()
        pair = self.begun(far)
        far.transport.pauseProducing()
        pair.near.transport.write(MEGABYTE)
        pair.pump()
        self.go_on(pair)
        self.assertEqual((far.received, pair.server.reading), (b"", False))
        far.transport.resumeProducing()
        pair.pump()
        self.assertEqual(far.received, MEGABYTE)

    def test_it_sends_garbage_on_and_on(self) -> None:
        pair = self.pair()
        for _ in range(MOST_EARLY // 8192 + 1):
            pair.client.out += bytes(8192)
            pair.pump()
        self.assertFalse(pair.server.reading)
        self.go_on(pair)
        assert pair.far.reason is not None
        pair.far.reason.trap(TlsFailed)

    def test_it_says_all_and_closes(self) -> None:
        pair = self.begun()
        pair.near.transport.write(b"early")
        pair.near.transport.loseConnection()
        pair.pump()
        self.assertIsNone(pair.far.reason)
        self.go_on(pair)
        self.assertEqual(pair.far.received, b"early")
        self.assertEqual(pair.far.events[:3], ["made", "handshake", "read-closed"])
        self.assertIsNone(pair.far.reason)

    def test_it_says_something_and_is_cut_off(self) -> None:
        pair = self.begun()
        pair.near.transport.write(b"early")
        pair.client.loseWriteConnection()
        pair.pump()
        self.go_on(pair)
        assert pair.far.reason is not None
        self.assertEqual(pair.far.received, b"early")
        self.assertIn("truncated", pair.far.reason.getErrorMessage())

    def test_it_ends_before_it_could_be_complete(self) -> None:
        """There is no time for one that has not had our first message."""
        pair = self.pair()
        pair.client.loseWriteConnection()
        pair.pump()
        assert pair.far.reason is not None
        self.assertIn("during the handshake", pair.far.reason.getErrorMessage())
        self.assertEqual(len(self.share), 0)

    def test_too_many_wait(self) -> None:
        self.patch(time_share_module, "MOST", 1)
        first, second = self.pair(), self.pair()
        self.assertIsNone(first.far.reason)
        assert second.far.reason is not None
        self.assertIn("too many TLS handshakes wait", second.far.reason.getErrorMessage())


class ConnectionTests(TransportTestCase):
    def test_interfaces(self) -> None:
        pair = self.pair()
        for interface in (ITCPTransport, INegotiated, ISSLTransport, ISystemHandle):
            self.assertTrue(interface.providedBy(pair.far.transport), interface)
        verifyObject(ISSLTransport, pair.far.transport)

    def test_options_of_tcp(self) -> None:
        pair = self.pair()
        pair.near.transport.setTcpNoDelay(True)
        self.assertTrue(pair.client.no_delay and pair.near.transport.getTcpNoDelay())
        self.assertEqual(pair.near.transport.getPeer(), pair.server.address)
        self.assertEqual(pair.near.transport.getHost(), pair.client.address)

    def test_log_prefix(self) -> None:
        self.assertEqual(self.pair().near_tls.logPrefix(), "TLS")

    def test_a_refused_connection(self) -> None:
        self.assertIsNone(wrap_server(factory_of(None), self.server_tls).buildProtocol(None))

    def test_plaintext_while_there_is_no_certificate(self) -> None:
        tls = ServerTls([self.certs.server_context(cert_chain="", fall_back=True)])
        secure, plain = Protocol(), Protocol()
        factory = wrap_server(factory_of(secure), tls, plaintext=factory_of(plain))
        self.assertIs(factory.buildProtocol(None), plain)
        self.assertIs(wrap_server(factory_of(secure), tls).buildProtocol(None), secure)

    def test_a_timeout_needs_a_clock(self) -> None:
        self.assertRaises(ValueError, wrap_server, factory_of(None), self.server_tls, handshake_timeout=1.0)

    def test_data(self) -> None:
        pair = self.pair()
        pair.near.transport.write(b"question")
        pair.near.transport.writeSequence([b", ", b"and more"])
        pair.near.transport.write(b"")
        pair.pump()
        self.assertEqual(pair.far.received, b"question, and more")
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.write(b"the end")
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE + b"the end")

    def test_what_is_read_at_once_is_delivered_at_once(self) -> None:
        pair = self.pair()
        for _ in range(100):
            pair.near.transport.write(b"x" * 100)
        pair.pump()
        self.assertEqual(pair.far.reads, [10_000])

    def test_data_with_the_end_of_the_handshake(self) -> None:
        near = HalfRecorder()
        near.handshakeCompleted = lambda: near.transport.write(b"early")  # type: ignore[method-assign]
        pair = self.pair(near)
        self.assertEqual(pair.far.received, b"early")

    def test_openssl_is_given_a_portion_at_once(self) -> None:
        """A BIO keeps the room that it has needed once: with the handshake, while paused, and ever after."""
        given: list[int] = []
        for where, name in ((records, "bio_write"), (SSL.Connection, "bio_write")):
            real: Any = getattr(where, name)

            def give(bio: Any, data: Any, *size: int, real: Any = real) -> Any:
                given.append(size[0] if size else len(data))
                return real(bio, data, *size)

            self.patch(where, name, give)
        near = HalfRecorder()
        near.handshakeCompleted = lambda: near.transport.write(MEGABYTE)  # type: ignore[method-assign]
        pair = self.pair(near)
        self.assertEqual(len(pair.far.received), len(MEGABYTE))
        pair.far.transport.pauseProducing()
        near.transport.write(MEGABYTE)
        pair.pump()
        pair.far.transport.resumeProducing()
        pair.pump()
        self.assertEqual(pair.far.received, MEGABYTE * 2)
        self.assertEqual(max(given), records.PORTION)

    def test_written_before_the_handshake(self) -> None:
        near, far = HalfRecorder(), HalfRecorder()
        near.on_made = lambda: [near.transport.write(b"hel"), near.transport.write(b"lo")]  # type: ignore[func-returns-value]
        far.on_made = lambda: far.transport.write(b"banner")
        self.pair(near, far)
        self.assertEqual((far.received, near.received), (b"hello", b"banner"))

    def test_an_idle_connection_answers_a_request_for_new_keys(self) -> None:
        # pyOpenSSL can't ask for new keys; what matters is that OpenSSL's answers are sent.
        pair = self.pair()
        flush, flushed = record_layer.RecordLayer.flush, []

        def counting(layer: record_layer.RecordLayer) -> None:
            if layer is pair.far_tls._records:
                flushed.append(layer)
            flush(layer)

        self.patch(record_layer.RecordLayer, "flush", counting)
        for _ in range(64):
            pair.near.transport.write(b"x")
            pair.pump()
        self.assertEqual(len(flushed), 2)

    def test_a_large_flight_is_sent_whole(self) -> None:
        names = [f"host-{number:04}.{'x' * 50}.example.com" for number in range(1000)]
        pair = self.certs.issue("many", "localhost", *names)
        self.server_tls = ServerTls([self.certs.server_context(**pair.options)])
        self.assertEqual(self.pair().near.events, ["made", "handshake"])

    def test_damaged_data(self) -> None:
        pair = self.pair()
        pair.near.transport.write(b"intact")
        pair.client.out[-1] ^= 1
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assert_closed(pair, ConnectionLost, ConnectionLost)
        assert pair.far.reason is not None
        self.assertIn("bad record mac", pair.far.reason.getErrorMessage())
        assert pair.near.reason is not None
        self.assertIn("alert bad record mac", pair.near.reason.getErrorMessage())

    def test_intact_data_before_damaged_data(self) -> None:
        pair = self.pair()
        pair.near.transport.write(b"intact")
        pair.near.transport.write(b"damaged")
        pair.client.out[-1] ^= 1
        pair.pump()
        self.assertEqual(pair.far.received, b"intact")
        self.assert_closed(pair, ConnectionLost, ConnectionLost)

    def test_an_error_while_sending(self) -> None:
        pair = self.pair()
        failing = mock.Mock(side_effect=SSL.Error([("", "", "out of order")]))
        with mock.patch.object(pair.near_tls._records._codec, "encrypt", failing):
            pair.near.transport.write(b"x")
        pair.pump()
        assert pair.near.reason is not None
        pair.near.reason.trap(ConnectionLost)
        self.assertIn("out of order", pair.near.reason.getErrorMessage())

    def test_an_error_in_the_protocol_is_not_hidden(self) -> None:
        pair = self.pair()

        def fail(data: bytes) -> None:
            raise ZeroDivisionError

        pair.far.on_data = fail
        pair.near.transport.write(b"x")
        self.assertRaises(ZeroDivisionError, pair.pump)
        pair.far.on_data = lambda data: None
        pair.near.transport.write(b"y")
        pair.pump()
        self.assertEqual(pair.far.received, b"xy")

    def test_after_the_end_nothing_does_harm(self) -> None:
        pair = self.pair()
        transport = pair.far.transport
        pair.near.transport.loseConnection()
        transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)
        transport.write(b"x")
        transport.loseConnection()
        transport.loseWriteConnection()
        transport.abortConnection()
        transport.pauseProducing()
        transport.resumeProducing()
        transport.unregisterProducer()
        source = Source(transport, b"")
        transport.registerProducer(source, True)
        self.assertTrue(source.stopped)
        self.assertIsNone(transport.getPeerCertificate())
        self.assertIsNone(transport.getHandle())
        self.assertIsNone(transport.negotiatedProtocol)
        transport.dataReceived(b"x")
        transport.readConnectionLost()
        transport.writeConnectionLost()


class UnfinishedTests(TransportTestCase):
    """What clients say before the handshake is complete is counted."""

    def setUp(self) -> None:
        super().setUp()
        # Other tests of the process may have left connections behind that still count.
        self.books = BufferBudget(1 << 20)
        self.patch(opening, "UNTRUSTED", self.books)

    def test_a_hello_that_does_not_end(self) -> None:
        far = Recorder()
        factory = wrap_server(factory_of(far), self.server_tls, clock=self.clock)
        protocol = factory.buildProtocol(None)
        client = Recorder()
        wire = Wire(client, protocol)
        assert client.transport is not None
        client.transport.write(bytes.fromhex("16030140000100400003030000") + b"x" * 12_000)
        wire.pump()
        self.assertEqual(self.books.total, 12_013)
        self.books.limit = 12_013
        client.transport.write(b"x")
        wire.pump()
        self.assertEqual((self.books.total, self.books.ended), (0, 1))
        self.assertTrue(wire.server.lost or not wire.server.connected)

    def test_a_handshake_that_is_complete(self) -> None:
        pair = self.pair()
        pair.near.transport.write(MEGABYTE)
        pair.pump()
        self.assertEqual((self.books.total, self.books.ended), (0, 0))


class HalfCloseTests(TransportTestCase):
    def test_the_client_first(self) -> None:
        pair = self.pair()
        pair.near.transport.write(MEGABYTE)
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.received, MEGABYTE)
        self.assertEqual(pair.far.events, ["made", "handshake", "read-closed"])
        self.assertEqual(pair.near.events, ["made", "handshake", "write-closed"])
        pair.far.transport.write(MEGABYTE)
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)
        self.assertEqual(pair.near.events[3:], ["read-closed", "lost"])
        self.assertEqual(pair.far.events[3:], ["lost"])

    def test_the_server_first(self) -> None:
        pair = self.pair()
        pair.far.transport.write(b"that was all")
        pair.far.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.near.received, b"that was all")
        pair.near.transport.write(MEGABYTE)
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.received, MEGABYTE)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)
        self.assertEqual(pair.far.events[2:], ["write-closed", "read-closed", "lost"])
        self.assertEqual(pair.near.events[2:], ["read-closed", "write-closed", "lost"])

    def test_both_at_once(self) -> None:
        pair = self.pair()
        for recorder in (pair.near, pair.far):
            recorder.transport.write(MEGABYTE)
            recorder.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assertEqual(pair.far.received, MEGABYTE)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_twice(self) -> None:
        pair = self.pair()
        for _ in range(2):
            pair.near.transport.loseWriteConnection()
            pair.pump()
        self.assertEqual(pair.near.events.count("write-closed"), 1)
        self.assertEqual(pair.far.events.count("read-closed"), 1)
        pair.far.transport.write(b"still open")
        pair.pump()
        self.assertEqual(pair.near.received, b"still open")

    def test_what_is_written_later_is_dropped(self) -> None:
        pair = self.pair()
        pair.near.transport.loseWriteConnection()
        pair.near.transport.write(b"too late")
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assertEqual(pair.far.events[-1], "read-closed")

    def test_what_comes_after_the_end_is_dropped(self) -> None:
        pair = self.pair()
        pair.near.transport.loseWriteConnection()
        pair.pump()
        pair.far_tls.dataReceived(b"\x17\x03\x03\x00\x05hello")
        self.assertEqual(pair.far.received, b"")
        self.assertEqual(pair.far.events[-1], "read-closed")

    def test_before_the_handshake_is_complete(self) -> None:
        near = HalfRecorder()

        def made() -> None:
            near.transport.write(b"all that I have to say")
            near.transport.loseWriteConnection()

        near.on_made = made
        pair = self.pair(near)
        self.assertEqual(pair.far.received, b"all that I have to say")
        self.assertEqual(pair.far.events, ["made", "handshake", "read-closed"])
        pair.far.transport.write(b"answer")
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertEqual(near.received, b"answer")
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_a_protocol_that_knows_no_half_closes(self) -> None:
        pair = self.pair(far=Recorder())
        pair.near.transport.write(b"x")
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.received, b"x")
        self.assert_closed(pair, ConnectionDone, ConnectionDone)
        self.assertEqual(pair.near.events[2:], ["write-closed", "read-closed", "lost"])

    def test_half_close_of_a_protocol_that_knows_none(self) -> None:
        pair = self.pair(near=Recorder())
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.near.events, ["made", "handshake"])
        pair.far.transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_end_of_file_of_tcp_after_close_notify_is_nothing_new(self) -> None:
        pair = self.pair()
        pair.near.transport.loseWriteConnection()
        pair.client.loseWriteConnection()
        pair.pump()
        self.assertTrue(pair.server.read_closed)
        self.assertEqual(pair.far.events, ["made", "handshake", "read-closed"])
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_answered_from_within(self) -> None:
        pair = self.pair()
        far = pair.far
        far.on_read_closed = lambda: [far.transport.write(b"bye"), far.transport.loseConnection()]  # type: ignore[func-returns-value]
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.near.received, b"bye")
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_aborted_from_within(self) -> None:
        pair = self.pair()
        pair.far.on_read_closed = pair.far.transport.abortConnection
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionLost, ConnectionAborted)

    def test_with_a_producer(self) -> None:
        pair = self.pair()
        source = Source(pair.near.transport, MEGABYTE)
        pair.near.transport.registerProducer(source, True)
        pair.near.transport.loseWriteConnection()
        source.give()
        pair.pump()
        self.assertNotIn("read-closed", pair.far.events)
        while source.data:
            source.give()
            pair.pump()
        pair.near.transport.unregisterProducer()
        pair.near.transport.write(b"too late")
        pair.pump()
        self.assertEqual(pair.far.received, MEGABYTE)
        self.assertEqual(pair.far.events[-1], "read-closed")


class TruncationTests(TransportTestCase):
    def assert_truncated(self, recorder: Recorder) -> None:
        assert recorder.reason is not None
        recorder.reason.trap(ConnectionLost)
        self.assertIn("truncated", recorder.reason.getErrorMessage())
        self.assertEqual(recorder.events[-1], "lost")
        self.assertNotIn("read-closed", recorder.events)

    def test_end_of_file(self) -> None:
        pair = self.pair()
        pair.near.transport.write(b"half of it")
        pair.client.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.received, b"half of it")
        self.assert_truncated(pair.far)
        self.assertFalse(pair.server.connected)

    def test_close(self) -> None:
        pair = self.pair(far=Recorder())
        pair.client.loseConnection()
        pair.pump()
        self.assert_truncated(pair.far)

    def test_in_the_middle_of_a_record(self) -> None:
        pair = self.pair()
        pair.near.transport.write(b"x" * 1000)
        del pair.client.out[-100:]
        pair.client.loseConnection()
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assert_truncated(pair.far)

    def test_told_by_connection_lost(self) -> None:
        # TCP transports that know no half-closes report a clean end at once.
        pair = self.pair()
        pair.server.drop(ConnectionDone())
        self.assert_truncated(pair.far)

    def test_reset_is_reported_as_it_is(self) -> None:
        pair = self.pair()
        pair.client.abortConnection()
        pair.pump()
        assert pair.far.reason is not None
        pair.far.reason.trap(ConnectionLost)
        self.assertIn("reset by peer", pair.far.reason.getErrorMessage())

    def test_lost_while_paused(self) -> None:
        pair = self.pair()
        pair.far.on_data = lambda data: pair.far.transport.pauseProducing()
        pair.near.transport.write(b"one")
        pair.pump()
        # What TCP had taken in before it was paused is decrypted only now.
        pair.near.transport.write(b"two")
        pair.far_tls.dataReceived(bytes(pair.client.out))
        pair.client.out.clear()
        self.assertEqual(pair.far.received, b"one")
        pair.server.drop(ConnectionDone())
        self.assertEqual(pair.far.received, b"onetwo")
        self.assert_truncated(pair.far)

    def test_closed_while_paused(self) -> None:
        pair = self.pair()
        pair.far.transport.pauseProducing()
        pair.near.transport.write(b"all")
        pair.near.transport.loseWriteConnection()
        pair.far_tls.dataReceived(bytes(pair.client.out))
        self.assertEqual(pair.far.events, ["made", "handshake"])
        pair.server.drop(ConnectionDone())
        self.assertEqual(pair.far.received, b"all")
        self.assertEqual(pair.far.events[2:], ["read-closed", "lost"])
        assert pair.far.reason is not None
        pair.far.reason.trap(ConnectionDone)

    def test_during_the_handshake(self) -> None:
        for early in (False, True):
            pair = self.pair(pump=False)
            if early:
                pair.client.out.clear()
            else:
                del pair.client.out[100:]
            pair.client.loseConnection()
            with capturedLogs() as events:
                pair.pump()
            assert pair.far.reason is not None
            pair.far.reason.trap(TlsFailed)
            self.assertIn("during the handshake", formatEvent(events[-1]))
            self.assertEqual(pair.far.events, ["made", "lost"])


class CloseTests(TransportTestCase):
    def test_close(self) -> None:
        for first, second in (("near", "far"), ("far", "near")):
            pair = self.pair()
            getattr(pair, first).transport.write(MEGABYTE)
            getattr(pair, first).transport.loseConnection()
            getattr(pair, first).transport.loseConnection()
            pair.pump()
            self.assertEqual(getattr(pair, second).received, MEGABYTE)
            getattr(pair, second).transport.loseConnection()
            pair.pump()
            self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_protocols_that_know_no_half_closes(self) -> None:
        pair = self.pair(Recorder(), Recorder())
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_after_our_half_close(self) -> None:
        pair = self.pair()
        pair.near.transport.loseWriteConnection()
        pair.pump()
        pair.near.transport.loseConnection()
        pair.pump()
        assert pair.near.reason is not None
        pair.near.reason.trap(ConnectionDone)
        self.assertFalse(pair.client.connected)

    def test_a_server_waits_for_the_client_to_close(self) -> None:
        pair = self.pair()
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertTrue(pair.server.connected)
        pair.near.transport.write(b"dropped")
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_but_not_for_ever(self) -> None:
        """Its time begins at once, although it has not received our own close_notify yet."""
        pair = self.pair()
        pair.server.backlog = lambda: Backlog(31, 31)  # type: ignore[attr-defined]
        pair.far.transport.loseConnection()
        pair.pump()
        pair.server.backlog = lambda: NOTHING  # type: ignore[attr-defined]
        self.clock.advance(LINGER - 0.1)
        pair.pump()
        self.assertTrue(pair.server.connected)
        self.clock.advance(0.1)
        pair.pump()
        self.assertFalse(pair.server.connected)
        assert pair.far.reason is not None
        pair.far.reason.trap(ConnectionDone)

    def test_while_waiting_end_of_file_is_enough(self) -> None:
        pair = self.pair()
        pair.far.transport.loseConnection()
        pair.pump()
        pair.client.loseConnection()
        pair.pump()
        assert pair.far.reason is not None
        pair.far.reason.trap(ConnectionDone)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_waiting_reads_even_if_paused(self) -> None:
        pair = self.pair()
        pair.far.transport.pauseProducing()
        pair.far.transport.loseConnection()
        pair.far.transport.pauseProducing()
        pair.near.transport.write(MEGABYTE)
        pair.near.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_without_a_clock_it_does_not_wait(self) -> None:
        pair = self.pair(clock=False)
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assertFalse(pair.server.connected)

    def test_at_the_deadline_nothing_is_lost_that_is_still_to_be_sent(self) -> None:
        pair = self.pair()
        pair.client.pauseProducing()
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.loseConnection()
        pair.pump()
        self.clock.advance(LINGER)
        pair.pump()
        pair.client.resumeProducing()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assertEqual(pair.near.events[2:3], ["read-closed"])

    def test_the_time_begins_when_everything_is_received(self) -> None:
        """Until then the client's own data is read, lest it gets a reset instead of the rest."""
        pair = self.pair()
        pair.server.backlog = lambda: Backlog(len(pair.server.out), len(pair.server.out))  # type: ignore[attr-defined]
        pair.client.pauseProducing()
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.loseConnection()
        for _ in range(3):
            self.clock.advance(LINGER)
            pair.near.transport.write(b"dropped")
            pair.client.resumeProducing()
            pair.server.step()
            pair.client.pauseProducing()
            pair.pump()
            self.assertTrue(pair.server.reading)
            self.assertEqual(pair.client.out, b"")
        pair.client.resumeProducing()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.clock.advance(LINGER)
        pair.pump()
        self.assertTrue(pair.server.connected)
        self.clock.advance(LINGER)
        pair.pump()
        self.assertFalse(pair.server.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_with_a_producer_once_more(self) -> None:
        """One that comes when the connection is closing leaves no timer behind."""
        pair = self.pair()
        pair.far.transport.loseConnection()
        pair.far.transport.registerProducer(Source(pair.far.transport, b""), True)
        pair.far.transport.unregisterProducer()
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        pair.near.transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def hold(self, pair: TlsPair, data: bytes) -> None:
        """Have ciphertext arrive at the far end in spite of its pause."""
        pair.far.transport.pauseProducing()
        pair.near.transport.write(data)
        self.take(pair)

    def take(self, pair: TlsPair) -> None:
        pair.far_tls.dataReceived(bytes(pair.client.out))
        pair.client.out.clear()

    def test_what_was_held_comes_before_what_comes(self) -> None:
        """Records out of their order can't be decrypted."""
        pair = self.pair()
        self.hold(pair, b"held")
        pair.far.transport.loseConnection()
        pair.near.transport.write(b"more")
        pair.near.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_what_was_held_comes_first_with_a_producer(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, b"x" * 30_000)
        pair.far.transport.registerProducer(source, True)
        self.hold(pair, b"held")
        pair.far.transport.loseConnection()
        pair.far.transport.resumeProducing()
        pair.near.transport.write(b"more")
        self.take(pair)
        self.assertEqual(pair.far_tls._records._held, [])
        source.give()
        pair.far.transport.unregisterProducer()
        pair.pump()
        self.assertEqual(len(pair.near.received), 30_000)
        pair.near.transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_a_close_notify_that_was_held(self) -> None:
        """Nothing is awaited then."""
        pair = self.pair()
        pair.near.transport.loseWriteConnection()
        self.hold(pair, b"")
        self.assertNotIn("read-closed", pair.far.events)
        pair.far.transport.loseConnection()
        self.assertTrue(pair.server.disconnecting)
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_a_pause_while_it_closes(self) -> None:
        """There is nothing to pause: what comes is dropped, and not kept."""
        for producer in (None, Source(None, b"")):
            pair = self.pair()
            if producer is not None:
                pair.far.transport.registerProducer(producer, True)
            pair.far.transport.loseConnection()
            pair.far.transport.pauseProducing()
            pair.near.transport.write(MEGABYTE)
            pair.pump()
            self.assertEqual((pair.client.out, pair.far_tls._records._held), (b"", []))
            pair.far.transport.unregisterProducer()
            pair.near.transport.loseConnection()
            pair.pump()
            self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_with_a_producer(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, b"x" * 30_000)
        pair.far.transport.registerProducer(source, True)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertNotIn("read-closed", pair.near.events)
        source.give()
        pair.far.transport.unregisterProducer()
        pair.pump()
        self.assertEqual(len(pair.near.received), 30_000)
        self.assertEqual(pair.near.events[2:], ["read-closed"])

    def test_peer_closes_while_a_producer_is_at_work(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, b"x" * 30_000)
        pair.far.transport.registerProducer(source, True)
        pair.far.transport.loseConnection()
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertTrue(pair.server.connected)
        source.give()
        pair.far.transport.unregisterProducer()
        pair.pump()
        self.assertEqual(len(pair.near.received), 30_000)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_peer_closes_while_a_producer_is_paused(self) -> None:
        pair = self.pair(far=Recorder())
        source = Source(pair.far.transport, MEGABYTE)
        pair.far.transport.registerProducer(source, True)
        pair.client.pauseProducing()
        source.give()
        self.assertTrue(source.paused)
        pair.near.transport.loseWriteConnection()
        pair.pump()
        pair.client.resumeProducing()
        pair.pump()
        self.assertTrue(source.stopped)
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_an_error_while_a_producer_is_paused(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, MEGABYTE)
        pair.far.transport.registerProducer(source, True)
        pair.client.pauseProducing()
        source.give()
        pair.near.transport.write(b"x")
        pair.client.out[-1] ^= 1
        pair.pump()
        pair.client.resumeProducing()
        pair.pump()
        self.assertTrue(source.stopped)
        self.assert_closed(pair, ConnectionLost, ConnectionLost)
        pair.far.transport.unregisterProducer()

    def test_as_a_producer_and_a_consumer(self) -> None:
        for method in ("stopProducing", "stopConsuming"):
            pair = self.pair()
            source = Source(pair.far.transport, b"")
            pair.far.transport.registerProducer(source, True)
            getattr(pair.far.transport, method)()
            pair.far.transport.unregisterProducer()
            pair.pump()
            self.assertIn("read-closed", pair.near.events)
            pair.near.transport.loseConnection()
            pair.pump()
            self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_before_the_handshake_with_something_to_say(self) -> None:
        near = Recorder()
        near.on_made = lambda: [near.transport.write(b"last words"), near.transport.loseConnection()]  # type: ignore[func-returns-value]
        pair = self.pair(near)
        self.assertEqual(pair.far.received, b"last words")
        self.assertEqual(near.events, ["made", "lost"])
        pair.far.transport.loseConnection()
        pair.pump()
        self.assert_closed(pair, ConnectionDone, ConnectionDone)

    def test_before_the_handshake_with_nothing_to_say(self) -> None:
        near = Recorder()
        near.on_made = lambda: near.transport.loseConnection()
        with capturedLogs() as events:
            pair = self.pair(near)
        self.assert_closed(pair, ConnectionAborted, TlsFailed)
        # Our own doing is not a failure to log; the other end's is.
        self.assertEqual([formatEvent(event) for event in events if "localhost" in formatEvent(event)], [])
        self.assertEqual(len(events), 1)

    def test_an_error_while_closing(self) -> None:
        pair = self.pair()
        way = pair.near_tls._records
        with mock.patch.object(way, "_connection", wraps=pair.near_tls.getHandle()) as connection:
            connection.shutdown.side_effect = SSL.Error([])
            pair.near.transport.loseConnection()
        pair.pump()
        self.assertFalse(pair.client.connected)


class AbortTests(TransportTestCase):
    def test_abort(self) -> None:
        pair = self.pair()
        pair.far.transport.write(MEGABYTE)
        pair.far.transport.abortConnection()
        pair.far.transport.abortConnection()
        pair.far.transport.write(b"too late")
        pair.near.transport.write(b"not heard")
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assert_closed(pair, ConnectionLost, ConnectionAborted)
        self.assertNotIn("read-closed", pair.near.events)

    def test_from_within(self) -> None:
        pair = self.pair()
        pair.far.on_data = lambda data: pair.far.transport.abortConnection()
        pair.near.transport.write(b"x")
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertNotIn("read-closed", pair.far.events)
        self.assert_closed(pair, ConnectionLost, ConnectionAborted)

    def test_while_waiting_for_the_client_to_close(self) -> None:
        pair = self.pair()
        pair.far.transport.loseConnection()
        pair.far.transport.abortConnection()
        pair.pump()
        self.assertEqual(pair.far.events.count("lost"), 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_when_made(self) -> None:
        far = Recorder()
        far.on_made = lambda: far.transport.abortConnection()
        pair = self.pair(far=far)
        self.assertEqual(far.events, ["made", "lost"])
        self.assert_closed(pair, TlsFailed, ConnectionAborted)

    def test_when_the_handshake_is_complete(self) -> None:
        far = Recorder()
        far.handshakeCompleted = lambda: far.transport.abortConnection()  # type: ignore[method-assign]
        pair = self.pair(far=far)
        self.assertFalse(pair.client.connected or pair.server.connected)


class HandshakeDeadlineTests(TransportTestCase):
    def test_in_time(self) -> None:
        pair = self.pair(timeout=15.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(pair.far.events, ["made", "handshake"])

    def test_silent_client(self) -> None:
        pair = self.pair(timeout=15.0, pump=False)
        pair.client.out.clear()
        self.clock.advance(14.9)
        pair.pump()
        self.assertTrue(pair.server.connected)
        with capturedLogs() as events:
            self.clock.advance(0.1)
            pair.pump()
        self.assertFalse(pair.server.connected)
        assert pair.far.reason is not None
        pair.far.reason.trap(TlsFailed)
        self.assertRegex(formatEvent(events[0]), "TLS handshake with .*50000.* not complete after 15 s")

    def test_slow_client(self) -> None:
        pair = self.pair(timeout=15.0, pump=False)
        hello = bytes(pair.client.out)
        pair.client.out.clear()
        for byte in range(15):
            pair.far_tls.dataReceived(hello[byte : byte + 1])
            self.clock.advance(1)
        pair.pump()
        self.assertFalse(pair.server.connected)

    def test_slow_hello_among_several_contexts(self) -> None:
        self.server_tls = ServerTls([self.certs.server_context(), self.certs.server_context()])
        pair = self.pair(timeout=15.0, pump=False)
        del pair.client.out[50:]
        pair.pump()
        self.clock.advance(15)
        pair.pump()
        self.assertFalse(pair.server.connected)

    def test_lost_before(self) -> None:
        pair = self.pair(timeout=15.0, pump=False)
        pair.client.abortConnection()
        pair.pump()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_failure_that_came_first_is_the_reason(self) -> None:
        self.client_tls = ClientTls(self.certs.client_context(), "example.com")
        pair = self.pair(timeout=15.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        assert pair.far.reason is not None
        self.assertIn("alert", pair.far.reason.getErrorMessage())


class BackPressureTests(TransportTestCase):
    def test_paused(self) -> None:
        pair = self.pair()
        pair.far.transport.pauseProducing()
        pair.near.transport.write(b"x")
        pair.pump()
        self.assertEqual(pair.far.received, b"")
        self.assertFalse(pair.server.reading)
        pair.far.transport.resumeProducing()
        pair.pump()
        self.assertEqual(pair.far.received, b"x")

    def test_paused_from_within(self) -> None:
        pair = self.pair()
        pair.far.on_data = lambda data: pair.far.transport.pauseProducing()
        pair.near.transport.write(MEGABYTE)
        pair.pump()
        self.assertEqual(len(pair.far.reads), 1)
        self.assertLessEqual(len(pair.far.received), 65536)
        while len(pair.far.received) < len(MEGABYTE):
            before = len(pair.far.received)
            pair.far.transport.resumeProducing()
            pair.pump()
            self.assertLessEqual(len(pair.far.received) - before, 65536)
        self.assertEqual(pair.far.received, MEGABYTE)

    def test_paused_and_resumed_from_within(self) -> None:
        pair = self.pair()

        def blink(data: bytes) -> None:
            pair.far.transport.pauseProducing()
            pair.far.transport.resumeProducing()

        pair.far.on_data = blink
        pair.near.transport.write(MEGABYTE)
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.received, MEGABYTE)
        self.assertEqual(pair.far.events.count("read-closed"), 1)

    def test_the_end_waits_until_it_is_resumed(self) -> None:
        pair = self.pair()
        pair.far.on_data = lambda data: pair.far.transport.pauseProducing()
        pair.near.transport.write(b"x")
        pair.near.transport.loseWriteConnection()
        pair.pump()
        self.assertEqual(pair.far.events, ["made", "handshake"])
        pair.far.transport.resumeProducing()
        self.assertEqual(pair.far.events, ["made", "handshake", "read-closed"])

    def test_paused_during_the_handshake(self) -> None:
        far = HalfRecorder()
        far.on_made = lambda: far.transport.pauseProducing()
        pair = self.pair(far=far)
        self.assertTrue(pair.far_tls.established)
        pair.near.transport.write(b"x")
        pair.pump()
        self.assertEqual(far.received, b"")
        far.transport.resumeProducing()
        pair.pump()
        self.assertEqual(far.received, b"x")

    def test_paused_and_resumed_during_the_handshake(self) -> None:
        far = HalfRecorder()
        far.on_made = lambda: [far.transport.pauseProducing(), far.transport.resumeProducing()]  # type: ignore[func-returns-value]
        pair = self.pair(far=far)
        pair.near.transport.write(b"x")
        pair.pump()
        self.assertEqual(far.received, b"x")

    def test_delivery_while_delivering(self) -> None:
        # A transport in memory may answer at once, from within the delivery.
        pair = self.pair()
        more = []

        def echo(data: bytes) -> None:
            if more:
                pair.far_tls.dataReceived(more.pop())

        pair.far.on_data = echo
        pair.near.transport.write(b"one")
        first = bytes(pair.client.out)
        pair.client.out.clear()
        pair.near.transport.write(b"two")
        more.append(bytes(pair.client.out))
        pair.client.out.clear()
        pair.far_tls.dataReceived(first)
        self.assertEqual(pair.far.received, b"onetwo")
        self.assertEqual(pair.far.reads, [3, 3])

    def test_a_producer_is_paused(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, MEGABYTE)
        pair.far.transport.registerProducer(source, True)
        pair.client.pauseProducing()
        source.give()
        self.assertTrue(source.paused)
        self.assertLess(pair.server.buffered, 100_000)
        pair.client.resumeProducing()
        while source.data:
            pair.pump()
            source.give()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assertLess(pair.server.buffered, 100_000)

    def test_one_producer_at_a_time(self) -> None:
        pair = self.pair()
        pair.far.transport.registerProducer(Source(pair.far.transport, b""), True)
        self.assertRaises(
            RuntimeError, pair.far.transport.registerProducer, Source(pair.far.transport, b""), True
        )

    def test_a_pull_producer(self) -> None:
        pair = self.pair()
        pair.far.transport.registerProducer(Pull(pair.far.transport, MEGABYTE), False)
        pair.far.transport.loseConnection()
        pair.pump()
        self.assertEqual(pair.near.received, MEGABYTE)
        self.assertLess(pair.server.buffered, 40_000)
        self.assertEqual(pair.near.events[-1], "read-closed")

    def test_a_pull_producer_before_the_handshake(self) -> None:
        far = HalfRecorder()
        far.on_made = lambda: far.transport.registerProducer(Pull(far.transport, MEGABYTE), False)
        pair = self.pair(far=far)
        self.assertEqual(pair.near.received, MEGABYTE)

    def test_a_producer_before_the_handshake(self) -> None:
        near = HalfRecorder()
        source = Source(None, MEGABYTE)

        def made() -> None:
            source.consumer = near.transport
            near.transport.registerProducer(source, True)
            source.give()

        near.on_made = made
        pair = self.pair(near, pump=False)
        self.assertTrue(source.paused)
        self.assertEqual(len(source.data), len(MEGABYTE) - source.block)
        while source.data or pair.client.out:
            pair.pump()
            source.give()
        self.assertEqual(pair.far.received, MEGABYTE)

    def test_a_producer_that_comes_when_something_is_waiting(self) -> None:
        near = HalfRecorder()
        source = Source(None, b"")

        def made() -> None:
            near.transport.write(b"waiting")
            near.transport.registerProducer(source, True)

        near.on_made = made
        pair = self.pair(near, pump=False)
        self.assertTrue(source.paused)
        pair.pump()
        self.assertFalse(source.paused)
        self.assertEqual(pair.far.received, b"waiting")

    def test_a_producer_that_leaves_before_the_handshake(self) -> None:
        near = HalfRecorder()

        def made() -> None:
            near.transport.registerProducer(Source(near.transport, b""), True)
            near.transport.unregisterProducer()

        near.on_made = made
        pair = self.pair(near)
        self.assertIsNone(pair.client.producer)

    def test_a_producer_whose_connection_fails(self) -> None:
        near = HalfRecorder()
        source = Source(None, b"")
        near.on_made = lambda: near.transport.registerProducer(source, True)
        self.client_tls = ClientTls(self.certs.client_context(), "example.com")
        self.pair(near)
        self.assertTrue(source.stopped)

    def test_a_producer_whose_connection_is_lost(self) -> None:
        pair = self.pair()
        source = Source(pair.far.transport, b"")
        pair.far.transport.registerProducer(source, True)
        pair.client.abortConnection()
        pair.pump()
        self.assertTrue(source.stopped)


class TwoLayersTests(TransportTestCase):
    def test_tls_within_tls(self) -> None:
        near, far = HalfRecorder(), HalfRecorder()
        inner_near = wrap_client(factory_of(near), self.client_tls)
        inner_far = wrap_server(factory_of(far), self.server_tls, clock=self.clock)
        outer_near: TlsTransport = wrap_client(inner_near, self.client_tls).buildProtocol(None)
        outer_far: TlsTransport = wrap_server(inner_far, self.server_tls, clock=self.clock).buildProtocol(
            None
        )
        wire = Wire(outer_near, outer_far)
        wire.pump()
        near.transport.write(MEGABYTE)
        near.transport.loseWriteConnection()
        wire.pump()
        self.assertEqual(far.received, MEGABYTE)
        self.assertEqual(far.events, ["made", "handshake", "read-closed"])
        far.transport.write(MEGABYTE)
        far.transport.loseConnection()
        wire.pump()
        self.assertEqual(near.received, MEGABYTE)
        self.assertFalse(wire.client.connected or wire.server.connected)

    def test_over_a_transport_that_takes_memory_to_be_overwritten(self) -> None:
        """The outer connection passes on what it does not have itself, but not what would go around it."""

        def write_view(tcp: FakeTcp, data: bytes | memoryview) -> None:
            views.append(type(data))
            tcp.write(bytes(data))

        views: list[type] = []
        with mock.patch.object(FakeTcp, "write_view", write_view, create=True):
            self.test_tls_within_tls()
        self.assertEqual(set(views) - {bytes}, {memoryview} if self.records is DirectRecords else set())


class PublicConnectionTests(ConnectionTests):
    records = PublicRecords


class PublicHalfCloseTests(HalfCloseTests):
    records = PublicRecords


class PublicTruncationTests(TruncationTests):
    records = PublicRecords


class PublicCloseTests(CloseTests):
    records = PublicRecords


class PublicAbortTests(AbortTests):
    records = PublicRecords


class PublicHandshakeDeadlineTests(HandshakeDeadlineTests):
    records = PublicRecords


class PublicBackPressureTests(BackPressureTests):
    records = PublicRecords


class PublicTwoLayersTests(TwoLayersTests):
    records = PublicRecords
