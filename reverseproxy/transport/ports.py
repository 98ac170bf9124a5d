"""
Ports that accept a bounded number of connections in one turn of the reactor.

Twisted's ports adapt to how many connections arrive at once, by twenty in each turn
and without a bound: a client that connects often enough delays all others, and uses up
descriptors before connections above a limit can be closed.

L{reverseproxy.transport.stream} has such ports for our connections, L{BoundedReactor}
for Twisted's.
"""

from __future__ import annotations

__all__ = ["Accepting", "AcceptingAtFile", "BoundedReactor", "ListeningReactor", "readable"]

import os
import select
import socket
from collections.abc import Callable
from typing import Any, Final

from twisted.internet import tcp, unix
from twisted.internet.interfaces import IListeningPort, IProtocolFactory
from twisted.internet.main import CONNECTION_DONE
from twisted.python.failure import Failure
from zope.interface import directlyProvides, providedBy

from reverseproxy.limits.connection_limit import Descriptors

MOST: Final = 32
"""Connections in one turn; to accept one takes a tenth of a millisecond."""


LAST: Final = 1024
"""Connections that are accepted when a port closes; the backlog can't be longer."""


class Accepting:
    """A port that accepts at most L{MOST} connections in one turn, and no more than descriptors are spare."""

    _number_accepts = 0
    _takes = False  # whether the backlog is accepted before closing

    @property
    def numberAccepts(self) -> int:  # noqa: N802 - Twisted's name
        """Return how many connections to accept in one turn."""
        return self._number_accepts

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:  # noqa: N802 - Twisted's name
        self._number_accepts = min(number, MOST, max(Descriptors.current().reserve // 8, 1))

    def stop_taking(self) -> None:
        """
        Stop listening now, not in the next turn, after accepting the backlog.

        The kernel resets connections of the backlog when the socket is closed.
        """
        self._takes = True
        port: Any = self
        port.stopReading()
        port.connectionLost(Failure(CONNECTION_DONE))

    def _closeSocket(self, orderly: bool) -> None:  # noqa: N802 - Twisted's name
        port: Any = self
        if self._takes:
            self._takes = False
            for _ in range(LAST // MOST):
                if not readable(port.fileno()):
                    break
                port.doRead()
        behind: Any = super()
        behind._closeSocket(orderly)


def readable(descriptor: int) -> bool:
    """Return whether a descriptor can be read, or accepted from, at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class AcceptingAtFile(Accepting, unix.Port):
    """
    A listening Unix socket whose file may have been removed, or replaced by another process.

    Twisted's port then leaves the socket open for ever, or removes the other's file.
    """

    _path = b""
    _file: tuple[int, int] | None = None

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """Listen, and remember the identity of the file."""
        unix.Port.startListening(self)
        self._path = unix.Port.getHost(self).name or b""
        self._file = _identify(self._path)

    def connectionLost(self, reason: Failure) -> None:
        """Close, and remove the file if it is still this one."""
        if self._file is not None and _identify(self._path) == self._file:
            os.unlink(self._path)
        if self.lockFile is not None:
            self.lockFile.unlock()
        tcp.Port.connectionLost(self, reason)


def _identify(path: bytes) -> tuple[int, int] | None:
    """Return the identity of a Unix socket's file; L{None} if there is none, as for an abstract name."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class _TcpPort(Accepting, tcp.Port):
    """A TCP port with Twisted's connections."""


class _UnixPort(AcceptingAtFile):
    """A listening Unix socket with Twisted's connections."""


class ListeningReactor:
    """
    A proxy of a reactor that listens with ports of its own.

    It provides what the reactor provides, and can be used in its place.
    """

    tcp_port: Callable[..., Any]
    """Makes a TCP port, as L{tcp.Port} does."""

    unix_port: Callable[..., Any]
    """The same for Unix sockets."""

    def stand_for(self, reactor: Any, owner: Any) -> None:
        """
        Begin.

        @param owner: the reactor that ports belong to.
        """
        self._reactor = reactor
        self._owner = owner
        directlyProvides(self, providedBy(reactor))
        # These are called for every request, so that they don't go through __getattr__.
        self.callLater = reactor.callLater
        self.seconds = reactor.seconds

    def __getattr__(self, name: str) -> Any:
        return getattr(self._reactor, name)

    def listenTCP(  # noqa: N802 - Twisted's names
        self, port: int, factory: IProtocolFactory, backlog: int = 50, interface: str = ""
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorTCP}."""
        return _listen(self.tcp_port(port, factory, backlog, interface, self._owner))

    def listenUNIX(  # noqa: N802
        self,
        address: str,
        factory: IProtocolFactory,
        backlog: int = 50,
        mode: int = 0o666,
        wantPID: bool = False,  # noqa: N803
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorUNIX}."""
        return _listen(self.unix_port(os.fsencode(address), factory, backlog, mode, self._owner, wantPID))

    def adoptStreamPort(  # noqa: N802
        self,
        fileDescriptor: int,  # noqa: N803
        addressFamily: int,  # noqa: N803
        factory: IProtocolFactory,
    ) -> IListeningPort:
        """See L{twisted.internet.interfaces.IReactorSocket}."""
        tcp_port: Any = self.tcp_port
        unix_port: Any = self.unix_port
        if addressFamily == socket.AF_UNIX:
            return _listen(unix_port._fromListeningDescriptor(self._owner, fileDescriptor, factory))
        return _listen(tcp_port._fromListeningDescriptor(self._owner, fileDescriptor, addressFamily, factory))


class BoundedReactor(ListeningReactor):
    """A proxy of one of Twisted's reactors, with bounded ports."""

    tcp_port = _TcpPort
    unix_port = _UnixPort

    def __init__(self, reactor: Any) -> None:
        self.stand_for(reactor, reactor)

    def __repr__(self) -> str:
        return f"<BoundedReactor of {self._reactor!r}>"


def _listen(port: Any) -> IListeningPort:
    port.startListening()
    listening: IListeningPort = port
    return listening
