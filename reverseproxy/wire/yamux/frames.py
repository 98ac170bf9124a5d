"""
The frames of yamux: a header of 12 bytes, and data behind it in one kind of them.

They are plain numbers rather than enumerations, as there is no frame that is
read or written without them.
"""

from __future__ import annotations

__all__ = [
    "ACK",
    "DATA",
    "FIN",
    "GO_AWAY",
    "HEADER_SIZE",
    "LEAVING",
    "MAX_ID",
    "ON_WIRE",
    "PING",
    "RST",
    "SILENT",
    "SYN",
    "UNSENT",
    "UPDATE",
    "WELL",
    "pack",
    "unpack",
]

from struct import Struct
from typing import Final

_HEADER: Final = Struct(">HHLL")

HEADER_SIZE: Final = 12
"""Bytes of a header: version and kind, flags, stream, and length."""

pack: Final = _HEADER.pack
"""Make a header of a kind, flags, a stream's number, and a length, or what stands in its place."""

unpack: Final = _HEADER.unpack_from
"""Read a header: a kind, which is over L{LEAVING} if the version is not 0, and the rest as in L{pack}."""

DATA: Final = 0
"""Data of a stream; the length is theirs."""

UPDATE: Final = 1
"""More credit for a stream, by the length; or only flags."""

PING: Final = 2
"""With L{SYN} a question, with L{ACK} the answer; the length is for the asking end to choose."""

GO_AWAY: Final = 3
"""No more streams; the length is a L{GoAwayCode<reverseproxy.wire.yamux.events.GoAwayCode>}."""

WELL: Final = 4
"""
Whether our service can be reached: 1 if it can, 0 if not, in place of the length.

Not of yamux; only where both ends have agreed on it.
"""

LEAVING: Final = 5
"""
The server is about to leave, and wants another connection dialled; the milliseconds until then in place
of the length.  What is open goes on, and streams may still be opened, until there is a L{GO_AWAY}.

Not of yamux; only where both ends have agreed on it.
"""

SYN: Final = 1
"""The first frame of a stream."""

ACK: Final = 2
"""The first frame of the end that has not opened the stream."""

FIN: Final = 4
"""The last frame of one end."""

RST: Final = 8
"""The stream is broken off."""

UNSENT: Final = 1
"""In place of the credit, with L{RST}: nothing of the stream was passed on.  Yamux has 0 there."""

ON_WIRE: Final = 0xF
"""All flags that yamux has."""

SILENT: Final = 0x100
"""A flag of our own, which is never sent: nothing but an ACK was sent on the stream."""

MAX_ID: Final = 0xFFFFFFFF
"""The largest number of a stream."""
