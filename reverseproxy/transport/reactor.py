"""A reactor whose connections are ours."""

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


class StreamReactor(ListeningReactor, Poller):
    """
    Stands for a reactor, which does everything but watching streams.

    Give it to whatever takes a reactor; Twisted's endpoints do.  It provides
    what the reactor provides.  Connections and ports that are made through it
    are L{reverseproxy.transport.stream}'s, in a L{Poller}; those that are made
    through the reactor itself are as ever.
    """

    tcp_port = StreamPort
    unix_port = UnixStreamPort

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
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
