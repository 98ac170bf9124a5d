"""
Ports that several processes share: workers, or a process and the one that takes over from it.

The supervisor binds them, and keeps them while it runs, so that they outlive workers.

A TCP port has a socket for each worker, and the kernel distributes connections over these by
their addresses (SO_REUSEPORT).  With one socket for all workers, the fastest would accept
nearly all connections.  While a worker does not run, the others accept from its socket.  On
systems where the kernel does not distribute connections, and for Unix sockets, there is one
socket for all.
"""

from __future__ import annotations

__all__ = ["Acceptor", "SharedPort", "stop_taking"]

import errno
import os
import socket
from collections.abc import Iterable, Sequence
from contextlib import suppress
from typing import Any, Final

from twisted.internet.defer import Deferred, gatherResults, maybeDeferred, succeed
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

from reverseproxy.listener.sockets import BACKLOG, address_of, is_open, open_socket
from reverseproxy.process.inherited_sockets import INHERITED
from reverseproxy.transport.ports import readable

log = Logger()

_AT_ONCE: Final = 16
"""Connections that are accepted in one turn of the reactor."""

_PAUSE: Final = 1.0
"""Seconds without accepting when there are no descriptors left."""


@implementer(IReadDescriptor, ILoggingContext)
class Acceptor:
    """
    Accepts connections on a Unix socket that other processes share.

    Twisted's own port would remove the file when it is closed.
    """

    def __init__(self, listening: socket.socket, factory: IProtocolFactory, reactor: Any) -> None:
        """
        @param listening: the socket, which this object closes.
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
        """Pause accepting."""
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

    def stop_taking(self) -> None:
        """Accept the connections in the kernel's queue, and then no more."""
        for _ in range(BACKLOG // _AT_ONCE):
            if self._closed or not readable(self._socket.fileno()):
                break
            self.doRead()
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
    A worker's share of a port: its own socket, and those of workers that don't run.

    @ivar held: whether the port is bound and not listening yet; see C{open_when_ready}.
    """

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        own: int,
        reactor: Any,
        workers: int = 0,
        unlink: bool = False,
    ) -> None:
        """
        @param sockets: one for each worker, or one for all; or any number of inherited ones.
        @param own: this worker's number.
        @param workers: the number of workers; that of the sockets, if not given.
        @param unlink: whether to remove the file of a Unix socket at the end.
        """
        self._count = len(sockets)
        self._workers = workers or self._count
        self._unlink = unlink
        self._sockets: dict[int, socket.socket] = dict(enumerate(sockets))
        self._ports: dict[int, Any] = {}  # those of the sockets that were ever watched
        self._watched = self._of_workers([own])
        self._reactor = reactor
        self._factory: IProtocolFactory | None = None
        self.held = False
        self._family = sockets[0].family
        self._name = sockets[0].getsockname()

    def listen(self, factory: IProtocolFactory) -> IListeningPort:
        """Start to accept; or only hold the port, if one of its sockets does not listen yet."""
        self._factory = factory
        self.held = not all(is_open(self._sockets[index]) for index in self._watched)
        if not self.held:
            self._start_watched()
        return self

    def open(self) -> None:
        """
        Listen on a port that was held until now.

        @raise OSError: if that fails.
        """
        if self.held:
            for index in self._watched & self._sockets.keys():
                open_socket(self._sockets[index])
            self.held = False
            self._start_watched()

    def _start_watched(self) -> None:
        for index in self._watched:
            self._start(index)

    def _start(self, index: int) -> None:
        if index in self._ports:
            self._ports[index].startReading()
            return
        listening = self._sockets.pop(index)
        open_socket(listening)  # if its worker has ended before it did so
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
        Accept from the sockets of certain workers only.

        @param numbers: the workers' numbers.
        """
        if self._factory is None:
            return
        wanted = self._of_workers(numbers)
        if self.held:
            self._watched = wanted
            return
        for index in self._watched - wanted:
            self._ports[index].stopReading()
        for index in wanted - self._watched:
            self._start(index)
        self._watched = wanted

    def _of_workers(self, numbers: Iterable[int]) -> set[int]:
        """Return the indexes of workers' sockets; each worker has at least one, and each socket a worker."""
        wanted: set[int] = set()
        for number in numbers:
            wanted.add(number % self._count)
            wanted.update(range(number, self._count, self._workers))
        return wanted

    def leave(self) -> None:
        """Keep the file of a Unix socket, as another process uses the socket."""
        self._unlink = False

    def bequeath(self) -> tuple[socket.socket, ...]:
        """
        Duplicate the sockets for another process.

        @return: duplicates, to be closed by the caller.
        """
        listening = {**self._sockets, **self._ports}
        return tuple(socket.socket(fileno=os.dup(listening[index].fileno())) for index in sorted(listening))

    def stopReading(self) -> None:  # noqa: N802 - as Twisted's ports have it
        """Pause accepting; new connections wait in the kernel."""
        for index in self._watched & self._ports.keys():
            self._ports[index].stopReading()

    def startReading(self) -> None:  # noqa: N802
        """Resume accepting."""
        for index in self._watched & self._ports.keys():
            self._ports[index].startReading()

    def stop_taking(self) -> None:
        """
        Accept the connections in the queues of all workers' sockets, and then no more.

        Each worker does so when all stop, so that the last one to close a socket has emptied its queue.
        """
        if self._factory is not None and not self.held:
            for index in list(self._sockets):
                self._start(index)
            ports, self._ports = self._ports, {}
            for port in ports.values():
                stop_taking(port)
        self.stopListening()

    # IListeningPort

    def startListening(self) -> None:  # noqa: N802 - Twisted's name
        """See L{IListeningPort}."""

    def stopListening(self) -> Deferred[None]:  # noqa: N802
        """Accept no more; see L{IListeningPort}."""
        self._factory = None
        if self._unlink and self._family == socket.AF_UNIX and self._name not in INHERITED.files:
            with suppress(OSError):
                os.unlink(self._name)
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


def stop_taking(port: Any) -> Deferred[None]:
    """
    Close a port after accepting the connections in its queue, which would be reset otherwise.

    @param port: a port of Twisted's own is only closed.
    @return: fires when it is closed.
    """
    if not hasattr(port, "stop_taking"):
        return maybeDeferred(port.stopListening).addCallback(lambda _: None)
    port.stop_taking()
    return succeed(None)
