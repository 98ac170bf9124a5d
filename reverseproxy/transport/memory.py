"""
What this process may keep for those who do not take it, over all connections.

Each stream is bounded by its window, and each connection by its windows
together.  There may be any number of connections, though, so these are bounds
for all of them, whether their streams are those of HTTP/2 or of a tunnel.
"""

from __future__ import annotations

__all__ = ["HELD", "HELD_LIMIT", "HELD_PART", "MOST_HELD", "WINDOWS", "HeldBytes", "IHolder"]

from typing import Final, Protocol

from reverseproxy.transport.machine import available_memory
from reverseproxy.wire.window import Reserve


class IHolder(Protocol):
    """A stream that keeps what its protocol does not take, or a connection with such streams."""

    @property
    def held(self) -> int:
        """Bytes that it keeps; a connection: those of the stream that keeps most."""

    def reset(self, reason: str) -> None:
        """Break that stream off, and let go of what it keeps."""


class HeldBytes:
    """
    What streams have received for protocols that do not read at present.

    Each stream is bounded by its window and each connection by a budget; this
    is the bound for all that share one of these.

    @ivar total: bytes.
    @ivar limit: beyond which the stream that holds most is reset.
    """

    def __init__(self, limit: int) -> None:
        self.total = 0
        self.limit = limit
        self._holders: dict[IHolder, None] = {}

    def add(self, holder: IHolder, size: int) -> None:
        """Something holds more, and perhaps something has to go for it."""
        self._holders[holder] = None
        self.total += size
        if self.total > self.limit:
            max(self._holders, key=_held_by).reset("all streams together hold too much for slow readers")

    def remove(self, holder: IHolder, size: int) -> None:
        """Something has delivered a part of what it holds, or dropped it."""
        self.total -= size
        if not holder.held:
            self._holders.pop(holder, None)


def _held_by(holder: IHolder) -> int:
    return holder.held


MOST_HELD: Final = 1024 * 1024 * 1024
"""Bytes that all streams of a process may hold for protocols that do not read, if there is enough memory."""

HELD_PART: Final = 4
"""It is no more than one in so many bytes of the memory that there is."""

HELD_LIMIT: Final = min(MOST_HELD, (available_memory() or HELD_PART * MOST_HELD) // HELD_PART)
"""What it is in this process."""

HELD: Final = HeldBytes(HELD_LIMIT)
"""What they hold now."""

WINDOWS: Final = Reserve()
"""What the windows of all streams of this process have grown by."""
