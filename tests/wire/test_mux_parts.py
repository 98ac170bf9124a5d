"""Unit tests for the parts of a multiplexed connection."""

from __future__ import annotations

from itertools import product

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import MuxError, NoMoreStreams
from reverseproxy.wire.window import TELL_EVERY, Reserve
from reverseproxy.wire.yamux.abuse import LATE, MAX_USELESS, RESETS_PER_SECOND, USELESS_PER_SECOND, Abuse
from reverseproxy.wire.yamux.events import MIN_WINDOW, Data, Ended, Event, Leaving, MuxLimits, Well
from reverseproxy.wire.yamux.frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    LEAVING,
    MAX_ID,
    PING,
    RST,
    SILENT,
    SYN,
    UPDATE,
    WELL,
    pack,
)
from reverseproxy.wire.yamux.ids import SPARE_IDS, StreamIds
from reverseproxy.wire.yamux.late import REMEMBERED_RESETS, ResetStreams
from reverseproxy.wire.yamux.outbound import ACK_AFTER, BRIEF, YamuxOutput
from reverseproxy.wire.yamux.reader import YamuxFrameReader
from reverseproxy.wire.yamux.session import Mux
from reverseproxy.wire.yamux.stream import YamuxStream
from reverseproxy.wire.yamux.table import StreamTable
from reverseproxy.wire.yamux.windows import ReceiveWindows
from tests.wire.mux_frames import Frame, frames

WINDOW = 65536

LIMITS = MuxLimits(first=WINDOW, window=WINDOW, max_window=WINDOW * 4, receive_budget=WINDOW * 8)


def table(limits: MuxLimits = LIMITS, client: bool = False) -> StreamTable:
    return StreamTable(client, limits, Reserve())


