"""Heads of requests: from the fields of HTTP/2, and to them."""

from __future__ import annotations

__all__ = ["parse_request", "request_fields"]

import re
from collections.abc import Iterable
from typing import Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.border import MOSN, NOTHING
from reverseproxy.wire.http.fields import MAX_METHOD, NO_METHODS, TOKEN, Headers, dropped_by
from reverseproxy.wire.http.message import UNKNOWN_LENGTH, Request
from reverseproxy.wire.http.upgrades import passed_on
from reverseproxy.wire.http2.fields import MAX_FIELDS, NOT_FORWARDED, Malformed, check_field, parse_length
from reverseproxy.wire.http2.upgrades import FIELD, Offer, offer_of, read_offer

_good_method: Final = re.compile(TOKEN + rb"+").fullmatch
_good_protocol: Final = re.compile(TOKEN + rb"+(?:/" + TOKEN + rb"+)?").fullmatch
_good_path: Final = re.compile(rb"/[!-\"$-~]*").fullmatch
_good_authority: Final = re.compile(
    rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?"
).fullmatch

_REQUEST_PSEUDO: Final = frozenset({b":method", b":scheme", b":authority", b":path", b":protocol"})
_PSEUDO_WITH_OURS: Final = _REQUEST_PSEUDO | {FIELD}

_UPGRADE: Final = frozenset({b"upgrade"})

_SPECIAL: Final = frozenset({b"content-length", b"cookie", b"expect", b"grpc-timeout", b"host", b"te"})
"""Fields of a request that are read, beside pseudo-headers."""

_NONE: Final[frozenset[bytes]] = frozenset()


def parse_request(
    fields: Iterable[tuple[bytes, bytes]],
    ended: bool,
    upgrades: bool = False,
    h2c: bool = False,
    max_fields: int = MAX_FIELDS,
    foreign: int = NOTHING,
) -> Request:
    """
    Make a head of the fields of a request.

    Pieces of a cookie are joined (RFC 9113 8.2.3); C{:authority} replaces Host.

    @param ended: whether there is neither body nor trailers.
    @param upgrades: whether the peer may send C{:upgrade}; see L{reverseproxy.wire.http2.upgrades}.
    @param h2c: whether an upgrade may be to h2c.
    @param max_fields: how many there may be; a cookie counts once, in however many pieces it comes.
    @param foreign: the marks of fields that the peer may not set, which are left out; see
        L{reverseproxy.wire.http.border}.
    @return: its options have C{upgrade} if it has C{:upgrade}, and is to be answered in the same way.
    @raise Malformed: if it breaks the rules of HTTP/2.
    @raise HttpError: if the request is not accepted.
    """
    found = _RequestFields(fields, _PSEUDO_WITH_OURS if upgrades else _REQUEST_PSEUDO, foreign)
    method, path, authority, offer = _read_pseudo(found.pseudo)
    headers, length, marks = found.headers, found.length, found.marks
    if authority is None:
        authority = found.host or b""
    elif found.host is not None and found.host.lower() != authority.lower():
        raise Malformed("host and :authority differ")
    if not _good_authority(authority):
        raise HttpError(400, "the authority is not a host with a port")
    if len(headers) > max_fields:
        raise HttpError(431, f"more than {max_fields} header fields (max_headers_count)")
    upgrade = b""
    if offer is not None:
        ours = FIELD in found.pseudo
        upgrade, headers = _take_offer(offer, ours, headers, length, h2c)
        length = offer.length
    elif length < 0:
        length = 0 if ended else UNKNOWN_LENGTH
        if ended and method in (b"POST", b"PUT", b"PATCH"):
            # Hosts of HTTP/1 may expect a length with these methods (RFC 9110 8.6).
            headers.append((b"content-length", b"0"))
    head = Request(method, path, authority, headers, length, found.deadline)
    head.awaits_continue = found.awaits_continue
    head.mosn = bool(marks & MOSN & ~foreign)
    head.dropped = marks & foreign
    if upgrade:
        head.options, head.upgrade = _UPGRADE if ours else _NONE, upgrade
    return head


