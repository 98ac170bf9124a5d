"""
A bound on what all streams of this process buffer for protocols that do not read.

Each stream's buffer is bounded by its window, and each connection's by the sum of
its windows.  As there may be any number of connections, these are bounds for all of
them, whether their streams are those of HTTP/2 or of a tunnel.
"""

from __future__ import annotations

__all__ = ["HELD", "HELD_LIMIT", "HELD_PART", "MOST_HELD", "WINDOWS", "HeldBytes", "IHolder"]

from typing import Final, Protocol

from reverseproxy.transport.available_memory import available_memory
from reverseproxy.wire.window import Reserve


class IHolder(Protocol):
    """A stream that buffers what its protocol does not read, or a connection with such streams."""

    @property
    def held(self) -> int:
        """Bytes that it buffers; for a connection, those of the stream that buffers most."""

    def reset(self, reason: str) -> None:
        """Reset that stream, and drop its buffer."""


class HeldBytes:
    """
    A budget for the bytes that streams buffer for protocols that do not read.

    Each stream is bounded by its window; this is the bound for all streams that
    share a budget.

    @ivar total: bytes that are buffered.
    @ivar limit: bytes above which the stream that buffers most is reset.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self.limit = limit
        self._holders: dict[IHolder, None] = {}

    def add(self, holder: IHolder, size: int) -> None:
        """Note that something buffers more; above the limit, reset the stream that buffers most."""
        self._holders[holder] = None
        self.total += size
        if self.total > self.limit:
            max(self._holders, key=_held_by).reset("all streams together hold too much for slow readers")

    def remove(self, holder: IHolder, size: int) -> None:
        """Note that something buffers less."""
        self.total -= size
        if not holder.held:
            self._holders.pop(holder, None)


def _held_by(holder: IHolder) -> int:
    return holder.held


MOST_HELD: Final = 1024 * 1024 * 1024
"""Bytes that all streams of a process may hold for protocols that do not read, if there is enough memory."""

HELD_PART: Final = 4
"""The limit is at most this fraction of the memory: one in so many bytes."""

HELD_LIMIT: Final = min(MOST_HELD, (available_memory() or HELD_PART * MOST_HELD) // HELD_PART)
"""The limit in this process."""

HELD: Final = HeldBytes(HELD_LIMIT)
"""The budget of this process."""

WINDOWS: Final = Reserve()
"""What the windows of all streams of this process have grown by."""
