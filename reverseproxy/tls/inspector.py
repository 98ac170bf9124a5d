"""
Plaintext and TLS on one port, told apart by the first byte.

A TLS connection begins with 0x16, the type of a handshake record; nothing that
is served here in plaintext does.
"""

from __future__ import annotations

__all__ = ["inspect_factory"]

from typing import Any, Final

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocolFactory
from twisted.internet.protocol import Protocol, ServerFactory, connectionDone
from twisted.python.failure import Failure
from zope.interface import alsoProvides

_HANDSHAKE: Final = b"\x16"


class _Inspector(Protocol):
    """A connection that has sent nothing yet; later, at most a relay to its protocol."""

    transport: Any
    _inner: Any = None

    def __init__(self, factory: _InspectorFactory, address: IAddress | None) -> None:
        self._factory = factory
        self._address: Any = address

    def dataReceived(self, data: bytes) -> None:
        if self._inner is None:
            self._decide(data)
        else:
            self._inner.dataReceived(data)

    def _decide(self, data: bytes) -> None:
        factory = self._factory.secure if data[:1] == _HANDSHAKE else self._factory.plain
        transport = self.transport
        inner = factory.buildProtocol(self._address)
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
        if not getattr(transport, "disconnecting", False):
            inner.dataReceived(data)

    def readConnectionLost(self) -> None:
        self._inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        self._inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.connectionLost(reason)


class _InspectorFactory(ServerFactory):
    noisy = False

    def __init__(self, plain: IProtocolFactory, secure: IProtocolFactory) -> None:
        self.plain = plain
        self.secure = secure

    def doStart(self) -> None:
        super().doStart()  # type: ignore[no-untyped-call]
        self.plain.doStart()
        self.secure.doStart()

    def doStop(self) -> None:
        super().doStop()  # type: ignore[no-untyped-call]
        self.plain.doStop()
        self.secure.doStop()

    def buildProtocol(self, addr: IAddress | None) -> _Inspector:
        return _Inspector(self, addr)


def inspect_factory(plain_factory: IProtocolFactory, tls_factory: IProtocolFactory) -> IProtocolFactory:
    """
    Take TLS and plaintext on one port.

    A protocol is built and connected when the first byte is there; what was
    read with it is delivered right after C{connectionMade}, even to a protocol
    that pauses its transport there.  Then the connection is the protocol's own.

    A connection may stay silent for ever, and costs next to nothing while it
    does: the aside connection of a MOSN agent sends its first byte when the
    agent stops (docs/mosn.rst 2.6).  The deadline of a TLS handshake begins at its first
    byte; it is C{tls_factory}'s, see L{reverseproxy.tls.wrap_server}.

    @param tls_factory: from L{reverseproxy.tls.wrap_server}.
    """
    return _InspectorFactory(plain_factory, tls_factory)
