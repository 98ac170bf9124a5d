"""Tests for L{reverseproxy.wire.http2.upgrades}."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.message import END, End, Event, Request, Response
from reverseproxy.wire.http1.fields import CHUNKED, chunk, last_chunk
from reverseproxy.wire.http1.heads import request_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http2.connection import ClientConnection, ServerConnection
from reverseproxy.wire.http2.events import Http2Limits, StreamReset
from reverseproxy.wire.http2.fields import Malformed
from reverseproxy.wire.http2.frames import ErrorCode, Setting, settings
from reverseproxy.wire.http2.requests import parse_request, request_fields
from reverseproxy.wire.http2.responses import parse_response, response_fields
from reverseproxy.wire.http2.upgrades import (
    ClientUpgrade,
    Content,
    Offer,
    connect_protocol,
    needs_upgrade,
    offer_of,
    read_offer,
)
from tests.wire.http1_cases import get, respond
from tests.wire.test_http1 import parse_response as parse_http1_response

SWITCHING = b"HTTP/1.1 101 Switching Protocols"


def head_of(*fields: bytes, method: bytes = b"GET", upgrade: bytes = b"websocket") -> Request:
    """The head of an HTTP/1 request for other protocols."""
    line = method + b" /x HTTP/1.1"
    head = RequestParser().feed(get(b"Connection: Upgrade", b"Upgrade: " + upgrade, *fields, line=line))[0]
    assert isinstance(head, Request), head
    return head


class OfferTests(SynchronousTestCase):
    def test_written_and_read(self) -> None:
        for head, text, offer in (
            (head_of(), b"GET 0 websocket", Offer(b"GET", 0, b"websocket")),
            (
                head_of(b"Content-Length: 47", method=b"POST", upgrade=b"tcp"),
                b"POST 47 tcp",
                Offer(b"POST", 47, b"tcp"),
            ),
            (
                head_of(b"Transfer-Encoding: chunked", method=b"PUT", upgrade=b"SPDY/3.1,websocket"),
                b"PUT chunked SPDY/3.1, websocket",
                Offer(b"PUT", CHUNKED, b"SPDY/3.1, websocket"),
            ),
        ):
            self.assertEqual(offer_of(head), text)
            self.assertEqual(read_offer(text), offer)

    def test_malformed(self) -> None:
        for text in (
            *(b"", b"GET", b"GET 0", b"GET 0 ", b"GET  0 a", b"GET -1 a", b"GET 01 a", b"GET x a"),
            *(b"GET Chunked a", b"G(T 0 a", b"CONNECT 0 a", b"GET 0 a\r\nb", b"GET 1" + b"0" * 18 + b" a"),
        ):
            self.assertIsNone(read_offer(text), text)

    def test_for_those_that_know_only_the_rfc(self) -> None:
        for head, protocol in (
            (head_of(), b"websocket"),
            (head_of(upgrade=b"other, WebSocket"), b"WebSocket"),
            (head_of(upgrade=b"a, b"), b"a"),
            (head_of(b"Content-Length: 0"), b"websocket"),
            (head_of(method=b"POST"), b""),
            (head_of(b"Content-Length: 1"), b""),
            (head_of(b"Transfer-Encoding: chunked"), b""),
        ):
            self.assertEqual(connect_protocol(head), protocol, head.headers)

    def test_what_had_better_fail(self) -> None:
        self.assertFalse(needs_upgrade(head_of(upgrade=b"a")))
        for head in (
            head_of(),
            head_of(upgrade=b"a, WEBSOCKET/13"),
            head_of(b"Content-Length: 1", upgrade=b"a"),
            head_of(b"Transfer-Encoding: chunked", upgrade=b"a"),
            head_of(method=b"POST", upgrade=b"a"),
        ):
            self.assertTrue(needs_upgrade(head), head.headers)


class FieldsTests(SynchronousTestCase):
    def test_request(self) -> None:
        """All of it comes out as it went in."""
        for head in (
            head_of(b"Sec-WebSocket-Key: k", b"X: y", upgrade=b"websocket, other/1"),
            head_of(b"Content-Length: 3", b"Content-Type: t", method=b"POST", upgrade=b"SPDY/3.1"),
            head_of(b"Transfer-Encoding: chunked", b"Expect: 100-continue", method=b"POST", upgrade=b"tcp"),
        ):
            fields = request_fields(head, head.headers, b"http", b"me", b"first", True)
            self.assertEqual(fields[0], (b":method", b"CONNECT"))
            self.assertIn((b":protocol", b"first"), fields)
            self.assertIn((b":upgrade", offer_of(head)), fields)
            self.assertFalse([name for name, _ in fields if name in (b"upgrade", b"connection")])
            again = parse_request(fields, False, True)
            self.assertEqual(
                (again.method, again.target, again.length, again.upgrade, again.awaits_continue),
                (head.method, head.target, head.length, head.upgrade, head.awaits_continue),
            )
            self.assertEqual(again.options, {b"upgrade"})
            lines = set(request_head_bytes(head, None, b"me").lower().split(b"\r\n"))
            self.assertEqual(set(request_head_bytes(again, None, b"me").lower().split(b"\r\n")), lines)

    def test_only_where_it_was_agreed_on(self) -> None:
        head = head_of()
        fields = request_fields(head, head.headers, b"http", b"me", b"websocket", True)
        with self.assertRaises(Malformed):
            parse_request(fields, False)
        with self.assertRaises(Malformed):
            parse_response([(b":status", b"200"), (b":upgrade", b"a")], False, False)

    def test_bad_requests(self) -> None:
        start = [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        proto = (b":protocol", b"a")
        for fields in (
            [*start, (b":upgrade", b"GET 0 a")],
            [*start, proto, (b":upgrade", b"GET 0 a"), (b":upgrade", b"GET 0 a")],
            [*start, proto, (b":upgrade", b"CONNECT 0 a")],
            [*start, proto, (b":upgrade", b"GET 0")],
            [(b":method", b"GET"), *start[1:], proto, (b":upgrade", b"GET 0 a")],
            [(b":method", b"GET"), *start[1:], (b":upgrade", b"GET 0 a")],
            [*start, proto, (b":upgrade", b"POST 3 a")],
            [*start, proto, (b":upgrade", b"POST 3 a"), (b"content-length", b"4")],
            [*start, proto, (b":upgrade", b"POST 0 a"), (b"content-length", b"4")],
            [*start, proto, (b":upgrade", b"POST chunked a"), (b"content-length", b"4")],
            [*start, (b":protocol", b"a b")],
            [*start, (b":protocol", b"a/")],
            [*start, (b":protocol", b"a, b")],
        ):
            with self.assertRaises(Malformed, msg=repr(fields)):
                parse_request(fields, False, True)

    def test_not_passed_on(self) -> None:
        start = [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        for fields in (
            [*start, (b":protocol", b"h2c")],
            [*start, (b":protocol", b"HTTP/2.0")],
            [*start, (b":protocol", b"a"), (b":upgrade", b"GET 0 h2c, TLS/1.0")],
        ):
            with self.assertRaises(HttpError) as caught:
                parse_request(fields, False, True)
            self.assertEqual(caught.exception.status, 501)
        head = parse_request([*start, (b":protocol", b"a"), (b":upgrade", b"GET 0 h2c, b")], False, True)
        self.assertEqual((head.upgrade, dict(head.headers)[b"upgrade"]), (b"b", b"b"))
        self.assertEqual(parse_request([*start, (b":protocol", b"h2c")], False, h2c=True).upgrade, b"h2c")

    def test_a_connect_has_no_length(self) -> None:
        """What follows it is the other protocol, and a host of HTTP/1 must not take it for a body."""
        start = [(b":method", b"CONNECT"), (b":scheme", b"http"), (b":path", b"/"), (b":authority", b"a")]
        head = parse_request([*start, (b":protocol", b"a"), (b"content-length", b"5")], False)
        self.assertEqual(head.length, 0)
        self.assertNotIn(b"content-length", request_head_bytes(head, None, b"").lower())

    def test_answers(self) -> None:
        [accepted] = parse_http1_response(
            respond(b"Upgrade: tcp", b"Connection: Upgrade", b"X: y", line=b"HTTP/1.1 101 UPGRADED")
        )
        fields = response_fields(accepted, True)
        self.assertEqual(fields, [(b":status", b"200"), (b":upgrade", b"tcp"), (b"x", b"y")])
        again = parse_response(fields, False, False, False, True)
        self.assertEqual((again.status, again.length), (101, 0))
        self.assertEqual(again.headers, [(b"x", b"y"), (b"upgrade", b"tcp")])

    def test_upgrade_required(self) -> None:
        fields = (b"Upgrade: a/1", b"Upgrade: b", b"Connection: Upgrade", b"Content-Length: 0")
        head, _ = parse_http1_response(respond(*fields, line=b"HTTP/1.1 426 No"))
        written = response_fields(head, True)
        self.assertEqual(written[:2], [(b":status", b"426"), (b":upgrade", b"a/1, b")])
        again = parse_response(written, True, False, False, True)
        self.assertEqual((again.status, again.lookup("upgrade")), (426, "a/1, b"))
        self.assertEqual(response_fields(head)[0], (b":status", b"426"))
        self.assertNotIn(b"upgrade", dict(response_fields(head)))
        self.assertNotIn(b":upgrade", dict(response_fields(head)))

    def test_bad_answers(self) -> None:
        status = (b":status", b"200")
        for fields in (
            [(b":upgrade", b"a"), status],
            [status, (b"x", b"y"), (b":upgrade", b"a")],
            [status, (b":upgrade", b"a"), (b":upgrade", b"a")],
            [status, (b":upgrade", b"")],
            [status, (b":upgrade", b"a\r\nb: c")],
            [(b":status", b"204"), (b":upgrade", b"a")],
            [(b":status", b"100"), (b":upgrade", b"a")],
        ):
            with self.assertRaises(Malformed, msg=repr(fields)):
                parse_response(fields, False, False, False, True)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Cut bytes into pieces."""
    marks = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[a:b] for a, b in pairwise(marks)]


