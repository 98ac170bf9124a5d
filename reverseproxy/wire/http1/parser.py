"""
Where messages of HTTP/1 begin and end: what the parsers of requests and of responses have in common.
"""

from __future__ import annotations

__all__ = ["Parser"]

from typing import Any

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import END, End, Event
from reverseproxy.wire.http1.chunked import ChunkDecoder
from reverseproxy.wire.http1.fields import EMPTY_LINE, SHORTEST_FIELD


class Parser:
    """
    Reads messages one after the other from one connection.

    A parser is in one of three places, which its attributes tell:

     - within a body of known length: L{left} is not 0;
     - within a chunked body: it has a decoder for that;
     - between messages, or within a head, of which L{unfinished} bytes have come.

    @ivar closed: no further message is read: there was an error, or the last
        message was the last one on its connection.
    """

    fault = 400
    """The status of an error that has no better one."""

    __slots__ = (
        "_chunks",
        "_events",
        "_left",
        "_lenient",
        "_llhttp",
        "_many",
        "_max_fields",
        "_max_head",
        "_partial",
        "closed",
    )

    def __init__(self, max_head: int, max_fields: int = MAX_HEADERS) -> None:
        """
        @param max_head: the most bytes of a head.
        @param max_fields: the most fields of it, and of trailers.
        """
        self.closed = False
        self._max_fields = max_fields
        self._many = SHORTEST_FIELD * max_fields  # only a head of more bytes can have too many fields
        self._max_head = max_head
        self._events: list[Event] = []
        self._partial = b""  # the part of a head that has come, which llhttp has seen
        self._left = 0  # bytes to come of a body of known length; UNTIL_CLOSE
        self._lenient = False  # the head that is coming is malformed, but may be understood
        self._chunks: ChunkDecoder | None = None  # within a chunked body
        self._llhttp: Any = None
        self._renew()

    def _renew(self) -> None:
        """Make a new llhttp, which knows nothing of what came before."""
        raise NotImplementedError

    @property
    def in_head(self) -> bool:
        """Whether a part of a head has come."""
        return bool(self._partial)

    @property
    def unfinished(self) -> int:
        """Bytes of that part."""
        return len(self._partial)

    @property
    def left(self) -> int:
        """How many bytes of a body of known length are still to come; 0 or less for any other."""
        return self._left

    def skip_body(self, size: int) -> None:
        """
        Count bytes of a body of known length that are spliced past this parser.

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
        # Both the end of a body and what comes behind it may be wrong: one error is enough.
        if not self.closed:
            self._events.append(HttpError(status, message))
            self.close()

    # heads

    def _feed_head(self, data: bytes) -> bytes:
        """Take bytes of a head, between messages or within one; return what comes behind it."""
        partial = self._partial
        if partial:
            text = partial + data
            if self._lenient:
                return self._refused(text, None)
            end = text.find(EMPTY_LINE, max(0, len(partial) - 3)) + 4
        else:
            if data[0] in b"\r\n":
                data = data.lstrip(b"\r\n")  # empty lines before a message mean nothing (RFC 9112 2.2)
            text = data
            end = data.find(EMPTY_LINE) + 4
        if end < 4:
            return self._feed_partial(text, data) if data else b""
        if end > self._max_head:
            return self._too_large(text)
        raw = text[:end]
        try:
            try:  # noqa: SIM105 - suppress() would take as long as all of the rest
                self._show(raw, len(partial))
            except httptools.HttpParserUpgrade:
                pass  # whether it is one is decided by _take_head
            self._partial = b""
            self._take_head(raw)
        except (httptools.HttpParserError, HttpError) as error:
            return self._refused(text, error)
        return text[end:]

    def _feed_partial(self, text: bytes, data: bytes) -> bytes:
        """
        Take bytes that do not complete a head.

        llhttp sees them at once, so that what is not HTTP is refused before it has come to an end.

        @param text: all that has come of the head, of which C{data} are the last bytes.
        """
        try:
            self._show(text, len(self._partial))
            self._partial = text
            line_end = text.find(b"\r\n")
            if line_end >= 0:
                self._check_start(text[: line_end + 2])
        except httptools.HttpParserUpgrade:
            # Where a head ends is not for llhttp to say.
            return self._refused(text, HttpError(self.fault, "a bare LF in the head"))
        except (httptools.HttpParserError, HttpError) as error:
            return self._refused(text, error)
        return self._too_large(text) if len(text) > self._max_head else b""

    def _refused(self, text: bytes, error: Exception | None) -> bytes:
        """
        Deal with a malformed head; return what comes behind it, if it can be understood all the same.

        @param text: all that has come of it, and of what is behind it.
        @param error: what is wrong; L{None} if that was found before.
        """
        self._fail(error.status if isinstance(error, HttpError) else self.fault, str(error))
        return b""

    def _show(self, text: bytes, seen: int) -> None:
        """
        Give a head, or the part of it that has come, to llhttp.

        @param seen: how many bytes of it llhttp was given before.
        """
        self._llhttp.feed_data(text[seen:] if seen else text)

    def _check_start(self, line: bytes) -> None:
        """
        Refuse a start line that is not exactly HTTP/1.

        With one that is, llhttp finds the end of the head where we do.
        """
        raise NotImplementedError

    def _take_head(self, raw: bytes) -> None:
        """Make the event of a head that llhttp has found well-formed, and get ready for the body."""
        raise NotImplementedError

    def _too_large(self, text: bytes) -> bytes:
        """Deal with a head that is larger than it may be; arguments and result as of L{_refused}."""
        raise NotImplementedError

    # bodies

    def _end(self, end: End) -> None:
        """A message is complete."""
        self._events.append(end)

    def _feed_counted(self, data: bytes) -> bytes:
        """Take bytes of a body of known length; return what comes behind it."""
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
        """Take bytes of a chunked body; return what comes behind it."""
        try:
            rest = chunks.feed(data)
        except HttpError as error:
            self._take_data(chunks)
            self._fail(error.status if self.fault == 400 else self.fault, str(error))
            return b""
        self._take_data(chunks)
        if self.closed:
            return b""
        if chunks.complete:
            self._chunks = None
            chunks.close()
            self._end(End(chunks.trailers) if chunks.trailers else END)
        return rest

    def _take_data(self, chunks: ChunkDecoder) -> None:
        """Make one event of all data of a read; none of no data: an empty chunk would be the last one."""
        data = chunks.take_data()
        if data:
            self._events.append(data)
