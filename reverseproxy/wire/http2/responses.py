"""Heads of responses: from the fields of HTTP/2, and to them."""

from __future__ import annotations

__all__ = ["parse_response", "response_fields"]

import re
from collections.abc import Iterable
from typing import Final

from reverseproxy.wire.http.fields import UPGRADE_REQUIRED, Headers, dropped_by
from reverseproxy.wire.http.grpc import is_grpc
from reverseproxy.wire.http.message import UNKNOWN_LENGTH, Response
from reverseproxy.wire.http2.fields import (
    MAX_FIELDS,
    NOT_FORWARDED,
    Malformed,
    check_field,
    is_bad_value,
    parse_length,
    strip_blanks,
)
from reverseproxy.wire.http2.upgrades import FIELD

_status: Final = re.compile(rb"[1-9][0-9][0-9]").fullmatch

_UPGRADE: Final = frozenset({b"upgrade"})

_NO_BODY: Final = frozenset({204, 304})
_WITH_UPGRADE: Final = frozenset({101, UPGRADE_REQUIRED})


def parse_response(
    fields: Iterable[tuple[bytes, bytes]],
    ended: bool,
    head_request: bool,
    tunnel: bool = False,
    upgrades: bool = False,
    max_fields: int = MAX_FIELDS,
) -> Response:
    """
    Make a head of the fields of a response.

    @param ended: whether there is neither body nor trailers.
    @param head_request: whether the request's method was HEAD.
    @param tunnel: whether the request was an extended CONNECT.
    @param upgrades: whether the peer may send C{:upgrade}; see L{reverseproxy.wire.http2.upgrades}.
    @param max_fields: how many there may be.
    @return: an upgrade that is accepted with C{:upgrade} has the status 101.
    @raise Malformed: if it breaks the rules of HTTP/2.
    """
    status, upgrade, length, headers = _read_response_fields(fields, upgrades)
    if length >= 0 and is_grpc(headers):
        # Messages of gRPC have their own lengths, and the frames say where they end.
        headers = [field for field in headers if field[0] != b"content-length"]
        length = -1
    if len(headers) > max_fields:
        raise Malformed(f"more than {max_fields} header fields (max_response_headers_count)")
    if upgrade and _accepts_upgrade(status, upgrade, headers):
        return Response(101, headers, options=_UPGRADE)
    if status < 200:
        if ended or status == 101:
            raise Malformed(f"an interim response with status {status}, which ends the stream or switches")
        return Response(status, headers, 0)
    if head_request or status in _NO_BODY:
        return Response(status, headers, 0)
    if tunnel and status < 300:
        return Response(status, headers, UNKNOWN_LENGTH)
    if ended:
        length = _no_body(length, headers)
    return Response(status, headers, length if length >= 0 else UNKNOWN_LENGTH)


def _accepts_upgrade(status: int, upgrade: bytes, headers: Headers) -> bool:
    """Add C{Upgrade} to the fields of a response that has C{:upgrade}; return whether that stands for 101."""
    check_field(b"upgraded", upgrade)
    headers.append((b"upgrade", upgrade))
    if status not in (200, UPGRADE_REQUIRED):
        raise Malformed(f":upgrade in an answer with status {status}")
    return status == 200


def _no_body(length: int, headers: Headers) -> int:
    """Return the length of the body of a response that has none, though it might have, and say it."""
    if length > 0:
        raise Malformed("no data, which is less than content-length says")
    if length < 0:
        # A client of HTTP/1 would wait for a body that ends with the connection.
        headers.append((b"content-length", b"0"))
    return 0


def _read_response_fields(
    fields: Iterable[tuple[bytes, bytes]], upgrades: bool
) -> tuple[int, bytes, int, Headers]:
    """
    Check the fields of a response one by one.

    @return: the status; the value of C{:upgrade}; the length, or -1; and the fields
        that are not pseudo-headers.
    """
    status = 0
    upgrade = b""
    headers: Headers = []
    length = -1
    te = False
    for field in fields:
        name, value = field
        if name[:1] == b":":
            if name == FIELD and upgrades and status and value and not (headers or upgrade or te):
                upgrade = value
                continue
            if headers or te or status or name != b":status" or not _status(value):
                raise Malformed(f"pseudo-header {name[:40]!r} does not belong here, or has a bad value")
            status = int(value)
            continue
        try:
            check_field(name, value)
        except Malformed:
            value = strip_blanks(name, value)
        if name == b"content-length":
            if length >= 0:
                parse_length(value, length)
                continue
            length = parse_length(value, length)
        elif name == b"te":
            te = True
            continue
        headers.append((name, value))
    if not status:
        raise Malformed("a response without :status")
    return status, upgrade, length, headers


def response_fields(head: Response, upgrades: bool = False) -> Headers:
    """
    Write the head of a response for HTTP/2.

    @param upgrades: whether the peer takes C{:upgrade}; see L{reverseproxy.wire.http2.upgrades}.
    """
    fields: Headers = [(b":status", b"%d" % head.status)]
    if upgrades and head.status in _WITH_UPGRADE:
        chosen = b", ".join([value for name, value in head.headers if name.lower() == b"upgrade"])
        if chosen and not is_bad_value(chosen):
            fields.append((FIELD, chosen))
            if head.status == 101:
                fields[0] = (b":status", b"200")
    dropped = NOT_FORWARDED | dropped_by(head.options) if head.options else NOT_FORWARDED
    bodiless = head.status < 200 or head.status == 204
    for name, value in head.headers:
        name = name.lower()
        if name not in dropped and not (bodiless and name == b"content-length"):
            fields.append((name, value))
    return fields
