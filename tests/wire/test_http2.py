"""Connections of HTTP/2: streams, windows, turns and bounds."""

from __future__ import annotations

import struct
from typing import Any

from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import Http2Error, HttpError
from reverseproxy.wire.http.message import END, End, Request, Response
from reverseproxy.wire.http1.fields import CHUNKED
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import GoAway, Http2Limits, PeerSettings, PingAck, StreamReset
from reverseproxy.wire.http2.frame_reader import MAX_CONTINUATIONS, MAX_REPLIES, UPDATES_PER_FRAME
from reverseproxy.wire.http2.frames import MAX_STREAM_ID, MAX_WINDOW, PREFACE, ErrorCode, Setting
from reverseproxy.wire.http2.late import LATE_FRAMES
from reverseproxy.wire.http2.message_reader import REMEMBERED_RESETS
from reverseproxy.wire.http2.outbound import RESUME_BELOW, STREAM_BUFFER
from tests.wire.http2_frames import GET, OK, POST, Peer, client, outcome, raw, read_frames, server

CALM = "connection ENHANCE_YOUR_CALM"


def kinds(events: list[tuple[int, Any]]) -> list[tuple[int, Any]]:
    """Events with the type of those that are no bytes."""
    return [(number, event if isinstance(event, bytes) else type(event)) for number, event in events]


class StartTests(SynchronousTestCase):
    def test_what_a_server_says_first(self) -> None:
        connection = ServerConnection(
            Http2Limits(max_concurrent_streams=7, stream_window=100_000, receive_budget=1_000_000)
        )
        settings, window = read_frames(connection.take())
        self.assertEqual(
            settings.settings,
            {
                Setting.MAX_CONCURRENT_STREAMS: 7,
                Setting.ENABLE_CONNECT_PROTOCOL: 1,
                Setting.NO_RFC7540_PRIORITIES: 1,
                Setting.INITIAL_WINDOW_SIZE: 100_000,
                Setting.MAX_HEADER_LIST_SIZE: 65536,
            },
        )
        # All windows, all that they may grow by, and what it is told of late.
        self.assertEqual((window.stream_id, window.window_increment), (0, 1_700_000 + 850_000 - 65535))
        self.assertEqual(connection.take(), b"")

    def test_what_a_client_says_first(self) -> None:
        connection = ClientConnection(
            Http2Limits(max_frame_size=32768, stream_window=1, max_concurrent_streams=1, receive_budget=0)
        )
        data = connection.take()
        self.assertTrue(data.startswith(PREFACE))
        (settings,) = read_frames(data)  # the connection's window is no smaller than the default
        self.assertEqual(
            settings.settings,
            {
                Setting.ENABLE_PUSH: 0,
                Setting.INITIAL_WINDOW_SIZE: 1,
                Setting.MAX_HEADER_LIST_SIZE: 65536,
                Setting.MAX_FRAME_SIZE: 32768,
            },
        )

    def test_settings_are_acknowledged(self) -> None:
        peer = Peer(ServerConnection(Http2Limits()), greet=False)
        self.assertFalse(peer.connection.established)
        peer.take()
        events = peer.connection.feed(PREFACE + peer.settings())
        self.assertEqual([(n, type(e)) for n, e in events], [(0, PeerSettings)])
        (ack,) = peer.take()
        self.assertEqual((type(ack), ack.flags), (SettingsFrame, {"ACK"}))
        self.assertTrue(peer.connection.established)
        self.assertFalse(peer.connection.acknowledged)
        peer.feed(raw(4, 1, 0))
        self.assertTrue(peer.connection.acknowledged)

    def test_what_the_peer_wants_is_known(self) -> None:
        peer = client()
        connection = peer.connection
        self.assertEqual(
            (
                connection.peer_max_streams,
                connection.peer_max_header_list_size,
                connection.peer_connect_protocol,
            ),
            (None, None, False),
        )
        peer.feed(peer.settings({3: 5, 6: 1000, 8: 1}))
        self.assertEqual(
            (
                connection.peer_max_streams,
                connection.peer_max_header_list_size,
                connection.peer_connect_protocol,
            ),
            (5, 1000, True),
        )

    def test_error_comes_behind_what_was_in_order(self) -> None:
        peer = server()
        events = peer.feed(peer.headers(1, GET, True), peer.headers(3, GET, True), raw(6, 0, 0, b"short"))
        self.assertEqual(kinds(events), [(1, Request), (1, End), (3, Request), (3, End), (0, Http2Error)])
        (goaway,) = peer.take()
        self.assertEqual((goaway.last_stream_id, goaway.error_code), (3, ErrorCode.FRAME_SIZE_ERROR))
        self.assertEqual(goaway.additional_data, b"PING of 5 bytes")


class SilentTests(SynchronousTestCase):
    """A server that says nothing before its client has introduced itself."""

    def setUp(self) -> None:
        self.connection = ServerConnection(Http2Limits(), silent=True)
        self.peer = Peer(self.connection, greet=False)

    def test_silent_until_the_settings_have_come(self) -> None:
        for piece in (PREFACE[:10], PREFACE[10:], self.peer.settings()[:5]):
            self.assertEqual(self.peer.feed(piece), [])
            self.assertEqual(self.peer.take(), [])
        self.peer.feed(self.peer.settings()[5:] + self.peer.headers(1, GET, end=True))
        ours, window, answer = self.peer.take()
        self.assertEqual((type(ours), "ACK" in ours.flags), (SettingsFrame, False))
        self.assertEqual(type(window), WindowUpdateFrame)
        self.assertIn("ACK", answer.flags)
        self.assertTrue(self.connection.established)
        self.peer.feed(self.peer.settings())
        [answer] = self.peer.take()  # ours come once
        self.assertIn("ACK", answer.flags)

    def test_what_ends_it_comes_behind_settings(self) -> None:
        self.peer.feed(PREFACE + self.peer.ping())
        self.assertEqual([type(frame) for frame in self.peer.take()][::2], [SettingsFrame, GoAwayFrame])
        self.connection = ServerConnection(Http2Limits(), silent=True)
        self.connection.close(ErrorCode.SETTINGS_TIMEOUT)
        frames = read_frames(self.connection.take())
        self.assertEqual([type(frame) for frame in frames][::2], [SettingsFrame, GoAwayFrame])


