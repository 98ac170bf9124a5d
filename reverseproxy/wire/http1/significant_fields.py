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
    "EXPECT",
    "HOST",
    "KINDS",
    "LENGTH",
    "ONLY_KEEP_ALIVE",
    "OTHER_HOP",
    "PLAIN_CODING",
    "REQUEST_FIELDS",
    "RESPONSE_FIELDS",
    "UPGRADE",
    "is_plain_length",
    "persists",
]

import re
from typing import Final

from reverseproxy.wire.http.border import PATTERN as MARKED_NAMES

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
