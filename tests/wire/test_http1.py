"""Tests for L{reverseproxy.wire.http1.requests} and L{reverseproxy.wire.http1.fields}."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import h11
from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import forbidden_in_trailers
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.message import END, MAX_INTERIM, End
from reverseproxy.wire.http1.chunked import CHUNK_EXCESS
from reverseproxy.wire.http1.fields import CHUNKED, MAX_LENGTH, UNTIL_CLOSE, chunk, last_chunk, status_line
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead, request_head_bytes, response_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http1.significant_fields import KINDS
from reverseproxy.wire.http1.templates import (
    MAX_KNOWN,
    SIGNIFICANT_FIELDS,
    TEMPLATE_AFTER,
    request_template,
    response_template,
)
from tests import most
from tests.wire.http1_cases import BAD_REQUESTS, BAD_RESPONSES, GOOD, chunked, get, respond

PLAIN_LENGTH = b"Content-Length: 3"
PLAIN_CODING = b"Transfer-Encoding: chunked"

ODD_FRAMING = (
    ([b"Content-Length:3"], PLAIN_LENGTH),
    ([b"Content-Length:\t3"], PLAIN_LENGTH),
    ([b"Content-Length:  3"], PLAIN_LENGTH),
    ([b"Content-Length: 3 \t "], PLAIN_LENGTH),
    ([b"Content-Length: 0003"], PLAIN_LENGTH),
    ([b"Content-Length: 00"], b"Content-Length: 0"),
    ([b"Transfer-Encoding:chunked"], PLAIN_CODING),
    ([b"Transfer-Encoding:\tchunked"], PLAIN_CODING),
    ([b"Transfer-Encoding: \tchunked"], PLAIN_CODING),
    ([b"Transfer-Encoding: chunked "], PLAIN_CODING),
    ([b"Transfer-Encoding: CHUNKED"], PLAIN_CODING),
)
"""Fields that are in order but not everywhere understood, and how they are written."""


def simplify(events: list[Any]) -> list[Any]:
    """Make events comparable, with bodies in one piece."""
    simple: list[Any] = []
    for event in events:
        if isinstance(event, bytes):
            if simple and isinstance(simple[-1], bytes):
                simple[-1] += event
            else:
                simple.append(event)
        elif isinstance(event, RequestHead):
            simple.append(
                (
                    *(event.method, event.target, event.host, event.http11, event.headers, event.length),
                    *(
                        event.keep_alive,
                        event.upgrade,
                        event.awaits_continue,
                        request_head_bytes(event, None, b"me"),
                    ),
                )
            )
        elif isinstance(event, ResponseHead):
            simple.append(
                (
                    *(event.status, event.reason, event.http11, event.headers, event.length),
                    *(event.keep_alive, response_head_bytes(event, b"", event.length < 0)),
                )
            )
        elif isinstance(event, End):
            simple.append(("end", event.trailers))
        else:
            assert isinstance(event, HttpError)
            simple.append(("error", event.status))
    return simple


def parse(*feeds: bytes, max_head: int = 8192) -> list[Any]:
    parser = RequestParser(max_head)
    return [event for data in feeds for event in parser.feed(data)]


def parse_response(*feeds: bytes, head_request: bool = False) -> list[Any]:
    parser = ResponseParser()
    parser.expect(head_request)
    return [event for data in feeds for event in parser.feed(data)]


def pieces(data: bytes, size: int) -> list[bytes]:
    return [data[i : i + size] for i in range(0, len(data), size)]


class BadRequestTests(SynchronousTestCase):
    def test_status(self) -> None:
        for name, data, status in BAD_REQUESTS:
            with self.subTest(name):
                *before, last = parse(data)
                self.assertIsInstance(last, HttpError, name)
                self.assertEqual(last.status, status, (name, str(last)))
                self.assertNotIn(END, before)
                self.assertTrue(str(last))

    def test_in_pieces(self) -> None:
        for size in (1, 2, 7, 64):
            for name, data, status in BAD_REQUESTS:
                if len(data) > 12_000 and size < 64:
                    continue
                with self.subTest(name, size=size):
                    *_, last = parse(*pieces(data, size))
                    self.assertIsInstance(last, HttpError, f"{name} {size}")
                    self.assertEqual(last.status, status, f"{name} {size} {last}")

    def test_behind_good_requests(self) -> None:
        for name, data, status in BAD_REQUESTS:
            for before in (GOOD * 2, chunked(b"3\r\nabc\r\n0\r\n\r\n")):
                with self.subTest(name):
                    # what comes with the first chunks after other chunks is not bounded yet
                    events = parse(before + data, data[-20_000:] if "extension" in name else b"")
                    self.assertEqual(simplify(events)[: len(parse(before))], simplify(parse(before)))
                    self.assertIsInstance(events[-1], HttpError, name)
                    self.assertEqual(events[-1].status, status, name)

    def test_nothing_follows(self) -> None:
        parser = RequestParser()
        self.assertEqual(simplify(parser.feed(b"GET / HTTP/1.1\r\n\r\n" + GOOD)), [("error", 400)])
        self.assertEqual(parser.feed(GOOD), [])
        self.assertTrue(parser.closed)

    def test_message_does_not_quote_the_request(self) -> None:
        for name, data, _ in BAD_REQUESTS:
            with self.subTest(name):
                self.assertNotIn("yyy", str(parse(data)[-1]))
                self.assertNotIn("xxx", str(parse(data)[-1]))


class HeadTests(SynchronousTestCase):
    def head(self, data: bytes, **options: Any) -> RequestHead:
        event = parse(data, **options)[0]
        assert isinstance(event, RequestHead), event
        return event

    def test_plain(self) -> None:
        head = self.head(b"GET /a?b HTTP/1.1\r\nHost: A:80\r\nx-Odd: 1\r\nX: \xe9 \r\n\r\n")
        self.assertEqual((head.method, head.target, head.host), (b"GET", b"/a?b", b"A:80"))
        self.assertEqual((head.http11, head.keep_alive, head.length), (True, True, 0))
        self.assertEqual(head.headers, [(b"Host", b"A:80"), (b"x-Odd", b"1"), (b"X", b"\xe9")])
        self.assertFalse(head.upgrade or head.awaits_continue)
        self.assertEqual((head.lookup("x-odd"), head.lookup("x"), head.lookup("y")), ("1", "\udce9", None))
        self.assertIn("/a?b", repr(head))

    def test_lookup_joins(self) -> None:
        self.assertEqual(self.head(get(b"X: 1", b"x: 2")).lookup("x"), "1,2")

    def test_any_method(self) -> None:
        """It may be any token; and none means more to the parser than another."""
        for method in (
            b"BREW",
            b"RDG_OUT_DATA",
            b"M-SEARCH",
            b"get",
            b"Foo1",
            b"!#$%&'*+.^_`|~-",
            b"0",
            b"M" * 64,
        ):
            for data, body in (
                (get(line=method + b" /a HTTP/1.1"), []),
                (get(b"Content-Length: 3", line=method + b" /a HTTP/1.1", body=b"abc"), [b"abc"]),
                (chunked(b"3\r\nabc\r\n0\r\n\r\n").replace(b"POST /", method + b" /a"), [b"abc"]),
            ):
                for size in (1, 2, 1000):
                    with self.subTest(method, size=size):
                        events = parse(*pieces(data + GOOD, size))
                        head = events[0]
                        self.assertIsInstance(head, RequestHead, head)
                        self.assertEqual(
                            (head.method, head.target, head.forwardable_verbatim), (method, b"/a", True)
                        )
                        self.assertEqual(data[: len(head.raw)], head.raw)
                        self.assertEqual(simplify(events[1:]), [*body, ("end", []), *simplify(parse(GOOD))])

    def test_methods_that_mean_something_to_llhttp(self) -> None:
        """Whatever protocol it knows them from, here they are methods like others."""
        for method in (
            b"SOURCE",
            b"DESCRIBE",
            b"ANNOUNCE",
            b"QUERY",
            b"SETUP",
            b"TEARDOWN",
            b"connect",
            b"pri",
        ):
            (head, end) = parse(get(line=method + b" / HTTP/1.1"))
            self.assertEqual((head.method, end), (method, END))

    def test_method_is_shown_when_it_is_complete(self) -> None:
        parser = RequestParser()
        self.assertEqual(parser.feed(b"BRE"), [])
        self.assertTrue(parser.in_head)
        (error,) = parser.feed(b"W\r")
        self.assertEqual(error.status, 400)

    def test_keep_alive(self) -> None:
        for line, fields, expected in (
            (b"GET / HTTP/1.1", [], True),
            (b"GET / HTTP/1.1", [b"Connection: close"], False),
            (b"GET / HTTP/1.1", [b"Connection: foo, CLOSE"], False),
            (b"GET / HTTP/1.1", [b"Connection: keep-alive", b"Connection: close"], False),
            (b"GET / HTTP/1.0", [], False),
            (b"GET / HTTP/1.0", [b"Connection: Keep-Alive"], True),
            (b"GET / HTTP/1.0", [b"Connection: keep-alive, close"], False),
        ):
            with self.subTest(line=line, fields=fields):
                self.assertEqual(self.head(get(*fields, line=line)).keep_alive, expected)

    def test_nothing_behind_the_last_request(self) -> None:
        for data in (get(b"Connection: close"), get(line=b"GET / HTTP/1.0")):
            self.assertEqual(len(parse(data + GOOD, GOOD)), 2)
        body = get(b"Connection: close", b"Content-Length: 3")
        self.assertEqual(parse(body, b"abcGET", GOOD)[1:], [b"abc", END])

    def test_targets(self) -> None:
        for line, target, host in (
            (b"OPTIONS * HTTP/1.1", b"*", b"a"),
            (b"OPTIONS http://b HTTP/1.1", b"*", b"b"),
            (b"GET http://b HTTP/1.1", b"/", b"b"),
            (b"GET HTTP://b:81/c?d HTTP/1.1", b"/c?d", b"b:81"),
            (b"GET https://b?d HTTP/1.1", b"/?d", b"b"),
            (b"GET //b/c HTTP/1.1", b"//b/c", b"a"),
        ):
            with self.subTest(line):
                head = self.head(get(line=line))
                self.assertEqual((head.target, head.host), (target, host))
                forwarded = request_head_bytes(head, None, b"")
                self.assertIn(b" " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n", forwarded)

    def test_hosts(self) -> None:
        for host in (b"", b"a", b"a.b-c_d:80", b"[::1]:80", b"[::1]", b"127.0.0.1", b"%41"):
            self.assertEqual(self.head(get(host=b"Host: %b\r\n" % host)).host, host)

    def test_empty_lines_first(self) -> None:
        self.assertEqual(simplify(parse(b"\r\n\r\n" + GOOD)), simplify(parse(GOOD)))
        self.assertEqual(simplify(parse(b"\r", b"\n" + GOOD)), simplify(parse(GOOD)))

    def test_expect(self) -> None:
        self.assertTrue(self.head(get(b"Expect: 100-Continue")).awaits_continue)
        self.assertFalse(self.head(get(b"Expect: 100-continue", line=b"GET / HTTP/1.0")).awaits_continue)

    def test_in_head(self) -> None:
        parser = RequestParser()
        self.assertFalse(parser.in_head)
        parser.feed(GOOD + b"\r\n")
        self.assertFalse(parser.in_head)
        parser.feed(b"G")
        self.assertTrue(parser.in_head)
        parser.feed(GOOD[1:])
        self.assertFalse(parser.in_head)

    def test_limit_is_exact(self) -> None:
        data = get(b"X: y")
        self.assertIsInstance(parse(data, max_head=len(data))[0], RequestHead)
        self.assertIsInstance(parse(data, max_head=len(data) - 1)[0], HttpError)
        long = get(b"X: " + b"y" * 9000)
        self.assertIsInstance(parse(long, max_head=10_000)[0], RequestHead)

    def test_limit_holds_while_a_head_trickles(self) -> None:
        for start in (b"", GOOD, chunked(b"0\r\n\r\n")):
            with self.subTest(start):
                parser = RequestParser(1000)
                parser.feed(start + b"GET / HTTP/1.1\r\nX: ")
                fed = 0
                while not parser.feed(b"y"):
                    fed += 1
                self.assertTrue(parser.closed)
                self.assertLess(fed, 1100)

    def test_body_does_not_count(self) -> None:
        data = get(b"Content-Length: 20000", body=b"x" * 20_000)
        self.assertEqual(len(parse(data)[1]), 20_000)


class BodyTests(SynchronousTestCase):
    def test_length(self) -> None:
        data = get(b"Content-Length: 10")
        self.assertEqual(parse(data + b"abc", b"defghij" + GOOD)[1:4], [b"abc", b"defghij", END])
        self.assertEqual(parse(data, b"abcdefghi", b"j", GOOD)[1:4], [b"abcdefghi", b"j", END])
        self.assertEqual(parse(get(b"Content-Length: 0"))[1:], [END])

    def test_chunks(self) -> None:
        data = chunked(b"3\r\nabc\r\nA;x=y\r\n0123456789\r\n0\r\nT: 1\r\nHost: evil\r\nU:2\r\n\r\n")
        head, *rest = parse(data)
        self.assertEqual(head.length, CHUNKED)
        self.assertEqual(simplify(rest), [b"abc0123456789", ("end", [(b"T", b"1"), (b"U", b"2")])])

    def test_trailers_end_with_their_message(self) -> None:
        data = chunked(b"0\r\nT: 1\r\n\r\n") + chunked(b"0\r\n\r\n")
        ends = [event.trailers for event in parse(data) if isinstance(event, End)]
        self.assertEqual(ends, [[(b"T", b"1")], []])

    def test_chunk_extensions_are_bounded(self) -> None:
        parser = RequestParser()
        parser.feed(chunked(b"3;"))
        fed = 0
        while not parser.closed:
            parser.feed(b"x" * 100)
            fed += 100
        self.assertLess(fed, CHUNK_EXCESS + 1000)

    def test_trailers_that_trickle_are_bounded(self) -> None:
        parser = RequestParser()
        parser.feed(chunked(b"0\r\nX: "))
        fed = 0
        while not parser.closed:
            parser.feed(b"x")
            fed += 1
        self.assertLess(fed, CHUNK_EXCESS + 1000)

    def test_small_chunks_are_fine(self) -> None:
        parser = RequestParser()
        parser.feed(chunked(b""))
        for _ in range(10_000):
            self.assertEqual(parser.feed(b"1\r\nx\r\n"), [b"x"])
        big = b"10000\r\n" + b"x" * 65536 + b"\r\n"
        for _ in range(20):
            self.assertEqual(sum(len(e) for p in pieces(big, 1000) for e in parser.feed(p)), 65536)

    def test_an_empty_line_in_a_chunk_at_the_end_of_a_read(self) -> None:
        first, second = b"10\r\nFIRST\r\n\r\n", b"SECOND!\r\n0\r\n\r\n"
        expected = [b"FIRST\r\n\r\n", b"SECOND!", END]
        self.assertEqual(parse(chunked(b""), first, second)[1:], expected)
        self.assertEqual(parse_response(respond(b"Transfer-Encoding: chunked"), first, second)[1:], expected)

    def test_what_a_read_brings_is_one_event(self) -> None:
        parser = RequestParser()
        parser.feed(chunked(b""))
        self.assertEqual(parser.feed(chunk(b"a") * 5 + chunk(b"\r\n\r\n")), [b"aaaaa\r\n\r\n"])
        self.assertEqual(parser.feed(chunk(b"b") + b"2;x"), [b"b"])
        self.assertEqual(parser.feed(b"\r"), [])
        self.assertEqual(parser.feed(b"\n\r\n\r\n0\r\n\r\n" + GOOD)[:2], [b"\r\n", END])

    def test_what_comes_before_an_error(self) -> None:
        *_, data, error = parse(chunked(chunk(b"a") + chunk(b"b") + b"x\r\n"))
        self.assertEqual((data, type(error)), (b"ab", HttpError))

    def test_sizes_with_many_digits(self) -> None:
        self.assertEqual(parse(chunked(b"0" * 15 + b"1\r\na\r\n0000\r\n\r\n"))[1:], [b"a", END])
        for size in (1, 7, 1000):
            *_, error = parse(chunked(b""), *pieces(b"0" * 40 + b"1\r\na\r\n0\r\n\r\n", size))
            self.assertIsInstance(error, HttpError)


class UpgradeTests(SynchronousTestCase):
    UPGRADE = get(b"Connection: Upgrade", b"Upgrade: websocket")

    def test_held(self) -> None:
        parser = RequestParser()
        head, end = parser.feed(self.UPGRADE + b"raw")
        self.assertEqual(head.upgrade, b"websocket")
        self.assertIs(end, END)
        self.assertEqual(parser.feed(b"er"), [])
        self.assertEqual((parser.held, parser.held_size), (True, 5))
        self.assertEqual(parser.take_held(), b"rawer")
        self.assertIn(b"Upgrade: websocket\r\nConnection: Upgrade\r\n", request_head_bytes(head, None, b""))

    def test_declined(self) -> None:
        parser = RequestParser()
        parser.feed(self.UPGRADE + GOOD)
        parser.feed(GOOD + b"GET")
        self.assertEqual(simplify(parser.resume()), simplify(parse(GOOD * 2)))
        self.assertEqual(simplify(parser.feed(GOOD[3:])), simplify(parse(GOOD)))
        parser.feed(self.UPGRADE)
        self.assertEqual(parser.resume(), [])
        self.assertEqual(simplify(parser.feed(GOOD)), simplify(parse(GOOD)))

    BODIES = (
        (get(b"Connection: Upgrade", b"Upgrade: tcp", b"Content-Length: 3", body=b"abc"), b"abc"),
        (
            get(
                *(b"Connection: Upgrade", b"Upgrade: tcp", b"Transfer-Encoding: chunked"),
                body=b"1\r\na\r\n2\r\nbc\r\n0\r\n\r\n",
            ),
            b"abc",
        ),
    )

    def test_held_behind_a_body(self) -> None:
        """What follows the body is of the other protocol, not what follows the head."""
        for request, body in self.BODIES:
            for size in (1, 3, 1000):
                parser = RequestParser()
                events = [event for data in pieces(request + GOOD, size) for event in parser.feed(data)]
                self.assertEqual(events[0].upgrade, b"tcp")  # type: ignore[union-attr]
                self.assertEqual(simplify(events[1:]), [body, ("end", [])])
                self.assertEqual((parser.held, parser.held_size), (True, len(GOOD)))
                self.assertEqual(parser.take_held(), GOOD)

    def test_declined_behind_a_body(self) -> None:
        for request, _ in self.BODIES:
            parser = RequestParser()
            parser.feed(request + GOOD)
            self.assertEqual(simplify(parser.resume()), simplify(parse(GOOD)))
            self.assertEqual(simplify(parser.feed(GOOD)), simplify(parse(GOOD)))

    def test_declined_within_a_body(self) -> None:
        for request, _ in self.BODIES:
            parser = RequestParser()
            parser.feed(request[:-1])
            self.assertEqual(parser.resume(), [])
            events = parser.feed(request[-1:] + GOOD)
            self.assertEqual(simplify(events[-2:]), simplify(parse(GOOD)))
            self.assertFalse(parser.held)

    def test_with_close(self) -> None:
        """What closes is the connection of HTTP, if it goes on."""
        request = get(b"Connection: close, Upgrade", b"Upgrade: tcp")
        parser = RequestParser()
        parser.feed(request + b"raw")
        self.assertEqual((parser.held, parser.closed, parser.take_held()), (True, False, b"raw"))
        parser = RequestParser()
        parser.feed(request + GOOD)
        self.assertEqual((parser.resume(), parser.closed), ([], True))
        self.assertEqual(parser.feed(GOOD), [])

    def test_several(self) -> None:
        for fields, offer in (
            ((b"Upgrade: SPDY/3.1, websocket",), b"SPDY/3.1, websocket"),
            ((b"Upgrade: SPDY/3.1", b"upgrade:WebSocket"), b"SPDY/3.1, WebSocket"),
            ((b"Upgrade: websocket, H2C", b"HTTP2-Settings: x"), b"websocket"),
            ((b"Upgrade: h2c, TLS/1.0,", b"Upgrade: tcp"), b"tcp"),
        ):
            request = get(b"Connection: keep-alive, Upgrade, HTTP2-Settings", *fields)
            head, _ = parse(request)
            self.assertEqual(head.upgrade, offer)
            forwarded = request_head_bytes(head, None, b"").lower()
            self.assertEqual(forwarded.count(b"upgrade:"), 1)
            self.assertIn(b"\r\nupgrade: " + offer.lower() + b"\r\nconnection: upgrade\r\n", forwarded)
            self.assertNotIn(b"http2-settings", forwarded)

    def test_ignored(self) -> None:
        fields = (b"Connection: Upgrade, HTTP2-Settings", b"HTTP2-Settings: x")
        chunks = b"3\r\nabc\r\n0\r\n\r\n"
        for request, body in (
            (get(*fields, b"Upgrade: h2c"), []),
            (get(*fields, b"Upgrade: h2c, HTTP/2.0", b"Upgrade: H2C"), []),
            (get(*fields, b"Upgrade: h2c", b"Content-Length: 3", body=b"abc"), [b"abc"]),
            (get(*fields, b"Upgrade: h2c", b"Transfer-Encoding: chunked", body=chunks), [b"abc"]),
            (get(*fields, b"Upgrade: TLS/1.0"), []),
            (get(*fields, b"Upgrade: not a protocol"), []),
            (get(*fields, b"Upgrade:"), []),
            (get(b"Connection: Upgrade"), []),
            (get(b"Upgrade: a"), []),
            (get(b"Connection: keep-alive, Upgrade", b"Upgrade: a", line=b"GET / HTTP/1.0"), []),
        ):
            for size in (1, 5, 1000):
                with self.subTest(request, size=size):
                    events = parse(*pieces(request + GOOD, size))
                    self.assertFalse(events[0].upgrade)
                    forwarded = request_head_bytes(events[0], None, b"").lower()
                    self.assertNotIn(b"upgrade:", forwarded)
                    self.assertNotIn(b"http2-settings", forwarded)
                    simple = simplify(events[1:])
                    self.assertEqual(simple, [*body, ("end", []), *simplify(parse(GOOD))])

    def test_ignored_with_close(self) -> None:
        request = get(b"Connection: Upgrade, close", b"Upgrade: h2c")
        self.assertEqual(len(parse(request + GOOD, GOOD)), 2)


class ForwardRequestTests(SynchronousTestCase):
    def forward(self, data: bytes, by: ForwardedBy | None = None) -> bytes:
        head = parse(data)[0]
        assert isinstance(head, RequestHead), head
        return request_head_bytes(head, by, b"me:80")

    def test_unchanged(self) -> None:
        for data in (
            GOOD,
            get(b"connection: Keep-Alive", b"X:y", b"Content-Length: 0"),
            get(b"transfer-encoding: chunked", b"Trailer: x"),
            get(b"Expect: 100-continue", b"Authorization: a", b"Proxy-Authorization: b"),
        ):
            self.assertEqual(self.forward(data), data)
            self.assertEqual(self.forward(GOOD + data), GOOD)
            self.assertEqual(request_head_bytes(parse(GOOD + data)[2], None, b""), data)

    def test_framing_is_written_plainly(self) -> None:
        """What others may read in another way does not go on as it came."""
        for fields, plain in (*ODD_FRAMING, ([b"X: Content-Length: 3", b"Content-Length: 03"], PLAIN_LENGTH)):
            with self.subTest(fields):
                self.assertFalse(parse(get(*fields))[0].forwardable_verbatim)
                forwarded = self.forward(get(*fields))
                self.assertIn(b"\r\n" + plain + b"\r\n", forwarded)
                self.assertEqual(forwarded.lower().count(b"\r\n" + plain[:8].lower()), 1)
                self.assertTrue(parse(forwarded)[0].forwardable_verbatim)
        self.assertEqual(parse(get(b"Content-Length: %d" % MAX_LENGTH))[0].length, MAX_LENGTH)

    def test_hop_by_hop(self) -> None:
        forwarded = self.forward(
            get(
                b"A: 1",
                b"Connection: close, x-hop, Host, content-length, authorization",
                b"Keep-Alive: 1",
                b"X-Hop: 1",
                b"Proxy-Connection: x",
                b"Authorization: me",
                b"TE: gzip",
                b"Upgrade: x",
                b"Content-Length: 3",
                b"x-Case: 1",
            )
        )
        self.assertEqual(
            forwarded,
            b"GET / HTTP/1.1\r\nHost: a\r\nA: 1\r\nAuthorization: me\r\n"
            b"Content-Length: 3\r\nx-Case: 1\r\n\r\n",
        )

    def test_framing_survives(self) -> None:
        forwarded = self.forward(get(b"Connection: transfer-encoding, close", b"Transfer-Encoding: chunked"))
        self.assertEqual(forwarded, b"GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")

    def test_te_trailers(self) -> None:
        forwarded = self.forward(get(b"Connection: te", b"TE: trailers, gzip"))
        self.assertEqual(forwarded, b"GET / HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nConnection: TE\r\n\r\n")

    def test_http10(self) -> None:
        request = get(b"Connection: keep-alive", b"Expect: 100-continue", line=b"GET / HTTP/1.0", host=b"")
        self.assertEqual(self.forward(request), b"GET / HTTP/1.1\r\nHost: me:80\r\n\r\n")
        self.assertEqual(
            self.forward(get(b"X: y", line=b"GET / HTTP/1.0")), b"GET / HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
        )

    def test_via(self) -> None:
        by = ForwardedBy("edge", "off", "9.9.9.9", "http")
        self.assertTrue(by)
        self.assertEqual(self.forward(GOOD, by), GOOD[:-2] + b"Via: 1.1 edge\r\n\r\n")
        self.assertIn(b"Via: 1.0 x, 1.1 edge\r\n", self.forward(get(b"via: 1.0 x"), by))
        self.assertIn(b"Via: 1.0 edge\r\n", self.forward(get(line=b"GET / HTTP/1.0"), by))

    def test_x_forwarded(self) -> None:
        self.assertFalse(ForwardedBy("", "off", "9.9.9.9", "http"))
        came = (b"x-forwarded-for: 1.1.1.1", b"X-Forwarded-For: 2.2.2.2", b"X-Forwarded-Proto: https")
        for mode, addresses, scheme in (
            ("append", b"1.1.1.1, 2.2.2.2, 9.9.9.9", b"https"),
            ("replace", b"9.9.9.9", b"http"),
        ):
            forwarded = self.forward(get(*came), ForwardedBy("", mode, "9.9.9.9", "http"))
            self.assertEqual(forwarded.lower().count(b"x-forwarded-for"), 1)
            self.assertIn(b"X-Forwarded-For: " + addresses + b"\r\n", forwarded)
            self.assertIn(b"X-Forwarded-Proto: " + scheme + b"\r\n", forwarded)
            self.assertIn(b"X-Forwarded-Host: a\r\n", forwarded)
        # nobody can make us drop what we say
        forwarded = self.forward(
            get(b"Connection: x-forwarded-for"), ForwardedBy("", "append", "9.9.9.9", "http")
        )
        self.assertIn(b"X-Forwarded-For: 9.9.9.9\r\n", forwarded)


class ResponseTests(SynchronousTestCase):
    def test_bad(self) -> None:
        for name, data in BAD_RESPONSES:
            if name == "switched without being asked":
                continue  # which the parser does not know
            for size in (1, 10, 10**6):
                if len(data) > 1000 and size == 1:
                    continue
                with self.subTest(name, size=size):
                    *before, last = parse_response(*pieces(data, size))
                    self.assertIsInstance(last, HttpError, f"{name} {size}")
                    self.assertEqual(last.status, 502, name)
                    self.assertNotIn(END, before)

    def test_framing(self) -> None:
        for data, length, body in (
            (respond(b"Content-Length: 3", body=b"abc"), 3, b"abc"),
            (respond(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"), CHUNKED, b"abc"),
            (respond(b"Content-Length: 0"), 0, b""),
            (respond(line=b"HTTP/1.1 204 No Content"), 0, b""),
            (respond(b"Content-Length: 5", line=b"HTTP/1.1 304 Not Modified"), 0, b""),
        ):
            with self.subTest(data):
                head, *rest, end = parse_response(data)
                self.assertEqual((head.length, b"".join(rest)), (length, body))
                self.assertIs(end, END)
                self.assertTrue(head.keep_alive)

    def test_until_close(self) -> None:
        parser = ResponseParser()
        parser.expect(False)
        head, body = parser.feed(respond(body=b"abc"))
        self.assertEqual((head.length, head.keep_alive, body), (UNTIL_CLOSE, False, b"abc"))
        self.assertEqual(parser.feed(b"def"), [b"def"])
        self.assertEqual(parser.eof(), [END])
        self.assertEqual(parser.eof(), [])

    def test_eof(self) -> None:
        for data in (
            b"",
            b"HTTP",
            respond(b"Content-Length: 3", body=b"ab"),
            respond(b"Transfer-Encoding: chunked"),
        ):
            parser = ResponseParser()
            parser.expect(False)
            if data:
                parser.feed(data)
            self.assertEqual(simplify(parser.eof()), [("error", 502)])
        self.assertEqual(ResponseParser().eof(), [])

    def test_interim(self) -> None:
        data = b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"
        data += respond(b"Content-Length: 3", body=b"abc")
        for size in (1, 10, 1000):
            events = parse_response(*pieces(data, size))
            self.assertEqual([e.status for e in events if isinstance(e, ResponseHead)], [100, 103, 200])
            self.assertEqual(simplify(events)[-2:], [b"abc", ("end", [])])

    def test_interim_is_bounded(self) -> None:
        interim = b"HTTP/1.1 103 Early Hints\r\n\r\n"
        for _ in range(2):
            parser = ResponseParser()
            for _ in range(2):
                parser.expect(False)
                events = parser.feed(interim * MAX_INTERIM + respond(b"Content-Length: 0"))
                self.assertEqual(len(events), MAX_INTERIM + 2)
        *_, last = parse_response(interim * (MAX_INTERIM + 1))
        self.assertEqual(last.status, 502)

    def test_switch(self) -> None:
        parser = ResponseParser()
        parser.expect(False)
        data = respond(
            b"Connection: upgrade", b"Upgrade: x", line=b"HTTP/1.1 101 Switching Protocols", body=b"raw"
        )
        (head,) = parser.feed(data)
        self.assertEqual((head.status, parser.take_rest(), parser.take_rest()), (101, b"raw", b""))
        self.assertEqual(
            response_head_bytes(head, b"", False),
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n",
        )

    def test_head_request(self) -> None:
        for fields in (
            (b"Content-Length: 3",),
            (b"Transfer-Encoding: chunked",),
            (b"Content-Length: 0",),
            (),
        ):
            parser = ResponseParser()
            for _ in range(3):
                parser.expect(True)
                head, end = parser.feed(respond(*fields))
                self.assertEqual((head.length, head.keep_alive), (0, True))
                self.assertIs(end, END)
                self.assertFalse(parser.surplus)
                parser.expect(False)
                self.assertEqual(parser.feed(respond(b"Content-Length: 1", body=b"x"))[1], b"x")
            parser.expect(True)
            self.assertEqual(len(parser.feed(respond(*fields, body=b"abc"))), 2)
            self.assertTrue(parser.surplus)

    def test_surplus(self) -> None:
        for first, second in (
            (respond(b"Content-Length: 3", body=b"abcX"), b""),
            (respond(b"Content-Length: 3", body=b"abc"), b"X"),
            (respond(b"Content-Length: 3", body=b"ab"), b"cX"),
            (respond(b"Content-Length: 3", body=b"abc") + respond(), b""),
            (respond(b"Content-Length: 3", b"Connection: close", body=b"abcX"), b""),
            (respond(b"Transfer-Encoding: chunked", body=b"0\r\n\r\nX"), b""),
            (respond(line=b"HTTP/1.1 204 No Content", body=b"X"), b""),
            (respond(line=b"HTTP/1.1 204 No Content", body=b"\x00"), b""),
        ):
            with self.subTest(first, second=second):
                parser = ResponseParser()
                parser.expect(False)
                events = parser.feed(first)
                if second:
                    events += parser.feed(second)
                self.assertIs(events[-1], END)
                self.assertEqual(len([e for e in events if isinstance(e, ResponseHead)]), 1)
                self.assertTrue(parser.surplus)

    def test_keep_alive(self) -> None:
        for line, fields, expected in (
            (b"HTTP/1.1 200 OK", [], True),
            (b"HTTP/1.1 200 OK", [b"Connection: close"], False),
            (b"HTTP/1.0 200 OK", [], False),
            (b"HTTP/1.0 200 OK", [b"Connection: keep-alive"], True),
        ):
            (head, _) = parse_response(respond(b"Content-Length: 0", *fields, line=line))
            self.assertEqual(head.keep_alive, expected)

    def test_forward_unchanged(self) -> None:
        for data in (
            respond(b"content-length: 0", b"x-Y:z"),
            respond(b"Connection: keep-alive", b"Content-Length: 0"),
            respond(b"Transfer-Encoding: chunked"),
            respond(line=b"HTTP/1.1 204 No Content"),
            respond(b"Content-Length: 3", line=b"HTTP/1.1 304 Odd Reason"),
            respond(b"Content-Length: 0", line=b"HTTP/1.1 299 \xe9"),
        ):
            head = parse_response(data)[0]
            self.assertEqual(response_head_bytes(head, b"", head.length < 0), data)
        self.assertIn("299", repr(head))
        self.assertEqual(head.lookup("content-length"), "0")

    def test_framing_is_written_plainly(self) -> None:
        for fields, plain in ODD_FRAMING:
            with self.subTest(fields):
                head = parse_response(respond(*fields))[0]
                forwarded = response_head_bytes(head, b"", head.length < 0)
                self.assertEqual(forwarded, respond(plain))

    def test_forward_changed(self) -> None:
        for data, connection, is_chunked, expected in (
            (
                respond(b"Connection: close, x", b"X: 1", b"Content-Length: 0"),
                b"",
                False,
                b"Content-Length: 0\r\n",
            ),
            (respond(b"A: 1"), b"", True, b"A: 1\r\nTransfer-Encoding: chunked\r\n"),
            (respond(b"A: 1"), b"close", False, b"A: 1\r\nConnection: close\r\n"),
            (respond(b"Transfer-Encoding: chunked"), b"close", False, b"Connection: close\r\n"),
            (respond(b"Upgrade: h2", b"Content-Length: 0"), b"", False, b"Content-Length: 0\r\n"),
        ):
            head = parse_response(data)[0]
            self.assertEqual(
                response_head_bytes(head, connection, is_chunked), b"HTTP/1.1 200 OK\r\n" + expected + b"\r\n"
            )
        head = parse_response(respond(b"Content-Length: 3", line=b"HTTP/1.1 204 No Content"))[0]
        self.assertEqual(response_head_bytes(head, b"", False), b"HTTP/1.1 204 No Content\r\n\r\n")


class HelperTests(SynchronousTestCase):
    def test_chunks(self) -> None:
        self.assertEqual(chunk(b"x" * 26), b"1a\r\n" + b"x" * 26 + b"\r\n")
        self.assertEqual(last_chunk([]), b"0\r\n\r\n")
        self.assertEqual(last_chunk([(b"A", b"b"), (b"C", b"")]), b"0\r\nA: b\r\nC: \r\n\r\n")

    def test_status_line(self) -> None:
        self.assertEqual(status_line(404), b"HTTP/1.1 404 Not Found\r\n")
        self.assertEqual(status_line(299), b"HTTP/1.1 299 \r\n")

    def test_trailers(self) -> None:
        for name in (b"Host", b"CONTENT-LENGTH", b"connection", b"Cookie"):
            self.assertTrue(forbidden_in_trailers(name))
        self.assertFalse(forbidden_in_trailers(b"grpc-status"))


NAMES = st.sampled_from([b"X", b"x-longer-name", b"Accept", b"Via", b"Cookie"])
VALUES = st.binary(max_size=30).map(
    lambda raw: bytes(b for b in raw if b == 9 or (b >= 32 and b != 127)).strip(b" \t")
)
FIELDS = st.lists(st.tuples(NAMES, VALUES), max_size=5)
BODIES = st.lists(st.binary(min_size=1, max_size=300), max_size=5)


@st.composite
def messages(draw: st.DrawFn, start: bytes) -> bytes:
    lines = [start, *(b"%b: %b" % field for field in draw(FIELDS))]
    body = draw(BODIES)
    if draw(st.booleans()):
        lines.append(b"Transfer-Encoding: chunked")
        trailers = b"".join(b"T%d: x\r\n" % i for i in range(draw(st.integers(0, 2))))
        data = b"".join(map(chunk, body)) + b"0\r\n" + trailers + b"\r\n"
    else:
        data = b"".join(body)
        lines.append(b"Content-Length: %d" % len(data))
    return b"\r\n".join(lines) + b"\r\n\r\n" + data


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    if draw(st.integers(0, 3)) == 0:
        return draw(st.sampled_from([GOOD, get(b"Connection: upgrade", b"Upgrade: h2c")]))
    method = draw(st.sampled_from([b"GET", b"POST", b"PUT"]))
    return draw(messages(method + b" /path?q HTTP/1.1\r\nHost: a"))


@st.composite
def cut(draw: st.DrawFn, streams: st.SearchStrategy[list[bytes]]) -> tuple[bytes, list[bytes]]:
    data = b"".join(draw(streams))
    places = sorted(draw(st.lists(st.integers(0, len(data)), max_size=30)))
    if draw(st.booleans()) and len(data) < 2000:
        places = list(range(len(data)))
    edges = [0, *places, len(data)]
    return data, [data[a:b] for a, b in pairwise(edges) if a < b]


CHUNKED_BODIES = st.lists(
    st.lists(st.sampled_from([b"a", b"\r", b"\n", b"0", b"\r\n\r\n"]), min_size=1, max_size=8).map(b"".join),
    max_size=5,
).map(lambda parts: [*map(chunk, parts), last_chunk([])])


def read_chunks(data: bytes) -> bytes:
    """Read a chunked body as RFC 9112 7.1.3 does."""
    body = b""
    while True:
        line, _, data = data.partition(b"\r\n")
        size = int(line, 16)
        if size == 0:
            assert data == b"\r\n", data
            return body
        body += data[:size]
        assert data[size : size + 2] == b"\r\n", data
        data = data[size + 2 :]


LINES = st.sampled_from(
    [
        *(b"GET / HTTP/1.1", b"GET /other?q=%20 HTTP/1.1", b"HEAD /a HTTP/1.1", b"DELETE /a HTTP/1.1"),
        *(b"POST /a HTTP/1.1", b"OPTIONS /a HTTP/1.1", b"OPTIONS * HTTP/1.1", b"CONNECT /a HTTP/1.1"),
        *(b"GET http://b/ HTTP/1.1", b"GET /a HTTP/1.0", b"GET /a HTTP/1.2", b"GET  /a HTTP/1.1"),
        *(
            b"GET /a#b HTTP/1.1",
            b"GET /\x80 HTTP/1.1",
            b"GET /\x7f HTTP/1.1",
            b"GET / HTTP/1.1 ",
            b"BREW / HTTP/1.1",
            b"M-SEARCH /a HTTP/1.1",
            b"PRI / HTTP/1.1",
            b"connect /a HTTP/1.1",
            b"!#$%&'*+.^_`|~ / HTTP/1.1",
            b"(x) / HTTP/1.1",
            b"M" * 64 + b" / HTTP/1.1",
            b"M" * 65 + b" / HTTP/1.1",
        ),
        *(
            b"get / HTTP/1.1",
            b"GET /a\tb HTTP/1.1",
            b"GET /" + b"x" * 250 + b" HTTP/1.1",
            b"\r\nGET / HTTP/1.1",
            b"",
        ),
    ]
)
BEHIND = st.sampled_from(
    [
        *([], [], [], [b"X: y"], [b"Connection: keep-alive"], [b"Connection: close"], [b"Content-Length: 3"]),
        *([b"Transfer-Encoding: chunked"], [b"Expect: 100-continue"], [b"Keep-Alive: 3"], [b"Host: b"]),
        *([b"Connection: Upgrade", b"Upgrade: x"], [b"x-mosn-try-timeout: 3"], [b"Content-Length: 0"]),
    ]
)


@st.composite
def similar_requests(draw: st.DrawFn) -> bytes:
    """One or more requests, hardly different from others, perhaps not all of the last, perhaps none."""
    data = b""
    for _ in range(draw(st.sampled_from([1, 1, 1, 2, 3]))):
        data += b"\r\n".join([draw(LINES), b"Host: a", *draw(BEHIND), b"", b""])
        data += draw(st.sampled_from([b"", b"", b"", b"abc", b"\r\n", b"0\r\n\r\n", GOOD]))
    return data[: len(data) - draw(st.sampled_from([0, 0, 0, 1, 2, 9, 17]))]


class RepeatTests(SynchronousTestCase):
    """What came before makes no difference to what comes, but to the time that it takes."""

    def test_known_fields(self) -> None:
        """Requests that differ in their first lines are not taken apart again."""
        parser = RequestParser()
        first = get(b"x-mosn-try-timeout: 3", b"Expect: 100-continue")
        (one, _) = parser.feed(first)
        llhttp, parser._llhttp = parser._llhttp, None
        second = first.replace(b"GET /", b"PUT /other?q", 1)
        (other, _) = parser.feed(second)
        self.assertIs(parser.feed_one(second), other)
        self.assertEqual((other.method, other.target, other.raw), (b"PUT", b"/other?q", second))
        for name in (
            "host",
            "length",
            "keep_alive",
            "options",
            "awaits_continue",
            "forwardable_verbatim",
            "mosn",
        ):
            self.assertEqual(getattr(other, name), getattr(one, name), name)
        parser._llhttp = llhttp
        self.assertFalse(parser.feed(GOOD)[0].mosn)

    BODIES = (
        get(b"Content-Length: 3", b"Expect: 100-continue", line=b"POST / HTTP/1.1", body=b"abc"),
        get(b"Content-Length: 0", line=b"POST / HTTP/1.1"),
        get(b"Transfer-Encoding: chunked", line=b"PUT / HTTP/1.1", body=b"1\r\na\r\n0\r\nT: 1\r\n\r\n"),
    )

    def test_known_heads_with_a_body(self) -> None:
        """A head with a body that comes again is not taken apart again; others between do not matter."""
        for request in self.BODIES:
            for between in (b"", GOOD, *self.BODIES):
                parser = RequestParser()
                expected = simplify(parser.feed(request))
                head = parser._known_with_body
                assert head is not None
                if between and between not in self.BODIES:
                    parser.feed(between)
                elif between != request:
                    parser.feed(between)
                    parser.feed(request)
                    head = parser._known_with_body
                llhttp, parser._llhttp = parser._llhttp, None
                events = parser.feed(request)
                self.assertIs(events[0], head)
                self.assertEqual(simplify(events), expected)
                # What is not all there yet is not known.
                parser._llhttp = llhttp
                events = [event for data in pieces(request + GOOD, 7) for event in parser.feed(data)]
                plain = [event for event in simplify(events) if not isinstance(event, bytes)]
                again = [event for event in expected if not isinstance(event, bytes)]
                self.assertEqual(plain, [*again, *simplify(parse(GOOD))])

    def test_bodies_that_look_like_heads(self) -> None:
        """What belongs to a body is no request, though it is the same as one that came before."""
        size = len(GOOD)
        counted = get(b"Content-Length: %d" % size, line=b"POST / HTTP/1.1")
        chunked = get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.1")
        for like in (GOOD, GOOD.replace(b"GET", b"PUT")):
            for head, body in (
                (counted, [like]),
                (counted, [like[:9], like[9:]]),
                (chunked, [b"%x\r\n" % size, like, b"\r\n0\r\n\r\n"]),
            ):
                whole = head + b"".join(body)
                for before in (
                    [whole, GOOD + head],
                    [whole, GOOD, head],
                    [GOOD, head],
                    [whole, GOOD, whole + head],
                ):
                    parser, forgetful = RequestParser(), RequestParser()
                    for data in [*before, *body, GOOD]:
                        events = simplify(parser.feed(data))
                        forgetful._known_fields, forgetful._known_with_body = b"", None
                        self.assertEqual(events, simplify(forgetful.feed(data)))

    def test_heads_that_are_not_kept(self) -> None:
        """What ends the connection, or may switch protocols, is taken apart each time."""
        for fields in (
            [b"Connection: close"],
            [b"Connection: Upgrade", b"Upgrade: tcp"],
            [b"X: " + b"x" * MAX_KNOWN],
        ):
            parser = RequestParser()
            parser.feed(get(b"Content-Length: 3", *fields, line=b"POST / HTTP/1.1"))
            self.assertIsNone(parser._known_with_body)
        for line in (b"POST http://other/ HTTP/1.1", b"POST / HTTP/1.0"):
            parser = RequestParser()
            parser.feed(get(b"Content-Length: 3", line=line))
            self.assertIsNone(parser._known_with_body)

    def test_large_heads_are_not_kept(self) -> None:
        """What a connection keeps while it is idle is bounded."""
        parser = RequestParser(3 * MAX_KNOWN)
        large = b"X: " + b"x" * MAX_KNOWN
        parser.feed(get(large))
        self.assertEqual(parser._known_fields, b"")
        parser.feed(GOOD)
        for data in (get(large), get(b"X: y")[:4] + b"/" + b"x" * MAX_KNOWN + get(b"X: y")[4:], get(large)):
            (head, _) = parser.feed(data)
            self.assertEqual(head.raw, data)
            known = parser._known
            assert known is not None
            self.assertLessEqual(len(known.raw), MAX_KNOWN)
            self.assertLessEqual(len(parser._known_fields), MAX_KNOWN)
        responses = ResponseParser()
        responses.expect(False)
        responses.feed(respond(b"Content-Length: 3", large, body=b"abc"))
        self.assertIsNone(responses._known)

    def test_limit(self) -> None:
        parser = RequestParser(100)
        parser.feed(GOOD)
        size = 100 - len(GOOD)
        (head, _) = parser.feed(GOOD.replace(b"GET /", b"GET /" + b"x" * size, 1))
        self.assertEqual(len(head.raw), 100)
        (error,) = parser.feed(GOOD.replace(b"GET /", b"GET /" + b"x" * (size + 1), 1))
        self.assertEqual(error.status, 431)

    @settings(deadline=None, max_examples=most(500))
    @given(st.lists(similar_requests(), min_size=1, max_size=6), st.booleans(), st.booleans())
    def test_requests(self, reads: list[bytes], warm: bool, twice: bool) -> None:
        """With a parser that knows nothing of the requests before, everything is the same."""
        parser, forgetful = RequestParser(400), RequestParser(400)
        if warm:
            for number in range(TEMPLATE_AFTER + 1):
                parser.feed(b"GET / HTTP/1.1\r\nHost: a\r\nX: %d\r\n\r\n" % number)
            self.assertIsNotNone(parser._template)
        for data in [data for data in reads for _ in range(1 + twice)]:
            events = simplify(parser.feed(data))
            forgetful._known_fields = b""
            forgetful._known_with_body = None
            self.assertEqual(simplify(forgetful.feed(data)), events)
            for name in ("closed", "held", "held_size", "in_head", "_left"):
                self.assertEqual(getattr(parser, name), getattr(forgetful, name), name)
            if data.endswith(b"\r\n") and parser.held:
                self.assertEqual(simplify(parser.resume()), simplify(forgetful.resume()))

    @settings(deadline=None, max_examples=most(500))
    @given(
        st.lists(
            st.tuples(
                st.booleans(),
                st.sampled_from(
                    [
                        *(b"HTTP/1.1 200 OK", b"HTTP/1.1 200 OK", b"HTTP/1.1 204 No Content"),
                        *(b"HTTP/1.1 103 Hints", b"HTTP/1.1 99", b"HTTP/1.1 200", b"HTTP/1.0 200 OK"),
                    ]
                ),
                st.sampled_from(
                    [
                        *([b"Content-Length: 3"], [b"Content-Length: 3"], [b"Content-Length: 4"], []),
                        *([b"Content-Length: 0"], [b"Transfer-Encoding: chunked"], [b"Connection: close"]),
                        *([b"Content-Length : 3"], [b"X: y\nContent-Length: 3"], [b"Content-Length: 3, 3"]),
                    ]
                ),
                st.sampled_from([b"abc", b"abc", b"abd", b"abcd", b"", b"0\r\n\r\n"]),
            ),
            min_size=1,
            max_size=6,
        ),
        st.booleans(),
    )
    def test_responses(self, responses: list[tuple[bool, bytes, list[bytes], bytes]], warm: bool) -> None:
        """In one piece or in two, with or without a memory."""
        parser, forgetful, cutting = ResponseParser(), ResponseParser(), ResponseParser()
        if warm:
            for number in range(TEMPLATE_AFTER):
                parser.expect(False)
                parser.feed(respond(b"Content-Length: %d" % (number + 9), body=bytes(number + 9)))
            self.assertIsNotNone(parser._template)
        for head_request, line, fields, body in responses:
            for each in (parser, forgetful, cutting):
                each.expect(head_request)
            data = respond(*fields, line=line, body=body)
            events = simplify(parser.feed(data))
            forgetful._known = None
            self.assertEqual(simplify(forgetful.feed(data)), events)
            self.assertEqual(simplify([*cutting.feed(data[:20]), *cutting.feed(data[20:])]), events)
            for name in ("closed", "surplus", "in_head", "_left", "_complete"):
                self.assertEqual(getattr(parser, name), getattr(forgetful, name), name)
                self.assertEqual(getattr(parser, name), getattr(cutting, name), name)
            if parser.surplus or not parser._complete:
                break  # nobody would ask for another one

    def test_known_response(self) -> None:
        """The same head with as much of a body is the same response, but not for HEAD."""
        data = respond(b"Content-Length: 3", body=b"abc")
        parser = ResponseParser()
        parser.expect(False)
        head = parser.feed_one(data)
        parser.expect(False)
        self.assertIs(parser.feed_one(data.replace(b"abc", b"xyz")), head)
        parser.expect(True)
        *_, end = parser.feed(data)
        self.assertIs(end, END)
        self.assertTrue(parser.surplus)


class TemplateTests(SynchronousTestCase):
    """Requests, and responses, that are like many before."""

    def request(self, number: int, *more: bytes) -> bytes:
        return get(b"X-Request-Id: %d" % number, b"Cookie: a=%d" % (number * number), *more)

    def test_requests(self) -> None:
        """They are not parsed, but compared."""
        parser = RequestParser()
        for number in range(TEMPLATE_AFTER + 1):
            parser.feed(self.request(number))
        parser._llhttp = None
        for number in (1000, 1001, 1000):
            data = self.request(number).replace(b"GET /", b"DELETE /%d?" % number, 1)
            (head, end) = parser.feed(data)
            self.assertIs(end, END)
            self.assertEqual((head.method, head.raw), (b"DELETE", data))
            self.assertIn(b"/%d?" % number, head.target)
            self.assertEqual(head.lookup("x-request-id"), str(number))

    def test_another_shape_is_found(self) -> None:
        parser = RequestParser()
        for number in range(TEMPLATE_AFTER + 1):
            parser.feed(self.request(number))
        first = parser._template
        self.assertIsNotNone(first)
        for number in range(2 * TEMPLATE_AFTER):
            parser.feed(self.request(number, b"Y: z"))
        assert parser._template is not None
        self.assertIsNot(parser._template, first)
        self.assertTrue(parser._template.fullmatch(self.request(1, b"Y: z")))
        self.assertFalse(parser._template.fullmatch(self.request(1)))

    def test_one_that_is_known_is_kept_for_others(self) -> None:
        """To make one takes long, but nobody can make us keep all that there are."""
        head = self.request(1)
        self.assertIs(request_template(head), request_template(self.request(2)))

    def test_responses(self) -> None:
        parser = ResponseParser()
        for number in range(TEMPLATE_AFTER):
            parser.expect(False)
            parser.feed(respond(b"Content-Length: 3", b"ETag: %d" % number, body=b"abc"))
        for body in (b"x", b"y" * 100_000):
            parser.expect(False)
            llhttp, parser._llhttp = parser._llhttp, None
            data = respond(b"Content-Length: %d" % len(body), b"ETag: new", body=body)
            head = parser.feed_one(data)
            assert isinstance(head, ResponseHead)
            self.assertEqual(
                (head.length, head.raw + body, head.forwardable_verbatim), (len(body), data, True)
            )
            parser._llhttp = llhttp
            parser.expect(False)
            self.assertEqual(parser.feed(data[:-1])[-1:], [body[:-1]] if body[:-1] else parser._events)
            self.assertIs(parser.feed(data[-1:])[-1], END)

    def test_all_that_matters(self) -> None:
        self.assertEqual(SIGNIFICANT_FIELDS, set(KINDS))

    def test_what_is_not_said_plainly(self) -> None:
        for fields in (
            [],
            [b"Content-Length:3"],
            [b"Content-Length: 03"],
            [b"Content-Length: 3", b"Content-Length: 3"],
        ):
            self.assertIsNone(response_template(respond(*fields)))

    def facts(self, head: Any) -> Any:
        return [
            getattr(head, name)
            for name in ("host", "length", "keep_alive", "options", "forwardable_verbatim", "mosn")
        ]

    @settings(deadline=None, max_examples=most(300))
    @given(st.data())
    def test_what_matches_a_request(self, data: st.DataObject) -> None:
        """It is in order, whatever it is, and says the same of what matters."""
        names = st.sampled_from(
            [b"Accept", b"a", b"X.*", b"$|^+", b"Connection", b"x-mosn-a", b"Expect", b"Cookie"]
        )
        lines = data.draw(st.lists(names, max_size=5))
        values = st.one_of(
            st.binary(max_size=6), st.sampled_from([b"keep-alive", b"100-continue", b" close"])
        )

        def make() -> bytes:
            fields = [b"%b:%b" % (name, data.draw(values)) for name in lines]
            return b"\r\n".join([data.draw(LINES), b"Host: a.b", *fields, b"", b""])

        first = make()
        found = parse(first)
        if (
            len(found) != 2
            or found[0].length
            or found[0].upgrade
            or not (found[0].keep_alive and found[0].http11)
        ):
            return
        if not found[0].raw.startswith(first[:1]) or found[0].asked_host != b"a.b":
            return
        template = request_template(found[0].raw)
        for _ in range(5):
            other = data.draw(
                st.sampled_from([first, make(), first.replace(b"a.b", b"axb"), first + b"\r\n", first[:-2]])
            )
            match = template.fullmatch(other)
            if match is not None:
                (head, end) = parse(other)
                self.assertIs(end, END)
                self.assertEqual((head.method, head.target), match.groups())
                self.assertEqual(self.facts(head), self.facts(found[0]))
                self.assertEqual(head.awaits_continue, found[0].awaits_continue)

    @settings(deadline=None, max_examples=most(300))
    @given(st.data())
    def test_what_matches_a_response(self, data: st.DataObject) -> None:
        names = st.sampled_from(
            [b"Server", b"X.*", b"Connection", b"Keep-Alive", b"Content-Length", b"Set-Cookie"]
        )
        lines = data.draw(st.permutations([b"Content-Length", *data.draw(st.lists(names, max_size=4))]))
        values = st.one_of(st.binary(max_size=6), st.sampled_from([b" 3", b" 3", b" 4", b" 03", b" close"]))

        def make() -> bytes:
            fields = [b"%b:%b" % (name, data.draw(values)) for name in lines]
            return b"\r\n".join([b"HTTP/1.1 200 OK", *fields, b"", b""])

        first = make()
        found = parse_response(first)
        if not found or not isinstance(found[0], ResponseHead) or found[0].raw != first:
            return
        template = response_template(first)
        for _ in range(5):
            other = make()
            match = None if template is None else template.match(other)
            if match is not None:
                (head, *_) = parse_response(other)
                self.assertEqual((head.length, head.raw), (int(match[1]), match[0]))
                for name in ("status", "http11", "keep_alive", "options", "forwardable_verbatim"):
                    self.assertEqual(getattr(head, name), getattr(found[0], name), name)


class ChunkingTests(SynchronousTestCase):
    """However the bytes are cut, the events are the same."""

    @settings(deadline=None, max_examples=most(200))
    @given(cut(st.lists(requests(), min_size=1, max_size=5)))
    def test_requests(self, case: tuple[bytes, list[bytes]]) -> None:
        data, parts = case
        whole = simplify(parse(data))
        self.assertEqual(simplify(parse(*parts)), whole)
        self.assertFalse(any(event[0] == "error" for event in whole if isinstance(event, tuple)))

    @settings(deadline=None, max_examples=most(200))
    @given(cut(st.lists(requests(), min_size=1, max_size=4)))
    def test_agrees_with_another_parser(self, case: tuple[bytes, list[bytes]]) -> None:
        """What we forward is for h11 what came."""
        data, parts = case
        forwarded = b""
        is_chunked = False
        for event in parse(*parts):
            if isinstance(event, RequestHead):
                is_chunked = event.length == CHUNKED
                forwarded += request_head_bytes(event, None, b"")
            elif isinstance(event, bytes):
                forwarded += chunk(event) if is_chunked else event
            elif isinstance(event, End):
                forwarded += last_chunk(event.trailers) if is_chunked else b""
        self.assertEqual(read_with_h11(forwarded), read_with_h11(data))

    @settings(deadline=None, max_examples=most(500))
    @given(cut(CHUNKED_BODIES))
    def test_chunks(self, case: tuple[bytes, list[bytes]]) -> None:
        """No data is no event, whatever the data looks like."""
        data, parts = case
        body = read_chunks(data)
        for _, *events in (
            parse(chunked(b""), *parts, GOOD),
            parse_response(respond(b"Transfer-Encoding: chunked"), *parts),
        ):
            end = events.index(END)
            self.assertNotIn(b"", events)
            self.assertEqual(b"".join(events[:end]), body)
            self.assertEqual(read_chunks(b"".join(map(chunk, events[:end])) + last_chunk([])), body)
            self.assertIn(simplify(events[end + 1 :]), ([], simplify(parse(GOOD))))

    @settings(deadline=None, max_examples=most(200))
    @given(cut(messages(b"HTTP/1.1 200 OK").map(lambda data: [b"HTTP/1.1 103 Early Hints\r\n\r\n", data])))
    def test_responses(self, case: tuple[bytes, list[bytes]]) -> None:
        data, parts = case
        self.assertEqual(simplify(parse_response(*parts)), simplify(parse_response(data)))

    @settings(deadline=None, max_examples=most(300))
    @given(
        st.binary(max_size=200), st.sampled_from([b"", GOOD, chunked(b""), b"GET / HTTP/1.1\r\nHost: a\r\n"])
    )
    def test_anything(self, data: bytes, start: bytes) -> None:
        """No bytes make a parser raise; at most one error comes, and it is last."""
        events = parse(start, data, data)
        for event in events[:-1]:
            self.assertNotIsInstance(event, HttpError)
        for head_request in (False, True):
            parser = ResponseParser()
            parser.expect(head_request)
            for event in [*parser.feed(data), *parser.feed(b"x"), *parser.eof()][:-1]:
                self.assertNotIsInstance(event, HttpError)


def read_with_h11(data: bytes) -> list[Any]:
    """Read requests with an independent parser; hop-by-hop fields aside."""
    server = h11.Connection(h11.SERVER)
    server.receive_data(data)
    seen: list[Any] = []
    while (event := server.next_event()) is not h11.NEED_DATA:
        if isinstance(event, h11.Request):
            fields = sorted(
                field
                for field in event.headers
                if field[0] not in (b"connection", b"upgrade", b"http2-settings")
            )
            seen += [(event.method, event.target, fields), b""]
        elif isinstance(event, h11.Data):
            seen[-1] += event.data
        elif isinstance(event, h11.EndOfMessage):
            seen.append(list(event.headers))
            server.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
            server.send(h11.EndOfMessage())
            if server.our_state is h11.MUST_CLOSE:
                break
            server.start_next_cycle()
        elif isinstance(event, h11.PAUSED | h11.ConnectionClosed):
            break
    return seen
