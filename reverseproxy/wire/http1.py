"""
HTTP/1 as events: a strict layer over llhttp.

Feed bytes, get events: a L{RequestHead} or L{ResponseHead}, the body as plain
C{bytes}, an L{End}; last and once an L{HttpError} if the peer broke the rules,
after everything that was in order before it.

llhttp sees heads and chunked bodies.  In its strict mode it refuses what
request smuggling is made of: both or several lengths, folded lines, bare CR or
LF, space before a colon, lengths that are not digits, bad chunk sizes, control
characters.  Where a head ends, and what body follows, is decided here, and what
decides it must be unambiguous: on top of what llhttp refuses, this module
refuses a missing or second Host, HTTP/1.0 with Transfer-Encoding, transfer
codings other than chunked, targets that are not for a reverse proxy, and
everything over its limits.
"""

from __future__ import annotations

__all__ = [
    "CHUNKED",
    "CHUNK_EXCESS",
    "END",
    "MAX_HEADERS",
    "MAX_INTERIM",
    "MAX_KNOWN",
    "MAX_RESPONSE_HEAD",
    "SHAPE_AFTER",
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
from reverseproxy.wire.http1_chunks import CHUNK_EXCESS, MAX_HEADERS, ChunkDecoder
from reverseproxy.wire.http1_headers import (
    CHUNKED,
    UNTIL_CLOSE,
    Headers,
    RequestHead,
    ResponseHead,
    connection_options,
    content_length,
)
from reverseproxy.wire.http1_shapes import Shape, request_shape, response_shape

MAX_RESPONSE_HEAD: Final = 65536
"""Bytes of a response head.  Requests have a limit of their own, which is configured."""


MAX_KNOWN: Final = 4096
"""Bytes of the largest head that is kept, so that the next one on its connection can be compared with it."""

SHAPE_AFTER: Final = 32
"""Heads in a row that are not of the shape that is known, after which another one is looked for."""

MAX_INTERIM: Final = 100
"""Interim responses (1xx) before the final one."""


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

_EMPTY_LINE: Final = b"\r\n\r\n"
_OK: Final = b"HTTP/1.1 200 OK\r\n"

_MANY: Final = len(b"X:\r\n") * MAX_HEADERS
"""Bytes of a head that may have too many fields."""

# The fields that matter here, in a head in lower case: finding them is what most
# of the time for a head is spent on.  An expression that ignores case takes longer.
_FIELDS: Final = re.compile(
    rb"\r\n(con(?:tent-length|nection)|t(?:ransfer-encoding|e)|h(?:ost|ttp2-settings)"
    rb"|expect|upgrade|keep-alive|proxy-connection|x-mosn-[^:]*):([ \t]*)([^\r]*)"
)

_HOST, _LENGTH, _CODING, _CONNECTION, _EXPECT, _UPGRADE, _OTHER_HOP, _MOSN = range(1, 9)

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

# A request line that is in order, whatever comes behind it.  What else is in order is for llhttp to say.
_REQUEST_LINE: Final = re.compile(
    rb"(GET|HEAD|POST|PUT|PATCH|DELETE|OPTIONS) (/[!-\"$-~]*) HTTP/1\.1(?=\r\n)"
)

_NO_OPTIONS: Final[frozenset[bytes]] = frozenset()
_ONLY_KEEP_ALIVE: Final = frozenset({b"keep-alive"})

_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]+)(.*)", re.DOTALL)
_METHOD_LINE: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]{1,32} [^ \r\n]+ HTTP/1\.[01]\r\n")
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")
_H2C: Final = re.compile(rb"(?i)\bh2c\b")


# Whether a field that there is but once is written as everybody understands it: blanks other than one
# space, or zeros in front, are understood here but not everywhere.  Who disagrees about where a message
# ends takes a part of it for the next one.
def _is_plain_length(gap: bytes, value: bytes) -> bool:
    return gap == b" " and value.isdigit() and (value[0] != 48 or len(value) == 1)


_PLAIN_CODING: Final = re.compile(rb"\r\n(?i:transfer-encoding): chunked\r\n")


