"""
HTTP/1 responses as events; see L{reverseproxy.wire.http1.strict_requests}.

A malformed head is normalised, if it can be understood
(L{reverseproxy.wire.http1.lenient}).  The cache of heads is around this parser:
L{reverseproxy.wire.http1.responses}.
"""

from __future__ import annotations

__all__ = ["MAX_RESPONSE_HEAD", "PlainResponseParser"]

import re
from contextlib import suppress
from typing import Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import END, MAX_INTERIM, NO_OPTIONS, End, Event
from reverseproxy.wire.http1.chunked import ChunkDecoder
from reverseproxy.wire.http1.codings import Inflater
from reverseproxy.wire.http1.fields import CHUNKED, UNTIL_CLOSE, connection_options, content_length
from reverseproxy.wire.http1.heads import ResponseHead
from reverseproxy.wire.http1.lenient import Normalised, begins_well, find_end, normalise
from reverseproxy.wire.http1.lenient_chunked import LenientChunkDecoder
from reverseproxy.wire.http1.parser import Parser
from reverseproxy.wire.http1.significant_fields import (
    CODING,
    CONNECTION,
    KINDS,
    LENGTH,
    ONLY_KEEP_ALIVE,
    OTHER_HOP,
    PLAIN_CODING,
    RESPONSE_FIELDS,
    UPGRADE,
    is_plain_length,
    persists,
)

MAX_RESPONSE_HEAD: Final = 65536
"""Bytes of the largest response head, if nothing else is configured."""

_OK: Final = b"HTTP/1.1 200 OK\r\n"
_STATUS_LINE: Final = re.compile(rb"HTTP/1\.[01] [1-9][0-9][0-9](?: [\t -~\x80-\xff]*)?\r\n")