class MosnTests(SynchronousTestCase):
    """What MOSN writes is put in order, and what others write is not."""

    def test_a_length_of_nothing_in_front_of_a_body(self) -> None:
        fields = [*OK, (b"content-length", b"0"), (b"content-type", b"text/plain")]
        for mosn in (True, False):
            connection = ClientConnection(Http2Limits(), mosn=mosn)
            peer = Peer(connection)
            number = connection.request(GET, True)
            events = peer.feed(peer.headers(number, fields), peer.data(number, b"body", end=True))
            if mosn:
                (_, head), (_, body), (_, end) = events
                self.assertEqual((head.length, head.headers), (CHUNKED, [(b"content-type", b"text/plain")]))
                self.assertEqual((body, end), (b"body", END))
            else:
                self.assertEqual(events[-1][1].code, ErrorCode.PROTOCOL_ERROR)

    def test_other_lengths_are_believed(self) -> None:
        for sent in (b"3", b"5"):
            connection = ClientConnection(Http2Limits(), mosn=True)
            peer = Peer(connection)
            number = connection.request(GET, True)
            events = peer.feed(
                peer.headers(number, [*OK, (b"content-length", sent)]), peer.data(number, b"body", end=True)
            )
            self.assertEqual(events[-1][1].code, ErrorCode.PROTOCOL_ERROR)

    def test_a_length_of_nothing_that_is_none(self) -> None:
        """It is kept where it is certain, and dropped where it says nothing."""
        for status, head_request, kept in (
            (b"200", False, True),
            (b"200", True, False),
            (b"304", False, False),
            (b"500", False, True),
        ):
            connection = ClientConnection(Http2Limits(), mosn=True)
            peer = Peer(connection)
            number = connection.request(GET, True, head_request)
            fields = [(b":status", status), (b"content-length", b"0")]
            (_, head), _ = peer.feed(peer.headers(number, fields, end=True))
            self.assertEqual((head.headers, head.length), ([(b"content-length", b"0")] if kept else [], 0))

    def test_fields_of_http1_in_responses(self) -> None:
        extra = [(b"connection", b"keep-alive"), (b"keep-alive", b"timeout=5"), (b"upgrade", b"h2c")]
        for mosn in (True, False):
            connection = ClientConnection(Http2Limits(), mosn=mosn)
            peer = Peer(connection)
            number = connection.request(GET, True)
            events = peer.feed(peer.headers(number, [*OK, *extra, (b"x", b"y")], end=True))
            if mosn:
                self.assertEqual(events[0][1].headers, [(b"x", b"y"), (b"content-length", b"0")])
            else:
                self.assertEqual(events[-1][1].code, ErrorCode.PROTOCOL_ERROR)

    def test_requests(self) -> None:
        for te, expected in (
            (b"trailers", [(b"te", b"trailers")]),
            (b"gzip, Trailers", [(b"te", b"trailers")]),
            (b"deflate;q=0.5", []),
        ):
            fields = [*POST, (b"content-length", b"0"), (b"te", te), (b"keep-alive", b"timeout=5")]
            peer = Peer(ServerConnection(Http2Limits(), mosn=True))
            events = peer.feed(peer.headers(1, fields), peer.data(1, b"body", end=True))
            (_, head), (_, body), (_, end) = events
            self.assertEqual((head.headers, head.length, body, end), (expected, CHUNKED, b"body", END))
        peer = Peer(ServerConnection(Http2Limits(), mosn=True))
        (_, head), _ = peer.feed(peer.headers(1, [*POST, (b"content-length", b"0")], end=True))
        self.assertEqual((head.headers, head.length), ([(b"content-length", b"0")], 0))

    def test_calls_of_grpc(self) -> None:
        """Frames say where their answers end, whoever sends them."""
        for kind in (b"application/grpc", b"application/grpc+proto", b"application/grpc;charset=utf-8"):
            for length in (b"0", b"3", b"99"):
                connection = ClientConnection(Http2Limits())
                peer = Peer(connection)
                number = connection.request(GET, True)
                fields = [*OK, (b"content-type", kind), (b"content-length", length)]
                trailers = [(b"grpc-status", b"0")]
                events = peer.feed(
                    peer.headers(number, fields),
                    peer.data(number, b"message"),
                    peer.headers(number, trailers, end=True),
                )
                (_, head), (_, body), (_, end) = events
                self.assertEqual((head.headers, head.length), ([(b"content-type", kind)], CHUNKED))
                self.assertEqual((body, end.trailers), (b"message", trailers))
        # Trailers alone, and what is not gRPC.
        peer = Peer(connection := ClientConnection(Http2Limits()))
        number = connection.request(GET, True)
        fields = [*OK, (b"content-type", b"application/grpc"), (b"content-length", b"7")]
        (_, head), _ = peer.feed(peer.headers(number, fields, end=True))
        self.assertEqual((head.length, head.headers[1:]), (0, [(b"content-length", b"0")]))
        number = connection.request(GET, True)
        fields = [*OK, (b"content-type", b"application/grpc-web"), (b"content-length", b"0")]
        events = peer.feed(peer.headers(number, fields), peer.data(number, b"x"))
        self.assertEqual(events[-1][1].code, ErrorCode.PROTOCOL_ERROR)
        peer = Peer(ServerConnection(Http2Limits()))
        request = [*POST, (b"content-type", b"application/grpc"), (b"content-length", b"0")]
        events = peer.feed(peer.headers(1, request), peer.data(1, b"x"))
        self.assertEqual(events[-1][1].code, ErrorCode.PROTOCOL_ERROR)


