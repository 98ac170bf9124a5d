"""Multiplexed connections: frames, states, windows, turns and bounds."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import MuxError, NoMoreStreams, WireError
from reverseproxy.wire.window import TELL_EVERY, Reserve
from reverseproxy.wire.yamux.abuse import LATE, MAX_USELESS, REPEATED, RESETS_PER_SECOND, USELESS_PER_SECOND
from reverseproxy.wire.yamux.events import (
    INITIAL_WINDOW,
    MAX_WINDOW,
    MIN_WINDOW,
    SMALL_WINDOW,
    Credit,
    Data,
    Ended,
    GoAwayCode,
    GoneAway,
    MuxLimits,
    Opened,
    Pong,
    Reset,
    Well,
)
from reverseproxy.wire.yamux.frames import pack
from reverseproxy.wire.yamux.ids import SPARE_IDS
from reverseproxy.wire.yamux.inbound import MAX_PINGS
from reverseproxy.wire.yamux.late import REMEMBERED_RESETS
from reverseproxy.wire.yamux.outbound import ACK_AFTER, TURN
from reverseproxy.wire.yamux.session import Mux
from tests.wire.mux_frames import (
    ACK,
    DATA,
    FIN,
    GO_AWAY,
    PING,
    RST,
    SYN,
    UPDATE,
    Frame,
    consume,
    frame,
    frames,
    taken,
    words,
)

WINDOW = INITIAL_WINDOW


def raw(text: str) -> bytes:
    return bytes.fromhex(text)


def opened(mux: Mux, count: int = 1) -> list[int]:
    """Open streams, and tell the peer."""
    numbers = [mux.open() for _ in range(count)]
    mux.take()
    return numbers


def accepted(count: int = 1, limits: MuxLimits | None = None) -> Mux:
    """Make an end whose peer has opened streams, which are acknowledged."""
    mux = Mux(False, limits)
    mux.feed(b"".join(frame(UPDATE, SYN, 2 * i + 1) for i in range(count)))
    mux.feed(frame(PING, SYN, 0))
    mux.take(1 << 20)
    return mux


def exchange(one: Mux, other: Mux, now: float = 0.0) -> tuple[list[Any], list[Any]]:
    """Carry everything both ways, consuming it; return the events of each end."""
    found: tuple[list[Any], list[Any]] = ([], [])
    while one.has_output or other.has_output:
        for sender, receiver, events in ((one, other, found[1]), (other, one, found[0])):
            data = sender.take()
            if data:
                new = receiver.feed(data, now)
                consume(receiver, new, now)
                events += new
    return found


class GoldenTests(SynchronousTestCase):
    """Frames, byte by byte, as yamux's specification has them."""

    def test_syn_rides_on_data(self) -> None:
        mux = Mux(True)
        stream = mux.open()
        mux.send(stream, b"hello")
        self.assertEqual(stream, 1)
        self.assertEqual(mux.take(), raw("00 00 0001 00000001 00000005") + b"hello")

    def test_syn_without_data(self) -> None:
        mux = Mux(False)
        self.assertEqual(mux.open(), 2)
        self.assertTrue(mux.has_output)
        self.assertEqual(mux.take(), raw("00 01 0001 00000002 00000000"))
        self.assertFalse(mux.has_output)

    def test_syn_and_fin_on_the_only_data(self) -> None:
        mux = Mux(True)
        stream = mux.open()
        mux.send(stream, b"hi")
        mux.end(stream)
        self.assertEqual(mux.take(), raw("00 00 0005 00000001 00000002") + b"hi")

    def test_ack_rides_on_data(self) -> None:
        mux = Mux(False)
        mux.feed(raw("00 01 0001 00000001 00000000"))
        self.assertEqual(mux.take(), b"")
        mux.send(1, b"yes")
        self.assertEqual(mux.take(), raw("00 00 0002 00000001 00000003") + b"yes")
        mux.send(1, b"!")
        self.assertEqual(mux.take(), raw("00 00 0000 00000001 00000001") + b"!")

    def test_ack_on_a_window_update(self) -> None:
        mux = Mux(False)
        events = mux.feed(raw("00 00 0001 00000001 00020000") + bytes(0x20000))
        consume(mux, events)
        self.assertEqual(mux.take(), raw("00 01 0002 00000001 00020000"))

    def test_fin_without_data(self) -> None:
        mux = Mux(True)
        [stream] = opened(mux)
        mux.end(stream)
        self.assertEqual(mux.take(), raw("00 01 0004 00000001 00000000"))

    def test_rst(self) -> None:
        mux = Mux(True)
        [stream] = opened(mux)
        mux.reset(stream)
        self.assertEqual(mux.take(), raw("00 01 0008 00000001 00000000"))

    def test_ping(self) -> None:
        client, server = Mux(True), Mux(False)
        client.ping(0xDEADBEEF)
        data = client.take()
        self.assertEqual(data, raw("00 02 0001 00000000 deadbeef"))
        self.assertEqual(server.feed(data), [])
        data = server.take()
        self.assertEqual(data, raw("00 02 0002 00000000 deadbeef"))
        [pong] = client.feed(data)
        assert isinstance(pong, Pong)
        self.assertEqual(pong.token, 0xDEADBEEF)

    def test_go_away(self) -> None:
        for code in GoAwayCode:
            mux = Mux(True)
            mux.go_away(code)
            data = mux.take()
            self.assertEqual(data, raw("00 03 0000 00000000 000000") + bytes([code]))
            self.assertEqual(words(Mux(False).feed(data)), f"gone-{int(code)}")

    def test_a_larger_window_is_told_at_once(self) -> None:
        limits = MuxLimits(window=WINDOW + 0x100)
        client, server = Mux(True, limits), Mux(False, limits)
        stream = client.open()
        client.send(stream, b"x")
        data = client.take()
        self.assertEqual(data, raw("00 01 0001 00000001 00000100 00 00 0000 00000001 00000001") + b"x")
        self.assertEqual(words(server.feed(data)), "opened-1 1:x")
        self.assertEqual(server.take(), raw("00 01 0002 00000001 00000100"))

    def test_a_smaller_window_that_was_agreed_on(self) -> None:
        limits = MuxLimits(SMALL_WINDOW, SMALL_WINDOW)
        client, server = Mux(True, limits), Mux(False, limits)
        stream = client.open()
        client.send(stream, bytes(SMALL_WINDOW + 1))
        server.feed(client.take())
        self.assertEqual(client.pending(stream), 1)
        # Nobody else may exceed it either.
        with self.assertRaisesRegex(MuxError, "expected 0 bytes at most on stream 1"):
            server.feed(frame(DATA, 0, stream, b"x"))

    def test_what_may_still_come_for_a_refused_stream_is_as_much_as_was_agreed_on(self) -> None:
        mux = Mux(False, MuxLimits(SMALL_WINDOW, SMALL_WINDOW, max_streams=0))
        mux.feed(frame(DATA, SYN, 1, bytes(SMALL_WINDOW)))
        with self.assertRaisesRegex(MuxError, "expected 0 bytes at most on stream 1, which was reset"):
            mux.feed(frame(DATA, 0, 1, b"x"))

    def test_a_request_and_its_response(self) -> None:
        client, server = Mux(True), Mux(False)
        stream = client.open()
        client.send(stream, b"ask")
        client.end(stream)
        self.assertEqual(words(server.feed(client.take())), "opened-1 1:ask ended-1")
        server.send(stream, b"answer")
        server.end(stream)
        data = server.take()
        self.assertEqual(data, raw("00 00 0006 00000001 00000006") + b"answer")
        self.assertEqual(words(client.feed(data)), "1:answer ended-1")
        self.assertEqual((client.streams, server.streams), (1, 1))
        server.consumed(stream, 3, 0.0)
        client.consumed(stream, 6, 0.0)
        self.assertEqual((client.streams, server.streams), (0, 0))