class PlainResponseParser(Parser):
    """
    Responses of one connection.

    Call C{expect} before each request.

    @ivar surplus: whether bytes came that belong to no response that is expected;
        the connection can't be used again.
    """

    fault = 502

    __slots__ = (
        "_complete",
        "_fresh",
        "_head_request",
        "_inflater",
        "_interim",
        "_odd",
        "_rest",
        "_switched",
        "surplus",
    )

    def __init__(self, max_head: int = MAX_RESPONSE_HEAD, max_fields: int = MAX_HEADERS) -> None:
        """
        @param max_head: the most bytes of a head.
        @param max_fields: the most fields of it, and of trailers.
        """
        self.surplus = False
        self._head_request = False
        self._complete = True
        self._fresh = False  # no byte of the response has come
        self._odd = False  # the last head was malformed, and was normalised
        self._inflater: Inflater | None = None  # of a body with a transfer coding besides chunked
        self._interim = 0  # interim responses that have come before the final one
        self._switched = False  # behind a head of status 101
        self._rest = b""  # what has come since then
        super().__init__(max_head, max_fields)

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
        Do as C{feed} does, but make no list for a response that came in one read.

        @return: the head if C{data} is a whole final response: all behind the
            head in it is the body, which is complete.
        """
        if not self._fresh:
            self._events = []
            return self._feed_on(self._events, data)
        self._fresh = False
        return self._feed_first(data)

    def _feed_first(self, data: bytes) -> ResponseHead | list[Event]:
        """Take the first bytes of a response."""
        events: list[Event] = []
        self._events = events
        if self.closed or not data:
            return events
        self._odd = False
        rest = self._feed_head(data)
        if events and not self._odd:
            head = events[0]
            if type(head) is ResponseHead and len(head.raw) + len(rest) == len(data):
                if rest and len(rest) == self._left:
                    self._left = 0
                    self._complete = True
                    self._note_whole(head, len(data))
                    return head
                if not rest and len(events) == 2:
                    return head
        if self.closed and not self._switched:
            return events
        return self._feed_on(events, rest)

    def _note_whole(self, head: ResponseHead, size: int) -> None:
        """
        Learn of each response that was read whole, and has a body of known length.

        @param size: bytes of all of it.
        """

    def _feed_on(self, events: list[Event], data: bytes) -> list[Event]:
        while data and not self.closed:
            if self._left:
                if self._left == UNTIL_CLOSE:
                    self._add(data)
                    break
                data = self._feed_counted(data)
            elif self._chunks is not None:
                data = self._feed_chunks(self._chunks, data)
            elif self._complete:
                self.surplus = True
                break
            else:
                data = self._feed_head(data)
        if self._switched:
            self._rest += data
        return events

    def eof(self) -> list[Event]:
        """
        Handle the end of the connection.

        @return: the end of a response that ends with the connection, an error if
            one was cut off or never came, or nothing if none was expected.
        """
        self._events = []
        if not self._complete and not self.closed:
            if self._left == UNTIL_CLOSE:
                self._left = 0
                self._end(END)
                self.close()
            elif isinstance(self._chunks, LenientChunkDecoder) and self._chunks.may_end:
                # The body is complete (RFC 9112 8), and the connection can't be used again.
                self.surplus = True
                self._end(END)
                self.close()
            else:
                self._fail(502, "connection closed before the end of the response")
        return self._events

    def take_rest(self) -> bytes:
        """Return the bytes behind a head of status 101, which are not HTTP."""
        rest, self._rest = self._rest, b""
        return rest

    # malformed heads

    def _refused(self, text: bytes, error: Exception | None) -> bytes:
        return self._feed_lenient(text, max(0, len(self._partial) - 3) if self._lenient else 0)

    def _too_large(self, text: bytes) -> bytes:
        # Lines may end with LF alone, so that the head is shorter than it seemed.
        if not self._lenient and 0 < find_end(text) <= self._max_head:
            return self._feed_lenient(text, 0)
        self._fail(502, f"response head larger than {self._max_head} bytes (max_response_header_size)")
        return b""

    def _feed_lenient(self, text: bytes, start: int) -> bytes:
        """
        Read a malformed head; return what comes behind it.

        @param text: all that has come of it, and of what is behind it.
        @param start: see L{find_end}.
        """
        self._lenient = True
        end = find_end(text, start)
        if end > self._max_head or (end < 0 and len(text) > self._max_head):
            return self._too_large(text)
        try:
            if end < 0:
                if not begins_well(text):
                    raise HttpError(502, "malformed status line in the response")
                self._partial = text
                return b""
            found = normalise(text[:end])
            self._lenient = False
            self._odd = True
            self._partial = b""
            self._renew()
            with suppress(httptools.HttpParserUpgrade):
                self._llhttp.feed_data(found.raw)
            self._take_head(found.raw, found)
        except (httptools.HttpParserError, HttpError) as error:
            self._fail(502, str(error))
            return b""
        if found.coding and (self._left or self._chunks is not None):
            self._inflater = Inflater(found.coding)
        return text[end:]

    def _check_start(self, line: bytes) -> None:
        if not _STATUS_LINE.match(line):
            raise HttpError(502, "malformed status line in the response")

    def _take_head(self, raw: bytes, odd: Normalised | None = None) -> None:
        status, http11, verbatim = 200, True, True
        if not raw.startswith(_OK):
            status, http11, verbatim = self._read_status_line(raw)
        if len(raw) > self._many and raw.count(b"\n") > self._max_fields + 2:
            limit = f"{self._max_fields} header fields in the response (max_response_headers_count)"
            raise HttpError(502, f"more than {limit}")
        length, options, same = self._read_fields(raw, http11, verbatim and odd is None)
        body, forwarded = self._body_of(status, length)
        keep_alive = persists(options, http11) if options else http11
        if body == UNTIL_CLOSE or (odd is not None and not odd.certain):
            keep_alive = False
        head = ResponseHead(raw, status, http11, body, keep_alive, options, same and forwarded)
        if status < 200:
            self._take_interim(head)
            return
        self._events.append(head)
        if body or self._head_request:
            self._renew()  # llhttp expects what it will not be given
        if body == 0:
            self._end(END)
        elif body == CHUNKED:
            self._chunks = LenientChunkDecoder(self._max_head, self._max_fields)
        else:
            self._left = body

    def _read_status_line(self, raw: bytes) -> tuple[int, bool, bool]:
        """Return the status; whether the version is 1.1; and whether the line can be forwarded as it came."""
        self._check_start(raw)
        http11 = raw.startswith(b"HTTP/1.1")
        # There has to be a space behind the status, even if nothing follows (RFC 9112 4).
        return int(raw[9:12]), http11, http11 and raw[12] == 32

    def _body_of(self, status: int, length: int | None) -> tuple[int, bool]:
        """
        Decide how long the body behind a head is (RFC 9112 6.3).

        @param length: the length that the head gives, if it does.
        @return: the length of the body; whether the head's framing can be
            forwarded as it came.
        """
        if status < 200 or status == 204 or status == 304:
            if status < 200 and length:
                raise HttpError(502, "interim response with a body")
            # Framing of what has no body is not forwarded.
            return 0, length is None or (length != CHUNKED and status == 304)
        if self._head_request:
            return 0, length != CHUNKED
        if length is None:
            return UNTIL_CLOSE, False
        return length, True

    def _take_interim(self, head: ResponseHead) -> None:
        self._interim += 1
        if self._interim > MAX_INTERIM:
            raise HttpError(502, f"more than {MAX_INTERIM} interim responses")
        if head.status == 101:
            if not self._llhttp.should_upgrade():
                raise HttpError(502, "101 without Connection: upgrade")
            self._switched = True
            self.close()
        self._events.append(head)

    def _read_fields(
        self, raw: bytes, http11: bool, verbatim: bool
    ) -> tuple[int | None, frozenset[bytes], bool]:
        """
        Read the significant fields.

        @param verbatim: whether the status line can be forwarded as it came.
        @return: the length of the body, if there is a field for it; the options
            of C{Connection}; whether all of the head can be forwarded as it came.
        """
        length: int | None = None
        options = NO_OPTIONS
        for name, gap, value in RESPONSE_FIELDS.findall(raw.lower()):
            kind = KINDS.get(name)
            if kind == LENGTH:
                length = _read_length(value, length)
                verbatim = verbatim and is_plain_length(gap, value)
            elif kind == CODING:
                if length is not None or not http11 or value.rstrip(b" \t") != b"chunked":
                    raise HttpError(502, "transfer coding of the response is not understood")
                length = CHUNKED
                verbatim = verbatim and PLAIN_CODING.search(raw) is not None
            elif kind == CONNECTION:
                options |= connection_options(value)
            elif kind in (UPGRADE, OTHER_HOP):
                verbatim = False
        if options and options != ONLY_KEEP_ALIVE:
            verbatim = False
        return length, options, verbatim

    def _take_data(self, chunks: ChunkDecoder) -> None:
        data = chunks.take_data()
        if data:
            self._add(data)

    def _add(self, data: bytes) -> None:
        """Add an event for bytes of the body, decoded if need be."""
        if self._inflater is not None:
            try:
                data = self._inflater.feed(data)
            except HttpError as error:
                self._fail(502, str(error))
                return
        if data:
            self._events.append(data)

    def _end(self, end: End) -> None:
        inflater, self._inflater = self._inflater, None
        if inflater is not None:
            try:
                inflater.finish()
            except HttpError as error:
                self._fail(502, str(error))
                return
        self._complete = True
        self._interim = 0
        self._events.append(end)


def _read_length(value: bytes, before: int | None) -> int:
    if before is not None:
        raise HttpError(502, "several fields say what the length of the response is")
    length = content_length(value.rstrip(b" \t"))
    if length is None:
        raise HttpError(502, "Content-Length of the response is not one number")
    return length
