"""
Heads of HTTP/1: what they have beyond those of other versions, and how they are written for the next hop.

A head that needs no change is forwarded as the bytes that came.  Every other one
is written anew, with names in their case and fields in their order, without
fields that concern the previous connection only (RFC 9110 7.6.1).
"""

from __future__ import annotations

__all__ = ["RequestHead", "ResponseHead", "request_head_bytes", "response_head_bytes"]

from reverseproxy.wire.http.border import NOTHING, without
from reverseproxy.wire.http.fields import (
    UPGRADE_REQUIRED,
    Headers,
    dropped_by,
    takes_trailers,
    without_length,
)
from reverseproxy.wire.http.forwarded import ForwardedBy
from reverseproxy.wire.http.hop_by_hop import HOP_BY_HOP
from reverseproxy.wire.http.message import Request, Response
from reverseproxy.wire.http1.fields import CHUNKED, parse_fields, status_line


class RequestHead(Request):
    """
    The head of a request that came by HTTP/1.

    @ivar keep_alive: whether the sender takes another response on this connection.
    @ivar raw: the head as it came, with the fields that were dropped.
    @ivar forwardable_verbatim: whether L{raw} can be forwarded.
    """

    __slots__ = ("forwardable_verbatim", "keep_alive", "raw")

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
        awaits_continue: bool,
        forwardable_verbatim: bool,
        mosn: bool = True,
        dropped: int = NOTHING,
    ) -> None:
        # Without a call to Request.__init__: this runs for every request.
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
        self.awaits_continue = awaits_continue
        self.forwardable_verbatim = forwardable_verbatim
        self.asked_host = host
        self._headers = self._deadline = None

    @property
    def headers(self) -> Headers:
        """The fields as they came, but for those that were dropped."""
        if self._headers is None:
            headers = parse_fields(self.raw)
            self._headers = without(headers, self.dropped) if self.dropped else headers
        return super().headers

    @property
    def trails(self) -> bool:
        """Always false: in HTTP/1, a body with a length has no trailers."""
        return False

    @property
    def deadline(self) -> bytes:
        """See L{Request.deadline}; looked for once in a head that comes again and again."""
        deadline = self._deadline
        if deadline is None:
            text = self.lookup("grpc-timeout") if self.may_have(b"grpc-timeout") else None
            deadline = self._deadline = b"" if text is None else text.encode("utf-8", "surrogateescape")
        return deadline

    def may_have(self, prefix: bytes) -> bool:
        """See L{Request.may_have}."""
        if self._headers is None:
            return prefix in self.raw.lower()
        return super().may_have(prefix)

    def with_request_line(self, raw: bytes, method: bytes, target: bytes) -> RequestHead:
        """
        Make the head of a request that differs in its first line only.

        @param raw: all of it.
        @param target: in origin-form.
        """
        head = RequestHead(
            raw,
            method,
            target,
            self.host,
            self.http11,
            self.length,
            self.keep_alive,
            self.options,
            self.upgrade,
            self.awaits_continue,
            self.forwardable_verbatim,
            self.mosn,
            self.dropped,
        )
        head._deadline = self._deadline  # the fields are the same
        return head


