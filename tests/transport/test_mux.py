"""
Tests for L{reverseproxy.mux.session}, in memory.

What one stream is to its protocol is in L{tests.transport.test_contract}.
"""

from __future__ import annotations

import gc
import random
import weakref
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.mux import session as session_module
from reverseproxy.mux import unsent, watch
from reverseproxy.mux.idle_pings import MANY, PATIENCE, Sessions
from reverseproxy.mux.session import (
    GRACE,
    ORPHAN_TIMEOUT,
    PING_INTERVAL,
    PING_TIMEOUT,
    MuxSession,
    StreamRefused,
)
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.testing import MemoryReactor, MemoryTransport, Recorder, join, mux_pair
from reverseproxy.transport.departures import Departures
from reverseproxy.transport.memory import HeldBytes
from reverseproxy.wire.window import PROBE_EVERY, Reserve
from reverseproxy.wire.yamux.events import INITIAL_WINDOW, MuxLimits
from tests import most
from tests.transport.contract import CallableFactory

BIG = random.Random(5).randbytes(1_500_000)


def building(protocol: Any) -> Factory:
    return CallableFactory(lambda: protocol)


class Echo(Recorder):
    def dataReceived(self, data: bytes) -> None:
        super().dataReceived(data)
        self.transport.write(data)


@implementer(IHalfCloseableProtocol)
class Half(Recorder):
    ended = False

    def readConnectionLost(self) -> None:
        self.ended = True

    def writeConnectionLost(self) -> None:
        pass