class EventTests(SynchronousTestCase):
    def test_representation(self) -> None:
        for event, text in (
            (Opened(1), "<Opened 1>"),
            (Data(1, b"abc"), "<Data 1: 3 bytes>"),
            (Ended(3), "<Ended 3>"),
            (Reset(5, True, True), "<Reset 5 by peer, refused>"),
            (Reset(5, False, False), "<Reset 5>"),
            (Credit(1), "<Credit 1>"),
            (Pong(9), "<Pong 9>"),
            (GoneAway(2), "<GoneAway 2>"),
        ):
            self.assertEqual(repr(event), text)

    def test_limits_that_yamux_does_not_allow(self) -> None:
        for limits in (
            {"window": WINDOW - 1},
            {"first": WINDOW + 1},
            {"first": MIN_WINDOW - 1},
            {"max_window": WINDOW - 1},
            {"max_window": MAX_WINDOW + 1},
            {"max_frame": 0},
        ):
            with self.assertRaises(ValueError):
                MuxLimits(**limits)

    def test_errors(self) -> None:
        mux = Mux(False)
        with self.assertRaises(MuxError) as caught:
            mux.feed(frame(UPDATE, SYN, 1) + frame(DATA, 0, 1, b"ok") + b"HTTP/1.1 400 Bad Request\r\n\r\n")
        error = caught.exception
        self.assertIsInstance(error, WireError)
        self.assertEqual(
            str(error),
            "expected version 0 and a type from 0 to 3; the peer sent b'HTTP/1.1 400 Bad Request'",
        )
        self.assertEqual(words(error.events), "opened-1 1:ok")
        self.assertEqual(error.code, GoAwayCode.PROTOCOL_ERROR)
        self.assertTrue(mux.failed)
        self.assertEqual(mux.streams, 0)
        self.assertEqual(taken(mux), [Frame(GO_AWAY, 0, 0, 1)])

    def test_nothing_happens_after_an_error(self) -> None:
        mux = accepted()
        mux.send(1, b"out already")
        mux.send(1, bytes(WINDOW))
        mux.open()
        with self.assertRaises(MuxError):
            mux.feed(b"?")
        self.assertEqual(mux.feed(frame(UPDATE, SYN, 3)), [])
        mux.send(1, b"x")
        mux.end(1)
        mux.reset(1)
        mux.refuse(1)
        mux.ping(1)
        mux.go_away()
        mux.consumed(1, 1, 0.0)
        self.assertEqual(mux.pending(1), 0)
        self.assertEqual(mux.room, 0)
        with self.assertRaises(NoMoreStreams):
            mux.open()
        self.assertEqual(taken(mux), [Frame(DATA, 0, 1, 11, b"out already"), Frame(GO_AWAY, 0, 0, 1)])
        self.assertFalse(mux.has_output)

    def test_garbage_is_found_at_its_first_byte(self) -> None:
        for garbage in (b"G", b"\1", b"\0\4", b"\x16\3\1"):
            with self.assertRaises(MuxError) as caught:
                Mux(True).feed(garbage)
            self.assertIn(repr(garbage), str(caught.exception))


class PiecesTests(SynchronousTestCase):
    """Frames that come in several reads."""

    def test_data_is_not_kept(self) -> None:
        mux = accepted()
        header = frame(DATA, FIN, 1, bytes(1000))[:12]
        self.assertEqual(mux.feed(header), [])
        self.assertEqual(mux.feed(b""), [])
        for piece in (b"a", b"b" * 998):
            [data] = mux.feed(piece)
            assert isinstance(data, Data)
            self.assertIs(data.data, piece)  # not even copied
        self.assertEqual(words(mux.feed(b"c" + frame(PING, SYN, 0, 1))), "1:c ended-1")

    def test_a_header_in_pieces(self) -> None:
        for cut in range(1, 12):
            mux = accepted()
            data = frame(DATA, 0, 1, b"abc")
            self.assertEqual(mux.feed(data[:cut]), [])
            self.assertEqual(words(mux.feed(data[cut:])), "1:abc")

    def test_a_stream_that_is_reset_in_the_middle_of_a_frame(self) -> None:
        mux = accepted(2)
        data = frame(DATA, FIN, 1, b"x" * 100)
        self.assertEqual(words(mux.feed(data[:13])), "1:x")
        mux.reset(1)
        self.assertEqual(words(mux.feed(data[13:50])), "")
        self.assertEqual(words(mux.feed(data[50:] + frame(DATA, 0, 3, b"next"))), "3:next")

    @given(st.randoms(use_true_random=False))
    def test_any_cut(self, rng: random.Random) -> None:
        data = (
            frame(UPDATE, SYN, 1)
            + frame(DATA, SYN, 3, b"three")
            + frame(DATA, 0, 1, b"one" * 10)
            + frame(PING, SYN, 0, 7)
            + frame(DATA, FIN, 1, b"end")
            + frame(UPDATE, RST, 3)
            + frame(GO_AWAY, 0, 0, 0)
        )
        mux = Mux(False)
        events = []
        while data:
            cut = rng.randrange(1, 20)
            events += mux.feed(data[:cut])
            data = data[cut:]
        self.assertEqual(
            words(events), f"opened-1 opened-3 3:three 1:{'one' * 10}end ended-1 reset-3-by-peer gone-0"
        )


class OpeningTests(SynchronousTestCase):
    def test_numbers(self) -> None:
        self.assertEqual([Mux(True).open(), Mux(False).open()], [1, 2])
        mux = Mux(True)
        self.assertEqual([mux.open() for _ in range(3)], [1, 3, 5])

    def test_streams_are_told_in_their_order(self) -> None:
        # 1 is silent; 3 and 7 speak, the latter with more than goes out at once; 9 ends; 11 is reset.
        mux = Mux(True)
        one, three, five, seven, nine, eleven, last = (mux.open() for _ in range(7))
        mux.send(three, b"three")
        mux.send(seven, bytes(WINDOW + 1))
        mux.end(nine)
        mux.reset(eleven)
        mux.send(last, b"last")
        found = taken(mux)
        self.assertEqual(
            [(f.stream, f.flags & SYN, f.kind) for f in found if f.flags & SYN],
            [
                (one, SYN, UPDATE),
                (three, SYN, UPDATE),
                (five, SYN, UPDATE),
                (seven, SYN, UPDATE),
                (nine, SYN, UPDATE),
                (last, SYN, UPDATE),
            ],
        )
        self.assertNotIn(eleven, [f.stream for f in found])
        self.assertIn(Frame(UPDATE, SYN | FIN, nine, 0), found)

    def test_both_ends_open_streams(self) -> None:
        one, other = Mux(True), Mux(False)
        a, b = one.open(), other.open()
        one.send(a, b"a")
        other.send(b, b"b")
        events = exchange(one, other)
        self.assertEqual([words(e) for e in events], ["opened-2 2:b", "opened-1 1:a"])

    def test_numbers_of_the_peer(self) -> None:
        for client, ours, first in ((True, "even", 2), (False, "odd", 1)):
            for flags in (SYN, SYN | FIN, SYN | RST):
                for number in (0, first ^ 3, first):
                    mux = Mux(client)
                    mux.feed(frame(UPDATE, SYN, first))
                    with self.assertRaises(MuxError) as caught:
                        mux.feed(frame(UPDATE, flags, number))
                    self.assertIn(
                        f"expected an {ours} number over {first} for a new stream", str(caught.exception)
                    )

    def test_no_number_is_left(self) -> None:
        for client, last in ((True, 0xFFFFFFFF), (False, 0xFFFFFFFE)):
            mux = Mux(client)
            mux._table.ids.next = last
            self.assertEqual(mux.room, 1)
            self.assertEqual(mux.open(), last)
            self.assertEqual(mux.room, 0)
            with self.assertRaisesRegex(NoMoreStreams, "used up"):
                mux.open()
            peer = Mux(not client)
            self.assertEqual(words(peer.feed(mux.take())), f"opened-{last}")

    def test_few_numbers_are_left(self) -> None:
        for client in (True, False):
            mux = Mux(client)
            self.assertFalse(mux.ids_exhausted)
            mux._table.ids.next = (2**32 if client else 2**32 - 1) - 2 * SPARE_IDS - 1
            self.assertFalse(mux.ids_exhausted)
            mux.open()
            self.assertTrue(mux.ids_exhausted)
            self.assertEqual(mux.room, SPARE_IDS)

    def test_too_many(self) -> None:
        mux = Mux(True, MuxLimits(max_streams=2))
        one = mux.open()
        self.assertEqual(mux.room, 1)
        mux.open()
        self.assertEqual(mux.room, 0)
        with self.assertRaisesRegex(NoMoreStreams, "2 streams"):
            mux.open()
        mux.reset(one)
        mux.open()

    def test_a_peer_that_takes_nothing(self) -> None:
        mux = Mux(True, MuxLimits(max_streams=1, max_pending_control=1))
        for _ in range(2):
            number = mux.open()
            mux.send(number, b"")
            mux.end(number)
            mux.reset(number)
        with self.assertRaisesRegex(NoMoreStreams, "takes nothing"):
            mux.open()
        self.assertEqual(mux.room, 0)
        mux.take()
        mux.open()

    def test_a_stream_that_the_peer_never_heard_of(self) -> None:
        mux = Mux(True)
        stream = mux.open()
        mux.reset(stream)
        self.assertEqual(mux.take(), b"")
        self.assertEqual(mux.streams, 0)
        mux.open()
        with self.assertRaisesRegex(MuxError, "expected a stream that was opened, which 3 was not"):
            mux.feed(frame(UPDATE, RST, 3))

    def test_refused_is_known(self) -> None:
        mux = Mux(True)
        streams = opened(mux, 5)
        events = mux.feed(
            frame(UPDATE, RST, streams[0])
            + frame(UPDATE, ACK, streams[1])
            + frame(UPDATE, RST, streams[1])
            + frame(UPDATE, RST | ACK, streams[2])
            + frame(DATA, 0, streams[3], b"x")  # a peer that forgets its ACK
            + frame(DATA, RST, streams[3])
            + frame(DATA, RST | ACK, streams[4], b"x")
        )
        self.assertEqual(
            words(events),
            "refused-1-by-peer reset-3-by-peer reset-5-by-peer 7:x reset-7-by-peer reset-9-by-peer",
        )


