"""
Factories and protocols that delegate to others.

A port has one factory, which may delegate to others; a connection may have to
receive its first bytes before it is known which protocol it gets.
"""

from __future__ import annotations

__all__ = ["FirstBytes", "DelegatingFactory", "build_protocol"]

from typing import Any, cast

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides, implementer


def build_protocol(factory: IProtocolFactory, address: IAddress | None) -> IProtocol | None:
    """
    Build a protocol for a connection whose peer may have no address.

    L{IProtocolFactory} demands an address, but Twisted's own factories take L{None} too.

    @return: L{None} if the factory refuses the connection.
    """
    return factory.buildProtocol(cast(IAddress, address))


@implementer(IProtocolFactory)
class DelegatingFactory:
    """A factory that starts and stops those that it delegates to."""

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
    A connection that gets its protocol once its first bytes have arrived.

    Subclasses inspect these bytes in C{received}, and call C{begin}.
    """

    transport: Any
    _inner: Any = None

    def received(self, data: bytes) -> None:
        """
        Handle bytes that arrive before the connection has a protocol.

        @param data: what has arrived since the last call.
        """
        raise NotImplementedError

    def begin(self, factory: IProtocolFactory, address: IAddress | None, data: bytes) -> None:
        """
        Give the connection to a protocol, or close it if the factory refuses.

        @param data: what has arrived for it already.
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
        """Pass data on to C{received}, or to the protocol if there is one."""
        if self._inner is None:
            self.received(data)
        else:
            self._inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        """Pass it on; called only if there is a protocol that can half-close."""
        self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Pass it on; called only if there is a protocol that can half-close."""
        self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Pass it on to the protocol, if there is one."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)
