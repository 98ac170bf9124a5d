"""Unit tests for the parts of a session with streams."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.mux import unsent
from reverseproxy.mux.orphans import ORPHAN_TIMEOUT, Orphans
from reverseproxy.mux.ping import Ping
from reverseproxy.mux.session import MuxSession
from reverseproxy.mux.streams import SessionStreams, StreamRefused
from reverseproxy.mux.turn import PASSES, TurnEnd
from reverseproxy.mux.unsent import UnsentStreams
from reverseproxy.transport.backlog import NOTHING, Backlog
from reverseproxy.transport.closing import LINGER
from reverseproxy.transport.halves import Half
from reverseproxy.transport.memory import HELD, HeldBytes
from reverseproxy.wire.window import Reserve
from reverseproxy.wire.yamux.events import MuxLimits, Reset
from reverseproxy.wire.yamux.frames import DATA, FIN, GO_AWAY, LEAVING, PING, RST, SYN, UPDATE, WELL, pack
from reverseproxy.wire.yamux.outbound import TURN
from reverseproxy.wire.yamux.session import Mux


class Carrier:
    """A connection that writes down what is done to it."""

    def __init__(self) -> None:
        self.transport = self
        self.done: list[str] = []
        self.written: list[bytes] = []
        self.waits = NOTHING
        self.on_write: Callable[[], object] = lambda: None

    def write(self, data: bytes) -> None:
        self.written.append(data)
        self.on_write()

    def backlog(self) -> Backlog:
        return self.waits

    def getPeer(self) -> Any:
        return "the peer"

    def getHost(self) -> Any:
        return "ourselves"

    def __getattr__(self, name: str) -> Callable[[], object]:
        return lambda: self.done.append(name)


class OrphanTests(SynchronousTestCase):
    def test_time(self) -> None:
        orphans = Orphans()
        for number, now in ((1, 0.0), (5, 1.0), (3, 1.0), (7, 2.0)):
            orphans.add(number, now)
        orphans.ended(5)
        orphans.ended(9)
        self.assertEqual(orphans.expire(ORPHAN_TIMEOUT - 0.1), [])
        self.assertEqual(orphans.expire(ORPHAN_TIMEOUT + 1.0), [1, 3])
        self.assertEqual(orphans.expire(ORPHAN_TIMEOUT + 1.0), [])
        self.assertEqual(len(orphans), 1)


class Known:
    """What would be known of a connection."""

    def __init__(self, transport: object) -> None:
        self.notes: list[int] = []
        self.stayed: int | None = None

    def note(self, mark: int) -> None:
        self.notes.append(mark)

    def forget(self) -> None:
        self.notes.clear()


class UnsentTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.made: list[Known] = []
        self.patch(unsent, "Departures", self.make)
        self.streams = UnsentStreams()

    def make(self, transport: object) -> Known:
        self.made.append(Known(transport))
        return self.made[-1]

    def test_nothing_is_asked_before_something_waits(self) -> None:
        self.streams.note(None, waits=False)
        self.assertEqual(self.made, [])
        self.assertFalse(self.streams.includes(1))

    def test_those_that_were_opened_since(self) -> None:
        self.streams.opened(3)
        self.streams.note(None, waits=True)
        self.streams.opened(7)
        self.streams.note(None, waits=True)
        [known] = self.made
        self.assertEqual(known.notes, [3, 7])
        self.assertFalse(self.streams.includes(7))
        known.stayed = 3
        # 6 is one of the peer's.
        self.assertEqual([number for number in range(1, 10) if self.streams.includes(number)], [5, 7, 9])
        self.streams.note(None, waits=False)
        self.assertEqual(known.notes, [])


class Written:
    """A stream as L{TurnEnd} sees one."""

    def __init__(self, number: int, connected: bool = True) -> None:
        self.number = number
        self.connected = connected
        self.calls = 0
        self.then: Callable[[], object] = lambda: None

    def written_out(self) -> None:
        self.calls += 1
        self.then()


class TurnTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.calls: list[Callable[[], object]] = []
        self.ends = 0
        self.failures = 0
        self.carrier = Carrier()
        self.mux = Mux(True)
        self.turn = TurnEnd(self.calls.append, self.mux.output, self.ended, self.failed)
        self.turn.connect(self.carrier)

    def ended(self) -> None:
        self.ends += 1

    def failed(self) -> None:
        self.failures += 1

    def run_turn(self) -> None:
        calls, self.calls[:] = list(self.calls), []
        for call in calls:
            call()

    def stream(self, size: int) -> Written:
        number = self.mux.open()
        self.mux.send(number, bytes(size))
        return Written(number)

    def test_once_for_all(self) -> None:
        for _ in range(3):
            self.stream(10)
            self.turn.schedule()
        self.assertEqual((len(self.calls), self.carrier.written), (1, []))
        self.run_turn()
        self.assertEqual((len(self.carrier.written), self.calls), (1, []))
        self.assertEqual((self.turn.scheduled, self.ends), (False, 0))

    def test_a_connection_that_is_full(self) -> None:
        self.carrier.on_write = self.turn.pauseProducing
        for _ in range(4):
            self.stream(TURN)
        self.turn.schedule()
        for count in range(1, 4):
            self.run_turn()
            self.assertEqual(len(self.carrier.written), count)
            self.assertEqual(self.calls, [])
            self.turn.resumeProducing()
        self.turn.send(bounded=False)
        self.assertFalse(self.mux.output.has_output)

    def test_who_waits_for_what_was_written(self) -> None:
        small, large = self.stream(10), self.stream(10 * TURN)
        self.carrier.on_write = self.turn.pauseProducing
        for each in (small, large):
            self.turn.attend(each)  # type: ignore[arg-type]
        self.run_turn()
        self.assertEqual((small.calls, large.calls), (0, 0))
        self.turn.resumeProducing()
        self.run_turn()
        self.carrier.on_write = lambda: None
        self.turn.resumeProducing()
        self.run_turn()
        self.assertEqual((small.calls, large.calls), (1, 0))  # which has no credit
        self.mux.feed(b"\0\1\0\0\0\0\0\3" + (20 * TURN).to_bytes(4, "big"))
        self.turn.schedule()
        self.run_turn()
        self.assertEqual((small.calls, large.calls), (1, 1))

    def test_a_stream_that_is_forgotten_while_it_waits(self) -> None:
        large = self.stream(10 * TURN)
        self.turn.attend(large)  # type: ignore[arg-type]
        self.run_turn()
        self.turn.forget(large)  # type: ignore[arg-type]
        self.mux.feed(b"\0\1\0\0\0\0\0\1" + (20 * TURN).to_bytes(4, "big"))
        self.turn.schedule()
        self.run_turn()
        self.assertEqual(large.calls, 0)

    def test_what_it_brings_about(self) -> None:
        """It is seen to in the same turn, within bounds."""
        seen: list[int] = []

        def again() -> None:
            seen.append(len(seen))
            self.turn.call(again)

        self.turn.call(again)
        self.run_turn()
        self.assertEqual(len(seen), PASSES)
        self.assertEqual((len(self.calls), self.turn.scheduled), (1, True))

    def test_a_stream_that_waits_again_and_writes_nothing(self) -> None:
        """It is called again in the same turn, within bounds, though there is nothing to send."""
        stream = self.stream(10)
        for times, left in ((2, 0), (PASSES + 1, 1)):
            stream.calls = 0
            stream.then = lambda times=times: stream.calls < times and self.turn.attend(stream)  # type: ignore[misc, arg-type]
            self.turn.attend(stream)  # type: ignore[arg-type]
            self.run_turn()
            self.assertEqual((stream.calls, len(self.calls)), (times - left, left))
            self.assertEqual(self.turn.scheduled, bool(left))
        self.run_turn()
        self.assertEqual((stream.calls, self.calls, self.turn.scheduled), (PASSES + 1, [], False))

    def test_a_stream_that_waits_again_while_the_connection_is_full(self) -> None:
        stream = self.stream(10)

        def then() -> None:
            self.turn.pauseProducing()
            if stream.calls < 2:
                self.turn.attend(stream)  # type: ignore[arg-type]

        stream.then = then
        self.turn.attend(stream)  # type: ignore[arg-type]
        self.run_turn()
        self.assertEqual((stream.calls, self.calls), (1, []))
        self.turn.resumeProducing()
        self.run_turn()
        self.assertEqual((stream.calls, self.calls), (2, []))

    def test_a_producer_that_ends_its_half_when_it_is_resumed(self) -> None:
        """FIN is sent in the same turn: nothing else may be sent for a long time."""
        streams = SessionStreams(self.carrier, self.mux, self.turn, HELD, lambda: 0.0)
        reader: Any = Reader()
        stream = streams.open(reader, reader)
        producer: Any = Carrier()
        producer.resumeProducing = stream.loseWriteConnection
        stream.registerProducer(producer, True)
        stream.write(bytes(100_000))
        self.assertTrue(stream._producer_paused)
        self.run_turn()
        self.assertIs(stream.sending, Half.CLOSED)
        self.assertTrue(self.carrier.written[-1].endswith(pack(UPDATE, FIN, 1, 0)))
        self.assertEqual((self.calls, self.turn.scheduled), ([], False))

    def test_a_lost_connection(self) -> None:
        """Nothing is sent, but who is to be called is called."""
        seen: list[int] = []
        self.stream(10)
        self.turn.call(lambda: seen.append(1))
        self.turn.disconnect()
        self.run_turn()
        self.assertEqual((seen, self.carrier.written, self.calls), ([1], [], []))

    def test_an_error_of_ours(self) -> None:
        self.turn.call(lambda: 1 // 0)
        self.run_turn()
        self.assertEqual((self.failures, self.turn.scheduled), (1, False))

    def test_that_we_have_gone_away(self) -> None:
        """It may be time to close, at the end of each turn from then on."""
        self.mux.go_away()
        for ends in (1, 2):
            self.turn.schedule()
            self.run_turn()
            self.assertEqual(self.ends, ends)


class Reader:
    """A protocol that writes down what it is told."""

    def __init__(self) -> None:
        self.told: list[str] = []
        self.reason: Failure | None = None

    def makeConnection(self, transport: object) -> None:
        """Nothing is told of the beginning."""

    def dataReceived(self, data: bytes) -> None:
        self.told.append(data.decode())

    def connectionLost(self, reason: Failure) -> None:
        self.reason = reason


class StreamsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.now = 0.0
        self.mux = Mux(True)
        self.turn = TurnEnd(lambda call: None, self.mux.output, lambda: None, lambda: None)
        self.reader: Any = Reader()
        self.streams = SessionStreams(
            Carrier(), self.mux, self.turn, HELD, lambda: self.now, lambda: self.reader
        )

    def open(self) -> Any:
        return self.streams.open(self.reader, Reader())  # type: ignore[arg-type]

    def test_forgotten_once(self) -> None:
        stream = self.open()
        self.assertEqual(self.streams.by_number, {1: stream})
        self.assertTrue(self.streams.forget(stream))
        self.assertFalse(self.streams.forget(stream))
        self.assertEqual((stream.getPeer(), stream.getHost()), ("the peer", "ourselves"))

    def test_no_protocol(self) -> None:
        """A stream that nobody takes is refused, and one whose protocol fails to begin is reset."""
        other = SessionStreams(Carrier(), Mux(True), self.turn, HELD, lambda: self.now)
        self.assertFalse(other.accept(2))
        self.reader = None
        self.assertFalse(self.streams.accept(2))
        self.streams._accept = lambda: 1 / 0  # type: ignore[assignment, return-value]
        self.assertFalse(self.streams.accept(2))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual((self.streams.by_number, other.by_number), ({}, {}))
        failing = Reader()
        failing.makeConnection = lambda transport: 1 / 0  # type: ignore[method-assign]
        self.streams._accept = lambda: failing
        self.assertTrue(self.streams.accept(4))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(self.streams.by_number, {})

    def test_resets(self) -> None:
        for remote, refused, kind, words in (
            (True, True, StreamRefused, "the peer took no more streams"),
            (True, False, ConnectionLost, "the stream was reset by the peer"),
            (False, False, ConnectionLost, "the stream held too much"),
        ):
            self.reader = Reader()
            self.assertTrue(self.streams.accept(2))
            stream = self.streams.by_number[2]
            self.streams.was_reset(Reset(2, remote, refused))
            assert self.reader.reason is not None
            self.assertIs(self.reader.reason.type, kind)
            self.assertIn(words, self.reader.reason.getErrorMessage())
            self.assertTrue(stream.disconnected)
            self.streams.was_reset(Reset(2, remote, refused))

    def test_nobody_listens(self) -> None:
        """The peer's half of a stream that we have closed is borne for a while, if nothing comes on it."""
        for end in ("ended", "unwanted", "time"):
            number = self.mux.open()
            self.mux.output.take()
            self.streams.abandon(number)
            if end == "ended":
                self.streams.ended(number)
            elif end == "unwanted":
                self.streams.unwanted(number)
            self.assertEqual(self.mux.output.has_output, end == "unwanted")
            self.mux.output.take()
            self.now += ORPHAN_TIMEOUT
            self.streams.clear_orphans(self.now)
            self.assertEqual(self.mux.output.has_output, end == "time")

    def test_the_connection_is_lost(self) -> None:
        """All are told but those that have everything, and have to be read."""
        self.streams.accept(2)
        read, first = self.streams.by_number[2], self.reader
        read.pauseProducing()
        read.hold(b"the end")
        read.end()
        read.sending = Half.CLOSED
        self.reader = other = Reader()
        self.streams.accept(4)
        self.streams.lost = True
        reason = Failure(ConnectionLost("gone"))
        self.streams.lose(reason)
        self.assertIs(other.reason, reason)
        self.assertIsNone(first.reason)
        self.streams.consumed(2, 7)  # changes no window any more
        self.streams.note_wait(True)


