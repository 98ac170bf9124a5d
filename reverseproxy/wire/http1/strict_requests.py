"""
HTTP/1 requests as events: a strict layer over llhttp.

Feed bytes, get events: a L{RequestHead}, the body as plain C{bytes}, an L{End};
last and once an L{HttpError} if the client broke the rules, after everything
that was in order before it.

llhttp sees heads and chunked bodies.  In its strict mode it refuses what
request smuggling is made of: both or several lengths, folded lines, bare CR or
LF, space before a colon, lengths that are not digits, bad chunk sizes, control
characters.  Where a head ends, and what body follows, is decided here, and what
decides it must be unambiguous: on top of what llhttp refuses, this module
refuses a missing or second Host, HTTP/1.0 with Transfer-Encoding, transfer
codings other than chunked, targets that are not for a reverse proxy, and
everything over its limits.

Nothing here remembers an earlier request, but for the Host that was checked
last.  The cache of heads is around this parser: L{reverseproxy.wire.http1.requests}.
"""

from __future__ import annotations

__all__ = ["StrictRequestParser"]

import re
from typing import Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.border import MOSN, NOTHING
from reverseproxy.wire.http.fields import MAX_HEADERS, MAX_METHOD, NO_METHODS, TOKEN
from reverseproxy.wire.http.message import END, End, Event
from reverseproxy.wire.http.upgrades import passed_on
from reverseproxy.wire.http1.chunked import StrictChunkDecoder
from reverseproxy.wire.http1.fields import CHUNKED
from reverseproxy.wire.http1.heads import RequestHead
from reverseproxy.wire.http1.parser import Parser
from reverseproxy.wire.http1.significant_fields import SignificantFields, persists

# llhttp has a list of methods, and gives some of them a meaning.  For those that it is not given as
# they came this one stands in.
_STAND_IN: Final = b"GET"
_AS_THEY_CAME: Final = (
    *(b"GET ", b"POST ", b"HEAD ", b"PUT ", b"DELETE ", b"PATCH ", b"OPTIONS "),
    *[method + b" " for method in NO_METHODS],
)
_METHOD: Final = re.compile(TOKEN + rb"*")
_AUTHORITY: Final = re.compile(rb"(?:\[[0-9A-Fa-f:.]+\]|[A-Za-z0-9._~%!$&'()*+;=-]*)(?::[0-9]*)?")
_ABSOLUTE: Final = re.compile(rb"[Hh][Tt][Tt][Pp][Ss]?://([^/?#]+)(.*)", re.DOTALL)
_OFFERS: Final = re.compile(rb"(?i)\r\nupgrade:([^\r]*)")