class IdTests(SynchronousTestCase):
    def test_ours(self) -> None:
        for client, first in ((True, 1), (False, 2)):
            ids = StreamIds(client)
            self.assertEqual(
                (ids.parity, ids.take(), ids.take(), ids.next), (first & 1, first, first + 2, first + 4)
            )
            self.assertEqual(ids.left, (2**32 - first - 4 + 1) // 2)

    def test_the_last(self) -> None:
        ids = StreamIds(True)
        ids.next = MAX_ID - 2 * SPARE_IDS
        self.assertFalse(ids.exhausted)
        for left in range(SPARE_IDS, 0, -1):
            ids.take()
            self.assertEqual((ids.left, ids.exhausted), (left, True))
        self.assertEqual(ids.take(), MAX_ID)
        self.assertEqual(ids.left, 0)
        with self.assertRaisesRegex(NoMoreStreams, "used up"):
            ids.take()
        self.assertEqual(ids.left, 0)

    def test_those_of_the_peer_increase(self) -> None:
        ids = StreamIds(False)
        ids.accept(3)
        for number in (1, 3, 2, 4):
            with self.assertRaisesRegex(MuxError, "expected an odd number over 3"):
                ids.accept(number)
        ids.accept(MAX_ID)

    def test_those_that_were_there(self) -> None:
        ids = StreamIds(True)
        ids.take()
        ids.accept(6)
        for number in (1, 2, 4, 6):
            ids.check_known(number)
        for number in (0, 3, 8):
            with self.assertRaises(MuxError):
                ids.check_known(number)


class ResetStreamTests(SynchronousTestCase):
    def test_what_was_under_way(self) -> None:
        resets = ResetStreams()
        resets.remember(1, 10)
        resets.drop(1, 0, 4)
        resets.drop(1, 0, 6)
        with self.assertRaisesRegex(MuxError, "expected 0 bytes at most on stream 1, which was reset"):
            resets.drop(1, 0, 1)
        self.assertIn(1, resets)
        resets.drop(1, FIN, 0)
        self.assertNotIn(1, resets)

    def test_all_ends(self) -> None:
        resets = ResetStreams()
        for number, end in enumerate((lambda n: resets.drop(n, RST, 0), resets.ended)):
            resets.remember(number, 10)
            end(number)
            self.assertEqual(len(resets), 0)
        resets.ended(7)

    def test_the_oldest_are_forgotten(self) -> None:
        resets = ResetStreams()
        for number in range(1, 2 * REMEMBERED_RESETS + 7, 2):
            resets.remember(number, 1)
        self.assertEqual(len(resets), REMEMBERED_RESETS)
        self.assertEqual(
            [resets.may_include(number) for number in (1, 5, 6, 7, 2)], [True, True, False, False, False]
        )
        resets.clear()
        self.assertEqual(len(resets), 0)


class AbuseTests(SynchronousTestCase):
    def test_useless_work(self) -> None:
        abuse = Abuse(10)
        for _ in range(MAX_USELESS):
            abuse.charge("pings", 0.0)
        with self.assertRaisesRegex(MuxError, "expected fewer pings"):
            abuse.charge("pings", 0.0)
        abuse.charge("pings", 2 / USELESS_PER_SECOND)
        abuse.useless.earn()
        abuse.charge("pings", 2 / USELESS_PER_SECOND, LATE)

    def test_resets(self) -> None:
        abuse = Abuse(2)
        abuse.charge_reset(5.0)
        self.assertFalse(abuse.bars_streams(5.0))
        abuse.charge_reset(5.0)
        self.assertTrue(abuse.bars_streams(5.0))
        abuse.earn_stream()
        self.assertFalse(abuse.bars_streams(5.0))
        abuse.charge_reset(5.0)
        self.assertTrue(abuse.bars_streams(5.0 + 0.0 / RESETS_PER_SECOND))
        self.assertFalse(abuse.bars_streams(5.0 + 0.5 / RESETS_PER_SECOND))
        abuse.charge_reset(6.0)
        self.assertFalse(abuse.bars_streams(100.0))
        self.assertEqual(abuse.resets, 0.0)
        abuse.earn_stream()
        self.assertEqual(abuse.resets, 0.0)


class WindowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = table()
        self.output = YamuxOutput(self.table)
        self.windows = ReceiveWindows(self.table, self.output)
        self.stream = self.table.add(1, 0)

    def receive(self, size: int) -> None:
        self.stream.recv_window -= size
        self.stream.held += size
        self.table.held += size

    def told(self) -> list[Frame]:
        return frames(self.output.take())

    def test_half_a_window(self) -> None:
        self.receive(WINDOW)
        self.windows.consumed(1, WINDOW // 2 - 1, 0.0)
        self.assertEqual(self.told(), [])
        self.windows.consumed(1, 1, 0.0)
        self.assertEqual(self.told(), [Frame(UPDATE, 0, 1, WINDOW // 2)])
        self.assertEqual((self.stream.recv_window, self.stream.held, self.table.held), (WINDOW // 2,) * 3)

    def test_little_now_and_then(self) -> None:
        self.receive(10)
        self.windows.consumed(1, 4, TELL_EVERY - 0.1)
        self.windows.consumed(1, 5, TELL_EVERY)
        self.assertEqual(self.told(), [Frame(UPDATE, 0, 1, 9)])
        self.windows.consumed(1, 1, TELL_EVERY + 0.1)
        self.assertEqual(self.told(), [])

    def test_an_acknowledgement_rides_on_it(self) -> None:
        stream = self.table.add(3, ACK | SILENT)
        self.output.accept(stream)
        stream.recv_window, stream.held = 0, WINDOW
        self.windows.consumed(3, WINDOW, 0.0)
        self.assertEqual(self.told(), [Frame(UPDATE, ACK, 3, WINDOW)])
        self.assertEqual((self.output.unacknowledged, stream.flags), ({}, SILENT))

    def test_growth(self) -> None:
        self.table.growth.measured(1.0, 0.0)
        self.receive(WINDOW)
        self.windows.consumed(1, WINDOW, 0.1)
        self.assertEqual(self.stream.window, WINDOW * 4)
        self.assertEqual(self.told(), [Frame(UPDATE, 0, 1, WINDOW * 4)])
        self.assertEqual(self.table.growth.grown, WINDOW * 3)
        self.table.drop(self.stream)
        self.assertEqual((self.table.growth.grown, self.table.held, self.table.streams), (0, 0, {}))

    def test_what_is_not_there(self) -> None:
        self.receive(3)
        with self.assertRaisesRegex(ValueError, "4 bytes of stream 1 can't be consumed, there are 3"):
            self.windows.consumed(1, 4, 0.0)
        self.windows.consumed(5, 4, 0.0)
        self.assertEqual(self.table.held, 3)

    def test_the_last_of_a_stream(self) -> None:
        self.receive(3)
        self.stream.remote_open = self.stream.local_open = False
        self.stream.recv_window = -1
        self.table.finish(self.stream)
        self.windows.consumed(1, 2, 0.0)
        self.assertEqual(self.table.streams, {1: self.stream})
        self.windows.consumed(1, 1, 0.0)
        self.assertEqual((self.table.streams, self.told()), ({}, []))


class OutputTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.table = table(client=True)
        self.output = YamuxOutput(self.table)

    def open(self) -> YamuxStream:
        stream = self.table.add(self.table.ids.take(), SYN)
        self.output.open(stream)
        return stream

    def taken(self, limit: int = 1 << 20) -> list[tuple[int, int, int, int]]:
        return [each[:4] for each in frames(self.output.take(limit))]

    def test_a_stream_that_is_reset_before_it_was_told_of(self) -> None:
        self.output.reset(self.open(), 0)
        self.assertFalse(self.output.has_output)
        self.assertEqual((len(self.table.resets), self.table.streams), (0, {}))

    def test_resets(self) -> None:
        """The peer may have sent as much as its window has, unless it has ended the stream."""
        first, second = self.open(), self.open()
        self.taken()
        second.remote_open = False
        second.recv_window = -1
        self.output.reset(first, 0)
        self.output.reset(second, 1)
        self.assertEqual(self.taken(), [(UPDATE, RST, 1, 0), (UPDATE, RST, 3, 1)])
        self.assertIn(1, self.table.resets)
        self.assertNotIn(3, self.table.resets)

    def test_what_waits_is_forgotten(self) -> None:
        for size in (BRIEF, BRIEF + 1):
            stream = self.open()
            stream.send_window = 0
            self.output.send(stream.id, bytes(size))
            self.taken()
            stream.send_window = 1
            self.output.resume(stream)
            self.assertTrue(self.output.has_output)
            self.output.drop(stream)
            self.assertFalse(self.output.has_output)
            self.assertEqual((self.output.pending(stream.id), self.output.credit(stream.id)), (0, 0))

    def test_little_becomes_much(self) -> None:
        """A stream waits in one of two queues: with little, before those with much."""
        much, other = self.open(), self.open()
        self.output.send(much.id, bytes(WINDOW))
        self.output.send(other.id, bytes(BRIEF))
        self.output.send(other.id, bytes(1))
        self.assertEqual([frame[2] for frame in self.taken() if frame[0] == DATA], [1, 3, 1])

    def test_a_place_is_kept(self) -> None:
        """Whoever has a little more to send does not go to the end of the queue for that."""
        much, first, second = self.open(), self.open(), self.open()
        self.output.send(much.id, bytes(WINDOW))
        for stream in (first, second, first):
            self.output.send(stream.id, bytes(10))
        sent = [frame[2:] for frame in self.taken() if frame[0] == DATA and frame[2] != much.id]
        self.assertEqual(sent, [(first.id, 20), (second.id, 10)])

    def test_acknowledgements(self) -> None:
        for number in range(2, 2 * ACK_AFTER, 2):
            self.output.accept(self.table.add(number, ACK | SILENT))
        self.assertFalse(self.output.has_output)
        self.output.withhold_ack(self.table.streams[2])
        self.output.accept(self.table.add(500, ACK | SILENT))
        self.assertFalse(self.output.has_output)
        self.output.pong(9)
        self.assertEqual(self.taken()[:2], [(PING, ACK, 0, 9), (UPDATE, ACK, 4, 0)])
        self.assertEqual(self.output.unacknowledged, {})

    def test_too_much_for_a_peer_that_takes_nothing(self) -> None:
        limits = MuxLimits(max_pending_control=3, max_streams=1)
        output = YamuxOutput(table(limits))
        for _ in range(5):
            self.assertFalse(output.overflow)
            output.put_first(pack(PING, SYN, 0, 0))
        self.assertFalse(output.overflow)
        output.refuse(1, ended=True)
        self.assertTrue(output.overflow)
        self.assertEqual(output.waiting, 6)
        output.take()
        self.assertFalse(output.overflow)

    def test_failure(self) -> None:
        """What was put out goes, what was to follow does not."""
        stream = self.open()
        self.output.send(stream.id, b"x")
        self.open()
        self.output.accept(self.table.add(2, ACK | SILENT))
        self.output.send(2, bytes(WINDOW))
        self.output.fail(1)
        self.assertEqual(self.taken(), [(DATA, SYN, 1, 1), (GO_AWAY, 0, 0, 1)])
        self.assertFalse(self.output.has_output)


class Rules:
    """Writes down what the reader asks."""

    def __init__(self, streams: dict[int, YamuxStream]) -> None:
        self.streams = streams
        self.asked: list[object] = []

    def on_data(
        self, number: int, flags: int, length: int, stream: YamuxStream | None, events: list[Event]
    ) -> YamuxStream | None:
        self.asked.append((number, flags, length))
        return stream

    def on_control(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        if kind == GO_AWAY and length:
            raise MuxError("expected something else")
        self.asked.append((kind, flags, number, length))

    def on_end(self, stream: YamuxStream, events: list[Event]) -> None:
        events.append(Ended(stream.id))


class ReaderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.streams = {
            1: YamuxStream(1, WINDOW, WINDOW, WINDOW, 0, 0.0),
            3: YamuxStream(3, WINDOW, 5, WINDOW, 0, 0.0),
        }
        self.rules = Rules(self.streams)
        self.reader = YamuxFrameReader(self.streams, self.rules, GO_AWAY)

    def read(self, data: bytes) -> tuple[int, str]:
        events: list[Event] = []
        received = self.reader.read(data, events)
        return received, "".join(
            f"{event.stream}:{event.data.decode()} " if isinstance(event, Data) else f"{event!r} "
            for event in events
        )

    def test_what_is_ordinary_is_counted_and_nothing_asked(self) -> None:
        self.assertEqual(
            self.read(pack(DATA, 0, 1, 3) + b"abc" + pack(DATA, 0, 3, 5) + b"de"), (8, "1:abc 3:de ")
        )
        self.assertEqual((self.streams[1].held, self.streams[1].recv_window), (3, WINDOW - 3))
        self.assertEqual((self.streams[3].held, self.streams[3].recv_window), (5, 0))
        self.assertEqual(self.read(b"fgh"), (0, "3:fgh "))
        self.assertEqual(self.rules.asked, [])

    def test_the_rest_is(self) -> None:
        for number, flags, data in ((1, FIN, b"ab"), (3, 0, b"123456"), (5, 0, b"x"), (1, 0, b"")):
            self.read(pack(DATA, flags, number, len(data)) + data)
        self.assertEqual(self.rules.asked, [(1, FIN, 2), (3, 0, 6), (5, 0, 1), (1, 0, 0)])

    def test_the_end_comes_behind_the_data(self) -> None:
        self.assertEqual(self.read(pack(DATA, FIN, 1, 3) + b"ab"), (0, "1:ab "))
        self.assertEqual(self.read(b"c" + pack(PING, SYN, 0, 1)), (0, "1:c <Ended 1> "))
        self.assertEqual(self.rules.asked, [(1, FIN, 3), (PING, SYN, 0, 1)])

    def test_a_stream_that_is_reset_in_the_midst_of_a_frame(self) -> None:
        self.read(pack(DATA, 0, 1, 4) + b"ab")
        self.streams.pop(1).remote_open = False
        self.assertEqual(self.read(b"c"), (0, ""))
        self.assertEqual(self.read(b"d" + pack(DATA, 0, 3, 1) + b"x"), (1, "3:x "))

    def test_errors_quote_what_was_sent(self) -> None:
        with self.assertRaisesRegex(MuxError, r"expected something else; the peer sent b'\\x00\\x03"):
            self.read(pack(DATA, 0, 1, 1) + b"a" + pack(GO_AWAY, 0, 0, 1))

    def test_no_header(self) -> None:
        for begin in (b"\1", b"\0\4", b"GET"):
            with self.assertRaisesRegex(MuxError, "expected version 0 and a type from 0 to 3"):
                YamuxFrameReader(self.streams, self.rules, GO_AWAY).read(begin, [])


class CutTests(SynchronousTestCase):
    """Frames may be cut anywhere, whatever was agreed on."""

    FRAMES = (
        pack(UPDATE, SYN, 1, 0),
        pack(DATA, 0, 1, 3) + b"abc",
        pack(PING, SYN, 0, 9),
        pack(WELL, 0, 0, 1),
        pack(LEAVING, 0, 0, 7),
        pack(UPDATE, FIN, 1, 0),
        pack(GO_AWAY, 0, 0, 0),
    )

    def events(self, mux: Mux, *parts: bytes) -> list[str]:
        return [repr(event) for part in parts for event in mux.feed(part)]

    def test_all_kinds(self) -> None:
        limits = MuxLimits(tells=True, moves=True)
        for each in self.FRAMES:
            before = b"".join(self.FRAMES[: self.FRAMES.index(each)])
            for cut in range(1, len(each)):
                whole, parts = Mux(False, limits), Mux(False, limits)
                whole.feed(before)
                parts.feed(before)
                found = self.events(parts, each[:cut], each[cut:])
                if each[1] == DATA and cut > 12:
                    self.assertEqual(len(found), 2)
                else:
                    self.assertEqual(found, self.events(whole, each))

    def test_what_was_not_agreed_on(self) -> None:
        for limits, kinds in (
            (MuxLimits(), (WELL, LEAVING)),
            (MuxLimits(tells=True), (LEAVING,)),
            (MuxLimits(moves=True), (WELL,)),
        ):
            for kind in kinds:
                for cut in range(1, 12):
                    mux = Mux(False, limits)
                    frame = pack(kind, 0, 0, 1)
                    with self.assertRaisesRegex(MuxError, "expected version 0 and a type from 0 to 3"):
                        mux.feed(frame[:cut])
                        mux.feed(frame[cut:])

    def test_what_was_agreed_on(self) -> None:
        (event,) = Mux(True, MuxLimits(moves=True)).feed(pack(LEAVING, 0, 0, 7))
        assert isinstance(event, Leaving)
        self.assertEqual(event.after, 7)
        (event,) = Mux(True, MuxLimits(tells=True)).feed(pack(WELL, 0, 0, 0))
        assert isinstance(event, Well)
        self.assertFalse(event.well)


class OrderTests(SynchronousTestCase):
    """What two ends do with one stream, in every order, however late either of them hears of it."""

    LIMITS = MuxLimits(first=MIN_WINDOW, window=MIN_WINDOW, max_window=MIN_WINDOW, max_frame=3000, tells=True)

    STEPS = 3

    ACTIONS = ("send", "end", "reset", "disown", "deliver")

    def settle(self, ends: tuple[Mux, Mux], wires: list[bytearray], ended: list[bool]) -> None:
        """Let everything arrive, and both ends end what is left."""
        for _ in range(20):
            for who in (0, 1):
                if not ended[who]:
                    ends[who].end(1)
                self.deliver(ends, wires, who)
            if not any(wires) and not (ends[0].has_output or ends[1].has_output):
                return
        self.fail("it goes on without end")

    def deliver(self, ends: tuple[Mux, Mux], wires: list[bytearray], who: int) -> None:
        """Let one end hear what the other one has sent by now, and pass on what came."""
        wires[who] += ends[1 - who].take()
        events = ends[who].feed(bytes(wires[who]))
        wires[who].clear()
        for event in events:
            if isinstance(event, Data):
                ends[who].consumed(event.stream, len(event.data), 0.0)

    def run_order(self, order: tuple[tuple[str, int], ...]) -> None:
        ends = Mux(True, self.LIMITS), Mux(False, self.LIMITS)
        wires = [bytearray(), bytearray()]
        ends[0].open()
        self.deliver(ends, wires, 1)
        ended = [False, False]
        for action, who in order:
            mux = ends[who]
            if action == "send":
                mux.send(1, bytes(5000))
            elif action == "end":
                mux.end(1)
            elif action == "reset":
                mux.reset(1)
            elif action == "disown":
                mux.disown(1)
            else:
                self.deliver(ends, wires, who)
            wires[1 - who] += mux.take()  # on its way
        self.settle(ends, wires, ended)
        for mux in ends:
            self.assertEqual((mux.streams, mux.held, mux.pending(1), mux.output.waiting), (0, 0, 0, 0), order)
            self.assertFalse(mux.failed or mux.output.unacknowledged, order)
            number = mux.open()
            self.assertGreater(mux.credit(number), 0)

    def test_orders(self) -> None:
        actions = [(action, who) for action in self.ACTIONS for who in (0, 1)]
        for order in product(actions, repeat=self.STEPS):
            if order[0][1] == 0:  # the other half is the same with the ends exchanged, but for who opened it
                self.run_order(order)

    def test_credit_byte_by_byte(self) -> None:
        """A peer that gives one byte of credit at a time gets what was sent, in order, and then its end."""
        mux = Mux(True, self.LIMITS)
        number = mux.open()
        mux.send(number, bytes(range(256)) * 17)
        mux.end(number)
        received = b"".join(each.data for each in frames(mux.take()))
        self.assertEqual(len(received), MIN_WINDOW)
        last = 0
        while len(received) < 256 * 17:
            self.assertEqual(mux.take(), b"")
            mux.feed(pack(UPDATE, ACK * (not last), number, 1))
            [frame] = frames(mux.take())
            self.assertEqual((frame.kind, frame.length), (DATA, 1))
            received += frame.data
            last = frame.flags
        self.assertEqual((received, last), (bytes(range(256)) * 17, FIN))
