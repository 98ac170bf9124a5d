"""
What a host is to receive: the requests of many clients.

What is written while a read is handled goes out in one piece at the end of it.
When the transport holds enough, those are not read whose requests it holds.  The
host itself is read on, as it may wait for just that before it takes more; so what
it is answered then is bounded, and dropped beyond L{REPLY_LIMIT}.
"""

from __future__ import annotations

__all__ = ["Outgoing"]

from typing import Any, Final

from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from reverseproxy.proxy.rpc.interfaces import Batch, IRpcDownstream
from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of

REPLY_LIMIT: Final = 65536
"""Bytes of answers to what a host asks that may wait until it takes what it gets."""


@implementer(IPushProducer)
class Outgoing:
    """
    What goes out on one connection.

    @ivar full: whether the transport holds as much as it should.
    @ivar written: bytes of all so far.
    """

    __slots__ = ("_blocked", "_out", "_replies", "_transport", "full", "written")

    def __init__(self) -> None:
        self.full = False
        self.written = 0
        self._transport: Any = None  # L{None} before there is one, and when nothing is sent any more
        self._out: list[bytes | bytearray] = []
        self._replies = 0  # bytes of these that came while the transport held enough
        self._blocked: set[IRpcDownstream] = set()

    def open(self, transport: Any) -> None:
        """Send to this transport."""
        self._transport = transport
        transport.registerProducer(self, True)

    def add(self, data: bytes | bytearray, batch: Batch | None) -> None:
        """
        Send something.

        @param batch: where to wait to be flushed; L{None} to send at once.
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
        """Answer what the host has asked, unless it takes nothing of that."""
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
        """What the transport has, that the host has not taken; see L{reverseproxy.transport.backlog}."""
        return NOTHING if self._transport is None else backlog_of(self._transport)

    def backlog(self, position: int) -> Backlog:
        """
        Find what the host has not taken of all up to one request.

        @param position: what L{written} was behind it.
        """
        left = position - (self.written - self.waits.size - sum(map(len, self._out)))
        return NOTHING if left <= 0 else Backlog(left, left)

    def block(self, downstream: IRpcDownstream) -> None:
        """Tell somebody when L{full} is over."""
        self._blocked.add(downstream)

    def _let_go(self) -> None:
        blocked, self._blocked = self._blocked, set()
        for downstream in blocked:
            downstream.upstream_taken(self)

    def close(self) -> None:
        """Send nothing more; who waits for it need not, as soon as the connection is lost."""
        self._transport = None

    def lost(self) -> None:
        """The connection is lost: whoever waits for it, or would, need not."""
        self._out = []
        self.full = False
        self._let_go()

    # IPushProducer: we are the producer of what the host is to receive

    def pauseProducing(self) -> None:
        """The transport holds enough."""
        self.full = True

    def resumeProducing(self) -> None:
        """The transport wants more."""
        self.full = False
        self._replies = 0
        self._let_go()

    def stopProducing(self) -> None:
        """The connection is lost; the client's C{connectionLost} says so as well."""
