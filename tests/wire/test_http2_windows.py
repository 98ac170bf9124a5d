"""Windows of HTTP/2 connections over paths with latency, with various peers."""

from __future__ import annotations

import random
from collections import deque
from typing import Any

from hyperframe.frame import DataFrame, PingFrame, WindowUpdateFrame
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http.message import Request
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits, PingAck
from reverseproxy.wire.http2.windows import PROBE
from reverseproxy.wire.window import PROBE_EVERY, Reserve
from tests.wire.http2_frames import GET, OK, POST, Peer, client, read_frames, server
from tests.wire.test_http2_peers import Theirs

MB = 1_000_000


class Way:
    """
    A client and a server of ours with a long way between them, in steps of a millisecond.

    @ivar now: seconds.
    @ivar came: bytes of bodies that came, by who took them and stream.
    @ivar pings: how many PING frames crossed it that were no answers.
    """

    def __init__(self, rtt: float, rate: float, limits: Http2Limits | None = None) -> None:
        self.reserve = Reserve()
        self.client = ClientConnection(limits or Http2Limits(), reserve=self.reserve)
        self.server = ServerConnection(limits or Http2Limits(), reserve=self.reserve)
        self.now = 0.0
        self.came: dict[tuple[Any, int], int] = {}
        self.pings = 0
        self.requests: list[int] = []
        self._delay = rtt / 2
        self._rate = rate / 1000
        self._lines: dict[Any, deque[tuple[float, bytes]]] = {self.client: deque(), self.server: deque()}
        self._room = {self.client: 0.0, self.server: 0.0}
        self.client.greeted(0.0)
        self.server.greeted(0.0)

    def step(self, *sending: tuple[Any, int]) -> None:
        """
        Let a millisecond pass.

        @param sending: who sends without end on which stream.
        """
        self.now += 0.001
        for end, number in sending:
            while end.unsent(number) < 400_000:
                end.send_data(number, bytes(100_000))
        for end, other in ((self.client, self.server), (self.server, self.client)):
            self._room[end] = min(self._room[end] + self._rate, self._rate)
            while self._room[end] > 0 and (data := end.take(16384)):
                self._room[end] -= len(data)
                self._lines[end].append((self.now + self._delay, data))
            line = self._lines[end]
            while line and line[0][0] <= self.now:
                self._arrive(other, line.popleft()[1])

    def _arrive(self, end: Any, data: bytes) -> None:
        self.pings += sum(
            isinstance(frame, PingFrame) and "ACK" not in frame.flags for frame in read_frames(data)
        )
        for number, event in end.feed(data, self.now):
            if isinstance(event, bytes):
                self.came[end, number] = self.came.get((end, number), 0) + len(event)
            elif isinstance(event, Request):
                self.requests.append(number)
                self.server.send_head(number, OK, False)
            assert not isinstance(event, Http2Error), event

    def ask(self, fields: Any, count: int = 1) -> list[int]:
        """Make requests, and wait until they have come."""
        numbers = [self.client.request(fields, fields is GET) for _ in range(count)]
        while len(self.requests) < count:
            self.step()
        return numbers


