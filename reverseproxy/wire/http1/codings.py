"""
Transfer codings of responses, other than chunks.

Nobody asks for them: what comes so from a host that sends it all the same is
decoded, as the next one may not understand it (RFC 9112 7).
"""

from __future__ import annotations

__all__ = ["MAX_INFLATED", "Inflater"]

import zlib
from typing import Any, Final

from reverseproxy.errors import HttpError

MAX_INFLATED: Final = 8 * 1024 * 1024
"""Bytes that one read may become.  It has 256 KiB at the most: data that shrinks to a thirtieth is rare."""

_WBITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Inflater:
    """One body."""

    __slots__ = ("_inside", "_wbits", "_zlib")

    def __init__(self, coding: bytes) -> None:
        """
        @param coding: C{gzip}, C{x-gzip} or C{deflate}.
        """
        self._wbits = _WBITS[coding]
        self._zlib: Any = zlib.decompressobj(self._wbits)
        self._inside = False  # something of a stream has come, but not its end

    def feed(self, data: bytes) -> bytes:
        """
        Take a part of the body.

        @return: what it means, which may be nothing.
        @raise HttpError: if it is malformed, or too much.
        """
        found: list[bytes] = []
        room = MAX_INFLATED
        while data:
            try:
                piece = self._zlib.decompress(data, room + 1)
            except zlib.error:
                raise HttpError(502, "the transfer coding of the response is malformed") from None
            room -= len(piece)
            if room < 0:
                raise HttpError(502, f"one read of the response becomes more than {MAX_INFLATED} bytes")
            found.append(piece)
            data = b""
            self._inside = not self._zlib.eof
            if self._zlib.eof:
                # There may be several, one behind the other (RFC 1952 2.2).
                data = self._zlib.unused_data
                self._zlib = zlib.decompressobj(self._wbits)
        return b"".join(found)

    def finish(self) -> None:
        """
        Hear that this was all.

        @raise HttpError: if something is missing.
        """
        if self._inside:
            raise HttpError(502, "the transfer coding of the response is incomplete")