class Writes:
    """Notes each write of a transport."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.sizes: list[int] = []
        write = transport.write

        def note(data: bytes) -> None:
            self.sizes.append(len(data))
            write(data)

        transport.write = note  # type: ignore[method-assign]


class Pair:
    """Two ends; the first one opens streams, whose protocols at the second one are in C{accepted}."""

    def __init__(self, kind: Any = Recorder, **options: Any) -> None:
        self.clock = MemoryReactor()
        self.kind = kind
        self.accepted: list[Any] = []
        self.lost: list[Failure] = []
        self.went: list[str] = []
        self.first, self.second = mux_pair(self.clock, self.accept, **options)
        self.first.on_lost = self.lost.append
        self.first.on_going = lambda: self.went.append("second")
        self.clock.settle()

    def accept(self) -> Any:
        protocol = self.kind()
        self.accepted.append(protocol)
        return protocol

    def open(self, kind: Any = Recorder) -> Any:
        protocol = kind()
        self.first.open(building(protocol)).addErrback(lambda reason: reason.raiseException())
        return protocol

    def both(self, kind: Any = Recorder) -> tuple[Any, Any]:
        ours = self.open(kind)
        self.clock.settle()
        return ours, self.accepted[-1]

    def pass_time(self, seconds: float) -> None:
        step = 0.05
        for _ in range(round(seconds / step)):
            self.clock.advance(step)


class StreamTests(SynchronousTestCase):
    def test_both_ways(self) -> None:
        pair = Pair(Echo)
        ours = pair.open()
        ours.transport.write(b"before anybody knows of the stream")
        pair.clock.settle()
        self.assertEqual(ours.data, b"before anybody knows of the stream")
        self.assertEqual((pair.first.streams, pair.second.streams, len(pair.second.all)), (1, 1, 1))

    def test_a_stream_without_data_is_heard_of(self) -> None:
        pair = Pair()
        pair.both()
        self.assertEqual(len(pair.accepted), 1)

    def test_the_other_end_may_open_streams_too(self) -> None:
        clock = MemoryReactor()
        accepted: list[Recorder] = []

        def accept() -> Recorder:
            accepted.append(Recorder())
            return accepted[-1]

        _, second = mux_pair(clock, None, accept)
        opened = Recorder()
        second.open(building(opened))
        opened.transport.write(b"hello")
        clock.settle()
        self.assertEqual(accepted[0].data, b"hello")

    def test_much_data_both_ways(self) -> None:
        pair = Pair(Echo)
        streams = [pair.open() for _ in range(4)]
        for number, stream in enumerate(streams):
            stream.transport.write(bytes([number]) + BIG)
        pair.clock.settle()
        for number, stream in enumerate(streams):
            self.assertTrue(stream.data == bytes([number]) + BIG)

    def test_one_write_for_all_streams_in_a_turn(self) -> None:
        pair = Pair(Echo)
        streams = [pair.open() for _ in range(50)]
        pair.clock.settle()
        there = Writes(pair.first.transport)
        back = Writes(pair.second.transport)
        for stream in streams:
            stream.transport.write(b"x" * 100)
        self.assertEqual(there.sizes, [])
        pair.clock.settle()
        self.assertEqual(len(there.sizes), 1)
        self.assertEqual(len(back.sizes), 1)
        self.assertTrue(all(stream.data == b"x" * 100 for stream in streams))

    def test_sessions_over_a_stream_are_relayed(self) -> None:
        """Relays, which all sessions of tcp_proxy are made of, with half-closes."""
        pair = Pair(Half)
        ends = [RelayEnd(pair.clock), RelayEnd(pair.clock)]
        client = Half()
        join(pair.clock, client, ends[0])
        pair.first.open(building(ends[1]))
        couple(*ends)
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        pair.clock.settle()
        [service] = pair.accepted
        self.assertEqual((service.data, service.ended, service.reason), (b"question", True, None))
        service.transport.write(b"answer")
        service.transport.loseConnection()
        pair.clock.settle()
        self.assertEqual((client.data, client.ended), (b"answer", True))
        self.assertEqual(pair.first.streams + pair.second.streams, 0)

    def test_a_reset_touches_one_stream(self) -> None:
        pair = Pair(Half)
        one, one_there = pair.both(Half)
        other, other_there = pair.both(Half)
        one.transport.write(b"lost with it")
        one.transport.abortConnection()
        other.transport.write(b"unharmed")
        self.assertIsNone(one.reason)
        pair.clock.settle()
        self.assertTrue(one.reason.check(ConnectionAborted))
        self.assertTrue(one_there.reason.check(ConnectionLost))
        self.assertEqual((other_there.data, other.reason, other_there.reason), (b"unharmed", None, None))

    def test_a_stream_that_is_over_is_no_garbage(self) -> None:
        pair = Pair(Echo)
        gone: list[Any] = []
        gc.collect()
        gc.disable()
        self.addCleanup(gc.enable)
        for close in ("loseConnection", "abortConnection"):
            ours, theirs = pair.both()
            ours.transport.write(b"x")
            pair.clock.settle()
            getattr(ours.transport, close)()
            pair.clock.settle()
            pair.accepted.clear()
            gone += [weakref.ref(each) for each in (ours, theirs, ours.transport, theirs.transport)]
            del ours, theirs
        self.assertEqual([each() for each in gone], [None] * 8)

    def test_nobody_wants_a_stream(self) -> None:
        pair = Pair(lambda: None)
        ours = pair.open()
        ours.transport.write(b"hello")
        pair.clock.settle()
        self.assertTrue(ours.reason.check(ConnectionLost))
        self.assertEqual(pair.first.streams + pair.second.streams, 0)
        self.assertFalse(pair.first.lost or pair.second.lost)

    def test_who_builds_protocols_fails(self) -> None:
        def fail() -> Any:
            raise ZeroDivisionError

        pair = Pair(fail)
        ours = pair.open()
        pair.clock.settle()
        self.assertTrue(ours.reason.check(ConnectionLost))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)

    def test_a_protocol_that_fails_when_it_is_connected(self) -> None:
        class Failing(Protocol):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        pair = Pair(Failing)
        ours = pair.open()
        pair.clock.settle()
        self.assertTrue(ours.reason.check(ConnectionLost))
        self.failureResultOf(pair.first.open(building(Failing())), ZeroDivisionError)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 2)
        self.assertFalse(pair.first.lost)

    def test_no_protocol_and_a_factory_that_fails(self) -> None:
        pair = Pair()
        self.failureResultOf(pair.first.open(building(None)), ConnectionUnavailable)

        def fail() -> Any:
            raise ZeroDivisionError

        self.failureResultOf(pair.first.open(CallableFactory(fail)), ZeroDivisionError)
        self.assertEqual(pair.first.streams, 0)

    def test_factories_are_told(self) -> None:
        told: list[str] = []

        class Telling(Factory):
            noisy = False

            def startFactory(self) -> None:
                told.append("start")

            def stopFactory(self) -> None:
                told.append("stop")

            def buildProtocol(self, addr: Any) -> Any:
                told.append(addr)
                return Recorder()

        pair = Pair()
        protocol: Any = self.successResultOf(pair.first.open(Telling()))
        self.assertEqual(told, [pair.first.transport.getPeer(), "start"])
        protocol.transport.loseConnection()
        pair.clock.settle()
        self.assertEqual(told[-1], "stop")

    def test_too_many_streams(self) -> None:
        pair = Pair(limits=MuxLimits(max_streams=3))
        streams = [pair.open() for _ in range(3)]
        self.failureResultOf(pair.first.open(building(Recorder())), ConnectionUnavailable)
        streams[0].transport.loseConnection()
        pair.clock.settle()
        pair.open()


class SlowReaderTests(SynchronousTestCase):
    def test_one_stalled_stream_and_a_hundred_healthy_ones(self) -> None:
        pair = Pair(Echo)
        stalled, stalled_there = pair.both()
        stalled_there.transport.pauseProducing()
        stalled.transport.write(BIG)
        pair.clock.settle()
        healthy = [pair.open() for _ in range(100)]
        for number in range(5):
            for stream in healthy:
                stream.transport.write(b"%d" % number * 10_000)
            pair.clock.settle()
        for stream in healthy:
            self.assertEqual(stream.data, b"".join(b"%d" % number * 10_000 for number in range(5)))
        self.assertEqual(stalled.data + stalled_there.data, b"")
        # No more has come than its window, and nothing is missing when it reads on.
        self.assertEqual(stalled_there.transport.held, INITIAL_WINDOW)
        stalled_there.transport.resumeProducing()
        pair.clock.settle()
        self.assertTrue(stalled_there.data == stalled.data == BIG)

    def test_a_producer_is_stopped_by_a_reader_at_the_far_end(self) -> None:
        class Source(Half):
            written = 0
            producing = True

            def connectionMade(self) -> None:
                self.transport.registerProducer(self, True)

            def resumeProducing(self) -> None:
                self.producing = True
                while self.producing:
                    self.written += 1000
                    self.transport.write(b"x" * 1000)

            def pauseProducing(self) -> None:
                self.producing = False

            def stopProducing(self) -> None:
                self.producing = False

        budget = HeldBytes(2**30)
        pair = Pair(Half, budget=budget)
        source, sink = pair.both(Source)
        sink.transport.pauseProducing()
        source.resumeProducing()
        pair.clock.settle()
        self.assertFalse(source.producing)
        self.assertLess(source.written, INITIAL_WINDOW + 3 * 65536)
        before = source.written
        pair.pass_time(1)
        self.assertEqual(source.written, before)
        sink.dataReceived = lambda data: sink.transport.pauseProducing()
        sink.transport.resumeProducing()
        pair.clock.settle()
        sink.transport.resumeProducing()
        pair.clock.settle()
        sink.transport.resumeProducing()
        pair.clock.settle()
        self.assertGreater(source.written, before)
        source.transport.abortConnection()
        pair.clock.settle()
        self.assertEqual(budget.total, 0)

    def test_a_connection_that_takes_nothing_pauses_who_writes(self) -> None:
        pair = Pair(Half)
        streams = [pair.open(Half) for _ in range(20)]
        pair.clock.settle()
        paused: set[int] = set()

        class Note:
            def __init__(self, number: int) -> None:
                self.number = number

            def pauseProducing(self) -> None:
                paused.add(self.number)

            def resumeProducing(self) -> None:
                paused.discard(self.number)

            def stopProducing(self) -> None:
                pass

        for number, stream in enumerate(streams):
            stream.transport.registerProducer(Note(number), True)
        pair.second.transport.pauseProducing()  # the connection is not read
        for _ in range(8):
            for stream in streams:
                stream.transport.write(b"y" * 5000)
            pair.clock.settle()
        self.assertTrue(pair.first.turn.full)
        self.assertEqual(paused, set(range(20)))
        pair.second.transport.resumeProducing()
        pair.clock.settle()
        self.assertEqual(paused, set())
        self.assertEqual([len(each.data) for each in pair.accepted], [40_000] * 20)

    def test_what_a_protocol_has_enough_with_opens_no_window(self) -> None:
        class Full(Half):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()

        pair = Pair(Full)
        ours, theirs = pair.both(Half)
        ours.transport.write(bytes(INITIAL_WINDOW))
        pair.clock.settle()
        mux = pair.first.mux
        stream = mux._table.streams[ours.transport.number]
        # It has some of that, and wants no more: that is not to say that it has passed it on.
        self.assertLess(0, len(theirs.data))
        self.assertEqual(stream.send_window, 0)
        while len(theirs.data) < INITIAL_WINDOW:
            seen = len(theirs.data)
            theirs.transport.resumeProducing()
            pair.clock.settle()
            self.assertGreater(len(theirs.data), seen)
            self.assertLessEqual(stream.send_window, seen)
        self.assertGreater(stream.send_window, 0)
        theirs.transport.resumeProducing()
        pair.clock.settle()
        self.assertGreater(stream.send_window, INITIAL_WINDOW // 2)

    def test_what_a_protocol_has_enough_with_and_then_closes(self) -> None:
        class Full(Half):
            def dataReceived(self, data: bytes) -> None:
                super().dataReceived(data)
                self.transport.pauseProducing()
                self.transport.loseConnection()

        pair = Pair(Full)
        ours, _ = pair.both(Half)
        ours.transport.write(bytes(100))
        pair.clock.settle()
        self.assertTrue(ours.ended)
        ours.transport.loseConnection()
        pair.clock.settle()
        self.assertEqual((pair.first.mux.streams, pair.second.mux.streams), (0, 0))

    def test_windows_that_have_grown_are_given_back(self) -> None:
        reserve = Reserve()
        pair = Pair(Half, reserve=reserve)
        pair.first.mux.growth.measured(10.0, 0.0)
        pair.second.mux.growth.measured(10.0, 0.0)
        ours, _ = pair.both(Half)
        ours.transport.write(BIG)
        pair.clock.settle()
        self.assertGreater(reserve.taken, 0)
        pair.first.abort("enough")
        pair.clock.settle()
        self.assertEqual((reserve.taken, reserve.streams), (0, 0))

    def test_all_streams_together_are_bounded(self) -> None:
        budget = HeldBytes(500_000)
        pair = Pair(Half, budget=budget)
        pairs = [pair.both(Half) for _ in range(4)]
        for number, (ours, theirs) in enumerate(pairs):
            theirs.transport.pauseProducing()
            ours.transport.write(b"z" * (150_000 + 1000 * number))
            pair.clock.settle()
        # The one that holds most has to go when there is too much, which is not the one that came last.
        self.assertEqual([theirs.reason is not None for _, theirs in pairs], [False, False, True, False])
        self.assertLessEqual(budget.total, budget.limit)
        pair.first.abort("enough")
        pair.clock.settle()
        self.assertEqual(budget.total, 0)

    def test_one_connection_is_bounded(self) -> None:
        pair = Pair(Half, limits=MuxLimits(max_held=500_000))
        pairs = [pair.both(Half) for _ in range(3)]
        for number, (ours, theirs) in enumerate(pairs):
            theirs.transport.pauseProducing()
            ours.transport.write(b"z" * (200_000 - 1000 * number))
            pair.clock.settle()
        self.assertEqual([theirs.reason is not None for _, theirs in pairs], [True, False, False])
        self.assertEqual([ours.reason is not None for ours, _ in pairs], [True, False, False])

    def test_small_pieces_cost_no_more_than_their_bytes(self) -> None:
        pair = Pair()
        ours, theirs = pair.both()
        theirs.transport.pauseProducing()
        for number in range(2000):
            ours.transport.write(b"%04d" % number)
            pair.clock.settle()
        pieces: list[bytes] = []
        theirs.dataReceived = pieces.append
        theirs.transport.resumeProducing()
        pair.clock.settle()
        self.assertEqual(pieces, [b"".join(b"%04d" % number for number in range(2000))])


class ClosingTests(SynchronousTestCase):
    def test_an_error_of_ours(self) -> None:
        pair = Pair()
        ours, _ = pair.both()
        pair.first.turn.call(lambda: 1 // 0)
        pair.clock.settle()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertTrue(ours.reason.check(ConnectionLost))
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_a_peer_that_writes_to_a_closed_stream_is_told(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        ours.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(ours.reason.check(ConnectionDone))
        self.assertEqual((theirs.ended, theirs.reason), (True, None))
        theirs.transport.write(b"anybody there?")
        pair.clock.settle()
        self.assertTrue(theirs.reason.check(ConnectionLost))
        self.assertEqual(pair.first.mux.streams + pair.second.mux.streams, 0)

    def test_a_peer_that_never_ends_its_half_is_not_borne_for_ever(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        ours.transport.loseConnection()
        pair.pass_time(ORPHAN_TIMEOUT - 1)
        self.assertIsNone(theirs.reason)
        self.assertEqual(pair.first.mux.streams, 1)
        pair.pass_time(2 + PING_INTERVAL)
        self.assertTrue(theirs.reason.check(ConnectionLost))
        self.assertEqual(pair.first.mux.streams + pair.second.mux.streams, 0)

    def test_what_came_while_closing_does_not_stop_the_peer(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        ours.transport.pauseProducing()
        theirs.transport.write(b"u" * INITIAL_WINDOW)
        pair.clock.settle()
        ours.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(ours.reason.check(ConnectionDone))
        theirs.transport.write(b"more")
        pair.clock.settle()
        self.assertTrue(theirs.reason.check(ConnectionLost))

    def test_the_connection_is_lost(self) -> None:
        pair = Pair()
        streams = [pair.both()[0] for _ in range(3)]
        told_first: list[bool] = []
        pair.first.on_lost = lambda reason: told_first.append(all(each.reason is None for each in streams))
        pair.second.transport.abortConnection()
        pair.clock.settle()
        self.assertEqual(told_first, [True])
        for each in streams + pair.accepted:
            self.assertTrue(each.reason.check(ConnectionLost, ConnectionAborted))
        self.assertFalse(pair.first.usable)
        self.failureResultOf(pair.first.open(building(Recorder())), ConnectionUnavailable)
        for each in streams:
            each.transport.write(b"x")
            each.transport.loseConnection()
            each.transport.abortConnection()
        pair.clock.settle()
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_the_peer_closes_the_connection(self) -> None:
        pair = Pair()
        ours, _ = pair.both()
        pair.second.transport.loseConnection()
        pair.clock.settle()
        # An orderly end of the connection is none of a stream.
        self.assertTrue(ours.reason.check(ConnectionLost))

    def test_closing_sends_what_was_written(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        ours.transport.write(b"last words")
        pair.first.close("we stop")
        pair.first.close("again")
        pair.clock.settle()
        self.assertEqual(theirs.data, b"last words")
        self.assertIn("we stop", ours.reason.getErrorMessage())
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_closing_does_not_wait_for_ever(self) -> None:
        pair = Pair(Half)
        pair.both()
        pair.second.transport.silent = True
        pair.second.transport.pauseProducing()
        pair.first.transport.registerProducer = None
        pair.first.close("we stop")
        pair.pass_time(6)
        self.assertTrue(pair.first.lost)

    def test_a_stream_that_has_everything_outlives_the_connection(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        theirs.transport.pauseProducing()
        theirs.transport.loseWriteConnection()
        ours.transport.write(b"all of it")
        ours.transport.loseConnection()
        pair.clock.settle()
        pair.first.abort("gone")
        pair.clock.settle()
        self.assertTrue(pair.second.lost)
        self.assertIsNone(theirs.reason)
        theirs.transport.resumeProducing()
        pair.clock.settle()
        self.assertEqual((theirs.data, theirs.ended), (b"all of it", True))
        theirs.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(theirs.reason.check(ConnectionDone))

    def test_garbage(self) -> None:
        clock = MemoryReactor()
        session, peer = MuxSession(True, clock), Half()
        join(clock, session, peer)
        ours = Recorder()
        session.open(building(ours))
        clock.settle()
        peer.transport.write(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        clock.settle()
        self.assertTrue(session.lost)
        assert ours.reason is not None
        self.assertIn("HTTP/1.1", ours.reason.getErrorMessage())
        self.assertEqual(clock.getDelayedCalls(), [])


class GoingTests(SynchronousTestCase):
    def test_streams_finish(self) -> None:
        pair = Pair(Echo)
        ours, theirs = pair.both(Half)
        pair.second.go_away()
        pair.clock.settle()
        self.assertEqual(pair.went, ["second"])
        self.assertFalse(pair.first.usable)
        self.failureResultOf(pair.first.open(building(Recorder())), ConnectionUnavailable)
        ours.transport.write(b"still here")
        pair.clock.settle()
        self.assertEqual(ours.data, b"still here")
        pair.first.go_away()
        pair.clock.settle()
        self.assertFalse(pair.first.lost)
        ours.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(theirs.reason.check(ConnectionDone))
        self.assertTrue(pair.first.lost and pair.second.lost)
        self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_a_stream_that_was_opened_before_it_could_be_known(self) -> None:
        pair = Pair(Echo)
        pair.second.go_away()
        ours = pair.open(Half)
        ours.transport.write(b"a request")
        pair.clock.settle()
        pair.first.go_away()
        pair.clock.settle()
        self.assertEqual((ours.data, ours.reason), (b"a request", None))
        self.assertFalse(pair.first.lost)
        ours.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(pair.first.lost and pair.second.lost)

    def test_an_end_that_still_has_something_to_read(self) -> None:
        pair = Pair(Half)
        ours, theirs = pair.both(Half)
        theirs.transport.pauseProducing()
        theirs.transport.loseWriteConnection()
        ours.transport.write(b"read later")
        ours.transport.loseConnection()
        pair.first.go_away()
        pair.second.go_away()
        pair.clock.settle()
        theirs.transport.resumeProducing()
        pair.clock.settle()
        self.assertEqual((theirs.data, theirs.ended), (b"read later", True))

    def test_a_peer_that_gives_up(self) -> None:
        pair = Pair()
        ours, _ = pair.both()
        pair.second.mux.go_away(2)
        pair.second.turn.schedule()
        pair.clock.settle()
        self.assertTrue(pair.first.lost)
        self.assertIn("code 2", ours.reason.getErrorMessage())

    def test_a_refused_stream_says_so(self) -> None:
        pair = Pair(limits=MuxLimits(accept_backlog=0))
        ours = pair.open()
        pair.clock.settle()
        self.assertTrue(ours.reason.check(StreamRefused))

    def test_what_has_never_left(self) -> None:
        """When a connection is lost, streams are told that certainly were not seen."""

        class Known(Departures):
            def note(self, mark: int) -> None:
                self.stayed = mark  # nothing has been sent since

        self.patch(unsent, "Departures", Known)
        pair = Pair(Half)
        early = [pair.open() for _ in range(2)]
        pair.clock.settle()
        pair.first.note_wait(True)
        late = [pair.open() for _ in range(2)]
        pair.first.transport.abortConnection()
        pair.clock.settle()
        refused = [bool(each.reason.check(StreamRefused)) for each in (*early, *late)]
        self.assertEqual(refused, [False, False, True, True])

    def test_where_nothing_waits(self) -> None:
        pair = Pair(Half)
        pair.first.note_wait(False)
        ours = pair.open()
        pair.first.note_wait(True)
        pair.first.note_wait(False)
        pair.first.transport.abortConnection()
        pair.clock.settle()
        self.assertFalse(ours.reason.check(StreamRefused))


class PingTests(SynchronousTestCase):
    longest = PING_INTERVAL + PING_TIMEOUT + 2 * GRACE

    def test_the_bound_holds_by_default(self) -> None:
        self.assertLessEqual(self.longest, 5.0)

    def test_how_far_away_the_peer_is(self) -> None:
        clock = Clock()
        first, second = MuxSession(True, clock), MuxSession(False, clock)
        ends = join(clock, first, second)
        ends[1].pauseProducing()
        clock.advance(0.3)
        ends[1].resumeProducing()
        clock.advance(0)
        self.assertAlmostEqual(first.rtt or 0.0, 0.3)
        self.assertEqual(first.mux.growth.rtt, first.rtt)

    def test_the_peer_is_asked_again_while_much_comes(self) -> None:
        pair = Pair(Half)
        ours, _ = pair.both(Half)
        asked = []
        ping = watch.PeerWatch.ping

        def note(each: watch.PeerWatch) -> None:
            if each is pair.second._watch:
                asked.append(pair.clock.seconds())
            ping(each)

        self.patch(watch.PeerWatch, "ping", note)
        for _ in range(round(3 * PROBE_EVERY)):
            ours.transport.write(bytes(INITIAL_WINDOW // 2))
            pair.pass_time(1.0)
        self.assertLessEqual(len(asked), 4)
        self.assertGreaterEqual(len(asked), 3)

    def test_a_quiet_connection_stays(self) -> None:
        pair = Pair()
        ours, _ = pair.both()
        pair.pass_time(60)
        self.assertIsNone(ours.reason)
        self.assertFalse(pair.first.lost)

    def test_few_pings(self) -> None:
        pair = Pair()
        writes = Writes(pair.first.transport)
        pair.pass_time(20)
        # Each end asks, or answers, once in an interval.
        self.assertLessEqual(len(writes.sizes), 2 * 20 / PING_INTERVAL + 2)

    def test_a_peer_that_is_gone(self) -> None:
        for quiet in (0.0, 0.7, 1.9, 2.3):
            pair = Pair(Half)
            ours, theirs = pair.both(Half)
            pair.pass_time(quiet)
            ours.transport.write(b"x")
            pair.clock.settle()
            for session in (pair.first, pair.second):
                session.transport.silent = True
            pair.pass_time(PING_TIMEOUT - 0.1)
            self.assertIsNone(ours.reason)
            pair.pass_time(self.longest - PING_TIMEOUT + 0.3)  # the clock goes in steps
            for each in (ours, theirs):
                self.assertTrue(each.reason.check(ConnectionLost))
                self.assertIn("no answer to a ping", each.reason.getErrorMessage())
            self.assertEqual(pair.lost[0].check(ConnectionLost), ConnectionLost)
            self.assertEqual(pair.clock.getDelayedCalls(), [])

    def test_a_peer_that_was_never_there(self) -> None:
        clock = MemoryReactor()
        session = MuxSession(True, clock)
        join(clock, session, Half())
        clock.pump([0.05] * 60)
        self.assertTrue(session.lost)

    def test_a_busy_peer_is_not_asked(self) -> None:
        pair = Pair()
        _, theirs = pair.both()
        asked: list[bool] = []
        self.patch(watch.PeerWatch, "ping", lambda each: asked.append(each is pair.first._watch))
        for _ in range(100):
            theirs.transport.write(b"x")
            pair.pass_time(0.1)
        self.assertNotIn(True, asked)

    def test_we_stood_still_ourselves(self) -> None:
        pair = Pair()
        pair.both()
        pair.pass_time(1.0)
        # The timer comes late, and the answer waits to be read.
        pair.clock.advance(60)
        pair.pass_time(10)
        self.assertFalse(pair.first.lost or pair.second.lost)

    def test_what_has_come_and_is_not_read_is_no_silence(self) -> None:
        # A loop that is busy with thousands of others reads it later.
        unread = {"first": True}
        pair = Pair()
        pair.both()
        self.patch(watch, "was_heard", lambda transport, since: unread["first"])
        for session in (pair.first, pair.second):
            session.transport.silent = True
        pair.pass_time(10)
        self.assertFalse(pair.first.lost or pair.second.lost)
        self.assertLess(pair.first.unanswered, PING_TIMEOUT + 0.2)  # nor is it picked last
        unread["first"] = False
        pair.pass_time(PING_TIMEOUT + 0.3)
        self.assertTrue(pair.first.lost and pair.second.lost)

    def silent_process(self, has_taken_all: bool, others: int = MANY) -> Pair:
        """A pair of many whose second end says nothing any more; its kernel may."""
        pair = Pair()
        pair.pass_time(1.0)
        sessions = Sessions()
        sessions.count = 2 + others
        self.patch(session_module, "SESSIONS", sessions)
        self.patch(watch, "SESSIONS", sessions)
        pair.first.transport.silent = True
        self.patch(watch, "has_taken_all", lambda transport: has_taken_all)
        return pair

    def test_a_process_that_is_late_where_nobody_waits_for_it(self) -> None:
        pair = self.silent_process(True)
        pair.pass_time(self.longest + 0.3)
        self.assertFalse(pair.first.lost)
        self.assertGreater(pair.first.unanswered, PING_TIMEOUT)  # so that it is picked last
        pair.first.transport.silent = False
        pair.pass_time(PING_TIMEOUT + 0.3)
        self.assertFalse(pair.first.lost)
        self.assertLess(pair.first.unanswered, PING_TIMEOUT)

    def test_a_process_that_hangs_where_nobody_waits_for_it(self) -> None:
        pair = self.silent_process(True)
        pair.pass_time(PING_INTERVAL + (PATIENCE + 1) * PING_TIMEOUT + 1)
        self.assertTrue(pair.first.lost)

    def test_a_process_that_hangs_where_somebody_waits(self) -> None:
        pair = self.silent_process(True)
        pair.pass_time(self.longest + 0.3)
        ours = pair.open(Half)
        pair.pass_time(PING_TIMEOUT + 0.3)
        self.assertTrue(pair.first.lost and ours.reason.check(ConnectionLost))

    def test_a_process_that_hangs_where_there_are_few(self) -> None:
        pair = self.silent_process(True, others=0)
        pair.pass_time(self.longest + 0.3)
        self.assertTrue(pair.first.lost)

    def test_a_kernel_that_does_not_answer(self) -> None:
        pair = self.silent_process(False)
        pair.pass_time(self.longest + 0.3)
        self.assertTrue(pair.first.lost)

    def test_thousands_are_asked_more_rarely(self) -> None:
        sessions = Sessions()
        self.patch(session_module, "SESSIONS", sessions)
        self.patch(watch, "SESSIONS", sessions)
        pair = Pair()
        self.assertEqual(sessions.count, 2)
        sessions.count = 10 * MANY
        pair.pass_time(PING_INTERVAL + 1)  # from now on each knows of the others
        writes = Writes(pair.first.transport)
        pair.pass_time(10 * PING_INTERVAL * 4)
        self.assertLessEqual(len(writes.sizes), 2 * 4 + 2)
        # One that is used is asked as ever, from then on.
        ours, _ = pair.both(Half)
        for session in (pair.first, pair.second):
            session.transport.silent = True
        pair.pass_time(self.longest + 0.3)
        self.assertTrue(pair.first.lost and pair.second.lost and ours.reason)
        self.assertEqual(sessions.count, 10 * MANY - 2)


class RandomTests(SynchronousTestCase):
    """Any number of streams, whose protocols do anything: no byte is lost, doubled or given to another."""

    @given(st.data())
    @settings(max_examples=most(100), deadline=None)
    def test_streams(self, data: st.DataObject) -> None:
        pair = Pair(Half, budget=HeldBytes(2**40))
        made: list[tuple[Any, Any]] = []
        sent: dict[Any, bytearray] = {}
        closed: set[Any] = set()
        aborted: set[int] = set()
        for step in range(data.draw(st.integers(1, 30))):
            what = data.draw(
                st.sampled_from(["open", "write", "write", "pause", "resume", "shut", "abort", "go"])
            )
            if what == "open" or not made:
                made.append(pair.both(Half))
                sent.update({end: bytearray() for end in made[-1]})
                continue
            number = data.draw(st.integers(0, len(made) - 1))
            end = made[number][data.draw(st.integers(0, 1))]
            if what == "write" and end not in closed and number not in aborted:
                size = data.draw(st.sampled_from([1, 100, 5000, 70_000, 300_000]))
                piece = bytes([step, number]) * size
                end.transport.write(piece)
                sent[end] += piece
            elif what == "pause":
                end.transport.pauseProducing()
            elif what == "resume":
                end.transport.resumeProducing()
            elif what == "shut":
                end.transport.loseWriteConnection()
                closed.add(end)
            elif what == "abort":
                end.transport.abortConnection()
                aborted.add(number)
            elif what == "go":
                pair.clock.settle()
        for ends in made:
            for end in ends:
                end.transport.resumeProducing()
        pair.clock.settle()
        for number, (ours, theirs) in enumerate(made):
            for end, other in ((ours, theirs), (theirs, ours)):
                if number in aborted:
                    # A stream that both ends have ended is over: nobody hears of a reset any more.
                    self.assertTrue(end.reason is not None or closed.issuperset(made[number]))
                    self.assertEqual(bytes(sent[other])[: len(end.data)], end.data)
                else:
                    self.assertIsNone(end.reason)
                    self.assertTrue(end.data == bytes(sent[other]))
                    self.assertEqual(end.ended, other in closed)
        self.assertEqual(pair.first._streams.budget.total, 0)
        for session in (pair.first, pair.second):
            session.go_away()
        for ours, theirs in made:
            ours.transport.loseConnection()
            theirs.transport.loseConnection()
        pair.clock.settle()
        self.assertTrue(pair.first.lost and pair.second.lost)
        self.assertEqual(pair.clock.getDelayedCalls(), [])
