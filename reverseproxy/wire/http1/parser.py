"""
What requests and responses of HTTP/1 have in common: where messages begin and end.

And the fields of a head that say something about its message.
"""

from __future__ import annotations

__all__ = [
    "CODING",
    "CONNECTION",
    "EMPTY_LINE",
    "EXPECT",
    "FIELDS",
    "HOST",
    "KINDS",
    "LENGTH",
    "MAX_KNOWN",
    "ONLY_KEEP_ALIVE",
    "OTHER_HOP",
    "PLAIN_CODING",
    "REQUEST_FIELDS",
    "TEMPLATE_AFTER",
    "SHORTEST",
    "UPGRADE",
    "Parser",
    "is_plain_length",
]

import re
from typing import Any, ClassVar, Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.border import PATTERN as BORDER
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import END, End, Event
from reverseproxy.wire.http1.chunked import ChunkedBody

MAX_KNOWN: Final = 4096
"""Bytes of the largest head that is kept, so that the next one on its connection can be compared with it."""

TEMPLATE_AFTER: Final = 32
"""Heads in a row that are not of the shape that is known, after which another one is looked for."""


EMPTY_LINE: Final = b"\r\n\r\n"
"""Where a head ends."""

SHORTEST: Final = len(b"X:\r\n")
"""Bytes of the shortest field."""

# Finding them is what most of the time for a head is spent on.  An expression that ignores case takes longer.
_NAMES: Final = (
    rb"con(?:tent-length|nection)|t(?:ransfer-encoding|e)|h(?:ost|ttp2-settings)"
    rb"|expect|upgrade|keep-alive|proxy-connection"
)

FIELDS: Final = re.compile(rb"\r\n(%b):([ \t]*)([^\r]*)" % _NAMES)
"""The fields that matter here, in a head in lower case."""

REQUEST_FIELDS: Final = re.compile(rb"\r\n(?:(%b):([ \t]*)([^\r]*)|(%b):)" % (_NAMES, BORDER))
"""
The same for a request, and the names of those that not everybody may set.

What these say does not matter here.
"""

HOST, LENGTH, CODING, CONNECTION, EXPECT, UPGRADE, OTHER_HOP = range(1, 8)

KINDS: Final = {
    b"host": HOST,
    b"content-length": LENGTH,
    b"transfer-encoding": CODING,
    b"connection": CONNECTION,
    b"expect": EXPECT,
    b"upgrade": UPGRADE,
    b"keep-alive": OTHER_HOP,
    b"proxy-connection": OTHER_HOP,
    b"te": OTHER_HOP,
    b"http2-settings": OTHER_HOP,
}

ONLY_KEEP_ALIVE: Final = frozenset({b"keep-alive"})


def is_plain_length(gap: bytes, value: bytes) -> bool:
    """
    Whether a Content-Length that there is but once is written as everybody understands it.

    Blanks other than one space, or zeros in front, are understood here but not
    everywhere.  Who disagrees about where a message ends takes a part of it for
    the next one.
    """
    return gap == b" " and value.isdigit() and (value[0] != 48 or len(value) == 1)


PLAIN_CODING: Final = re.compile(rb"\r\n(?i:transfer-encoding): chunked\r\n")
"""The same of a Transfer-Encoding."""


class Parser:
    """
    What requests and responses have in common: where messages begin and end.

    @ivar closed: no further message is read: there was an error, or the last
        message was the last one on its connection.
    """

    fault = 400
    """The status of an error that has no better one."""

    shown: ClassVar[tuple[bytes, ...]] = (b"",)
    """How heads begin that llhttp is shown as they are."""

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
        self.closed = False
        self._max_fields = max_fields
        self._many = SHORTEST * max_fields  # bytes of a head that may have too many fields
        self._max_head = max_head
        self._events: list[Event] = []
        self._partial = b""  # what has come of a head, which llhttp has seen
        self._left = 0  # bytes of a body of known length that are still to come; UNTIL_CLOSE
        self._lenient = False  # what has come of a head is not in order, but may be understood
        self._chunks: ChunkedBody | None = None  # in a chunked body
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
    def unfinished(self) -> int:
        """Bytes of that part of a head."""
        return len(self._partial)

    @property
    def left(self) -> int:
        """How many bytes of a body of known length are still to come; 0 or less for any other."""
        return self._left

    def skip_body(self, size: int) -> None:
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
        # The last bytes of a body may be wrong, and so may be what comes behind them: one error is enough.
        if not self.closed:
            self._events.append(HttpError(status, message))
            self.close()

    def _feed_head(self, data: bytes) -> bytes:
        """Take bytes where a head is, or begins; return what comes behind it."""
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
        try:
            if end < 4:
                return self._feed_partial(text, data)
            if end > self._max_head:
                return self._too_large(text)
            raw = text[:end]
            if not partial and raw.startswith(self.shown):
                self._llhttp.feed_data(raw)
            else:
                self._show(raw, len(partial))
        except httptools.HttpParserUpgrade:
            # Whether it is one is decided elsewhere, but where the head ends is not for llhttp to say.
            if end < 4:
                return self._refused(text, HttpError(self.fault, "a bare LF in the head"))
        except (httptools.HttpParserError, HttpError) as error:
            return self._refused(text, error)
        self._partial = b""
        try:
            self._take_head(raw)
        except HttpError as error:
            return self._refused(text, error)
        return text[end:]

    def _feed_partial(self, text: bytes, data: bytes) -> bytes:
        # llhttp sees it now, so that what is no HTTP is refused before it has come to an end.
        if data:
            self._show(text, len(self._partial))
            self._partial = text
            line_end = text.find(b"\r\n")
            if line_end >= 0:
                self._check_start(text[: line_end + 2])
            if len(text) > self._max_head:
                return self._too_large(text)
        return b""

    def _refused(self, text: bytes, error: Exception | None) -> bytes:
        """
        Find that a head is not in order; return what comes behind it, if that matters.

        @param text: all that has come of it, and behind it.
        @param error: why; L{None} if that was known before.
        """
        self._fail(error.status if isinstance(error, HttpError) else self.fault, str(error))
        return b""

    def _show(self, text: bytes, seen: int) -> None:
        """
        Let llhttp have a look at a head, or at what there is of it.

        @param seen: how much of it llhttp has been shown before.
        """
        self._llhttp.feed_data(text[seen:] if seen else text)

    def _check_start(self, line: bytes) -> None:
        """
        Refuse a start line that is not quite HTTP/1.

        With one that is, llhttp finds the head complete where we do.
        """
        raise NotImplementedError

    def _take_head(self, raw: bytes) -> None:
        """Make the event, and get ready for the body."""
        raise NotImplementedError

    def _too_large(self, text: bytes) -> bytes:
        """Find that a head is larger than it may be; return as L{_refused} does."""
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

    def _feed_chunks(self, chunks: ChunkedBody, data: bytes) -> bytes:
        """Take a chunked body; return what comes behind it."""
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

    def _take_data(self, chunks: ChunkedBody) -> None:
        """Make one event of all data of one read; none if there is none: an empty chunk would be the last."""
        data = chunks.take_data()
        if data:
            self._events.append(data)
