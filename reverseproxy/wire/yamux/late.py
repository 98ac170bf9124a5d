"""Frames for streams that we have reset: what the peer has sent before it knew is dropped."""

from __future__ import annotations

__all__ = ["REMEMBERED_RESETS", "ResetStreams"]

from collections import OrderedDict
from typing import Final

from reverseproxy.errors import MuxError
from reverseproxy.wire.yamux.frames import FIN, RST

REMEMBERED_RESETS: Final = 1024
"""How many streams that we reset are remembered, as the peer may have sent more for them."""


class ResetStreams:
    """
    The latest streams that we have reset while the peer could send, and how many bytes it may have sent.

    Of older ones, only the highest number is known.
    """

    __slots__ = ("_forgotten", "_windows")

    def __init__(self) -> None:
        self._windows: OrderedDict[int, int] = OrderedDict()
        self._forgotten = [0, 0]  # by parity, the highest stream that was dropped

    def __len__(self) -> int:
        return len(self._windows)

    def __contains__(self, number: int) -> bool:
        return number in self._windows

    def remember(self, number: int, window: int) -> None:
        """
        Remember a stream that we reset.

        @param window: bytes that the peer may have sent.
        """
        windows = self._windows
        windows[number] = window
        if len(windows) > REMEMBERED_RESETS:
            number, _ = windows.popitem(last=False)
            self._forgotten[number & 1] = max(self._forgotten[number & 1], number)

    def may_include(self, number: int) -> bool:
        """Return whether a stream that is not remembered may have been reset earlier."""
        return number <= self._forgotten[number & 1]

    def ended(self, number: int) -> None:
        """Forget a stream that the peer has ended or reset: nothing more comes for it."""
        self._windows.pop(number, None)

    def drop(self, number: int, flags: int, length: int) -> None:
        """
        Drop a frame of data for a stream that is remembered.

        @raise MuxError: if the peer had no credit for so much.
        """
        window = self._windows[number]
        if length > window:
            raise MuxError(f"expected {window} bytes at most on stream {number}, which was reset")
        if flags & (FIN | RST):
            del self._windows[number]
        else:
            self._windows[number] = window - length

    def clear(self) -> None:
        """Forget all: nothing more is read."""
        self._windows.clear()
