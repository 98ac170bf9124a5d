"""Heads of HTTP/2 to and from those of HTTP/1."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http1.fields import CHUNKED
from reverseproxy.wire.http1.heads import RequestHead, ResponseHead, request_head_bytes, response_head_bytes
from reverseproxy.wire.http1.requests import RequestParser
from reverseproxy.wire.http1.responses import ResponseParser
from reverseproxy.wire.http2.fields import MAX_FIELDS, Malformed, list_size, parse_trailers, trailer_fields
from reverseproxy.wire.http2.hpack import NeverIndexed
from reverseproxy.wire.http2.requests import parse_request, request_fields
from reverseproxy.wire.http2.responses import parse_response, response_fields
from tests.wire.http2_frames import GET, OK, POST, Fields

HTTP1_GET = b"GET / HTTP/1.1\r\nhost: example.com\r\n"


def http1_request(text: bytes) -> RequestHead:
    head = RequestParser().feed(text)[0]
    assert isinstance(head, RequestHead), head
    return head


def http1_response(text: bytes) -> ResponseHead:
    parser = ResponseParser()
    parser.expect(False)
    head = parser.feed(text)[0]
    assert isinstance(head, ResponseHead), head
    return head


class ParseRequestTests(SynchronousTestCase):
    def http1(self, fields: Fields, ended: bool = True) -> list[bytes]:
        """The lines that a request has when it goes on in HTTP/1."""
        return request_head_bytes(parse_request(fields, ended), None, b"default").split(b"\r\n")[:-2]

    def test_get(self) -> None:
        self.assertEqual(
            self.http1([*GET, (b"user-agent", b"x"), (b"accept", b"*/*")]),
            [b"GET / HTTP/1.1", b"Host: example.com", b"user-agent: x", b"accept: */*"],
        )

    def test_authority_is_the_host(self) -> None:
        for fields in ([*GET, (b"host", b"example.com")], [*GET[:2], GET[3], (b"host", b"example.com")]):
            head = parse_request(fields, True)
            self.assertEqual(head.host, b"example.com")
            self.assertEqual(head.headers, [])

    def test_no_authority_at_all(self) -> None:
        head = parse_request([*GET[:2], GET[3]], True)
        self.assertEqual(head.host, b"")
        self.assertIn(b"Host: \r\n", request_head_bytes(head, None, b"10.0.0.1:80"))

    def test_any_method(self) -> None:
        for method in (b"LIST", b"RDG_OUT_DATA", b"M-SEARCH", b"get", b"!#$%&'*+.^_`|~-0", b"M" * 64):
            lines = self.http1([(b":method", method), *GET[1:]])
            self.assertEqual(lines[0], method + b" / HTTP/1.1")
            head = http1_request(lines[0] + b"\r\nhost: example.com\r\n\r\n")
            self.assertEqual(request_fields(head, head.headers, b"http", b"")[0], (b":method", method))

    def test_methods_that_are_none(self) -> None:
        for method, status in ((b"PRI", 405), (b"M" * 65, 501)):
            with self.assertRaises(HttpError) as caught:
                parse_request([(b":method", method), *GET[1:]], True)
            self.assertEqual(caught.exception.status, status)
        for method in (b"", b"A B", b"A\r\n", b"(", "Ä".encode()):
            with self.assertRaises(Malformed):
                parse_request([(b":method", method), *GET[1:]], True)

    def test_authority_that_is_none(self) -> None:
        for authority in (b"a b", b"user@host", b"a:b", b"a/b", b"[::1", b"\xe9"):
            with self.assertRaises(HttpError) as caught:
                parse_request([*GET[:2], (b":authority", authority), GET[3]], True)
            self.assertEqual(caught.exception.status, 400)

    def test_scheme(self) -> None:
        for scheme in (b"http", b"https", b"HTTPS"):
            parse_request([GET[0], (b":scheme", scheme), *GET[2:]], True)
        with self.assertRaises(HttpError) as caught:
            parse_request([GET[0], (b":scheme", b"ftp"), *GET[2:]], True)
        self.assertEqual(caught.exception.status, 400)

    def test_length(self) -> None:
        self.assertEqual(parse_request(GET, True).length, 0)
        self.assertEqual(parse_request(GET, False).length, CHUNKED)
        self.assertEqual(parse_request([*POST, (b"content-length", b"7")], False).length, 7)

    def test_body_of_unknown_length_goes_out_in_chunks(self) -> None:
        self.assertIn(b"Transfer-Encoding: chunked", self.http1(POST, False))

    def test_post_without_a_body_says_so(self) -> None:
        self.assertIn(b"content-length: 0", self.http1(POST))
        self.assertNotIn(b"content-length: 0", self.http1(GET))

    def test_cookies_are_joined(self) -> None:
        head = parse_request(
            [*GET, (b"cookie", b"a=1"), (b"x", b"y"), (b"cookie", b"b=2"), (b"cookie", b"c=3")], True
        )
        self.assertEqual(head.headers, [(b"x", b"y"), (b"cookie", b"a=1; b=2; c=3")])

    def test_expect(self) -> None:
        self.assertTrue(parse_request([*POST, (b"expect", b"100-Continue")], False).awaits_continue)
        self.assertFalse(parse_request([*POST, (b"expect", b"tea")], False).awaits_continue)

    def test_te_trailers_goes_on(self) -> None:
        lines = self.http1([*GET, (b"te", b"trailers")])
        self.assertEqual(lines[2:], [b"TE: trailers", b"Connection: TE"])

    def test_too_many_fields(self) -> None:
        many = [(b"x%d" % i, b"y") for i in range(MAX_FIELDS)]
        parse_request([*GET, *many], True)
        with self.assertRaises(HttpError) as caught:
            parse_request([*GET, *many, (b"one-more", b"")], True)
        self.assertEqual(caught.exception.status, 431)

    def test_cookie_in_many_pieces(self) -> None:
        head = parse_request([*GET, *[(b"cookie", b"a=1")] * 300], True)
        self.assertEqual(len(head.headers), 1)

    def test_extended_connect_is_an_upgrade(self) -> None:
        fields = [
            (b":method", b"CONNECT"),
            *GET[1:],
            (b":protocol", b"websocket"),
            (b"sec-websocket-version", b"13"),
        ]
        head = parse_request(fields, False)
        self.assertTrue(head.upgrade)
        self.assertEqual(
            request_head_bytes(head, None, b"").split(b"\r\n")[:-2],
            [
                b"GET / HTTP/1.1",
                b"Host: example.com",
                b"sec-websocket-version: 13",
                b"upgrade: websocket",
                b"Connection: Upgrade",
            ],
        )

    def test_what_is_malformed_quotes_little_of_it(self) -> None:
        with self.assertRaises(Malformed) as caught:
            parse_request([*GET, (b"X" * 1000, b"")], True)
        self.assertLess(len(str(caught.exception)), 100)


class ParseResponseTests(SynchronousTestCase):
    def http1(self, fields: Fields, ended: bool = False, head_request: bool = False) -> list[bytes]:
        """The lines that a response has when it goes on in HTTP/1."""
        head = parse_response(fields, ended, head_request)
        return response_head_bytes(head, b"", head.length == CHUNKED).split(b"\r\n")[:-2]

    def test_lengths(self) -> None:
        self.assertEqual(self.http1(OK), [b"HTTP/1.1 200 OK", b"Transfer-Encoding: chunked"])
        self.assertEqual(
            self.http1([*OK, (b"content-length", b"3")]), [b"HTTP/1.1 200 OK", b"content-length: 3"]
        )
        self.assertEqual(self.http1(OK, ended=True), [b"HTTP/1.1 200 OK", b"content-length: 0"])
        self.assertEqual(self.http1(OK, head_request=True), [b"HTTP/1.1 200 OK"])
        self.assertEqual(self.http1([(b":status", b"204")]), [b"HTTP/1.1 204 No Content"])
        self.assertEqual(self.http1([(b":status", b"304")], ended=True), [b"HTTP/1.1 304 Not Modified"])

    def test_unknown_status(self) -> None:
        self.assertEqual(self.http1([(b":status", b"799")], ended=True)[0], b"HTTP/1.1 799 ")

    def test_same_length_twice(self) -> None:
        head = parse_response([*OK, (b"content-length", b"3"), (b"content-length", b"3")], False, False)
        self.assertEqual((head.length, head.headers), (3, [(b"content-length", b"3")]))

    def test_blanks_around_values(self) -> None:
        """A host's are taken off; what else is wrong with a value is wrong still."""
        for value in (b" a b", b"a b ", b"\ta b\t ", b"a b"):
            self.assertIn(b"x: a b", self.http1([*OK, (b"x", value), (b"content-length", b" 3")]))
            self.assertEqual(parse_trailers([(b"x", value)], response=True), [(b"x", b"a b")])
            [(_, kept)] = parse_trailers([(b"x", NeverIndexed(value))], response=True)
            self.assertIs(type(kept), NeverIndexed)
        self.assertIn(b"x: ", self.http1([*OK, (b"x", b" ")]))
        for name, value in ((b"x", b" a\n"), (b"x", b"a\0 "), (b"x ", b" a"), (b"connection", b" a")):
            with self.assertRaises(Malformed):
                parse_response([*OK, (name, value)], False, False)
            with self.assertRaises(Malformed):
                parse_trailers([(name, value)], response=True)
        for value in (b" a", b"a\t"):
            with self.assertRaises(Malformed):
                parse_trailers([(b"x", value)])

    def test_te_is_left_out(self) -> None:
        self.assertEqual(parse_response([*OK, (b"te", b"trailers")], False, False).headers, [])

    def test_too_many_fields(self) -> None:
        with self.assertRaises(Malformed):
            parse_response([*OK, *[(b"x", b"y")] * (MAX_FIELDS + 1)], False, False)


