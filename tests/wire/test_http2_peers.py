"""
Our connections against the h2 library, an independent implementation.

All data, split in any way, must arrive as it was sent, and neither side may
find an error in what the other one sends.
"""

from __future__ import annotations

import random
from collections import defaultdict
from typing import Any

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    DataReceived,
    RequestReceived,
    ResponseReceived,
    StreamEnded,
    TrailersReceived,
)
from h2.settings import SettingCodes
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http.message import End, Request, Response
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits, StreamReset
from tests import most
from tests.wire.http2_frames import GET, OK, POST


def cut(data: bytes, rng: random.Random) -> list[bytes]:
    """Bytes in pieces of any sizes."""
    pieces = []
    while data:
        size = rng.choice((1, 3, 9, 100, 5000, 70_000))
        pieces.append(data[:size])
        data = data[size:]
    return pieces


class Theirs:
    """The other end, by the h2 library: it takes all data at once, and gives all that it may."""

    def __init__(self, client: bool, window: int) -> None:
        self.h2 = H2Connection(H2Configuration(client_side=client, header_encoding=False))
        self.h2.initiate_connection()
        self.h2.update_settings({SettingCodes.INITIAL_WINDOW_SIZE: window})
        self.heads: dict[int, Any] = {}
        self.bodies: defaultdict[int, bytes] = defaultdict(bytes)
        self.trailers: dict[int, Any] = {}
        self.ended: set[int] = set()
        self.to_send: dict[int, bytes] = {}
        self.new: list[int] = []

    def feed(self, data: bytes) -> None:
        for event in self.h2.receive_data(data):
            if isinstance(event, RequestReceived | ResponseReceived):
                self.heads[event.stream_id] = [tuple(field) for field in event.headers]
                self.new.append(event.stream_id)
            elif isinstance(event, DataReceived):
                self.bodies[event.stream_id] += event.data
                self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            elif isinstance(event, TrailersReceived):
                self.trailers[event.stream_id] = [tuple(field) for field in event.headers]
            elif isinstance(event, StreamEnded):
                self.ended.add(event.stream_id)
        self.push()

    def push(self) -> None:
        for number, data in list(self.to_send.items()):
            size = min(self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data))
            while size > 0:
                self.h2.send_data(number, data[:size])
                data = data[size:]
                size = min(
                    self.h2.local_flow_control_window(number), self.h2.max_outbound_frame_size, len(data)
                )
            self.to_send[number] = data
            if not data:
                self.h2.end_stream(number)
                del self.to_send[number]


class Ours:
    """Our end, which holds streams now and then."""

    def __init__(self, connection: Any, rng: random.Random) -> None:
        self.connection = connection
        self.rng = rng
        self.heads: dict[int, Any] = {}
        self.bodies: defaultdict[int, bytes] = defaultdict(bytes)
        self.ends: dict[int, Any] = {}
        self.new: list[int] = []
        self.held: set[int] = set()

    def feed(self, data: bytes) -> None:
        for number, event in self.connection.feed(data):
            assert not isinstance(event, Http2Error | StreamReset), event
            if isinstance(event, bytes):
                self.bodies[number] += event
                if self.rng.random() < 0.2:
                    self.connection.hold(number)
                    self.held.add(number)
            elif isinstance(event, End):
                self.ends[number] = event.trailers
            elif isinstance(event, Request | Response):
                self.heads[number] = event
                self.new.append(number)
        if self.rng.random() < 0.5:
            self.release()

    def release(self) -> None:
        for number in self.held:
            self.connection.release(number)
        self.held.clear()


def exchange(ours: Ours, theirs: Theirs, rng: random.Random) -> bool:
    """Pass on what each has to say; false if it was nothing."""
    mine, other = ours.connection.take(rng.choice((0, 10, 1000, 100_000))), theirs.h2.data_to_send()
    for piece in cut(mine, rng):
        theirs.feed(piece)
    for piece in cut(other, rng):
        ours.feed(piece)
    return bool(mine or other)


def settle(ours: Ours, theirs: Theirs, rng: random.Random) -> None:
    quiet = 0
    while quiet < 20:
        ours.release()
        quiet = 0 if exchange(ours, theirs, rng) else quiet + 1


SIZES = st.lists(st.sampled_from([0, 1, 100, 16_384, 65_535, 65_536, 150_000]), min_size=1, max_size=6)


