"""
HTTP/1 as events: a strict layer over llhttp.

Feed bytes, get events: a L{RequestHead} or L{ResponseHead}, the body as plain
C{bytes}, an L{End}; last and once an L{HttpError} if the peer broke the rules,
after everything that was in order before it.  A body of known length does not
go through llhttp but is counted here.

llhttp in its strict mode refuses what request smuggling is made of: both or
several lengths, folded lines, bare CR or LF, space before a colon, lengths that
are not digits, bad chunk sizes, control characters.  On top of that this module
refuses a missing or second Host, HTTP/1.0 with Transfer-Encoding, transfer
codings other than chunked, targets that are not for a reverse proxy, and
everything over its limits.
"""

from __future__ import annotations

__all__ = [
    "CHUNKED",
    "END",
    "MAX_HEADERS",
    "MAX_RESPONSE_HEAD",
    "UNTIL_CLOSE",
    "End",
    "Event",
    "RequestHead",
    "RequestParser",
    "ResponseHead",
    "ResponseParser",
]

import re
from typing import Any, Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http1_headers import (
    CHUNKED,
    UNTIL_CLOSE,
    Headers,
    RequestHead,
    ResponseHead,
    connection_options,
    forbidden_in_trailers,
    status_line,
)

MAX_HEADERS: Final = 100
"""Fields in a head, or in trailers."""

MAX_RESPONSE_HEAD: Final = 65536
"""Bytes of a response head.  Requests have a limit of their own, which is configured."""

CHUNK_EXCESS: Final = 16384
"""
Bytes of a chunked body that may be something else than data, beyond what
reasonable chunks need.  What counts are chunk extensions, trailers that
trickle in and very small chunks.
"""

_CHUNK_ALLOWANCE: Final = 16
"""Bytes that one chunk may take besides its data without counting as excess."""


class End:
    """
    The end of a message.

    @ivar trailers: the fields that came behind a chunked body.
    """

    __slots__ = ("trailers",)

    def __init__(self, trailers: Headers) -> None:
        self.trailers = trailers

    def __repr__(self) -> str:
        return f"End({self.trailers!r})"


END: Final = End([])
"""The end of a message without trailers."""

Event = RequestHead | ResponseHead | bytes | End | HttpError
"""What C{feed} returns."""

_HEAD_END: Final = b"\r\n\r\n"

_HOST, _LENGTH, _CODING, _CONNECTION, _EXPECT, _UPGRADE, _OTHER_HOP = range(1, 8)

_KINDS: Final = {
    b"host": _HOST,
    b"content-length": _LENGTH,
    b"transfer-encoding": _CODING,
    b"connection": _CONNECTION,
    b"expect": _EXPECT,
    b"upgrade": _UPGRADE,
    b"keep-alive": _OTHER_HOP,
    b"proxy-connection": _OTHER_HOP,
    b"te": _OTHER_HOP,
    b"http2-settings": _OTHER_HOP,
}

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_ONLY_KEEP_ALIVE: Final = frozenset({b"keep-alive"})

_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]+)(.*)", re.DOTALL)
_TOKEN_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [^\r\n]* HTTP/1\.[01]\r?\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_DIGITS: Final = re.compile(rb"[0-9]{1,20}")