class WayTests(SynchronousTestCase):
    def check_rate(self, rtt: float, rate: float, upload: bool) -> Way:
        way = Way(rtt, rate)
        [number] = way.ask(POST if upload else GET)
        sender, receiver = (way.client, way.server) if upload else (way.server, way.client)
        while way.now < 8 * rtt:
            way.step((sender, number))
        before, end = way.came[receiver, number], way.now + 5 * rtt
        while way.now < end:
            way.step((sender, number))
        came = way.came[receiver, number] - before
        self.assertGreater(came / (rate * 5 * rtt), 0.95, f"{rtt} s, {rate} bytes/s, upload: {upload}")
        return way

    def test_both_directions_use_the_whole_way(self) -> None:
        for rtt, rate in ((0.08, 60 * MB), (0.2, 30 * MB), (0.02, 20 * MB)):
            for upload in (False, True):
                self.check_rate(rtt, rate, upload)

    def test_few_pings(self) -> None:
        way = Way(0.02, 2 * MB)
        [number] = way.ask(GET)
        while way.now < 3 * PROBE_EVERY + 5:
            way.step((way.server, number))
        self.assertEqual(way.pings, 4)
        while way.now < 5 * PROBE_EVERY:
            way.step()
        self.assertEqual(way.pings, 4)

    def test_no_pings_for_little(self) -> None:
        way = Way(0.02, 2 * MB)
        for number in way.ask(GET, 20):
            way.server.send_data(number, bytes(100_000))
            way.server.send_end(number, [])
        while way.now < 5:
            way.step()
        self.assertEqual((way.pings, len(way.came)), (0, 20))

    def test_streams_that_are_held_do_not_stop_others(self) -> None:
        way = Way(0.05, 20 * MB)
        slow, fast = way.ask(POST, 2)
        while way.now < 1:
            way.step((way.client, slow))
        way.server.hold(slow)
        while way.now < 2:
            way.step((way.client, slow), (way.client, fast))
        before = way.came[way.server, fast]
        held = way.server.held
        while way.now < 3:
            way.step((way.client, slow), (way.client, fast))
        self.assertGreater(way.came[way.server, fast] - before, 0.9 * 20 * MB)
        self.assertEqual(way.server.held, held)
        self.assertLess(held, Http2Limits().max_window)

    def test_all_streams_are_held(self) -> None:
        # However much they had at first, all that is kept is bounded.
        limits = Http2Limits(
            stream_window=100_000, max_concurrent_streams=10, receive_budget=5 * MB, max_window=4 * MB
        )
        way = Way(0.1, 100 * MB, limits)
        numbers = way.ask(POST, 10)
        while way.now < 2:
            way.step(*((way.client, number) for number in numbers))
        self.assertGreater(way.reserve.taken, 4 * MB)
        for number in numbers:
            way.server.hold(number)
        for _ in range(1000):
            way.step(*((way.client, number) for number in numbers))
        self.assertLessEqual(way.server.held, 10 * 100_000 + 5 * MB)
        self.assertLessEqual(max(way.server.holding.values()), 4 * MB + 100_000)
        for number in numbers:
            way.client.reset(number, 8)
        for _ in range(200):
            way.step()
        self.assertEqual((way.server.held, way.reserve.taken, way.reserve.streams), (0, 0, 0))

    def test_windows_are_given_back(self) -> None:
        for ending in ("complete", "close", "error", "lost"):
            way = Way(0.1, 20 * MB)
            [number] = way.ask(POST)
            while way.now < 1:
                way.step((way.client, number))
            self.assertGreater(way.reserve.taken, 0)
            if ending == "complete":
                way.client.send_end(number, [])
                way.server.send_end(number, [])
                for _ in range(1000):
                    way.step()
            elif ending == "close":
                way.server.close(0)  # type: ignore[arg-type]
            elif ending == "error":
                way.server.feed(bytes(100), way.now)
            else:
                way.server.close_windows()
                way.server.reset(number, 8)
                way.server.release(number)
            self.assertEqual((way.reserve.taken, way.reserve.streams), (0, 0), ending)
            self.assertEqual(way.server.held, 0)


