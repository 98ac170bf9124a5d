"""Requests and responses that must not get through, for the parser's tests and the proxy's."""

from __future__ import annotations

import gzip
import re
import zlib
from typing import Final

from reverseproxy.wire.http1.fields import chunk

GOOD = b"GET /good HTTP/1.1\r\nHost: a\r\n\r\n"


def get(
    *fields: bytes, line: bytes = b"GET / HTTP/1.1", host: bytes = b"Host: a\r\n", body: bytes = b""
) -> bytes:
    """Build a request with some odd fields."""
    return line + b"\r\n" + host + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


def chunked(body: bytes, *fields: bytes) -> bytes:
    """Build a chunked request with an odd body."""
    return get(b"Transfer-Encoding: chunked", *fields, line=b"POST / HTTP/1.1", body=body)


BAD_REQUESTS: list[tuple[str, bytes, int]] = [
    # request lines that end twice
    ("LF within the target", get(line=b"GET /a\nX:b HTTP/1.1"), 400),
    ("LF within the target of HTTP/1.0", get(line=b"GET /a\nX:b HTTP/1.0"), 400),
    ("LF behind the target and a field", get(line=b"GET /a\nHost:b HTTP/1.1", host=b""), 400),
    ("LF and a length", get(line=b"POST /a\nContent-Length:b HTTP/1.1", body=b"abc"), 400),
    ("LF behind a method of its own", get(line=b"LIST /a\nX:b HTTP/1.1"), 400),
    ("LF behind CONNECT", get(line=b"CONNECT a:80\n", host=b"\5\r\n"), 400),
    ("LF within a URL", get(line=b"GET http://a/\nX:b HTTP/1.1"), 400),
    ("LF and an asterisk", get(line=b"OPTIONS *\nX:b HTTP/1.1"), 400),
    # lengths
    ("length and chunked", get(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"), 400),
    ("chunked and length", get(b"Transfer-Encoding: chunked", b"Content-Length: 3", body=b"0\r\n\r\n"), 400),
    ("two lengths", get(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd"), 400),
    ("twice the same length", get(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"), 400),
    ("list of lengths", get(b"Content-Length: 3, 3", body=b"abc"), 400),
    ("list of different lengths", get(b"Content-Length: 3,4", body=b"abcd"), 400),
    ("plus", get(b"Content-Length: +3", body=b"abc"), 400),
    ("minus", get(b"Content-Length: -3", body=b"abc"), 400),
    ("hexadecimal length", get(b"Content-Length: 0x3", body=b"abc"), 400),
    ("underscore", get(b"Content-Length: 1_0", body=b"abcdefghij"), 400),
    ("blank inside", get(b"Content-Length: 1 0", body=b"abcdefghij"), 400),
    ("decimal point", get(b"Content-Length: 3.0", body=b"abc"), 400),
    ("exponent", get(b"Content-Length: 1e1", body=b"abcdefghij"), 400),
    ("other digits", get("Content-Length: ٣".encode(), body=b"abc"), 400),
    ("empty length", get(b"Content-Length:", body=b"abc"), 400),
    ("length over 64 bits", get(b"Content-Length: 18446744073709551616", body=b"abc"), 400),
    ("length over 63 bits", get(b"Content-Length: 9223372036854775808", body=b"abc"), 400),
    ("length of 20 digits", get(b"Content-Length: " + b"0" * 19 + b"3", body=b"abc"), 400),
    ("length of 5000 digits", get(b"Content-Length: " + b"0" * 4999 + b"3", body=b"abc"), 400),
    ("length behind a NUL", get(b"Content-Length: 3\x00", body=b"abc"), 400),
    # transfer codings
    ("chunked twice", get(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n"), 400),
    (
        "two fields of codings",
        get(b"Transfer-Encoding: gzip", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        501,
    ),
    (
        "two fields chunked",
        get(b"Transfer-Encoding: chunked", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
        400,
    ),
    ("chunked not last", get(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n"), 400),
    ("gzip before chunked", get(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n"), 501),
    ("identity", get(b"Transfer-Encoding: identity", body=b"abc"), 400),
    ("identity after chunked", get(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n"), 400),
    ("coding unknown", get(b"Transfer-Encoding: xchunked", body=b"0\r\n\r\n"), 400),
    ("coding with vertical tab", get(b"Transfer-Encoding: \x0bchunked", body=b"0\r\n\r\n"), 400),
    ("coding in quotes", get(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n"), 400),
    ("coding empty", get(b"Transfer-Encoding:", body=b"0\r\n\r\n"), 400),
    ("space before the colon of a coding", get(b"Transfer-Encoding : chunked", body=b"0\r\n\r\n"), 400),
    (
        "chunked in HTTP/1.0",
        get(b"Transfer-Encoding: chunked", line=b"POST / HTTP/1.0", body=b"0\r\n\r\n"),
        400,
    ),
    # lines
    ("folded", get(b"X: a\r\n b"), 400),
    ("folded length", get(b"Content-Length:\r\n 3", body=b"abc"), 400),
    ("folded first field", b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    ("bare LF in a head", b"GET / HTTP/1.1\nHost: a\n\n", 400),
    ("bare LF behind a field", b"GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n", 400),
    ("bare CR behind a field", b"GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n", 400),
    ("bare CR in a value", get(b"X: a\rb"), 400),
    ("NUL in a value", get(b"X: a\x00b"), 400),
    ("control character in a value", get(b"X: a\x01b"), 400),
    ("delete in a value", get(b"X: a\x7fb"), 400),
    ("NUL in a name", get(b"X\x00: a"), 400),
    ("space before the colon", get(b"X : a"), 400),
    ("tab before the colon", get(b"X\t: a"), 400),
    ("space in a name", get(b"X Y: a"), 400),
    ("no name", get(b": a"), 400),
    ("no colon", get(b"Xa"), 400),
    ("name not ASCII", get(b"X\xe9: a"), 400),
    ("parentheses in a name", get(b"X(a): a"), 400),
    # request line
    ("HTTP/0.9", b"GET /\r\n\r\n", 400),
    ("HTTP/0.9 in words", get(line=b"GET / HTTP/0.9"), 400),
    ("HTTP/1.2", get(line=b"GET / HTTP/1.2"), 400),
    ("HTTP/2.0", get(line=b"GET / HTTP/2.0"), 505),
    ("HTTP/2 preface", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    ("http in lower case", get(line=b"GET / http/1.1"), 400),
    ("another protocol", get(line=b"GET / RTSP/1.0"), 400),
    ("version with more digits", get(line=b"GET / HTTP/1.10"), 400),
    ("version with a plus", get(line=b"GET / HTTP/+1.1"), 400),
    ("two spaces before the target", get(line=b"GET  / HTTP/1.1"), 400),
    ("two spaces behind the target", get(line=b"GET /  HTTP/1.1"), 400),
    ("tabs", get(line=b"GET\t/\tHTTP/1.1"), 400),
    ("space in the target", get(line=b"GET /a b HTTP/1.1"), 400),
    ("control character in the target", get(line=b"GET /a\x01 HTTP/1.1"), 400),
    ("NUL in the target", get(line=b"GET /a\x00 HTTP/1.1"), 400),
    ("delete in the target", get(line=b"GET /a\x7f HTTP/1.1"), 400),
    ("target not ASCII", get(line="GET /ä HTTP/1.1".encode()), 400),
    ("fragment", get(line=b"GET /a#b HTTP/1.1"), 400),
    ("no target", get(line=b"GET HTTP/1.1"), 400),
    ("target without slash", get(line=b"GET a HTTP/1.1"), 400),
    ("asterisk without OPTIONS", get(line=b"GET * HTTP/1.1"), 400),
    ("other scheme", get(line=b"GET ftp://a/ HTTP/1.1"), 400),
    ("URL without host", get(line=b"GET http:///x HTTP/1.1"), 400),
    ("URL with a user", get(line=b"GET http://me@a/x HTTP/1.1"), 400),
    ("method too long", get(line=b"M" * 65 + b" / HTTP/1.1"), 501),
    ("method too long by far", b"M" * 20_000, 501),
    ("method in parentheses", get(line=b"(GET) / HTTP/1.1"), 400),
    ("method not ASCII", get(line="GÉT / HTTP/1.1".encode()), 400),
    ("PRI", get(line=b"PRI / HTTP/1.1"), 400),
    ("CONNECT", get(line=b"CONNECT a:443 HTTP/1.1"), 405),
    ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
    ("nonsense", b"NONSENSE\r\n\r\n", 400),
    ("SSH", b"SSH-2.0-OpenSSH_9.6\r\n", 400),
    # host
    ("no host", get(host=b""), 400),
    ("two hosts", get(b"Host: b"), 400),
    ("twice the same host", get(b"Host: a"), 400),
    ("URL but no host", get(host=b"", line=b"GET http://a/ HTTP/1.1"), 400),
    ("host with a path", get(host=b"Host: a/b\r\n"), 400),
    ("host with a user", get(host=b"Host: me@a\r\n"), 400),
    ("list of hosts", get(host=b"Host: a, b\r\n"), 400),
    ("host with a space", get(host=b"Host: a b\r\n"), 400),
    ("host not ASCII", get(host="Host: ä\r\n".encode()), 400),
    ("port that is no number", get(host=b"Host: a:80x\r\n"), 400),
    # chunks
    ("chunk size with 0x", chunked(b"0x3\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size with a plus", chunked(b"+3\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size with a minus", chunked(b"-3\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size with a space before", chunked(b" 3\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size with a space behind", chunked(b"3 \r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size empty", chunked(b"\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size no number", chunked(b"g\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size over 64 bits", chunked(b"fffffffffffffffff\r\nabc\r\n0\r\n\r\n"), 400),
    ("chunk size ends with LF", chunked(b"3\nabc\r\n0\r\n\r\n"), 400),
    ("chunk ends with LF", chunked(b"3\r\nabc\n0\r\n\r\n"), 400),
    ("chunk longer than its size", chunked(b"3\r\nabcd\r\n0\r\n\r\n"), 400),
    ("LF in a chunk extension", chunked(b"3;a=\nb\r\nabc\r\n0\r\n\r\n"), 400),
    ("last chunk ends with LF", chunked(b"0\n\r\n"), 400),
    ("trailer folded", chunked(b"0\r\nX: a\r\n b\r\n\r\n"), 400),
    ("trailer with a space before the colon", chunked(b"0\r\nX : a\r\n\r\n"), 400),
    ("length in trailers", chunked(b"0\r\nContent-Length: 5\r\n\r\nhello"), 400),
    # sizes
    ("field too large", get(b"X: " + b"y" * 9000), 431),
    ("field too large by far", get(b"X: " + b"y" * 100_000), 431),
    ("fields too large together", get(*[b"X: " + b"y" * 90] * 99), 431),
    ("too many fields", get(*[b"X: y"] * 101), 431),
    ("target too long", get(line=b"GET /" + b"x" * 9000 + b" HTTP/1.1"), 414),
    ("target too long by far", b"GET /" + b"x" * 100_000, 414),
    ("chunk extension too long", chunked(b"3;" + b"x" * 70_000), 400),
    (
        "trailers too large",
        chunked(b"0\r\n" + b"X: yyyyyyyyyy\r\n" * 90 + b"Z: " + b"z" * 9000 + b"\r\n\r\n"),
        400,
    ),
    ("too many trailers", chunked(b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"), 431),
]
"""Name, bytes, and the status that the client gets before its connection is closed."""


def respond(*fields: bytes, line: bytes = b"HTTP/1.1 200 OK", body: bytes = b"") -> bytes:
    """Build a response with some odd fields."""
    return line + b"\r\n" + b"".join(field + b"\r\n" for field in fields) + b"\r\n" + body


BAD_RESPONSES: list[tuple[str, bytes]] = [
    ("two lengths", respond(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd")),
    ("list of different lengths", respond(b"Content-Length: 3, 4", body=b"abcd")),
    ("list of lengths with an empty one", respond(b"Content-Length: 3,", body=b"abc")),
    ("length and another one folded", respond(b"Content-Length: 3\r\n 4", body=b"abc")),
    ("length with a plus", respond(b"Content-Length: +3", body=b"abc")),
    ("length with something behind it", respond(b"Content-Length: 3;", body=b"abc")),
    ("length hexadecimal", respond(b"Content-Length: 0x3", body=b"abc")),
    ("length empty", respond(b"Content-Length:", body=b"abc")),
    (
        "length no number beside chunked",
        respond(b"Content-Length: x", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    (
        "different lengths beside chunked",
        respond(b"Content-Length: 3, 4", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n"),
    ),
    ("length of 5000 digits", respond(b"Content-Length: " + b"0" * 4999 + b"3", body=b"abc")),
    ("length over 63 bits", respond(b"Content-Length: 9223372036854775808", body=b"abc")),
    ("length no number", respond(b"Content-Length: three", body=b"abc")),
    ("length negative", respond(b"Content-Length: -1", body=b"abc")),
    ("coding unknown", respond(b"Transfer-Encoding: br", body=b"abc")),
    ("coding unknown before chunked", respond(b"Transfer-Encoding: br, chunked", body=b"0\r\n\r\n")),
    ("two codings before chunked", respond(b"Transfer-Encoding: gzip, gzip, chunked", body=b"0\r\n\r\n")),
    ("chunked twice", respond(b"Transfer-Encoding: chunked, chunked", body=b"0\r\n\r\n")),
    ("chunked not last", respond(b"Transfer-Encoding: chunked, gzip", body=b"0\r\n\r\n")),
    ("identity behind chunked", respond(b"Transfer-Encoding: chunked, identity", body=b"0\r\n\r\n")),
    ("chunked with something behind it", respond(b"Transfer-Encoding: chunked;a=b", body=b"0\r\n\r\n")),
    ("coding in quotes", respond(b'Transfer-Encoding: "chunked"', body=b"0\r\n\r\n")),
    ("coding empty", respond(b"Transfer-Encoding:", body=b"0\r\n\r\n")),
    ("folded first field", respond(b" X: a")),
    ("NUL in a value", respond(b"X: a\x00b")),
    ("NUL in a value behind LF", b"HTTP/1.1 200 OK\nX: a\x00b\n\n"),
    ("control character in a value", respond(b"X: a\x08b")),
    ("control character behind LF", b"HTTP/1.1 200 OK\nX: a\x7fb\n\n"),
    ("CR in a value", respond(b"X: a\rSet-Cookie: b")),
    ("CR in a folded value", respond(b"X: a\r\n b\rc")),
    ("lines that end with CR", b"HTTP/1.1 200 OK\rContent-Length: 0\r\r"),
    ("lines that end with three CR", b"HTTP/1.1 200 OK\r\r\r\nContent-Length: 0\r\n\r\n"),
    ("no colon", respond(b"X")),
    ("no name", respond(b": a")),
    ("space in a name", respond(b"X Y: a")),
    ("name not ASCII", respond(b"X\xe9: a")),
    ("control character in the reason", respond(line=b"HTTP/1.1 200 O\x01K")),
    ("CR in the reason", respond(line=b"HTTP/1.1 200 O\rK")),
    ("NUL in the reason", b"HTTP/1.1 200 O\x00K\nContent-Length: 0\n\n"),
    ("reason without a space", respond(line=b"HTTP/1.1 200OK")),
    ("space in front of it all", respond(line=b" HTTP/1.1 200 OK")),
    ("status of two digits", respond(line=b"HTTP/1.1 99 Odd")),
    ("status of four digits", respond(line=b"HTTP/1.1 2000 Odd")),
    ("status no number", respond(line=b"HTTP/1.1 abc Odd")),
    ("HTTP/2.0", respond(line=b"HTTP/2.0 200 OK")),
    ("RTSP", respond(line=b"RTSP/1.0 200 OK")),
    ("ICE", respond(line=b"ICE/1.0 200 OK")),
    ("no HTTP", b"SSH-2.0-OpenSSH_9.6\r\n"),
    (
        "switched without being asked",
        respond(b"Connection: upgrade", b"Upgrade: x", line=b"HTTP/1.1 101 Switching"),
    ),
    ("switched to nothing", respond(line=b"HTTP/1.1 101 Switching")),
    ("switched to nothing by name", respond(b"Connection: upgrade", line=b"HTTP/1.1 101 Switching")),
    ("interim with a body", respond(b"Content-Length: 3", line=b"HTTP/1.1 104 Odd", body=b"abc")),
    ("interim chunked", respond(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 104 Odd", body=b"0\r\n\r\n")),
    ("head too large", respond(b"X: " + b"y" * 70_000)),
    ("head too large with LF", respond(b"X: " + b"y" * 70_000).replace(b"\r\n", b"\n")),
    ("head too large in lines with LF", b"HTTP/1.1 200 OK\n" + b"X: " + b"y" * 70_000),
    ("head too large by far", respond(b"X: " + b"y" * 300_000)),
    ("too many fields", respond(*[b"X: y"] * 101)),
]
"""Name and bytes; the client gets 502, and the connection to the host is closed."""


def _gzip(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


BAD_BODIES: list[tuple[str, bytes]] = [
    *[
        (name, respond(b"Transfer-Encoding: chunked", body=body))
        for name, body in (
            ("chunk size with a space before", b" 3\r\nabc\r\n0\r\n\r\n"),
            ("chunk size with 0x", b"0x3\r\nabc\r\n0\r\n\r\n"),
            ("chunk size with a plus", b"+3\r\nabc\r\n0\r\n\r\n"),
            ("chunk size over 64 bits", b"1" + b"0" * 16 + b"\r\n"),
            ("chunk size over 63 bits", b"8" + b"0" * 15 + b"\r\n"),
            ("chunk size empty", b"\r\nabc\r\n0\r\n\r\n"),
            ("chunk size in two parts", b"1 0\r\nabc\r\n0\r\n\r\n"),
            ("chunk size ends with CR", b"3\rabc\r\n0\r\n\r\n"),
            ("chunk longer than its size", b"3\r\nabcd\r\n0\r\n\r\n"),
            ("chunk without an end", b"3\r\nabc0\r\n\r\n"),
            ("chunk extension with NUL", b"3;\x00\r\nabc\r\n0\r\n\r\n"),
            ("chunk extension too long", b"3;" + b"x" * 20_000),
            ("trailer without a colon", b"0\r\nX\r\n\r\n"),
            ("trailer with NUL", b"0\r\nX: a\x00\r\n\r\n"),
            ("trailers too large", b"0\r\nX: " + b"x" * 70_000),
            ("too many trailers", b"0\r\n" + b"X: y\r\n" * 101 + b"\r\n"),
        )
    ],
    ("no gzip", respond(b"Transfer-Encoding: gzip, chunked", body=b"3\r\nabc\r\n0\r\n\r\n")),
    (
        "gzip that is cut off",
        respond(b"Transfer-Encoding: gzip, chunked", body=chunk(_gzip(b"abc")[:-1]) + b"0\r\n\r\n"),
    ),
]
"""Name and bytes of responses that are broken off behind their heads."""


_OK_3: Final = b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n"
_OK_CHUNKED: Final = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"

ODD_RESPONSES: list[tuple[str, bytes, bytes, bytes, bool]] = [
    # lines
    ("LF", b"HTTP/1.1 200 OK\nContent-Length: 3\n\nabc", _OK_3, b"abc", True),
    ("LF behind the status line", b"HTTP/1.1 200 OK\nContent-Length: 3\r\n\r\nabc", _OK_3, b"abc", True),
    ("LF behind a field", b"HTTP/1.1 200 OK\r\nContent-Length: 3\n\r\nabc", _OK_3, b"abc", True),
    ("LF as the empty line", b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\nabc", _OK_3, b"abc", True),
    ("CR too many", b"HTTP/1.1 200 OK\r\r\nContent-Length: 3\r\r\n\r\r\nabc", _OK_3, b"abc", True),
    (
        "LF, and an empty line with CR in the body",
        b"HTTP/1.1 200 OK\nContent-Length: 9\n\nab\r\n\r\nabc",
        b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n",
        b"ab\r\n\r\nabc",
        True,
    ),
    (
        "LF, and an empty line far away in the body",
        b"HTTP/1.1 200 OK\nContent-Length: 70004\n\n" + b"x" * 70_000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 70004\r\n\r\n",
        b"x" * 70_000 + b"\r\n\r\n",
        True,
    ),
    ("empty lines first", b"\r\n\n" + _OK_3 + b"abc", _OK_3, b"abc", True),
    ("empty lines first, and LF", b"\nHTTP/1.1 200 OK\nContent-Length: 3\n\nabc", _OK_3, b"abc", True),
    (
        "folded",
        respond(b"X: a\r\n\t b \r\n  c", b"Content-Length: 3", body=b"abc"),
        b"HTTP/1.1 200 OK\r\nX: a b c\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        True,
    ),
    (
        "folded from the start",
        respond(b"X:\r\n a", b"Content-Length: 3", body=b"abc"),
        b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        True,
    ),
    (
        "folded with nothing",
        respond(b"X: a\r\n ", b"Content-Length: 3", body=b"abc"),
        b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        True,
    ),
    ("folded length", respond(b"Content-Length:\r\n 3", body=b"abc"), _OK_3, b"abc", True),
    (
        "field in a fold",
        respond(b"X: a\r\n Content-Length: 9", b"Content-Length: 3", body=b"abc"),
        b"HTTP/1.1 200 OK\r\nX: a Content-Length: 9\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        True,
    ),
    (
        "blanks before a colon",
        respond(b"X \t: a", b"Content-Length : 3", body=b"abc"),
        b"HTTP/1.1 200 OK\r\nX: a\r\nContent-Length: 3\r\n\r\n",
        b"abc",
        True,
    ),
    # the status line
    ("no reason", b"HTTP/1.1 200\r\nContent-Length: 3\r\n\r\nabc", _OK_3.replace(b"OK", b""), b"abc", True),
    ("no reason, and LF", b"HTTP/1.1 200\nContent-Length: 3\n\nabc", _OK_3.replace(b"OK", b""), b"abc", True),
    ("blanks in the status line", _OK_3.replace(b" 200 ", b"  200\t ") + b"abc", _OK_3, b"abc", True),
    ("later version", _OK_3.replace(b"1.1", b"1.2") + b"abc", _OK_3, b"abc", True),
    # lengths
    (
        "the same length twice",
        respond(b"Content-Length: 3", b"Content-Length: 3", body=b"abc"),
        _OK_3,
        b"abc",
        True,
    ),
    ("list of the same lengths", respond(b"Content-Length: 3, 3 ,03", body=b"abc"), _OK_3, b"abc", True),
    (
        "length and chunked",
        respond(b"Content-Length: 9", b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        False,
    ),
    (
        "chunked and the same length twice",
        respond(b"Transfer-Encoding: chunked", b"Content-Length: 9, 9", body=b"3\r\nabc\r\n0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        False,
    ),
    # transfer codings
    (
        "identity and a length",
        respond(b"Transfer-Encoding: identity", b"Content-Length: 3", body=b"abc"),
        _OK_3,
        b"abc",
        False,
    ),
    (
        "identity and chunked",
        respond(b"Transfer-Encoding: identity, Chunked", body=b"3\r\nabc\r\n0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        True,
    ),
    (
        "chunked in HTTP/1.0",
        respond(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK", body=b"3\r\nabc\r\n0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        False,
    ),
    (
        "gzip and chunked",
        respond(b"Transfer-Encoding: gzip, chunked", body=chunk(_gzip(b"abc")) + b"0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        True,
    ),
    (
        "gzip in two members and many chunks",
        respond(
            b"Transfer-Encoding: x-gzip",
            b"Transfer-Encoding: chunked",
            body=b"".join([chunk(bytes([byte])) for byte in _gzip(b"ab") + _gzip(b"c")]) + b"0\r\n\r\n",
        ),
        _OK_CHUNKED,
        b"abc",
        True,
    ),
    (
        "deflate and chunked",
        respond(b"Transfer-Encoding: deflate, chunked", body=chunk(zlib.compress(b"abc")) + b"0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        True,
    ),
    (
        "chunked in a list with nothing else",
        respond(b"Transfer-Encoding: , chunked,,", body=b"3\r\nabc\r\n0\r\n\r\n"),
        _OK_CHUNKED,
        b"abc",
        True,
    ),
    # chunks
    *[
        (name, respond(b"Transfer-Encoding: chunked", body=body), _OK_CHUNKED, b"abc", True)
        for name, body in (
            ("blanks behind a size", b"3  \t\r\nabc\r\n0 \r\n\r\n"),
            ("blanks behind a size, and an extension", b"3 ;a\r\nabc\r\n00\r\n\r\n"),
            ("LF behind a size", b"3\nabc\r\n0\n\n"),
            ("LF behind a chunk", b"2\r\nab\n1\r\nc\n0\r\n\n"),
            ("LF everywhere", b"2\nab\n1\nc\n0\n\n"),
        )
    ],
]
"""
Responses that are not as they should be, and how they are understood.

Name, bytes, the head that goes on, the body, and whether the connection may be used further.
"""

ODD_UNTIL_CLOSE: list[tuple[str, bytes, bytes]] = [
    ("LF", b"HTTP/1.0 200 OK\nX: a\n\nabc", b"abc"),
    ("identity", respond(b"Transfer-Encoding: identity", body=b"abc"), b"abc"),
    ("gzip", respond(b"Transfer-Encoding: gzip", body=_gzip(b"abc")), b"abc"),
    (
        "gzip and a length",
        respond(b"Transfer-Encoding: gzip", b"Content-Length: 3", body=_gzip(b"abc")),
        b"abc",
    ),
    (
        "no empty line behind the last chunk",
        respond(b"Transfer-Encoding: chunked", body=b"3\r\nabc\r\n0\r\n"),
        b"abc",
    ),
]
"""The same, of such as end with their connection: name, bytes, and the body."""


def slug(name: str) -> str:
    """Make a part of a method name."""
    return re.sub(r"\W+", "_", name).lower()
