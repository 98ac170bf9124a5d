"""
HTTP/1 heads: what they hold, and how they are written for the next hop.

A head that needs no change is forwarded as the bytes that came; every other one
is written anew, with names in their case and fields in their order, without
what concerned the previous connection only (RFC 9110 7.6.1).
"""

from __future__ import annotations

__all__ = [
    "CHUNKED",
    "MAX_LENGTH",
    "MAX_METHOD",
    "NO_METHODS",
    "TOKEN",
    "UNTIL_CLOSE",
    "UPGRADE_REQUIRED",
    "ForwardedBy",
    "Headers",
    "RequestHead",
    "ResponseHead",
    "chunk",
    "connection_options",
    "content_length",
    "dropped_by",
    "forbidden_in_trailers",
    "last_chunk",
    "response_head_bytes",
    "status_line",
]

from http import HTTPStatus
from typing import Final

from reverseproxy.wire.http.border import NOTHING, mark_of, without
from reverseproxy.wire.http.hop_by_hop import HOP_BY_HOP

CHUNKED: Final = -1
"""As the length of a body: chunked."""

UNTIL_CLOSE: Final = -2
"""As the length of a response body: what comes until the connection closes."""

MAX_LENGTH: Final = 2**63 - 1
"""The largest Content-Length, as others count in 64 bits with a sign."""

TOKEN: Final = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]"
"""A byte of a token (RFC 9110 5.6.2), such as the name of a method or a field, as a regular expression."""

MAX_METHOD: Final = 64
"""Bytes of the longest method; the longest that is registered has 17."""

NO_METHODS: Final = frozenset({b"CONNECT", b"PRI"})
"""What may stand where a method does, but is not for a reverse proxy: PRI is how HTTP/2 begins."""

UPGRADE_REQUIRED: Final = 426
"""The status that says with C{Upgrade} what to ask for, as 101 says what follows (RFC 9110 15.5.22)."""

_MAX_DIGITS: Final = len(str(MAX_LENGTH))

Headers = list[tuple[bytes, bytes]]
"""Fields in order, names in the case they came in."""

# What a Connection field may not take out of a message: a sender that names one
# of these wants the next hop to see another message than we did.
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

# Framing, routing, credentials, and what says how to read, keep or repeat a message: whoever acts on these
# has done so by the time that trailers come (RFC 9110 6.5.1).
_FORBIDDEN_TRAILERS: Final = (
    HOP_BY_HOP
    | _PROTECTED
    | {b"trailer", b"max-forwards", b"proxy-authorization", b"proxy-authenticate", b"www-authenticate"}
    | {b"age", b"cache-control", b"content-range", b"date", b"expires", b"location", b"pragma", b"range"}
    | {b"if-match", b"if-none-match", b"if-modified-since", b"if-unmodified-since", b"if-range"}
    | {b"retry-after", b"vary", b"warning"}
)

_STATUS_LINES: Final = {
    status.value: b"HTTP/1.1 %d %b\r\n" % (status.value, status.phrase.encode("ascii"))
    for status in HTTPStatus
}


def status_line(status: int) -> bytes:
    """Write the status line of HTTP/1.1 with the registered reason, if there is one."""
    return _STATUS_LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


def forbidden_in_trailers(name: bytes) -> bool:
    """Whether a field may not stand in trailers (RFC 9110 6.5.1), as neither may one with a mark."""
    name = name.lower()
    return name in _FORBIDDEN_TRAILERS or mark_of(name) != NOTHING


_COMMON_OPTIONS: Final = {
    option: frozenset({option.lower()})
    for option in (b"keep-alive", b"Keep-Alive", b"close", b"upgrade", b"Upgrade")
}


def connection_options(value: bytes) -> frozenset[bytes]:
    """Parse one C{Connection} field into lower-case options."""
    common = _COMMON_OPTIONS.get(value)
    if common is not None:
        return common
    return frozenset(option for part in value.lower().split(b",") if (option := part.strip(b" \t")))


