"""Requests and responses that must not get through, for the parser's tests and the proxy's."""

from __future__ import annotations

import re

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
    ("length and chunked", respond(b"Content-Length: 3", b"Transfer-Encoding: chunked", body=b"0\r\n\r\n")),
    ("two lengths", respond(b"Content-Length: 3", b"Content-Length: 4", body=b"abcd")),
    ("list of lengths", respond(b"Content-Length: 3, 3", body=b"abc")),
    ("length of 5000 digits", respond(b"Content-Length: " + b"0" * 4999 + b"3", body=b"abc")),
    ("length over 63 bits", respond(b"Content-Length: 9223372036854775808", body=b"abc")),
    ("length no number", respond(b"Content-Length: three", body=b"abc")),
    ("length negative", respond(b"Content-Length: -1", body=b"abc")),
    ("coding unknown", respond(b"Transfer-Encoding: gzip", body=b"abc")),
    ("gzip before chunked", respond(b"Transfer-Encoding: gzip, chunked", body=b"0\r\n\r\n")),
    (
        "chunked in HTTP/1.0",
        respond(b"Transfer-Encoding: chunked", line=b"HTTP/1.0 200 OK", body=b"0\r\n\r\n"),
    ),
    ("folded", respond(b"X: a\r\n b")),
    ("bare LF", b"HTTP/1.1 200 OK\nContent-Length: 0\n\n"),
    ("NUL in a value", respond(b"X: a\x00b")),
    ("space before the colon", respond(b"X : a")),
    ("control character in the reason", respond(line=b"HTTP/1.1 200 O\x01K")),
    ("CR in the reason", respond(line=b"HTTP/1.1 200 O\rK")),
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
    ("interim with a body", respond(b"Content-Length: 3", line=b"HTTP/1.1 104 Odd", body=b"abc")),
    ("interim chunked", respond(b"Transfer-Encoding: chunked", line=b"HTTP/1.1 104 Odd", body=b"0\r\n\r\n")),
    ("head too large", respond(b"X: " + b"y" * 70_000)),
    ("head too large by far", respond(b"X: " + b"y" * 300_000)),
    ("too many fields", respond(*[b"X: y"] * 101)),
]
"""Name and bytes; the client gets 502, and the connection to the host is closed."""


def slug(name: str) -> str:
    """Make a part of a method name."""
    return re.sub(r"\W+", "_", name).lower()
