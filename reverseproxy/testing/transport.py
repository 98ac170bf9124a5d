"""Connections in memory, with Twisted's behaviour at their ends."""

from __future__ import annotations

__all__ = ["BUFFER", "MemoryTransport", "Recorder", "join", "make_pair"]

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from twisted.internet.address import IPv4Address, UNIXAddress
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableProtocol,
    IProtocol,
    IPushProducer,
    ITCPTransport,
)
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.transport.backlog import NOTHING, Backlog
from reverseproxy.transport.producers import Consumer

BUFFER: Final = 65536
"""Bytes of one direction that a connection in memory holds, besides those that its writer holds back."""


class Recorder(Protocol):
    """
    A protocol that keeps what it receives.

    @ivar data: everything that was received.
    @ivar reason: why the connection was lost, once it is.
    """

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.reason: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """See L{IProtocol}."""
        self.reason = reason


@dataclass(slots=True)
class _Inbound:
    """
    The direction towards a protocol.

    @ivar data: bytes that have arrived, and that the protocol has not received.
    @ivar reading: whether the protocol wants them.
    @ivar ended: whether the peer sends no more.
    @ivar end_delivered: whether the protocol knows that.
    """

    data: bytearray = field(default_factory=bytearray)
    reading: bool = True
    ended: bool = False
    end_delivered: bool = False


