"""
As much of SPDY/3.1 as C{exec} of Kubernetes needs: streams with headers, data and ends.

Old clients of Kubernetes upgrade a connection to it, and then open a stream for
each of standard input, output and error, and one for the exit status.
"""

from __future__ import annotations

__all__ = ["FIN", "Frame", "Spdy"]

import struct
import zlib
from dataclasses import dataclass, field

FIN = 1

SYN_STREAM, SYN_REPLY, RST_STREAM, SETTINGS, _, PING, GOAWAY, HEADERS, WINDOW_UPDATE = range(1, 10)

_NAMES = """
options head post put delete trace accept accept-charset accept-encoding accept-language
accept-ranges age allow authorization cache-control connection content-base content-encoding
content-language content-length content-location content-md5 content-range content-type date etag
expect expires from host if-match if-modified-since if-none-match if-range if-unmodified-since
last-modified location max-forwards pragma proxy-authenticate proxy-authorization range referer
retry-after server te trailer transfer-encoding upgrade user-agent vary via warning www-authenticate
method get status
"""
_REST = (
    "100101201202205206300302303304305306307402405406407408409410411412413414415416417502504505"
    "203 Non-Authoritative Information204 No Content301 Moved Permanently400 Bad Request401 Unauthorized"
    "403 Forbidden404 Not Found500 Internal Server Error501 Not Implemented503 Service Unavailable"
    "Jan Feb Mar Apr May Jun Jul Aug Sept Oct Nov Dec 00:00:00 Mon, Tue, Wed, Thu, Fri, Sat, Sun, GMT"
    "chunked,text/html,image/png,image/jpg,image/gif,application/xml,application/xhtml+xml,text/plain,"
    "text/javascript,publicprivatemax-age=gzip,deflate,sdchcharset=utf-8charset=iso-8859-1,utf-,*,enq=0."
)


def _text(value: str) -> bytes:
    return struct.pack(">L", len(value)) + value.encode()


DICTIONARY = (
    b"".join(
        _text(name)
        for name in [
            *_NAMES.split(),
            "200 OK",
            "version",
            "HTTP/1.1",
            "url",
            "public",
            "set-cookie",
            "keep-alive",
            "origin",
        ]
    )
    + _REST.encode()
)
"""What fields are compressed with from the start (SPDY/3, 2.6.10.1)."""
assert zlib.adler32(DICTIONARY) == 0xE3C6A7C2


@dataclass
class Frame:
    """
    What has come.

    @ivar kind: of a control frame; 0 for data.
    """

    kind: int
    stream: int
    flags: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    data: bytes = b""


class Spdy:
    """One end of a connection: bytes in, frames out."""

    def __init__(self) -> None:
        self._buffer = b""
        self._deflate = zlib.compressobj(zdict=DICTIONARY)
        self._inflate = zlib.decompressobj(zdict=DICTIONARY)

    def feed(self, data: bytes) -> list[Frame]:
        """Take bytes; what they complete."""
        self._buffer += data
        frames = []
        while len(self._buffer) >= 8:
            first, second = struct.unpack_from(">LL", self._buffer)
            size = second & 0xFFFFFF
            if len(self._buffer) < 8 + size:
                break
            payload, self._buffer = self._buffer[8 : 8 + size], self._buffer[8 + size :]
            frames.append(self._read(first, second >> 24, payload))
        return frames

    def _read(self, first: int, flags: int, payload: bytes) -> Frame:
        if not first >> 31:
            return Frame(0, first, flags, data=payload)
        if first >> 16 != 0x8003:
            raise ValueError(f"no SPDY/3: {first:08x}")
        kind = first & 0xFFFF
        if kind not in (SYN_STREAM, SYN_REPLY, HEADERS):
            return Frame(kind, 0, flags, data=payload)
        block = self._inflate.decompress(payload[10 if kind == SYN_STREAM else 4 :])
        return Frame(kind, struct.unpack_from(">L", payload)[0], flags, self._headers(block))

    def _headers(self, block: bytes) -> dict[str, str]:
        (count,) = struct.unpack_from(">L", block)
        texts = []
        at = 4
        for _ in range(2 * count):
            (size,) = struct.unpack_from(">L", block, at)
            texts.append(block[at + 4 : at + 4 + size].decode())
            at += 4 + size
        return dict(zip(texts[::2], texts[1::2], strict=True))

    def _control(self, kind: int, flags: int, payload: bytes) -> bytes:
        return struct.pack(">HHL", 0x8003, kind, flags << 24 | len(payload)) + payload

    def _block(self, headers: dict[str, str]) -> bytes:
        block = struct.pack(">L", len(headers)) + b"".join(
            _text(name) + _text(value) for name, value in headers.items()
        )
        return self._deflate.compress(block) + self._deflate.flush(zlib.Z_SYNC_FLUSH)

    def open(self, stream: int, headers: dict[str, str]) -> bytes:
        """Open a stream."""
        return self._control(SYN_STREAM, 0, struct.pack(">LLH", stream, 0, 0) + self._block(headers))

    def accept(self, stream: int) -> bytes:
        """Take a stream that was opened."""
        return self._control(SYN_REPLY, 0, struct.pack(">L", stream) + self._block({}))

    def data(self, stream: int, data: bytes, flags: int = 0) -> bytes:
        """Send on a stream."""
        return struct.pack(">LL", stream, flags << 24 | len(data)) + data
