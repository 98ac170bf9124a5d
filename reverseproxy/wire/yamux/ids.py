"""The numbers of a connection's streams: odd ones of one end, even ones of the other, and all increase."""

from __future__ import annotations

__all__ = ["SPARE_IDS", "StreamIds"]

from typing import Final

from reverseproxy.errors import MuxError, NoMoreStreams
from reverseproxy.wire.yamux.frames import MAX_ID

SPARE_IDS: Final = 1024
"""Streams that can still be opened when L{StreamIds.exhausted} says that it is time to go away."""


class StreamIds:
    """
    Which numbers were used, and which are next.

    @ivar next: the number of the stream that we open next.
    @ivar parity: 1 if ours are odd, else 0.
    """

    __slots__ = ("_peer_last", "next", "parity")

    def __init__(self, client: bool) -> None:
        """
        @param client: whether our numbers are odd.
        """
        self.next = 1 if client else 2
        self.parity = self.next & 1
        self._peer_last = 0

    @property
    def left(self) -> int:
        """How many streams we may still open."""
        return max(0, (MAX_ID - self.next) // 2 + 1)

    @property
    def exhausted(self) -> bool:
        """Whether L{left} is so few that it is time to go away."""
        return self.next > MAX_ID - 2 * SPARE_IDS

    def take(self) -> int:
        """
        Return the number of a stream that we open.

        @raise NoMoreStreams: if none is left.
        """
        number = self.next
        if number > MAX_ID:
            raise NoMoreStreams("the connection has used up its numbers of streams")
        self.next = number + 2
        return number

    def accept(self, number: int) -> None:
        """
        The peer opens a stream.

        @raise MuxError: if it can't have this number.
        """
        if number & 1 == self.parity or number <= self._peer_last:
            parity = "even" if self.parity else "odd"
            raise MuxError(f"expected an {parity} number over {self._peer_last} for a new stream")
        self._peer_last = number

    def check_known(self, number: int) -> None:
        """
        Find that a stream was there once.

        @raise MuxError: if it was not.
        """
        if not number:
            raise MuxError("expected the number of a stream")
        if number >= self.next if number & 1 == self.parity else number > self._peer_last:
            raise MuxError(f"expected a stream that was opened, which {number} was not")
