"""
The grammar of requests, byte by byte: which bytes L{RequestParser} accepts at which place.

A parser that accepts more accepts requests that others read in another way.
"""

from __future__ import annotations

import re

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HttpError
from reverseproxy.wire.http1.requests import RequestParser

PLACE = b"?"
"""Stands for the byte in question."""

TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
TARGET = rb"[!\"$-~]"
VALUE = rb"[\t -~\x80-\xff]"
HEX = rb"[0-9A-Fa-f]"
EXTENSION = rb"[!#$%&'*+.^_`|~0-9A-Za-z=-]"

GET = b"GET / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = GET + b"Transfer-Encoding: chunked\r\n\r\n"

PLACES: list[tuple[str, bytes, bytes, bytes]] = [
    # the request line
    ("first byte", b"?ET / HTTP/1.1\r\nHost: a\r\n\r\n", TOKEN + rb"|[\r\n]", rb""),
    ("in the method", b"G?T / HTTP/1.1\r\nHost: a\r\n\r\n", TOKEN, rb""),
    ("behind the method", b"GET?/ HTTP/1.1\r\nHost: a\r\n\r\n", rb" ", rb""),
    ("first of the target", b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n", rb"/", rb""),
    ("in the target", b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n", TARGET, rb""),
    ("in the query", b"GET /x\x3f?y HTTP/1.1\r\nHost: a\r\n\r\n", TARGET, rb""),
    ("behind the target", b"GET /?HTTP/1.1\r\nHost: a\r\n\r\n", rb" ", rb""),
    ("in HTTP", b"GET / H?TP/1.1\r\nHost: a\r\n\r\n", rb"T", rb""),
    ("major version", b"GET / HTTP/?.1\r\nHost: a\r\n\r\n", rb"1", rb""),
    ("dot", b"GET / HTTP/1?1\r\nHost: a\r\n\r\n", rb"\.", rb""),
    ("minor version", b"GET / HTTP/1.?\r\nHost: a\r\n\r\n", rb"[01]", rb""),
    ("behind the version", b"GET / HTTP/1.1?\r\nHost: a\r\n\r\n", rb"", rb""),
    ("CR of the line", b"GET / HTTP/1.1?\nHost: a\r\n\r\n", rb"\r", rb""),
    ("LF of the line", b"GET / HTTP/1.1\r?Host: a\r\n\r\n", rb"\n", rb""),
    # fields
    ("first of a name", GET + b"?X: y\r\n\r\n", TOKEN, rb""),
    ("in a name", GET + b"X?X: y\r\n\r\n", TOKEN + rb"|:", rb""),
    ("before the colon", GET + b"X?: y\r\n\r\n", TOKEN + rb"|:", rb""),
    ("colon", GET + b"X? y\r\n\r\n", rb":", rb""),
    ("behind the colon", GET + b"X:?y\r\n\r\n", VALUE, rb""),
    ("in a value", GET + b"X: y?z\r\n\r\n", VALUE, rb""),
    ("behind a value", GET + b"X: y?\r\n\r\n", VALUE, rb""),
    ("CR of a field", GET + b"X: y?\n\r\n", rb"\r", rb""),
    ("LF of a field", GET + b"X: y\r?\r\n", rb"\n", rb""),
    ("CR of the empty line", GET + b"?\n\r\n\r\n", rb"\r", rb""),
    ("LF of the empty line", GET + b"\r?\r\n\r\n", rb"\n", rb""),
    # Host
    (
        "in a host",
        b"GET / HTTP/1.1\r\nHost: a?b\r\n\r\n",
        rb"[!$%&'()*+.0-9;=A-Z_a-z~-]",
        rb"",
    ),
    (
        "in the host of a URL",
        b"GET http://a?b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        rb"[!$%&'()*+./0-9;=?A-Z_a-z~-]",
        rb"",
    ),
    ("in a port", b"GET / HTTP/1.1\r\nHost: a:8?\r\n\r\n", rb"[0-9\t ]", rb""),
    # lengths
    ("before a length", GET + b"Content-Length: ?3\r\n\r\nabc", rb"[0-9\t ]", rb""),
    ("behind a length", GET + b"Content-Length: 3?\r\n\r\nabc", rb"[0-9\t ]", rb""),
    ("in a length", GET + b"Content-Length: 0?3\r\n\r\nabc", rb"[0-9]", rb""),
    ("in its name", GET + b"Content?Length: ;\r\n\r\n", TOKEN.replace(b"-]", b"]") + rb"|:", rb""),
    # transfer codings
    ("before a coding", GET + b"Transfer-Encoding: ?chunked\r\n\r\n0\r\n\r\n", rb"[\t ]", rb","),
    ("behind a coding", GET + b"Transfer-Encoding: chunked?\r\n\r\n0\r\n\r\n", rb" ", rb""),
    ("in a coding", GET + b"Transfer-Encoding: chu?ked\r\n\r\n0\r\n\r\n", rb"[Nn]", rb""),
    ("in its name", GET + b"Transfer?Encoding: chunked\r\n\r\n0\r\n\r\n", rb"-", rb""),
    # chunks
    ("before a size", CHUNKED + b"?3\r\nabc\r\n0\r\n\r\n", HEX, rb""),
    ("size", CHUNKED + b"?\r\nabc\r\n0\r\n\r\n", rb"[38A-Fa-f]", rb""),
    ("behind a size", CHUNKED + b"3?\r\nabc\r\n0\r\n\r\n", HEX, rb""),
    ("in an extension", CHUNKED + b"3;?\r\nabc\r\n0\r\n\r\n", EXTENSION, rb""),
    ("in the name of an extension", CHUNKED + b"3;a?b\r\nabc\r\n0\r\n\r\n", EXTENSION + rb"|;", rb""),
    ("in the value of an extension", CHUNKED + b"3;a=b?c\r\nabc\r\n0\r\n\r\n", TOKEN + rb"|;", rb""),
    ("in a quoted value", CHUNKED + b'3;a="b?c"\r\nabc\r\n0\r\n\r\n', rb"[\t !#-~\x80-\xff]", rb""),
    ("CR of a size", CHUNKED + b"3?\nabc\r\n0\r\n\r\n", rb"\r", rb""),
    ("LF of a size", CHUNKED + b"3\r?abc\r\n0\r\n\r\n", rb"\n", rb""),
    ("CR of a chunk", CHUNKED + b"3\r\nabc?\n0\r\n\r\n", rb"\r", rb""),
    ("LF of a chunk", CHUNKED + b"3\r\nabc\r?0\r\n\r\n", rb"\n", rb""),
    ("behind the last size", CHUNKED + b"3\r\nabc\r\n0?\r\n\r\n", rb"[02-9A-Fa-f]", rb""),
    ("CR of the last size", CHUNKED + b"0?\n\r\n", rb"\r", rb""),
    ("CR of the end", CHUNKED + b"0\r\n?\n", rb"\r", rb""),
    ("LF of the end", CHUNKED + b"0\r\n\r?\r\n", rb"\n", rb""),
    # trailers
    ("in the name of a trailer", CHUNKED + b"0\r\nX?Y: z\r\n\r\n", TOKEN + rb"|:", rb""),
    ("in the value of a trailer", CHUNKED + b"0\r\nX: y?z\r\n\r\n", VALUE, rb""),
    ("CR of a trailer", CHUNKED + b"0\r\nX: y?\n\r\n", rb"\r", rb""),
    ("LF of a trailer", CHUNKED + b"0\r\nX: y\r?\r\n", rb"\n", rb""),
]
"""A name, a request, the bytes that are taken at its place, and those that are refused with 501, not 400."""


def status(data: bytes, size: int = 10_000) -> int:
    """Parse a request; 0 if there is nothing wrong with it."""
    parser = RequestParser()
    for begin in range(0, len(data), size):
        for event in parser.feed(data[begin : begin + size]):
            if isinstance(event, HttpError):
                return event.status
    return 0


class PlaceTests(SynchronousTestCase):
    def found(self, template: bytes, size: int) -> dict[int, int]:
        before, after = template.rsplit(PLACE, 1)
        return {byte: status(before + bytes([byte]) + after, size) for byte in range(256)}

    def expected(self, good: bytes, odd: bytes) -> dict[int, int]:
        def one(byte: int) -> int:
            if good and re.fullmatch(good, bytes([byte])):
                return 0
            return 501 if odd and re.fullmatch(odd, bytes([byte])) else 400

        return {byte: one(byte) for byte in range(256)}

    def test_in_one_piece(self) -> None:
        for name, template, good, odd in PLACES:
            with self.subTest(name):
                self.assertEqual(self.found(template, 10_000), self.expected(good, odd), name)

    def test_byte_by_byte(self) -> None:
        for name, template, good, odd in PLACES:
            with self.subTest(name):
                self.assertEqual(self.found(template, 1), self.expected(good, odd), name)
