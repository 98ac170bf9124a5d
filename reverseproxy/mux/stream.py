"""
One of many streams of a connection, as a transport.

Protocols may expect of it what they may expect of a TCP connection, and it passes
the same tests.  What differs:

  - There is no socket, hence no C{getHandle}, and the options of TCP are those
    of the connection that carries the streams, and are not changed here.
  - What is written is sent at the end of the reactor's turn, with what other streams
    have written, so that C{abortConnection} discards some of it.
  - A stream that is aborted does not affect other streams.
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
from reverseproxy.transport.halves import Half
from reverseproxy.transport.producers import Consumer

if TYPE_CHECKING:
    from reverseproxy.mux.streams import SessionStreams

log = Logger()

HIGH_WATER: Final = 65536
"""Bytes written and not yet sent with which a producer is paused, as Twisted's transports have it."""

_PIECE: Final = 65536
"""The most buffered bytes that are delivered at once."""

_CLOSED: Final = Half.CLOSED  # for each write: to find it in its class takes longer than the comparison


@implementer(ITCPTransport, IConsumer, IPushProducer, ILoggingContext)
class MuxStream(Consumer):
    """
    A stream; see L{reverseproxy.mux.session.MuxSession}.

    @ivar number: the stream's.
    @ivar protocol: uses the stream; L{None} once it is lost.
    @ivar connected: whether it is open.
    @ivar disconnected: whether C{connectionLost} has been called.
    @ivar disconnecting: whether it is being closed.
    @ivar sending: our half.
    @ivar receiving: the peer's half.
    @ivar paused: whether the protocol does not want to read.
    """

    __slots__ = (
        "__weakref__",
        "_attended",
        "_dropped",
        "_factory",
        "_held",
        "_keep_alive",
        "_mux",
        "_owed",
        "_streams",
        "connected",
        "disconnecting",
        "number",
        "paused",
        "protocol",
        "receiving",
        "sending",
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
        @param factory: its C{doStop} is called when the stream is lost.
        """
        super().__init__()
        self.protocol: Any = protocol
        self.connected = True
        self.disconnected = False
        self.disconnecting = False
        self.sending = self.receiving = Half.OPEN
        self.paused = False
        self._streams = streams
        self._mux = streams.mux
        self.number = number
        self._factory = factory
        self._held: bytearray | None = None
        self._dropped = 0  # bytes received while it is being closed
        self._owed = 0  # bytes delivered for which no credit was given, as the protocol then paused
        self._attended = False  # written_out will be called
        self._keep_alive = False

    def __repr__(self) -> str:
        return f"<MuxStream {self.number} of {self._streams.carrier}, {type(self.protocol).__name__}>"

    @property
    def held(self) -> int:
        """Bytes that are buffered for the protocol."""
        return 0 if self._held is None else len(self._held)

    def backlog(self) -> Backlog:
        """
        See L{reverseproxy.transport.backlog.backlog_of}.

        What was sent within the peer's credit counts as acknowledged: that the peer
        gives more credit now and then is all that is known of it.
        """
        number = self.number
        size = self._mux.pending(number)
        if not size:
            return NOTHING
        streams = self._streams
        # While the connection's buffer is full, any progress of the connection is progress of the stream.
        below = backlog_of(streams.carrier.transport).mark if streams.turn.full else 0
        return Backlog(size, (size, self._mux.credit(number), below))

    # ITransport; write runs for every message, hence few calls

    def write(self, data: bytes) -> None:
        """Send at the end of the turn, or as soon as the peer's window allows; see L{ITransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self.sending is _CLOSED or not data:
            return
        output = self._mux.output
        output.send(self.number, data)
        turn = self._streams.turn
        if not turn.scheduled:
            turn.schedule()
        producer = self.producer
        if producer is not None:
            if not self.streamingProducer:
                self._attend()  # it is resumed when this is sent
            elif not self._producer_paused and (turn.full or output.pending(self.number) > HIGH_WATER):
                self._producer_paused = True
                self._attend()
                producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """Send; see L{ITransport}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """Close behind everything that was written; see L{ITransport}."""
        if self.connected and not self.disconnecting:
            self.disconnecting = True
            self._attend()

    def loseWriteConnection(self) -> None:
        """End our half behind everything that was written; see L{ITCPTransport}."""
        if self.connected and self.sending is Half.OPEN:
            self.sending = Half.CLOSING
            self._attend()

    def abortConnection(self) -> None:
        """Reset the stream now; see L{ITCPTransport}."""
        self.reset("")

    def reset(self, reason: str) -> None:
        """
        Reset the stream now.

        @param reason: the reason of C{connectionLost}; if empty, that the protocol has
            aborted the stream itself.
        """
        if self._streams.forget(self):
            self._mux.reset(self.number)
            self._streams.lose_later(self, Failure(ConnectionLost(reason) if reason else ConnectionAborted()))

    def disown(self) -> None:
        """
        Reset the stream now, and tell the peer that nothing of it was forwarded.

        The peer may then try its request elsewhere, if both ends have negotiated that.
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
        """Return true: nothing is delayed beyond the end of the turn; see L{ITCPTransport}."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Do nothing: options of the connection are set by its owner."""

    def getTcpKeepAlive(self) -> bool:
        """Return the value of L{setTcpKeepAlive}; the connection pings its peer in any case."""
        return self._keep_alive

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """Keep the value: options of the connection are set by its owner."""
        self._keep_alive = bool(enabled)

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return type(self.protocol).__name__

    # IConsumer

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        super().unregisterProducer()
        if self.connected and (self.disconnecting or self.sending is not Half.OPEN):
            self._attend()

    def stopConsuming(self) -> None:  # noqa: N802
        """Close; see L{twisted.internet.abstract.FileDescriptor}."""
        self.unregisterProducer()
        self.loseConnection()

    # IPushProducer

    def pauseProducing(self) -> None:
        """Deliver nothing; the stream's window stops the peer, and no other stream."""
        self.paused = True

    def resumeProducing(self) -> None:
        """Deliver again, beginning with what is buffered, at the end of the turn."""
        if self.paused and self.connected and not self.disconnecting:
            self.paused = False
            if self._owed:
                size, self._owed = self._owed, 0
                self._streams.consumed(self.number, size)
            if self._held is not None or self.receiving is Half.CLOSING:
                self._streams.turn.call(self.deliver)

    def stopProducing(self) -> None:
        """Close; see L{IPushProducer}."""
        self.loseConnection()

    # what the session calls

    def hold(self, data: bytes) -> None:
        """Buffer data that can't be delivered now."""
        if self.disconnecting:
            self._dropped += len(data)
            return
        if self._held is None:
            self._held = bytearray()
        self._held += data
        self._streams.budget.add(self, len(data))

    def deliver(self) -> None:
        """Deliver what is buffered, until the protocol pauses."""
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
        if held is None and not self.paused and self.connected and not self.disconnecting:
            self.tell_end()

    def delivered(self, size: int) -> None:
        """Give the peer credit for delivered bytes; if the protocol has paused, when it resumes."""
        if self.paused:
            self._owed += size
        else:
            self._streams.consumed(self.number, size)

    @property
    def waits(self) -> bool:
        """Whether data has to be buffered, because some is, or the protocol has paused."""
        return self.paused or self._held is not None or self.disconnecting

    def end(self) -> None:
        """Handle the end of the peer's half."""
        if self.receiving is Half.OPEN:
            self.receiving = Half.CLOSING
        if not self.waits:
            self.tell_end()

    def tell_end(self) -> None:
        """
        Tell the protocol that the peer's half has ended, if it has, and the protocol was not told.

        A protocol that does not provide L{IHalfCloseableProtocol} is closed.
        """
        if self.receiving is not Half.CLOSING:
            return
        self.receiving = Half.CLOSED
        half = IHalfCloseableProtocol(self.protocol, None)
        try:
            if half is not None:
                half.readConnectionLost()
                return
        except BaseException:
            self.failed()
            return
        if self._streams.forget(self):
            if self.sending is not Half.CLOSED:
                # As TCP does when a socket is closed with data in its send buffer.
                if self._mux.pending(self.number):
                    self._mux.reset(self.number)
                else:
                    self._mux.end(self.number)
            self.lost(Failure(ConnectionDone()))

    def failed(self) -> None:
        """Reset this stream, and no other, as its protocol has raised the exception that is being handled."""
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
        """Resume the producer, or close, as everything that was written has been sent."""
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
            elif self.sending is Half.CLOSING:
                self.sending = Half.CLOSED
                self._mux.end(self.number)
                half = IHalfCloseableProtocol(self.protocol, None)
                if half is not None:
                    half.writeConnectionLost()
        except BaseException:
            self.failed()

    def _close(self) -> None:
        streams = self._streams
        if streams.forget(self):
            if self.sending is not Half.CLOSED:
                self._mux.end(self.number)
            # With credit a peer that goes on sending is not stopped by its window, and gets a reset.
            streams.consumed(self.number, self.held + self._dropped + self._owed)
            if self.receiving is Half.OPEN:
                streams.abandon(self.number)
            self.lost(Failure(ConnectionDone()))

    @property
    def complete(self) -> bool:
        """Whether everything has been sent and received, so that the connection is not needed any more."""
        return self.receiving is not Half.OPEN and self.sending is Half.CLOSED and not self.disconnecting

    def lost(self, reason: Failure) -> None:
        """Call C{connectionLost}, and drop all references: the session has removed this stream."""
        if self.disconnected:
            return
        self.connected = False
        self.disconnected = True
        self.sending = Half.CLOSED
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
        # The references make cycles.
        protocol, self.protocol = self.protocol, None
        try:
            protocol.connectionLost(reason)
            if factory is not None:
                factory.doStop()
        except BaseException:
            log.failure("{stream!r}: {protocol!r} failed when it was closed", stream=self, protocol=protocol)
