"""
What RFC 9113 demands for each action of a peer, one row for each.

The rows follow its sections; the result of each is an error of the
connection (GOAWAY, and nothing is read any more), an error of the stream
(RST_STREAM, and the connection goes on), or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits
from reverseproxy.wire.http2.frames import PREFACE
from tests.wire.http2_frames import GET, OK, POST, Fields, Peer, client, outcome, raw, server

Row = tuple[str, Callable[[Peer], Sequence[bytes]], str]


def with_(*more: tuple[bytes, bytes], fields: Fields = GET) -> Fields:
    return [*fields, *more]


def without(name: bytes, fields: Fields = GET) -> Fields:
    return [field for field in fields if field[0] != name]


def replaced(name: bytes, value: bytes, fields: Fields = GET) -> Fields:
    return [(key, value if key == name else old) for key, old in fields]


def request(fields: Fields, end: bool = True) -> Callable[[Peer], Sequence[bytes]]:
    return lambda p: [p.headers(1, fields, end)]


def one_open(*more: Callable[[Peer], bytes]) -> Callable[[Peer], Sequence[bytes]]:
    """A request without an end on stream 1, and then more."""
    return lambda p: [p.headers(1, POST), *[each(p) for each in more]]


def one_ended(*more: Callable[[Peer], bytes]) -> Callable[[Peer], Sequence[bytes]]:
    """A complete request on stream 1, and then more."""
    return lambda p: [p.headers(1, GET, True), *[each(p) for each in more]]


def answered(*more: Callable[[Peer], bytes]) -> Callable[[Peer], Sequence[bytes]]:
    """Stream 1 complete in both directions, and then more."""

    def play(p: Peer) -> Sequence[bytes]:
        p.feed(p.headers(1, GET, True))
        p.connection.send_head(1, OK, True)
        p.take()
        return [each(p) for each in more]

    return play


def reset_by_us(*more: Callable[[Peer], bytes]) -> Callable[[Peer], Sequence[bytes]]:
    def play(p: Peer) -> Sequence[bytes]:
        p.feed(p.headers(1, POST))
        p.connection.reset(1, 8)
        p.take()
        return [each(p) for each in more]

    return play


PROTOCOL = "connection PROTOCOL_ERROR"
SIZE = "connection FRAME_SIZE_ERROR"
FLOW = "connection FLOW_CONTROL_ERROR"
COMPRESSION = "connection COMPRESSION_ERROR"
CLOSED = "connection STREAM_CLOSED"
CALM = "connection ENHANCE_YOUR_CALM"
MALFORMED = "stream PROTOCOL_ERROR"
FINE = "fine"

SERVER: list[Row] = [
    # 4.1 frame format
    ("unknown kind of frame", lambda p: [raw(0x16, 0xFF, 0, b"whatever"), *request(GET)(p)], FINE),
    ("unknown flags", lambda p: [raw(6, 0x16, 0, b"12345678")], FINE),
    ("reserved bit of a stream", lambda p: [raw(6, 0, 1 << 31, b"12345678")], FINE),
    # 4.2 frame size
    ("DATA of the largest size", one_open(lambda p: p.data(1, bytes(16384))), FINE),
    ("DATA too large", one_open(lambda p: raw(0, 0, 1, bytes(16385))), SIZE),
    ("DATA that announces too much", one_open(lambda p: raw(0, 0, 1, b"", 16385)), SIZE),
    ("HEADERS too large", lambda p: [raw(1, 5, 1, bytes(16385))], SIZE),
    ("SETTINGS too large", lambda p: [raw(4, 0, 0, bytes(16386))], SIZE),
    # 4.3 field blocks
    ("bad index", lambda p: [raw(1, 5, 1, b"\xff\xff\x0f")], COMPRESSION),
    ("index 0", lambda p: [raw(1, 5, 1, b"\x80")], COMPRESSION),
    ("block cut off", lambda p: [raw(1, 5, 1, b"\x40\x0aabc")], COMPRESSION),
    ("bad Huffman code", lambda p: [raw(1, 5, 1, b"\x40\x84\xff\xff\xff\xff\x00")], COMPRESSION),
    ("table larger than ours", lambda p: [raw(1, 5, 1, b"\x3f\xe1\xff\x03")], COMPRESSION),
    ("table size behind a field", lambda p: [raw(1, 5, 1, b"\x82\x20")], COMPRESSION),
    ("PRIORITY inside a block", lambda p: [p.blocks(1, GET, 2)[0], p.priority(1)], PROTOCOL),
    ("HEADERS inside a block", lambda p: [p.blocks(1, GET, 2)[0], p.headers(3, GET)], PROTOCOL),
    ("CONTINUATION of another stream", lambda p: [p.blocks(1, GET, 2)[0], raw(9, 4, 3)], PROTOCOL),
    ("unknown kind inside a block", lambda p: [p.blocks(1, GET, 2)[0], raw(0x16, 0, 1)], PROTOCOL),
    # 5.1 stream states
    ("DATA on an idle stream", lambda p: [p.data(1, b"x")], PROTOCOL),
    ("RST_STREAM on an idle stream", lambda p: [p.rst(1)], PROTOCOL),
    ("WINDOW_UPDATE on an idle stream", lambda p: [p.window(1, 1)], PROTOCOL),
    ("CONTINUATION on an idle stream", lambda p: [raw(9, 4, 1)], PROTOCOL),
    ("PRIORITY on an idle stream", lambda p: [p.priority(1)], FINE),
    ("DATA behind the end", one_ended(lambda p: p.data(1, b"x")), "stream STREAM_CLOSED"),
    (
        "HEADERS behind the end",
        one_ended(lambda p: p.headers(1, [(b"a", b"b")], True)),
        "stream STREAM_CLOSED",
    ),
    ("CONTINUATION behind the end", one_ended(lambda p: raw(9, 4, 1)), PROTOCOL),
    ("WINDOW_UPDATE behind the end", one_ended(lambda p: p.window(1, 1)), FINE),
    ("PRIORITY behind the end", one_ended(lambda p: p.priority(1)), FINE),
    ("RST_STREAM behind the end", one_ended(lambda p: p.rst(1)), FINE),
    (
        "DATA behind RST_STREAM",
        one_open(lambda p: p.rst(1), lambda p: p.data(1, b"x")),
        "stream STREAM_CLOSED",
    ),
    ("HEADERS behind RST_STREAM", one_open(lambda p: p.rst(1), lambda p: p.headers(1, GET)), CLOSED),
    ("DATA on a closed stream", answered(lambda p: p.data(1, b"x")), "stream STREAM_CLOSED"),
    ("HEADERS on a closed stream", answered(lambda p: p.headers(1, GET)), CLOSED),
    ("WINDOW_UPDATE on a closed stream", answered(lambda p: p.window(1, 1)), FINE),
    ("RST_STREAM on a closed stream", answered(lambda p: p.rst(1)), FINE),
    ("PRIORITY on a closed stream", answered(lambda p: p.priority(1)), FINE),
    ("DATA on a stream that we reset", reset_by_us(lambda p: p.data(1, b"x")), FINE),
    ("trailers on a stream that we reset", reset_by_us(lambda p: p.headers(1, [(b"a", b"b")], True)), FINE),
    ("RST_STREAM on a stream that we reset", reset_by_us(lambda p: p.rst(1)), FINE),
    # 5.1.1 stream identifiers
    ("even stream", lambda p: [p.headers(2, GET)], PROTOCOL),
    ("stream that was skipped", lambda p: [p.headers(5, GET, True), p.headers(3, GET, True)], CLOSED),
    (
        "DATA on a stream that was skipped",
        lambda p: [p.headers(5, GET, True), p.data(3)],
        "stream STREAM_CLOSED",
    ),
    # 5.3 priorities
    (
        "HEADERS that depends on itself",
        lambda p: [p.headers(1, GET, depends_on=1, flags=["PRIORITY"])],
        MALFORMED,
    ),
    (
        "HEADERS with a priority",
        lambda p: [p.headers(3, GET, True, depends_on=1, stream_weight=9, flags=["PRIORITY"])],
        FINE,
    ),
    ("PRIORITY on itself, open", one_open(lambda p: p.priority(1, 1)), MALFORMED),
    ("PRIORITY on itself, idle", lambda p: [p.priority(3, 3)], PROTOCOL),
    # 6.1 DATA
    ("DATA on stream 0", lambda p: [raw(0, 0, 0, b"x")], PROTOCOL),
    ("DATA with padding", one_open(lambda p: p.data(1, b"abc", pad=9)), FINE),
    ("DATA of padding only", one_open(lambda p: raw(0, 8, 1, b"\x00")), FINE),
    ("DATA with too much padding", one_open(lambda p: raw(0, 8, 1, b"\x05abcd")), PROTOCOL),
    ("padded DATA without a length", one_open(lambda p: raw(0, 8, 1, b"")), SIZE),
    # 6.2 HEADERS
    ("HEADERS on stream 0", lambda p: [raw(1, 5, 0, b"\x82")], PROTOCOL),
    ("HEADERS with padding", lambda p: [p.headers(1, GET, True, pad_length=7, flags=["PADDED"])], FINE),
    ("HEADERS with too much padding", lambda p: [raw(1, 0xD, 1, b"\x05\x82\x86")], PROTOCOL),
    ("HEADERS too short for a priority", lambda p: [raw(1, 0x25, 1, b"\x00\x00\x00")], SIZE),
    # 6.3 PRIORITY
    ("PRIORITY on stream 0", lambda p: [raw(2, 0, 0, bytes(5))], PROTOCOL),
    ("PRIORITY of 4 bytes, idle", lambda p: [raw(2, 0, 1, bytes(4))], SIZE),
    ("PRIORITY of 4 bytes, open", one_open(lambda p: raw(2, 0, 1, bytes(4))), "stream FRAME_SIZE_ERROR"),
    # 6.4 RST_STREAM
    ("RST_STREAM on stream 0", lambda p: [raw(3, 0, 0, bytes(4))], PROTOCOL),
    ("RST_STREAM of 3 bytes", one_open(lambda p: raw(3, 0, 1, bytes(3))), SIZE),
    ("RST_STREAM", one_open(lambda p: p.rst(1)), FINE),
    ("RST_STREAM with an unknown code", one_open(lambda p: p.rst(1, 0xFFFF)), FINE),
    # 6.5 SETTINGS
    ("acknowledgement with a payload", lambda p: [raw(4, 1, 0, bytes(6))], SIZE),
    ("acknowledgement of nothing", lambda p: [raw(4, 1, 0)], FINE),
    ("SETTINGS on a stream", one_open(lambda p: raw(4, 0, 1)), PROTOCOL),
    ("SETTINGS of 3 bytes", lambda p: [raw(4, 0, 0, bytes(3))], SIZE),
    ("ENABLE_PUSH 2", lambda p: [p.settings({2: 2})], PROTOCOL),
    ("ENABLE_PUSH 1", lambda p: [p.settings({2: 1})], FINE),
    ("INITIAL_WINDOW_SIZE too large", lambda p: [p.settings({4: 2**31})], FLOW),
    ("MAX_FRAME_SIZE too small", lambda p: [p.settings({5: 16383})], PROTOCOL),
    ("MAX_FRAME_SIZE too large", lambda p: [p.settings({5: 2**24})], PROTOCOL),
    ("MAX_FRAME_SIZE of the largest size", lambda p: [p.settings({5: 2**24 - 1})], FINE),
    ("unknown setting", lambda p: [p.settings({0xFF: 1})], FINE),
    ("ENABLE_CONNECT_PROTOCOL 2", lambda p: [p.settings({8: 2})], PROTOCOL),
    ("ENABLE_CONNECT_PROTOCOL back to 0", lambda p: [p.settings({8: 1}), p.settings({8: 0})], PROTOCOL),
    ("HEADER_TABLE_SIZE 0", lambda p: [p.settings({1: 0}), *request(GET)(p)], FINE),
    # 6.6 PUSH_PROMISE
    ("PUSH_PROMISE of a client", one_open(lambda p: raw(5, 4, 1, b"\x00\x00\x00\x02")), PROTOCOL),
    # 6.7 PING
    ("PING on a stream", lambda p: [raw(6, 0, 1, bytes(8))], PROTOCOL),
    ("PING of 6 bytes", lambda p: [raw(6, 0, 0, bytes(6))], SIZE),
    ("PING answer nobody asked for", lambda p: [p.ping(ack=True)], FINE),
    # 6.8 GOAWAY
    ("GOAWAY on a stream", lambda p: [raw(7, 0, 1, bytes(8))], PROTOCOL),
    ("GOAWAY of 7 bytes", lambda p: [raw(7, 0, 0, bytes(7))], SIZE),
    ("GOAWAY, and a request that was under way", lambda p: [p.goaway(0), *request(GET)(p)], FINE),
    # 6.9 WINDOW_UPDATE
    ("WINDOW_UPDATE of 3 bytes", lambda p: [raw(8, 0, 0, bytes(3))], SIZE),
    ("WINDOW_UPDATE by 0", lambda p: [p.window(0, 0)], PROTOCOL),
    ("WINDOW_UPDATE by 0 on a stream", one_open(lambda p: p.window(1, 0)), MALFORMED),
    ("window too large", lambda p: [p.window(0, 2**31 - 1)], FLOW),
    ("window of a stream too large", one_open(lambda p: p.window(1, 2**31 - 1)), "stream FLOW_CONTROL_ERROR"),
    (
        "window of a stream too large by SETTINGS",
        one_open(lambda p: p.window(1, 2**31 - 1 - 65535), lambda p: p.settings({4: 65536})),
        FLOW,
    ),
    # 6.10 CONTINUATION
    ("block in 4 frames", lambda p: p.blocks(1, GET, 4, True), FINE),
    ("CONTINUATION without HEADERS", one_open(lambda p: raw(9, 4, 1)), PROTOCOL),
    ("CONTINUATION behind the last", lambda p: [*p.blocks(1, GET, 2), raw(9, 4, 1)], PROTOCOL),
    ("CONTINUATION on stream 0", lambda p: [p.blocks(1, GET, 2)[0], raw(9, 4, 0)], PROTOCOL),
    # 8.1 messages
    ("HEADERS in the middle", one_open(lambda p: p.headers(1, [(b"a", b"b")])), MALFORMED),
    ("trailers", one_open(lambda p: p.headers(1, [(b"a", b"b")], True)), FINE),
    (
        "length and DATA that agree",
        lambda p: [p.headers(1, with_((b"content-length", b"2"))), p.data(1, b"xy", True)],
        FINE,
    ),
    (
        "less DATA than length",
        lambda p: [p.headers(1, with_((b"content-length", b"2"))), p.data(1, b"x", True)],
        MALFORMED,
    ),
    (
        "more DATA than length",
        lambda p: [p.headers(1, with_((b"content-length", b"2"))), p.data(1, b"xyz")],
        MALFORMED,
    ),
    (
        "more DATA than length, in several",
        lambda p: [p.headers(1, with_((b"content-length", b"2"))), p.data(1, b"xy"), p.data(1, b"z", True)],
        MALFORMED,
    ),
    ("length without DATA", request(with_((b"content-length", b"2"))), MALFORMED),
    (
        "length, trailers, no DATA",
        lambda p: [p.headers(1, with_((b"content-length", b"2"))), p.headers(1, [(b"a", b"b")], True)],
        MALFORMED,
    ),
    ("length 0", request(with_((b"content-length", b"0"))), FINE),
    ("length that is no number", request(with_((b"content-length", b"+1")), False), MALFORMED),
    ("empty length", request(with_((b"content-length", b"")), False), MALFORMED),
    ("largest length", request(with_((b"content-length", b"9223372036854775807")), False), FINE),
    ("length over 63 bits", request(with_((b"content-length", b"9223372036854775808")), False), MALFORMED),
    ("length of 19 digits", request(with_((b"content-length", b"9" * 19)), False), MALFORMED),
    ("two lengths", request(with_((b"content-length", b"1"), (b"content-length", b"2")), False), MALFORMED),
    (
        "the same length twice",
        request(with_((b"content-length", b"1"), (b"content-length", b"1")), False),
        FINE,
    ),
    # 8.2 fields
    ("upper-case name", request(with_((b"X-A", b"1"))), MALFORMED),
    ("space in a name", request(with_((b"x a", b"1"))), MALFORMED),
    ("colon in a name", request(with_((b"x:a", b"1"))), MALFORMED),
    ("empty name", request(with_((b"", b"1"))), MALFORMED),
    ("NUL in a name", request(with_((b"x\0", b"1"))), MALFORMED),
    ("8-bit name", request(with_((b"x\xe9", b"1"))), MALFORMED),
    ("LF in a value", request(with_((b"x", b"1\nevil: 1"))), MALFORMED),
    ("CR in a value", request(with_((b"x", b"1\r"))), MALFORMED),
    ("NUL in a value", request(with_((b"x", b"1\0"))), MALFORMED),
    ("space before a value", request(with_((b"x", b" 1"))), MALFORMED),
    ("tab behind a value", request(with_((b"x", b"1\t"))), MALFORMED),
    ("8-bit value", request(with_((b"x", b"\xe9"))), FINE),
    ("empty value", request(with_((b"x", b""))), FINE),
    ("connection", request(with_((b"connection", b"keep-alive"))), MALFORMED),
    ("proxy-connection", request(with_((b"proxy-connection", b"keep-alive"))), MALFORMED),
    ("keep-alive", request(with_((b"keep-alive", b"5"))), MALFORMED),
    ("transfer-encoding", request(with_((b"transfer-encoding", b"chunked"))), MALFORMED),
    ("upgrade", request(with_((b"upgrade", b"websocket"))), MALFORMED),
    ("te: trailers", request(with_((b"te", b"trailers"))), FINE),
    ("te: gzip", request(with_((b"te", b"trailers, gzip"))), MALFORMED),
    # 8.3 pseudo-headers
    ("unknown pseudo-header", request([(b":test", b"1"), *GET]), MALFORMED),
    (":status in a request", request([(b":status", b"200"), *GET]), MALFORMED),
    ("pseudo-header behind a field", request([(b"a", b"b"), *GET]), MALFORMED),
    ("pseudo-header behind a cookie", request([(b"cookie", b"b"), *GET]), MALFORMED),
    (
        "pseudo-header behind host",
        request([*without(b":path"), (b"host", b"example.com"), (b":path", b"/")]),
        MALFORMED,
    ),
    ("pseudo-header behind te", request([(b"te", b"trailers"), *GET]), MALFORMED),
    ("no :method", request(without(b":method")), MALFORMED),
    ("no :scheme", request(without(b":scheme")), MALFORMED),
    ("no :path", request(without(b":path")), MALFORMED),
    ("empty :path", request(replaced(b":path", b"")), MALFORMED),
    (":path without slash", request(replaced(b":path", b"index")), MALFORMED),
    (":path with a fragment", request(replaced(b":path", b"/a#b")), MALFORMED),
    (":path with a space", request(replaced(b":path", b"/a b")), MALFORMED),
    (":path with 8 bits", request(replaced(b":path", b"/\xe9")), MALFORMED),
    (":path * of GET", request(replaced(b":path", b"*")), MALFORMED),
    (":path * of OPTIONS", request(replaced(b":method", b"OPTIONS", replaced(b":path", b"*"))), FINE),
    (":method twice", request([(b":method", b"GET"), *GET]), MALFORMED),
    (":scheme twice", request([(b":scheme", b"http"), *GET]), MALFORMED),
    (":path twice", request([(b":path", b"/"), *GET]), MALFORMED),
    (":authority twice", request([(b":authority", b"example.com"), *GET]), MALFORMED),
    (":method that is none", request(replaced(b":method", b"G T")), MALFORMED),
    (":method with LF", request(replaced(b":method", b"GET / HTTP/1.1\r\na: b")), MALFORMED),
    (":path with LF", request(replaced(b":path", b"/ HTTP/1.1\r\na: b")), MALFORMED),
    (":protocol of GET", request([*GET, (b":protocol", b"websocket")]), MALFORMED),
    ("host that differs", request(with_((b"host", b"other.example"))), MALFORMED),
    ("host that agrees", request(with_((b"host", b"EXAMPLE.com"))), FINE),
    ("two hosts", request([*without(b":authority"), (b"host", b"a"), (b"host", b"b")]), MALFORMED),
    ("host alone", request([*without(b":authority"), (b"host", b"a")]), FINE),
    ("pseudo-header in trailers", one_open(lambda p: p.headers(1, [(b":path", b"/")], True)), MALFORMED),
    ("upper-case name in trailers", one_open(lambda p: p.headers(1, [(b"A", b"b")], True)), MALFORMED),
    ("connection in trailers", one_open(lambda p: p.headers(1, [(b"connection", b"b")], True)), MALFORMED),
    # 8.5 CONNECT, RFC 8441
    ("CONNECT with a path", request(replaced(b":method", b"CONNECT")), MALFORMED),
    ("CONNECT without authority", request([(b":method", b"CONNECT")]), MALFORMED),
    ("CONNECT", request([(b":method", b"CONNECT"), (b":authority", b"a:1")]), FINE),  # answered with 405
    (
        "extended CONNECT",
        request([*replaced(b":method", b"CONNECT"), (b":protocol", b"websocket")], False),
        FINE,
    ),
    (
        "extended CONNECT for no protocol",
        request([*replaced(b":method", b"CONNECT"), (b":protocol", b"")], False),
        MALFORMED,
    ),
    (
        "extended CONNECT without path",
        request([*without(b":path", replaced(b":method", b"CONNECT")), (b":protocol", b"a")], False),
        MALFORMED,
    ),
]


def asked(
    *more: Callable[[Peer], bytes], fields: Fields = GET, end: bool = True
) -> Callable[[Peer], Sequence[bytes]]:
    """A request of ours on stream 1, and then what the server sends."""

    def play(p: Peer) -> Sequence[bytes]:
        p.connection.request(fields, end)
        p.take()
        return [each(p) for each in more]

    return play


def status(*fields: tuple[bytes, bytes], end: bool = False) -> Callable[[Peer], bytes]:
    return lambda p: p.headers(1, list(fields), end)


S200 = (b":status", b"200")

CLIENT: list[Row] = [
    ("complete response", asked(status(S200), lambda p: p.data(1, b"x", True)), FINE),
    ("response without body", asked(status(S200, end=True)), FINE),
    ("interim response", asked(status((b":status", b"103")), status(S200, end=True)), FINE),
    (
        "as many interim responses as may be",
        asked(*[status((b":status", b"103"))] * 100, status(S200, end=True)),
        FINE,
    ),
    (
        "one more",
        asked(*[status((b":status", b"103"))] * 101, status(S200, end=True)),
        "stream ENHANCE_YOUR_CALM",
    ),
    ("interim response that ends", asked(status((b":status", b"100"), end=True)), MALFORMED),
    ("101", asked(status((b":status", b"101"))), MALFORMED),
    ("DATA before the head", asked(lambda p: p.data(1, b"x")), MALFORMED),
    (
        "DATA behind an interim head",
        asked(status((b":status", b"100")), lambda p: p.data(1, b"x")),
        MALFORMED,
    ),
    ("no :status", asked(status((b"a", b"b"))), MALFORMED),
    (":status twice", asked(status(S200, S200)), MALFORMED),
    (":status behind a field", asked(status((b"a", b"b"), S200)), MALFORMED),
    (":status behind te", asked(status((b"te", b"trailers"), S200)), MALFORMED),
    (
        "length over 63 bits in a response",
        asked(status(S200, (b"content-length", b"9223372036854775808"))),
        MALFORMED,
    ),
    (":status 99", asked(status((b":status", b"099"))), MALFORMED),
    (":status with a reason", asked(status((b":status", b"200 OK"))), MALFORMED),
    (":method in a response", asked(status(S200, (b":method", b"GET"))), MALFORMED),
    ("connection in a response", asked(status(S200, (b"connection", b"close"))), MALFORMED),
    ("LF in a value of a response", asked(status(S200, (b"a", b"b\nc: d"))), MALFORMED),
    (
        "less DATA than length",
        asked(status(S200, (b"content-length", b"2")), lambda p: p.data(1, b"x", True)),
        MALFORMED,
    ),
    (
        "more DATA than length",
        asked(status(S200, (b"content-length", b"2")), lambda p: p.data(1, b"xyz")),
        MALFORMED,
    ),
    ("length, but nothing else", asked(status(S200, (b"content-length", b"2"), end=True)), MALFORMED),
    ("304 with a length", asked(status((b":status", b"304"), (b"content-length", b"2"), end=True)), FINE),
    ("304 with a body", asked(status((b":status", b"304")), lambda p: p.data(1, b"x")), MALFORMED),
    (
        "two lengths in a response",
        asked(status(S200, (b"content-length", b"2"), (b"content-length", b"3"))),
        MALFORMED,
    ),
    ("response with trailers", asked(status(S200), lambda p: p.headers(1, [(b"a", b"b")], True)), FINE),
    ("second response", asked(status(S200), status(S200)), MALFORMED),
    ("trailers with :status", asked(status(S200), status(S200, end=True)), MALFORMED),
    (
        "response behind the response",
        asked(status(S200, end=True), status(S200, end=True), end=True),
        CLOSED,
    ),
    (
        "response behind the response, our request incomplete",
        asked(status(S200, end=True), status(S200, end=True), end=False),
        "stream STREAM_CLOSED",
    ),
    ("response that nobody asked for", lambda p: [p.headers(1, OK, True)], PROTOCOL),
    ("stream of the server's", lambda p: [p.headers(2, OK, True)], PROTOCOL),
    ("DATA that nobody asked for", lambda p: [p.data(3, b"x")], PROTOCOL),
    ("PUSH_PROMISE", asked(lambda p: raw(5, 4, 1, b"\x00\x00\x00\x02\x82")), PROTOCOL),
    ("ENABLE_PUSH 1 of a server", lambda p: [p.settings({2: 1})], PROTOCOL),
    ("ENABLE_PUSH 0 of a server", lambda p: [p.settings({2: 0})], FINE),
    ("RST_STREAM of a request", asked(lambda p: p.rst(1)), FINE),
    ("RST_STREAM of nothing", lambda p: [p.rst(1)], PROTOCOL),
    (
        "response that depends on itself",
        asked(lambda p: p.headers(1, OK, depends_on=1, flags=["PRIORITY"])),
        MALFORMED,
    ),
    (
        "response to nothing that depends on itself",
        lambda p: [p.headers(1, OK, depends_on=1, flags=["PRIORITY"])],
        PROTOCOL,
    ),
    ("GOAWAY", asked(lambda p: p.goaway(1)), FINE),
    ("answer on a stream that GOAWAY took back", asked(lambda p: p.goaway(0), status(S200, end=True)), FINE),
]


class ConformanceTests(SynchronousTestCase):
    def check(self, rows: list[Row], connect: Callable[[], Peer]) -> None:
        wrong = []
        for name, play, expected in rows:
            # In one read, and byte by byte: it must make no difference.
            peer = connect()
            whole = outcome(peer, *play(peer))
            peer = connect()
            pieces = "fine"
            for byte in b"".join(play(peer)):
                pieces = outcome(peer, bytes((byte,)))
                if pieces != "fine":
                    break
            if (whole, pieces) != (expected, expected):
                wrong.append(f"{name}: {whole}, {pieces} instead of {expected}")
        self.assertEqual(wrong, [])

    def test_what_clients_do(self) -> None:
        self.check(SERVER, server)

    def test_what_servers_do(self) -> None:
        self.check(CLIENT, client)

    def test_the_connection_goes_on_after_each_error_of_a_stream(self) -> None:
        for name, play, expected in SERVER:
            if expected.startswith("stream"):
                peer = server()
                outcome(peer, *play(peer))
                events = peer.feed(peer.headers(101, GET, True))
                self.assertEqual([number for number, _ in events], [101, 101], name)

    def test_names_are_different(self) -> None:
        for rows in (SERVER, CLIENT):
            names = [row[0] for row in rows]
            self.assertEqual(len(names), len(set(names)))


class PrefaceTests(SynchronousTestCase):
    """RFC 9113 3.4: how a connection begins."""

    def check(self, connection: ServerConnection | ClientConnection, data: bytes, expected: str) -> None:
        peer = Peer(connection, greet=False)
        peer.take()
        self.assertEqual(outcome(peer, data), expected)

    def test_client_without_preface(self) -> None:
        self.check(ServerConnection(Http2Limits()), b"GET / HTTP/1.1\r\n", PROTOCOL)
        self.check(ServerConnection(Http2Limits()), PREFACE[:-1] + b"x", PROTOCOL)

    def test_client_without_settings(self) -> None:
        self.check(ServerConnection(Http2Limits()), PREFACE + raw(6, 0, 0, bytes(8)), PROTOCOL)
        self.check(ServerConnection(Http2Limits()), PREFACE + raw(8, 0, 0, bytes(3) + b"x"), PROTOCOL)

    def test_early_acknowledgement(self) -> None:
        """SETTINGS should come first, but MOSN's reader may answer ours before its writer has sent them."""
        for connection, start in (
            (ServerConnection(Http2Limits()), PREFACE),
            (ClientConnection(Http2Limits()), b""),
        ):
            self.check(connection, start + raw(4, 1, 0), FINE)
            self.assertFalse(connection.established)
            self.assertEqual(outcome(Peer(connection, greet=False), raw(6, 0, 0, bytes(8))), PROTOCOL)
            connection = type(connection)(Http2Limits())
            self.check(connection, start + raw(4, 1, 0) + raw(4, 0, 0), FINE)
            self.assertTrue(connection.established)
            self.check(
                type(connection)(Http2Limits()), start + raw(4, 1, 0, b"x"), "connection FRAME_SIZE_ERROR"
            )
            self.check(
                type(connection)(Http2Limits()), start + raw(4, 1, 0) * 1002, "connection ENHANCE_YOUR_CALM"
            )

    def test_client_with_empty_settings(self) -> None:
        self.check(ServerConnection(Http2Limits()), PREFACE + raw(4, 0, 0), FINE)

    def test_server_of_http1(self) -> None:
        peer = Peer(ClientConnection(Http2Limits()), greet=False)
        peer.take()
        events = peer.feed(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertIn("b'HTTP/1.1 400 Bad Request", str(events[-1][1]))

    def test_server_that_does_not_begin_with_settings(self) -> None:
        self.check(ClientConnection(Http2Limits()), raw(6, 0, 0, bytes(8)), PROTOCOL)