class AcknowledgeTests(SynchronousTestCase):
    def test_alone_if_many_wait(self) -> None:
        mux = Mux(False)
        mux.feed(b"".join(frame(UPDATE, SYN, 2 * i + 1) for i in range(ACK_AFTER - 1)))
        self.assertFalse(mux.has_output)
        self.assertEqual(mux.take(), b"")
        mux.feed(frame(UPDATE, SYN, 2 * ACK_AFTER + 1))
        self.assertTrue(mux.has_output)
        self.assertEqual([f[:2] for f in taken(mux)], [(UPDATE, ACK)] * ACK_AFTER)
        mux.send(1, b"x")
        self.assertEqual(taken(mux), [Frame(DATA, 0, 1, 1, b"x")])

    def test_alone_if_the_peer_pings(self) -> None:
        mux = Mux(False)
        mux.feed(frame(UPDATE, SYN, 1) + frame(PING, SYN, 0, 7))
        self.assertEqual(taken(mux), [Frame(PING, ACK, 0, 7), Frame(UPDATE, ACK, 1, 0)])

    def test_once(self) -> None:
        def send(mux: Mux) -> None:
            mux.send(1, b"x")

        def send_much(mux: Mux) -> None:
            mux.send(1, bytes(TURN))

        def take(mux: Mux) -> None:
            consume(mux, mux.feed(frame(DATA, 0, 1, bytes(WINDOW))))

        for act in (send, send_much, take, lambda mux: mux.end(1), lambda mux: mux.reset(1)):
            mux = Mux(False)
            mux.feed(frame(UPDATE, SYN, 1))
            act(mux)
            mux.feed(frame(PING, SYN, 0))
            self.assertEqual([bool(f.flags & ACK) for f in taken(mux) if f.stream].count(True), 1)

    def test_before_or_with_a_reset(self) -> None:
        mux = Mux(False)
        mux.feed(frame(UPDATE, SYN, 1) + frame(UPDATE, SYN, 3))
        mux.send(1, b"x")
        mux.reset(1)
        mux.reset(3)
        self.assertEqual(
            taken(mux),
            [Frame(DATA, ACK, 1, 1, b"x"), Frame(UPDATE, RST, 1, 0), Frame(UPDATE, RST | ACK, 3, 0)],
        )

    def test_not_if_it_is_refused(self) -> None:
        client, server = Mux(True), Mux(False)
        for _ in range(2):
            client.send(client.open(), b"x")
        server.feed(client.take())
        server.refuse(1)
        server.send(3, b"too late")
        server.refuse(3)
        server.refuse(5)  # there is none
        self.assertEqual(words(client.feed(server.take())), "refused-1-by-peer 3:too late reset-3-by-peer")
        self.assertEqual(server.streams, 0)


class EndTests(SynchronousTestCase):
    def test_half_closed_by_us(self) -> None:
        mux = accepted()
        mux.end(1)
        mux.end(1)
        mux.send(1, b"nothing")
        mux.send(1, bytes(TURN * 2))
        self.assertEqual(taken(mux), [Frame(UPDATE, FIN, 1, 0)])
        self.assertEqual(words(mux.feed(frame(DATA, 0, 1, b"more"))), "1:more")
        mux.consumed(1, 4, 0.0)
        self.assertEqual(words(mux.feed(frame(UPDATE, FIN, 1))), "ended-1")
        self.assertEqual(mux.streams, 0)

    def test_half_closed_by_the_peer(self) -> None:
        mux = accepted()
        self.assertEqual(words(mux.feed(frame(DATA, FIN, 1, b""))), "ended-1")
        mux.send(1, b"more")
        self.assertEqual(taken(mux), [Frame(DATA, 0, 1, 4, b"more")])
        self.assertEqual(mux.streams, 1)
        mux.end(1)
        self.assertEqual(mux.streams, 0)

    def test_behind_what_waits(self) -> None:
        mux = accepted()
        mux.send(1, bytes(WINDOW + 1))
        mux.end(1)
        mux.end(1)
        mux.send(1, b"nothing")
        found = taken(mux)
        self.assertEqual(sum(f.length for f in found), WINDOW)
        self.assertEqual({f.flags for f in found}, {0})
        mux.feed(frame(UPDATE, 0, 1, 5))
        self.assertEqual(taken(mux), [Frame(DATA, FIN, 1, 1, b"\0")])
        mux.feed(frame(UPDATE, 0, 1, MAX_WINDOW))  # of no interest any more
        self.assertEqual(mux.take(), b"")

    def test_on_the_last_data_only(self) -> None:
        mux = accepted(2)
        mux.send(1, b"one")
        mux.send(3, b"three")
        mux.end(1)
        mux.end(3)
        self.assertEqual(
            taken(mux),
            [
                Frame(DATA, 0, 1, 3, b"one"),
                Frame(DATA, 0, 3, 5, b"three"),
                Frame(UPDATE, FIN, 1, 0),
                Frame(UPDATE, FIN, 3, 0),
            ],
        )
        mux = accepted(2)
        mux.send(1, b"one")
        mux.take()
        mux.end(1)
        self.assertEqual(taken(mux), [Frame(UPDATE, FIN, 1, 0)])

    def test_what_came_is_kept_in_mind(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, FIN, 1, b"abc"))
        mux.end(1)
        self.assertEqual(mux.streams, 1)
        mux.consumed(1, 2, 0.0)
        self.assertEqual(mux.feed(frame(UPDATE, RST, 1)), [])  # the peer does not know that it is over
        self.assertEqual(mux.feed(frame(DATA, RST, 1, b"x")), [])
        self.assertEqual(mux.streams, 1)
        mux.consumed(1, 1, 0.0)
        self.assertEqual(mux.streams, 0)
        self.assertEqual(taken(mux), [Frame(UPDATE, FIN, 1, 0)])

    def test_what_came_is_dropped_with_a_reset(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, FIN, 1, b"abc"))
        mux.end(1)
        mux.take()
        mux.reset(1)
        self.assertEqual(mux.take(), b"")
        self.assertEqual(mux.streams, 0)


