"""
A relay of two connections: what one receives, the other sends.

A relay uses only L{twisted.internet.interfaces.ITransport}, C{IPushProducer},
C{IConsumer} and C{loseWriteConnection} of a transport, so that a faster transport can
replace Twisted's without a change here or in a protocol.
"""

from __future__ import annotations

__all__ = ["BODY_TAIL", "LONG_BODY", "RelayEnd", "couple", "lose_connection"]

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.transport.backlog import backlog_of
from reverseproxy.transport.closing import CloseLimits, DelayedClose
from reverseproxy.wire.http.websocket import FrameTracker

LONG_BODY = 131072
"""Bytes of an HTTP body from which on it is spliced to the other connection."""

BODY_TAIL = 16384
"""Bytes at the end of such a body that are read here, as splicing can't end the message."""

EARLY_LIMIT = 65536
"""Bytes that an end buffers before it is coupled; beyond them, reading is paused."""


def lose_connection(transport: Any) -> None:
    """
    Close a connection once its buffered bytes are out.

    This may wait for ever for a peer that does not read, so start a L{DelayedClose}
    first: the connection may be lost before this returns.
    """
    transport.unregisterProducer()  # TLS transports don't close while they have a producer
    transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class RelayEnd(Rebindable):
    """
    One end of a relay.

    Until it is coupled it buffers what it receives, up to L{EARLY_LIMIT} bytes
    and one read, and then pauses reading.  An end-of-file on one side is passed
    on as a half-close, after everything that came before it; a lost connection
    closes the other side.

    @ivar received: bytes received so far on this end.
    @ivar on_close: called once with the reason when this end's connection is lost.
    @ivar close_limits: how long closing its connection may take.
    @ivar unsaid: a close frame for the other end, to be sent if this end is lost between two frames and
        has sent none.
    @ivar frames: tracks the WebSocket frames that this end receives, if it does; such data is not spliced.
    """

    transport: Any
    received = 0
    close_limits = CloseLimits()
    frames: FrameTracker | None = None
    unsaid = b""
    _last_frame = b""
    _said_last = False
    on_close: Callable[[Failure], None] | None = None

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._peer: RelayEnd | None = None
        self._early: list[bytes] = []
        self._read_closed = False
        self._write_closed = False
        self._delayed_close: DelayedClose | None = None
        self._lost = False

    @property
    def coupled(self) -> bool:
        """Whether this end has been joined to another."""
        return self._peer is not None

    @property
    def lost(self) -> bool:
        """Whether this end's connection is lost."""
        return self._lost

    @property
    def closing(self) -> bool:
        """Whether this end's connection is being closed by us."""
        return self._delayed_close is not None

    def dataReceived(self, data: bytes) -> None:
        """Buffer what is received before this end is coupled."""
        self.received += len(data)
        self._early.append(data)
        if self.received > EARLY_LIMIT:
            self.transport.pauseProducing()

    def _forward(self, data: bytes) -> None:
        # Replaces dataReceived once coupled: this runs for every read.
        self.received += len(data)
        self._write(data)

    def _join(self, peer: RelayEnd) -> None:
        self._peer = peer
        self._write = peer.transport.write
        self.rebind(self._forward if self.frames is None else self._follow)
        peer.transport.registerProducer(self._producer(), True)
        early, self._early = self._early, []
        if early:
            self._put(b"".join(early))
        self._pass_unseen()

    def _pass_unseen(self) -> None:
        """Splice what is received to the other end, if possible."""
        if self.frames is None and self._peer is not None and not self._lost:
            self.splice_to(self._peer.transport, sys.maxsize, self._passed_on)

    def _follow(self, data: bytes) -> None:
        """Forward as L{_forward} does, and track frames."""
        self.received += len(data)
        self._put(data)

    def _put(self, data: bytes) -> None:
        frames = self.frames
        if frames is None:
            self._write(data)
        elif not self._last_frame:
            frames.feed(data)
            self._write(data)
        elif not self._said_last:
            self._write(data[: frames.feed(data, to_end=True)])
            self._say_last()

    def say_last(self, frame: bytes) -> bool:
        """
        Send a close frame to the other end, as soon as the current frame has ended.

        What this end receives after that is dropped.

        @return: whether it is sent: this end has frames, and no close frame has been sent.
        """
        frames = self.frames
        if frames is None or frames.closed or self._peer is None or self._read_closed or self._lost:
            return False
        self._last_frame = frame
        self._say_last()
        return True

    def _say_last(self) -> None:
        if self.frames is not None and self.frames.between and not self._said_last:
            self._said_last = True
            self._write(self._last_frame)

    def _say_what_is_unsaid(self) -> None:
        """Send L{unsaid}, if this end has sent no close frame."""
        if self.unsaid and not self._said_last:
            self.say_last(self.unsaid)

    def _producer(self) -> Any:
        """Return the producer that the other end's transport pauses."""
        return self.transport

    def wait_for_another(self, early: list[bytes]) -> None:
        """
        Uncouple from the other end, which is lost, and wait to be coupled again.

        @param early: what has been received, for the next other end.
        """
        self._peer = None
        self._early = early
        self.transport.unregisterProducer()
        self.rebind(partial(RelayEnd.dataReceived, self))

    def _passed_on(self, size: int) -> None:
        self.received += size

    def readConnectionLost(self) -> None:
        """Half-close the other end, as the peer has sent everything."""
        self._say_what_is_unsaid()
        self._read_closed = True
        if self._peer is not None:
            self._peer._finish_writing()
        self._close_if_finished()

    def writeConnectionLost(self) -> None:
        """Close the connection if the peer has closed its half, too."""
        self._write_closed = True
        self._close_if_finished()

    def _finish_writing(self) -> None:
        if not self._lost:
            self.transport.unregisterProducer()
            self.transport.loseWriteConnection()

    def _close_if_finished(self) -> None:
        if self._read_closed and self._write_closed:
            self.close()

    def close(self) -> None:
        """Close this end's connection when what is buffered for it has been sent and received."""
        if not self._lost and self._delayed_close is None:
            self._delayed_close = DelayedClose(self._clock, self.transport, self.close_limits)
            lose_connection(self.transport)

    def end_sending(self) -> None:
        """Half-close this end's connection, and go on receiving; close it if it has no half-close."""
        if self._lost or self._write_closed or self._delayed_close is not None:
            return
        if hasattr(self.transport, "loseWriteConnection"):
            self._finish_writing()
        else:
            self.close()

    def cut(self) -> None:
        """Close this end's connection; abort it if data is buffered for its peer."""
        if backlog_of(self.transport).size:
            self.abort()
        else:
            self.close()

    def abort(self) -> None:
        """Close this end's connection now, dropping what is buffered for it."""
        if not self._lost:
            self.transport.abortConnection()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Close the other end, then tell C{on_close}."""
        self._say_what_is_unsaid()
        self._lost = True
        self._early.clear()
        if self._delayed_close is not None:
            self._delayed_close.stop()
        if self._peer is not None:
            self._peer.close()
        if self.on_close is not None:
            on_close, self.on_close = self.on_close, None
            on_close(reason)


def couple(left: RelayEnd, right: RelayEnd) -> None:
    """
    Couple two connected ends in both directions, with backpressure.

    What either end has received before is forwarded first; an end-of-file or a loss
    of either connection takes effect now.
    """
    if left.lost or right.lost:
        left.close()
        right.close()
        return
    left._join(right)
    right._join(left)
    for end, other in ((left, right), (right, left)):
        if end._read_closed:
            other._finish_writing()
        else:
            end.transport.resumeProducing()