class ConnectionTests(SynchronousTestCase):
    """Two ends tell each other that they know more, and nobody else."""

    def connect(self, upgrades: bool) -> tuple[ClientConnection, ServerConnection]:
        client, server = ClientConnection(Http2Limits()), ServerConnection(Http2Limits(), upgrades)
        for _ in range(2):
            server.feed(client.take())
            client.feed(server.take())
        return client, server

    def test_agreed(self) -> None:
        client, server = self.connect(True)
        self.assertTrue(client.peer_upgrades and server.peer_upgrades)
        self.assertTrue(client.peer_connect_protocol)
        head = head_of(b"Content-Length: 3", method=b"POST", upgrade=b"tcp")
        number = client.request(request_fields(head, head.headers, b"http", b"", b"tcp", True), False)
        client.send_data(number, b"abcraw")
        (_, request), (_, data) = server.feed(client.take())
        assert isinstance(request, Request)
        self.assertEqual((request.method, request.length, data), (b"POST", 3, b"abcraw"))
        [accepted] = parse_http1_response(respond(b"Upgrade: tcp", b"Connection: Upgrade", line=SWITCHING))
        server.send_head(number, response_fields(accepted, server.peer_upgrades), False)
        server.send_data(number, b"hello")
        server.send_end(number, [])
        (_, answer), (_, data), (_, end) = client.feed(server.take())
        assert isinstance(answer, Response)
        self.assertEqual((answer.status, data, end), (101, b"hello", END))
        client.send_data(number, b"more")
        client.send_end(number, [])
        self.assertEqual(server.feed(client.take()), [(number, b"more"), (number, END)])
        self.assertEqual((client.streams, server.streams), (0, 0))

    def test_a_server_that_says_nothing_hears_nothing(self) -> None:
        client, server = ClientConnection(Http2Limits()), ServerConnection(Http2Limits())
        seen = [client.take(), server.take()]
        server.feed(seen[0])
        client.feed(seen[1])
        seen += [client.take(), server.take()]
        self.assertFalse(client.peer_upgrades or server.peer_upgrades)
        self.assertNotIn(b"\xf0\xd7", b"".join(seen))

    def test_a_client_that_has_not_said_it_may_not_do_it(self) -> None:
        client, server = ClientConnection(Http2Limits()), ServerConnection(Http2Limits(), True)
        head = head_of()
        number = client.request(request_fields(head, head.headers, b"http", b"", b"a", True), False)
        [(_, _), (stream, reset)] = server.feed(client.take())
        assert isinstance(reset, StreamReset)
        self.assertEqual((stream, reset.code), (number, ErrorCode.PROTOCOL_ERROR))

    def test_other_values_say_nothing(self) -> None:
        client = ClientConnection(Http2Limits())
        client.take()
        client.feed(settings([(Setting.UPGRADES, 2)]))
        self.assertFalse(client.peer_upgrades)
        client.feed(settings([(Setting.UPGRADES, 1)]))
        client.feed(settings([(Setting.UPGRADES, 1), (Setting.UPGRADES, 0)]))
        self.assertTrue(client.peer_upgrades)
        self.assertEqual(client.take().count(b"\xf0\xd7"), 1)


