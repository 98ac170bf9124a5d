"""
Ports that take a bounded number of connections in one turn of the reactor.

Twisted's adapt to how many come at once, by twenty in each turn and with no bound:
whoever connects often enough decides how long everybody else waits, and uses
descriptors up before anybody who has too many of them can be closed.

L{reverseproxy.transport.stream} has them with connections of its own;
L{BoundedReactor} has them with Twisted's.
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
"""Connections that are accepted at the last moment; there can't be more of them in the backlog."""


class Accepting:
    """A port that takes no more in one turn than L{MOST}, and than there are descriptors in reserve for."""

    _number_accepts = 0
    _takes = False  # what waits is accepted before it is closed

    @property
    def numberAccepts(self) -> int:  # noqa: N802 - Twisted's name
        """How many connections to accept in one turn."""
        return self._number_accepts

    @numberAccepts.setter
    def numberAccepts(self, number: int) -> None:  # noqa: N802 - Twisted's name
        self._number_accepts = min(number, MOST, max(Descriptors.current().reserve // 8, 1))

    def stop_taking(self) -> None:
        """
        Listen no more from now on, not from the next turn on, and accept first what waits.

        Whoever waits in the kernel is reset when the socket is closed.
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
    """Whether there is something to read, or to accept, at once."""
    poll = select.poll()
    poll.register(descriptor, select.POLLIN)
    return bool(poll.poll(0))


class AcceptingAtFile(Accepting, unix.Port):
    """
    A Unix socket that is listened on, whose file may have been removed, or taken by somebody else.

    Twisted's then leaves the socket open for ever, or removes what is not its own.
    """

    _path = b""
    _file: tuple[int, int] | None = None

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """Listen, and remember which file that is."""
        unix.Port.startListening(self)
        self._path = unix.Port.getHost(self).name or b""
        self._file = _identify(self._path)

    def connectionLost(self, reason: Failure) -> None:
        """Close, and remove the file if it is still ours."""
        if self._file is not None and _identify(self._path) == self._file:
            os.unlink(self._path)
        if self.lockFile is not None:
            self.lockFile.unlock()
        tcp.Port.connectionLost(self, reason)


def _identify(path: bytes) -> tuple[int, int] | None:
    """Tell the file of a Unix socket from others; L{None} if there is none, as of an abstract name."""
    try:
        found = os.lstat(path)
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


class _Port(Accepting, tcp.Port):
    """A TCP port with Twisted's connections."""


class _UnixPort(AcceptingAtFile):
    """A Unix socket that is listened on, with Twisted's connections."""


class ListeningReactor:
    """
    Stands for a reactor, but for the ports that are listened on.

    Give it to whatever takes a reactor; it provides what the reactor provides.
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
        # What is called for every request is not looked up twice.
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
    """Stands for one of Twisted's reactors, whose ports it bounds."""

    tcp_port = _Port
    unix_port = _UnixPort

    def __init__(self, reactor: Any) -> None:
        self.stand_for(reactor, reactor)

    def __repr__(self) -> str:
        return f"<BoundedReactor of {self._reactor!r}>"


def _listen(port: Any) -> IListeningPort:
    port.startListening()
    listening: IListeningPort = port
    return listening
