"""
Transfer codings of responses, other than chunked.

No request of ours asks for them.  The body of a host that uses one nevertheless is
decoded, as the next recipient may not understand it (RFC 9112 7).
"""

from __future__ import annotations

__all__ = ["MAX_INFLATED", "Inflater"]

import zlib
from typing import Any, Final

from reverseproxy.errors import HttpError

MAX_INFLATED: Final = 8 * 1024 * 1024
"""Bytes that one read may decode to.  A read has 256 KiB at most; data compressed to a thirtieth is rare."""

_WBITS: Final = {b"gzip": 31, b"x-gzip": 31, b"deflate": 15}


class Inflater:
    """Decodes one body."""

    __slots__ = ("_inside", "_wbits", "_zlib")

    def __init__(self, coding: bytes) -> None:
        """
        @param coding: C{gzip}, C{x-gzip} or C{deflate}.
        """
        self._wbits = _WBITS[coding]
        self._zlib: Any = zlib.decompressobj(self._wbits)
        self._inside = False  # a compressed stream has begun and not ended

    def feed(self, data: bytes) -> bytes:
        """
        Decode a part of the body.

        @return: the decoded bytes; may be empty.
        @raise HttpError: if it is malformed, or decodes to more than L{MAX_INFLATED} bytes.
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
                # Several streams may follow each other (RFC 1952 2.2).
                data = self._zlib.unused_data
                self._zlib = zlib.decompressobj(self._wbits)
        return b"".join(found)

    def finish(self) -> None:
        """
        Check, at the end of the body, that the compressed data is complete.

        @raise HttpError: if it is not.
        """
        if self._inside:
            raise HttpError(502, "the transfer coding of the response is incomplete")