class ResponseHead(Response):
    """
    The head of a response that came by HTTP/1.

    @ivar http11: false for HTTP/1.0.
    @ivar length: bytes of the body that follows (0 where the status or the
        method of the request allows none), L{CHUNKED} or
        L{UNTIL_CLOSE<reverseproxy.wire.http1.fields.UNTIL_CLOSE>}.
    @ivar keep_alive: whether the sender takes another request on this connection.
    @ivar raw: the head as it came.
    @ivar forwardable_verbatim: whether L{raw} can be forwarded to a client of HTTP/1.1 whose
        connection persists.
    """

    __slots__ = ("forwardable_verbatim", "http11", "keep_alive", "raw")

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
        @param headers: the fields, if they are not those of C{raw} any more.
        """
        self.raw = raw
        self.status = status
        self.http11 = http11
        self.length = length
        self.keep_alive = keep_alive
        self.options = options
        self.forwardable_verbatim = forwardable_verbatim
        self._headers = headers

    @property
    def headers(self) -> Headers:
        """The fields as they came."""
        if self._headers is None:
            self._headers = parse_fields(self.raw)
        return super().headers

    @property
    def trails(self) -> bool:
        """No: in HTTP/1, a body with a length has no trailers."""
        return False

    @property
    def reason(self) -> bytes:
        """The reason phrase; may be empty."""
        return self.raw[: self.raw.index(b"\r\n")][13:]

    def with_length(self, raw: bytes, length: int) -> ResponseHead:
        """Make the head of a response that differs in its length and in fields that are not significant."""
        return ResponseHead(
            raw, self.status, self.http11, length, self.keep_alive, self.options, self.forwardable_verbatim
        )

    def rewritten(self, headers: Headers, names: frozenset[bytes]) -> ResponseHead:
        """See L{Response.rewritten}; the reason phrase stays."""
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


def request_head_bytes(head: Request, by: ForwardedBy | None, default_host: bytes) -> bytes:
    """
    Write the head of a request for the next hop, in HTTP/1.1.

    @param by: what to add, if anything.
    @param default_host: see L{Request.authority}.
    """
    if by is None and isinstance(head, RequestHead) and head.forwardable_verbatim:
        return head.raw
    headers = head.headers if by is None else by.rewrite(head)
    host = head.authority(default_host)
    lines = [b"%b %b HTTP/1.1\r\nHost: %b\r\n" % (head.method, head.target, host)]
    has_host = False
    for index, (name, _) in enumerate(headers):
        if name.lower() == b"host":
            # The field keeps its place and its case.
            headers = [*headers[:index], (name, host), *headers[index + 1 :]]
            has_host = True
            break
    if has_host:
        lines[0] = b"%b %b HTTP/1.1\r\n" % (head.method, head.target)
    if not head.http11:  # a server must ignore it, and the client takes no 100 (RFC 9110 10.1.1)
        headers = [field for field in headers if field[0].lower() != b"expect"]
    chunked = head.length == CHUNKED or head.trails
    lines += _forwarded_fields(without_length(headers) if chunked else headers, head.options)
    connection = []
    if takes_trailers(headers):
        lines.append(b"TE: trailers\r\n")
        connection.append(b"TE")
    if head.upgrade:
        name = next((name for name, _ in headers if name.lower() == b"upgrade"), b"Upgrade")
        lines.append(b"%b: %b\r\n" % (name, head.upgrade))
        connection.append(b"Upgrade")
    if connection:
        lines.append(b"Connection: %b\r\n" % b", ".join(connection))
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)


def response_head_bytes(head: Response, connection: bytes, chunked: bool) -> bytes:
    """
    Write the head of a response for the previous hop, in HTTP/1.1.

    @param connection: the value of the Connection field; empty for none.
    @param chunked: whether the body will be sent chunked.
    """
    if isinstance(head, ResponseHead):
        if not connection and head.forwardable_verbatim:
            return head.raw
        lines = [b"HTTP/1.1 %d %b\r\n" % (head.status, head.reason)]
    else:
        lines = [status_line(head.status)]
    upgrades = b""
    if head.status == 101 or head.status == UPGRADE_REQUIRED:
        fields = [field for field in head.headers if field[0].lower() == b"upgrade"]
        upgrades = b"".join([b"%b: %b\r\n" % field for field in fields])
        if upgrades:
            connection = b"Upgrade, " + connection if connection else b"Upgrade"
    headers = head.headers
    if chunked or head.status < 200 or head.status == 204:
        headers = without_length(headers)
    lines += _forwarded_fields(headers, head.options)
    lines.append(upgrades)
    if connection:
        lines.append(b"Connection: %b\r\n" % connection)
    if chunked:
        lines.append(b"Transfer-Encoding: chunked\r\n")
    lines.append(b"\r\n")
    return b"".join(lines)
