"""A reactor that has no sockets and no time of its own."""

from __future__ import annotations

__all__ = ["MemoryReactor"]

from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import succeed
from twisted.internet.error import CannotListenError, ConnectionDone, UserError
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IConnector, IListeningPort, IReactorTCP, IReactorUNIX
from twisted.internet.protocol import ClientFactory
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.testing.transport import MemoryTransport, join, make_pair

_FIRST_PORT: Final = 49152


@implementer(IListeningPort)
class _MemoryPort:
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
    A reactor with a network of its own, which runs only when a test says so.

    @ivar ports: the listening ports, by address.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ports: dict[Any, _MemoryPort] = {}
        self._next = _FIRST_PORT

    def settle(self) -> None:
        """Run everything that is due now."""
        self.advance(0)

    def dial(self, host: str, port: int, protocol: Any) -> Any:
        """
        Connect a protocol to the port that listens at an address.

        @return: the protocol, connected.
        @raise ConnectionRefusedError: if no port listens there.
        """
        factory = _MemoryDial(protocol)
        self.connectTCP(host, port, factory)
        self.settle()
        if factory.failed is not None:
            factory.failed.raiseException()
        return protocol

    def make_pair(self) -> tuple[MemoryTransport, MemoryTransport]:
        """See L{reverseproxy.transport.handing.make_pair}."""
        return make_pair(self)

    def next_address(self, peer: Any) -> Any:
        """Return an unused address for a connection to a peer."""
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
        """See L{IReactorTCP}; any address can be listened on."""
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

    def _listen(self, address: Any, factory: Any) -> _MemoryPort:
        port = _MemoryPort(self, address, factory)
        port.startListening()
        return port


class _MemoryDial(ClientFactory):
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
