"""
A cache around the strict parser of requests: what came before is not parsed again.

On one connection a request differs from the one before in its first line, or in values that nothing on
the way reads.  So a head that comes is compared with what is kept of the ones before, from the cheapest
comparison to the dearest:

 1. all of the head is the same;
 2. it matches the template of many heads before (L{reverseproxy.wire.http1.templates});
 3. all of it but the first line is the same;
 4. its significant fields are the same, and llhttp finds the others well-formed.

A head that has a body is compared as a whole only.  Everything else is for the strict parser
(L{reverseproxy.wire.http1.strict_requests}), which knows nothing of this, and whose result is the same.

What keeps bytes from being taken for a head that are none, or only a part of one:

 - Nothing is compared but between messages: C{_known_fields} is empty within a head or a body, and a head
   with a body is looked for only where the strict parser would begin a head.
 - A head without a body is compared with all of a read.  With one byte behind it, it is read strictly.
 - Heads that may be the last ones on their connection are not kept, nor those with C{Upgrade}, nor those
   whose target names an authority.
 - The same limits apply as to heads that are parsed.
"""

from __future__ import annotations

__all__ = ["RequestParser"]

import re
from typing import Final

import httptools

from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import Event
from reverseproxy.wire.http1.fields import EMPTY_LINE
from reverseproxy.wire.http1.heads import RequestHead
from reverseproxy.wire.http1.significant_fields import REQUEST_FIELDS, Found, SignificantFields
from reverseproxy.wire.http1.strict_requests import StrictRequestParser
from reverseproxy.wire.http1.templates import (
    MAX_KNOWN,
    REQUEST_LINE,
    TEMPLATE_AFTER,
    HeadTemplate,
    request_template,
)

# A request line that is in order, whatever comes behind it.
_REQUEST_LINE: Final = re.compile(REQUEST_LINE + rb"(?=\r\n)")


class RequestParser(StrictRequestParser):
    """Requests of one connection, recognised by those before."""

    __slots__ = (
        "_known",
        "_known_fields",
        "_known_significant",
        "_known_with_body",
        "_misses",
        "_template",
        "_template_head",
    )

    def __init__(self, max_head: int = 8192, max_fields: int = MAX_HEADERS, foreign: int = NOTHING) -> None:
        """See L{StrictRequestParser}."""
        # The head of the last request without a body; all of it behind its first line, which is empty
        # where no head may begin; and the significant fields in that.
        self._known: RequestHead | None = None
        self._known_fields = b""
        self._known_significant: Found = []
        # What many heads have in common, one of them, and how many others have come in a row.
        self._template: HeadTemplate | None = None
        self._template_head: RequestHead | None = None
        self._misses = 0
        # The head of the last request with a body.
        self._known_with_body: RequestHead | None = None
        super().__init__(max_head, max_fields, foreign)

    def feed_one(self, data: bytes) -> RequestHead | list[Event]:
        """See L{StrictRequestParser.feed_one}."""
        if self._known_fields:
            known = self._known
            assert known is not None
            if data == known.raw:
                return known
            found = self._recognise(data, known) if len(data) <= self._max_head else None
            if found is not None:
                return found
            self._known_fields = b""
        events = super().feed_one(data)
        if self._partial or self._left or self._chunks is not None:
            self._known_fields = b""  # what comes next is no head of its own, whatever it looks like
        return events

    def _recognise(self, data: bytes, known: RequestHead) -> RequestHead | list[Event] | None:
        """Return what a read means that is one head like those before; L{None} for any other."""
        if self._template is not None:
            line = self._template.fullmatch(data)
            if line is not None:
                self._misses = 0
                like = self._template_head
                assert like is not None
                return like.with_request_line(data, line[1], line[2])
        line = _REQUEST_LINE.match(data)
        if line is None:
            return None
        method, target = line.groups()
        begin = line.end()
        fields = self._known_fields
        if begin + len(fields) == len(data) and data.endswith(fields):
            head = known.with_request_line(data, method, target)
            if len(data) <= MAX_KNOWN:
                self._known = head
            return head
        if not self._is_equivalent(data):
            return None
        try:
            self._show(data, 0)
        except httptools.HttpParserError as error:
            self._events = []
            self._fail(self.fault, str(error))
            self._note_method(data)
            return self._events
        head = known.with_request_line(data, method, target)
        self._keep(head, begin)
        return head

    def _is_equivalent(self, data: bytes) -> bool:
        """Return whether a read is one head whose significant fields are those of the known one."""
        return (
            data.find(EMPTY_LINE) + 4 == len(data)
            and self._host_line in data  # in the same case
            and REQUEST_FIELDS.findall(data.lower()) == self._known_significant
            and (len(data) <= self._many or data.count(b"\n") <= self._max_fields + 2)
        )

    def _keep(self, head: RequestHead, line_end: int) -> None:
        """Keep an equivalent head in place of the known one; make a template after many of them."""
        data = head.raw
        if len(data) > MAX_KNOWN:
            return
        self._known = head
        self._known_fields = data[line_end:]
        self._misses += 1
        if self._misses == TEMPLATE_AFTER:
            self._misses = 0
            self._template = None if self._template is not None else request_template(data)
            self._template_head = head

    def _note_head(
        self, head: RequestHead, fields: SignificantFields, line_end: int, origin_form: bool
    ) -> None:
        self._known_fields = b""
        if not (head.http11 and head.keep_alive and origin_form) or fields.upgrade:
            return
        if len(head.raw) > MAX_KNOWN:
            return
        if fields.length is not None:
            self._known_with_body = head
        else:
            self._known = head
            self._known_significant = fields.found
            self._known_fields = head.raw[line_end:]

    def _feed_head(self, data: bytes) -> bytes:
        """Take a head that is the same, byte for byte, as the last one with a body."""
        known = self._known_with_body
        if known is None or self._partial or not data.startswith(known.raw):
            return super()._feed_head(data)
        self._events.append(known)
        self._begin_body(known.length)
        return data[len(known.raw) :]

    def close(self) -> None:
        """Read nothing more."""
        self._known_fields = b""
        self._known_with_body = None
        super().close()
