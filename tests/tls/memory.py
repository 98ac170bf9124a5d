"""TCP connections in memory, step by step, and protocols that record."""

from __future__ import annotations

__all__ = ["FakeTcp", "HalfRecorder", "Recorder", "TlsPair", "Wire", "factory_of"]

from collections.abc import Callable
from typing import Any

from twisted.internet.address import IPv4Address
from twisted.internet.error import ConnectionAborted, ConnectionDone, ConnectionLost
from twisted.internet.interfaces import (
    IHalfCloseableProtocol,
    IHandshakeListener,
    IProtocol,
    IReactorTime,
    ITCPTransport,
)
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.tls import ClientTls, ServerTls, TlsTransport, wrap_client, wrap_server

READ_SIZE = 65536
"""What a TCP transport of Twisted reads at once."""


@implementer(ITCPTransport)
class FakeTcp:
    """
    One end of a connection; what it writes arrives when the L{Wire} is pumped.

    @ivar buffered: the most that was ever waiting to be sent.
    """

    def __init__(self, port: int) -> None:
        self.address = IPv4Address("TCP", "127.0.0.1", port)
        self.peer: FakeTcp
        self.protocol: Any = None
        self.out = bytearray()
        self.buffered = 0
        self.reading = True
        self.connected = True
        self.disconnecting = False
        self.write_closing = self.write_closed = False
        self.read_closed = False
        self.producer: Any = None
        self.streaming = self.producer_paused = False
        self.writing = False
        self.no_delay = False
        self.lost: Exception | None = None

    # ITransport

    def write(self, data: bytes) -> None:
        if self.connected and not self.write_closing:
            self.out += data
            self.writing = True
            self.buffered = max(self.buffered, len(self.out))
            if self.producer is not None and self.streaming and len(self.out) > READ_SIZE:
                self.producer_paused = True
                self.producer.pauseProducing()

    def writeSequence(self, data: Any) -> None:
        self.write(b"".join(data))

    def loseConnection(self) -> None:
        self.disconnecting = self.writing = True
        self.reading = False

    def abortConnection(self) -> None:
        self.lost = self.lost or ConnectionAborted()

    def loseWriteConnection(self) -> None:
        self.write_closing = self.writing = True

    def getPeer(self) -> IPv4Address:
        return self.peer.address

    def getHost(self) -> IPv4Address:
        return self.address

    def setTcpNoDelay(self, enabled: bool) -> None:
        self.no_delay = enabled

    def getTcpNoDelay(self) -> bool:
        return self.no_delay

    def setTcpKeepAlive(self, enabled: bool) -> None:
        pass

    def getTcpKeepAlive(self) -> bool:
        return False

    # IPushProducer and IConsumer

    def pauseProducing(self) -> None:
        self.reading = False

    def resumeProducing(self) -> None:
        if self.connected and not self.disconnecting:
            self.reading = True

    def stopProducing(self) -> None:
        self.loseConnection()

    def registerProducer(self, producer: Any, streaming: bool) -> None:
        assert self.producer is None
        self.producer, self.streaming, self.producer_paused = producer, streaming, False
        if not streaming:
            producer.resumeProducing()

    def unregisterProducer(self) -> None:
        self.producer = None
        self.writing = self.writing or self.disconnecting

    # the other side of the interface

    def step(self) -> bool:
        """Do what the reactor would next; false if there is nothing to do."""
        if not self.connected:
            return False
        if self.lost is not None:
            self.drop(self.lost)
            if self.peer.connected and self.peer.lost is None:
                self.peer.lost = ConnectionLost("reset by peer")
            return True
        if self.out:
            if not self.peer.connected:
                self.out.clear()
                return True
            if not self.peer.reading or self.peer.read_closed:
                return False
            data = bytes(self.out[:READ_SIZE])
            del self.out[:READ_SIZE]
            self.peer.protocol.dataReceived(data)
            return True
        # As twisted.internet.abstract.FileDescriptor.doWrite has it: a connection
        # whose paused producer writes nothing when it is resumed does not close.
        if not self.writing:
            return False
        self.writing = False
        if self.producer is not None and (self.producer_paused or not self.streaming):
            self.producer_paused = False
            self.producer.resumeProducing()
            return True
        if self.disconnecting:
            self.drop(ConnectionDone())
            self.peer.end_of_file()
            return True
        if self.write_closing and not self.write_closed:
            self.write_closed = True
            self.peer.end_of_file()
            return True
        return False

    def end_of_file(self) -> None:
        """The other end sends no more."""
        if not self.connected or self.read_closed:
            return
        self.read_closed = True
        half = IHalfCloseableProtocol(self.protocol, None)
        if half is not None:
            half.readConnectionLost()
        else:
            self.drop(ConnectionDone())

    def drop(self, reason: Exception) -> None:
        if self.connected:
            self.connected = False
            producer, self.producer = self.producer, None
            if producer is not None:
                producer.stopProducing()
            self.protocol.connectionLost(Failure(reason))