class ContentTests(SynchronousTestCase):
    @given(st.lists(st.binary(min_size=1)), st.binary(), st.booleans(), st.lists(st.integers(0, 10_000)))
    def test_found_wherever_it_is_cut(
        self, parts: list[bytes], rest: bytes, chunked: bool, places: list[int]
    ) -> None:
        """What one end writes is what the other one reads, and what follows is left alone."""
        body = b"".join(parts)
        length = CHUNKED if chunked else len(body)
        client = ClientUpgrade(head_of(b"Transfer-Encoding: chunked") if chunked else head_of())
        sent = b"".join(each for each in client.sends([*parts, END]) if isinstance(each, bytes))
        content = Content(length)
        events: list[bytes | End] = []
        tail = b""
        for piece in cut(sent + rest, places):
            if content.complete:
                tail += piece
                continue
            found, left = content.feed(piece)
            events += found
            tail += left
        self.assertTrue(content.complete)
        self.assertEqual(b"".join(each for each in events if isinstance(each, bytes)), body)
        self.assertEqual(tail, rest)
        ends = [each for each in events if isinstance(each, End)]
        self.assertEqual(ends, [END] if length else [])

    def test_trailers(self) -> None:
        content = Content(CHUNKED)
        events, rest = content.feed(chunk(b"a") + last_chunk([(b"X", b"y")]) + b"raw")
        self.assertEqual((events[0], events[1].trailers), (b"a", [(b"X", b"y")]))  # type: ignore[union-attr]
        self.assertEqual(rest, b"raw")

    def test_malformed_chunks(self) -> None:
        with self.assertRaises(HttpError) as caught:
            Content(CHUNKED).feed(b"no chunk\r\n")
        self.assertEqual(caught.exception.status, 400)

    def test_given_up(self) -> None:
        content = Content(CHUNKED)
        content.feed(b"3\r\na")
        content.close()
        content.close()


