"""
Ports that several workers share.

The supervisor binds them, and holds them for as long as it runs, so that none
is lost when a worker is.

Of a TCP port there is a socket for each worker, and the kernel shares
connections out among these by their addresses (SO_REUSEPORT).  If all workers
watched one socket, then whoever is quickest would take nearly all connections.
Of a worker that is away, the others watch the socket meanwhile.  Where the
kernel does not share connections out, and of Unix sockets, there is one for all.
"""

from __future__ import annotations

__all__ = ["Acceptor", "SharedPort", "open_sockets"]

import errno
import os
import socket
import sys
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.defer import Deferred, gatherResults, maybeDeferred
from twisted.internet.interfaces import (
    IAddress,
    IListeningPort,
    ILoggingContext,
    IProtocolFactory,
    IReadDescriptor,
)
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.addresses import is_unix, split_host_port
from reverseproxy.config.models import ListenerConfig
from reverseproxy.listener import BACKLOG, NO_IPV6, not_bound, remove_stale_socket

log = Logger()

SHARES_OUT: Final = sys.platform == "linux"
"""Whether the kernel shares connections out among several sockets of one port."""

_AT_ONCE: Final = 16
"""Connections that are accepted in one go."""

_PAUSE: Final = 1.0
"""Seconds to wait when there are no descriptors left."""


def open_sockets(config: ListenerConfig, workers: int) -> list[socket.socket]:
    """
    Bind a listener's address.

    @return: a listening socket for each worker, or one for all.
    @raise ListenerFailed: if it can't be bound.
    """
    address = config.address
    try:
        if config.network == "unix" or is_unix(address):
            return [_open_unix(address.removeprefix("unix:"))]
        return _open_tcp(config, workers if SHARES_OUT else 1)
    except OSError as error:
        raise not_bound(config, error) from error


def _open_unix(path: str) -> socket.socket:
    remove_stale_socket(path)
    with ExitStack() as opening:
        opened = opening.enter_context(socket.socket(socket.AF_UNIX))
        opened.setblocking(False)
        opened.bind(path)
        os.chmod(path, 0o666)  # noqa: S103 - as Twisted does
        opened.listen(BACKLOG)
        opening.pop_all()
    return opened


