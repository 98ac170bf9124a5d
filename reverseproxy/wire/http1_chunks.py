"""
Chunked bodies: a strict decoder over llhttp that knows where a body ends.

llhttp does not say how many bytes it has used.  But a chunked body ends with an
empty line, so that feeding it up to each empty line in turn shows which of them
was the last; most bodies have only that one.
"""

from __future__ import annotations

__all__ = ["CHUNK_EXCESS", "MAX_HEADERS", "ChunkDecoder"]

from typing import Any, Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http1_headers import Headers, forbidden_in_trailers

MAX_HEADERS: Final = 100
"""Fields in a head, or in trailers."""

CHUNK_EXCESS: Final = 16384
"""
Bytes of a chunked body that may be something else than data, beyond what
reasonable chunks need.  What counts are chunk extensions, trailers that
trickle in and very small chunks.
"""

_CHUNK_ALLOWANCE: Final = 16
"""Bytes that one chunk may take besides its data without counting as excess."""

_EMPTY_LINE: Final = b"\r\n\r\n"

_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
"""Gets llhttp to where a chunked body begins."""


class ChunkDecoder:
    """
    One chunked body.

    @ivar complete: whether the body has ended.
    @ivar trailers: the fields behind it, but for those that must not stand there.
    """

    __slots__ = ("_data", "_excess", "_llhttp", "_max_trailers", "_size", "_tail", "complete", "trailers")

    def __init__(self, max_trailers: int) -> None:
        """
        @param max_trailers: the most bytes of trailers.
        """
        self.complete = False
        self.trailers: Headers = []
        self._data: list[bytes] = []
        self._excess = 0
        self._max_trailers = max_trailers
        self._size = 0
        self._tail = b""  # the last bytes, as an empty line may come in parts
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._llhttp.feed_data(_HEAD)
        self.trailers.clear()
        self._size = 0

    def close(self) -> None:
        """Let go of llhttp, which refers back to us."""
        self._llhttp = None

    def take_data(self) -> list[bytes]:
        """Take what the last call to C{feed} found before it raised."""
        return self._data

    def feed(self, data: bytes) -> tuple[list[bytes], bytes]:
        """
        Take a part of the body.

        @return: the data in it, and what comes behind the body.
        @raise HttpError: 400 if it is malformed or has too little data in it,
            431 for too many trailers.
        """
        found: list[bytes] = []
        self._data = found
        tail = self._tail
        text = tail + data if tail else data
        begin = 0
        try:
            while True:
                end = text.find(_EMPTY_LINE, begin) + 4 - len(tail)
                if end < 4 - len(tail):
                    self._llhttp.feed_data(data[begin:] if begin else data)
                    break
                self._llhttp.feed_data(data[begin:end])
                begin = end
                if self.complete:
                    return found, data[end:]
                if tail:
                    text = data
                    tail = b""
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise HttpError(400, str(error)) from None
        self._tail = (tail + data)[-3:] if begin == 0 else data[max(begin, len(data) - 3) :]
        self._bound(len(data), found)
        return found, b""

    def _bound(self, size: int, found: list[bytes]) -> None:
        for data in found:
            size -= 3 * len(data) + _CHUNK_ALLOWANCE
        self._excess = max(0, self._excess + size)
        if self._excess > CHUNK_EXCESS:
            raise HttpError(400, "too little data in a chunked body")

    # llhttp's callbacks

    def on_body(self, data: bytes) -> None:
        """A part of a chunk."""
        self._data.append(data)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the trailers."""
        self._size += len(name) + len(value) + 4
        if self._size > self._max_trailers:
            raise HttpError(400, "trailers too large")
        if len(self.trailers) >= MAX_HEADERS:
            raise HttpError(431, f"more than {MAX_HEADERS} trailers")
        self.trailers.append((name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        """The body has ended."""
        self.complete = True
        self.trailers = [field for field in self.trailers if not forbidden_in_trailers(field[0])]
