"""
Connections that are lent to protocols that know nothing of this project.

What such a protocol does with a connection is its own matter; ours is to know
whether it has one still, and when it has lost it.  So two objects stand between:
to the connection, L{LentConnection} is the protocol; to the protocol,
L{LentTransport} is the transport.  One object for both, as
L{ProtocolWrapper<twisted.protocols.policies.ProtocolWrapper>} is, would provide the
interfaces of a protocol to whoever looks at the transport, and wrappers of
Twisted's own do.
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
from reverseproxy.transport.fronts import build_protocol


class LentTransport:
    """A connection as the protocol sees it, that it is lent to."""

    def __init__(self, connection: LentConnection, transport: Any) -> None:
        self._connection = connection
        self._transport = transport
        directlyProvides(self, providedBy(transport))

    @property
    def protocol(self) -> Any:
        """Who has the connection; whoever has it may give it to another protocol by this, as with TCP."""
        return self._connection.inner

    @protocol.setter
    def protocol(self, inner: Any) -> None:
        self._connection.inner = inner

    def __getattr__(self, name: str) -> Any:
        """All else is the connection's."""
        return getattr(self._transport, name)


@implementer(IHalfCloseableProtocol, IDrainable)
class LentConnection(Protocol):
    """
    One connection that is lent.

    @ivar inner: who has it; L{None} once it is lost.
    """

    def __init__(self, factory: LentFactory, inner: IProtocol) -> None:
        self.factory = factory
        self.inner: Any = inner

    def logPrefix(self) -> str:
        """Whose lines of the log are of this connection."""
        return type(self.inner).__name__

    # IProtocol

    def connectionMade(self) -> None:
        """Give it to the protocol."""
        self.inner.makeConnection(LentTransport(self, self.transport))

    def dataReceived(self, data: bytes) -> None:
        """See L{IProtocol}."""
        self.inner.dataReceived(data)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol, and then whoever has lent the connection."""
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

        A protocol that can't say so is taken to be busy as long as it is connected.
        """
        inner = IDrainable(self.inner, None)
        return bool(self.connected) if inner is None else bool(inner.busy)

    def drain(self) -> None:
        """See L{IDrainable}: who can't be told goes on until either end has finished."""
        inner = IDrainable(self.inner, None)
        if inner is not None:
            inner.drain()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """The peer sends no more: as with TCP, the connection closes unless the protocol can half-close."""
        inner = IHalfCloseableProtocol(self.inner, None)
        if inner is None:
            assert self.transport is not None
            self.transport.loseConnection()
        else:
            inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """We send no more, as the protocol wanted."""
        inner = IHalfCloseableProtocol(self.inner, None)
        if inner is not None:
            inner.writeConnectionLost()


class LentFactory(Factory):
    """
    Lends connections to what another factory builds.

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

        @return: L{None} if the other factory wants no connection.
        """
        inner = build_protocol(self._factory, addr)
        return None if inner is None else LentConnection(self, inner)
