"""Lines of HTTP/1, read and written: status lines, Content-Length, Connection, chunks."""

from __future__ import annotations

__all__ = [
    "CHUNKED",
    "EMPTY_LINE",
    "MAX_LENGTH",
    "SHORTEST_FIELD",
    "UNTIL_CLOSE",
    "chunk",
    "connection_options",
    "content_length",
    "last_chunk",
    "parse_fields",
    "status_line",
]

from http import HTTPStatus
from typing import Final

from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http.message import UNKNOWN_LENGTH

CHUNKED: Final = UNKNOWN_LENGTH
"""In place of the length of a body that is chunked."""

UNTIL_CLOSE: Final = -2
"""In place of the length of a response body that ends with the connection."""

MAX_LENGTH: Final = 2**63 - 1
"""The largest Content-Length: many recipients use signed 64-bit integers."""

EMPTY_LINE: Final = b"\r\n\r\n"
"""Where a head, or trailers, end; the first half belongs to the last field."""

SHORTEST_FIELD: Final = len(b"X:\r\n")
"""Bytes of the shortest field."""

_MAX_DIGITS: Final = len(str(MAX_LENGTH))

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}

_COMMON_OPTIONS: Final = {
    option: frozenset({option.lower()})
    for option in (b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"Upgrade")
}


def status_line(status: int) -> bytes:
    """Return the status line of HTTP/1.1, with the registered reason phrase if there is one."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def connection_options(value: bytes) -> frozenset[bytes]:
    """Parse one C{Connection} field into lower-case options."""
    common = _COMMON_OPTIONS.get(value)
    if common is not None:
        return common
    return frozenset(option for part in value.lower().split(b",") if (option := part.strip(b" \t")))


def content_length(value: bytes) -> int | None:
    """
    Parse a Content-Length.

    @return: L{None} if it is not one number up to L{MAX_LENGTH}.
    """
    # int() is quadratic in the digits, and refuses more than some thousand of them.
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    length = int(value)
    return length if length <= MAX_LENGTH else None


def chunk(data: bytes) -> bytes:
    """Return one chunk of a chunked body; C{data} must not be empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """Return the end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])


def parse_fields(raw: bytes) -> Headers:
    """Parse the fields of a head that llhttp has found well-formed."""
    headers: Headers = []
    for line in raw[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip(b" \t")))
    return headers