class _Parser:
    """
    What requests and responses have in common: feeding llhttp, within bounds.

    @ivar closed: no further message is read: there was an error, or the last
        message was the last one on its connection.
    """

    status = 400
    """The status of an error that has no better one."""

    __slots__ = (
        "_body",
        "_chunked",
        "_counted",
        "_events",
        "_excess",
        "_fed",
        "_headers",
        "_in_head",
        "_last",
        "_llhttp",
        "_loose",
        "_max_head",
        "_offset",
        "_partial",
        "_start",
        "_text",
        "_trailers",
        "closed",
    )

    def __init__(self, max_head: int) -> None:
        self.closed = False
        self._max_head = max_head
        self._llhttp: Any = None
        self._events: list[Event] = []
        self._headers: Headers = []
        self._trailers: Headers = []
        self._start = b""  # target, or reason phrase
        self._in_head = False  # some of a head has come, but not all
        self._partial = b""  # what has come of that head in earlier feeds
        self._text = b""  # _partial and what is fed now
        self._offset = 0  # where in _text the current message begins; -1: unknown
        self._loose = 0  # bytes of the current head, roughly, if _offset is unknown
        self._body = 0  # bytes of a body of known length that are still to come
        self._counted = False  # the body is counted here, past llhttp
        self._chunked = False  # in a chunked body
        self._excess = 0  # of a chunked body, what is not data; negative for what came before the body
        self._fed = 0  # bytes of the current feed, at the end of _text
        self._last = False  # the current message is the last one
        self._renew()

    def _renew(self) -> None:
        raise NotImplementedError

    @property
    def in_head(self) -> bool:
        """Whether some of a head has come, but not all of it."""
        return self._in_head

    def close(self) -> None:
        """Read nothing more, and let go of llhttp, which refers back to us."""
        self.closed = True
        self._in_head = False
        self._llhttp = None

    def _fail(self, status: int, message: str) -> None:
        self._events.append(HttpError(status, message))
        self.close()

    def _feed(self, data: bytes) -> None:
        """Pass bytes to llhttp, which appends to the events through the callbacks."""
        while data and not self.closed:
            data = self._count(data) if self._counted else self._parse(data)

    def _count(self, data: bytes) -> bytes:
        """Take a body of known length; return what comes behind it."""
        size = len(data)
        left = self._body
        if size < left:
            self._body = left - size
            self._events.append(data)
            return b""
        self._renew()
        self._events.append(data if size == left else data[:left])
        self._counted = False
        self.on_message_complete()
        return data[left:]

    def _parse(self, data: bytes) -> bytes:
        """Feed llhttp; return what it has left for another look."""
        was_chunked = self._chunked
        if self._partial:
            self._text = self._partial + data
            self._partial = b""
        else:
            self._text = data
        if not self._in_head:
            self._offset = -1 if was_chunked else 0
        first = len(self._events)
        self._fed = len(data)
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            return self._upgraded(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            if not isinstance(cause, HttpError):
                raise
            self._fail(cause.status, str(cause))
        except httptools.HttpParserError as error:
            if not self.closed:  # else these are bytes behind the last message
                self._malformed(error)
        if self.closed:
            return b""
        if self._in_head:
            self._check_partial(len(data))
        elif self._chunked:
            self._check_chunks(len(data), self._events[first:])
        elif self._body > 0:
            # The rest of this body needs no parser; llhttp is renewed behind it.
            self._counted = True
        return b""

    def _upgraded(self, rest: bytes) -> bytes:
        raise NotImplementedError

    def _malformed(self, error: httptools.HttpParserError) -> None:
        self._fail(self.status, str(error))

    def _check_partial(self, fed: int) -> None:
        """Bound a head that has not come completely."""
        if self._offset < 0:
            # It began behind a chunked body, so that we don't know where.
            self._loose += fed if self._loose else 1 + self._known_size()
            size = self._loose
            self._partial = self._text[-self._max_head :]  # holds the start line, if it is not too large
        else:
            self._partial = self._text[self._offset :] if self._offset else self._text
            self._offset = 0
            size = len(self._partial)
        if size > self._max_head:
            self._too_large(not self._headers and b"\r\n" not in self._partial.lstrip(b"\r\n"))

    def _known_size(self) -> int:
        return len(self._start) + sum([len(name) + len(value) + 4 for name, value in self._headers])

    def _too_large(self, start_line: bool) -> None:
        raise NotImplementedError

    def _check_chunks(self, size: int, events: list[Event]) -> None:
        """Bound what a chunked body has besides data; a slow trickle counts as well."""
        for event in events:
            if isinstance(event, bytes):
                size -= 3 * len(event) + _CHUNK_ALLOWANCE
        self._excess = max(0, self._excess + size)
        if self._excess > CHUNK_EXCESS:
            self._fail(self.status, "too little data in a chunked body")

    def _begin_chunks(self) -> None:
        self._chunked = True
        if self._offset < 0:
            self._excess = -self._fed
        else:
            self._excess = len(self._text) - self._fed - self._offset
            self._offset = -1

    def _skip_empty_lines(self) -> int:
        """Where the current head begins: llhttp ignores empty lines before it."""
        text, offset = self._text, self._offset
        while text[offset : offset + 1] in (b"\r", b"\n"):
            offset += 1
        return offset

    # llhttp's callbacks

    def on_message_begin(self) -> None:
        """A message begins."""
        self._in_head = True
        self._headers = []
        self._start = b""
        self._loose = 0

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head or of the trailers."""
        if self._in_head:
            headers = self._headers
        else:
            headers = self._trailers
            if (
                sum(len(name) + len(value) for name, value in headers) + len(name) + len(value)
                > self._max_head
            ):
                raise HttpError(self.status, "trailers too large")
        if len(headers) >= MAX_HEADERS:
            raise HttpError(
                431 if self.status == 400 else self.status, f"more than {MAX_HEADERS} header fields"
            )
        headers.append((name, value))

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._body > 0:
            self._body -= len(data)
        self._events.append(data)

    def on_message_complete(self) -> None:
        """The message is complete."""
        self._body = 0
        if self._chunked:
            self._chunked = False
            self._excess = 0
            trailers = [field for field in self._trailers if not forbidden_in_trailers(field[0])]
            self._trailers = []
            if trailers:
                self._events.append(End(trailers))
                return
        self._events.append(END)


class RequestParser(_Parser):
    """
    Requests of one connection.

    After a head with L{RequestHead.upgrade} what follows is kept, as it is not
    known yet whether it is HTTP: ask C{resume} or C{take_held}.

    @ivar held: whether bytes are kept in this way from now on.
    @ivar held_size: how many are kept.
    """

    __slots__ = ("_good_host", "_held", "_ignored", "_priming", "held", "held_size")

    def __init__(self, max_head: int = 8192) -> None:
        """
        @param max_head: the most bytes of a head.
        """
        self.held = False
        self.held_size = 0
        self._held: list[bytes] = []
        self._ignored = 0  # the length of the body behind an upgrade that we ignore
        self._priming = False
        self._good_host = b""
        super().__init__(max_head)

    def _renew(self) -> None:
        self._llhttp = httptools.HttpRequestParser(self)

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what they complete.  Nothing comes behind an L{HttpError}, nor
            behind the end of a request without L{RequestHead.keep_alive}.
        """
        if self.held:
            self._held.append(data)
            self.held_size += len(data)
            return []
        events: list[Event] = []
        self._events = events
        self._feed(data)
        return events

    def resume(self) -> list[Event]:
        """Go on with HTTP, as the upgrade was declined."""
        data = self.take_held()
        self._renew()
        return self.feed(data) if data else []

    def take_held(self) -> bytes:
        """Take the bytes behind a request whose upgrade was accepted."""
        self.held = False
        self.held_size = 0
        data = b"".join(self._held)
        self._held.clear()
        return data

    def _upgraded(self, rest: bytes) -> bytes:
        if self.closed:
            return b""
        length, self._ignored = self._ignored, 0
        if not length and self.held:
            if rest:
                self._held.append(rest)
                self.held_size += len(rest)
            return b""
        # llhttp stopped behind the head, but for us this is an ordinary request.
        self._renew()
        if length > 0:
            self._body = length
            self._counted = True
        elif length == CHUNKED:
            self._chunked = True
            self._priming = True
            self._llhttp.feed_data(b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n")
            self._priming = False
            self._in_head = False
        return rest

    def _malformed(self, error: httptools.HttpParserError) -> None:
        status, message = 400, str(error)
        if isinstance(error, httptools.HttpParserInvalidMethodError):
            # A method that nobody knows, if all of the line has come; else who knows what this is.
            if self._offset >= 0 and _TOKEN_LINE.match(self._text, self._skip_empty_lines()):
                status = 501
        elif "PRI" in message:
            status, message = 505, "HTTP/2 is not spoken here"
        self._fail(status, message)

    def _too_large(self, start_line: bool) -> None:
        if start_line:
            self._fail(414, f"request line larger than {self._max_head} bytes")
        else:
            self._fail(431, f"request head larger than {self._max_head} bytes")

    def on_url(self, part: bytes) -> None:
        """A part of the target."""
        self._start += part

    def on_headers_complete(self) -> None:
        """The head is complete."""
        if self._priming:
            return
        self._in_head = False
        llhttp = self._llhttp
        method: bytes = llhttp.get_method()
        target = self._start
        http11, raw = self._read_start_line(method, target)
        if method == b"CONNECT":
            raise HttpError(405, "CONNECT is not for a reverse proxy")

        host: bytes | None = None
        length = 0
        options = _NO_OPTIONS
        expect = False
        upgrade: bytes | None = None
        clean = http11
        codings = 0
        connection: list[bytes] | None = None
        for name, value in self._headers:
            kind = _KINDS.get(name.lower())
            if kind is None:
                continue
            if kind == _HOST:
                if host is not None:
                    raise HttpError(400, "more than one Host")
                host = value.strip(b" \t")
            elif kind == _LENGTH:
                value = value.strip(b" \t")
                if not _DIGITS.fullmatch(value):
                    raise HttpError(400, "Content-Length is not a number")
                length = int(value)
            elif kind == _CODING:
                codings += 1
                if codings > 1:
                    raise HttpError(400, "more than one Transfer-Encoding")
                if not http11:
                    raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
                if value.strip(b" \t").lower() != b"chunked":
                    raise HttpError(501, "transfer coding other than chunked")
                length = CHUNKED
            elif kind == _CONNECTION:
                if connection is None:
                    connection = []
                connection.append(value)
            elif kind == _EXPECT:
                expect = expect or (http11 and value.strip(b" \t").lower() == b"100-continue")
            else:
                clean = False
                if kind == _UPGRADE:
                    upgrade = value if upgrade is None else upgrade + b"," + value
        keep_alive = http11
        if connection is not None:
            options = connection_options(connection)
            if options != _ONLY_KEEP_ALIVE:
                clean = False
            keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)
        if target[:1] != b"/" or b"#" in target:
            target, authority = self._read_target(method, target)
            if authority is not None:
                if host is None and http11:
                    raise HttpError(400, "no Host")
                host = authority
                clean = False
        if host is None:
            if http11:
                raise HttpError(400, "no Host")
            host = b""
        elif host != self._good_host:
            if not _AUTHORITY.fullmatch(host):
                raise HttpError(400, "Host is not an authority")
            self._good_host = host

        switch = False
        if llhttp.should_upgrade():
            # h2c would let requests past that nobody looks at; RFC 9113 dropped it.
            # An upgrade behind a body is legal but unheard of.  Both may be ignored.
            switch = (
                http11 and length == 0 and upgrade is not None and not re.search(rb"(?i)\bh2c\b", upgrade)
            )
            self.held = switch
            self._ignored = length
        self._events.append(
            RequestHead(
                method,
                target,
                host,
                http11,
                self._headers,
                length,
                keep_alive,
                options,
                switch,
                expect,
                raw if clean else None,
            )
        )
        self._last = not keep_alive
        if length == CHUNKED:
            self._begin_chunks()
        else:
            self._body = length
            if self._offset >= 0:
                self._offset += length

    def _read_start_line(self, method: bytes, target: bytes) -> tuple[bool, bytes | None]:
        """
        Check the request line for what llhttp is lenient with, and find the raw head.

        @return: whether it is HTTP/1.1, and the raw head if we know where it is.
        """
        text, offset = self._text, self._offset
        line = b"%b %b HTTP/1.1\r\n" % (method, target)
        if offset < 0:
            # We don't know where this head begins: it came behind a chunked body.
            if self._known_size() > self._max_head:
                raise HttpError(431, f"request head larger than {self._max_head} bytes")
            version = self._llhttp.get_http_version()
            if version not in ("1.0", "1.1"):
                return self._read_odd_version()
            if b"%b %b HTTP/%b\r\n" % (method, target, version.encode("ascii")) not in text:
                raise HttpError(400, "malformed request line")
            return version == "1.1", None
        if not text.startswith(line, offset):
            offset = self._skip_empty_lines()
        http11 = text.startswith(line, offset)
        if not http11 and not text.startswith(b"%b %b HTTP/1.0\r\n" % (method, target), offset):
            return self._read_odd_version()
        end = text.find(_HEAD_END, offset) + 4
        if end - offset > self._max_head:
            if len(line) > self._max_head:
                raise HttpError(414, f"request line larger than {self._max_head} bytes")
            raise HttpError(431, f"request head larger than {self._max_head} bytes")
        self._offset = end
        return http11, text[offset:end]

    def _read_odd_version(self) -> tuple[bool, bytes | None]:
        version = self._llhttp.get_http_version()
        if version in ("1.0", "1.1"):
            raise HttpError(400, "malformed request line")
        if version == "0.9":
            raise HttpError(400, "HTTP/0.9 is not spoken here")
        raise HttpError(505, f"HTTP/{version} is not spoken here")

    def _read_target(self, method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
        """
        Bring a target that is no plain origin-form into the form that is forwarded.

        @return: the new target, and the authority if the target had one.
        """
        if target == b"*":
            if method != b"OPTIONS":
                raise HttpError(400, "target * is for OPTIONS only")
            return target, None
        absolute = _ABSOLUTE.fullmatch(target)
        if absolute is None or b"#" in target:
            raise HttpError(400, "target is neither a path nor a URL")
        authority, path = absolute.groups()
        if path[:1] != b"/":
            path = b"*" if not path and method == b"OPTIONS" else b"/" + path
        return path, authority

    def on_message_complete(self) -> None:
        """The message is complete."""
        if self._ignored:
            return
        super().on_message_complete()
        if self._last:
            self.close()


class ResponseParser(_Parser):
    """
    Responses of one connection.

    Call C{expect} before each request.

    @ivar surplus: whether bytes came that belong to no response that was asked
        for; the connection can't be used any more.
    """

    status = 502

    __slots__ = ("_complete", "_head_only", "_head_request", "_rest", "_until_close", "surplus")

    def __init__(self, max_head: int = MAX_RESPONSE_HEAD) -> None:
        self.surplus = False
        self._head_request = False
        self._complete = True
        self._head_only = False
        self._until_close = False
        self._rest = b""
        super().__init__(max_head)

    def _renew(self) -> None:
        self._llhttp = httptools.HttpResponseParser(self)

    def expect(self, head_request: bool) -> None:
        """
        Get ready for the response to a request.

        @param head_request: whether its method is HEAD, so that no body follows.
        """
        self._complete = False
        self._head_request = head_request

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what they complete; the final L{End} is the last event there
            is until C{expect} is called again.  Behind a head of status 101
            the bytes are not HTTP: C{take_rest}.
        """
        if self._until_close:
            return [data]
        if self._complete:
            self.surplus = True
            return []
        events: list[Event] = []
        self._events = events
        self._feed(data)
        return events

    def _feed(self, data: bytes) -> None:
        if self._counted:
            data = self._count(data)
            if data:
                self.surplus = True
        elif not self.closed:
            self._parse(data)

    def eof(self) -> list[Event]:
        """
        The peer has closed the connection.

        @return: the end of a response that ends so, an error if one was cut
            off or never came, or nothing if none was expected.
        """
        if self._complete or self.closed:
            return []
        if self._until_close:
            self._until_close = False
            self._complete = True
            self.close()
            return [END]
        self._events = []
        self._fail(502, "connection closed before the end of the response")
        return self._events

    def take_rest(self) -> bytes:
        """Take what came behind a head of status 101."""
        rest, self._rest = self._rest, b""
        return rest

    def _upgraded(self, rest: bytes) -> bytes:
        self._rest = rest
        self.close()
        return b""

    def _malformed(self, error: httptools.HttpParserError) -> None:
        if self._complete:
            self.surplus = True
            self.close()
        else:
            super()._malformed(error)

    def _too_large(self, start_line: bool) -> None:
        self._fail(502, f"response head larger than {self._max_head} bytes")

    def on_message_begin(self) -> None:
        """A message begins."""
        if self._complete:
            self.surplus = True
        else:
            super().on_message_begin()

    def on_status(self, part: bytes) -> None:
        """A part of the reason phrase."""
        self._start += part

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the head or of the trailers."""
        if not self._complete:
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        """The head is complete."""
        self._in_head = False
        if self._complete:
            return
        llhttp = self._llhttp
        status: int = llhttp.get_status_code()
        text = self._text
        offset = self._offset
        line = status_line(status)
        if not text.startswith(line, offset):
            offset = self._skip_empty_lines()
            if not _STATUS_LINE.match(text, offset):
                raise HttpError(502, "malformed status line in the response")
        end = text.find(_HEAD_END, offset) + 4
        if end - offset > self._max_head:
            raise HttpError(502, f"response head larger than {self._max_head} bytes")
        self._offset = end
        http11 = text.startswith(b"HTTP/1.1 ", offset)

        length = UNTIL_CLOSE
        codings = 0
        clean = http11
        options = _NO_OPTIONS
        connection: list[bytes] | None = None
        for name, value in self._headers:
            kind = _KINDS.get(name.lower())
            if kind is None or kind in (_HOST, _EXPECT):
                continue
            if kind == _LENGTH:
                value = value.strip(b" \t")
                if not _DIGITS.fullmatch(value):
                    raise HttpError(502, "Content-Length of the response is not a number")
                length = int(value)
            elif kind == _CODING:
                codings += 1
                if codings > 1 or not http11 or value.strip(b" \t").lower() != b"chunked":
                    raise HttpError(502, "transfer coding of the response is not understood")
                length = CHUNKED
            elif kind == _CONNECTION:
                if connection is None:
                    connection = []
                connection.append(value)
            else:
                clean = False
        keep_alive = http11
        if connection is not None:
            options = connection_options(connection)
            if options != _ONLY_KEEP_ALIVE:
                clean = False
            keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)

        interim = status < 200
        bodiless = interim or status == 204 or status == 304
        if bodiless:
            if interim and length not in (UNTIL_CLOSE, 0):
                raise HttpError(502, "interim response with a body")
            if length == CHUNKED or (length != UNTIL_CLOSE and status != 304):
                clean = False  # such framing is not forwarded
            length = 0
        elif self._head_request:
            if length == CHUNKED:
                clean = False
            length = 0
        elif length == UNTIL_CLOSE:
            clean = False
            keep_alive = False
        if status == 101 and not llhttp.should_upgrade():
            raise HttpError(502, "101 without Connection: upgrade")
        self._events.append(
            ResponseHead(
                status,
                self._start,
                http11,
                self._headers,
                length,
                keep_alive,
                options,
                text[offset:end] if clean else None,
            )
        )
        if length == CHUNKED:
            self._begin_chunks()
        elif length > 0:
            self._body = length
        elif length == UNTIL_CLOSE:
            self._until_close = True
        elif self._head_request and not bodiless:
            # llhttp can't be told that no body follows: finish here, with a new one for what comes next.
            self._head_only = True
            self.on_message_complete()

    def on_body(self, data: bytes) -> None:
        """A part of the body."""
        if self._complete:
            self.surplus = True
            return
        super().on_body(data)

    def on_message_complete(self) -> None:
        """The message is complete."""
        if self._complete:
            return
        last = self._events[-1] if self._events else None
        if isinstance(last, ResponseHead) and last.status < 200:
            return  # interim: no end of its own, and the next head follows
        self._complete = True
        super().on_message_complete()

    def _parse(self, data: bytes) -> bytes:
        super()._parse(data)
        if self._head_only:
            self._head_only = False
            if len(self._text) > self._offset:
                self.surplus = True
            if not self.closed:
                self._renew()
        return b""
