"""A reactor whose connections are ours."""

from __future__ import annotations

__all__ = ["StreamReactor"]

import os
import socket
from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IConnector, IListeningPort, IProtocolFactory
from twisted.internet.protocol import ClientFactory
from zope.interface import directlyProvides, providedBy

from reverseproxy.transport.poller import Poller
from reverseproxy.transport.stream import (
    StreamConnector,
    StreamPort,
    UnixStreamConnector,
    UnixStreamPort,
    adopt_connection,
)


class StreamReactor(Poller):
    """
    Stands for a reactor, which does everything but watching streams.

    Give it to whatever takes a reactor; Twisted's endpoints do.  It provides
    what the reactor provides.  Connections and ports that are made through it
    are L{reverseproxy.transport.stream}'s, in a L{Poller}; those that are made
    through the reactor itself are as ever.
    """

    def __init__(self, reactor: Any) -> None:
        super().__init__(reactor)
        directlyProvides(self, providedBy(reactor))
        # What is called for every request is not looked up twice.
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

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

    def listenTCP(  # noqa: N802
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        return self._listen(StreamPort(port, factory, backlog, interface, self))

    def listenUNIX(  # noqa: N802
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: N803
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorUNIX}."""
        return self._listen(UnixStreamPort(os.fsencode(address), factory, backlog, mode, self, wantPID))

    def adoptStreamPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        if addressFamily == socket.AF_UNIX:
            unix: Callable[..., Any] = UnixStreamPort._fromListeningDescriptor
            return self._listen(unix(self, fileDescriptor, factory))
        tcp: Callable[..., Any] = StreamPort._fromListeningDescriptor
        return self._listen(tcp(self, fileDescriptor, addressFamily, factory))

    def adoptStreamConnection(
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> None:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        adopt_connection(fileDescriptor, addressFamily, factory, self)

    def _listen(self, port: Any) -> IListeningPort:
        port.startListening()
        listening: IListeningPort = port
        return listening