def _open_tcp(config: ListenerConfig, count: int) -> list[socket.socket]:
    host, number = split_host_port(config.address)
    if host:
        found = socket.getaddrinfo(host, number, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        # A name of both kinds is IPv4's, as with Twisted.
        family, _, _, _, name = min(found, key=lambda each: each[0] != socket.AF_INET)
        return _open_family(config, count, family, name)
    try:
        # As in Go: all addresses, of IPv6 and of IPv4.
        return _open_family(config, count, socket.AF_INET6, ("::", number), both=True)
    except OSError as error:
        if error.errno not in NO_IPV6:
            raise
    return _open_family(config, count, socket.AF_INET, ("0.0.0.0", number))  # noqa: S104


def _open_family(
    config: ListenerConfig, count: int, family: int, name: Any, both: bool = False
) -> list[socket.socket]:
    sockets: list[socket.socket] = []
    with ExitStack() as opening:
        for index in range(count):
            opened = opening.enter_context(socket.socket(family, socket.SOCK_STREAM))
            opened.setblocking(False)
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if both:
                opened.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            # Our first one does not share the port with what is there already, unless it may.
            if index or config.reuseport:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            opened.bind(name)
            if count > 1:
                opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            name = opened.getsockname()  # with the number that the kernel has picked
            sockets.append(opened)
        for opened in sockets:
            opened.listen(BACKLOG)
        opening.pop_all()
    return sockets


@implementer(IReadDescriptor, ILoggingContext)
class Acceptor:
    """
    Accepts connections on a socket that others accept on, too.

    For Unix sockets: Twisted's own port would remove the file when it is closed.
    """

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        """
        @param listening: is ours from now on.
        """
        self._socket = listening
        self._factory = factory
        self._reactor = reactor
        self._closed = False

    def fileno(self) -> int:
        """See L{IReadDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "acceptor"

    def startReading(self) -> None:  # noqa: N802 - as Twisted's ports have it
        """Accept."""
        if not self._closed:
            self._reactor.addReader(self)

    def stopReading(self) -> None:  # noqa: N802
        """Accept no more for now."""
        self._reactor.removeReader(self)

    def doRead(self) -> None:  # noqa: N802
        """Accept connections."""
        for _ in range(_AT_ONCE):
            if self._closed:
                return
            try:
                accepted, _ = self._socket.accept()
            except OSError as error:
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM):
                    log.error(
                        "no connection can be accepted, so that none is for {pause:g} s: {reason}; if it is "
                        "descriptors that there are too few of, raise the hard limit of open files "
                        "(ulimit -n, or LimitNOFILE= of a unit)",
                        pause=_PAUSE,
                        reason=str(error),
                    )
                    self.stopReading()
                    self._reactor.callLater(_PAUSE, self.startReading)
                return
            with accepted:
                accepted.setblocking(False)
                self._reactor.adoptStreamConnection(accepted.fileno(), self._socket.family, self._factory)

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}."""
        self.close()

    def close(self) -> None:
        """Accept no more."""
        if not self._closed:
            self.stopReading()
            self._closed = True
            self._socket.close()


@implementer(IListeningPort)
class SharedPort:
    """
    A worker's part in a port.

    It watches its own socket, and those of workers that are away.
    """

    def __init__(self, sockets: Sequence[socket.socket], own: int, reactor: Any) -> None:
        """
        @param sockets: one for each worker, or one for all.
        @param own: this worker's number.
        """
        self._count = len(sockets)
        self._sockets: dict[int, socket.socket] = dict(enumerate(sockets))
        self._ports: dict[int, Any] = {}  # those of the sockets that were ever watched
        self._watched = {own % self._count}
        self._reactor = reactor
        self._factory: IProtocolFactory | None = None
        self._family = sockets[0].family
        self._name = sockets[0].getsockname()

    def listen(self, factory: IProtocolFactory) -> IListeningPort:
        """Begin to accept."""
        self._factory = factory
        for index in self._watched:
            self._start(index)
        return self

    def _start(self, index: int) -> None:
        if index in self._ports:
            self._ports[index].startReading()
            return
        listening = self._sockets.pop(index)
        assert self._factory is not None
        if self._family == socket.AF_UNIX:
            port = self._ports[index] = Acceptor(listening, self._factory, self._reactor)
            port.startReading()
        else:
            with listening:
                self._ports[index] = self._reactor.adoptStreamPort(
                    listening.fileno(), self._family, self._factory
                )

    def watch(self, numbers: Iterable[int]) -> None:
        """
        Accept from certain sockets only.

        @param numbers: of workers, whose sockets these are.
        """
        if self._factory is None:
            return
        wanted = {number % self._count for number in numbers}
        for index in self._watched - wanted:
            self._ports[index].stopReading()
        for index in wanted - self._watched:
            self._start(index)
        self._watched = wanted

    def stopReading(self) -> None:  # noqa: N802 - as Twisted's ports have it
        """Accept nothing for now; what comes meanwhile waits in the kernel."""
        for index in self._watched & self._ports.keys():
            self._ports[index].stopReading()

    def startReading(self) -> None:  # noqa: N802
        """Accept again."""
        for index in self._watched & self._ports.keys():
            self._ports[index].startReading()

    # IListeningPort

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """See L{IListeningPort}."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802
        """Accept no more; see L{IListeningPort}."""
        self._factory = None
        ports, self._ports = self._ports, {}
        for each in self._sockets.values():
            each.close()
        self._sockets = {}
        stopping: list[Deferred[Any]] = []
        for port in ports.values():
            if isinstance(port, Acceptor):
                port.close()
            else:
                stopping.append(maybeDeferred(port.stopListening))
        return gatherResults(stopping).addCallback(lambda _: None)

    def getHost(self) -> IAddress:
        """The address; see L{IListeningPort}."""
        return address_of(self._family, self._name)


def address_of(family: int, name: Any) -> IAddress:
    """Make an address of what the C{socket} module calls it."""
    if family == socket.AF_UNIX:
        return UNIXAddress(os.fsencode(name))
    kind = IPv6Address if family == socket.AF_INET6 else IPv4Address
    return kind("TCP", name[0], name[1])
