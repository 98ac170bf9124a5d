"""
Whether a ping is still in transit.

A ping is sent behind what was written before it: in the transport's buffer, in the
kernel's, and in queues of the network that may be megabytes long.  As long as the
peer's kernel acknowledges some of that, the peer can't be called dead.  Its timeout
begins when its kernel has received the ping: a kernel goes on acknowledging for a
process that stands still.  That was some time before it is looked at: the kernel at this
end knows when the acknowledgement came.

This needs Linux's figures about a TCP connection.  On others a ping is never in transit.
"""

from __future__ import annotations

__all__ = ["Journey"]

from typing import Any, Final

from reverseproxy.net.tcp_info import tcp_info
from reverseproxy.transport.backlog import backlog_of

_ROOM: Final = 512
"""Bytes within which a ping certainly ends, with frames before it and with TLS."""


class Journey:
    """
    A ping in transit.

    It is created just before the ping is written.

    @ivar under_way: whether the ping may still be in transit.
    @ivar age: for how many seconds there had been no acknowledgement at the last call of L{moves}.
    """

    __slots__ = ("_acked", "_end", "_transport", "age", "under_way")

    def __init__(self, transport: Any) -> None:
        self._transport = transport
        ahead = backlog_of(transport).size
        info = tcp_info(transport) if ahead else None
        self.under_way = info is not None
        self.age = 0.0
        self._acked = info.acked if info is not None else 0
        self._end = self._acked + ahead + _ROOM

    def moves(self) -> bool:
        """
        Check whether the peer has acknowledged more since the last call.

        This includes the moment in which the ping arrives; from then on this is false.
        """
        if not self.under_way:
            return False
        info = tcp_info(self._transport)
        if info is None:
            self.under_way = False
            return False
        acked, self.age = info.acked, info.ack_age / 1000
        if acked >= self._end or not backlog_of(self._transport).size:
            self.under_way = False
            return True
        moved = acked > self._acked
        self._acked = acked
        return moved
