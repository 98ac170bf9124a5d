"""
Whether a question to a peer is still on its way.

A question waits behind what was written before it: in the transport, in the
kernel, and in queues of the network that may be megabytes long.  As long as the
peer's kernel acknowledges some of that, nobody can say that the peer is gone.
It has its time for an answer from when its kernel has the question: a kernel
goes on acknowledging for a process that stands still.

Only what Linux says of TCP is good enough for this.  For all else a question is
never on its way.
"""

from __future__ import annotations

__all__ = ["Journey"]

from typing import Any, Final

from reverseproxy.net.tcp_info import acknowledged
from reverseproxy.transport.backlog import backlog_of

_ROOM: Final = 512
"""Bytes in which the question is sure to be, with what stands before it and TLS around it."""


class Journey:
    """
    A question on its way.

    Begins when it is about to be written.

    @ivar under_way: whether it may be on its way still.
    """

    __slots__ = ("_acked", "_end", "_transport", "under_way")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        ahead = backlog_of(transport).size
        acked = acknowledged(transport) if ahead else None
        self.under_way = acked is not None
        self._acked = acked or 0
        self._end = self._acked + ahead + _ROOM

    def moves(self) -> bool:
        """
        See whether it has come nearer, or has arrived, since this was asked before.

        It arrives once; from then on this is false.
        """
        if not self.under_way:
            return False
        acked = acknowledged(self._transport)
        if acked is None:
            self.under_way = False
            return False
        if acked >= self._end or not backlog_of(self._transport).size:
            self.under_way = False
            return True
        moved = acked > self._acked
        self._acked = acked
        return moved