class Wire(Carrier):
    """Keeps what a session writes, and can be asked of."""

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        pass

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass


@implementer(IHalfCloseableProtocol)
class Listener(Reader):
    """A protocol that does not read all the time, and hears of each end."""

    transport: Any = None

    def makeConnection(self, transport: Any) -> None:
        self.transport = transport
        self.told.append("made")

    def dataReceived(self, data: bytes) -> None:
        if len(data) > 5:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        self.told.append("end")

    def writeConnectionLost(self) -> None:
        self.told.append("shut")

    def connectionLost(self, reason: Failure) -> None:
        self.told.append("lost")


class CloseTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock, self.carrier = Clock(), Wire()
        self.session = MuxSession(False, self.clock)
        self.session.makeConnection(self.carrier)
        self.carrier.done.clear()
        self.carrier.waits = Backlog(9, 9)
        self.session.close("enough")

    def check(self, seconds: float) -> None:
        """It is aborted after so many seconds, and not before."""
        self.clock.advance(seconds - 0.1)
        self.assertEqual(self.carrier.done, ["unregisterProducer", "loseConnection"])
        self.clock.advance(0.1)
        self.assertEqual(self.carrier.done[2:], ["abortConnection"])

    def test_a_peer_that_closes(self) -> None:
        self.session.close("once more")
        self.assertEqual(self.carrier.done, ["unregisterProducer", "loseConnection"])
        self.assertFalse(self.session.usable)
        self.session.connectionLost()
        self.clock.advance(0)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_peer_that_has_received_the_last_byte_a_moment_ago(self) -> None:
        self.clock.advance(LINGER - 0.1)
        self.carrier.waits = NOTHING
        self.clock.advance(0.1)
        self.check(LINGER)

    def test_a_peer_that_receives_something_now_and_then(self) -> None:
        for size in range(8, 1, -1):
            self.carrier.waits = Backlog(size, size)
            self.clock.advance(LINGER)
        self.check(LINGER)

    def test_a_peer_that_stands_still(self) -> None:
        self.check(LINGER)