@dataclass(slots=True)
class _Outbound:
    """
    The direction from a protocol.

    @ivar data: bytes that the protocol has written, and that have not arrived.
    @ivar closing: whether this direction ends once they have.
    @ivar closed: whether it has ended.
    """

    data: bytearray = field(default_factory=bytearray)
    closing: bool = False
    closed: bool = False


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport(Consumer):
    """
    One end of a connection in memory.

    It treats its protocol as Twisted's connections do: it delivers nothing while
    the protocol is calling, pauses a producer whose data it can't pass on, and
    sends what was written before it closes.

    @ivar protocol: the protocol of this end.
    @ivar silent: whether nothing arrives here any more, as if the network had
        failed; to be set by a test.
    """

    def __init__(self, clock: Clock, host: Any, peer: Any) -> None:
        """
        @param host: our own address.
        @param peer: the other end's.
        """
        super().__init__()
        self.protocol: Any = None
        self.silent = False
        self.connected = True
        self.disconnected = False
        self.disconnecting = False
        self._other: MemoryTransport = self
        self._clock = clock
        self._host = host
        self._peer = peer
        self._inbound = _Inbound()
        self._outbound = _Outbound()
        self._aborted = False
        self._scheduled = False

    def backlog(self) -> Backlog:
        """See L{reverseproxy.transport.backlog.backlog_of}: it knows what the other end has not read."""
        size = len(self._outbound.data) + len(self._other._inbound.data)
        return Backlog(size, size) if size and not self.disconnected else NOTHING

    # the connection

    def _soon(self) -> None:
        if not self._scheduled:
            self._scheduled = True
            self._clock.callLater(0, self._turn)

    def _turn(self) -> None:
        self._scheduled = False
        if self.disconnected:
            return
        try:
            self._receive()
            if not self.disconnected:
                self._send()
        except Exception as error:
            self._lose(Failure(error))
            self._other._break()

    def _receive(self) -> None:
        if self._inbound.data and self._inbound.reading and not self.disconnecting:
            data = bytes(self._inbound.data)
            self._inbound.data.clear()
            self._other._soon()
            self.protocol.dataReceived(data)
        inbound = self._inbound  # only now: the protocol may have given the connection away
        at_end = inbound.ended and not inbound.data and inbound.reading
        if at_end and not inbound.end_delivered and self.connected:
            inbound.end_delivered = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._finish()

    def _send(self) -> None:
        other = self._other
        room = (
            len(self._outbound.data)
            if other.silent or other.disconnected
            else BUFFER - len(other._inbound.data)
        )
        if room > 0 and self._outbound.data:
            if not (other.silent or other.disconnected):
                other._inbound.data += self._outbound.data[:room]
                other._soon()
            del self._outbound.data[:room]
        if self._outbound.data:
            return
        if self.producer is not None and (self._producer_paused or not self.streamingProducer):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._finish()
        elif self._outbound.closing and not self._outbound.closed:
            self._outbound.closed = True
            self._tell_other()
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _tell_other(self) -> None:
        if not self._other.silent:
            self._other._inbound.ended = True
            self._other._soon()

    def _finish(self) -> None:
        """Close in an orderly way."""
        self._tell_other()
        self._lose(Failure(ConnectionDone()))

    def _break(self) -> None:
        """The other end has reset the connection."""
        if not self.silent:
            self._clock.callLater(0, self._lose, Failure(ConnectionLost()))

    def _lose(self, reason: Failure) -> None:
        if self.disconnected:
            return
        self.connected = False
        self.disconnected = True
        self._outbound.data.clear()
        self._other._soon()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(reason)

    # see reverseproxy.transport.handing

    def take_out(self) -> MemoryTransport | None:
        """Give this end of the connection to another transport, which has no protocol yet."""
        if (
            not self.connected
            or self.disconnecting
            or self._outbound.data
            or self._outbound.closing
            or self._aborted
        ):
            return None
        taken = MemoryTransport(self._clock, self._host, self._peer)
        taken._other = self._other
        taken._inbound = _Inbound(self._inbound.data, reading=False, ended=self._inbound.ended)
        self._other._other = taken
        self._other = self
        self._inbound = _Inbound(reading=False)
        self.connected = False
        self.disconnected = True
        return taken

    def put_in(self, protocol: Any) -> None:
        """Give a protocol to this end."""
        if self.disconnected:
            raise ConnectionUnavailable("the connection is lost")
        self.protocol = protocol
        self._inbound.reading = True
        protocol.makeConnection(self)
        self._soon()

    def discard(self) -> None:
        """Close this end, which has no protocol."""
        self.protocol = Protocol()
        self.abortConnection()

    # ITransport

    def write(self, data: bytes) -> None:
        """See L{ITCPTransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if self.disconnected or self._outbound.closed or self._aborted or not data:
            return
        self._outbound.data += data
        self._soon()
        if (
            self.producer is not None
            and self.streamingProducer
            and not self._producer_paused
            and len(self._outbound.data) > BUFFER
        ):
            self._producer_paused = True
            self.producer.pauseProducing()

    def writeSequence(self, data: Iterable[bytes]) -> None:
        """See L{ITCPTransport}."""
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        """See L{ITCPTransport}."""
        if self.connected:
            self.disconnecting = True
            self._soon()

    def loseWriteConnection(self) -> None:
        """See L{ITCPTransport}."""
        if self.connected:
            self._outbound.closing = True
            self._soon()

    def abortConnection(self) -> None:
        """See L{ITCPTransport}."""
        if self.connected and not self._aborted:
            self._aborted = True
            self._inbound.reading = False
            self._clock.callLater(0, self._lose, Failure(ConnectionAborted()))
            self._other._break()

    def getPeer(self) -> Any:
        """See L{ITCPTransport}."""
        return self._peer

    def getHost(self) -> Any:
        """See L{ITCPTransport}."""
        return self._host

    def getTcpNoDelay(self) -> bool:
        """See L{ITCPTransport}."""
        return True

    def setTcpNoDelay(self, enabled: bool) -> None:
        """Nothing is delayed."""

    def getTcpKeepAlive(self) -> bool:
        """See L{ITCPTransport}."""
        return False

    def setTcpKeepAlive(self, enabled: bool) -> None:
        """There is no network that could go away unnoticed."""

    # IConsumer

    def unregisterProducer(self) -> None:
        """See L{IConsumer}."""
        super().unregisterProducer()
        self._soon()

    # IPushProducer

    def pauseProducing(self) -> None:
        """See L{IPushProducer}."""
        self._inbound.reading = False

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        if self.connected and not self.disconnecting and not self._aborted:
            self._inbound.reading = True
            self._soon()

    def stopProducing(self) -> None:
        """See L{IPushProducer}."""
        self.loseConnection()


def make_pair(clock: Clock) -> tuple[MemoryTransport, MemoryTransport]:
    """Make a connection whose ends have no protocols yet; see L{MemoryTransport.put_in}."""
    address = UNIXAddress(None)
    ends = MemoryTransport(clock, address, address), MemoryTransport(clock, address, address)
    ends[0]._other, ends[1]._other = ends[1], ends[0]
    for end in ends:
        end._inbound.reading = False
    return ends


def join(
    clock: Clock, first: IProtocol, second: IProtocol, addresses: tuple[Any, Any] | None = None
) -> tuple[MemoryTransport, MemoryTransport]:
    """
    Connect two protocols.

    @param addresses: of the two ends.
    @return: their transports.
    """
    one, other = addresses or (IPv4Address("TCP", "127.0.0.1", 1), IPv4Address("TCP", "127.0.0.1", 2))
    ends = MemoryTransport(clock, one, other), MemoryTransport(clock, other, one)
    ends[0]._other, ends[1]._other = ends[1], ends[0]
    for end, protocol in zip(ends, (first, second), strict=True):
        end.protocol = protocol
    for end, protocol in zip(ends, (first, second), strict=True):
        protocol.makeConnection(end)
    return ends