class ResetTests(SynchronousTestCase):
    def test_by_us(self) -> None:
        mux = accepted(2)
        mux.send(1, b"before")
        mux.send(1, bytes(WINDOW))
        mux.send(3, b"other")
        mux.reset(1)
        mux.reset(1)
        mux.send(1, b"nothing")
        self.assertEqual(mux.pending(1), 0)
        self.assertEqual(
            taken(mux),
            [Frame(DATA, 0, 1, 6, b"before"), Frame(UPDATE, RST, 1, 0), Frame(DATA, 0, 3, 5, b"other")],
        )
        self.assertEqual(mux.streams, 1)

    def test_by_the_peer(self) -> None:
        mux = accepted(2)
        mux.send(1, bytes(WINDOW))
        mux.send(3, b"other")
        self.assertEqual(words(mux.feed(frame(UPDATE, RST, 1))), "reset-1-by-peer")
        self.assertEqual(taken(mux), [Frame(DATA, 0, 3, 5, b"other")])
        mux.consumed(1, 1, 0.0)
        mux.end(1)
        mux.reset(1)
        self.assertEqual(mux.take(), b"")

    def test_what_is_under_way_is_dropped_and_counted(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, 0, 1, bytes(10)))
        mux.reset(1)
        self.assertEqual(mux.feed(frame(DATA, 0, 1, bytes(WINDOW - 11))), [])
        self.assertEqual(mux.feed(frame(DATA, 0, 1, b"")), [])
        self.assertEqual(mux.feed(frame(UPDATE, 0, 1, 5)), [])
        with self.assertRaisesRegex(MuxError, "expected 1 bytes at most on stream 1, which was reset"):
            mux.feed(frame(DATA, 0, 1, bytes(2)))

    def test_the_peer_ends_or_resets_it_too(self) -> None:
        for last in (
            frame(DATA, FIN, 1, b"x"),
            frame(DATA, RST, 1, b"x"),
            frame(UPDATE, FIN, 1),
            frame(UPDATE, RST, 1),
        ):
            mux = accepted()
            mux.reset(1)
            self.assertEqual(mux.feed(last), [])
            with self.assertRaisesRegex(MuxError, "expected nothing more on stream 1, which is over"):
                mux.feed(frame(DATA, 0, 1, b""))

    def test_a_bounded_number_is_remembered(self) -> None:
        count = REMEMBERED_RESETS + 3
        mux = accepted(count)
        mux.feed(frame(UPDATE, FIN, 3))
        mux.end(3)
        for i in range(count):
            mux.reset(2 * i + 1)
        self.assertEqual(len(mux._table.resets), REMEMBERED_RESETS)
        # Who knows what was under way for the first one, and 3 is older than what is remembered.
        self.assertEqual(mux.feed(frame(DATA, 0, 1, bytes(WINDOW + 1))), [])
        self.assertEqual(mux.feed(frame(DATA, 0, 3, b"x")), [])
        with self.assertRaises(MuxError):
            mux.feed(frame(DATA, 0, 7, bytes(WINDOW + 1)))

    def test_others_go_on(self) -> None:
        client, server = Mux(True), Mux(False)
        streams = [client.open() for _ in range(3)]
        for stream in streams:
            client.send(stream, bytes(TURN))
        events = server.feed(client.take(1))
        server.reset(streams[1])
        client.feed(server.take())
        events += exchange(client, server)[1]
        size = dict.fromkeys(streams, 0)
        for event in events:
            if isinstance(event, Data):
                size[event.stream] += len(event.data)
        self.assertEqual((size[1], size[5]), (TURN, TURN))
        self.assertLess(size[3], TURN)


def _reset_by_us(mux: Mux) -> None:
    mux.reset(1)


def _over(mux: Mux) -> None:
    mux.feed(frame(UPDATE, FIN, 1))
    mux.end(1)


def _both_ended(mux: Mux) -> None:
    mux.feed(frame(DATA, FIN, 1, b"abc"))
    mux.end(1)


STATES: dict[str, Callable[[Mux], object]] = {
    "open": lambda mux: None,
    "ended by peer": lambda mux: mux.feed(frame(UPDATE, FIN, 1)),
    "ended by us": lambda mux: mux.end(1),
    "both ended": _both_ended,
    "over": _over,
    "reset by us": _reset_by_us,
    "reset by peer": lambda mux: mux.feed(frame(UPDATE, RST, 1)),
    "refused": lambda mux: mux.refuse(1),
}
"""How stream 1 of an accepting end comes into each state; some bytes of C{both ended} are not consumed."""

FRAMES = {
    "empty": frame(DATA, 0, 1, b""),
    "data": frame(DATA, 0, 1, b"x"),
    "ack": frame(DATA, ACK, 1, b"x"),
    "fin": frame(DATA, FIN, 1, b"x"),
    "rst": frame(DATA, RST, 1, b"x"),
    "much": frame(DATA, 0, 1, bytes(WINDOW + 1)),
    "syn": frame(DATA, SYN, 1, b"x"),
    "update": frame(UPDATE, 0, 1, 5),
    "update ack": frame(UPDATE, ACK, 1, 5),
    "update fin": frame(UPDATE, FIN, 1, 5),
    "update rst": frame(UPDATE, RST, 1, 5),
    "update syn": frame(UPDATE, SYN, 1, 5),
    "update much": frame(UPDATE, 0, 1, MAX_WINDOW),
    "flag": frame(DATA, 16, 1, b"x"),
    "update flag": frame(UPDATE, 0x100, 1),
}

_ALWAYS = {"syn": "error", "update syn": "error", "flag": "error", "update flag": "error"}

_OPEN = {
    **_ALWAYS,
    "empty": "",
    "data": "1:x",
    "ack": "1:x",
    "fin": "1:x ended-1",
    "rst": "reset-1-by-peer",
    "much": "error",
    "update": "",
    "update ack": "",
    "update fin": "ended-1",
    "update rst": "reset-1-by-peer",
    "update much": "error",
}

_OVER = {
    **_ALWAYS,
    "empty": "error",
    "data": "error",
    "ack": "error",
    "fin": "error",
    "rst": "",
    "much": "error",
    "update": "",
    "update ack": "",
    "update fin": "",
    "update rst": "",
    "update much": "",
}

_RESET = {**_OVER, "empty": "", "data": "", "ack": "", "fin": ""}

OUTCOMES: dict[str, dict[str, str]] = {
    "open": _OPEN,
    "ended by peer": {
        **_OVER,
        "rst": "reset-1-by-peer",
        "update fin": "error",
        "update rst": "reset-1-by-peer",
        "update much": "error",
    },
    "ended by us": {**_OPEN, "update much": ""},
    "both ended": {**_OVER, "update fin": "error"},
    "over": _OVER,
    "reset by us": _RESET,
    "reset by peer": _OVER,
    "refused": _RESET,
}


class TableTests(SynchronousTestCase):
    """Every frame in every state of its stream."""

    def outcome(self, mux: Mux, data: bytes) -> str:
        try:
            return words(mux.feed(data))
        except MuxError as error:
            self.assertRegex(str(error), r"^expected .*; the peer sent b.*")
            self.assertEqual(taken(mux)[-1], Frame(GO_AWAY, 0, 0, 1))
            return "error"

    def test_all(self) -> None:
        self.assertEqual(set(STATES), set(OUTCOMES))
        for state, prepare in STATES.items():
            self.assertEqual(set(OUTCOMES[state]), set(FRAMES), state)
            for name, data in FRAMES.items():
                mux = Mux(False)
                mux.feed(frame(UPDATE, SYN, 1))
                mux.feed(frame(UPDATE, SYN, 3))
                prepare(mux)
                self.assertEqual(self.outcome(mux, data), OUTCOMES[state][name], (state, name))
                if not mux.failed:
                    self.assertEqual(words(mux.feed(frame(DATA, 0, 3, b"other"))), "3:other")

    def test_never_opened(self) -> None:
        for number in (0, 2, 3):
            for flags in (0, ACK, FIN, RST):
                for kind in (DATA, UPDATE):
                    mux = accepted()
                    self.assertEqual(self.outcome(mux, frame(kind, flags, number)), "error")

    def test_the_session(self) -> None:
        for kind, flags, number, expected in (
            (PING, SYN, 0, ""),
            (PING, ACK, 0, ""),  # the answer to no ping, or to one long ago
            (PING, 0, 0, "error"),
            (PING, SYN | ACK, 0, "error"),
            (PING, SYN, 1, "error"),
            (GO_AWAY, 0, 0, "gone-7"),
            (GO_AWAY, SYN, 0, "error"),
            (GO_AWAY, 0, 1, "error"),
            (4, 0, 0, "error"),
            (0xFF, 0, 0, "error"),
        ):
            self.assertEqual(self.outcome(accepted(), frame(kind, flags, number, 7)), expected)
        self.assertEqual(self.outcome(accepted(), b"\1" + bytes(11)), "error")


