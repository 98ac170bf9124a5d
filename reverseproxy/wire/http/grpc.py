"""
What a proxy has to know of gRPC: how to say no.

A call of gRPC ends with a status of gRPC's own, in trailers.  A client that
gets a plain answer of HTTP guesses one from its status, and shows nothing of
its text; so errors of ours are answers of trailers alone, as a gRPC server
gives them (gRPC's C{doc/PROTOCOL-HTTP2.md}).
"""

from __future__ import annotations

__all__ = ["GrpcStatus", "encode_message", "error_fields", "error_trailers", "is_grpc", "status_of_http"]

from collections.abc import Iterable
from enum import IntEnum
from typing import Final


class GrpcStatus(IntEnum):
    """How a call went, as far as a proxy can tell (gRPC's C{doc/statuscodes.md})."""

    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# gRPC's doc/http-grpc-status-mapping.md, which is what clients guess.  It has nothing for what is
# too large, which gRPC calls RESOURCE_EXHAUSTED elsewhere; and a time that is over is no reason to
# believe that the call may be made again, which UNAVAILABLE would say.  Our 500 is a connection that
# was lost.
_FROM_HTTP: Final = {
    400: GrpcStatus.INTERNAL,
    401: GrpcStatus.UNAUTHENTICATED,
    403: GrpcStatus.PERMISSION_DENIED,
    404: GrpcStatus.UNIMPLEMENTED,
    408: GrpcStatus.DEADLINE_EXCEEDED,
    413: GrpcStatus.RESOURCE_EXHAUSTED,
    429: GrpcStatus.UNAVAILABLE,
    431: GrpcStatus.RESOURCE_EXHAUSTED,
    500: GrpcStatus.UNAVAILABLE,
    502: GrpcStatus.UNAVAILABLE,
    503: GrpcStatus.UNAVAILABLE,
    504: GrpcStatus.DEADLINE_EXCEEDED,
}

_PLAIN: Final = frozenset(range(0x20, 0x7F)) - {0x25}
"""Bytes of a message that stand for themselves: what can be printed, but for the percent sign."""


def is_grpc(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    """
    Say whether a request is a call of gRPC.

    gRPC-Web is not: it has its trailers in its bodies.

    @param headers: with names in lower case.
    """
    for name, value in headers:
        if name == b"content-type":
            rest = value.removeprefix(b"application/grpc")
            return rest != value and rest[:1] in (b"", b"+", b";")
    return False


def status_of_http(status: int) -> GrpcStatus:
    """What a status of HTTP means in gRPC."""
    return _FROM_HTTP.get(status, GrpcStatus.UNKNOWN)


def encode_message(text: bytes) -> bytes:
    """Make a C{grpc-message} of UTF-8."""
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in text)


def error_fields(status: int, text: bytes) -> list[tuple[bytes, bytes]]:
    """
    Make an answer of trailers alone.

    @param status: of HTTP.
    @param text: UTF-8, for people.
    """
    return [(b":status", b"200"), (b"content-type", b"application/grpc"), *error_trailers(status, text)]


def error_trailers(status: int, text: bytes) -> list[tuple[bytes, bytes]]:
    """
    Make trailers for an answer that has begun.

    @param status: of HTTP.
    @param text: UTF-8, for people.
    """
    return [(b"grpc-status", b"%d" % status_of_http(status)), (b"grpc-message", encode_message(text))]
