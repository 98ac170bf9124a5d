"""
Tunnels in memory, for tests of what goes through them.

A L{MemoryReactor} has a clock that moves when it is told to, and connections
that need no sockets.  Whatever takes a reactor takes it: L{run} makes a whole
process of a configuration, and two of them that share one are an agent and its
server.  L{mux_pair} makes the two ends of a connection that carries streams::

    reactor = MemoryReactor()
    server = run(server_document, reactor)
    agent = run(agent_document, reactor)
    client = reactor.dial("127.0.0.1", 2045, Recorder())
    client.transport.write(b"GET / HTTP/1.1\\r\\nHost: a\\r\\n\\r\\n")
    reactor.settle()
    assert b"200 OK" in client.data

Nothing happens by itself: L{MemoryReactor.settle} lets everything happen that
can happen now, and C{advance} lets time pass.  There is no name resolution; use
IP addresses.
"""

from __future__ import annotations

__all__ = ["MemoryReactor", "MemoryTransport", "Recorder", "join", "make_pair", "mux_pair", "run"]

import json
from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.error import (
    CannotListenError,
    ConnectionAborted,
    ConnectionDone,
    ConnectionLost,
    UserError,
)
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import (
    IConnector,
    IConsumer,
    IHalfCloseableProtocol,
    IListeningPort,
    IProtocol,
    IPushProducer,
    IReactorTCP,
    IReactorUNIX,
    ITCPTransport,
)
from twisted.internet.protocol import ClientFactory, Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.app import ReverseProxy
from reverseproxy.config.loader import loads
from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.mux.session import MuxSession
from reverseproxy.transport.backlog import NOTHING, Backlog
from reverseproxy.transport.producers import Consumer

BUFFER: Final = 65536
"""Bytes of one direction that a connection in memory holds, besides those that its writer holds back."""

_FIRST_PORT: Final = 49152


