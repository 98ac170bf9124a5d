"""
The frames of yamux: a header of 12 bytes, and data behind it in frames of type data.

U{The specification<https://github.com/hashicorp/yamux/blob/master/spec.md>}; docs/wire-protocol.rst
has what two ends of this project add.  These are plain numbers rather than enumerations, as they are
used for every frame.
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
"""Window update: credit for a stream, in place of the length; or only flags."""

PING: Final = 2
"""With L{SYN} a ping, with L{ACK} its answer, which repeats the number in place of the length."""

GO_AWAY: Final = 3
"""No more streams; a L{GoAwayCode<reverseproxy.wire.yamux.events.GoAwayCode>} in place of the length."""

WELL: Final = 4
"""
Whether the sender's service can be reached: 1 if it can, 0 if not, in place of the length.

Not a frame of yamux; only where both ends have agreed on C{tells}.
"""

LEAVING: Final = 5
"""
The server is about to leave: the agent is to dial another connection, after the milliseconds in place
of the length.  Open streams go on, and more may be opened, until there is a L{GO_AWAY}.

Not a frame of yamux; only where both ends have agreed on C{moves}.
"""

SYN: Final = 1
"""The first frame of a stream."""

ACK: Final = 2
"""The first frame of the end that has not opened the stream."""

FIN: Final = 4
"""The last frame of one end."""

RST: Final = 8
"""The stream is reset."""

UNSENT: Final = 1
"""In place of the credit, with L{RST}: nothing of the stream was passed on.  yamux has 0 there."""

ON_WIRE: Final = 0xF
"""All flags that yamux has."""

SILENT: Final = 0x100
"""An internal flag, which is never sent: nothing but an ACK was sent on the stream."""

MAX_ID: Final = 0xFFFFFFFF
"""The largest number of a stream."""
