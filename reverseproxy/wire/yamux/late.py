"""What may still come for streams that we have reset: what the peer sent before it knew is dropped."""

from __future__ import annotations

__all__ = ["REMEMBERED_RESETS", "ResetStreams"]

from collections import OrderedDict
from typing import Final

from reverseproxy.errors import MuxError
from reverseproxy.wire.yamux.frames import FIN, RST

REMEMBERED_RESETS: Final = 1024
"""Streams that we reset and remember, as the peer may have sent more for them."""


class ResetStreams:
    """
    The latest streams that we have reset while the peer could send, and how many bytes it may have sent.

    Of those before them, it is only known that there may have been some up to a certain number.
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
        Be ready for what may be under way for a stream.

        @param window: bytes that the peer may have sent.
        """
        windows = self._windows
        windows[number] = window
        if len(windows) > REMEMBERED_RESETS:
            number, _ = windows.popitem(last=False)
            self._forgotten[number & 1] = max(self._forgotten[number & 1], number)

    def may_include(self, number: int) -> bool:
        """Whether a stream that is not remembered may have been reset nevertheless."""
        return number <= self._forgotten[number & 1]

    def ended(self, number: int) -> None:
        """The peer has ended a stream, or reset it, and sends nothing more."""
        self._windows.pop(number, None)

    def drop(self, number: int, flags: int, length: int) -> None:
        """
        Take a frame of data for a stream that is remembered.

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
