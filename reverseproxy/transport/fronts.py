"""
What stands in front of other factories and protocols.

A port has one factory, which may have others behind it; a connection may have to
show something before it is known which protocol it gets.
"""

from __future__ import annotations

__all__ = ["FirstBytes", "Front", "build_protocol"]

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer


def build_protocol(factory: IProtocolFactory, address: IAddress | None) -> IProtocol | None:
    """
    Have a protocol built for a connection whose peer may have no address.

    L{IProtocolFactory} says that there always is one, but Twisted's own factories take L{None} too.

    @return: L{None} if the factory does not want the connection.
    """
    return factory.buildProtocol(cast(IAddress, address))


@implementer(IProtocolFactory)
class Front:
    """A factory that starts and stops with those behind it."""

    def __init__(self, *behind: IProtocolFactory) -> None:
        self._behind = behind

    def doStart(self) -> None:
        """See L{IProtocolFactory}."""
        for factory in self._behind:
            factory.doStart()

    def doStop(self) -> None:
        """See L{IProtocolFactory}."""
        for factory in self._behind:
            factory.doStop()

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """See L{IProtocolFactory}."""
        raise NotImplementedError


class FirstBytes(Protocol):
    """
    A connection that gets its protocol once its first bytes are there; later, at most a relay to that.

    Derive from it to look at those bytes in C{received}, and call C{begin} then.
    """

    transport: Any
    _inner: Any = None

    def received(self, data: bytes) -> None:
        """
        Take in bytes that come before the connection has a protocol.

        @param data: what has come since the last call.
        """
        raise NotImplementedError

    def begin(self, factory: IProtocolFactory, address: IAddress | None, data: bytes) -> None:
        """
        Give the connection to a protocol, or close it if the factory wants no more.

        @param data: what has come for it already.
        """
        transport = self.transport
        inner: Any = build_protocol(factory, address)
        if inner is None:
            transport.abortConnection()
            return
        self._inner = inner
        if IHalfCloseableProtocol.providedBy(inner):
            alsoProvides(self, IHalfCloseableProtocol)
        if getattr(transport, "protocol", None) is self:
            # From now on the transport calls the protocol itself.
            transport.protocol = inner
        inner.makeConnection(transport)
        if data and not getattr(transport, "disconnecting", False):
            inner.dataReceived(data)

    def dataReceived(self, data: bytes) -> None:
        """Receive for whoever has the connection."""
        if self._inner is None:
            self.received(data)
        else:
            self._inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        """Pass it on; only called once there is a protocol that can half-close."""
        self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Pass it on; only called once there is a protocol that can half-close."""
        self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell whoever has the connection, if anybody has."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
