"""
Chunked bodies: a strict decoder over llhttp that knows where a body ends.

llhttp does not say how many bytes it has used.  So the sizes of the chunks are
read here as well, to find the end, and llhttp is given no byte beyond it.  Both
must agree about the end, or the body is refused: no request is smuggled in a
body that two readers understand differently.
"""

from __future__ import annotations

__all__ = ["CHUNK_EXCESS", "StrictChunkDecoder", "ChunkDecoder"]

import re
from typing import Any, Final

import httptools

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import MAX_HEADERS, Headers, forbidden_in_trailers
from reverseproxy.wire.http1.fields import EMPTY_LINE

CHUNK_EXCESS: Final = 16384
"""
Bytes of a chunked body that may be something else than data, beyond what
reasonable chunks need: chunk extensions, trailers that come in many reads, and
sizes of very small chunks.
"""

CHUNK_ALLOWANCE: Final = 16
"""Bytes that one chunk may have besides its data without counting as excess."""

_SIZE_LINE: Final = re.compile(rb"([0-9A-Fa-f]{1,16})(?:;[^\r\n]*)?\r\n")

_LINE_BEGIN: Final = 20
"""Bytes at the start of a line that have the size of its chunk, or show that it has too many digits."""

_HEAD: Final = b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n"
"""Brings llhttp to where a chunked body begins."""


class ChunkDecoder:
    """
    Decodes one chunked body: what strict and lenient decoders have in common.

    @ivar complete: whether the body has ended.
    @ivar trailers: the fields behind it, but for those that may not be trailers (RFC 9110 6.5.1).
    """

    fault = 400
    """The status of an error."""

    __slots__ = (
        "_data",
        "_excess",
        "_last",
        "_max_fields",
        "_max_trailers",
        "_partial",
        "complete",
        "trailers",
    )

    def __init__(self, max_trailers: int, max_fields: int = MAX_HEADERS) -> None:
        """
        @param max_trailers: the most bytes of trailers.
        @param max_fields: how many there may be.
        """
        self.complete = False
        self.trailers: Headers = []
        self._data: list[bytes] = []
        self._excess = 0
        self._last = False  # the line of the last chunk has come
        self._max_fields = max_fields
        self._max_trailers = max_trailers
        self._partial = b""  # the part that has come of a line with a size, or of trailers

    def feed(self, data: bytes) -> bytes:
        """
        Decode a part of the body, which is not empty; C{take_data} returns its data.

        @return: what comes behind the body.
        @raise HttpError: if it is malformed, has too little data in it, or too
            many trailers.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Read nothing more."""
        raise NotImplementedError

    def take_data(self) -> bytes:
        """Return the data that the last call to C{feed} has found, even if it has raised; may be empty."""
        found = self._data
        self._data = []
        return found[0] if len(found) == 1 else b"".join(found)

    def _bound(self, size: int, found: list[bytes]) -> None:
        """Refuse a body of which too little is data; see L{CHUNK_EXCESS}."""
        for data in found:
            size -= 3 * len(data) + CHUNK_ALLOWANCE
        self._excess = max(0, self._excess + size)
        if self._excess > CHUNK_EXCESS:
            raise HttpError(self.fault, "too little data in a chunked body")


class StrictChunkDecoder(ChunkDecoder):
    """Decodes the chunked body of a request strictly, together with llhttp."""

    __slots__ = ("_llhttp", "_size", "_skip")

    def __init__(self, max_trailers: int, max_fields: int = MAX_HEADERS) -> None:
        """See L{ChunkDecoder}."""
        super().__init__(max_trailers, max_fields)
        self._size = 0
        self._skip = 0  # bytes to the next line with a size
        self._llhttp: Any = httptools.HttpRequestParser(self)
        self._llhttp.feed_data(_HEAD)
        self.trailers.clear()
        self._size = 0

    def close(self) -> None:
        """Break the reference cycle with llhttp."""
        self._llhttp = None

    def feed(self, data: bytes) -> bytes:
        """See L{ChunkDecoder.feed}; the status is 400, or 431 for too many trailers."""
        self._data = []
        end = self._find_end(data)
        try:
            self._llhttp.feed_data(data if end < 0 else data[:end])
        except httptools.HttpParserCallbackError as error:
            if isinstance(error.__context__, HttpError):
                raise error.__context__ from None
            raise
        except httptools.HttpParserError as error:
            raise HttpError(400, str(error)) from None
        if self.complete != (end > 0):
            raise HttpError(400, "malformed chunk")
        if end > 0:
            return data[end:]
        self._bound(len(data), self._data)
        return b""

    def _find_end(self, data: bytes) -> int:
        """
        Read the sizes of the chunks.

        @return: how many bytes of C{data} belong to the body; -1 if it goes on
            behind them, or if the sizes are malformed.
        """
        size = len(data)
        begin = self._skip
        if begin >= size:
            self._skip = begin - size
            return -1
        self._skip = 0
        text = data
        before = len(self._partial)
        if before:
            text = self._partial + data
            size += before
            self._partial = b""
        while not self._last:
            line = _SIZE_LINE.match(text, begin)
            if line is None:
                # Malformed, unless more of it is to come: llhttp, which sees all of it, decides.
                partial = text[begin:]
                if len(partial) > _LINE_BEGIN:
                    partial = partial[:_LINE_BEGIN] + partial[-1:]
                self._partial = partial
                return -1
            length = int(line[1], 16)
            begin = line.end()
            if length == 0:
                self._last = True
                begin -= 2  # without trailers, the empty line begins with the end of this one
                break
            begin += length + 2
            if begin >= size:
                self._skip = begin - size
                return -1
        end = text.find(EMPTY_LINE, begin)
        if end < 0:
            self._partial = text[max(begin, size - 3) :]
            return -1
        return end + 4 - before

    # llhttp's callbacks

    def on_body(self, data: bytes) -> None:
        """A part of a chunk."""
        if data:
            self._data.append(data)

    def on_message_begin(self) -> None:
        """The first message is ours; there is no other."""
        if self.complete:
            raise HttpError(400, "malformed end of a chunked body")

    def on_header(self, name: bytes, value: bytes) -> None:
        """A field of the trailers."""
        self._size += len(name) + len(value) + 4
        if self._size > self._max_trailers:
            raise HttpError(400, f"trailers larger than {self._max_trailers} bytes (max_header_size)")
        if len(self.trailers) >= self._max_fields:
            raise HttpError(431, f"more than {self._max_fields} trailers (max_headers_count)")
        self.trailers.append((name, value.rstrip(b" \t")))

    def on_message_complete(self) -> None:
        """The body has ended."""
        self.complete = True
        self.trailers = [field for field in self.trailers if not forbidden_in_trailers(field[0])]