def chunk(data: bytes) -> bytes:
    """Write one chunk of a chunked body; C{data} is not empty."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def last_chunk(trailers: Headers) -> bytes:
    """Write the end of a chunked body."""
    if not trailers:
        return b"0\r\n\r\n"
    return b"0\r\n%b\r\n" % b"".join([b"%b: %b\r\n" % field for field in trailers])


def _lookup(headers: Headers, name: str) -> str | None:
    wanted = name.encode("utf-8", "surrogateescape")
    values = [value for field, value in headers if field.lower() == wanted]
    if not values:
        return None
    joined = b",".join(values) if len(values) > 1 else values[0]
    return joined.strip(b" \t").decode("utf-8", "surrogateescape")


class ForwardedBy:
    """
    What this proxy tells the next hop about the previous one.

    @ivar via: the pseudonym added to Via; empty for none.
    @ivar x_forwarded: C{"off"}, C{"append"} or C{"replace"}.
    """

    __slots__ = ("_host", "_mode", "_remote", "_scheme", "_via")

    def __init__(self, via: str, x_forwarded: str, remote: str, scheme: str) -> None:
        """
        @param remote: the client's address without its port.
        @param scheme: C{"http"} or C{"https"}: how the client reached us.
        """
        self._via = via.encode("ascii", "replace")
        self._mode = x_forwarded
        self._remote = remote.encode("utf-8", "replace")
        self._scheme = scheme.encode("ascii")

    def __bool__(self) -> bool:
        return bool(self._via) or self._mode != "off"

    def rewrite(self, head: RequestHead) -> Headers:
        """Make the fields of the forwarded request out of those that came."""
        headers = head.headers
        if self._via:
            version = b"1.1 " if head.http11 else b"1.0 "
            headers = _add_to_list(headers, b"Via", version + self._via, True)
        if self._mode != "off":
            append = self._mode == "append"
            headers = _add_to_list(headers, b"X-Forwarded-For", self._remote, append)
            headers = _set(headers, b"X-Forwarded-Proto", self._scheme, append)
            headers = _set(headers, b"X-Forwarded-Host", head.asked_host, append)
        return headers


def _add_to_list(headers: Headers, name: bytes, value: bytes, append: bool) -> Headers:
    """Put C{value} behind what the list field C{name} holds, or in its place."""
    wanted = name.lower()
    values = [old.strip(b" \t") for field, old in headers if field.lower() == wanted] if append else []
    kept = [field for field in headers if field[0].lower() != wanted]
    kept.append((name, b", ".join([*filter(None, values), value])))
    return kept


def _set(headers: Headers, name: bytes, value: bytes, keep: bool) -> Headers:
    """Set a field that is no list; what came is kept if C{keep}."""
    wanted = name.lower()
    if keep and any(field.lower() == wanted for field, _ in headers):
        return headers
    kept = [field for field in headers if field[0].lower() != wanted]
    kept.append((name, value))
    return kept


def content_length(value: bytes) -> int | None:
    """
    Read a Content-Length.

    @return: L{None} if it is not one number, or none that a peer could mean.
    """
    # int() is quadratic in the digits, and refuses more than some thousand of them.
    if not value.isdigit() or len(value) > _MAX_DIGITS:
        return None
    length = int(value)
    return length if length <= MAX_LENGTH else None


def dropped_by(options: frozenset[bytes]) -> frozenset[bytes]:
    """Which fields the options of C{Connection} take out of a message."""
    return frozenset([option for option in options - _PROTECTED if not mark_of(option)])


def _takes_trailers(headers: Headers) -> bool:
    return any(
        name.lower() == b"te" and b"trailers" in [part.strip(b" \t") for part in value.lower().split(b",")]
        for name, value in headers
    )


def _without_length(headers: Headers) -> Headers:
    return [field for field in headers if field[0].lower() != b"content-length"]


def _forwarded_fields(headers: Headers, options: frozenset[bytes]) -> list[bytes]:
    dropped = HOP_BY_HOP | dropped_by(options) if options else HOP_BY_HOP
    lines = []
    for name, value in headers:
        lower = name.lower()
        if lower in dropped:
            continue
        if lower == b"content-length" and value[:1] == b"0":
            value = value.lstrip(b"0") or b"0"  # others may read octal, or refuse it
        lines.append(b"%b: %b\r\n" % (name, value))
    return lines


def _parse_fields(raw: bytes) -> Headers:
    """Take a head apart that llhttp has found to be in order."""
    headers: Headers = []
    for line in raw[:-4].split(b"\r\n")[1:]:
        name, _, value = line.partition(b":")
        headers.append((name, value.strip(b" \t")))
    return headers


class RequestHead:
    """
    The head of a request.

    @ivar method: such as C{b"GET"}.
    @ivar target: in the form that is forwarded: origin-form, or C{*}.
    @ivar host: the authority: from an absolute target, else from Host; may be
        empty.
    @ivar http11: false for HTTP/1.0.
    @ivar length: bytes of the body, or L{CHUNKED}.
    @ivar keep_alive: whether the sender takes another response on this connection.
    @ivar options: the options of the Connection fields.
    @ivar upgrade: the protocols to which the sender asks to switch, as far as they are passed on (see
        L{reverseproxy.wire.http.upgrades}); empty if it does not.
    @ivar expect_continue: whether it waits for a 100 before it sends the body.
    @ivar raw: the head as it came.
    @ivar forwardable_verbatim: whether it can be forwarded so.
    @ivar asked_host: the authority that the client asked for.
    @ivar mosn: whether it may have headers by which MOSN's proxies talk to each other (C{x-mosn-...}).
    @ivar dropped: the marks of fields that it had, but that its sender may not set: they are in C{raw}
        alone.
    """

    __slots__ = (
        "_headers",
        "asked_host",
        "dropped",
        "expect_continue",
        "forwardable_verbatim",
        "host",
        "http11",
        "keep_alive",
        "length",
        "method",
        "mosn",
        "options",
        "raw",
        "target",
        "upgrade",
    )

    def __init__(
        self,
        raw: bytes,
        method: bytes,
        target: bytes,
        host: bytes,
        http11: bool,
        length: int,
        keep_alive: bool,
        options: frozenset[bytes],
        upgrade: bytes,
        expect_continue: bool,
        forwardable_verbatim: bool,
        headers: Headers | None = None,
        mosn: bool = True,
        dropped: int = NOTHING,
    ) -> None:
        """
        @param headers: the fields, if C{raw} does not hold them: those of a head
            that did not come as HTTP/1.
        """
        self.mosn = mosn
        self.dropped = dropped
        self.raw = raw
        self.method = method
        self.target = target
        self.host = host
        self.http11 = http11
        self.length = length
        self.keep_alive = keep_alive
        self.options = options
        self.upgrade = upgrade
        self.expect_continue = expect_continue
        self.forwardable_verbatim = forwardable_verbatim
        self.asked_host = host
        self._headers = headers

    def __repr__(self) -> str:
        return f"<RequestHead {self.method!r} {self.target!r} host={self.host!r} length={self.length}>"

    @property
    def headers(self) -> Headers:
        """The fields as they came, but for those that were dropped."""
        if self._headers is None:
            headers = _parse_fields(self.raw)
            self._headers = without(headers, self.dropped) if self.dropped else headers
        return self._headers

    @property
    def trails(self) -> bool:
        """Whether trailers are announced although the body has a length, which HTTP/1 can't express."""
        return (
            not self.raw  # it did not come as HTTP/1, whose bodies with a length have no trailers
            and self.length > 0
            and not self.upgrade
            and any(name.lower() == b"trailer" for name, _ in self.headers)
        )

    @property
    def wants_trailers(self) -> bool:
        """Whether the sender has said that it takes trailers in the response."""
        return _takes_trailers(self.headers)

    def lookup(self, name: str) -> str | None:
        """
        Find a header by its lower-case name; several are joined with commas.

        @return: its value, as UTF-8 with surrogate escapes, or L{None}.
        """
        return _lookup(self.headers, name)

    def may_have(self, prefix: bytes) -> bool:
        """
        See at little cost whether there may be a header whose name begins so.

        @param prefix: in lower case.
        """
        if self._headers is None:
            return prefix in self.raw.lower()
        return any(name.lower().startswith(prefix) for name, _ in self._headers)

    def with_request_line(self, raw: bytes, method: bytes, target: bytes) -> RequestHead:
        """
        Make the head of a request that differs in its first line only.

        @param target: in the form that is forwarded, and has no authority.
        """
        return RequestHead(
            raw,
            method,
            target,
            self.host,
            self.http11,
            self.length,
            self.keep_alive,
            self.options,
            self.upgrade,
            self.expect_continue,
            self.forwardable_verbatim,
            None,
            self.mosn,
            self.dropped,
        )

    def rewritten(self, target: bytes, host: bytes, headers: Headers, names: frozenset[bytes]) -> RequestHead:
        """
        Make the head of a request that goes on changed.

        @param names: headers that were changed, in lower case: the client's
            Connection field can't take them out.
        """
        head = RequestHead(
            b"",
            self.method,
            target,
            host,
            self.http11,
            self.length,
            self.keep_alive,
            self.options - names,
            self.upgrade,
            self.expect_continue,
            False,
            headers,
        )
        head.asked_host = self.asked_host
        return head

    def forward(self, by: ForwardedBy | None, default_host: bytes) -> bytes:
        """
        Write the head for the next hop, in HTTP/1.1.

        @param by: what to add, if anything.
        @param default_host: the Host of a request of HTTP/1.0 that has none.  In
            later versions an empty one means that there is none (RFC 9112 3.2).
        """
        if by is None and self.forwardable_verbatim:
            return self.raw
        headers = self.headers if by is None else by.rewrite(self)
        host = self.host
        if not (host or self.http11):
            host = default_host
        lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (self.method, self.target, host)]
        has_host = False
        for index, (name, _) in enumerate(headers):
            if name.lower() == b"host":
                # in its place and in its case
                headers = [*headers[:index], (name, host), *headers[index + 1 :]]
                has_host = True
                break
        if has_host:
            lines[0] = b"%b %b HTTP/1.1\r\n" % (self.method, self.target)
        if not self.http11:  # a server must ignore it, and the client takes no 100 (RFC 9110 10.1.1)
            headers = [field for field in headers if field[0].lower() != b"expect"]
        chunked = self.length == CHUNKED or self.trails
        lines += _forwarded_fields(_without_length(headers) if chunked else headers, self.options)
        connection = []
        if _takes_trailers(headers):
            lines.append(b"TE: trailers\r\n")
            connection.append(b"TE")
        if self.upgrade:
            name = next((name for name, _ in headers if name.lower() == b"upgrade"), b"Upgrade")
            lines.append(b"%b: %b\r\n" % (name, self.upgrade))
            connection.append(b"Upgrade")
        if connection:
            lines.append(b"Connection: %b\r\n" % b", ".join(connection))
        if chunked:
            lines.append(b"Transfer-Encoding: chunked\r\n")
        lines.append(b"\r\n")
        return b"".join(lines)


