"""
Chunked bodies of responses.

They are read a little more leniently than those of requests
(L{reverseproxy.wire.http1.chunked}): lines may end with LF alone, blanks may
follow a size, trailers are read as L{reverseproxy.wire.http1.lenient} has it.
Whatever goes on, goes on in chunks of ours.
"""

from __future__ import annotations

__all__ = ["ResponseChunks"]

import re
from typing import Final

from reverseproxy.errors import HttpError
from reverseproxy.wire.http.fields import MAX_HEADERS, Headers, forbidden_in_trailers
from reverseproxy.wire.http1.chunked import CHUNK_ALLOWANCE, CHUNK_EXCESS
from reverseproxy.wire.http1.fields import MAX_LENGTH
from reverseproxy.wire.http1.lenient import find_end, parse_lines

MAX_LINE: Final = 4096
"""Bytes of a line with a size, extensions included."""

_SIZE: Final = rb"([0-9A-Fa-f]{1,16}+)[ \t]*+(?:;[\t -~\x80-\xff]*+)?"
_FIRST: Final = re.compile(_SIZE + rb"\r?\n")
_NEXT: Final = re.compile(rb"\r?\n" + _SIZE + rb"\r?\n")
_FIRST_SO_FAR: Final = re.compile(b"(?:" + _SIZE + rb"\r?)?")
_NEXT_SO_FAR: Final = re.compile(rb"(?:\r?|\r?\n(?:" + _SIZE + rb"\r?)?)")


class ResponseChunks:
    """
    One chunked body.

    @ivar complete: whether the body has ended.
    @ivar trailers: the fields behind it, but for those that must not stand there.
    """

    __slots__ = (
        "_data",
        "_excess",
        "_last",
        "_left",
        "_max_fields",
        "_max_trailers",
        "_next",
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
        self._left = 0  # of the current chunk
        self._max_fields = max_fields
        self._max_trailers = max_trailers
        self._next = _FIRST  # how the next line with a size is written
        self._partial = (
            b""  # of that line; behind the last one, all of the trailers with the LF in front of them
        )

    def close(self) -> None:
        """Read nothing more."""
        self._partial = b""

    @property
    def may_end(self) -> bool:
        """Whether all chunks have come, and nothing of trailers."""
        return self._last and self._partial in (b"\n", b"\n\r")

    def take_data(self) -> bytes:
        """Take what the last call to C{feed} has found, which may have raised; it may be empty."""
        found = self._data
        self._data = []
        return found[0] if len(found) == 1 else b"".join(found)

    def feed(self, data: bytes) -> bytes:
        """
        Take a part of the body, which is not empty; the data in it is what
        C{take_data} returns.

        @return: what comes behind the body.
        @raise HttpError: if it is malformed or has too little data in it.
        """
        found: list[bytes] = []
        self._data = found
        at = 0
        left = self._left
        text = data
        if self._partial:
            text = self._partial + data
            self._partial = b""
        size = len(text)
        pattern = self._next
        while not self._last:
            if left:
                end = at + left
                if at < size:
                    found.append(text[at:end])
                if end >= size:
                    left = end - size
                    at = size
                    break
                at = end
                left = 0
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
            elif left > MAX_LENGTH:
                raise HttpError(502, "a chunk of the response is too large")
        self._left = left
        self._next = pattern
        if self._last:
            end = find_end(text, at)
            if end >= 0:
                self._read_trailers(text[at + 1 : end])
                return text[end:]
            self._partial = text[at:]
            self._check_size(len(self._partial))
        self._bound(len(data), found)
        return b""

    def _check_size(self, size: int) -> None:
        """Refuse trailers of too many bytes."""
        limit = self._max_trailers
        if size > limit:
            raise HttpError(502, f"trailers larger than {limit} bytes (max_response_header_size)")

    def _keep(self, partial: bytes, pattern: re.Pattern[bytes]) -> None:
        """Keep what there is of a line, if it is one."""
        so_far = _FIRST_SO_FAR if pattern is _FIRST else _NEXT_SO_FAR
        if len(partial) > MAX_LINE or not so_far.fullmatch(partial):
            raise HttpError(502, "malformed chunk in the response")
        self._partial = partial

    def _read_trailers(self, text: bytes) -> None:
        """Take the trailers, with the empty line behind them."""
        self._check_size(len(text))
        end = text.rfind(b"\n", 0, -1) + 1
        trailers = parse_lines(text[:end])
        if len(trailers) > self._max_fields:
            raise HttpError(
                502, f"more than {self._max_fields} trailers in the response (max_response_headers_count)"
            )
        self.trailers = [field for field in trailers if not forbidden_in_trailers(field[0])]
        self.complete = True

    def _bound(self, size: int, found: list[bytes]) -> None:
        for data in found:
            size -= 3 * len(data) + CHUNK_ALLOWANCE
        self._excess = max(0, self._excess + size)
        if self._excess > CHUNK_EXCESS:
            raise HttpError(502, "too little data in a chunked body")
