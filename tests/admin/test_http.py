"""Tests for L{reverseproxy.admin.http}: what one connection may do, and for how long."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransportWithDisconnection
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.admin.http import READING, SHARE, make_factory
from reverseproxy.admin.long_body import PORTION
from reverseproxy.admin.messages import Call, Reply, StreamedReply
from reverseproxy.admin.request import IDLE, MOST_EARLY
from reverseproxy.interfaces import ConnectionInfo, IDrainable, IExpendable
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.net import time_share

HEAD = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n"


def work_of(clock: Clock) -> Callable[[], None]:
    """A second of it."""

    def work() -> None:
        clock.rightNow += 1.0

    return work


class ChannelTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.asked: list[Deferred[Reply | StreamedReply]] = []
        build = make_factory(self.handle, self.clock)
        self.channel: Any = build(ConnectionInfo(remote="127.0.0.1:1", local="127.0.0.1:2", secure=False))
        self.transport: Any = StringTransportWithDisconnection()
        self.transport.protocol = self.channel
        self.transport.abortConnection = self.transport.loseConnection
        self.channel.makeConnection(self.transport)

    async def handle(self, call: Call) -> Reply | StreamedReply:
        self.asked.append(Deferred())
        return await self.asked[-1]

    def pass_time(self, seconds: float, data: bytes = b"") -> None:
        """Let time pass, with something that comes each second."""
        for _ in range(int(seconds)):
            if data and self.transport.connected:
                self.channel.dataReceived(data)
            self.clock.advance(1.0)

    def test_draining(self) -> None:
        """An idle connection is closed, and another one when its answer has been written."""
        verifyObject(IDrainable, self.channel)
        self.channel.dataReceived((HEAD + b"\r\n") * 2)
        self.assertTrue(self.channel.busy)
        self.channel.drain()
        self.assertTrue(self.transport.connected)
        self.asked[0].callback(Reply.text("served"))
        self.assertIn(b"served", self.transport.value())
        self.assertEqual((self.transport.connected, len(self.asked)), (False, 1))
        self.setUp()
        self.channel.dataReceived(HEAD)
        self.channel.drain()
        self.assertFalse(self.transport.connected)

    def test_a_stream(self) -> None:
        """It ends if the connection is drained, and if the client reads nothing for too long."""
        for drained in (True, False):
            self.setUp()
            self.channel.dataReceived(HEAD + b"\r\n")
            writes: list[Callable[[bytes], bool]] = []
            ended: list[bool] = []

            def begin(write: Any, end: Any) -> Any:
                writes.append(write)  # noqa: B023
                return lambda: ended.append(True)  # noqa: B023

            self.asked[0].callback(StreamedReply(begin))
            self.pass_time(3 * IDLE)
            self.assertTrue(writes[0](b"event"))
            if drained:
                self.channel.drain()
                self.assertTrue(self.transport.value().endswith(b"event\r\n0\r\n\r\n"))
            else:
                self.transport.producer.pauseProducing()
                self.assertFalse(writes[0](b""))
                self.pass_time(IDLE - 1)
                self.transport.producer.resumeProducing()
                self.pass_time(IDLE)
                self.assertTrue(writes[0](b""))
                self.transport.producer.pauseProducing()
                self.pass_time(IDLE + 1)
            self.assertEqual((self.transport.connected, ended), (False, [True]))
            self.assertFalse(writes[0](b"more"))
            self.pass_time(60)
            self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_stream_that_ends_as_it_begins(self) -> None:
        """For instance as the client's token has just been revoked."""
        self.channel.dataReceived(HEAD + b"\r\n")
        ended: list[bool] = []

        def begin(write: Any, end: Any) -> Any:
            self.assertFalse(write(b"told"))
            return lambda: ended.append(True)

        self.asked[0].callback(StreamedReply(begin, allowed=lambda: False))
        self.assertEqual(ended, [True])
        self.assertNotIn(b"told", self.transport.value())

    def test_who_has_asked_for_nothing_is_expendable(self) -> None:
        verifyObject(IExpendable, self.channel)
        parts = (b"", HEAD, b"Content-Length: 2\r\n\r\n", b"x")
        for part in parts:
            self.channel.dataReceived(part)
            self.assertTrue(self.channel.expendable, part)
        self.channel.dataReceived(b"y")
        self.assertEqual((len(self.asked), self.channel.expendable), (1, False))
        self.asked[0].callback(Reply.text("served"))
        self.assertTrue(self.channel.expendable)
        self.assertIn(b"served", self.transport.value())

    def test_silent(self) -> None:
        self.pass_time(IDLE - 1)
        self.assertTrue(self.transport.connected)
        self.pass_time(2)
        self.assertFalse(self.transport.connected)
        self.pass_time(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_head_that_comes_slowly(self) -> None:
        self.channel.dataReceived(HEAD)
        self.pass_time(IDLE - 1, b"X: y\r\n")
        self.assertTrue(self.transport.connected)
        self.pass_time(2, b"X: y\r\n")
        self.assertFalse(self.transport.connected)

    def test_a_body_that_comes_slowly(self) -> None:
        self.channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n\r\n")
        self.pass_time(IDLE + 1, b"x")
        self.assertFalse(self.transport.connected)

    def test_an_answer_that_takes_its_time(self) -> None:
        self.channel.dataReceived(HEAD + b"\r\n")
        self.pass_time(3 * IDLE)
        self.assertTrue(self.transport.connected)
        self.asked[0].callback(Reply.text("served"))
        # From then on there is time for another one.
        self.pass_time(IDLE - 1)
        self.channel.dataReceived(HEAD + b"\r\n")
        self.assertEqual(len(self.asked), 2)
        self.asked[1].callback(Reply.text("again"))
        self.assertIn(b"again", self.transport.value())

    def test_requests_wait_for_their_share_of_the_time(self) -> None:
        # A request that takes a second, and more of them behind it.
        self.channel.dataReceived(HEAD + b"\r\n")

        def work(reply: Reply) -> Reply:
            self.clock.rightNow += 1.0
            return reply

        self.asked[0].addCallback(work)
        self.channel.schedule_answer(lambda: self.asked[0].callback(Reply.text("first")))
        self.channel.dataReceived((HEAD + b"\r\n") * 3)
        self.assertEqual(len(self.asked), 1)
        self.clock.advance(1.0 / SHARE)
        self.assertEqual(len(self.asked), 2)
        self.transport.loseConnection()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_client_that_reads_no_answers(self) -> None:
        """It gets no more of them than the transport takes, however many requests it has sent."""
        self.channel.dataReceived((HEAD + b"\r\n") * 100)
        self.transport.producer.pauseProducing()
        self.asked[0].callback(Reply.text("first"))
        self.assertEqual(len(self.asked), 1)
        self.transport.producer.resumeProducing()
        self.assertEqual(len(self.asked), 2)
        self.transport.producer.pauseProducing()
        self.asked[1].callback(Reply.text("second"))
        self.pass_time(IDLE - 1)
        self.assertTrue(self.transport.connected)
        self.pass_time(2)
        self.assertEqual((self.transport.connected, len(self.asked)), (False, 2))
        self.pass_time(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_comes_behind_a_request_is_bounded(self) -> None:
        """Also if the client does not read the answer, as then reading goes on."""
        self.channel.dataReceived(HEAD + b"\r\n")
        self.transport.producer.pauseProducing()
        for _ in range(5):
            if self.transport.connected:
                self.channel.dataReceived(bytes(MOST_EARLY // 4))
        self.assertFalse(self.transport.connected)

    def test_requests_behind_one_another(self) -> None:
        """However many have been sent in the course of time, if they are answered."""
        self.channel.dataReceived(HEAD + b"\r\n")
        lines = HEAD + b"X: " + b"y" * 10_000 + b"\r\n\r\n"
        for number in range(2 * MOST_EARLY // len(lines)):
            self.channel.dataReceived(lines)
            self.asked[number].callback(Reply.text("served"))
        self.assertEqual((self.transport.connected, len(self.asked)), (True, number + 2))

    def test_a_long_answer(self) -> None:
        """It is written as fast as the client reads, which it must go on with."""
        body = bytes(range(256)) * (4 * PORTION // 256) + b"end"
        self.channel.dataReceived((HEAD + b"\r\n") * 2)
        transport, write = self.transport, self.transport.write

        def full(data: bytes) -> None:
            write(data)
            if len(data) == PORTION:
                transport.producer.pauseProducing()

        transport.write = full
        self.asked[0].callback(Reply(200, body))
        for portions in range(1, 5):
            self.assertLess(len(transport.value()), portions * PORTION + 1000)
            self.assertEqual((len(self.asked), transport.connected), (1, True))
            self.pass_time(IDLE - 1)
            transport.producer.resumeProducing()
        self.assertEqual(len(self.asked), 2)
        head, _, written = transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertEqual(written, body)
        self.asked[1].callback(Reply(200, body))
        self.pass_time(IDLE + 1)
        self.assertFalse(transport.connected)
        self.pass_time(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_long_answer_to_head(self) -> None:
        self.channel.dataReceived(HEAD.replace(b"GET", b"HEAD") + b"\r\n")
        self.asked[0].callback(Reply(200, bytes(4 * PORTION)))
        self.assertIn(b"Content-Length: %d\r\n" % (4 * PORTION), self.transport.value())
        self.assertLess(len(self.transport.value()), PORTION)

    def test_too_many_requests_wait(self) -> None:
        """The connection is closed, and no TLS handshake counts as broken off."""
        self.patch(time_share, "MOST", 0)
        before = dict(REFUSALS)
        self.channel._ask(self.channel._reading, work_of(self.clock))
        self.channel.dataReceived(HEAD)
        self.assertFalse(self.transport.connected)
        self.assertEqual(REFUSALS, before)

    def test_what_comes_has_a_smaller_share_and_waits_unread(self) -> None:
        self.channel._ask(self.channel._reading, work_of(self.clock))
        self.channel.dataReceived(HEAD)
        self.assertEqual(self.transport.producerState, "paused")
        self.channel.dataReceived(b"\r\n")  # if it was on its way
        self.clock.advance(0.9 / READING)
        self.assertEqual((self.asked, self.transport.producerState), ([], "paused"))
        self.clock.advance(0.1 / READING)
        self.assertEqual(len(self.asked), 1)
        self.asked[0].callback(Reply.text("served"))
        self.assertIn(b"served", self.transport.value())
        self.assertEqual(self.transport.producerState, "producing")
        # What waits is bounded, and is forgotten with the connection.
        self.channel._ask(self.channel._reading, work_of(self.clock))
        for _ in range(5):
            self.channel.dataReceived(bytes(MOST_EARLY // 4))
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_body_that_says_that_it_is_far_too_large(self) -> None:
        """Nobody needs to read any of it."""
        self.channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 99999999\r\n\r\nx")
        self.assertFalse(self.transport.connected)
        head, _, body = self.transport.value().partition(b"\r\n\r\n")
        self.assertTrue(
            head.startswith(b"HTTP/1.1 413 Request Entity Too Large\r\nConnection: close\r\n"), head
        )
        self.assertIn(b"Content-Length: %d" % len(body), head)
        self.assertIn(b"larger than 65536 bytes", body)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_body_that_is_too_large_is_not_read_to_its_end(self) -> None:
        self.channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nContent-Length: 200000\r\n\r\n")
        self.channel.dataReceived(bytes(200_000))
        self.assertEqual(self.asked, [])
        self.assertIn(b"413", self.transport.value())
        self.setUp()
        # One that does not say how long it is.
        self.channel.dataReceived(b"POST / HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(MOST_EARLY // 16384 + 6):
            if self.transport.connected:
                self.channel.dataReceived(b"4000\r\n" + bytes(16384) + b"\r\n")
        self.assertFalse(self.transport.connected)
        self.assertEqual(self.asked, [])

    def test_heads_that_are_too_large(self) -> None:
        for much in (b"X: " + b"y" * 70_000 + b"\r\n", b"X: y\r\n" * 1000):
            self.setUp()
            self.channel.dataReceived(HEAD)
            for line in much.splitlines(keepends=True):
                if self.transport.connected:
                    self.channel.dataReceived(line)
            self.assertFalse(self.transport.connected)
            self.assertEqual(self.asked, [])