class _Parser:
    """
    What requests and responses have in common: where messages begin and end.

    @ivar closed: no further message is read: there was an error, or the last
        message was the last one on its connection.
    """

    fault = 400
    """The status of an error that has no better one."""

    __slots__ = ("_chunks", "_events", "_left", "_llhttp", "_max_head", "_partial", "closed")

    def __init__(self, max_head: int) -> None:
        self.closed = False
        self._max_head = max_head
        self._events: list[Event] = []
        self._partial = b""  # what has come of a head, which llhttp has seen
        self._left = 0  # bytes of a body of known length that are still to come; UNTIL_CLOSE
        self._chunks: ChunkDecoder | None = None  # in a chunked body
        self._llhttp: Any = None
        self._renew()

    def _renew(self) -> None:
        """Make a new llhttp, which knows nothing of what came before."""
        raise NotImplementedError

    @property
    def in_head(self) -> bool:
        """Whether some of a head has come, but not all of it."""
        return bool(self._partial)

    @property
    def left(self) -> int:
        """How many bytes of a body of known length are still to come; 0 or less for any other."""
        return self._left

    def leave_out(self, size: int) -> None:
        """
        Be told that the next bytes of a body of known length go another way.

        @param size: how many; less than C{left}.
        """
        assert 0 <= size < self._left
        self._left -= size

    def close(self) -> None:
        """Read nothing more."""
        self.closed = True
        self._partial = b""
        if self._chunks is not None:
            self._chunks.close()
            self._chunks = None

    def _fail(self, status: int, message: str) -> None:
        self._events.append(HttpError(status, message))
        self.close()

    def _feed_head(self, data: bytes) -> bytes:
        """Take bytes where a head is, or begins; return what comes behind it."""
        partial = self._partial
        if partial:
            text = partial + data
            end = text.find(_EMPTY_LINE, max(0, len(partial) - 3)) + 4
        else:
            if data[0] in b"\r\n":
                data = data.lstrip(b"\r\n")  # empty lines before a message mean nothing (RFC 9112 2.2)
            text = data
            end = data.find(_EMPTY_LINE) + 4
        try:
            if end < 4:
                return self._feed_partial(text, data)
            if end > self._max_head:
                self._too_large(text)
                return b""
            raw = text[:end]
            self._llhttp.feed_data(raw[len(partial) :] if partial else raw)
        except httptools.HttpParserUpgrade:
            pass  # which is decided elsewhere
        except httptools.HttpParserError as error:
            self._malformed(error, text)
            return b""
        self._partial = b""
        try:
            self._take_head(raw)
        except HttpError as error:
            self._fail(error.status, str(error))
            return b""
        return text[end:]

    def _feed_partial(self, text: bytes, data: bytes) -> bytes:
        # llhttp sees it now, so that what is no HTTP is refused before it has come to an end.
        if data:
            self._llhttp.feed_data(data)
            self._partial = text
            line_end = text.find(b"\r\n")
            if line_end >= 0:
                try:
                    self._check_start(text[: line_end + 2])
                except HttpError as error:
                    self._fail(error.status, str(error))
                    return b""
            if len(text) > self._max_head:
                self._too_large(text)
        return b""

    def _check_start(self, line: bytes) -> None:
        """
        Refuse a start line that is not quite HTTP/1.

        With one that is, llhttp finds the head complete where we do.
        """
        raise NotImplementedError

    def _take_head(self, raw: bytes) -> None:
        """Make the event, and get ready for the body."""
        raise NotImplementedError

    def _malformed(self, error: httptools.HttpParserError, text: bytes) -> None:
        self._fail(self.fault, str(error))

    def _too_large(self, text: bytes) -> None:
        raise NotImplementedError

    def _end(self, end: End) -> None:
        """A message is complete."""
        self._events.append(end)

    def _feed_counted(self, data: bytes) -> bytes:
        """Take a body of known length; return what comes behind it."""
        size = len(data)
        left = self._left
        if size < left:
            self._left = left - size
            self._events.append(data)
            return b""
        self._left = 0
        self._events.append(data if size == left else data[:left])
        self._end(END)
        return data[left:]

    def _feed_chunks(self, chunks: ChunkDecoder, data: bytes) -> bytes:
        """Take a chunked body; return what comes behind it."""
        try:
            rest = chunks.feed(data)
        except HttpError as error:
            self._take_data(chunks)
            self._fail(error.status if self.fault == 400 else self.fault, str(error))
            return b""
        self._take_data(chunks)
        if chunks.complete:
            self._chunks = None
            chunks.close()
            self._end(End(chunks.trailers) if chunks.trailers else END)
        return rest

    def _take_data(self, chunks: ChunkDecoder) -> None:
        """Make one event of all data of one read; none if there is none: an empty chunk would be the last."""
        data = chunks.take_data()
        if data:
            self._events.append(data)


