"""Tests for the parts of an agent's link: its handshake, its end, and its idle streams."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.errors import ConnectionUnavailable, FrameError
from reverseproxy.interfaces import IDrainable
from reverseproxy.tunnel.agent.connection_end import ConnectionEnd, Side
from reverseproxy.tunnel.agent.greeting import Greeting
from reverseproxy.tunnel.agent.quiet_streams import QuietStreams
from reverseproxy.wire.mosn.frames import InitResponse, Status, encode


class GreetingTests(SynchronousTestCase):
    """A handshake is concluded once, and its failures close the connection."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.unread = False
        self.events: list[str] = []
        self.greeting = Greeting(
            self.clock,
            5.0,
            lambda: self.unread,
            lambda: self.events.append("closed"),
            lambda: self.events.append("concluded"),
        )

    def test_accepted(self) -> None:
        waiting = self.greeting.begin()
        data = encode(InitResponse(Status.SUCCESS))
        self.assertIsNone(self.greeting.feed(data[:3]))
        self.assertEqual(self.greeting.feed(data[3:] + b"more"), InitResponse(Status.SUCCESS))
        self.assertTrue(self.greeting.waits)
        self.greeting.conclude(None)
        self.assertIsNone(self.successResultOf(waiting))
        self.assertFalse(self.greeting.waits)
        self.assertEqual(self.greeting.take_surplus(), b"more")
        self.clock.advance(60)
        self.assertEqual(self.events, ["concluded"])

    def test_late(self) -> None:
        """The server has its time, unless its response waits for us to read it."""
        waiting = self.greeting.begin()
        self.unread = True
        self.clock.pump([0.5] * 12)
        self.assertNoResult(waiting)
        self.unread = False
        self.clock.pump([0.5] * 12)
        self.failureResultOf(waiting, ConnectionUnavailable)
        self.assertEqual(self.events, ["concluded", "closed"])

    def test_cancelled(self) -> None:
        waiting = self.greeting.begin()
        waiting.cancel()
        self.failureResultOf(waiting)
        self.assertEqual(self.events, ["concluded", "closed"])

    def test_fails_twice(self) -> None:
        waiting = self.greeting.begin()
        self.greeting.fail(ConnectionUnavailable("first"))
        self.greeting.conclude(Failure(ConnectionUnavailable("second")))
        self.assertIn("first", str(self.failureResultOf(waiting).value))
        self.greeting.forget()
        self.greeting.conclude(None)
        self.assertEqual(self.events, ["concluded", "closed", "concluded"])

    def test_no_frame(self) -> None:
        waiting = self.greeting.begin()
        self.assertRaises(FrameError, self.greeting.feed, b"HTTP/1.1 200 OK\r\n\r\n")
        self.greeting.fail(FrameError("no frame"))
        self.failureResultOf(waiting, FrameError)
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ConnectionEndTests(SynchronousTestCase):
    def test_first_counts(self) -> None:
        end = ConnectionEnd()
        self.assertIsNone(end.by)
        end.note(Side.SERVER)
        end.note(Side.WE)
        end.lost(object(), Failure(ConnectionAborted()))
        self.assertIs(end.by, Side.SERVER)

    def test_lost(self) -> None:
        for transport, error, side in (
            (SimpleNamespace(disconnecting=True), ConnectionDone(), Side.WE),
            (SimpleNamespace(disconnecting=False), ConnectionDone(), Side.SERVER),
            (SimpleNamespace(), ConnectionAborted(), Side.WE),
        ):
            end = ConnectionEnd()
            end.lost(transport, Failure(error))
            self.assertIs(end.by, side)


@implementer(IDrainable)
class _Hosted:
    busy = False

    def drain(self) -> None:
        """Nothing to finish."""


class _Stream:
    def __init__(self) -> None:
        self.protocol = _Hosted()
        self.closed = 0

    def loseConnection(self) -> None:
        """Count."""
        self.closed += 1


class QuietStreamsTests(SynchronousTestCase):
    def test_closed_when_idle_for_long(self) -> None:
        clock = Clock()
        quiet = QuietStreams(clock)
        idle, busy = _Stream(), _Stream()
        streams: Any = [idle, busy]
        busy.protocol.busy = True
        quiet.close(streams, 1.0)
        clock.advance(0.5)
        busy.protocol.busy = False
        quiet.close(streams, 1.0)
        self.assertEqual((idle.closed, busy.closed), (0, 0))
        clock.advance(0.5)
        quiet.close(streams, 1.0)
        self.assertEqual((idle.closed, busy.closed), (1, 0))
        quiet.clear()
        clock.advance(0.5)
        quiet.close(streams, 1.0)
        self.assertEqual((idle.closed, busy.closed), (1, 0))