def _take_offer(offer: Offer, ours: bool, headers: Headers, length: int, h2c: bool) -> tuple[bytes, Headers]:
    """
    Make an upgrade of what an extended CONNECT offers.

    @param ours: whether it has C{:upgrade}.
    @param length: what Content-Length says; -1 if there is none.
    @return: the protocols that are passed on; and the fields with C{upgrade}.
    """
    if not ours:
        # What follows is no body, but the other protocol.
        headers = [field for field in headers if field[0] != b"content-length"]
    elif length != offer.length and (length >= 0 or offer.length > 0):
        raise Malformed("content-length and :upgrade differ")
    upgrade = passed_on(offer.protocols, h2c)
    if not upgrade:
        raise HttpError(501, "an upgrade to this protocol is not passed on")
    return upgrade, [*headers, (b"upgrade", upgrade)]


class _RequestFields:
    """
    The fields of a request, checked one by one.

    @ivar pseudo: the pseudo-headers.
    @ivar host: Host, if there is one; it is not among the L{headers}.
    @ivar length: what Content-Length says; -1 if there is none.
    @ivar awaits_continue: whether the client waits for a 100.
    @ivar deadline: see L{Request}.
    @ivar marks: the marks of all fields; see L{reverseproxy.wire.http.border}.
    @ivar headers: all other fields, but for those that are left out; cookies are joined.
    """

    __slots__ = (
        "_cookies",
        "awaits_continue",
        "deadline",
        "headers",
        "host",
        "length",
        "marks",
        "pseudo",
    )

    def __init__(self, fields: Iterable[tuple[bytes, bytes]], known: frozenset[bytes], foreign: int) -> None:
        """
        @param known: the pseudo-headers that there may be.
        @param foreign: the marks of fields that are left out.
        @raise Malformed: if a field breaks the rules of HTTP/2.
        """
        self.pseudo: dict[bytes, bytes] = {}
        self.host: bytes | None = None
        self.length = -1
        self.awaits_continue = False
        self.deadline = b""
        self.marks = NOTHING
        self.headers: Headers = []
        self._cookies: list[bytes] = []
        for name, value in fields:
            if name[:1] == b":":
                self._take_pseudo(name, value, known)
                continue
            mark = check_field(name, value)
            if mark:
                self.marks |= mark
                if mark & foreign:
                    continue
            if name not in _SPECIAL or self._take_special(name, value):
                self.headers.append((name, value))
        if self._cookies:
            self.headers.append((b"cookie", b"; ".join(self._cookies)))

    def _take_pseudo(self, name: bytes, value: bytes, known: frozenset[bytes]) -> None:
        if self.headers or self._cookies or self.marks or self.host is not None:
            raise Malformed("a pseudo-header behind other fields")
        if name not in known or name in self.pseudo:
            raise Malformed(f"pseudo-header {name[:40]!r} is unknown or there twice")
        self.pseudo[name] = value

    def _take_special(self, name: bytes, value: bytes) -> bool:
        """Read one of L{_SPECIAL}; return whether it goes on among the others."""
        if name == b"cookie":
            self._cookies.append(value)
            return False
        if name == b"host":
            if self.host is not None and self.host != value:
                raise Malformed("more than one host")
            self.host = value
            return False
        if name == b"content-length":
            before, self.length = self.length, parse_length(value, self.length)
            return before < 0
        if name == b"expect":
            self.awaits_continue = value.lower() == b"100-continue"
        elif name == b"grpc-timeout":
            self.deadline = value
        elif value.lower() != b"trailers":
            raise Malformed(f"te is {value[:40]!r}")
        return True