class RequestParser(_Parser):
    """
    Requests of one connection.

    After a head with L{RequestHead.upgrade} what follows is kept, as it is not
    known yet whether it is HTTP: ask C{resume} or C{take_held}.

    @ivar held: whether bytes are kept in this way from now on.
    @ivar held_size: how many are kept.
    """

    __slots__ = (
        "_fields",
        "_found",
        "_good_host",
        "_held",
        "_host_line",
        "_known",
        "_last",
        "_others",
        "_shape",
        "_shaped",
        "held",
        "held_size",
    )

    def __init__(self, max_head: int = 8192) -> None:
        """
        @param max_head: the most bytes of a head.
        """
        self.held = False
        self.held_size = 0
        self._held: list[bytes] = []
        self._good_host = b""
        self._last = False  # the current request is the last one
        # The head of the last request, and all of it behind its first line: if it had no body, was not
        # the last, and nothing has come since.  Requests of one client differ in little else.
        self._known: RequestHead | None = None
        self._fields = b""
        # Of these, those that matter, and the one with the host as it stands there.
        self._found: list[tuple[bytes, bytes, bytes]] = []
        self._host_line = b""
        # What many requests have in common, one of them, and how many others have come in a row.
        self._shape: Shape | None = None
        self._shaped: RequestHead | None = None
        self._others = 0
        super().__init__(max_head)

    def _renew(self) -> None:
        self._llhttp = httptools.HttpRequestParser(None)

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what they complete.  Nothing comes behind an L{HttpError}, nor
            behind the end of a request without L{RequestHead.keep_alive}.
        """
        found = self.feed_one(data)
        return found if type(found) is list else [found, END]  # type: ignore[list-item]

    def feed_one(self, data: bytes) -> RequestHead | list[Event]:
        """
        Do as C{feed} does, but make no list for what most reads bring.

        @return: the head if that and L{END} are all that C{feed} would return.
        """
        events: list[Event]
        fields = self._fields
        if fields:
            known = self._known
            assert known is not None
            if data == known.raw:
                return known
            size = len(data)
            if self._shape is not None:
                line = self._shape.fullmatch(data)
                if line is not None and size <= self._max_head:
                    self._others = 0
                    known = self._shaped
                    assert known is not None
                    return known.again(data, line[1], line[2])
            line = _REQUEST_LINE.match(data)
            if line is not None and size <= self._max_head:
                method, target = line.groups()
                begin = line.end()
                if begin + len(fields) == size and data.endswith(fields):
                    # llhttp has seen these fields, and so have we.
                    known = known.again(data, method, target)
                    if size <= MAX_KNOWN:
                        self._known = known
                    return known
                if (
                    data.find(_EMPTY_LINE) + 4 == size
                    and self._host_line in data
                    and _FIELDS.findall(data.lower()) == self._found
                    and (size <= _MANY or data.count(b"\n") <= MAX_HEADERS + 2)
                ):
                    # What matters is the same.
                    try:
                        self._llhttp.feed_data(data)
                    except httptools.HttpParserError as error:
                        self._events = events = []
                        self._malformed(error, data)
                        return events
                    known = known.again(data, method, target)
                    if size <= MAX_KNOWN:
                        self._known = known
                        self._fields = data[begin:]
                        self._others += 1
                        if self._others == SHAPE_AFTER:
                            self._others = 0
                            self._shape = None if self._shape is not None else request_shape(data)
                            self._shaped = known
                    return known
            self._fields = b""
        events = []
        self._events = events
        while data and not self.closed:
            if self._left:
                data = self._feed_counted(data)
            elif self._chunks is not None:
                data = self._feed_chunks(self._chunks, data)
            elif self.held:
                self._held.append(data)
                self.held_size += len(data)
                break
            else:
                data = self._feed_head(data)
        if self._partial:
            self._fields = b""
        if len(events) == 2 and events[1] is END:
            head = events[0]
            if type(head) is RequestHead:
                return head
        return events

    def close(self) -> None:
        """Read nothing more."""
        self._fields = b""
        super().close()

    def resume(self) -> list[Event]:
        """Go on with HTTP, as the upgrade was declined."""
        return self.feed(self.take_held())

    def take_held(self) -> bytes:
        """Take the bytes behind a request whose upgrade was accepted."""
        self.held = False
        self.held_size = 0
        data = b"".join(self._held)
        self._held.clear()
        return data

    def _malformed(self, error: httptools.HttpParserError, text: bytes) -> None:
        status, message = 400, str(error)
        if isinstance(error, httptools.HttpParserInvalidMethodError) and _METHOD_LINE.match(text):
            # A method that nobody knows, if all of the line has come; else who knows what this is.
            status = 501
        self._fail(status, message)

    def _check_start(self, line: bytes) -> None:
        parts = line[:-2].split(b" ")
        if len(parts) != 3:
            raise HttpError(400, "malformed request line")
        version = parts[2]
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise HttpError(505 if version == b"HTTP/2.0" else 400, "this version of HTTP is not spoken here")

    def _too_large(self, text: bytes) -> None:
        limit = self._max_head
        if text.find(b"\r\n", 0, limit) < 0:
            self._fail(414, f"request line larger than {limit} bytes")
        else:
            self._fail(431, f"request head larger than {limit} bytes")

    def _take_head(self, raw: bytes) -> None:
        line_end = raw.index(b"\r\n")
        parts = raw[:line_end].split(b" ")
        http11 = parts[-1] == b"HTTP/1.1"
        if not http11 or len(parts) != 3:
            self._check_start(raw[: line_end + 2])
        method, target, _ = parts
        if method == b"CONNECT":
            raise HttpError(405, "CONNECT is not for a reverse proxy")
        if len(raw) > _MANY and raw.count(b"\n") > MAX_HEADERS + 2:
            raise HttpError(431, f"more than {MAX_HEADERS} header fields")

        host: bytes | None = None
        length: int | None = None
        coded = False
        options = _NO_OPTIONS
        expect = False
        upgrade: bytes | None = None
        clean = http11
        mosn = False
        lower = raw.lower()
        found = _FIELDS.findall(lower)
        for name, gap, value in found:
            kind = _KINDS.get(name)
            if kind is None:
                mosn = True
            elif kind == _HOST:
                if host is not None:
                    raise HttpError(400, "more than one Host")
                # in its own case
                begin = lower.index(b"\r\nhost:")
                self._host_line = raw[begin : raw.index(b"\r", begin + 7) + 2]
                host = self._host_line[7:].strip(b" \t\r\n")
            elif kind == _LENGTH:
                if length is not None:
                    raise HttpError(400, "Content-Length is not one number")
                length = content_length(value.rstrip(b" \t"))
                if length is None:
                    raise HttpError(400, "Content-Length is not one number")
                if clean:
                    clean = _is_plain_length(gap, value)
            elif kind == _CODING:
                if coded:
                    raise HttpError(400, "more than one Transfer-Encoding")
                if not http11:
                    raise HttpError(400, "Transfer-Encoding in HTTP/1.0")
                if value.rstrip(b" \t") != b"chunked":
                    raise HttpError(501, "transfer coding other than chunked")
                coded = True
                if clean:
                    clean = _PLAIN_CODING.search(raw) is not None
            elif kind == _CONNECTION:
                options |= connection_options(value)
            elif kind == _EXPECT:
                expect = expect or (http11 and value.rstrip(b" \t") == b"100-continue")
            else:
                clean = False
                if kind == _UPGRADE:
                    upgrade = value if upgrade is None else upgrade + b"," + value
        uncounted = length is None and not coded
        if coded:
            if length is not None:
                raise HttpError(400, "both Content-Length and Transfer-Encoding")
            length = CHUNKED
        elif length is None:
            length = 0
        keep_alive = http11
        if options:
            if options != _ONLY_KEEP_ALIVE:
                clean = False
            keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)
        if host is None:
            if http11:
                raise HttpError(400, "no Host")
            host = b""
        own_host = True
        if target[:1] != b"/" or b"#" in target:
            target, authority = self._read_target(method, target)
            if authority is not None:
                host = authority
                clean = own_host = False
        if host != self._good_host:
            if not _AUTHORITY.fullmatch(host):
                raise HttpError(400, "Host is not an authority")
            self._good_host = host

        switch = False
        if upgrade is not None and b"upgrade" in options:
            # h2c would let requests past that nobody looks at; RFC 9113 dropped it.
            # An upgrade behind a body is legal but unheard of.  Both may be ignored.
            switch = http11 and keep_alive and length == 0 and not _H2C.search(upgrade)
        if length or self._llhttp.should_upgrade():
            # llhttp expects what it will not see.
            self._renew()
        self._last = not keep_alive
        self.held = switch
        head = RequestHead(
            *(raw, method, target, host, http11, length, keep_alive, options, switch, expect, clean),
            mosn=mosn,
        )
        self._events.append(head)
        if uncounted and http11 and keep_alive and own_host and upgrade is None and len(raw) <= MAX_KNOWN:
            self._known = head
            self._found = found
            self._fields = raw[line_end:]
        else:
            self._fields = b""
        if length == 0:
            self._end(END)
        elif length == CHUNKED:
            self._chunks = ChunkDecoder(self._max_head)
        else:
            self._left = length

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

    def _end(self, end: End) -> None:
        self._events.append(end)
        if self._last:
            self.close()


class ResponseParser(_Parser):
    """
    Responses of one connection.

    Call C{expect} before each request.

    @ivar surplus: whether bytes came that belong to no response that was asked
        for; the connection can't be used any more.
    """

    fault = 502

    __slots__ = (
        "_complete",
        "_fresh",
        "_head_request",
        "_interim",
        "_known",
        "_known_size",
        "_others",
        "_rest",
        "_shape",
        "_shaped",
        "surplus",
    )

    def __init__(self, max_head: int = MAX_RESPONSE_HEAD) -> None:
        self.surplus = False
        self._head_request = False
        self._complete = True
        self._fresh = False  # nothing of the response has come
        # The head of the last response that came whole in one read, and the size of that.
        self._known: ResponseHead | None = None
        self._known_size = 0
        # As for requests.
        self._shape: Shape | None = None
        self._shaped: ResponseHead | None = None
        self._others = 0
        self._interim = 0  # interim responses that have come before the final one
        self._rest = b""
        super().__init__(max_head)

    def _renew(self) -> None:
        self._llhttp = httptools.HttpResponseParser(None)

    def expect(self, head_request: bool) -> None:
        """
        Get ready for the response to a request.

        @param head_request: whether its method is HEAD, so that no body follows.
        """
        self._complete = False
        self._fresh = True
        self._head_request = head_request

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what they complete; the final L{End} is the last event there
            is until C{expect} is called again.  Behind a head of status 101
            the bytes are not HTTP: C{take_rest}.
        """
        found = self.feed_one(data)
        if type(found) is list:
            return found
        assert type(found) is ResponseHead
        body = data[len(found.raw) :]
        return [found, body, END] if body else [found, END]

    def feed_one(self, data: bytes) -> ResponseHead | list[Event]:
        """
        Do as C{feed} does, but take nothing apart that came in one piece.

        @return: the head if C{data} is a whole final response: what is behind
            the head in it is the body, and is complete.
        """
        if not self._fresh:
            self._events = []
            return self._feed_on(self._events, data)
        self._fresh = False
        known = self._known
        if (
            known is not None
            and len(data) == self._known_size
            and data.startswith(known.raw)
            and not (self._head_request or self.closed)
        ):
            self._complete = True  # as it was the last time
            return known
        if self._shape is not None and not (self._head_request or self.closed):
            found = self._shape.match(data)
            if found is not None:
                end = found.end()
                if len(data) - end == int(found[1]) and end <= self._max_head:
                    self._complete = True
                    self._others = 0
                    known = self._shaped
                    assert known is not None
                    return known.again(data[:end], len(data) - end)
        return self._feed_first(data)

    def _feed_first(self, data: bytes) -> ResponseHead | list[Event]:
        """Take the first bytes of a response."""
        events: list[Event] = []
        self._events = events
        if self.closed or not data:
            return events
        rest = self._feed_head(data)
        if events:
            head = events[0]
            if type(head) is ResponseHead and len(head.raw) + len(rest) == len(data):
                if rest and len(rest) == self._left:
                    self._left = 0
                    self._complete = True
                    if len(head.raw) <= MAX_KNOWN:
                        self._known, self._known_size = head, len(data)
                        self._others += 1
                        if self._others == SHAPE_AFTER:
                            self._others = 0
                            self._shape = None if self._shape is not None else response_shape(head.raw)
                            self._shaped = head
                    return head
                if not rest and len(events) == 2:
                    return head
        if self.closed:
            self._rest = rest  # of the next protocol
            return events
        return self._feed_on(events, rest)

    def _feed_on(self, events: list[Event], data: bytes) -> list[Event]:
        while data and not self.closed:
            if self._left:
                if self._left == UNTIL_CLOSE:
                    events.append(data)
                    break
                data = self._feed_counted(data)
            elif self._chunks is not None:
                data = self._feed_chunks(self._chunks, data)
            elif self._complete:
                self.surplus = True
                break
            else:
                data = self._feed_head(data)
                if self.closed:
                    self._rest = data  # of the next protocol
        return events

    def eof(self) -> list[Event]:
        """
        The peer has closed the connection.

        @return: the end of a response that ends so, an error if one was cut
            off or never came, or nothing if none was expected.
        """
        self._events = []
        if not self._complete and not self.closed:
            if self._left == UNTIL_CLOSE:
                self._left = 0
                self._end(END)
                self.close()
            else:
                self._fail(502, "connection closed before the end of the response")
        return self._events

    def take_rest(self) -> bytes:
        """Take what came behind a head of status 101."""
        rest, self._rest = self._rest, b""
        return rest

    def _too_large(self, text: bytes) -> None:
        self._fail(502, f"response head larger than {self._max_head} bytes")

    def _check_start(self, line: bytes) -> None:
        if not _STATUS_LINE.match(line):
            raise HttpError(502, "malformed status line in the response")

    def _take_head(self, raw: bytes) -> None:
        status = 200
        http11 = True
        if not raw.startswith(_OK):
            self._check_start(raw)
            status = int(raw[9:12])
            http11 = raw.startswith(b"HTTP/1.1")
        if len(raw) > _MANY and raw.count(b"\n") > MAX_HEADERS + 2:
            raise HttpError(502, f"more than {MAX_HEADERS} header fields in the response")

        length: int | None = None
        coded = False
        clean = http11
        options = _NO_OPTIONS
        for name, gap, value in _FIELDS.findall(raw.lower()):
            if name == b"content-length":
                if length is not None:
                    raise HttpError(502, "Content-Length of the response is not one number")
                length = content_length(value.rstrip(b" \t"))
                if length is None:
                    raise HttpError(502, "Content-Length of the response is not one number")
                if clean:
                    clean = _is_plain_length(gap, value)
                continue
            kind = _KINDS.get(name)
            if kind == _CODING:
                if coded or not http11 or value.rstrip(b" \t") != b"chunked":
                    raise HttpError(502, "transfer coding of the response is not understood")
                coded = True
                if clean:
                    clean = _PLAIN_CODING.search(raw) is not None
            elif kind == _CONNECTION:
                options |= connection_options(value)
            elif kind in (_UPGRADE, _OTHER_HOP):
                clean = False
        if coded and length is not None:
            raise HttpError(502, "both Content-Length and Transfer-Encoding in the response")
        keep_alive = http11
        if options:
            if options != _ONLY_KEEP_ALIVE:
                clean = False
            keep_alive = b"close" not in options and (http11 or b"keep-alive" in options)

        interim = status < 200
        if interim or status == 204 or status == 304:
            if interim and (coded or length):
                raise HttpError(502, "interim response with a body")
            if coded or (length is not None and status != 304):
                clean = False  # such framing is not forwarded
            body = 0
        elif self._head_request:
            if coded:
                clean = False
            body = 0
        elif coded:
            body = CHUNKED
        elif length is None:
            body = UNTIL_CLOSE
            clean = False
            keep_alive = False
        else:
            body = length
        self._events.append(ResponseHead(raw, status, http11, body, keep_alive, options, clean))
        if interim:
            self._interim += 1
            if self._interim > MAX_INTERIM:
                self._events.pop()
                raise HttpError(502, f"more than {MAX_INTERIM} interim responses")
            if status == 101:
                if not self._llhttp.should_upgrade():
                    self._events.pop()
                    raise HttpError(502, "101 without Connection: upgrade")
                self.close()
            return
        if body or self._head_request:
            self._renew()  # llhttp expects what it will not see
        if body == 0:
            self._end(END)
        elif body == CHUNKED:
            self._chunks = ChunkDecoder(self._max_head)
        else:
            self._left = body

    def _end(self, end: End) -> None:
        self._complete = True
        self._interim = 0
        self._events.append(end)