class TrailersTests(SynchronousTestCase):
    def test_what_has_no_place_in_trailers_is_left_out(self) -> None:
        fields = [
            (b"grpc-status", b"0"),
            (b"content-length", b"3"),
            (b"authorization", b"x"),
            (b"te", b"trailers"),
        ]
        self.assertEqual(parse_trailers(fields), [(b"grpc-status", b"0")])

    def test_too_many_fields(self) -> None:
        with self.assertRaises(Malformed):
            parse_trailers([(b"x", b"y")] * (MAX_FIELDS + 1))

    def test_names_are_written_in_lower_case(self) -> None:
        self.assertEqual(trailer_fields([(b"X-Sum", b"1"), (b"Connection", b"x")]), [(b"x-sum", b"1")])


class WriteRequestTests(SynchronousTestCase):
    def fields(self, text: bytes, connect: bool = False) -> Fields:
        head = http1_request(text + b"\r\n")
        return request_fields(head, head.headers, b"http", b"10.0.0.1:80", connect)

    def test_get(self) -> None:
        self.assertEqual(
            self.fields(b"GET /a?b HTTP/1.1\r\nHost: Example.com\r\nUser-Agent: x\r\n"),
            [
                (b":method", b"GET"),
                (b":scheme", b"http"),
                (b":authority", b"Example.com"),
                (b":path", b"/a?b"),
                (b"user-agent", b"x"),
            ],
        )

    def test_what_belongs_to_the_connection_is_left_out(self) -> None:
        self.assertEqual(
            self.fields(
                HTTP1_GET + b"Connection: keep-alive, X-Mine, authorization\r\nKeep-Alive: 5\r\nX-Mine: 1\r\n"
                b"Proxy-Connection: close\r\nAuthorization: x\r\nHTTP2-Settings: AAA\r\n"
            )[4:],
            [(b"authorization", b"x")],
        )

    def test_chunked(self) -> None:
        self.assertEqual(self.fields(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n")[4:], [])

    def test_te(self) -> None:
        self.assertEqual(
            self.fields(HTTP1_GET + b"Connection: TE\r\nTE: gzip, Trailers\r\n")[4:], [(b"te", b"trailers")]
        )
        self.assertEqual(self.fields(HTTP1_GET + b"TE: gzip\r\n")[4:], [])

    def test_expect(self) -> None:
        post = b"POST / HTTP/1.%d\r\nHost: a\r\nContent-Length: 1\r\nExpect: 100-continue\r\n"
        self.assertIn((b"expect", b"100-continue"), self.fields(post % 1))
        self.assertNotIn((b"expect", b"100-continue"), self.fields(post % 0))

    def test_http10_without_host(self) -> None:
        self.assertEqual(self.fields(b"GET / HTTP/1.0\r\n")[2], (b":authority", b"10.0.0.1:80"))

    def test_upgrade(self) -> None:
        request = HTTP1_GET + b"Connection: upgrade\r\nUpgrade: websocket, other\r\nSec-WebSocket-Key: x\r\n"
        self.assertEqual(
            self.fields(request, connect=b"websocket"),
            [(b":method", b"CONNECT"), *GET[1:], (b":protocol", b"websocket")],
        )
        self.assertEqual(self.fields(request), [*GET, (b"sec-websocket-key", b"x")])

    def test_there_and_back(self) -> None:
        head = http1_request(HTTP1_GET + b"Accept: a\r\nCookie: b=1; c=2\r\nX: \xe9\r\n\r\n")
        again = parse_request(request_fields(head, head.headers, b"https", b""), True)
        self.assertEqual(again.headers, [(b"accept", b"a"), (b"x", b"\xe9"), (b"cookie", b"b=1; c=2")])


class WriteResponseTests(SynchronousTestCase):
    def fields(self, text: bytes) -> Fields:
        return response_fields(http1_response(text + b"\r\n"))

    def test_response(self) -> None:
        self.assertEqual(
            self.fields(
                b"HTTP/1.1 404 Nope\r\nServer: x\r\nContent-Length: 0\r\n"
                b"Connection: close, X-Mine\r\nX-Mine: 1\r\n"
            ),
            [(b":status", b"404"), (b"server", b"x"), (b"content-length", b"0")],
        )

    def test_no_length_where_none_belongs(self) -> None:
        self.assertEqual(self.fields(b"HTTP/1.1 204 No\r\nContent-Length: 0\r\n"), [(b":status", b"204")])


class HelperTests(SynchronousTestCase):
    def test_list_size(self) -> None:
        self.assertEqual(list_size([(b"abc", b"de"), (b"", b"")]), 69)