def _read_pseudo(pseudo: dict[bytes, bytes]) -> tuple[bytes, bytes, bytes | None, Offer | None]:
    """
    Check the pseudo-headers of a request against each other (RFC 9113 8.3.1).

    @return: method, path, authority, and what an extended CONNECT offers, which
        becomes a GET as it is in HTTP/1 (RFC 8441 5.1) if it does not say more.
    """
    method = pseudo.get(b":method")
    scheme = pseudo.get(b":scheme")
    path = pseudo.get(b":path")
    if method is None or not _good_method(method):
        raise Malformed(":method is missing or no method")
    offer = _read_connect(method, pseudo)
    if offer is not None:
        method = offer.method
    if scheme is None or not path:
        raise Malformed("a request without :scheme or :path")
    if method in NO_METHODS:
        raise HttpError(405, f"{method.decode('ascii')} is not for a reverse proxy")
    if len(method) > MAX_METHOD:
        raise HttpError(501, f"a method longer than {MAX_METHOD} bytes")
    if scheme.lower() not in (b"http", b"https"):
        raise HttpError(400, "the scheme is neither http nor https")
    if not _good_path(path) and not (path == b"*" and method == b"OPTIONS"):
        raise Malformed(":path is no path")
    return method, path, pseudo.get(b":authority"), offer


def _read_connect(method: bytes, pseudo: dict[bytes, bytes]) -> Offer | None:
    """
    Read an extended CONNECT (RFC 8441 4), and refuse a plain one.

    @return: what it offers; L{None} for every other method.
    """
    protocol = pseudo.get(b":protocol")
    if protocol is not None:
        ours = pseudo.get(FIELD)
        offer = Offer(b"GET", 0, protocol) if ours is None else read_offer(ours)
        if method != b"CONNECT" or not _good_protocol(protocol) or offer is None:
            raise Malformed(":protocol does not belong here, or names none")
        return offer
    if FIELD in pseudo:
        raise Malformed(":upgrade does not belong here")
    if method == b"CONNECT":
        if b":scheme" in pseudo or b":path" in pseudo or not pseudo.get(b":authority"):
            raise Malformed("CONNECT with other pseudo-headers than :method and :authority")
        raise HttpError(405, "CONNECT is not for a reverse proxy")
    return None


def request_fields(
    head: Request,
    headers: Headers,
    scheme: bytes,
    default_host: bytes,
    connect: bytes = b"",
    upgrades: bool = False,
) -> Headers:
    """
    Write the head of a request for HTTP/2.

    @param headers: its fields, perhaps changed on the way.
    @param scheme: of the connection that it goes out on.
    @param default_host: see L{Request.authority}; an empty one is not written here (RFC 9113 8.3.1).
    @param connect: the C{:protocol} of the extended CONNECT that a request with C{Upgrade}
        becomes; if empty, it is sent without that.
    @param upgrades: whether the peer takes C{:upgrade}; see L{reverseproxy.wire.http2.upgrades}.
    """
    fields: Headers = [
        (b":method", b"CONNECT" if connect else head.method),
        (b":scheme", scheme),
        (b":path", head.target),
    ]
    host = head.authority(default_host)
    if host:
        fields.insert(2, (b":authority", host))
    dropped = NOT_FORWARDED | dropped_by(head.options) if head.options else NOT_FORWARDED
    if connect:
        fields.append((b":protocol", connect))
        if upgrades:
            fields.append((FIELD, offer_of(head)))
        else:
            dropped |= {b"sec-websocket-key", b"content-length"}
    trailers = False
    for name, value in headers:
        name = name.lower()
        if name not in dropped:
            # A server must ignore it in HTTP/1.0 (RFC 9110 10.1.1).
            if name != b"expect" or head.takes_interim:
                fields.append((name, value))
        elif name == b"te":
            trailers = trailers or b"trailers" in [part.strip(b" \t") for part in value.lower().split(b",")]
    if trailers:
        fields.append((b"te", b"trailers"))
    return fields