class LossTests(SynchronousTestCase):
    """A connection may be lost at any byte."""

    LIMITS = MuxLimits(tells=True, moves=True)

    SENT = (
        pack(UPDATE, SYN, 1, 0),
        pack(DATA, SYN, 3, 4) + b"data",
        pack(DATA, 0, 1, 9) + b"much more",
        pack(PING, SYN, 0, 1),
        pack(WELL, 0, 0, 1),
        pack(DATA, FIN, 3, 2) + b"!!",
        pack(UPDATE, RST, 1, 0),
        pack(UPDATE, SYN | FIN, 5, 0),
        pack(LEAVING, 0, 0, 500),
        pack(DATA, SYN, 7, 3) + b"abc",
        pack(GO_AWAY, 0, 0, 0),
        pack(UPDATE, FIN, 7, 0),
    )

    def test_at_any_byte(self) -> None:
        """Each protocol is told of its end, once and last, whatever had come, and nothing is kept."""
        sent = b"".join(self.SENT)
        for size in range(len(sent) + 1):
            for waits in (True, False):
                self.lose(sent[:size], waits)

    def lose(self, data: bytes, waits: bool) -> None:
        clock = Clock()
        made: list[Listener] = []

        def accept() -> Any:
            made.append(Listener())
            return made[-1]

        budget, reserve = HeldBytes(1 << 20), Reserve()
        session = MuxSession(False, clock, self.LIMITS, accept, budget=budget, reserve=reserve)
        session.makeConnection(Wire())
        session.dataReceived(data)
        for each in made:
            if "lost" not in each.told:
                each.transport.write(b"answer")
        if waits:
            clock.advance(0)
        session.connectionLost(Failure(ConnectionLost("cut off")))
        for each in made:
            if each.transport is not None:
                each.transport.resumeProducing()
                each.transport.loseConnection()
        clock.advance(0)
        clock.advance(0)
        for each in made:
            self.assertEqual((each.told[0], each.told.count("made")), ("made", 1))
            self.assertEqual((each.told[-1], each.told.count("lost")), ("lost", 1), (data, each.told))
        self.assertEqual((budget.total, reserve.taken, reserve.streams), (0, 0, 0))
        self.assertEqual((session.streams, session.lost, clock.getDelayedCalls()), (0, True, []))


class PingTests(SynchronousTestCase):
    def test_the_last_one_counts(self) -> None:
        ping = Ping()
        first = ping.sent(1.0)
        last = ping.sent(2.0)
        self.assertIsNone(ping.answered(first, 3.0))
        self.assertIsNone(ping.rtt)
        self.assertEqual((ping.answered(last, 2.5), ping.rtt), (0.5, 0.5))

    def test_tokens_of_32_bits(self) -> None:
        ping = Ping()
        ping._token = 2**32 - 1
        self.assertEqual(ping.sent(0.0), 0)