class RequestTests(SynchronousTestCase):
    def test_request_and_response(self) -> None:
        peer = server()
        events = peer.feed(
            peer.headers(1, [*POST, (b"content-length", b"5")]),
            peer.data(1, b"he"),
            peer.data(1, b"llo", True),
        )
        head = events[0][1]
        self.assertEqual(
            (head.method, head.target, head.host, head.length), (b"POST", b"/", b"example.com", 5)
        )
        self.assertEqual(kinds(events), [(1, Request), (1, b"he"), (1, b"llo"), (1, End)])
        connection = peer.connection
        connection.send_head(1, OK, False)
        connection.send_data(1, b"wor")
        connection.send_data(1, b"")
        connection.send_data(1, b"ld")
        connection.send_end(1, [])
        head, data = peer.take()
        self.assertEqual(peer.fields(head), OK)
        self.assertEqual((data.data, data.flags), (b"world", {"END_STREAM"}))
        self.assertEqual(connection.streams, 0)

    def test_trailers_both_ways(self) -> None:
        peer = server()
        events = peer.feed(peer.headers(1, POST), peer.data(1, b"x"), peer.headers(1, [(b"sum", b"1")], True))
        self.assertEqual(events[-1][1].trailers, [(b"sum", b"1")])
        connection = peer.connection
        connection.send_head(1, OK, False)
        connection.send_data(1, b"y")
        connection.send_end(1, [(b"grpc-status", b"0")])
        head, data, trailers = peer.take()
        self.assertEqual(peer.fields(head), OK)
        self.assertEqual(data.flags, set())
        self.assertEqual(peer.fields(trailers), [(b"grpc-status", b"0")])
        self.assertIn("END_STREAM", trailers.flags)
        self.assertEqual(connection.streams, 0)

    def test_trailers_without_a_body(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.send_head(1, OK, False)
        peer.connection.send_end(1, [(b"a", b"b")])
        head, trailers = peer.take()
        peer.fields(head)
        self.assertEqual(peer.fields(trailers), [(b"a", b"b")])

    def test_head_alone(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.send_head(1, OK, True)
        (head,) = peer.take()
        self.assertIn("END_STREAM", head.flags)

    def test_end_behind_a_head_that_was_taken(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.send_head(1, OK, False)
        peer.take()
        peer.connection.send_end(1, [])
        (data,) = peer.take()
        self.assertEqual((data.data, data.flags), (b"", {"END_STREAM"}))

    def test_interim_heads(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, [*POST, (b"expect", b"100-continue")]))
        peer.connection.send_head(1, [(b":status", b"100")], False)
        peer.connection.send_head(1, OK, True)
        interim, final, _ = peer.take()
        self.assertEqual([peer.fields(interim), peer.fields(final)], [[(b":status", b"100")], OK])

    def test_large_head_goes_out_in_several_frames(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.send_head(1, [*OK, *[(b"x", bytes([97 + i]) * 8000) for i in range(6)]], True)
        frames = peer.take()
        self.assertEqual([type(f) for f in frames], [HeadersFrame, ContinuationFrame, ContinuationFrame])
        self.assertEqual([f.flags for f in frames], [{"END_STREAM"}, set(), {"END_HEADERS"}])
        frames[0].data = b"".join([f.data for f in frames])
        self.assertEqual(len(peer.fields(frames[0])), 7)

    def test_response_before_the_end_of_the_request(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, POST), peer.data(1, b"x"))
        peer.connection.send_head(1, [(b":status", b"413")], False)
        peer.connection.send_data(1, b"too much")
        peer.connection.send_end(1, [])
        _, data, reset = peer.take()
        self.assertEqual((data.flags, reset.error_code), ({"END_STREAM"}, ErrorCode.NO_ERROR))
        self.assertEqual(peer.connection.streams, 0)
        # What the client has sent meanwhile is dropped, and does not use the connection's window up.
        self.assertEqual(peer.feed(peer.data(1, bytes(1000)), peer.data(1, b"", True)), [])

    def test_tunnel_ends_in_each_direction_by_itself(self) -> None:
        peer = server()
        connect = [
            (b":method", b"CONNECT"),
            *GET[1:],
            (b":protocol", b"websocket"),
            (b"content-length", b"1"),
        ]
        ((_, head),) = peer.feed(peer.headers(1, connect))
        self.assertEqual((head.method, head.upgrade, head.length), (b"GET", b"websocket", 0))
        peer.connection.send_head(1, OK, False)
        peer.connection.send_end(1, [])
        self.assertEqual([type(f) for f in peer.take()], [HeadersFrame, DataFrame])
        self.assertEqual(
            kinds(peer.feed(peer.data(1, b"more"), peer.data(1, b"", True))), [(1, b"more"), (1, End)]
        )
        self.assertEqual(peer.connection.streams, 0)

    def test_sending_on_streams_that_are_gone_does_nothing(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, POST), peer.rst(1))
        connection = peer.connection
        connection.send_head(1, OK, False)
        connection.send_data(1, b"x")
        connection.send_end(1, [])
        connection.reset(1, ErrorCode.CANCEL)
        connection.hold(1)
        connection.release(1)
        self.assertEqual((connection.take(), connection.unsent(1), connection.is_full(1)), (b"", 0, False))

    def test_nothing_is_sent_behind_the_end(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, POST))
        connection = peer.connection
        connection.send_data(1, b"x")
        connection.send_end(1, [])
        connection.send_data(1, b"y")
        connection.send_end(1, [(b"a", b"b")])
        data, reset = peer.take()
        self.assertEqual((data.data, type(reset)), (b"x", RstStreamFrame))

    def test_reset_by_the_peer(self) -> None:
        peer = server()
        events = peer.feed(peer.headers(1, POST), peer.rst(1, ErrorCode.CANCEL))
        reset = events[-1][1]
        self.assertEqual((reset.code, reset.remote, reset.processed), (ErrorCode.CANCEL, True, True))
        self.assertEqual(repr(reset), "<StreamReset by peer: CANCEL: the stream was reset: CANCEL>")
        self.assertFalse(peer.connection.is_open(1))

    def test_reset_by_us_drops_what_was_to_be_sent(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.send_head(1, OK, False)
        peer.connection.send_data(1, bytes(1000))
        self.assertEqual(peer.connection.unsent(1), 1000)
        peer.connection.reset(1, ErrorCode.INTERNAL_ERROR)
        head, reset = peer.take()
        self.assertEqual((type(head), reset.error_code), (HeadersFrame, ErrorCode.INTERNAL_ERROR))

    def test_malformed_request_leaves_the_others_alone(self) -> None:
        peer = server()
        events = peer.feed(
            peer.headers(1, POST), peer.headers(3, [*GET, (b"Bad", b"")], True), peer.data(1, b"x", True)
        )
        self.assertEqual(kinds(events), [(1, Request), (3, StreamReset), (1, b"x"), (1, End)])
        self.assertEqual(repr(events[1][1]), "<StreamReset by us: PROTOCOL_ERROR: a field is named b'Bad'>")

    def test_head_that_is_too_large(self) -> None:
        peer = server(max_header_list_size=1000)
        events = peer.feed(*peer.blocks(1, [*GET, (b"x", b"y" * 1000)], 3, True), peer.headers(3, GET, True))
        self.assertEqual(kinds(events), [(1, HttpError), (1, End), (3, Request), (3, End)])
        self.assertEqual(events[0][1].status, 431)
        peer.connection.send_head(1, [(b":status", b"431")], True)
        self.assertEqual(len(peer.take()), 1)

    def test_request_that_is_not_taken(self) -> None:
        peer = server()
        events = peer.feed(
            peer.headers(1, [(b":method", b"CONNECT"), (b":authority", b"a:1")]), peer.data(1, b"x")
        )
        self.assertEqual(kinds(events), [(1, HttpError), (1, b"x")])
        self.assertEqual(events[0][1].status, 405)


class Library:
    """A decoder that keeps nothing."""

    def __init__(self) -> None:
        self._decoder = Decoder()

    def decode(self, block: bytes) -> Any:
        return self._decoder.decode(block, raw=True)


class AgainTests(SynchronousTestCase):
    """Messages that come again are not taken apart again, unless they mean something else."""

    def test_requests(self) -> None:
        """The same fields with a body behind them, or of a table that has changed, are another request."""
        peer = server()
        peer.feed(peer.headers(1, POST, True))  # which the peer's table has from now on
        (_, one), (_, end) = peer.feed(peer.headers(3, POST, True))
        (_, same), _ = peer.feed(peer.headers(5, POST, True))
        self.assertIs(same, one)
        self.assertIs(end, END)
        [(_, other)] = peer.feed(peer.headers(7, POST, False))
        self.assertEqual((one.length, other.length), (0, CHUNKED))
        self.assertIn((b"content-length", b"0"), one.headers)
        self.assertNotIn((b"content-length", b"0"), other.headers)
        self.assertEqual(kinds(peer.feed(peer.headers(7, [(b"x", b"y")], True))), [(7, End)])
        peer.feed(peer.headers(9, [*POST, (b"x-a", b"b")], True))
        (_, third), _ = peer.feed(peer.headers(11, POST, True))
        self.assertIsNot(third, one)
        self.assertEqual((third.method, third.target), (one.method, one.target))

    def test_a_block_in_another_place(self) -> None:
        """What was made of a block counts only where it would be made again."""
        peer = server(max_fields=3)
        plain = server(max_fields=3)
        plain.connection._decoder = Library()
        head = b"\x82\x86\x84\1\1a"
        trailers = b"\0\1x\0011"
        connect = b"\2\7CONNECT\0\x09:protocol\1w\x86\x84\1\1a"
        many = b"\x82\x86\x84" + trailers * 4
        reads = [
            *(raw(1, 5, 1, head), raw(1, 5, 3, head), raw(1, 4, 5, head), raw(1, 5, 5, head)),  # as trailers
            *(raw(1, 4, 7, head), raw(1, 5, 7, trailers), raw(1, 4, 9, head), raw(1, 5, 9, trailers)),
            *(raw(1, 5, 11, trailers), raw(1, 5, 13, trailers)),  # as a head
            *(raw(1, 4, 15, connect), raw(1, 5, 17, connect), raw(1, 5, 19, many), raw(1, 5, 21, many)),
            raw(4, 0, 0, b"\xf0\xd7\0\0\0\1"),  # the peer takes upgrades
            *(raw(1, 4, 23, connect), raw(1, 5, 25, head)),
        ]
        for number, read in enumerate(reads):
            self.assertEqual(
                *[
                    [
                        (stream, repr(event), getattr(event, "headers", None))
                        for stream, event in each.feed(read)
                    ]
                    for each in (peer, plain)
                ],
                number,
            )
            self.assertEqual(peer.connection.take(), plain.connection.take(), number)

    def test_no_addresses_for_peers(self) -> None:
        """The library's texts have some."""
        peer = server()
        [(_, error)] = peer.feed(raw(1, 5, 1, b"\xff\xff"))
        self.assertEqual(error.code, ErrorCode.COMPRESSION_ERROR)
        self.assertNotIn("0x", str(error))
        self.assertNotIn(b"0x", peer.take()[-1].additional_data)

    def test_bad_requests_are_bad_again(self) -> None:
        peer = server(max_resets=1000)
        for fields in ([*POST, (b"te", b"gzip")], [*GET[:3], (b":path", b"x")]):
            for number in range(4):
                stream = 1 + peer.connection.last_stream + peer.connection.last_stream % 2
                (event,) = peer.feed(peer.headers(stream, fields, True))
                self.assertIsInstance(event[1], StreamReset, number)

    def test_upgrades_have_heads_of_their_own(self) -> None:
        """What they are switched to is added to their fields on the way."""
        peer = server()
        fields = [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")]
        heads = [peer.feed(peer.headers(number, fields))[0][1] for number in (1, 3, 5)]
        self.assertEqual(len(set(map(id, heads))), 3)

    def test_responses(self) -> None:
        """What answers a HEAD has no body, whatever it says."""
        peer = client()
        connection = peer.connection
        answer = [*OK, (b"content-length", b"3")]
        heads: list[Any] = []
        for number in range(6):
            stream = connection.request(GET, True, head_request=number % 2 == 1)
            heads.append(peer.feed(peer.headers(stream, answer, number % 2 == 1))[0][1])
        self.assertEqual([head.length for head in heads], [3, 0] * 3)
        stream = connection.request(GET, True)
        events = peer.feed(peer.headers(stream, answer, True))
        self.assertEqual(kinds(events), [(stream, StreamReset)])


class ResponseTests(SynchronousTestCase):
    def ask(self, peer: Peer, **more: Any) -> int:
        number: int = peer.connection.request(GET, True, **more)
        return number

    def test_request_and_response(self) -> None:
        peer = client()
        connection = peer.connection
        number = connection.request(POST, False)
        connection.send_data(number, b"hello")
        connection.send_end(number, [])
        head, data = peer.take()
        self.assertEqual((head.stream_id, peer.fields(head), data.data), (1, POST, b"hello"))
        events = peer.feed(
            peer.headers(1, [(b":status", b"103"), (b"link", b"a")]),
            peer.headers(1, OK),
            peer.data(1, b"w", True),
        )
        self.assertEqual(kinds(events), [(1, Response), (1, Response), (1, b"w"), (1, End)])
        self.assertEqual([events[0][1].status, events[1][1].status, events[1][1].length], [103, 200, CHUNKED])
        self.assertEqual(connection.streams, 0)

    def test_numbers_grow_by_2(self) -> None:
        peer = client()
        self.assertEqual([self.ask(peer) for _ in range(3)], [1, 3, 5])

    def test_response_to_head(self) -> None:
        peer = client()
        self.ask(peer, head_request=True)
        events = peer.feed(peer.headers(1, [*OK, (b"content-length", b"99")], True))
        self.assertEqual(kinds(events), [(1, Response), (1, End)])
        self.assertEqual(events[0][1].length, 0)

    def test_response_before_the_end_of_our_request(self) -> None:
        peer = client()
        number = peer.connection.request(POST, False)
        events = peer.feed(peer.headers(1, OK, True), peer.rst(1, ErrorCode.NO_ERROR))
        self.assertEqual(kinds(events), [(1, Response), (1, End), (1, StreamReset)])
        self.assertFalse(peer.connection.is_open(number))

    def test_response_head_that_is_too_large(self) -> None:
        peer = client(max_header_list_size=1000)
        self.ask(peer)
        events = peer.feed(peer.headers(1, [*OK, (b"x", b"y" * 1000)]))
        self.assertEqual(kinds(events), [(1, StreamReset)])
        (_, reset) = peer.take()
        self.assertEqual(reset.error_code, ErrorCode.CANCEL)

    def test_trailers_that_are_too_large(self) -> None:
        peer = client(max_header_list_size=1000)
        self.ask(peer)
        events = peer.feed(peer.headers(1, OK), peer.headers(1, [(b"x", b"y" * 1000)], True))
        self.assertEqual(kinds(events), [(1, Response), (1, StreamReset)])

    def test_tunnel(self) -> None:
        peer = client()
        number = peer.connection.request(GET, False, tunnel=True)
        events = peer.feed(
            peer.headers(number, [*OK, (b"content-length", b"1")]),
            peer.data(number, b"hello"),
            peer.data(number, b"", True),
        )
        self.assertEqual(kinds(events), [(1, Response), (1, b"hello"), (1, End)])

    def test_room(self) -> None:
        peer = client(max_concurrent_streams=3)
        connection = peer.connection
        self.assertEqual(connection.room, 3)
        self.ask(peer)
        self.assertEqual(connection.room, 2)
        peer.feed(peer.settings({3: 1}))
        self.assertEqual(connection.room, 0)
        peer.feed(peer.headers(1, OK, True))
        self.assertEqual(connection.room, 1)
        peer.feed(peer.settings({3: 0}))
        self.assertEqual(connection.room, 0)
        peer.feed(peer.settings({3: 1000}))
        self.assertEqual(connection.room, 3)
        peer.feed(peer.goaway(MAX_STREAM_ID))
        self.assertEqual(connection.room, 0)

    def test_no_room_when_numbers_run_out(self) -> None:
        peer = client()
        peer.connection._next = MAX_STREAM_ID
        self.assertEqual(self.ask(peer), MAX_STREAM_ID)
        self.assertEqual(peer.connection.room, 0)

    def test_no_room_on_a_failed_connection(self) -> None:
        peer = client()
        outcome(peer, raw(0, 0, 0))
        self.assertEqual(peer.connection.room, 0)


class GoAwayTests(SynchronousTestCase):
    def test_streams_that_the_server_will_not_act_on(self) -> None:
        peer = client()
        for _ in range(3):
            peer.connection.request(GET, True)
        events = peer.feed(
            peer.headers(1, OK), peer.goaway(1, ErrorCode.NO_ERROR, b"bye"), peer.data(1, b"x", True)
        )
        self.assertEqual(
            kinds(events),
            [(1, Response), (0, GoAway), (3, StreamReset), (5, StreamReset), (1, b"x"), (1, End)],
        )
        self.assertEqual(repr(events[1][1]), "<GoAway NO_ERROR last=1 'bye'>")
        self.assertEqual([events[2][1].processed, events[2][1].code], [False, ErrorCode.REFUSED_STREAM])
        self.assertTrue(peer.connection.going)

    def test_warning_leaves_all_streams(self) -> None:
        peer = client()
        peer.connection.request(GET, True)
        self.assertEqual(kinds(peer.feed(peer.goaway(MAX_STREAM_ID))), [(0, GoAway)])
        self.assertEqual(kinds(peer.feed(peer.goaway(0))), [(0, GoAway), (1, StreamReset)])

    def test_refused_stream_was_not_processed(self) -> None:
        peer = client()
        peer.connection.request(GET, True)
        ((_, reset),) = peer.feed(peer.rst(1, ErrorCode.REFUSED_STREAM))
        self.assertFalse(reset.processed)

    def test_debug_text_is_bounded_and_printable(self) -> None:
        peer = client()
        ((_, going),) = peer.feed(peer.goaway(0, 77, b"\xff\n" + b"x" * 5000))
        self.assertTrue(going.debug.startswith("\\xff\n"))
        self.assertLess(len(going.debug), 300)
        self.assertIn("error code 77", repr(going))

    def test_graceful_end_of_a_server(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        peer.connection.warn()
        peer.connection.ping(b"draining")
        goaway, ping = peer.take()
        self.assertEqual((goaway.last_stream_id, goaway.error_code), (MAX_STREAM_ID, ErrorCode.NO_ERROR))
        # A request that was under way is still taken.
        events = peer.feed(peer.headers(3, GET, True), peer.ping(b"draining", ack=True))
        self.assertEqual(kinds(events), [(3, Request), (3, End), (0, PingAck)])
        self.assertEqual(events[-1][1].data, ping.opaque_data)
        peer.connection.refuse_new()
        (goaway,) = peer.take()
        self.assertEqual(goaway.last_stream_id, 3)
        events = peer.feed(peer.headers(5, GET, True))
        self.assertEqual((kinds(events), events[0][1].processed), ([(5, StreamReset)], False))
        (reset,) = peer.take()
        self.assertEqual((reset.stream_id, reset.error_code), (5, ErrorCode.REFUSED_STREAM))
        peer.connection.refuse_new()
        (goaway,) = peer.take()
        self.assertEqual(goaway.last_stream_id, 3)

    def test_close(self) -> None:
        peer = server()
        connection = peer.connection
        peer.feed(peer.headers(1, GET, True))
        connection.close(ErrorCode.NO_ERROR, "idle")
        connection.close(ErrorCode.NO_ERROR, "again")
        connection.warn()
        connection.refuse_new()
        connection.ping(bytes(8))
        (goaway,) = peer.take()
        self.assertEqual((goaway.last_stream_id, goaway.additional_data), (1, b"idle"))
        self.assertEqual((connection.closed, connection.streams, peer.feed(peer.ping())), (True, 0, []))


SMALL = {"stream_window": 100_000, "max_concurrent_streams": 2, "receive_budget": 0}
"""Windows that don't grow."""


class ReceiveWindowTests(SynchronousTestCase):
    def windows(self, peer: Peer) -> list[tuple[int, int]]:
        return [(f.stream_id, f.window_increment) for f in peer.take() if isinstance(f, WindowUpdateFrame)]

    def test_small_bodies_need_no_updates(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST), *[peer.data(1, bytes(10_000)) for _ in range(4)])
        self.assertEqual(peer.take(), [])

    def test_windows_open_as_data_is_passed_on(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST), *[peer.data(1, bytes(10_000)) for _ in range(5)])
        self.assertEqual(self.windows(peer), [(1, 50_000)])
        peer.feed(*[peer.data(1, bytes(10_000)) for _ in range(5)])
        self.assertEqual(self.windows(peer), [(0, 100_000), (1, 50_000)])

    def test_windows_stay_closed_if_it_turns_out_to_be_too_much(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST), *[peer.data(1, bytes(10_000)) for _ in range(6)])
        # Whoever it was passed on to has enough with that.
        peer.connection.hold(1)
        self.assertEqual((self.windows(peer), peer.connection.held), ([], 60_000))
        peer.feed(*[peer.data(1, bytes(10_000)) for _ in range(4)])
        self.assertEqual((self.windows(peer), peer.connection.held), ([], 100_000))
        peer.connection.release(1)
        self.assertEqual(peer.connection.held, 0)
        peer.connection.hold(1)
        self.assertEqual((self.windows(peer), peer.connection.held), ([], 100_000))
        peer.connection.release(1)
        self.assertEqual(self.windows(peer), [(0, 100_000), (1, 100_000)])

    def test_windows_open_even_if_nothing_is_sent_meanwhile(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST))
        for _ in range(10):
            peer.feed(peer.data(1, bytes(10_000)))
        self.assertEqual(self.windows(peer), [(1, 50_000), (0, 100_000), (1, 50_000)])

    def test_held_stream_gets_no_window(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST))
        peer.connection.hold(1)
        peer.feed(*[peer.data(1, bytes(10_000)) for _ in range(10)])
        self.assertEqual(self.windows(peer), [])
        # Another stream has all of its own window still.
        peer.feed(peer.headers(3, POST), *[peer.data(3, bytes(10_000)) for _ in range(10)])
        self.assertEqual(self.windows(peer), [(0, 100_000), (3, 100_000)])
        peer.connection.release(1)
        self.assertEqual(self.windows(peer), [(0, 100_000), (1, 100_000)])
        peer.connection.release(1)
        self.assertEqual(self.windows(peer), [])

    def test_more_than_the_window_of_a_stream(self) -> None:
        peer = server(**SMALL)
        peer.feed(peer.headers(1, POST))
        peer.connection.hold(1)
        frames = [peer.data(1, bytes(10_000)) for _ in range(10)]
        self.assertEqual(outcome(peer, *frames), "fine")
        self.assertEqual(outcome(peer, peer.data(1, b"x")), "stream FLOW_CONTROL_ERROR")
        self.assertEqual(kinds(peer.feed(peer.headers(3, GET, True))), [(3, Request), (3, End)])

    def test_more_than_the_window_of_the_connection(self) -> None:
        # Until it has heard of it, a client need not keep to the smaller window of a stream.
        peer = server(stream_window=1000, max_concurrent_streams=2, receive_budget=0)
        peer.feed(peer.headers(1, POST), peer.headers(3, POST))
        peer.connection.hold(1)
        peer.connection.hold(3)
        frames = [peer.data(1, bytes(13_107)) for _ in range(5)]
        self.assertEqual(outcome(peer, *frames), "fine")
        self.assertEqual(outcome(peer, peer.data(3, b"x")), "connection FLOW_CONTROL_ERROR")

    def test_small_window_is_enforced_when_the_peer_may_know_it(self) -> None:
        peer = Peer(ServerConnection(Http2Limits(stream_window=100)), greet=False)
        peer.take()
        peer.feed(PREFACE, peer.settings(), peer.headers(1, POST))
        # Not yet acknowledged: the client may believe in the default.
        self.assertEqual(kinds(peer.feed(peer.data(1, bytes(16384)))), [(1, bytes(16384))])
        self.assertEqual(self.windows(peer), [(1, 16384)])

    def test_padding_is_no_burden_on_held_streams(self) -> None:
        peer = server(stream_window=1000, max_concurrent_streams=100, receive_budget=0)
        peer.feed(peer.headers(1, POST))
        peer.connection.hold(1)
        peer.feed(*[peer.data(1, b"", pad=249) for _ in range(2)])
        self.assertEqual(self.windows(peer), [(1, 500)])

    def test_dropped_data_is_given_back_to_the_connection(self) -> None:
        peer = server(stream_window=65535, max_concurrent_streams=1, receive_budget=0)
        for number in range(1, 41, 2):
            peer.feed(peer.headers(number, POST))
            peer.connection.hold(number)
            self.assertNotIn(
                "connection", outcome(peer, *[peer.data(number, bytes(16000)) for _ in range(4)])
            )
            peer.connection.reset(number, ErrorCode.CANCEL)
            # More of it was under way.
            outcome(peer, peer.data(number, bytes(1500)))

    def test_no_window_for_a_body_that_is_complete(self) -> None:
        peer = server(stream_window=65535, max_concurrent_streams=100, receive_budget=0)
        peer.feed(peer.headers(1, POST), *[peer.data(1, bytes(13_000)) for _ in range(2)])
        peer.connection.hold(1)
        peer.feed(peer.data(1, bytes(13_000), True))
        peer.connection.release(1)
        self.assertEqual(self.windows(peer), [])


class SendWindowTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.peer = server()
        self.connection = self.peer.connection

    def open(self, *numbers: int) -> None:
        for number in numbers:
            self.peer.feed(self.peer.headers(number, GET, True))
            self.connection.send_head(number, OK, False)
        self.peer.take()

    def sent(self, limit: int = 1 << 30) -> list[tuple[int, int]]:
        return [(f.stream_id, len(f.data)) for f in self.peer.take(limit) if isinstance(f, DataFrame)]

    def test_windows_are_respected(self) -> None:
        self.open(1)
        self.connection.send_data(1, bytes(100_000))
        self.assertEqual(self.sent(), [(1, 16384), (1, 16384), (1, 16384), (1, 16383)])
        self.assertEqual(self.sent(), [])
        self.peer.feed(self.peer.window(1, 50_000))
        self.assertEqual(self.sent(), [])
        self.peer.feed(self.peer.window(0, 1000))
        self.assertEqual(self.sent(), [(1, 1000)])
        self.peer.feed(self.peer.window(0, 100_000))
        self.connection.send_end(1, [])
        self.assertEqual(self.sent(), [(1, 16384), (1, 16384), (1, 697)])
        self.assertEqual(self.connection.streams, 0)

    def test_one_byte_windows(self) -> None:
        self.peer.feed(self.peer.settings({4: 0}))
        self.open(1)
        self.connection.send_data(1, b"abc")
        for byte in b"abc":
            self.assertEqual(self.sent(), [])
            self.peer.feed(self.peer.window(1, 1))
            (frame,) = self.peer.take()
            self.assertEqual(frame.data, bytes((byte,)))

    def test_streams_take_turns(self) -> None:
        self.open(1, 3, 5)
        self.connection.send_data(1, bytes(60_000))
        self.connection.send_data(3, bytes(20_000))
        self.connection.send_data(5, b"small")
        self.assertEqual(self.sent(40_000), [(1, 16384), (3, 16384), (5, 5), (1, 16384)])
        self.assertEqual(self.sent(), [(3, 3616), (1, 12762)])  # that is all of the connection's window

    def test_take_without_bodies(self) -> None:
        self.open(1)
        self.connection.send_data(1, b"x")
        self.peer.feed(self.peer.ping())
        (pong,) = self.peer.take(0)
        self.assertIsInstance(pong, PingFrame)
        self.assertEqual(self.sent(), [(1, 1)])

    def test_stalled_stream_does_not_stall_others(self) -> None:
        self.peer.feed(self.peer.settings({4: 1000}))
        self.open(1, 3)
        self.connection.send_data(1, bytes(50_000))
        self.assertEqual(self.sent(), [(1, 1000)])
        self.connection.send_data(3, bytes(500))
        self.connection.send_end(3, [])
        self.assertEqual(self.sent(), [(3, 500)])

    def test_full_and_drained(self) -> None:
        self.open(1)
        self.connection.send_data(1, bytes(STREAM_BUFFER))
        self.assertFalse(self.connection.is_full(1))
        self.connection.send_data(1, bytes(STREAM_BUFFER))
        self.assertTrue(self.connection.is_full(1))
        self.peer.feed(self.peer.window(1, MAX_WINDOW - 65535), self.peer.window(0, 1_000_000))
        self.sent(2 * STREAM_BUFFER - RESUME_BELOW)
        self.assertEqual((self.connection.drained, self.connection.is_full(1)), ([], True))
        self.sent(1)
        self.assertEqual((self.connection.drained, self.connection.is_full(1)), ([1], False))

    def test_settings_change_the_windows_of_open_streams(self) -> None:
        self.open(1)
        self.connection.send_data(1, bytes(30_000))
        self.assertEqual(self.sent(20_000), [(1, 16384), (1, 13616)])
        self.peer.feed(self.peer.settings({4: 10_000}))  # the window is negative now
        self.connection.send_data(1, b"x" * 10)
        self.assertEqual(self.sent(), [])
        self.peer.feed(self.peer.window(1, 20_000))
        self.assertEqual(self.sent(), [])
        self.peer.feed(self.peer.window(1, 5))
        self.assertEqual(self.sent(), [(1, 5)])
        self.peer.feed(self.peer.settings({4: 65535}))
        self.assertEqual(self.sent(), [(1, 5)])

    def test_window_closed_by_settings_while_a_stream_waits_for_its_turn(self) -> None:
        self.open(1)
        self.connection.send_data(1, bytes(10))
        self.peer.feed(self.peer.settings({4: 0}))
        self.assertEqual(self.sent(), [])
        self.peer.feed(self.peer.settings({4: 10}))
        self.assertEqual(self.sent(), [(1, 10)])

    def test_end_needs_no_window(self) -> None:
        self.peer.feed(self.peer.settings({4: 0}))
        self.open(1, 3)
        self.connection.send_end(1, [])
        self.assertEqual(self.sent(), [(1, 0)])
        self.connection.send_end(3, [(b"a", b"b")])
        (trailers,) = self.peer.take()
        self.assertIsInstance(trailers, HeadersFrame)

    def test_stream_that_was_reset_while_it_waited_for_its_turn(self) -> None:
        self.open(1, 3)
        self.connection.send_data(1, bytes(100))
        self.connection.send_data(3, bytes(100))
        self.peer.feed(self.peer.rst(1))
        self.assertEqual(self.sent(), [(3, 100)])

    def test_many_small_pieces_make_one_frame(self) -> None:
        self.open(1)
        for _ in range(100):
            self.connection.send_data(1, bytes(200))
        self.assertEqual(self.sent(), [(1, 16384), (1, 3616)])


