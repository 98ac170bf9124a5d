"""The numbers of a connection's streams: odd for one end, even for the other, and increasing."""

from __future__ import annotations

__all__ = ["SPARE_IDS", "StreamIds"]

from typing import Final

from reverseproxy.errors import MuxError, NoMoreStreams
from reverseproxy.wire.yamux.frames import MAX_ID

SPARE_IDS: Final = 1024
"""Streams that can still be opened when L{StreamIds.exhausted} becomes true."""


class StreamIds:
    """
    The numbers that were used, and the next one.

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
        """Whether so few are L{left} that it is time for GoAway."""
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
        Check and note the number of a stream that the peer opens.

        @raise MuxError: if it may not have this number.
        """
        if number & 1 == self.parity or number <= self._peer_last:
            parity = "even" if self.parity else "odd"
            raise MuxError(f"expected an {parity} number over {self._peer_last} for a new stream")
        self._peer_last = number

    def check_known(self, number: int) -> None:
        """
        Check that a stream was opened once.

        @raise MuxError: if it was not.
        """
        if not number:
            raise MuxError("expected the number of a stream")
        if number >= self.next if number & 1 == self.parity else number > self._peer_last:
            raise MuxError(f"expected a stream that was opened, which {number} was not")
