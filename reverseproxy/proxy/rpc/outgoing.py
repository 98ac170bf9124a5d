"""
The output buffer of a connection to a host: the requests of many clients.

What is written while a read is handled is sent in one piece at the end of it.
When the transport's buffer is full, reading from the clients whose requests are in
it is paused.  Reading from the host goes on, as it may send its responses before it
reads more requests; so replies to the host's own heartbeats and requests are bounded
then, and dropped beyond L{REPLY_LIMIT} bytes.
"""

from __future__ import annotations

__all__ = ["Outgoing"]

from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from reverseproxy.proxy.rpc.interfaces import Batch, IRpcDownstream
from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of

REPLY_LIMIT: Final = 65536
"""Bytes of replies to a host's own frames that are buffered while it does not read."""


@implementer(IPushProducer)
class Outgoing:
    """
    The output of one connection.

    @ivar full: whether the transport's buffer is full.
    @ivar written: the number of bytes written so far.
    """

    __slots__ = ("_blocked", "_out", "_replies", "_transport", "full", "written")

    def __init__(self) -> None:
        self.full = False
        self.written = 0
        self._transport: Any = None  # L{None} before it is connected, and once it is closed
        self._out: list[bytes | bytearray] = []
        self._replies = 0  # bytes of replies since the transport's buffer is full
        self._blocked: set[IRpcDownstream] = set()

    def open(self, transport: Any) -> None:
        """Set the transport, and become its producer."""
        self._transport = transport
        transport.registerProducer(self, True)

    def add(self, data: bytes | bytearray, batch: Batch | None) -> None:
        """
        Write a frame.

        @param batch: collects what is to be flushed later; L{None} to write at once.
        """
        self.written += len(data)
        if batch is None:
            if self._transport is not None:
                self._transport.write(bytes(data))
            return
        if not self._out:
            batch.append(self)
        self._out.append(data)

    def reply(self, data: bytes, batch: Batch | None) -> None:
        """Write a reply to a frame of the host's own, unless too many are buffered already."""
        if self.full:
            self._replies += len(data)
            if self._replies > REPLY_LIMIT:
                return
        self.add(data, batch)

    def flush(self) -> None:
        """See L{reverseproxy.proxy.rpc.interfaces.IFlushed}."""
        out, self._out = self._out, []
        if out and self._transport is not None:
            self._transport.write(bytes(out[0]) if len(out) == 1 else b"".join(out))

    @property
    def waits(self) -> Backlog:
        """What the host has not received of the output; see L{reverseproxy.transport.backlog}."""
        return NOTHING if self._transport is None else backlog_of(self._transport)

    def backlog(self, position: int) -> Backlog:
        """
        Return what the host has not received of the output up to the end of one request.

        @param position: the value of L{written} right after the request.
        """
        left = position - (self.written - self.waits.size - sum(map(len, self._out)))
        return NOTHING if left <= 0 else Backlog(left, left)

    def block(self, downstream: IRpcDownstream) -> None:
        """Call a client's C{upstream_taken} when L{full} is over."""
        self._blocked.add(downstream)

    def _let_go(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for downstream in blocked:
            downstream.upstream_taken(self)

    def close(self) -> None:
        """Write nothing more; blocked clients are released when the connection is lost."""
        self._transport = None

    def lost(self) -> None:
        """Release the blocked clients: the connection is lost."""
        self._out = []
        self.full = False
        self._let_go()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Note that the transport's buffer is full."""
        self.full = True

    def resumeProducing(self) -> None:
        """Let the blocked clients go on."""
        self.full = False
        self._replies = 0
        self._let_go()

    def stopProducing(self) -> None:
        """Do nothing: C{connectionLost} follows."""
