"""
Fields of HTTP/2, checked, for heads and trailers alike.

A field may have bytes in HTTP/2 that in HTTP/1 would end a line, and so split one
request into two.  So every name and every value is checked as RFC 9113 8.2.1
demands, from every peer.

A L{Malformed} message ends its stream.  A request that is well-formed, but not
accepted, is answered with the status of an L{HttpError<reverseproxy.errors.HttpError>}.
"""

from __future__ import annotations

__all__ = [
    "MAX_FIELDS",
    "NOT_FORWARDED",
    "Malformed",
    "check_field",
    "is_bad_value",
    "list_size",
    "parse_length",
    "parse_trailers",
    "strip_blanks",
    "trailer_fields",
]

import re
from collections.abc import Iterable
from typing import Final

from reverseproxy.errors import WireError
from reverseproxy.wire.http.border import mark_of
from reverseproxy.wire.http.fields import MAX_HEADERS, Headers, forbidden_in_trailers
from reverseproxy.wire.http1.fields import MAX_LENGTH
from reverseproxy.wire.http2.mosn import CONNECTION_SPECIFIC

MAX_FIELDS: Final = MAX_HEADERS
"""Fields in a head, or in trailers, if nothing else is configured."""

_good_name: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9a-z-]+").fullmatch
_digits: Final = re.compile(rb"[0-9]{1,19}").fullmatch
is_bad_value: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]|^[ \t]|[ \t]\Z").search
"""Finds what no value may have: control characters, and blanks around it."""

NOT_FORWARDED: Final = CONNECTION_SPECIFIC | {b"host", b"http2-settings", b"te"}
"""Fields that end here, or are written anew."""


class Malformed(WireError):
    """A message that breaks the rules of HTTP/2: its stream is reset with PROTOCOL_ERROR."""


def list_size(fields: Iterable[tuple[bytes, bytes]]) -> int:
    """Measure a list of fields as SETTINGS_MAX_HEADER_LIST_SIZE does."""
    return sum([len(name) + len(value) + 32 for name, value in fields])


# The marks of valid names: most requests have the same few.
_marks: dict[bytes, int] = {}
_KNOWN_NAMES: Final = 1024
_KNOWN_SIZE: Final = 64


def check_field(name: bytes, value: bytes) -> int:
    """
    Check a field that is no pseudo-header, for every kind of message.

    @return: its mark; see L{reverseproxy.wire.http.border}.
    """
    mark = _marks.get(name)
    if mark is None:
        mark = _judge(name)
        if len(name) <= _KNOWN_SIZE:
            if len(_marks) >= _KNOWN_NAMES:
                _marks.clear()
            _marks[name] = mark
    if value and is_bad_value(value):
        raise Malformed(f"field {name[:40]!r} has a value with whitespace around it or control characters")
    return mark


def strip_blanks(name: bytes, value: bytes) -> bytes:
    """
    Strip blanks from the ends of a value that a host has sent, and check it again.

    RFC 9113 8.2.1 forbids them, but servers in Go send them, and in HTTP/1 they mean nothing.
    """
    value = type(value)(value.strip(b" \t"))  # may be one that is never indexed
    check_field(name, value)
    return value


def _judge(name: bytes) -> int:
    if not _good_name(name):
        raise Malformed(f"a field is named {name[:40]!r}")
    if name in CONNECTION_SPECIFIC:
        raise Malformed(f"field {name!r} belongs to HTTP/1")
    return mark_of(name)


def parse_length(value: bytes, before: int) -> int:
    """
    Parse a Content-Length.

    @param before: the length that another field of the same head says; -1 if there is none.
    """
    if not _digits(value):
        raise Malformed(f"content-length is {value[:40]!r}")
    length = int(value)
    if length > MAX_LENGTH:
        raise Malformed(f"content-length is {length}")
    if before not in (-1, length):
        raise Malformed("two different content-length fields")
    return length


def parse_trailers(
    fields: Iterable[tuple[bytes, bytes]], max_fields: int = MAX_FIELDS, response: bool = False
) -> Headers:
    """
    Check trailers, and leave out fields that may not be trailers (RFC 9110 6.5.1).

    @param max_fields: how many there may be.
    @param response: whether they are of a response, so that blanks around values are forgiven.
    @raise Malformed: if they break the rules of HTTP/2.
    """
    trailers: Headers = []
    for field in fields:
        name, value = field
        if name[:1] == b":":
            raise Malformed("a pseudo-header in trailers")
        try:
            check_field(name, value)
        except Malformed:
            if not response:
                raise
            value = strip_blanks(name, value)
        if not forbidden_in_trailers(name):
            trailers.append((name, value))
    if len(trailers) > max_fields:
        raise Malformed(f"more than {max_fields} fields in trailers")
    return trailers


def trailer_fields(trailers: Headers) -> Headers:
    """Write trailers for HTTP/2."""
    return [
        (name, value)
        for name, value in [(name.lower(), value) for name, value in trailers]
        if name not in NOT_FORWARDED
    ]
