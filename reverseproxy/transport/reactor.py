"""A proxy of a reactor with the connections of this package."""

from __future__ import annotations

__all__ = ["StreamReactor"]

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IConnector, IProtocolFactory
from twisted.internet.protocol import ClientFactory

from reverseproxy.transport.poller import Poller
from reverseproxy.transport.ports import ListeningReactor
from reverseproxy.transport.stream import (
    StreamConnector,
    StreamPort,
    UnixStreamConnector,
    UnixStreamPort,
    adopt_connection,
)


class StreamReactor(ListeningReactor):
    """
    A proxy of a reactor, for instance for Twisted's endpoints.

    It provides what the reactor provides.  Connections and ports that are made
    through it are L{reverseproxy.transport.stream}'s, and watched by a L{Poller};
    those that are made through the reactor itself are Twisted's.

    The poller is an object of its own, as attributes of a class that has
    C{__getattr__} are several times as slow.

    @ivar poller: watches the connections.
    @ivar call_at_turn_end: see L{Poller.call_at_turn_end}.
    """

    tcp_port = StreamPort
    unix_port = UnixStreamPort

    def __init__(self, reactor: Any) -> None:
        self.poller = poller = Poller(reactor)
        # IReactorFDSet
        self.addReader, self.removeReader = poller.addReader, poller.removeReader
        self.addWriter, self.removeWriter = poller.addWriter, poller.removeWriter
        self.removeAll = poller.removeAll
        self.getReaders, self.getWriters = poller.getReaders, poller.getWriters
        self.call_at_turn_end = poller.call_at_turn_end
        self.stand_for(reactor, self)

    def connectTCP(
        self,
        host: str,
        port: int,
        factory: ClientFactory[Any],
        timeout: float = 30,
        bindAddress: Any = None,  # noqa: N803 - Twisted's name, as are those below
    ) -> IConnector:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        connector = StreamConnector(host, port, factory, timeout, bindAddress, self)
        connector.connect()
        return connector

    def connectUNIX(
        self,
        address: str,
        factory: ClientFactory[Any],
        timeout: float = 30,
        checkPID: bool = False,  # noqa: N803
    ) -> IConnector:
        """See L{twisted.internet.interfaces.IReactorUNIX}."""
        make: Callable[..., UnixStreamConnector] = UnixStreamConnector
        connector = make(address, factory, timeout, self, checkPID)
        connector.connect()
        connecting: IConnector = connector
        return connecting

    def adoptStreamConnection(
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> None:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        adopt_connection(fileDescriptor, addressFamily, factory, self)