class ClientUpgradeTests(SynchronousTestCase):
    def answer(self, status: int) -> Response:
        return Response(status, [])

    def test_the_stream_stays_open_behind_the_body(self) -> None:
        client = ClientUpgrade(head_of(b"Content-Length: 3"))
        self.assertEqual(client.sends([b"abc", END]), [b"abc"])
        head = self.answer(101)
        mine, other = client.receives([self.answer(100), head, b"raw", END])
        self.assertEqual((mine[1:], other), ([head], [b"raw", END]))
        self.assertEqual(client.receives([b"more"]), ([], [b"more"]))
        self.assertTrue(client.switched)
        self.assertFalse(client.declined)
        self.assertEqual(client.sends([]), [])

    def test_it_ends_when_an_answer_declines(self) -> None:
        client = ClientUpgrade(head_of())
        self.assertEqual(client.sends([END]), [])
        events: list[Event] = [self.answer(200), b"body", END]
        self.assertEqual(client.receives(events), (events, []))
        self.assertEqual(client.sends([]), [END])
        self.assertEqual(client.sends([]), [])
        self.assertEqual(client.receives([b"more"]), ([b"more"], []))

    def test_it_ends_when_the_body_does_that_was_declined(self) -> None:
        client = ClientUpgrade(head_of(b"Transfer-Encoding: chunked"))
        self.assertEqual(client.sends([b"a"]), [b"1\r\na\r\n"])
        client.receives([self.answer(403)])
        self.assertEqual(client.sends([]), [])
        self.assertEqual(client.sends([b"b", b"", END]), [b"1\r\nb\r\n", b"0\r\n\r\n", END])