def _read_target(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """
    Bring a target that is no plain origin-form into the form that is forwarded (RFC 9112 3.2).

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


class StrictRequestParser(Parser):
    """
    Requests of one connection.

    After a request with L{RequestHead.upgrade}, which may have a body, what
    follows is kept, as it is not known yet whether it is HTTP: ask C{resume} or
    C{take_held}.

    @ivar held: whether bytes are kept in this way from now on.
    @ivar held_size: how many are kept.
    """

    __slots__ = (
        "_foreign",
        "_good_host",
        "_held",
        "_host_line",
        "_last",
        "_switching",
        "held",
        "held_size",
    )

    def __init__(self, max_head: int = 8192, max_fields: int = MAX_HEADERS, foreign: int = NOTHING) -> None:
        """
        @param max_head: the most bytes of a head.
        @param max_fields: the most fields of it, and of trailers.
        @param foreign: the marks of fields that the client may not set, which its requests
            lose; see L{reverseproxy.wire.http.border}.
        """
        self._foreign = foreign
        self.held = False
        self.held_size = 0
        self._held: list[bytes] = []
        self._good_host = b""
        self._last = False  # the current request is the last one
        self._switching = False  # behind the current request something else than HTTP may come
        self._host_line = b""  # the field with the host, as it stands in the last head
        super().__init__(max_head, max_fields)

    def _renew(self) -> None:
        self._llhttp = httptools.HttpRequestParser(None)

    def feed(self, data: bytes) -> list[Event]:
        """
        Take bytes.

        @return: what they complete.  Nothing comes behind an L{HttpError}, nor
            behind the end of a request without L{RequestHead.keep_alive}.
        """
        found = self.feed_one(data)
        return found if isinstance(found, list) else [found, END]

    def feed_one(self, data: bytes) -> RequestHead | list[Event]:
        """
        Do as C{feed} does, but make no list for what most reads bring.

        @return: the head if that and L{END} are all that C{feed} would return.
        """
        events: list[Event] = []
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
        if len(events) == 2 and events[1] is END:
            head = events[0]
            if type(head) is RequestHead:
                return head
        return events

    def resume(self) -> list[Event]:
        """Go on with HTTP, as the upgrade was declined; all of the request may not have come yet."""
        ended = self.held
        data = self.take_held()
        if ended and self._last:
            self.close()
        return self.feed(data)

    def take_held(self) -> bytes:
        """Take the bytes behind a request whose upgrade was accepted."""
        self.held = self._switching = False
        self.held_size = 0
        data = b"".join(self._held)
        self._held.clear()
        return data

    def _show(self, text: bytes, seen: int) -> None:
        if seen and text.find(b" ", 0, seen) >= 0:
            text = text[seen:]
        elif not text.startswith(_AS_THEY_CAME):
            # Nothing is given of a method before all of it has come.
            found = _METHOD.match(text)
            size = 0 if found is None else found.end()
            if size > MAX_METHOD:
                raise HttpError(501, f"a method longer than {MAX_METHOD} bytes")
            if size == len(text):
                return
            if not size or text[size] != 32:
                raise HttpError(400, "malformed method")
            text = _STAND_IN + text[size:]
        self._llhttp.feed_data(text)

    def _check_start(self, line: bytes) -> None:
        parts = line[:-2].split(b" ")
        if len(parts) != 3:
            raise HttpError(400, "malformed request line")
        version = parts[2]
        if version not in (b"HTTP/1.1", b"HTTP/1.0"):
            raise HttpError(505 if version == b"HTTP/2.0" else 400, "this version of HTTP is not spoken here")

    def _too_large(self, text: bytes) -> bytes:
        limit = self._max_head
        if text.find(b"\r\n", 0, limit) < 0:
            self._fail(414, f"request line larger than {limit} bytes (max_header_size)")
        else:
            self._fail(431, f"request head larger than {limit} bytes (max_header_size)")
        return self._note_method(text)

    def _refused(self, text: bytes, error: Exception | None) -> bytes:
        super()._refused(text, error)
        return self._note_method(text)

    def _note_method(self, text: bytes) -> bytes:
        """
        Note whether the response to a request that was refused has a body; return nothing.

        @param text: what has come of the head.
        """
        events = self._events
        if events and isinstance(events[-1], HttpError):
            events[-1].head_request = text.startswith(b"HEAD ")
        return b""

    def _take_head(self, raw: bytes) -> None:
        line_end = raw.index(b"\r\n")
        method, target, http11 = self._read_request_line(raw, line_end)
        if len(raw) > self._many and raw.count(b"\n") > self._max_fields + 2:
            raise HttpError(431, f"more than {self._max_fields} header fields (max_headers_count)")
        fields = SignificantFields(raw, http11)
        host, verbatim, authority = fields.host, fields.verbatim, None
        if target[:1] != b"/" or b"#" in target:
            target, authority = _read_target(method, target)
            if authority is not None:
                host, verbatim = authority, False  # Host counts for nothing (RFC 9112 3.2.2)
        if host != self._good_host:
            if not _AUTHORITY.fullmatch(host):
                raise HttpError(400, "Host is not an authority")
            self._good_host = host
        options = fields.options
        keep_alive = persists(options, http11) if options else http11
        length = fields.length or 0
        switch = fields.upgrade and http11 and b"upgrade" in options
        upgrade = passed_on(b",".join(_OFFERS.findall(raw))) if switch else b""
        if length or self._llhttp.should_upgrade():
            self._renew()  # llhttp expects what it will not be given
        self._last = not keep_alive
        self._switching = bool(upgrade)
        self._host_line = fields.host_line
        marks, foreign = fields.marks, self._foreign
        head = RequestHead(
            raw,
            method,
            target,
            host,
            http11,
            length,
            keep_alive,
            options,
            upgrade,
            fields.awaits_continue,
            verbatim and not marks & foreign,
            bool(marks & MOSN & ~foreign),
            marks & foreign,
        )
        self._events.append(head)
        self._note_head(head, fields, line_end, authority is None)
        self._begin_body(length)

    def _read_request_line(self, raw: bytes, line_end: int) -> tuple[bytes, bytes, bool]:
        """Return method, target, and whether the version is 1.1."""
        if raw.find(b"\n", 0, line_end) >= 0:
            # For llhttp the line of a request of HTTP/0.9 ends here, and fields follow.
            raise HttpError(400, "a bare LF in the request line")
        parts = raw[:line_end].split(b" ")
        http11 = parts[-1] == b"HTTP/1.1"
        if not http11 or len(parts) != 3:
            self._check_start(raw[: line_end + 2])
        method, target, _ = parts
        if method == b"CONNECT" or method == b"PRI":
            raise HttpError(405, f"{method.decode('ascii')} is not for a reverse proxy")
        return method, target, http11

    def _note_head(
        self, head: RequestHead, fields: SignificantFields, line_end: int, origin_form: bool
    ) -> None:
        """
        Learn of each head that was read.

        @param line_end: where its first line ends.
        @param origin_form: whether its target had no authority.
        """

    def _begin_body(self, length: int) -> None:
        if length == 0:
            self._end(END)
        elif length == CHUNKED:
            self._chunks = StrictChunkDecoder(self._max_head, self._max_fields)
        else:
            self._left = length

    def _end(self, end: End) -> None:
        self._events.append(end)
        if self._switching:
            self.held = True
        elif self._last:
            self.close()