def many_settings(*values: tuple[int, int]) -> bytes:
    """A SETTINGS frame that may repeat itself."""
    return raw(4, 0, 0, b"".join(struct.pack(">HI", *each) for each in values))


class BoundsTests(SynchronousTestCase):
    def test_too_many_streams_are_refused(self) -> None:
        peer = server(max_concurrent_streams=2)
        events = peer.feed(*[peer.headers(n, POST) for n in (1, 3, 5)])
        self.assertEqual(kinds(events), [(1, Request), (3, Request), (5, StreamReset)])
        (reset,) = peer.take()
        self.assertEqual((reset.stream_id, reset.error_code), (5, ErrorCode.REFUSED_STREAM))
        self.assertEqual(kinds(peer.feed(peer.data(5, b"x"), peer.data(3, b"y"))), [(3, b"y")])
        peer.feed(peer.rst(1))
        self.assertEqual(kinds(peer.feed(peer.headers(7, GET, True))), [(7, Request), (7, End)])

    def test_rapid_reset(self) -> None:
        peer = server(max_resets=10)
        for number in range(1, 21, 2):
            self.assertEqual(outcome(peer, peer.headers(number, GET, True), peer.rst(number)), "fine")
        self.assertEqual(outcome(peer, peer.headers(21, GET, True), peer.rst(21)), CALM)

    def test_resets_come_back_with_time_and_with_good_requests(self) -> None:
        peer = server(max_resets=10)
        for number in range(1, 2001, 2):
            peer.now += 0.1
            self.assertEqual(outcome(peer, peer.headers(number, GET, True), peer.rst(number)), "fine")
        for number in range(2001, 4001, 4):
            self.assertEqual(outcome(peer, peer.headers(number, GET, True), peer.rst(number)), "fine")
            peer.feed(peer.headers(number + 2, GET, True))
            peer.connection.send_head(number + 2, OK, True)
            peer.take()

    def test_resets_that_the_client_makes_us_send(self) -> None:
        for mistake in (
            lambda p, n: p.window(n, 0),
            lambda p, n: p.priority(n, n),
            lambda p, n: p.headers(n, GET),
            lambda p, n: p.window(n, MAX_WINDOW),
        ):
            peer = server(max_resets=10)
            seen = {outcome(peer, peer.headers(n, POST), mistake(peer, n)) for n in range(1, 23, 2)}
            self.assertIn(CALM, seen)
        peer = server(max_resets=10)
        peer.feed(peer.headers(1, POST), peer.rst(1))
        self.assertIn(CALM, {outcome(peer, peer.data(1, b"x")) for _ in range(11)})
        peer = server(max_resets=10, max_concurrent_streams=1)
        self.assertIn(CALM, {outcome(peer, peer.headers(n, POST)) for n in range(1, 25, 2)})

    def test_floods(self) -> None:
        for name, flood in {
            "PING frames": lambda p: p.ping(),
            "SETTINGS frames": lambda p: p.settings(),
            "PRIORITY frames": lambda p: p.priority(9),
            "empty DATA frames": lambda p: p.data(1),
            "frames of unknown kinds": lambda p: raw(0x20, 0, 0, b"x"),
            "GOAWAY frames": lambda p: p.goaway(0),
            "acknowledgements of SETTINGS": lambda p: raw(4, 1, 0),
            "WINDOW_UPDATE frames": lambda p: p.window(3, 1),
            "RST_STREAM frames": lambda p: p.rst(3),
            "frames on streams that were reset": lambda p: p.data(5),
        }.items():
            peer = server(max_control_frames=20)
            peer.feed(peer.headers(1, POST))
            peer.feed(peer.headers(3, GET, True))
            peer.connection.send_head(3, OK, True)
            peer.feed(peer.headers(5, POST))
            peer.connection.reset(5, ErrorCode.CANCEL)
            peer.feed(peer.data(5) * LATE_FRAMES)
            peer.take()
            for _ in range(20):
                self.assertEqual(outcome(peer, flood(peer)), "fine", name)
            events = peer.feed(flood(peer))
            self.assertEqual(
                [str(event) for _, event in events if isinstance(event, Http2Error)], [f"too many {name}"]
            )
            peer = server(max_control_frames=20)
            peer.feed(peer.headers(1, POST))

    def test_a_window_for_many_streams_counts_for_many_frames(self) -> None:
        """What one frame makes us do is what counts, not that it is one."""
        windows = [(4, 65535 + number) for number in range(64)]
        for streams, most in ((0, 20), (32, 4)):
            peer = server(max_control_frames=20, max_concurrent_streams=100)
            for number in range(streams):
                peer.feed(peer.headers(2 * number + 1, POST))
            outcomes = [outcome(peer, many_settings(*windows)) for _ in range(most + 1)]
            self.assertEqual(outcomes[:-1], ["fine"] * most)
            self.assertEqual(outcomes[-1], CALM)

    def test_too_many_settings_in_a_frame(self) -> None:
        for count, expected in ((64, "fine"), (65, CALM)):
            peer = server()
            self.assertEqual(outcome(peer, many_settings(*[(0x9A9A, 1)] * count)), expected)

    def test_the_last_of_several_windows_counts(self) -> None:
        peer = server()
        peer.feed(peer.headers(1, GET, True))
        self.assertEqual(outcome(peer, many_settings((4, 0), (4, MAX_WINDOW), (4, 7))), "fine")
        peer.connection.send_head(1, OK, False)
        peer.connection.send_data(1, b"0123456789")
        peer.take()
        self.assertEqual(peer.connection.unsent(1), 3)

    def test_window_updates_of_a_connection_without_streams(self) -> None:
        peer = server(max_control_frames=20)
        self.assertIn(CALM, {outcome(peer, peer.window(0, 1)) for _ in range(21)})

    def test_window_updates_of_streams(self) -> None:
        for which in (0, 1):
            peer = server(max_control_frames=20)
            peer.feed(peer.headers(1, POST))
            peer.connection.send_head(1, OK, False)
            results = {outcome(peer, peer.window(which, 1)) for _ in range(20 * UPDATES_PER_FRAME + 1)}
            self.assertEqual(results, {"fine", CALM})

    def test_headers_behind_our_resets(self) -> None:
        for peer in (server(max_control_frames=20), client(max_control_frames=20)):
            if isinstance(peer.connection, ClientConnection):
                peer.connection.request(GET, False)
            else:
                peer.feed(peer.headers(1, POST))
            peer.connection.reset(1, ErrorCode.CANCEL)
            peer.take()
            late = [outcome(peer, peer.headers(1, [(b"a", b"b")], True)) for _ in range(LATE_FRAMES + 21)]
            self.assertEqual(late, [*["fine"] * (LATE_FRAMES + 20), CALM])

    def test_what_was_on_its_way_to_a_stream_that_we_reset(self) -> None:
        """However many frames it is, as far as the windows go; and not a byte more without a charge."""
        for peer in (server(max_control_frames=20), client(max_control_frames=20)):
            for number in (1, 3, 5):
                if isinstance(peer.connection, ClientConnection):
                    peer.connection.request(POST, False)
                    peer.feed(peer.headers(number, OK))
                else:
                    peer.feed(peer.headers(number, POST))
                peer.connection.reset(number, ErrorCode.CANCEL)
                peer.take()
                body = peer.data(number, b"x" * 1024) * 256
                frames = peer.window(number, 1), peer.rst(number), peer.headers(number, [(b"a", b"b")], True)
                self.assertEqual([outcome(peer, each) for each in (body, *frames)], ["fine"] * 4)
            late = [outcome(peer, peer.data(1, b"x")) for _ in range(21)]
            self.assertEqual(late, [*["fine"] * 20, CALM])

    def test_what_was_on_its_way_to_a_stream_that_was_refused(self) -> None:
        peer = server(max_control_frames=20, max_concurrent_streams=1)
        peer.feed(peer.headers(1, POST), peer.headers(3, POST))
        peer.take()
        self.assertEqual(outcome(peer, peer.data(3, b"x" * 1024) * 256), "fine")

    def test_control_frames_that_belong_to_bodies_are_no_flood(self) -> None:
        peer = server(max_control_frames=20)
        peer.feed(peer.headers(1, POST))
        for _ in range(500):
            self.assertEqual(outcome(peer, peer.data(1, b"x"), peer.ping()), "fine")
        peer.connection.send_head(1, OK, False)
        for _ in range(500):
            peer.connection.send_data(1, b"x")
            peer.take()
            self.assertEqual(outcome(peer, peer.ping(), peer.window(0, 1), peer.window(1, 1)), "fine")

    def test_peer_that_takes_no_replies(self) -> None:
        peer = server(max_control_frames=10 * MAX_REPLIES)
        events = peer.feed(*[peer.ping() for _ in range(MAX_REPLIES + 1)])
        self.assertEqual([e.code for _, e in events], [ErrorCode.ENHANCE_YOUR_CALM])

    def test_continuation_floods(self) -> None:
        peer = server()
        many = [raw(1, 0, 1), *[raw(9, 0, 1) for _ in range(MAX_CONTINUATIONS + 1)]]
        self.assertEqual(outcome(peer, *many), CALM)
        peer = server(max_header_list_size=1000)
        self.assertEqual(outcome(peer, raw(1, 0, 1, bytes(16384)), *[raw(9, 0, 1, bytes(16384))] * 4), CALM)

    def test_compression_bomb(self) -> None:
        peer = server(max_header_list_size=1000)
        value = b"x" * 4000
        bomb = peer.encoder.encode([(b"a", value)]) + b"\xbe" * 12000
        self.assertEqual(outcome(peer, raw(1, 5, 1, bomb)), CALM)

    def test_remembered_resets_are_bounded(self) -> None:
        peer = server(max_resets=10_000)
        for number in range(1, 2 * REMEMBERED_RESETS + 101, 2):
            peer.feed(peer.headers(number, POST))
            peer.connection.reset(number, ErrorCode.CANCEL)
        self.assertEqual(len(peer.connection._resets), REMEMBERED_RESETS)
        peer.take()
        # Those that were forgotten get the benefit of the doubt.
        self.assertEqual(outcome(peer, peer.headers(1, [(b"a", b"b")], True)), "fine")

    def test_partial_frames_are_bounded(self) -> None:
        peer = server()
        self.assertEqual(outcome(peer, raw(0, 0, 1, b"", 2**24 - 1)), "connection FRAME_SIZE_ERROR")

    def test_table_of_the_encoder_is_bounded(self) -> None:
        peer = server()
        peer.feed(peer.settings({1: 1 << 30}))
        self.assertEqual(peer.connection._encoder.max_size, 4096)
        peer.feed(peer.settings({1: 100}))
        self.assertEqual(peer.connection._encoder.max_size, 100)

    def test_goaway_says_nothing_but_ascii(self) -> None:
        peer = server()
        peer.connection.close(ErrorCode.INTERNAL_ERROR, "\u20ac")
        (goaway,) = [f for f in peer.take() if isinstance(f, GoAwayFrame)]
        self.assertEqual(goaway.additional_data, b"?")