class CreditTests(SynchronousTestCase):
    """What we send is bounded by the peer's windows."""

    def test_no_more_than_the_window(self) -> None:
        mux = accepted()
        mux.send(1, bytes(WINDOW - 10))
        mux.send(1, bytes(30))
        self.assertEqual(mux.pending(1), WINDOW + 20)
        self.assertEqual(sum(f.length for f in taken(mux)), WINDOW)
        self.assertEqual(mux.pending(1), 20)
        self.assertFalse(mux.has_output)
        mux.send(1, b"x")
        self.assertFalse(mux.has_output)
        self.assertEqual(mux.feed(frame(UPDATE, 0, 1, 0)), [])
        self.assertFalse(mux.has_output)
        self.assertEqual(mux.feed(frame(UPDATE, 0, 1, 5)), [])
        self.assertEqual(mux.feed(frame(UPDATE, 0, 1, 6)), [])
        self.assertEqual([f.length for f in taken(mux)], [11])
        self.assertEqual(mux.pending(1), 10)

    def test_no_more_than_the_window_in_small_pieces(self) -> None:
        mux = accepted()
        sent = 0
        for _ in range(WINDOW // 1000 + 10):
            mux.send(1, bytes(1000))
            sent += sum(f.length for f in taken(mux))
        self.assertEqual(sent, WINDOW)
        self.assertEqual(mux.pending(1), (WINDOW // 1000 + 10) * 1000 - WINDOW)

    def test_credit_is_reported_if_nothing_waits(self) -> None:
        mux = accepted()
        mux.send(1, bytes(WINDOW))
        mux.take(1 << 30)
        self.assertEqual(words(mux.feed(frame(UPDATE, 0, 1, 5))), "credit-1")
        self.assertEqual(words(mux.feed(frame(UPDATE, 0, 1, 5))), "")
        mux.send(1, b"0123456789")
        self.assertEqual(len(taken(mux)), 1)

    def test_credit_with_syn_and_ack(self) -> None:
        mux = Mux(False)
        mux.feed(frame(UPDATE, SYN, 1, 100))
        mux.send(1, bytes(WINDOW + 200))
        self.assertEqual(sum(f.length for f in taken(mux)), WINDOW + 100)
        stream = mux.open()
        mux.send(stream, bytes(WINDOW + 200))
        mux.take(1 << 30)
        mux.feed(frame(UPDATE, ACK, stream, 100))
        self.assertEqual(sum(f.length for f in taken(mux)), 100)

    def test_too_much(self) -> None:
        mux = accepted()
        mux.feed(frame(UPDATE, 0, 1, MAX_WINDOW - WINDOW))
        with self.assertRaisesRegex(MuxError, "expected credit of 0 bytes at most for stream 1"):
            mux.feed(frame(UPDATE, 0, 1, 1))

    def test_drained(self) -> None:
        mux = accepted(3)
        mux.send(1, bytes(TURN + 10))
        mux.send(3, bytes(WINDOW + 1))
        mux.send(5, b"x")
        mux.take(1)
        self.assertEqual(mux.drained, [])
        mux.take(1 << 20)
        self.assertEqual(mux.drained, [5, 1])
        mux.take()
        self.assertEqual(mux.drained, [])
        mux.feed(frame(UPDATE, 0, 3, 1))
        mux.take()
        self.assertEqual(mux.drained, [3])


class TurnTests(SynchronousTestCase):
    def test_many_frames_at_once(self) -> None:
        mux = accepted(3)
        for stream in (1, 3, 5):
            mux.send(stream, b"x")
        self.assertEqual(mux.take(), b"".join(frame(DATA, 0, stream, b"x") for stream in (1, 3, 5)))

    def test_control_goes_first(self) -> None:
        mux = accepted(2)
        mux.send(1, b"x")
        mux.send(3, bytes(TURN))
        consume(mux, mux.feed(frame(DATA, 0, 1, bytes(WINDOW // 2)) + frame(PING, SYN, 0, 1)))
        mux.ping(2)
        self.assertEqual(
            [(f.kind, f.length) for f in taken(mux)[:4]],
            [(PING, 1), (UPDATE, WINDOW // 2), (PING, 2), (DATA, 1)],
        )

    def test_pings_are_answered_in_order(self) -> None:
        mux = accepted()
        mux.feed(b"".join(frame(PING, SYN, 0, i) for i in (5, 3, 9, 3)))
        self.assertEqual([f.length for f in taken(mux)], [5, 3, 9, 3])

    def test_a_frame_each(self) -> None:
        mux = accepted(3)
        for stream in (1, 3, 5):
            mux.send(stream, bytes(100_000))
        found = [(f.stream, f.length) for f in taken(mux)]
        self.assertEqual(
            found, [(stream, size) for size in (32768, 32768, 32768, 1696) for stream in (1, 3, 5)]
        )

    def test_turns_go_on_where_they_were(self) -> None:
        mux = accepted(3)
        for stream in (1, 3, 5):
            mux.send(stream, bytes(100_000))
        order = []
        while mux.has_output:
            order += [f.stream for f in taken(mux, 1)]
        self.assertEqual(order, [1, 3, 5] * 4)

    def test_however_many_streams_their_frames_are_large(self) -> None:
        mux = accepted(100)
        for i in range(100):
            mux.send(2 * i + 1, bytes(40_000))
        found = []
        while mux.has_output:
            found += [f.length for f in frames(mux.take(100_000))]
        self.assertEqual(found, [32768] * 100 + [40_000 - 32768] * 100)

    def test_a_message_does_not_wait_for_all_others(self) -> None:
        mux = accepted(101)
        for i in range(100):
            mux.send(2 * i + 1, bytes(40_000))
        mux.take()
        mux.send(201, b"message")
        self.assertEqual(next(f.stream for f in frames(mux.take())), 201)

    def test_messages_leave_room_for_others(self) -> None:
        """Half of what is sent at once, however many messages there are."""
        mux = accepted(101)
        mux.send(201, bytes(200_000))
        for i in range(100):
            mux.send(2 * i + 1, bytes(4000))
        sent = frames(mux.take())
        self.assertGreaterEqual(sum(f.length for f in sent if f.stream == 201), 30_000)
        self.assertGreaterEqual(sum(f.length for f in sent if f.stream != 201), 30_000)

    def test_a_message_that_grows(self) -> None:
        """What becomes much waits with what is much, and in its order."""
        mux = accepted(2)
        mux.send(1, bytes(100_000))
        for i in range(10):
            mux.send(3, bytes([i]) * 1000)
        sent = [f for f in taken(mux) if f.stream == 3]
        self.assertEqual(b"".join(f.data for f in sent), b"".join(bytes([i]) * 1000 for i in range(10)))
        self.assertEqual(mux.pending(3), 0)

    def test_who_comes_late_is_not_last(self) -> None:
        mux = accepted(2)
        for _ in range(8):
            mux.send(1, bytes(32_000))
        mux.send(3, b"late")
        before = 0
        for f in taken(mux):
            if f.stream == 3:
                break
            before += f.length
        self.assertLessEqual(before, 3 * 32_768)

    def test_what_is_in_the_output_is_bounded(self) -> None:
        mux = accepted()
        for _ in range(100):
            mux.send(1, bytes(1000))
        self.assertEqual(mux.pending(1), 100_000 - 1000 * (TURN // 1012))
        while mux.has_output:
            mux.take()
        mux.send(1, b"there is room again")
        self.assertEqual(mux.pending(1), 0)

    def test_limit(self) -> None:
        mux = accepted(4)
        for i in range(4):
            mux.send(2 * i + 1, bytes(200_000))
        self.assertEqual(mux.take(0), b"")
        sizes = []
        while mux.has_output:
            sizes.append(len(mux.take(50_000)))
        self.assertLess(max(sizes), 50_000 + 32_768 + 12)
        mux.send(1, bytes(1000))
        self.assertEqual(len(mux.take(0)), 1012)

    def test_pieces_are_joined(self) -> None:
        mux = accepted()
        mux.send(1, bytes(TURN))
        for i in range(256):
            mux.send(1, bytes([i]) * 10)
        data = b"".join(f.data for f in taken(mux))
        self.assertEqual(data, bytes(TURN) + b"".join(bytes([i]) * 10 for i in range(256)))

    def test_no_head_of_line_blocking(self) -> None:
        """A stream whose peer does not read stops nobody."""
        client, server = Mux(True), Mux(False)
        stuck, other = client.open(), client.open()
        client.send(stuck, bytes(WINDOW * 4))
        got = 0
        for _ in range(64):
            client.send(other, bytes(WINDOW // 4))
            while client.has_output:
                for event in server.feed(client.take()):
                    if isinstance(event, Data) and event.stream == other:
                        got += len(event.data)
                        server.consumed(other, len(event.data), 0.0)
            client.feed(server.take())
        self.assertEqual(got, WINDOW * 16)
        self.assertEqual(client.pending(stuck), WINDOW * 3)


class WindowTests(SynchronousTestCase):
    """What the peer sends is bounded by ours."""

    def test_updates(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, 0, 1, bytes(WINDOW)))
        mux.consumed(1, WINDOW // 2 - 1, 0.0)
        self.assertFalse(mux.has_output)
        mux.consumed(1, 1, 0.0)
        self.assertEqual(taken(mux), [Frame(UPDATE, 0, 1, WINDOW // 2)])
        self.assertEqual(len(mux.feed(frame(DATA, 0, 1, bytes(WINDOW // 2)))), 1)
        with self.assertRaisesRegex(MuxError, "expected 0 bytes at most on stream 1"):
            mux.feed(frame(DATA, 0, 1, b"x"))

    def test_overstepping_is_found_at_the_header(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, 0, 1, b"x"))
        with self.assertRaisesRegex(
            MuxError, f"expected {WINDOW - 1} bytes at most on stream 1; the peer sent"
        ):
            mux.feed(frame(DATA, 0, 1, bytes(WINDOW))[:12])

    def test_no_update_for_a_stream_that_has_ended(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, FIN, 1, bytes(WINDOW)))
        mux.consumed(1, WINDOW, 0.0)
        self.assertEqual(mux.take(), b"")
        mux.end(1)
        self.assertEqual(mux.streams, 0)

    def test_more_than_there_was(self) -> None:
        mux = accepted()
        mux.feed(frame(DATA, 0, 1, b"abc"))
        with self.assertRaisesRegex(ValueError, "4 bytes of stream 1 can't be consumed, there are 3"):
            mux.consumed(1, 4, 0.0)

    def fill(self, mux: Mux, size: int, now: float, stream: int = 1) -> int:
        """Let a peer send and an owner consume; return what the peer may send on."""
        mux.feed(frame(DATA, 0, stream, bytes(size)), now)
        mux.consumed(stream, size, now)
        return sum(f.length for f in taken(mux))

    def test_the_window_grows_with_what_the_path_takes(self) -> None:
        mux = accepted(limits=MuxLimits(max_window=WINDOW * 5))
        mux.growth.measured(0.009, 0.0)
        # Four times what was consumed in a round trip.
        self.assertEqual(self.fill(mux, WINDOW // 2, 0.005), WINDOW // 2 + WINDOW)
        # Less than half of it is not enough to be told of.
        self.assertEqual(self.fill(mux, WINDOW // 2, 0.006), 0)
        self.assertEqual(self.fill(mux, WINDOW // 2, 0.007), WINDOW + 3 * WINDOW)  # as large as it may be
        self.assertEqual(self.fill(mux, WINDOW * 3, 0.008), WINDOW * 3)
        self.assertEqual(mux.growth.grown, 4 * WINDOW)
        mux.reset(1)
        self.assertEqual(mux.growth.grown, 0)

    def test_the_window_stays_if_it_is_large_enough(self) -> None:
        for rtt, now in ((0.1, 0.2), (0.0, 0.0)):
            mux = accepted()
            mux.growth.measured(rtt / 4, 0.0)
            self.assertEqual(self.fill(mux, WINDOW // 2, now), WINDOW // 2)

    def test_the_window_shrinks_again(self) -> None:
        mux = accepted(limits=MuxLimits(max_window=WINDOW * 8))
        mux.growth.measured(0.1, 0.0)
        self.fill(mux, WINDOW // 2, 0.01)
        self.assertEqual(mux.growth.grown, 7 * WINDOW)
        # From now on little is consumed in a round trip, and of that the peer is told next to nothing.
        told = [self.fill(mux, WINDOW, 10.0 * second) for second in range(1, 12)]
        self.assertLessEqual(sum(told[:7]), 7 * WINDOW // 16)
        self.assertEqual((mux.growth.grown, told[-1]), (0, WINDOW))

    def test_a_slow_reader_is_seen_to_take_a_little(self) -> None:
        mux = accepted(limits=MuxLimits(max_window=WINDOW * 8))
        self.assertEqual(self.fill(mux, 100, TELL_EVERY - 0.1), 0)
        self.assertEqual(self.fill(mux, 100, TELL_EVERY), 200)
        self.assertEqual(self.fill(mux, 100, 2 * TELL_EVERY - 0.1), 0)
        self.assertEqual(self.fill(mux, 1, 2 * TELL_EVERY), 101)

    def test_all_windows_together_are_bounded(self) -> None:
        mux = accepted(2, MuxLimits(receive_budget=WINDOW * 4))
        mux.growth.measured(1.0, 0.0)
        grown = [self.fill(mux, WINDOW // 2, 0.0, stream) - WINDOW // 2 for stream in (1, 3)]
        self.assertEqual(grown, [4 * WINDOW, 0])
        # One stream has more than its share, another wanted some of it: the first one gives it up.
        self.assertEqual(self.fill(mux, WINDOW * 5 // 2, 0.1), WINDOW // 2)
        self.assertEqual(mux.growth.grown, 2 * WINDOW)
        self.assertEqual(self.fill(mux, WINDOW // 2, 0.1, 3), WINDOW // 2 + 2 * WINDOW)
        # Now they are even.
        for stream in (1, 3):
            self.assertEqual(self.fill(mux, WINDOW * 2, 0.2, stream), WINDOW * 2)
        self.assertEqual(mux.growth.grown, 4 * WINDOW)

    def test_the_windows_of_all_connections_are_bounded(self) -> None:
        reserve = Reserve(WINDOW)
        one, other = Mux(False, reserve=reserve), Mux(False, reserve=reserve)
        for mux in (one, other):
            mux.growth.measured(1.0, 0.0)
            mux.feed(frame(UPDATE, SYN, 1))
            self.fill(mux, WINDOW // 2, 0.0)
        self.assertEqual((one.growth.grown, other.growth.grown, reserve.taken), (WINDOW, 0, WINDOW))
        one.close()
        self.assertEqual(self.fill(other, WINDOW // 2, 0.1), WINDOW // 2 + WINDOW)
        self.assertEqual(reserve.taken, WINDOW)
        with self.assertRaises(MuxError):
            other.feed(b"nothing of yamux")
        self.assertEqual((reserve.taken, reserve.streams), (0, 0))

    def test_the_stream_that_holds_most_is_reset(self) -> None:
        mux = accepted(3, MuxLimits(max_held=WINDOW))
        mux.feed(frame(DATA, 0, 1, bytes(WINDOW // 4)))
        mux.feed(frame(DATA, 0, 3, bytes(WINDOW // 2)))
        self.assertEqual(len(mux.feed(frame(DATA, 0, 5, bytes(WINDOW // 4)))), 1)
        mux.consumed(5, 1, 0.0)
        mux.feed(frame(DATA, 0, 5, b"x"))
        events = mux.feed(frame(DATA, 0, 5, b"yz"))
        self.assertEqual(words(events), "5:yz reset-3-by-us")
        self.assertEqual(taken(mux), [Frame(UPDATE, RST, 3, 0)])
        self.assertEqual(mux.held, WINDOW // 2 + 2)
        mux.consumed(3, 10, 0.0)  # too late
        self.assertEqual(mux.held, WINDOW // 2 + 2)

    def test_streams_that_are_over_count(self) -> None:
        mux = accepted(2, MuxLimits(max_held=WINDOW))
        mux.feed(frame(DATA, FIN, 1, bytes(WINDOW)))
        mux.end(1)
        mux.take()
        self.assertEqual(words(mux.feed(frame(DATA, 0, 3, b"x"))), "3:x reset-1-by-us")
        self.assertEqual(mux.take(), b"")


class PathTests(SynchronousTestCase):
    """Streams over a path of 8 MB in a second that needs 50 ms each way."""

    delay = 50
    rate = 8000  # bytes in each of its milliseconds

    def run_path(self, rtt: float | None, bulk: int, milliseconds: int = 1500) -> tuple[list[int], list[int]]:
        """
        Send all the time on some streams, and now and then a little on another one.

        @return: bytes that came on each of them in the last 500 ms, and the
            milliseconds that the small messages took.
        """
        client, server = Mux(True), Mux(False)
        if rtt is not None:
            server.growth.measured(rtt, 0.0)
        streams = [client.open() for _ in range(bulk)]
        small = client.open()
        there: deque[tuple[int, bytes]] = deque()
        back: deque[tuple[int, bytes]] = deque()
        came = dict.fromkeys(streams, 0)
        sent: deque[int] = deque()
        took = []
        block = bytes(131072)
        room = 0
        for now in range(milliseconds):
            for stream in streams:
                if client.pending(stream) < len(block):
                    client.send(stream, block)
            if not now % 100:
                client.send(small, b"small")
                sent.append(now)
            room += self.rate
            while room > 0 and (data := client.take(min(room, 16384))):
                there.append((now + self.delay, data))
                room -= len(data)
            while there and there[0][0] <= now:
                for event in server.feed(there.popleft()[1], now / 1000):
                    if isinstance(event, Data):
                        server.consumed(event.stream, len(event.data), now / 1000)
                        if event.stream == small:
                            took.append(now - sent.popleft())
                        elif now >= milliseconds - 500:
                            came[event.stream] += len(event.data)
            if data := server.take():
                back.append((now + self.delay, data))
            while back and back[0][0] <= now:
                client.feed(back.popleft()[1])
        return list(came.values()), took

    def test_one_stream_has_the_whole_path(self) -> None:
        [came], _ = self.run_path(0.1, 1)
        self.assertGreater(came, 0.97 * 500 * self.rate)

    def test_its_first_window_would_be_too_small(self) -> None:
        [came], _ = self.run_path(None, 1)
        self.assertLess(came, 0.4 * 500 * self.rate)

    def test_streams_share_it(self) -> None:
        came, took = self.run_path(0.1, 8)
        self.assertGreater(sum(came), 0.97 * 500 * self.rate)
        self.assertGreater(min(came), 0.9 * max(came))
        # A round is 128 KiB, which is 16 ms here.
        self.assertLess(max(took), self.delay + 2 * 16 + 2)


class BoundTests(SynchronousTestCase):
    """A peer can't make us keep or do things without end."""

    def test_streams(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=2))
        events = mux.feed(b"".join(frame(DATA, SYN, number, b"x") for number in (1, 3, 5)))
        self.assertEqual(words(events), "opened-1 1:x opened-3 3:x")
        self.assertEqual(taken(mux), [Frame(UPDATE, RST, 5, 0)])
        self.assertEqual(mux.feed(frame(DATA, 0, 5, bytes(WINDOW - 1))), [])
        with self.assertRaises(MuxError):
            mux.feed(frame(DATA, 0, 5, b"x"))

    def test_a_refused_stream_that_has_ended(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=0))
        self.assertEqual(mux.feed(frame(DATA, SYN | FIN, 1, b"x")), [])
        with self.assertRaises(MuxError):
            mux.feed(frame(DATA, 0, 1, b"x"))

    def test_streams_that_are_not_acknowledged(self) -> None:
        mux = Mux(False, MuxLimits(accept_backlog=2))
        self.assertEqual(
            words(mux.feed(b"".join(frame(UPDATE, SYN, number) for number in (1, 3, 5)))), "opened-1 opened-3"
        )
        mux.send(1, b"x")
        self.assertEqual(words(mux.feed(frame(UPDATE, SYN, 7))), "opened-7")

    def test_pings(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=10, max_pending_control=10))
        for i in range(31):
            self.assertEqual(mux.feed(frame(PING, SYN, 0, i)), [])
        with self.assertRaises(MuxError) as caught:
            mux.feed(frame(PING, SYN, 0, 31))
        self.assertEqual(caught.exception.code, GoAwayCode.INTERNAL_ERROR)
        self.assertIn("expected the peer to take the 31 frames that wait for it", str(caught.exception))
        self.assertEqual([f.length for f in taken(mux)], [*range(31), 2])

    def test_pings_of_a_peer_that_reads(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=10, max_pending_control=10))
        for _ in range(3):
            mux.feed(frame(PING, SYN, 0) * 30)
            self.assertEqual(len(taken(mux)), 30)

    def test_what_is_of_no_use(self) -> None:
        """Of each kind some are taken, and no flood; what is of use pays for it, and so does time."""
        over = frame(UPDATE, SYN, 3) + frame(UPDATE, RST, 3)
        for name, useless, worth in (
            ("pings", frame(PING, SYN, 0, 7), 1),
            ("answers", frame(PING, ACK, 0, 7), 1),
            ("no credit", frame(UPDATE, 0, 1), 1),
            ("no data", frame(DATA, 0, 1), 1),
            ("no data, acknowledged", frame(DATA, ACK, 1), 1),
            ("acknowledged again", frame(UPDATE, ACK, 1), LATE),
            ("goes again", frame(GO_AWAY, 0, 0), REPEATED),
            ("over", frame(UPDATE, 0, 3, 1), LATE),
        ):
            mux = accepted(1)
            mux.feed(over + frame(DATA, ACK, 1, b"x") + frame(GO_AWAY, 0, 0))
            count = int(MAX_USELESS / worth)
            for _ in range(10):
                mux.feed(useless * (count // 20))
                taken(mux)
            with self.assertRaises(MuxError, msg=name) as caught:
                for _ in range(12):
                    mux.feed(useless * (count // 20))
                    taken(mux)
            self.assertIn("expected fewer ", str(caught.exception), name)
            self.assertEqual(caught.exception.code, GoAwayCode.PROTOCOL_ERROR)

            patient = accepted(1)
            patient.feed(over + frame(DATA, ACK, 1, b"x") + frame(GO_AWAY, 0, 0))
            for second in range(100):
                patient.feed(useless * int(USELESS_PER_SECOND / worth), float(second))
                taken(patient)

            useful = accepted(1)
            useful.feed(over + frame(DATA, ACK, 1, b"x") + frame(GO_AWAY, 0, 0))
            for _ in range(2 * count if worth <= 1 else 0):
                useful.feed(useless + frame(DATA, 0, 1, b"x"))
                useful.consumed(1, 1, 0.0)
                taken(useful)

    def test_streams_that_are_refused_again_and_again(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=0))
        with self.assertRaises(MuxError) as caught:
            for number in range(int(MAX_USELESS / LATE) + 1):
                mux.feed(frame(UPDATE, SYN | FIN, 2 * number + 1))
                taken(mux)
        self.assertIn("expected fewer streams that are refused", str(caught.exception))

    def test_refusals(self) -> None:
        mux = Mux(False, MuxLimits(max_streams=0, max_pending_control=10))
        mux.feed(b"".join(frame(UPDATE, SYN, 2 * i + 1) for i in range(11)))
        with self.assertRaises(MuxError):
            mux.feed(frame(UPDATE, SYN, 101))

    def test_credit_for_a_peer_that_does_not_read(self) -> None:
        mux = accepted(1, MuxLimits(max_streams=1, max_pending_control=8))
        with self.assertRaises(MuxError):
            for _ in range(100):
                mux.feed(frame(DATA, 0, 1, bytes(WINDOW // 2)))
                mux.consumed(1, WINDOW // 2, 0.0)
        self.assertLess(len(taken(mux)), 14)

    def reset(self, mux: Mux, number: int, now: float = 0.0, answer: bool = False) -> str:
        events = mux.feed(frame(UPDATE, SYN, number), now)
        if answer:
            mux.send(number, b"x")
        events += mux.feed(frame(UPDATE, RST, number), now)
        return words(events)

    def test_rapid_reset(self) -> None:
        mux = Mux(False, MuxLimits(max_resets=10))
        numbers = iter(range(1, 10_000, 2))
        for _ in range(9):
            number = next(numbers)
            self.assertEqual(self.reset(mux, number), f"opened-{number} reset-{number}-by-peer")
        mux.feed(frame(UPDATE, SYN | RST, next(numbers)))
        mux.take()
        number = next(numbers)
        self.assertEqual(self.reset(mux, number), "")
        self.assertEqual(taken(mux), [Frame(UPDATE, RST, number, 0)])
        # It gets better with time, and with streams that are of use.
        number = next(numbers)
        self.assertEqual(
            self.reset(mux, number, 0.5 / RESETS_PER_SECOND), f"opened-{number} reset-{number}-by-peer"
        )
        self.assertEqual(self.reset(mux, next(numbers), 0.5 / RESETS_PER_SECOND), "")
        self.assertTrue(self.reset(mux, next(numbers), 100.0))
        self.assertEqual(mux._table.abuse.resets, 1.0)

    def test_streams_that_are_of_use_make_up_for_resets(self) -> None:
        mux = Mux(False, MuxLimits(max_resets=3))
        for i in range(100):
            number = 4 * i + 1
            self.assertTrue(self.reset(mux, number))
            mux.feed(frame(UPDATE, SYN | FIN, number + 2))
            mux.end(number + 2)
        for i in range(100):
            self.assertTrue(self.reset(mux, 401 + 2 * i, answer=True))

    def test_an_acknowledgement_is_no_use(self) -> None:
        mux = Mux(False, MuxLimits(max_resets=1))
        mux.feed(frame(UPDATE, SYN, 1) + frame(PING, SYN, 0))
        mux.take()
        mux.feed(frame(UPDATE, RST, 1))
        self.assertEqual(self.reset(mux, 3), "")

    def test_pings_of_ours(self) -> None:
        mux = Mux(True)
        for token in range(MAX_PINGS + 1):
            mux.ping(token)
        self.assertEqual(words(mux.feed(frame(PING, ACK, 0, 0) + frame(PING, ACK, 0, 1) * 2)), "pong-1")

    def test_what_is_kept_of_streams_that_come_and_go(self) -> None:
        mux = Mux(False)
        for i in range(2000):
            number = 2 * i + 1
            mux.feed(frame(DATA, SYN, number, b"x"))
            mux.send(number, bytes(TURN))
            mux.feed(frame(UPDATE, RST, number))
        self.assertEqual(
            mux.streams
            + len(mux.output._ready)
            + len(mux.output._brief)
            + len(mux.output.unacknowledged)
            + mux.held,
            0,
        )
        self.assertLess(len(mux.take()), TURN * 2)


class GoAwayTests(SynchronousTestCase):
    def test_by_us(self) -> None:
        mux = accepted()
        stream = mux.open()
        mux.go_away()
        self.assertEqual(taken(mux), [Frame(UPDATE, SYN, stream, 0), Frame(GO_AWAY, 0, 0, 0)])
        self.assertEqual(mux.room, 0)
        with self.assertRaisesRegex(NoMoreStreams, "goes away"):
            mux.open()
        mux.send(1, b"goes on")
        mux.send(stream, b"too")
        self.assertEqual(len(taken(mux)), 2)

    def test_by_the_peer(self) -> None:
        mux = accepted()
        self.assertEqual(words(mux.feed(frame(GO_AWAY, 0, 0, 0))), "gone-0")
        self.assertTrue(mux.remote_goaway)
        with self.assertRaises(NoMoreStreams):
            mux.open()
        self.assertEqual(words(mux.feed(frame(UPDATE, SYN, 3))), "opened-3")

    def test_streams_that_cross_it(self) -> None:
        client, server = Mux(True), Mux(False)
        server.go_away()
        stream = client.open()
        client.send(stream, b"ask")
        self.assertEqual(words(server.feed(client.take())), "opened-1 1:ask")
        client.feed(server.take())
        client.go_away()
        server.feed(client.take())
        self.assertEqual(server.feed(frame(UPDATE, SYN, 3)), [])  # it has said that it opens no more
        server.send(stream, b"answer")
        found = server.take()
        self.assertIn(Frame(UPDATE, RST, 3, 0), frames(found))


class FuzzTests(SynchronousTestCase):
    """Whatever comes, it is understood or refused."""

    def feed(self, mux: Mux, data: bytes) -> None:
        try:
            events = mux.feed(data)
        except MuxError as error:
            self.assertTrue(mux.failed)
            events = list(error.events)  # type: ignore[arg-type]
        for event in events:
            if isinstance(event, Data):
                mux.consumed(event.stream, len(event.data), 0.0)
            elif isinstance(event, Opened):
                mux.send(event.stream, b"hello")
        frames(mux.take(1 << 30))

    @given(st.lists(st.binary(max_size=100), max_size=10), st.booleans())
    def test_bytes(self, pieces: list[bytes], client: bool) -> None:
        mux = Mux(client)
        for data in pieces:
            self.feed(mux, data)

    @given(
        st.lists(
            st.builds(
                frame,
                st.sampled_from([DATA, UPDATE, UPDATE, PING, GO_AWAY]),
                st.sampled_from([0, 0, SYN, SYN, ACK, FIN, RST, SYN | FIN, ACK | RST, 31]),
                st.integers(0, 12),
                st.one_of(st.binary(max_size=20), st.integers(0, 30), st.just(MAX_WINDOW)),
            ),
            max_size=40,
        ),
        st.integers(0, 1000),
    )
    def test_frames(self, pieces: list[bytes], seed: int) -> None:
        mux = Mux(False, MuxLimits(max_streams=3, accept_backlog=2, max_pending_control=3, max_resets=1))
        rng = random.Random(seed)
        mux.open()
        for data in pieces:
            act = rng.choice([mux.end, mux.reset, mux.refuse, mux.pending, mux.pending])
            act(rng.randrange(8))
            self.feed(mux, data)


class TellingTests(SynchronousTestCase):
    """What both ends may have agreed on beyond yamux."""

    def pair(self, *tells: bool) -> tuple[Mux, Mux]:
        return Mux(True, MuxLimits(tells=tells[0])), Mux(False, MuxLimits(tells=tells[1]))

    def test_well(self) -> None:
        client, server = self.pair(True, True)
        for well in (False, True):
            server.tell(well)
            data = server.take()
            self.assertEqual(data, b"\0\4\0\0" + bytes(7) + bytes([well]))
            # In pieces as well.
            events = [event for piece in data for event in client.feed(bytes([piece]))]
            self.assertEqual([type(event) for event in events], [Well])
            self.assertEqual([event.well for event in events if isinstance(event, Well)], [well])

    def test_it_goes_before_data(self) -> None:
        _, server = self.pair(True, True)
        number = server.open()
        server.send(number, b"x" * 1000)
        server.tell(False)
        self.assertEqual(server.take()[:2], b"\0\4")

    def test_nothing_is_said_without_an_agreement(self) -> None:
        _, server = self.pair(True, False)
        server.tell(False)
        self.assertEqual(server.take(), b"")

    def test_an_error_without_an_agreement(self) -> None:
        data = b"\0\4\0\0" + bytes(8)
        for piece in (data, data[:3]):
            self.assertRaises(MuxError, Mux(True).feed, piece)

    def test_nonsense(self) -> None:
        for flags, number, value in ((1, 0, 0), (0, 1, 0), (0, 0, 2)):
            client, _ = self.pair(True, True)
            self.assertRaises(MuxError, client.feed, pack(4, flags, number, value))
        client, _ = self.pair(True, True)
        self.assertRaises(MuxError, client.feed, pack(5, 0, 0, 0))

    def disowned(self, *tells: bool, acknowledged: bool = True) -> bool:
        client, server = self.pair(*tells)
        number = client.open()
        client.send(number, b"request")
        server.feed(client.take())
        if acknowledged:
            client.ping(1)
            server.feed(client.take())
            client.feed(server.take())
        server.disown(number)
        (event,) = [event for event in client.feed(server.take()) if isinstance(event, Reset)]
        return event.refused

    def test_a_stream_of_which_nothing_was_passed_on(self) -> None:
        self.assertTrue(self.disowned(True, True))
        self.assertTrue(self.disowned(True, True, acknowledged=False))
        for tells in ((True, False), (False, True), (False, False)):
            self.assertFalse(self.disowned(*tells), tells)
