"""
The frames of HTTP/2 (RFC 9113 sections 4 and 6): numbers, and how they are written.

They are read by L{reverseproxy.wire.http2.frame_reader}.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_MAX_FRAME_SIZE",
    "DEFAULT_WINDOW",
    "HEADER",
    "HEADER_SIZE",
    "MAX_STREAM_ID",
    "MAX_WINDOW",
    "PREFACE",
    "ErrorCode",
    "FrameFlag",
    "FrameType",
    "Setting",
    "frame",
    "go_away",
    "header_block",
    "ping",
    "rst_stream",
    "settings",
    "window_update",
]

from collections.abc import Iterable
from enum import IntEnum
from struct import Struct
from typing import Final

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first."""

HEADER: Final = Struct(">HBBBL")
"""The 9 bytes in front of every payload: length (2 bytes and 1), kind, flags, stream."""

HEADER_SIZE: Final = 9

DEFAULT_MAX_FRAME_SIZE: Final = 16384
DEFAULT_WINDOW: Final = 65535
MAX_WINDOW: Final = 2**31 - 1
MAX_STREAM_ID: Final = 2**31 - 1


class FrameType(IntEnum):
    """The type of a frame (RFC 9113 6)."""

    DATA = 0
    HEADERS = 1
    PRIORITY = 2
    RST_STREAM = 3
    SETTINGS = 4
    PUSH_PROMISE = 5
    PING = 6
    GOAWAY = 7
    WINDOW_UPDATE = 8
    CONTINUATION = 9


class FrameFlag:
    """Flags of a frame; some share a bit, as they belong to different types."""

    ACK: Final = 0x1
    END_STREAM: Final = 0x1
    END_HEADERS: Final = 0x4
    PADDED: Final = 0x8
    PRIORITY: Final = 0x20


class Setting(IntEnum):
    """The parameters in SETTINGS (RFC 9113 6.5.2, RFC 8441 3, RFC 9218 2.1)."""

    HEADER_TABLE_SIZE = 1
    ENABLE_PUSH = 2
    MAX_CONCURRENT_STREAMS = 3
    INITIAL_WINDOW_SIZE = 4
    MAX_FRAME_SIZE = 5
    MAX_HEADER_LIST_SIZE = 6
    ENABLE_CONNECT_PROTOCOL = 8
    NO_RFC7540_PRIORITIES = 9
    UPGRADES = 0xF0D7
    """Our own, out of the range for experiments: see L{reverseproxy.wire.http2.upgrades}."""


class ErrorCode(IntEnum):
    """Error codes of streams and connections (RFC 9113 7)."""

    NO_ERROR = 0
    PROTOCOL_ERROR = 1
    INTERNAL_ERROR = 2
    FLOW_CONTROL_ERROR = 3
    SETTINGS_TIMEOUT = 4
    STREAM_CLOSED = 5
    FRAME_SIZE_ERROR = 6
    REFUSED_STREAM = 7
    CANCEL = 8
    COMPRESSION_ERROR = 9
    CONNECT_ERROR = 10
    ENHANCE_YOUR_CALM = 11
    INADEQUATE_SECURITY = 12
    HTTP_1_1_REQUIRED = 13

    @classmethod
    def name_of(cls, code: int) -> str:
        """Return the name of a code for a log; unknown codes are legal."""
        try:
            return cls(code).name
        except ValueError:
            return f"error code {code}"


_UINT32: Final = Struct(">L")
_SETTING: Final = Struct(">HL")
_GOAWAY: Final = Struct(">LL")


def frame(kind: int, flags: int, stream: int, payload: bytes = b"") -> bytes:
    """Write a frame."""
    size = len(payload)
    return HEADER.pack(size >> 8, size & 0xFF, kind, flags, stream) + payload


def settings(values: Iterable[tuple[int, int]]) -> bytes:
    """Write SETTINGS."""
    return frame(FrameType.SETTINGS, 0, 0, b"".join([_SETTING.pack(key, value) for key, value in values]))


def ping(data: bytes, ack: bool = False) -> bytes:
    """Write a PING with 8 bytes."""
    return frame(FrameType.PING, FrameFlag.ACK if ack else 0, 0, data)


def rst_stream(stream: int, code: int) -> bytes:
    """Write RST_STREAM."""
    return frame(FrameType.RST_STREAM, 0, stream, _UINT32.pack(code))


def window_update(stream: int, increment: int) -> bytes:
    """Write WINDOW_UPDATE; stream 0 for the connection."""
    return frame(FrameType.WINDOW_UPDATE, 0, stream, _UINT32.pack(increment))


def go_away(last_stream: int, code: int, debug: bytes = b"") -> bytes:
    """Write GOAWAY."""
    return frame(FrameType.GOAWAY, 0, 0, _GOAWAY.pack(last_stream, code) + debug)


def header_block(stream: int, block: bytes, end_stream: bool, max_frame_size: int) -> bytes:
    """Write an encoded field block as HEADERS, and as many CONTINUATIONs as it needs."""
    end = FrameFlag.END_STREAM if end_stream else 0
    if len(block) <= max_frame_size:
        return frame(FrameType.HEADERS, end | FrameFlag.END_HEADERS, stream, block)
    pieces = [block[start : start + max_frame_size] for start in range(0, len(block), max_frame_size)]
    last = len(pieces) - 1
    return b"".join(
        [
            frame(
                FrameType.CONTINUATION if index else FrameType.HEADERS,
                (0 if index else end) | (FrameFlag.END_HEADERS if index == last else 0),
                stream,
                piece,
            )
            for index, piece in enumerate(pieces)
        ]
    )
