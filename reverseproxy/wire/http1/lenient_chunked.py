"""
Chunked bodies of responses.

They are read more leniently than those of requests
(L{reverseproxy.wire.http1.chunked}): lines may end with LF alone, blanks may
follow a size, and trailers are parsed by L{reverseproxy.wire.http1.lenient}.
What is forwarded is written in chunks of our own.
"""

from __future__ import annotations

__all__ = ["LenientChunkDecoder"]

import re
from typing import Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import MAX_HEADERS, forbidden_in_trailers
from reverseproxy.wire.http1.chunked import ChunkDecoder
from reverseproxy.wire.http1.fields import MAX_LENGTH
from reverseproxy.wire.http1.lenient import find_end, parse_lines

MAX_LINE: Final = 4096
"""Bytes of a line with a size, extensions included."""

_SIZE: Final = rb"([0-9A-Fa-f]{1,16}+)[ \t]*+(?:;[\t -~\x80-\xff]*+)?"
_FIRST: Final = re.compile(_SIZE + rb"\r?\n")
_NEXT: Final = re.compile(rb"\r?\n" + _SIZE + rb"\r?\n")
_FIRST_SO_FAR: Final = re.compile(b"(?:" + _SIZE + rb"\r?)?")
_NEXT_SO_FAR: Final = re.compile(rb"(?:\r?|\r?\n(?:" + _SIZE + rb"\r?)?)")


class LenientChunkDecoder(ChunkDecoder):
    """Decodes the chunked body of a response leniently."""

    fault = 502

    __slots__ = ("_left", "_next")

    def __init__(self, max_trailers: int, max_fields: int = MAX_HEADERS) -> None:
        """See L{ChunkDecoder}; behind the last chunk, C{_partial} has the trailers, with the LF in front."""
        super().__init__(max_trailers, max_fields)
        self._left = 0  # bytes to come of the current chunk
        self._next = _FIRST  # what the next line with a size matches

    def close(self) -> None:
        """Read nothing more."""
        self._partial = b""

    @property
    def may_end(self) -> bool:
        """Whether all chunks have come, and no byte of trailers."""
        return self._last and self._partial in (b"\n", b"\n\r")

    def feed(self, data: bytes) -> bytes:
        """See L{ChunkDecoder.feed}."""
        found: list[bytes] = []
        self._data = found
        text = data
        if self._partial:
            text = self._partial + data
            self._partial = b""
        at = 0 if self._last else self._read_chunks(text, found)
        if self._last:
            end = find_end(text, at)
            if end >= 0:
                self._read_trailers(text[at + 1 : end])
                return text[end:]
            self._partial = text[at:]
            self._check_size(len(self._partial))
        self._bound(len(data), found)
        return b""

    def _read_chunks(self, text: bytes, found: list[bytes]) -> int:
        """
        Read up to the line of the last chunk.

        @param found: gets the data.
        @return: the place of the LF at the end of that line, if it has come.
        """
        at = 0
        size = len(text)
        left = self._left
        pattern = self._next
        while at < size:
            if left:
                end = at + left
                found.append(text[at:end])
                if end >= size:
                    left, at = end - size, size
                    break
                left, at = 0, end
            line = pattern.match(text, at)
            if line is None:
                self._keep(text[at:], pattern)
                break
            left = int(line[1], 16)
            at = line.end()
            pattern = _NEXT
            if not left:
                self._last = True
                at -= 1  # without trailers, the empty line begins with the end of this one
                break
            if left > MAX_LENGTH:
                raise HttpError(502, "a chunk of the response is too large")
        self._left = left
        self._next = pattern
        return at

    def _check_size(self, size: int) -> None:
        """Refuse trailers of too many bytes."""
        limit = self._max_trailers
        if size > limit:
            raise HttpError(502, f"trailers larger than {limit} bytes (max_response_header_size)")

    def _keep(self, partial: bytes, pattern: re.Pattern[bytes]) -> None:
        """Keep the beginning of a line with a size; refuse anything else."""
        so_far = _FIRST_SO_FAR if pattern is _FIRST else _NEXT_SO_FAR
        if len(partial) > MAX_LINE or not so_far.fullmatch(partial):
            raise HttpError(502, "malformed chunk in the response")
        self._partial = partial

    def _read_trailers(self, text: bytes) -> None:
        """Parse the trailers, with the empty line behind them."""
        self._check_size(len(text))
        end = text.rfind(b"\n", 0, -1) + 1
        trailers = parse_lines(text[:end])
        if len(trailers) > self._max_fields:
            raise HttpError(
                502, f"more than {self._max_fields} trailers in the response (max_response_headers_count)"
            )
        self.trailers = [field for field in trailers if not forbidden_in_trailers(field[0])]
        self.complete = True
