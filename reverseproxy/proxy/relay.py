"""
Two connections joined: what one receives, the other sends.

This is the seam between protocols and transports.  A relay needs of a transport
only what L{twisted.internet.interfaces.ITransport}, C{IPushProducer},
C{IConsumer} and C{loseWriteConnection} promise, so that a faster transport can
take the place of Twisted's without a change here or in a protocol.
"""

from __future__ import annotations

__all__ = ["BODY_TAIL", "LINGER", "LONG_BODY", "RelayEnd", "couple", "lose_connection"]

import sys
from collections.abc import Callable
from functools import partial
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.proxy.closing import LINGER, CloseLimits, DelayedClose
from reverseproxy.transport.backlog import backlog_of
from reverseproxy.wire.http.websocket import FrameTracker

LONG_BODY = 131072
"""Bytes of an HTTP body that are worth to be passed on without a look at them."""

BODY_TAIL = 16384
"""Bytes at the end of such a body that are looked at, as it is not one write that ends it."""

EARLY_LIMIT = 65536
"""Bytes that an end keeps before it is coupled; reading pauses beyond them."""


def lose_connection(transport: Any) -> None:
    """
    Close a connection once its buffered bytes are out.

    This may wait for ever on a peer that does not read, so begin a L{DelayedClose}
    first: the connection may be lost before this returns.
    """
    transport.unregisterProducer()  # TLS transports don't close while they have a producer
    transport.loseConnection()


@implementer(IHalfCloseableProtocol)
class RelayEnd(Rebindable):
    """
    One end of a relay.

    Until it is coupled it keeps what it receives, up to L{EARLY_LIMIT} bytes
    and one read, and then stops reading.  An end-of-file on one side is passed
    on as a half-close, after everything that came before it; a lost connection
    closes the other side.

    @ivar received: bytes received so far on this end.
    @ivar on_close: called once with the reason when this end's connection is lost.
    @ivar close_limits: how its connection may end.
    @ivar unsaid: a last frame for the other end, should this one end between two frames and without one.
    @ivar frames: where the frames end that come on this end, where they are those of WebSocket.  Somebody
        has to look at what comes then, so that it is not passed on unseen.
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
        """Whether this end's connection is gone."""
        return self._lost

    @property
    def closing(self) -> bool:
        """Whether we close this end's connection."""
        return self._delayed_close is not None

    def dataReceived(self, data: bytes) -> None:
        """Keep what arrives before this end is coupled."""
        self.received += len(data)
        self._early.append(data)
        if self.received > EARLY_LIMIT:
            self.transport.pauseProducing()

    def _forward(self, data: bytes) -> None:
        # Takes the place of dataReceived once coupled: this runs for every read.
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
        """Let what comes go to the other end without a look at it, where that can be."""
        if self.frames is None and self._peer is not None and not self._lost:
            self.splice_to(self._peer.transport, sys.maxsize, self._passed_on)

    def _follow(self, data: bytes) -> None:
        """Do as L{_forward} does, and see where frames end."""
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
        Send a last frame to the other end, as soon as the one that is under way has ended.

        What comes on this end behind it is dropped.

        @return: whether that can be, as this end carries frames, and none of them was the last one.
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
        """This end is over, perhaps without a last frame."""
        if self.unsaid and not self._said_last:
            self.say_last(self.unsaid)

    def _producer(self) -> Any:
        """Say whom the other end's transport is to pause."""
        return self.transport

    def wait_for_another(self, early: list[bytes]) -> None:
        """
        Have nothing more to do with the other end, which is lost, and wait to be coupled again.

        @param early: what has been received, and is meant for the next other end.
        """
        self._peer = None
        self._early = early
        self.transport.unregisterProducer()
        self.rebind(partial(RelayEnd.dataReceived, self))

    def _passed_on(self, size: int) -> None:
        self.received += size

    def readConnectionLost(self) -> None:
        """The peer of this connection has sent everything."""
        self._say_what_is_unsaid()
        self._read_closed = True
        if self._peer is not None:
            self._peer._finish_writing()
        self._close_if_finished()

    def writeConnectionLost(self) -> None:
        """Everything we had to send is sent, and our half is closed."""
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
        """Close this end's connection when what is buffered for it has been sent, and taken."""
        if not self._lost and self._delayed_close is None:
            self._delayed_close = DelayedClose(self._clock, self.transport, self.close_limits)
            lose_connection(self.transport)

    def end_sending(self) -> None:
        """Send no more on this end's connection, and hear to its end what comes, where that can be."""
        if self._lost or self._write_closed or self._delayed_close is not None:
            return
        if hasattr(self.transport, "loseWriteConnection"):
            self._finish_writing()
        else:
            self.close()

    def cut(self) -> None:
        """Close this end's connection; at once if its peer takes nothing of what is buffered for it."""
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
    Join two connected ends in both directions, with back-pressure.

    What either end received before is passed on first; an end-of-file or a loss
    that either end met before takes effect now.
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
