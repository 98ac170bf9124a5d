"""
Frames for streams that we have reset: what the peer has sent before it knew.

A body that is on its way is as large as the windows that we have opened: thousands
of frames where the round trip is long.  They are no flood, and must not end a
connection that carries the requests of others.
"""

from __future__ import annotations

__all__ = ["LATE_FRAMES", "ResetStreams"]

from collections import OrderedDict
from typing import Final

LATE_FRAMES: Final = 8
"""Frames other than DATA that a peer may have sent on a stream: heads, WINDOW_UPDATE, its own RST_STREAM."""


class ResetStreams:
    """
    The latest streams that we have reset, and what the peer may have sent on them.

    Of older ones, only the highest number is known.
    """

    __slots__ = ("_forgotten", "_left", "_most")

    def __init__(self, most: int) -> None:
        """
        @param most: how many are remembered.
        """
        self._left: OrderedDict[int, tuple[int, int]] = OrderedDict()  # bytes of DATA, and other frames
        self._forgotten = 0  # the highest stream that was dropped
        self._most = most

    def __len__(self) -> int:
        return len(self._left)

    def __contains__(self, number: int) -> bool:
        """Return whether a stream was reset, or may have been."""
        return number in self._left or number <= self._forgotten

    def remember(self, number: int, window: int) -> None:
        """
        Remember a stream that we reset.

        @param window: bytes of DATA that the peer may have sent.
        """
        self._left[number] = window, LATE_FRAMES
        if len(self._left) > self._most:
            self._forgotten = max(self._forgotten, self._left.popitem(last=False)[0])

    def expects(self, number: int, size: int = 0) -> bool:
        """
        Return whether the peer may have sent a frame before it knew of the reset; each counts once.

        @param size: bytes of DATA; 0 for any other frame.
        """
        left = self._left.get(number)
        if left is None:
            return False
        window, frames = left
        if size:
            window -= size
        else:
            frames -= 1
        if window < 0 or frames < 0:
            return False
        self._left[number] = window, frames
        return True
