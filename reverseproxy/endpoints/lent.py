"""
Connections that are lent to protocols that know nothing of this project.

Half of what such a protocol does is its own matter; the other half is ours to
know: whether it has a connection still, and when it has lost it.  Twisted's
L{ProtocolWrapper<twisted.protocols.policies.ProtocolWrapper>} stands between,
as it does elsewhere; it lacks half-closing.
"""

from __future__ import annotations

__all__ = ["LentConnection", "LentFactory"]

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IAddress, IHalfCloseableProtocol, IProtocol, IProtocolFactory
from twisted.internet.protocol import connectionDone
from twisted.protocols.policies import ProtocolWrapper, WrappingFactory
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.interfaces import IDrainable


@implementer(IHalfCloseableProtocol, IDrainable)
class LentConnection(ProtocolWrapper):
    """One connection, as the transport of a protocol."""

    factory: LentFactory

    # IDrainable

    @property
    def busy(self) -> bool:
        """
        Whether something is under way.

        A protocol that can't say so is taken to be busy as long as it is connected.
        """
        inner = IDrainable(self.wrappedProtocol, None)
        return bool(self.connected) if inner is None else bool(inner.busy)

    def drain(self) -> None:
        """See L{IDrainable}: who can't be told goes on until either end has finished."""
        inner = IDrainable(self.wrappedProtocol, None)
        if inner is not None:
            inner.drain()

    # IHalfCloseableProtocol

    def readConnectionLost(self) -> None:
        """The peer sends no more: as with TCP, the connection closes unless the protocol can half-close."""
        inner = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if inner is None:
            self.loseConnection()
        else:
            inner.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """We send no more, as the protocol wanted."""
        inner = IHalfCloseableProtocol(self.wrappedProtocol, None)
        if inner is not None:
            inner.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tell the protocol, and then whoever has lent the connection."""
        self.connected = 0
        try:
            super().connectionLost(reason)  # type: ignore[no-untyped-call]
        finally:
            self.factory.returned(self)


class LentFactory(WrappingFactory[LentConnection]):
    """
    Builds what the wrapped factory does.

    @ivar returned: called with each connection that is lost.
    """

    protocol = LentConnection
    noisy = False

    def __init__(
        self, factory: IProtocolFactory, returned: Callable[[LentConnection], object] = lambda _: None
    ) -> None:
        super().__init__(factory)  # type: ignore[no-untyped-call]
        self.returned = returned

    def buildProtocol(self, addr: IAddress | None) -> Any:
        """
        Build one.

        @return: L{None} if the wrapped factory wants no connection.
        """
        inner: IProtocol | None = self.wrappedFactory.buildProtocol(addr)
        return None if inner is None else self.protocol(self, inner)