class Wire:
    """A connection between two protocols, of which the first is the client's."""

    def __init__(self, client: IProtocol, server: IProtocol) -> None:
        self.client, self.server = FakeTcp(50000), FakeTcp(443)
        self.client.peer, self.server.peer = self.server, self.client
        self.client.protocol, self.server.protocol = client, server
        server.makeConnection(self.server)
        client.makeConnection(self.client)

    def pump(self, steps: int = 10_000) -> None:
        """Let everything happen that can happen without time passing."""
        for _ in range(steps):
            moved = self.client.step()
            moved = self.server.step() or moved
            if not moved:
                return
        raise AssertionError("the connection never comes to rest")


@implementer(IHandshakeListener)
class Recorder(Protocol):
    """
    Records what happens to it.

    @ivar events: C{made}, C{handshake}, C{read-closed}, C{write-closed}, C{lost}, in order.
    @ivar reads: the sizes of the pieces in which it received.
    """

    transport: Any

    def __init__(self) -> None:
        self.events: list[str] = []
        self.received = bytearray()
        self.reads: list[int] = []
        self.reason: Failure | None = None
        self.on_made: Callable[[], None] = lambda: None
        self.on_data: Callable[[bytes], None] = lambda data: None
        self.on_read_closed: Callable[[], None] = lambda: None

    def connectionMade(self) -> None:
        self.events.append("made")
        self.on_made()

    def handshakeCompleted(self) -> None:
        self.events.append("handshake")

    def dataReceived(self, data: bytes) -> None:
        self.received += data
        self.reads.append(len(data))
        self.on_data(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")
        self.reason = reason


@implementer(IHalfCloseableProtocol)
class HalfRecorder(Recorder):
    """A L{Recorder} that half-closes."""

    def readConnectionLost(self) -> None:
        self.events.append("read-closed")
        self.on_read_closed()

    def writeConnectionLost(self) -> None:
        self.events.append("write-closed")


class _Given(Factory):
    noisy = False

    def __init__(self, protocol: IProtocol | None) -> None:
        self.given: Any = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self.given


def factory_of(protocol: IProtocol | None) -> Factory:
    """A factory of one protocol."""
    return _Given(protocol)


class TlsPair(Wire):
    """
    A TLS connection between two recording protocols.

    @ivar near: the client's protocol.
    @ivar far: the server's protocol.
    """

    def __init__(
        self,
        client_tls: ClientTls,
        server_tls: ServerTls,
        near: Recorder | None = None,
        far: Recorder | None = None,
        clock: IReactorTime | None = None,
        handshake_timeout: float | None = None,
        pump: bool = True,
    ) -> None:
        self.near, self.far = near or HalfRecorder(), far or HalfRecorder()
        self.near_tls: TlsTransport = wrap_client(factory_of(self.near), client_tls).buildProtocol(None)
        self.far_tls: TlsTransport = wrap_server(
            factory_of(self.far), server_tls, clock=clock, handshake_timeout=handshake_timeout
        ).buildProtocol(None)
        super().__init__(self.near_tls, self.far_tls)
        if pump:
            self.pump()