class ResponseHead:
    """
    The head of a response.

    @ivar status: such as 200.
    @ivar http11: false for HTTP/1.0.
    @ivar length: bytes of the body that follows (0 where the status or the
        method of the request allows none), L{CHUNKED} or L{UNTIL_CLOSE}.
    @ivar keep_alive: whether the sender takes another request on this connection.
    @ivar options: the options of the Connection fields.
    @ivar raw: the head as it came.
    @ivar forwardable_verbatim: whether it can be forwarded so to a client of HTTP/1.1 whose
        connection stays open.
    """

    __slots__ = (
        "_headers",
        "forwardable_verbatim",
        "http11",
        "keep_alive",
        "length",
        "options",
        "raw",
        "status",
    )

    def __init__(
        self,
        raw: bytes,
        status: int,
        http11: bool,
        length: int,
        keep_alive: bool,
        options: frozenset[bytes],
        forwardable_verbatim: bool,
        headers: Headers | None = None,
    ) -> None:
        """
        @param raw: at least the status line.
        @param headers: see L{RequestHead}.
        """
        self.raw = raw
        self.status = status
        self.http11 = http11
        self.length = length
        self.keep_alive = keep_alive
        self.options = options
        self.forwardable_verbatim = forwardable_verbatim
        self._headers = headers

    def __repr__(self) -> str:
        return f"<ResponseHead {self.status} length={self.length}>"

    @property
    def headers(self) -> Headers:
        """The fields as they came."""
        if self._headers is None:
            self._headers = _parse_fields(self.raw)
        return self._headers

    @property
    def trails(self) -> bool:
        """Whether trailers may follow although the body has a length, as in HTTP/2 but not in HTTP/1."""
        return self.length > 0 and self._headers is not None and not self.raw.endswith(b"\r\n\r\n")

    @property
    def reason(self) -> bytes:
        """The reason phrase; may be empty."""
        return self.raw[: self.raw.index(b"\r\n")][13:]

    def with_length(self, raw: bytes, length: int) -> ResponseHead:
        """Make the head of a response that differs in its length and in what does not matter."""
        return ResponseHead(
            raw, self.status, self.http11, length, self.keep_alive, self.options, self.forwardable_verbatim
        )

    def rewritten(self, headers: Headers, names: frozenset[bytes]) -> ResponseHead:
        """Make the head of a response that goes on changed; see L{RequestHead.rewritten}."""
        return ResponseHead(
            self.raw,
            self.status,
            self.http11,
            self.length,
            self.keep_alive,
            self.options - names,
            False,
            headers,
        )

    def lookup(self, name: str) -> str | None:
        """See L{RequestHead.lookup}."""
        return _lookup(self.headers, name)


def response_head_bytes(head: ResponseHead, connection: bytes, chunked: bool) -> bytes:
    """
    Write the head of a response for the previous hop, in HTTP/1.1.

    @param connection: the value of the Connection field; empty for none.
    @param chunked: whether the body will be sent chunked.
    """
    if not connection and head.forwardable_verbatim:
        return head.raw
    lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    upgrades = b""
    if head.status == 101 or head.status == UPGRADE_REQUIRED:
        fields = [field for field in head.headers if field[0].lower() == b"upgrade"]
        upgrades = b"".join([b"%b: %b\r\n" % field for field in fields])
        if upgrades:
            connection = b"Upgrade, " + connection if connection else b"Upgrade"
    headers = head.headers
    if chunked or head.status < 200 or head.status == 204:
        headers = _without_length(headers)
    lines += _forwarded_fields(headers, head.options)
    lines.append(upgrades)
    if connection:
        lines.append(b"Connection: %b\r\n" % connection)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
