"""
Errors for calls of gRPC.

A call of gRPC ends with a status of gRPC's own, in trailers.  A client that
gets a plain HTTP response guesses one from its status, and shows nothing of
its text; so our errors are responses of trailers only, as a gRPC server
gives them (C{Trailers-Only} in gRPC's C{doc/PROTOCOL-HTTP2.md}).
"""

from __future__ import annotations

__all__ = ["GrpcStatus", "encode_message", "error_fields", "error_trailers", "is_grpc", "status_of_http"]

from collections.abc import Iterable
from enum import IntEnum
from typing import Final


class GrpcStatus(IntEnum):
    """The statuses that a proxy gives (gRPC's C{doc/statuscodes.md})."""

    UNKNOWN = 2
    DEADLINE_EXCEEDED = 4
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    UNAUTHENTICATED = 16


# gRPC's doc/http-grpc-status-mapping.md, by which clients guess.  It has nothing for messages that are
# too large, which gRPC calls RESOURCE_EXHAUSTED elsewhere; and a timeout does not mean that the call
# may be made again, which UNAVAILABLE would say.  Our 500 is a connection that was lost.
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
    Return whether a request is a call of gRPC.

    gRPC-Web is not: it has its trailers in its bodies.

    @param headers: with names in lower case.
    """
    for name, value in headers:
        if name == b"content-type":
            rest = value.removeprefix(b"application/grpc")
            return rest != value and rest[:1] in (b"", b"+", b";")
    return False


def status_of_http(status: int) -> GrpcStatus:
    """Return the status of gRPC for one of HTTP."""
    return _FROM_HTTP.get(status, GrpcStatus.UNKNOWN)


def encode_message(text: bytes) -> bytes:
    """Percent-encode UTF-8 as a C{grpc-message}."""
    return b"".join(b"%c" % byte if byte in _PLAIN else b"%%%02X" % byte for byte in text)


def error_fields(status: int, text: bytes) -> list[tuple[bytes, bytes]]:
    """
    Return the fields of a response of trailers only.

    @param status: of HTTP.
    @param text: UTF-8, for people.
    """
    return [(b":status", b"200"), (b"content-type", b"application/grpc"), *error_trailers(status, text)]


def error_trailers(status: int, text: bytes) -> list[tuple[bytes, bytes]]:
    """
    Return the trailers for a response that has begun.

    @param status: of HTTP.
    @param text: UTF-8, for people.
    """
    return [(b"grpc-status", b"%d" % status_of_http(status)), (b"grpc-message", encode_message(text))]
