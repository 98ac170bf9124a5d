"""
Connections for protocols of the embedding program.

Two objects stand between a connection and such a protocol, so that we know when it is
lost: for the connection, L{LentConnection} is the protocol; for the protocol,
L{LentTransport} is the transport.  A single object for both, such as
L{ProtocolWrapper<twisted.protocols.policies.ProtocolWrapper>}, would provide the
interfaces of a protocol where Twisted's own wrappers look at the transport.
"""

from __future__ import annotations

__all__ = ["LentConnection", "LentFactory", "LentTransport"]

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import directlyProvides, implementer, providedBy

from reverseproxy.interfaces import IDrainable
from reverseproxy.transport.delegation import build_protocol


class LentTransport:
    """The transport of the program's protocol."""

    def __init__(self, connection: LentConnection, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        directlyProvides(self, providedBy(transport))

    @property
    def protocol(self) -> Any:
        """The protocol of the connection; may be set, to switch to another one, as with TCP."""
        return self._connection.inner

    @protocol.setter
    def protocol(self, inner: Any) -> None:
        self._connection.inner = inner

    def __getattr__(self, name: str) -> Any:
        """Return any other attribute of the connection's transport."""
        return getattr(self._transport, name)


@implementer(IHalfCloseableProtocol, IDrainable)
class LentConnection(Protocol):
    """
    The outer protocol of one connection.

    @ivar factory: the factory that has built it.
    @ivar inner: the program's protocol; L{None} once the connection is lost.
    """

    def __init__(self, factory: LentFactory, inner: IProtocol) -> None:
        self.factory = factory
        self.inner: Any = inner

    def logPrefix(self) -> str:
        """Return the name of the program's protocol, for logs."""
        return type(self.inner).__name__

    # IProtocol

    def connectionMade(self) -> None:
        """Connect the program's protocol."""
        self.inner.makeConnection(LentTransport(self, self.transport))

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass the event to the program's protocol, then call L{LentFactory.returned}."""
        self.connected = 0
        inner, self.inner = self.inner, None
        try:
            inner.connectionLost(reason)
        finally:
            self.factory.returned(self)

    # IDrainable

    @property
    def busy(self) -> bool:
        """
        Whether something is under way.

        A protocol that does not provide L{IDrainable} counts as busy while it is connected.
        """
        inner = IDrainable(self.inner, None)
        return bool(self.connected) if inner is None else bool(inner.busy)

    def drain(self) -> None:
        """See L{IDrainable}: a protocol that does not provide it goes on until either end closes."""
        inner = IDrainable(self.inner, None)
        if inner is not None:
            inner.drain()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """Close the connection as with TCP, unless the protocol provides L{IHalfCloseableProtocol}."""
        inner = IHalfCloseableProtocol(self.inner, None)
        if inner is None:
            assert self.transport is not None
            self.transport.loseConnection()
        else:
            inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Pass the event on, if the protocol provides L{IHalfCloseableProtocol}."""
        inner = IHalfCloseableProtocol(self.inner, None)
        if inner is not None:
            inner.writeConnectionLost()


class LentFactory(Factory):
    """
    Builds connections for the protocols of another factory.

    @ivar returned: called with each connection that is lost.
    """

    noisy = False

    def __init__(
        self, factory: IProtocolFactory, returned: Callable[[LentConnection], object] = lambda _: None
    ) -> None:
        self._factory = factory
        self.returned = returned

    def doStart(self) -> None:
        """See L{IProtocolFactory}."""
        self._factory.doStart()

    def doStop(self) -> None:
        """See L{IProtocolFactory}."""
        self._factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Build a protocol.

        @return: L{None} if the other factory builds none.
        """
        inner = build_protocol(self._factory, addr)
        return None if inner is None else LentConnection(self, inner)