class Recorder(Protocol):
    """
    Keeps what it is told.

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


@implementer(ITCPTransport, IConsumer, IPushProducer)
class MemoryTransport(Consumer):
    """
    One end of a connection in memory.

    It treats its protocol as Twisted's connections do: nothing is delivered
    while the protocol is calling, a producer is paused while too much is
    waiting, and what was written is sent before a connection is closed.

    @ivar protocol: who has it.
    @ivar silent: whether nothing arrives here any more, as if the network had
        gone; to be set by a test.
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
        self._unsent = bytearray()
        self._arrived = bytearray()
        self._reading = True
        self._ended = False  # the other end sends no more
        self._end_told = False
        self._half_closing = False
        self._shut = False
        self._aborted = False
        self._scheduled = False

    def backlog(self) -> Backlog:
        """See L{reverseproxy.transport.backlog.backlog_of}: it knows what the other end has not read."""
        size = len(self._unsent) + len(self._other._arrived)
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
        if self._arrived and self._reading and not self.disconnecting:
            data = bytes(self._arrived)
            self._arrived.clear()
            self._other._soon()
            self.protocol.dataReceived(data)
        if self._ended and not self._arrived and self._reading and not self._end_told and self.connected:
            self._end_told = True
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.readConnectionLost()
            else:
                self._finish()

    def _send(self) -> None:
        other = self._other
        room = len(self._unsent) if other.silent or other.disconnected else BUFFER - len(other._arrived)
        if room > 0 and self._unsent:
            if not (other.silent or other.disconnected):
                other._arrived += self._unsent[:room]
                other._soon()
            del self._unsent[:room]
        if self._unsent:
            return
        if self.producer is not None and (self._producer_paused or not self.streamingProducer):
            self._producer_paused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            self._finish()
        elif self._half_closing and not self._shut:
            self._shut = True
            self._tell_other()
            if IHalfCloseableProtocol.providedBy(self.protocol):
                self.protocol.writeConnectionLost()

    def _tell_other(self) -> None:
        if not self._other.silent:
            self._other._ended = True
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
        self._unsent.clear()
        self._other._soon()
        producer, self.producer = self.producer, None
        if producer is not None:
            producer.stopProducing()
        if self.protocol is not None:
            self.protocol.connectionLost(reason)

    # see reverseproxy.transport.handing

    def take_out(self) -> MemoryTransport | None:
        """Give this end of the connection to another transport, which has no protocol yet."""
        if not self.connected or self.disconnecting or self._unsent or self._half_closing or self._aborted:
            return None
        taken = MemoryTransport(self._clock, self._host, self._peer)
        taken._other, taken._arrived, taken._ended = self._other, self._arrived, self._ended
        taken._reading = False
        self._other._other = taken
        self._other = self
        self._arrived = bytearray()
        self._reading = False
        self.connected = False
        self.disconnected = True
        return taken

    def put_in(self, protocol: Any) -> None:
        """Give a protocol to this end."""
        if self.disconnected:
            raise ConnectionUnavailable("the connection is lost")
        self.protocol = protocol
        self._reading = True
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
        if self.disconnected or self._shut or self._aborted or not data:
            return
        self._unsent += data
        self._soon()
        if (
            self.producer is not None
            and self.streamingProducer
            and not self._producer_paused
            and len(self._unsent) > BUFFER
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
            self._half_closing = True
            self._soon()

    def abortConnection(self) -> None:
        """See L{ITCPTransport}."""
        if self.connected and not self._aborted:
            self._aborted = True
            self._reading = False
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
        self._reading = False

    def resumeProducing(self) -> None:
        """See L{IPushProducer}."""
        if self.connected and not self.disconnecting and not self._aborted:
            self._reading = True
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
        end._reading = False
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


@implementer(IListeningPort)
class _Port:
    def __init__(self, reactor: MemoryReactor, address: Any, factory: Any) -> None:
        self.factory = factory
        self._reactor = reactor
        self._address = address

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        if self._reactor.ports.setdefault(self._address, self) is not self:
            raise CannotListenError(None, str(self._address), OSError("somebody listens there"))
        self.factory.doStart()

    def stopListening(self) -> Any:  # noqa: N802 - Twisted's name
        if self._reactor.ports.pop(self._address, None) is not None:
            self.factory.doStop()
        return succeed(None)

    def getHost(self) -> Any:
        return self._address


@implementer(IConnector)
class _Connector:
    def __init__(self, reactor: MemoryReactor, address: Any, factory: Any) -> None:
        self._reactor = reactor
        self._address = address
        self._factory = factory
        self._transport: MemoryTransport | None = None
        self._over = False

    def connect(self) -> None:
        self._factory.doStart()
        self._factory.startedConnecting(self)
        self._reactor.callLater(0, self._arrive)

    def _arrive(self) -> None:
        if self._over:
            return
        port = self._reactor.ports.get(self._address)
        if port is None:
            self._fail(Refused())
            return
        ours = self._reactor.next_address(self._address)
        accepted = port.factory.buildProtocol(ours)
        dialled = self._factory.buildProtocol(self._address)
        self._over = True
        if accepted is None or dialled is None:
            self._factory.clientConnectionLost(self, Failure(ConnectionDone()))
            return
        self._transport = join(self._reactor, dialled, accepted, (ours, self._address))[0]

    def _fail(self, error: Exception) -> None:
        self._over = True
        self._factory.clientConnectionFailed(self, Failure(error))
        self._factory.doStop()

    def stopConnecting(self) -> None:  # noqa: N802 - Twisted's name
        if not self._over:
            self._fail(UserError())

    def disconnect(self) -> None:
        if self._transport is not None:
            self._transport.loseConnection()
        else:
            self.stopConnecting()

    def getDestination(self) -> Any:  # noqa: N802 - Twisted's name
        return self._address


@implementer(IReactorTCP, IReactorUNIX)
class MemoryReactor(Clock):
    """
    A reactor that does nothing by itself, with a network of its own.

    @ivar ports: who listens, by address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[Any, _Port] = {}
        self._next = _FIRST_PORT

    def settle(self) -> None:
        """Let everything happen that can happen without time passing."""
        self.advance(0)

    def dial(self, host: str, port: int, protocol: Any) -> Any:
        """
        Connect a protocol to whoever listens.

        @return: the protocol, once it is connected.
        @raise ConnectionRefusedError: if nobody listens.
        """
        factory = _Dial(protocol)
        self.connectTCP(host, port, factory)
        self.settle()
        if factory.failed is not None:
            factory.failed.raiseException()
        return protocol

    def make_pair(self) -> tuple[MemoryTransport, MemoryTransport]:
        """See L{reverseproxy.transport.handing.make_pair}."""
        return make_pair(self)

    def next_address(self, peer: Any) -> Any:
        """Think of an address for who dials."""
        self._next += 1
        if isinstance(peer, UNIXAddress):
            return UNIXAddress(None)
        return type(peer)("TCP", peer.host, self._next)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: Any = None,  # noqa: N803
    ) -> Any:
        """See L{IReactorTCP}."""
        return self._connect(_address(host, port), factory)

    def listenTCP(  # noqa: N802
        self, port: int, factory: Any, backlog: int = 50, interface: str = ""
    ) -> Any:
        """See L{IReactorTCP}; there are no more interfaces than are listened on."""
        if not port:
            self._next += 1
        return self._listen(_address(interface or "127.0.0.1", port or self._next), factory)

    def connectUNIX(
        self,
        address: str,
        factory: Any,
        timeout: float = 30,
        checkPID: bool = False,  # noqa: N803
    ) -> Any:
        """See L{IReactorUNIX}."""
        return self._connect(UNIXAddress(address), factory)

    def listenUNIX(  # noqa: N802
        self,
        address: str,
        factory: Any,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: N803
    ) -> Any:
        """See L{IReactorUNIX}."""
        return self._listen(UNIXAddress(address), factory)

    def _connect(self, address: Any, factory: Any) -> _Connector:
        connector = _Connector(self, address, factory)
        connector.connect()
        return connector

    def _listen(self, address: Any, factory: Any) -> _Port:
        port = _Port(self, address, factory)
        port.startListening()
        return port


class _Dial(ClientFactory):
    noisy = False

    def __init__(self, protocol: Any) -> None:
        self._protocol = protocol
        self.failed: Failure | None = None

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol

    def clientConnectionFailed(self, connector: Any, reason: Failure) -> None:
        self.failed = reason


def _address(host: str, port: int) -> IPv4Address | IPv6Address:
    return (IPv6Address if ":" in host else IPv4Address)("TCP", host, port)


def mux_pair(
    clock: Clock,
    accept: Callable[[], IProtocol | None] | None = None,
    accept_other: Callable[[], IProtocol | None] | None = None,
    **options: Any,
) -> tuple[MuxSession, MuxSession]:
    """
    Make the two ends of a connection that carries streams.

    @param accept: makes the protocols of streams that the first end opens; they
        are at the second end.
    @param accept_other: the same, the other way round.
    @param options: for both; see L{MuxSession}.
    """
    first = MuxSession(True, clock, accept=accept_other, **options)
    second = MuxSession(False, clock, accept=accept, **options)
    join(clock, first, second)
    return first, second


def run(document: Mapping[str, Any], reactor: MemoryReactor, seed: int = 1) -> ReverseProxy:
    """
    Run what a configuration describes: a server, an agent, or both.

    C{stopService} of what is returned drains it and stops it; let the time pass
    that this takes.

    @param document: the configuration, as it would stand in a file.
    @param seed: for whatever is random.
    @raise ConfigError: if the configuration can't be used.
    """
    loaded = loads(json.dumps(document), "document")
    service = ReverseProxy(loaded.config, reactor, Random(seed))  # noqa: S311 - tests repeat themselves
    service.privilegedStartService()
    service.startService()
    reactor.settle()
    return service
