"""
Requests of HTTP/1 that are like the ones before.

On one connection a request differs from the last one in its first line, or in
values that nobody looks at.  So what is remembered of the last heads is compared
with what comes; what is the same means the same.  All else is for the strict
parser to read, which knows nothing of this
(L{reverseproxy.wire.http1.strict_requests}).
"""

from __future__ import annotations

__all__ = ["RequestParser"]

import re
from typing import Final

import httptools

from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import Event
from reverseproxy.wire.http1.heads import RequestHead
from reverseproxy.wire.http1.parser import (
    EMPTY_LINE,
    MAX_KNOWN,
    REQUEST_FIELDS,
    TEMPLATE_AFTER,
)
from reverseproxy.wire.http1.strict_requests import StrictRequestParser
from reverseproxy.wire.http1.templates import REQUEST_LINE, HeadTemplate, request_shape

# A request line that is in order, whatever comes behind it.  What else is in order is for llhttp to say.
_REQUEST_LINE: Final = re.compile(REQUEST_LINE + rb"(?=\r\n)")


class RequestParser(StrictRequestParser):
    """Requests of one connection, read by what is known of those before."""

    __slots__ = ("_fields", "_found", "_known", "_others", "_posted", "_shape", "_shaped")

    def __init__(self, max_head: int = 8192, max_fields: int = MAX_HEADERS, foreign: int = NOTHING) -> None:
        """See L{StrictRequestParser}."""
        # The head of the last request without a body, and all of it behind its first line: as long as
        # a head is what comes next.  Requests of one client differ in little else.
        self._known: RequestHead | None = None
        self._fields = b""
        # Of these, those that matter.
        self._found: list[tuple[bytes, bytes, bytes, bytes]] = []
        # What many requests have in common, one of them, and how many others have come in a row.
        self._shape: HeadTemplate | None = None
        self._shaped: RequestHead | None = None
        self._others = 0
        # The head of the last request with a body.
        self._posted: RequestHead | None = None
        super().__init__(max_head, max_fields, foreign)

    def feed_one(self, data: bytes) -> RequestHead | list[Event]:
        """See L{StrictRequestParser.feed_one}."""
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
                    return known.with_request_line(data, line[1], line[2])
            line = _REQUEST_LINE.match(data)
            if line is not None and size <= self._max_head:
                method, target = line.groups()
                begin = line.end()
                if begin + len(fields) == size and data.endswith(fields):
                    # llhttp has seen these fields, and so have we.
                    known = known.with_request_line(data, method, target)
                    if size <= MAX_KNOWN:
                        self._known = known
                    return known
                if (
                    data.find(EMPTY_LINE) + 4 == size
                    and self._host_line in data
                    and REQUEST_FIELDS.findall(data.lower()) == self._found
                    and (size <= self._many or data.count(b"\n") <= self._max_fields + 2)
                ):
                    # What matters is the same.
                    try:
                        self._show(data, 0)
                    except httptools.HttpParserError as error:
                        self._events = []
                        self._fail(self.fault, str(error))
                        return self._events
                    known = known.with_request_line(data, method, target)
                    if size <= MAX_KNOWN:
                        self._known = known
                        self._fields = data[begin:]
                        self._others += 1
                        if self._others == TEMPLATE_AFTER:
                            self._others = 0
                            self._shape = None if self._shape is not None else request_shape(data)
                            self._shaped = known
                    return known
            self._fields = b""
        found = super().feed_one(data)
        if self._partial or self._left or self._chunks is not None:
            self._fields = b""  # what comes next is no head of its own, whatever it looks like
        return found

    def _note_head(
        self,
        head: RequestHead,
        found: list[tuple[bytes, bytes, bytes, bytes]],
        line_end: int,
        ordinary: bool,
        counted: bool,
    ) -> None:
        self._fields = b""
        if not ordinary or len(head.raw) > MAX_KNOWN:
            return
        if counted:
            self._posted = head
        else:
            self._known = head
            self._found = found
            self._fields = head.raw[line_end:]

    def _feed_head(self, data: bytes) -> bytes:
        """Take a head that is the same, byte for byte, as the last one with a body."""
        posted = self._posted
        if posted is None or self._partial or not data.startswith(posted.raw):
            return super()._feed_head(data)
        self._events.append(posted)
        self._begin_body(posted.length)
        return data[len(posted.raw) :]

    def close(self) -> None:
        """Read nothing more."""
        self._fields = b""
        self._posted = None
        super().close()
