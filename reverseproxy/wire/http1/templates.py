"""
What the heads of one connection have in common, as a regular expression.

Messages between the same two ends have the same fields in the same order, time
and again, and what differs are values that nothing on the way reads.  Such a
head need not be parsed.  Its template is made of one that was parsed:

 - the same names, in the same case and order;
 - for significant fields (L{SIGNIFICANT_FIELDS}) the same line, byte for byte;
 - for all others any value that llhttp accepts.

A head that matches means the same as the one that the template was made of, but
for its request line or its length, which are the groups of the expression.

To make a template takes as long as to parse a hundred heads: it pays after
L{TEMPLATE_AFTER} of them.
"""

from __future__ import annotations

__all__ = [
    "MAX_KNOWN",
    "REQUEST_LINE",
    "SIGNIFICANT_FIELDS",
    "TEMPLATE_AFTER",
    "HeadTemplate",
    "request_template",
    "response_template",
]

import re
from functools import lru_cache
from typing import Final

from reverseproxy.wire.http.fields import MAX_METHOD, NO_METHODS, TOKEN
from reverseproxy.wire.http.hop_by_hop import OF_THE_MESSAGE

MAX_KNOWN: Final = 4096
"""Bytes of the largest head that is kept to be compared with the next one on its connection."""

TEMPLATE_AFTER: Final = 32
"""Heads in a row that do not match the template there is, if any, after which another one is made."""

SIGNIFICANT_FIELDS: Final = OF_THE_MESSAGE
"""Fields that say something about the message; so do those that begin with C{x-mosn-}."""

_VALUE: Final = rb"[\t -~\x80-\xff]*+"
"""A value as llhttp accepts it."""

REQUEST_LINE: Final = b'(GET|POST|(?!%b )%b{1,%d}+) (/[!-"$-~]*+) HTTP/1\\.1' % (
    b" |".join(sorted(NO_METHODS)),
    TOKEN,
    MAX_METHOD,
)
"""The first line of a request, without its end; its groups are the method and the target."""

_LENGTH: Final = rb"([1-9][0-9]{0,14})"
_KEPT: Final = 128
"""Templates that are kept for other connections."""

HeadTemplate = re.Pattern[bytes]
"""A compiled expression that heads match, and nothing else does."""


def request_template(head: bytes) -> HeadTemplate:
    """
    Make a template of requests.

    @param head: one that is in order, of HTTP/1.1, in which nothing follows the empty line.
    @return: its groups are the method and the target.
    """
    lines = head[:-4].split(b"\r\n")
    return _compiled(b"".join([REQUEST_LINE, rb"\r\n", *map(_line, lines[1:]), rb"\r\n"]))


def response_template(head: bytes) -> HeadTemplate | None:
    """
    Make a template of responses.

    @param head: one that is in order, with a length.
    @return: its group is the length; L{None} if the head does not say it plainly.
    """
    lines = head[:-4].split(b"\r\n")
    pattern = [re.escape(lines[0]), rb"\r\n"]
    lengths = 0
    for line in lines[1:]:
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            if not re.fullmatch(b" " + _LENGTH, value):
                return None
            pattern.append(re.escape(name) + b": " + _LENGTH + rb"\r\n")
            lengths += 1
        else:
            pattern.append(_line(line))
    return _compiled(b"".join([*pattern, rb"\r\n"])) if lengths == 1 else None


def _line(line: bytes) -> bytes:
    name, _, _ = line.partition(b":")
    lower = name.lower()
    if lower in SIGNIFICANT_FIELDS or lower.startswith(b"x-mosn-"):
        return re.escape(line) + rb"\r\n"
    return re.escape(name) + b":" + _VALUE + rb"\r\n"


@lru_cache(_KEPT)
def _compiled(pattern: bytes) -> HeadTemplate:
    return re.compile(pattern)
