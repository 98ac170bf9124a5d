"""
One of many streams of a connection, as a transport.

What protocols may expect of it is what they may expect of a TCP connection, and
is tested with the same tests.  What differs:

  - There is no socket, hence no C{getHandle}, and the options of TCP are those
    of the connection that carries the streams, whoever sets them.
  - What is written leaves at the end of the reactor's turn, with what others
    have written, so that C{abortConnection} takes some of it back.
  - A stream that is aborted ends by itself; the others do not notice.
"""

from __future__ import annotations

__all__ = ["HIGH_WATER", "MuxStream"]

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    ILoggingContext,
    IProtocol,
    IProtocolFactory,
    IPushProducer,
    ITCPTransport,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.transport.backlog import NOTHING, Backlog, backlog_of
from reverseproxy.transport.producers import Consumer

if TYPE_CHECKING:
    from reverseproxy.mux.streams import SessionStreams

log = Logger()

HIGH_WATER: Final = 65536
"""Bytes written and not yet sent with which a producer is paused, as Twisted's transports have it."""

_PIECE: Final = 65536
"""Bytes that are delivered at once of what had to wait."""


@implementer(ITCPTransport, IConsumer, IPushProducer, ILoggingContext)
class MuxStream(Consumer):
    """
    A stream; see L{reverseproxy.mux.session.MuxSession}.

    @ivar number: the stream's.
    @ivar protocol: who has it, until it is lost.
    @ivar connected: whether it is open.
    @ivar disconnected: whether its protocol has been told of its end.
    @ivar disconnecting: whether it is being closed.
    @ivar shut: whether nothing can be written any more.
    @ivar ended: whether the peer has sent everything.
    @ivar paused: whether the protocol does not want to read.
    """

    __slots__ = (
        "__weakref__",
        "_attended",
        "_dropped",
        "_factory",
        "_half_closing",
        "_held",
        "_keep_alive",
        "_log_end",
        "_mux",
        "_owed",
        "_streams",
        "connected",
        "disconnecting",
        "ended",
        "number",
        "paused",
        "protocol",
        "shut",
    )

    def __init__(
        self,
        streams: SessionStreams,
        number: int,
        protocol: IProtocol,
        factory: IProtocolFactory | None = None,
    ) -> None:
        """
        @param number: the stream's.
        @param factory: is told when the stream is lost, if there is one.
        """
        super().__init__()
        self.protocol: Any = protocol
        self.connected = True
        self.disconnected = False
        self.disconnecting = False
        self.shut = False
        self.ended = False
        self.paused = False
        self._streams = streams
        self._mux = streams.mux
        self.number = number
        self._factory = factory
        self._held: bytearray | None = None
        self._dropped = 0  # bytes received that nobody wants
        self._owed = 0  # bytes with which the protocol had enough, until it wants more
        self._log_end = False
        self._half_closing = False
        self._attended = False  # the session will look at us when what was written is out
        self._keep_alive = False

    def __repr__(self) -> str:
        return f"<MuxStream {self.number} of {self._streams.carrier}, {type(self.protocol).__name__}>"

    @property
    def held(self) -> int:
        """Bytes that have come and have to wait."""
        return 0 if self._held is None else len(self._held)

    def backlog(self) -> Backlog:
        """
        See L{reverseproxy.transport.backlog.backlog_of}.

        What is on its way, within the peer's credit, counts as taken: the peer
        gives more credit for it now and then, which is all that is known.
        """
        number = self.number
        size = self._mux.pending(number)
        if not size:
            return NOTHING
        streams = self._streams
        # While the connection takes nothing, a stream waits for it, and no matter for which of them.
        below = backlog_of(streams.carrier.transport).mark if streams.turn.full else 0
        return Backlog(size, (size, self._mux.credit(number), below))

    # ITransport; write runs for every message, hence no helpers

    def write(self, data: bytes) -> None:
        """Send with the next batch, or as soon as the peer lets us; see L{ITransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self.shut or not data:
            return
        output = self._mux.output
        output.send(self.number, data)
        turn = self._streams.turn
        if not turn.scheduled:
            turn.schedule()
        producer = self.producer
        if producer is not None:
            if not self.streamingProducer:
                self._attend()  # it is asked for more when this is out
            elif not self._producer_paused and (turn.full or output.pending(self.number) > HIGH_WATER):
                self._producer_paused = True
                self._attend()
                producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send; see L{ITransport}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close once everything that was written is sent; see L{ITransport}."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._attend()

    def loseWriteConnection(self) -> None:
        """End our half once everything that was written is sent; see L{ITCPTransport}."""
        if self.connected and not self._half_closing:
            self._half_closing = True
            self._attend()

    def abortConnection(self) -> None:
        """End the stream now, at both ends; see L{ITCPTransport}."""
        self.reset("")

    def reset(self, reason: str) -> None:
        """
        End the stream now, at both ends.

        @param reason: what its protocol is told; if empty, that it has aborted
            the stream itself.
        """
        if self._streams.forget(self):
            self._mux.reset(self.number)
            self._streams.lose_later(self, Failure(ConnectionLost(reason) if reason else ConnectionAborted()))

    def disown(self) -> None:
        """
        End the stream now, at both ends, and say that nothing of it was passed on.

        The peer may try what it wanted elsewhere, if both ends have agreed on saying so.
        """
        if self._streams.forget(self):
            self._mux.disown(self.number)
            self._streams.lose_later(self, Failure(ConnectionAborted()))

    def getPeer(self) -> Any:
        """The peer's address on the connection; see L{ITransport}."""
        return self._streams.carrier.getPeer()

    def getHost(self) -> Any:
        """Our address on the connection; see L{ITransport}."""
        return self._streams.carrier.getHost()

    def getTcpNoDelay(self) -> bool:
        """Nothing is delayed beyond the end of the turn; see L{ITCPTransport}."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """The connection is tuned by whoever made it."""

    def getTcpKeepAlive(self) -> bool:
        """What L{setTcpKeepAlive} said; the connection asks its peer in any case."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """The connection is tuned by whoever made it."""
        self._keep_alive = bool(enabled)

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return type(self.protocol).__name__

    # IConsumer

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        super().unregisterProducer()
        if self.connected and (self.disconnecting or self._half_closing):
            self._attend()

    def stopConsuming(self) -> None:  # noqa: N802
        """Close; see L{twisted.internet.abstract.FileDescriptor}."""
        self.unregisterProducer()
        self.loseConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Read no more: the peer is stopped by its window, and nobody else is."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Read again, beginning with what has come meanwhile, in a moment."""
        if self.paused and self.connected and not self.disconnecting:
            self.paused = False
            if self._owed:
                size, self._owed = self._owed, 0
                self._streams.consumed(self.number, size)
            if self._held is not None or (self.ended and not self._log_end):
                self._streams.turn.call(self.deliver)

    def stopProducing(self) -> None:
        """Close; see L{IPushProducer}."""
        self.loseConnection()

    # what the session calls

    def hold(self, data: bytes) -> None:
        """Take in what can't be delivered now."""
        if self.disconnecting:
            self._dropped += len(data)
            return
        if self._held is None:
            self._held = bytearray()
        self._held += data
        self._streams.budget.add(self, len(data))

    def deliver(self) -> None:
        """Pass on what was held, unless the protocol does not want it again."""
        held = self._held
        while held and not self.paused and self.connected and not self.disconnecting:
            data = bytes(held[:_PIECE])
            del held[:_PIECE]
            if not held:
                self._held = None
            self._streams.budget.remove(self, len(data))
            try:
                self.protocol.dataReceived(data)
            except BaseException:
                self.failed()
                return
            self.delivered(len(data))
            held = self._held
        if self.ended and held is None and not self.paused and self.connected and not self.disconnecting:
            self.tell_end()

    def delivered(self, size: int) -> None:
        """The protocol has got something; if it wants no more for now, it has not passed that on yet."""
        if self.paused:
            self._owed += size
        else:
            self._streams.consumed(self.number, size)

    @property
    def waits(self) -> bool:
        """Whether what comes next has to be held, because something is or the protocol does not read."""
        return self.paused or self._held is not None or self.disconnecting

    def end(self) -> None:
        """The peer has sent everything."""
        self.ended = True
        if not self.waits:
            self.tell_end()

    def tell_end(self) -> None:
        """Tell the protocol that the peer has sent everything; one that can't half-close closes."""
        if self._log_end:
            return
        self._log_end = True
        half = IHalfCloseableProtocol(self.protocol, None)
        try:
            if half is not None:
                half.readConnectionLost()
                return
        except BaseException:
            self.failed()
            return
        if self._streams.forget(self):
            if not self.shut:
                # As TCP does to a peer that has sent everything and is not listened to.
                if self._mux.pending(self.number):
                    self._mux.reset(self.number)
                else:
                    self._mux.end(self.number)
            self.lost(Failure(ConnectionDone()))

    def failed(self) -> None:
        """Our protocol has raised what is being handled: that ends this stream, and no other."""
        reason = Failure()
        log.failure("{stream!r} is closed, as its protocol failed", reason, stream=self)
        if self._streams.forget(self):
            self._mux.reset(self.number)
        self.lost(reason)

    def _attend(self) -> None:
        if not self._attended:
            self._attended = True
            self._streams.turn.attend(self)

    def written_out(self) -> None:
        """Do what had to wait until everything that was written has been sent."""
        self._attended = False
        if not self.connected:
            return
        try:
            producer = self.producer
            if producer is not None and (self._producer_paused or not self.streamingProducer):
                self._producer_paused = False
                producer.resumeProducing()
            elif self.disconnecting:
                self._close()
            elif self._half_closing and not self.shut:
                self.shut = True
                self._mux.end(self.number)
                half = IHalfCloseableProtocol(self.protocol, None)
                if half is not None:
                    half.writeConnectionLost()
        except BaseException:
            self.failed()

    def _close(self) -> None:
        streams = self._streams
        if streams.forget(self):
            if not self.shut:
                self._mux.end(self.number)
            # So that a peer that goes on sending is not stopped by its window, and finds out.
            streams.consumed(self.number, self.held + self._dropped + self._owed)
            if not self.ended:
                streams.abandon(self.number)
            self.lost(Failure(ConnectionDone()))

    @property
    def complete(self) -> bool:
        """Whether all has been sent and received, so that the connection is not needed any more."""
        return self.ended and self.shut and not self.disconnecting

    def lost(self, reason: Failure) -> None:
        """The end; the session has forgotten us."""
        if self.disconnected:
            return
        self.connected = False
        self.disconnected = True
        self.shut = True
        if self._held is not None:
            size, self._held = len(self._held), None
            self._streams.budget.remove(self, size)
        producer, self.producer = self.producer, None
        factory, self._factory = self._factory, None
        try:
            if producer is not None:
                producer.stopProducing()
        except BaseException:
            log.failure("{stream!r}: its producer failed when it was closed", stream=self)
        # As connections do: sessions come and go, and each would be a cycle for the collector.
        protocol, self.protocol = self.protocol, None
        try:
            protocol.connectionLost(reason)
            if factory is not None:
                factory.doStop()
        except BaseException:
            log.failure("{stream!r}: {protocol!r} failed when it was closed", stream=self, protocol=protocol)