class PeerTests(SynchronousTestCase):
    """What a peer may make of it."""

    def updates(self, frames: list[Any]) -> list[tuple[int, int]]:
        return [(f.stream_id, f.window_increment) for f in frames if isinstance(f, WindowUpdateFrame)]

    def upload(self, peer: Peer, size: int, now: float) -> list[Any]:
        """Send a part of a body within the window that is known, and see what comes back."""
        peer.now = now
        frames: list[Any] = []
        while size > 0:
            peer.feed(*[peer.data(1, bytes(min(16384, size)))])
            frames += peer.take()
            size -= 16384
        return frames

    def far(self, rtt: float) -> Peer:
        """A client that answers our SETTINGS after some time."""
        peer = Peer(ServerConnection(Http2Limits()), greet=False)
        peer.connection.greeted(0.0)
        peer.now = rtt
        peer.greet()
        peer.feed(peer.headers(1, POST))
        return peer

    def test_the_answer_to_settings_says_how_far_it_is(self) -> None:
        frames = self.upload(self.far(0.5), 200_000, 0.6)
        self.assertGreater(sum(size for stream, size in self.updates(frames) if stream), 2 * MB)

    def test_a_server_that_says_nothing_first_knows_it_too(self) -> None:
        # As on reverse connections: SETTINGS go out when the client's have come.
        peer = Peer(ServerConnection(Http2Limits()), greet=False)
        peer.now = 5.0
        peer.feed(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + peer.settings())
        peer.take()
        peer.now = 5.2
        peer.feed(b"\0\0\0\4\1\0\0\0\0", peer.headers(1, POST))
        self.assertEqual(round(peer.connection._growth.rtt or 0, 3), 0.2)

    def test_only_the_first_answer_counts(self) -> None:
        peer = self.far(0.01)
        peer.now = 0.001
        peer.feed(b"\0\0\0\4\1\0\0\0\0")
        self.assertEqual(peer.connection._growth.rtt, 0.01)

    def test_questions_are_answered_only_once_and_by_none_but_the_last(self) -> None:
        peer = self.far(0.5)
        first = [f for f in self.upload(peer, 200_000, 1.0) if isinstance(f, PingFrame)]
        self.assertEqual(len(first), 1)
        self.assertTrue(first[0].opaque_data.startswith(PROBE))
        second = [f for f in self.upload(peer, 3 * MB, 20.0) if isinstance(f, PingFrame)]
        self.assertEqual(len(second), 1)
        growth = peer.connection._growth
        peer.now = 20.1
        self.assertEqual(peer.feed(peer.ping(first[0].opaque_data, ack=True)), [])
        self.assertEqual(growth.rtt, 0.5)
        self.assertEqual(peer.feed(peer.ping(second[0].opaque_data, ack=True)), [])
        self.assertAlmostEqual(growth.rtt or 0.0, 0.1)
        # What was not asked is no answer.
        peer.feed(peer.ping(PROBE + b"\0\0\0\x09", ack=True))
        [(_, event)] = peer.feed(peer.ping(b"whatever", ack=True))
        self.assertIsInstance(event, PingAck)
        self.assertAlmostEqual(growth.rtt or 0.0, 0.1)

    def test_answers_before_any_question(self) -> None:
        peer = self.far(0.5)
        peer.feed(peer.ping(PROBE + bytes(4), ack=True))
        self.assertEqual(peer.connection._growth.rtt, 0.5)

    def test_a_peer_that_is_late_with_everything_has_bounds(self) -> None:
        peer = self.far(1000.0)
        sent = 0
        window = 262_144
        for _ in range(100):
            frames = self.upload(peer, window, 1000.0)
            sent += window
            window = sum(size for stream, size in self.updates(frames) if stream)
            if sent > 500 * MB:
                break
        self.assertGreater(sent, 64 * MB)
        self.assertEqual(peer.connection._growth.grown, 64 * 2**20 - 262_144)

    def test_windows_that_must_not_grow(self) -> None:
        peer = Peer(ServerConnection(Http2Limits(receive_budget=0)), greet=False)
        peer.connection.greeted(0.0)
        peer.now = 0.5
        peer.greet()
        peer.feed(peer.headers(1, POST))
        frames = self.upload(peer, 262_144, 0.6)
        self.assertEqual(sum(size for stream, size in self.updates(frames) if stream), 262_144)

    def test_held_streams_tell_what_was_passed_on(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, POST))
        peer.connection.hold(1)
        peer.feed(*[peer.data(1, bytes(10_000)) for _ in range(10)])
        peer.connection.passed(1, 100_000, 1.0)
        peer.connection.passed(1, 200_000, 1.0)
        peer.connection.passed(3, 0, 1.0)
        self.assertEqual((self.updates(peer.take()), peer.connection.held), ([], 100_000))
        peer.connection.passed(1, 99_000, 2.0)
        self.assertEqual((self.updates(peer.take()), peer.connection.held), ([(1, 1000)], 99_000))
        self.assertEqual(peer.connection.holding, {1: 99_000})
        peer.connection.release(1, 3.0)
        self.assertEqual(peer.connection.holding, {})
        peer.connection.passed(1, 0, 4.0)
        self.assertEqual(self.updates(peer.take()), [])

    def test_hosts_tell_it_likewise(self) -> None:
        peer = client()
        peer.connection.request(GET, True)
        peer.feed(peer.headers(1, OK))
        peer.connection.hold(1)
        peer.feed(*[peer.data(1, bytes(10_000)) for _ in range(9)], peer.data(1, bytes(10_000), True))
        # Nothing more comes on this one: it is over, and so is what it held.
        self.assertEqual((peer.connection.held, peer.connection.streams), (0, 0))


class LibraryTests(SynchronousTestCase):
    """The h2 library at the other end, which counts every byte of every window."""

    def check(self, upload: bool) -> None:
        rng = random.Random(7)
        reserve = Reserve()
        ours: Any = (
            ServerConnection(Http2Limits(), reserve=reserve)
            if upload
            else ClientConnection(Http2Limits(), reserve=reserve)
        )
        theirs = Theirs(upload, 100_000)
        body = rng.randbytes(20 * MB)
        ours.greeted(0.0)
        if upload:
            theirs.h2.send_headers(1, POST)
            theirs.to_send[1] = body
        else:
            ours.request(GET, True)
        now, came = 0.0, b""
        pieces: list[bytes] = []
        for _ in range(10_000):
            now += 0.05
            data = ours.take()
            now += 0.05
            theirs.feed(data)
            if not upload and theirs.new:
                theirs.new.clear()
                theirs.h2.send_headers(1, OK)
                theirs.to_send[1] = body
                theirs.push()
            for number, event in ours.feed(theirs.h2.data_to_send(), now):
                if isinstance(event, bytes):
                    pieces.append(event)
                    if rng.random() < 0.01:
                        ours.hold(number)
            if rng.random() < 0.5:
                ours.release(1, now)
            if not theirs.to_send and not ours.held:
                break
        came = b"".join(pieces)
        self.assertEqual(came, body)
        self.assertLess(now, 10.0)

    def test_uploads(self) -> None:
        self.check(True)

    def test_downloads(self) -> None:
        self.check(False)


class FrameTests(SynchronousTestCase):
    def test_a_frame_of_data_is_not_told_of_by_itself(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, POST))
        peer.feed(peer.data(1, bytes(1000)))
        self.assertEqual([f for f in peer.take() if isinstance(f, WindowUpdateFrame | DataFrame)], [])