class PeerTests(SynchronousTestCase):
    @given(SIZES, st.sampled_from([100, 16_384, 65_535, 1_000_000]), st.integers(0, 2**32))
    @settings(max_examples=most(30), deadline=None)
    def test_we_serve(self, sizes: list[int], window: int, seed: int) -> None:
        rng = random.Random(seed)
        ours = Ours(ServerConnection(Http2Limits(stream_window=rng.choice((1000, 65_535, 262_144)))), rng)
        theirs = Theirs(True, window)
        bodies = {2 * i + 1: rng.randbytes(size) for i, size in enumerate(sizes)}
        exchange(ours, theirs, rng)
        exchange(ours, theirs, rng)
        for number, body in bodies.items():
            theirs.h2.send_headers(number, [*POST, (b"x-number", b"%d" % number)])
            theirs.to_send[number] = body
        theirs.push()
        settle(ours, theirs, rng)
        self.assertEqual({n: ours.bodies[n] for n in bodies}, bodies)
        self.assertEqual(list(ours.ends.values()), [[]] * len(bodies))
        for number, body in bodies.items():
            self.assertEqual(ours.heads[number].lookup("x-number"), str(number))
            ours.connection.send_head(number, [*OK, (b"x-number", b"%d" % number)], False)
            for piece in cut(body, rng):
                ours.connection.send_data(number, piece)
            ours.connection.send_end(number, [(b"x-sum", b"%d" % len(body))])
        settle(ours, theirs, rng)
        self.assertEqual({n: theirs.bodies[n] for n in bodies}, bodies)
        self.assertEqual(theirs.trailers, {n: [(b"x-sum", b"%d" % len(body))] for n, body in bodies.items()})
        self.assertEqual(theirs.ended, set(bodies))
        self.assertEqual(ours.connection.streams, 0)

    @given(SIZES, st.sampled_from([100, 16_384, 65_535, 1_000_000]), st.integers(0, 2**32))
    @settings(max_examples=most(30), deadline=None)
    def test_we_ask(self, sizes: list[int], window: int, seed: int) -> None:
        rng = random.Random(seed)
        ours = Ours(ClientConnection(Http2Limits(stream_window=rng.choice((1000, 65_535, 262_144)))), rng)
        theirs = Theirs(False, window)
        settle(ours, theirs, rng)  # h2 stalls streams whose windows its settings have shrunk
        bodies = {}
        for size in sizes:
            body = rng.randbytes(size)
            number = ours.connection.request(POST, False)
            bodies[number] = body
            for piece in cut(body, rng):
                ours.connection.send_data(number, piece)
            ours.connection.send_end(number, [])
        settle(ours, theirs, rng)
        self.assertEqual({n: theirs.bodies[n] for n in bodies}, bodies)
        self.assertEqual(theirs.heads, dict.fromkeys(bodies, POST))
        for number, body in bodies.items():
            theirs.h2.send_headers(number, OK)
            theirs.to_send[number] = body
        theirs.push()
        settle(ours, theirs, rng)
        self.assertEqual({n: ours.bodies[n] for n in bodies}, bodies)
        self.assertEqual(set(ours.ends), set(bodies))
        self.assertEqual(ours.connection.streams, 0)

    def test_table_size_changes(self) -> None:
        rng = random.Random(1)
        ours = Ours(ServerConnection(Http2Limits()), rng)
        theirs = Theirs(True, 65_535)
        for size in (4096, 0, 100, 4096):
            theirs.h2.update_settings({SettingCodes.HEADER_TABLE_SIZE: size})
            settle(ours, theirs, rng)
            number = theirs.h2.get_next_available_stream_id()
            theirs.h2.send_headers(number, GET, end_stream=True)
            settle(ours, theirs, rng)
            fields = [*OK, *[(b"x-%d" % i, b"value %d" % i) for i in range(30)]]
            ours.connection.send_head(number, fields, True)
            settle(ours, theirs, rng)
            self.assertEqual(theirs.heads[number], fields)


class NoiseTests(SynchronousTestCase):
    """Whatever comes, a connection fails with an L{Http2Error} or not at all."""

    @given(st.binary(max_size=200), st.booleans())
    @settings(max_examples=most(300), deadline=None)
    def test_any_bytes(self, data: bytes, client: bool) -> None:
        self.play([data], client)

    @given(
        st.lists(
            st.tuples(
                st.integers(0, 11),
                st.integers(0, 255),
                st.integers(0, 5),
                st.one_of(
                    st.binary(max_size=30),
                    st.sampled_from(
                        [b"\x82\x86\x84\x41\x01a", b"\x88", b"\x00\x01a\x01b", bytes(4), bytes(5), bytes(8)]
                    ),
                ),
            ),
            max_size=20,
        ),
        st.booleans(),
    )
    @settings(max_examples=most(500), deadline=None)
    def test_any_frames(self, frames: list[tuple[int, int, int, bytes]], client: bool) -> None:
        data = [
            len(payload).to_bytes(3, "big") + bytes((kind, flags)) + stream.to_bytes(4, "big") + payload
            for kind, flags, stream, payload in frames
        ]
        self.play([b"\0\0\0\4\0\0\0\0\0", *data], client)

    def play(self, pieces: list[bytes], client: bool) -> None:
        connection: Any
        if client:
            connection = ClientConnection(Http2Limits())
            connection.request(POST, False)
            connection.request(GET, True)
        else:
            connection = ServerConnection(Http2Limits())
            connection.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")
        open_streams: set[int] = set()
        for piece in pieces:
            for number, event in connection.feed(piece):
                if isinstance(event, Request):
                    self.assertNotIn(number, open_streams)
                    open_streams.add(number)
                    connection.send_head(number, OK, False)
                    connection.send_data(number, b"body")
                elif isinstance(event, Http2Error):
                    self.assertTrue(connection.closed)
            connection.take()
            self.assertLess(len(connection._buffer), 20_000)
