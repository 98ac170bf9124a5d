"""Methods and fields, alike in every version of HTTP: what C{Connection} removes, and which may trail."""

from __future__ import annotations

__all__ = [
    "MAX_HEADERS",
    "MAX_METHOD",
    "METHOD_NOT_ALLOWED",
    "NO_METHODS",
    "RESET_CONTENT",
    "TOKEN",
    "UPGRADE_REQUIRED",
    "Headers",
    "dropped_by",
    "find",
    "forbidden_in_trailers",
    "takes_trailers",
    "without_length",
]

from typing import Final

from reverseproxy.wire.http.border import NOTHING, mark_of
from reverseproxy.wire.http.hop_by_hop import HOP_BY_HOP

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""A byte of a token (RFC 9110 5.6.2), such as the name of a method or a field, as a regular expression."""

MAX_METHOD: Final = 64
"""Bytes of the longest method; the longest that is registered has 17."""

MAX_HEADERS: Final = 100
"""Header fields, or trailers, of one message, if nothing else is configured."""

NO_METHODS: Final = frozenset({b"CONNECT", b"PRI"})
"""Methods that a reverse proxy does not accept: PRI is how HTTP/2 begins."""

METHOD_NOT_ALLOWED: Final = 405
"""
The status whose response must have C{Allow} (RFC 9110 15.5.6).

In ours it is empty: nothing is allowed on the target of a CONNECT, or where the
configuration answers with this status (10.2.1).
"""

RESET_CONTENT: Final = 205
"""The status whose response has a length of 0 (RFC 9110 15.3.6)."""

UPGRADE_REQUIRED: Final = 426
"""The status whose C{Upgrade} names the protocols that the server demands (RFC 9110 15.5.22)."""

Headers = list[tuple[bytes, bytes]]
"""Fields in order, names in the case they came in."""

# Fields that a Connection field may not remove from a message: with one of these, the next hop would
# see another message than we did.
_PROTECTED: Final = frozenset(
    {
        b"authorization",
        b"content-encoding",
        b"content-length",
        b"content-type",
        b"cookie",
        b"expect",
        b"forwarded",
        b"host",
        b"set-cookie",
        b"via",
        b"x-forwarded-for",
        b"x-forwarded-host",
        b"x-forwarded-proto",
        b"x-real-ip",
    }
)

# Framing, routing, credentials, and what says how to read, cache or repeat a message: recipients act on
# these before trailers come (RFC 9110 6.5.1).
_FORBIDDEN_TRAILERS: Final = (
    HOP_BY_HOP
    | _PROTECTED
    | {b"trailer", b"max-forwards", b"proxy-authorization", b"proxy-authenticate", b"www-authenticate"}
    | {b"age", b"cache-control", b"content-range", b"date", b"expires", b"location", b"pragma", b"range"}
    | {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"}
    | {b"retry-after", b"vary", b"warning"}
)


def forbidden_in_trailers(name: bytes) -> bool:
    """Return whether a field may not be a trailer (RFC 9110 6.5.1); neither may one with a mark."""
    name = name.lower()
    return name in _FORBIDDEN_TRAILERS or mark_of(name) != NOTHING


def dropped_by(options: frozenset[bytes]) -> frozenset[bytes]:
    """Return the fields that the options of C{Connection} remove from a message."""
    return frozenset([option for option in options - _PROTECTED if not mark_of(option)])


def find(headers: Headers, name: str) -> str | None:
    """
    Find a field by its lower-case name; several are joined with commas.

    @return: its value, as UTF-8 with surrogate escapes, or L{None}.
    """
    wanted = name.encode("utf-8", "surrogateescape")
    values = [value for field, value in headers if field.lower() == wanted]
    if not values:
        return None
    joined = b",".join(values) if len(values) > 1 else values[0]
    return joined.strip(b" \t").decode("utf-8", "surrogateescape")


def takes_trailers(headers: Headers) -> bool:
    """Return whether C{TE} says that the sender takes trailers."""
    return any(
        name.lower() == b"te" and b"trailers" in [part.strip(b" \t") for part in value.lower().split(b",")]
        for name, value in headers
    )


def without_length(headers: Headers) -> Headers:
    """Return fields without C{Content-Length}."""
    return [field for field in headers if field[0].lower() != b"content-length"]
