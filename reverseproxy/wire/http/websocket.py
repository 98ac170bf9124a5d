"""
As much of WebSocket (RFC 6455) as a relay needs to end a session cleanly.

A relay that has to end a session sends a close frame rather than just closing the
connection.  A frame can only be inserted between two others, so the relay follows
where frames end.
"""

from __future__ import annotations

__all__ = ["GOING_AWAY", "FrameTracker", "close_frame"]

from typing import Final

GOING_AWAY: Final = 1001
"""The close status of an endpoint that goes away (RFC 6455 7.4.1)."""

MAX_REASON: Final = 123
"""The longest reason in bytes: a control frame has 125 bytes at most, and two are the status."""

_FIN_CLOSE: Final = 0x88
_CLOSE: Final = 0x8
_OPCODE: Final = 0xF
_MASKED: Final = 0x80
_LENGTH: Final = 0x7F
_TWO_BYTES: Final = 126
_EIGHT_BYTES: Final = 127


def close_frame(status: int = GOING_AWAY, reason: str = "") -> bytes:
    """
    Return the close frame of a server, which is not masked.

    @param status: a close status (RFC 6455 7.4).
    @param reason: a text; cut to L{MAX_REASON} bytes.
    """
    text = reason.encode()[:MAX_REASON].decode(errors="ignore").encode()
    body = status.to_bytes(2, "big") + text
    return bytes((_FIN_CLOSE, len(body))) + body


class FrameTracker:
    """
    Follows where the frames of one direction end, without reading their payloads.

    @ivar closed: whether a close frame has begun, behind which nothing may come.
    """

    __slots__ = ("_header", "_left", "closed")

    def __init__(self) -> None:
        self._header = bytearray()  # what has come of a header that is not complete
        self._left = 0  # bytes of the payload that are still to come
        self.closed = False

    @property
    def between(self) -> bool:
        """Whether the bytes so far end where a frame ends."""
        return not self._left and not self._header

    def feed(self, data: bytes, to_end: bool = False) -> int:
        """
        Follow some bytes; malformed ones are not noticed.

        @param to_end: stop where a frame ends.
        @return: how many bytes were followed; less than all only with C{to_end}.
        """
        position = 0
        size = len(data)
        header = self._header
        while position < size and not (to_end and self.between):
            if self._left:
                step = min(self._left, size - position)
                self._left -= step
            else:
                step = min(_header_size(header) - len(header), size - position)
                header += data[position : position + step]
                if len(header) == _header_size(header):
                    self._begin(header)
                    header.clear()
            position += step
        return position

    def _begin(self, header: bytearray) -> None:
        length = header[1] & _LENGTH
        if length == _TWO_BYTES:
            length = int.from_bytes(header[2:4], "big")
        elif length == _EIGHT_BYTES:
            length = int.from_bytes(header[2:10], "big")
        self._left = length
        self.closed = self.closed or header[0] & _OPCODE == _CLOSE


def _header_size(header: bytearray) -> int:
    """Return the size of a header in bytes, as far as its first bytes tell."""
    if len(header) < 2:
        return 2
    length = header[1] & _LENGTH
    size = 2 + (2 if length == _TWO_BYTES else 8 if length == _EIGHT_BYTES else 0)
    return size + (4 if header[1] & _MASKED else 0)
