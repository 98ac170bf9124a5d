"""
The fields of a head that say where its message ends, whose it is, or what becomes of the connection.

All of them are found by one expression in the head in lower case: looking for them takes most of the
time that a head takes, and an expression that ignores case takes longer.  All other fields pass
through unread.
"""

from __future__ import annotations

__all__ = [
    "CODING",
    "CONNECTION",
    "KINDS",
    "LENGTH",
    "ONLY_KEEP_ALIVE",
    "OTHER_HOP",
    "PLAIN_CODING",
    "REQUEST_FIELDS",
    "RESPONSE_FIELDS",
    "UPGRADE",
    "Found",
    "SignificantFields",
    "is_plain_length",
    "persists",
]

import re
from typing import Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.border import NOTHING, mark_of
from reverseproxy.wire.http.border import PATTERN as MARKED_NAMES
from reverseproxy.wire.http.message import NO_OPTIONS
from reverseproxy.wire.http1.fields import CHUNKED, connection_options, content_length

_NAMES: Final = (
    rb"con(?:tent-length|nection)|t(?:ransfer-encoding|e)|h(?:ost|ttp2-settings)"
    rb"|expect|upgrade|keep-alive|proxy-connection"
)

RESPONSE_FIELDS: Final = re.compile(rb"\r\n(%b):([ \t]*)([^\r]*)" % _NAMES)
"""Finds the significant fields of a response's head in lower case: name, blanks before the value, value."""

REQUEST_FIELDS: Final = re.compile(rb"\r\n(?:(%b):([ \t]*)([^\r]*)|(%b):)" % (_NAMES, MARKED_NAMES))
"""
The same for a request; besides, as a fourth group, names of fields with a mark.

A field with a mark is one that not every client may set (L{reverseproxy.wire.http.border}).
"""

Found = list[tuple[bytes, bytes, bytes, bytes]]
"""What L{REQUEST_FIELDS} finds in a head."""

HOST, LENGTH, CODING, CONNECTION, EXPECT, UPGRADE, OTHER_HOP = range(1, 8)

KINDS: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"keep-alive": OTHER_HOP,
    b"proxy-connection": OTHER_HOP,
    b"te": OTHER_HOP,
    b"http2-settings": OTHER_HOP,
}
"""What a significant field is, by its name in lower case."""

ONLY_KEEP_ALIVE: Final = frozenset({b"keep-alive"})

PLAIN_CODING: Final = re.compile(rb"\r\n(?i:transfer-encoding): chunked\r\n")
"""Finds a Transfer-Encoding that every recipient reads alike; see L{is_plain_length}."""


def is_plain_length(gap: bytes, value: bytes) -> bool:
    """
    Return whether every recipient reads a Content-Length alike; if not, it is not forwarded as it came.

    Blanks other than one space and leading zeros are accepted here, but not everywhere.  A recipient
    that disagrees about the end of a message takes a part of it for the next one.

    @param gap: the blanks in front of the value.
    """
    return gap == b" " and value.isdigit() and (value[0] != 48 or len(value) == 1)


def persists(options: frozenset[bytes], http11: bool) -> bool:
    """Return whether the connection persists behind a message, by its C{Connection} (RFC 9112 9.3)."""
    return b"close" not in options and (http11 or b"keep-alive" in options)


class SignificantFields:
    """
    What the significant fields of a request's head say, checked as they are read.

    @ivar found: these fields.
    @ivar host: Host; empty if there is none, as in HTTP/1.0.
    @ivar host_line: all of that field as it came, with the line ends around it.
    @ivar length: the length of the body, as in L{reverseproxy.wire.http1.heads.RequestHead};
        L{None} if no field says it.
    @ivar options: the options of C{Connection}.
    @ivar awaits_continue: whether the client waits for a 100.
    @ivar upgrade: whether there is an C{Upgrade}.
    @ivar marks: the marks of fields that not every client may set.
    @ivar verbatim: whether the head can be forwarded as it came, as far as these fields go.
    """

    __slots__ = (
        "awaits_continue",
        "found",
        "host",
        "host_line",
        "length",
        "marks",
        "options",
        "upgrade",
        "verbatim",
    )

    def __init__(self, raw: bytes, http11: bool) -> None:
        """
        @param raw: the head.
        @raise HttpError: if a field is malformed, twice where it may be once, or missing.
        """
        lower = raw.lower()
        self.found: Found = REQUEST_FIELDS.findall(lower)
        self.host = self.host_line = b""
        self.awaits_continue = self.upgrade = False
        length: int | None = None
        coding: int | None = None
        options = NO_OPTIONS
        marks = NOTHING
        verbatim = http11
        for name, gap, value, marked in self.found:
            kind = KINDS.get(name)
            if kind is None:
                marks |= mark_of(marked)
            elif kind == HOST:
                self._read_host(raw, lower)
            elif kind == LENGTH:
                length = _read_length(value, length)
                verbatim = verbatim and is_plain_length(gap, value)
            elif kind == CODING:
                coding = _read_coding(value, coding, http11)
                verbatim = verbatim and PLAIN_CODING.search(raw) is not None
            elif kind == CONNECTION:
                options |= connection_options(value)
            elif kind == EXPECT:
                self.awaits_continue |= http11 and value.rstrip(b" \t") == b"100-continue"
            else:
                verbatim = False
                self.upgrade |= kind == UPGRADE
        if coding is not None and length is not None:
            raise HttpError(400, "both Content-Length and Transfer-Encoding")
        if http11 and not self.host_line:
            raise HttpError(400, "no Host")
        self.length = length if coding is None else coding
        self.options = options
        self.marks = marks
        self.verbatim = verbatim and (not options or options == ONLY_KEEP_ALIVE)

    def _read_host(self, raw: bytes, lower: bytes) -> None:
        if self.host_line:
            raise HttpError(400, "more than one Host")
        begin = lower.index(b"\r\nhost:")
        self.host_line = raw[begin : raw.index(b"\r", begin + 7) + 2]
        self.host = self.host_line[7:].strip(b" \t\r\n")


def _read_length(value: bytes, before: int | None) -> int:
    length = content_length(value.rstrip(b" \t")) if before is None else None
    if length is None:
        raise HttpError(400, "Content-Length is not one number")
    return length


def _read_coding(value: bytes, before: int | None, http11: bool) -> int:
    if before is not None:
        raise HttpError(400, "more than one Transfer-Encoding")
    if not http11:
        raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
    if value.rstrip(b" \t") != b"chunked":
        raise HttpError(501, "transfer coding other than chunked")
    return CHUNKED
