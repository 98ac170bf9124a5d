"""
TCP and Unix connections that send in C{write}.

Twisted's own transport buffers what is written until the reactor reports that the
socket is writable, which costs two system calls and an event for every write.  The
connections here send in C{write}, and buffer only what the kernel did not take.  They
receive into one buffer for all connections.

Everything else is Twisted's: connecting and accepting, closing and half-closing,
producers.  What differs:

  - C{write} may send before it returns, so that C{abortConnection} discards less of
    what was written.  An error in C{write} is reported as usual, in a later turn, after
    one more read: an answer that arrived before the connection was reset is not lost.
  - Up to L{READ_SIZE} bytes are received at once, not 64 KiB; fewer while turns are long.
  - A producer is paused by what is unsent, not by what was written.
  - What is written between C{abortConnection} and C{connectionLost} is dropped
    at once, and C{loseWriteConnection} on a lost connection does nothing.
  - There is no C{startTLS}: L{reverseproxy.tls} wraps protocols.
  - No descriptors are passed over Unix sockets.
  - A port accepts a bounded number of connections in one turn.
"""

from __future__ import annotations

__all__ = [
    "READ_SIZE",
    "StreamConnector",
    "StreamPort",
    "StreamTransport",
    "UnixStreamConnector",
    "UnixStreamPort",
    "adopt_connection",
]

import socket
from collections import deque
from collections.abc import Callable, Iterable
from errno import EINVAL, ENOBUFS, ENOSYS, EPERM, EPIPE
from itertools import islice
from typing import Any, Final, NoReturn

from twisted.internet import tcp, unix
from twisted.internet.interfaces import (
    IConsumer,
    IHalfCloseableDescriptor,
    ILoggingContext,
    IProtocolFactory,
    IPushProducer,
    IReadWriteDescriptor,
    ISystemHandle,
    ITCPTransport,
)
from twisted.internet.main import CONNECTION_DONE, CONNECTION_LOST
from twisted.python.failure import Failure
from zope.interface import implementer_only

from reverseproxy.transport.backlog import NOTHING, Backlog, waiting_in
from reverseproxy.transport.pipe import Pipe
from reverseproxy.transport.portions import LARGEST, PORTIONS
from reverseproxy.transport.ports import Accepting, AcceptingAtFile

READ_SIZE: Final = LARGEST
"""The most bytes of one read."""

BULK: Final = 32768
"""Bytes of one read from which on L{StreamTransport.splice_to} lets the kernel move what follows."""

_PIECES: Final = 64
"""The most buffered writes that are sent by one system call."""

# One for all connections: what arrives is copied out before it is delivered.  A buffer
# for each read would be memory that the allocator maps and unmaps every time.
_buffer = memoryview(bytearray(READ_SIZE))


class _Pipes:
    """The pipe of this process, made at its first use."""

    def __init__(self) -> None:
        self._pipe: Pipe | None = None
        self._usable = True

    def get(self) -> Pipe | None:
        """Return the pipe; L{None} if there can't be one."""
        if self._pipe is None and self._usable:
            try:
                self._pipe = Pipe()
            except OSError:
                self._usable = False
        return self._pipe

    def give_up(self) -> None:
        """Use no pipe any more, as the kernel moves nothing between such sockets, or not for this process."""
        pipe, self._pipe = self._pipe, None
        self._usable = False
        if pipe is not None:
            pipe.close()


_pipes = _Pipes()

_UNABLE: Final = frozenset({EINVAL, ENOSYS, EPERM})
"""Errors of the kernel if it can't, or may not, move anything."""


class StreamTransport(tcp.Connection):
    """
    What differs from Twisted's connections, to be mixed into them.

    @ivar unsent: bytes that were written and that the kernel has not taken.
    @ivar before_close: called once with the reason for which the connection is lost,
        before the socket is closed.
    """

    unsent = 0
    before_close: Callable[[Failure], object] | None = None
    _pieces: deque[bytes]  # what is unsent, if there is something
    _offset = 0  # bytes of the first piece that are sent
    _reset = False  # write has failed, which doRead or doWrite will report
    _onward: StreamTransport | None = None  # the target of splice_to
    _onward_left = 0  # bytes that are still to be spliced
    _on_spliced: Callable[[int], object]
    producer: Any  # Twisted's type has in common what push and pull producers have
    _in_bulk = False  # the last read was large

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # Every read and write needs these: to find a default in the class takes CPython
        # several times as long as to find an object's own attribute.
        self.unsent = 0
        self.producer = self._onward = None
        self._writeDisconnected = self._aborting = False
        initialize: Callable[..., None] = super().__init__
        initialize(*args, **kwargs)

    # This and write run for every message, hence few calls.

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name, as are those below
        """Receive, and deliver; see L{IReadDescriptor}."""
        onward = self._onward
        if onward is not None:
            return self._pass(onward)
        try:
            size = self.socket.recv_into(_buffer, PORTIONS.size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if size:
            self.protocol.dataReceived(_buffer[:size].tobytes())
            return None
        # The kernel reports an error once: if write has met it, this looks like an end-of-file.
        return CONNECTION_LOST if self._reset else CONNECTION_DONE

    def write(self, data: bytes) -> None:
        """Send, or buffer what can't be sent now; see L{ITransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or self._writeDisconnected or self._aborting or not data:
            return
        sent = 0
        # A pull producer is resumed when what it wrote is sent, which needs an event.
        if not self.unsent and (self.producer is None or self.streamingProducer):
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                # The other two occur again: one as sending is shut down, the other as it is not possible yet.
                self._reset = error.errno not in (EPIPE, ENOBUFS)
        if sent < len(data):
            self._keep(data, sent)

    def splice_to(self, target: StreamTransport, size: int, on_spliced: Callable[[int], object]) -> None:
        """
        Forward what is received from now on to another connection, without the protocol.

        It is as if the protocol wrote it there at once: what the target's kernel does
        not take is buffered there, and its producer is paused.  But no bytes objects are
        made of it, and most of it never leaves the kernel.

        @param size: how many bytes; the protocol receives what comes behind them.
        @param on_spliced: called with the size of each part that was forwarded.
        """
        self._onward = target
        self._onward_left = size
        self._on_spliced = on_spliced
        self._in_bulk = False

    def stop_splice(self) -> None:
        """Forward nothing any more."""
        self._onward = None

    def backlog(self) -> Backlog:
        """See L{reverseproxy.transport.backlog.backlog_of}."""
        size = self.unsent + waiting_in(self.socket) if self.connected else 0
        return Backlog(size, size) if size else NOTHING

    def _pass(self, target: StreamTransport) -> Any:
        if self._in_bulk and target._sends_at_once():
            pipe = _pipes.get()
            if pipe is not None and self._move(pipe, target):
                return None
        left, most = self._onward_left, PORTIONS.size
        try:
            size = self.socket.recv_into(_buffer, left if left < most else most)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not size:
            return CONNECTION_LOST if self._reset else CONNECTION_DONE
        self._in_bulk = size >= BULK
        target.write_view(_buffer[:size])
        # As _passed does, which this is too often for.
        self._onward_left = left = self._onward_left - size
        if not left:
            self._onward = None
        self._on_spliced(size)
        return None

    def _sends_at_once(self) -> bool:
        return (
            bool(self.connected)
            and not (self.unsent or self._writeDisconnected or self._aborting)
            and (self.producer is None or self.streamingProducer)
        )

    def _passed(self, size: int) -> None:
        self._onward_left -= size
        if not self._onward_left:
            self._onward = None
        self._on_spliced(size)

    def _move(self, pipe: Pipe, target: StreamTransport) -> bool:
        """
        Let the kernel move what was received.

        @return: whether anything was moved.  If not, an ordinary read finds the
            error or the end-of-file.
        """
        limit = min(self._onward_left, READ_SIZE)
        try:
            size, rest, error = pipe.move(self.socket.fileno(), target.socket.fileno(), limit)
        except BlockingIOError:
            return False
        except OSError as reason:
            if reason.errno in _UNABLE:
                _pipes.give_up()
            else:
                self._reset = True  # which the read would not report
            return False
        if not size:
            return False
        self._in_bulk = size >= BULK
        if error is not None and error.errno in _UNABLE:
            _pipes.give_up()
        elif error is not None:
            target._reset = error.errno not in (EPIPE, ENOBUFS)
        if rest:
            target._keep(rest, 0)
        self._passed(size)
        return True

    def write_view(self, data: bytes | memoryview) -> None:
        """
        Do as C{write} does, without a copy of what the kernel takes at once.

        @param data: may be overwritten as soon as this returns.
        """
        if not self.connected or self._writeDisconnected or self._aborting:
            return
        sent = 0
        if not self.unsent and (self.producer is None or self.streamingProducer):
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                self._reset = error.errno not in (EPIPE, ENOBUFS)
        if sent < len(data):
            self._keep(bytes(data[sent:]), 0)

    def _keep(self, data: bytes, sent: int) -> None:
        if not self.unsent:
            self._pieces = deque()
            self._offset = sent
            self.reactor.addWriter(self)
        self._pieces.append(data)
        self.unsent += len(data) - sent
        if self.producer is not None and self.streamingProducer and self.unsent > self.bufferSize:
            self.producerPaused = True
            self.producer.pauseProducing()

    def writeSequence(self, iovec: Iterable[bytes]) -> None:
        """Send, or buffer what can't be sent now; see L{ITransport}."""
        self.write(b"".join(iovec))

    def doWrite(self) -> Any:  # noqa: N802
        """Send what is buffered; then resume the producer, or close; see L{IWriteDescriptor}."""
        if self._reset:
            return CONNECTION_LOST
        if self.unsent:
            pieces, offset = self._pieces, self._offset
            try:
                sent = self.socket.sendmsg([memoryview(pieces[0])[offset:], *islice(pieces, 1, _PIECES)])
            except OSError as error:
                return (
                    None if isinstance(error, BlockingIOError) or error.errno == ENOBUFS else CONNECTION_LOST
                )
            self.unsent -= sent
            if self.unsent:
                offset += sent
                while offset >= len(pieces[0]):
                    offset -= len(pieces.popleft())
                self._offset = offset
                return None
            del self._pieces
        self.reactor.removeWriter(self)
        if self.producer is not None and (self.producerPaused or not self.streamingProducer):
            self.producerPaused = False
            self.producer.resumeProducing()
        elif self.disconnecting:
            return CONNECTION_DONE
        elif self._writeDisconnecting:
            self._writeDisconnected = True
            self._closeWriteConnection()
        return None

    def loseWriteConnection(self) -> None:
        """Send an end-of-file behind everything else; see L{IHalfCloseableDescriptor}."""
        if self.connected:
            tcp.Connection.loseWriteConnection(self)

    def connectionLost(self, reason: Failure) -> None:
        """Drop what is unsent; see L{IReadDescriptor}."""
        before_close, self.before_close = self.before_close, None
        if before_close is not None:
            before_close(reason)
        self._onward = None
        if self.unsent:
            self.unsent = 0
            del self._pieces
        super().connectionLost(reason)

    def startTLS(self, *_: object) -> NoReturn:  # noqa: N802 - Twisted's name
        """
        Raise an error: TLS is not a feature of these transports.

        @raise NotImplementedError: always.
        """
        raise NotImplementedError("TLS is a protocol here: see reverseproxy.tls")


_provides = implementer_only(
    ITCPTransport,
    IConsumer,
    IPushProducer,
    IReadWriteDescriptor,
    IHalfCloseableDescriptor,
    ISystemHandle,
    ILoggingContext,
)


@_provides
class _Server(StreamTransport, tcp.Server):
    """A connection that was accepted."""


@_provides
class _Client(StreamTransport, tcp.Client):
    """A connection that was dialled."""


class _UnixTransport(StreamTransport):
    """Over a Unix socket."""

    def sendFileDescriptor(self, fileno: int) -> NoReturn:  # noqa: N802 - Twisted's name
        """
        Raise an error: no descriptors are passed.

        @raise NotImplementedError: always.
        """
        raise NotImplementedError("descriptors are not passed")


@_provides
class _UnixServer(_UnixTransport, unix.Server):
    """A connection that was accepted on a Unix socket."""


@_provides
class _UnixClient(_UnixTransport, unix.Client):
    """A connection that was dialled to a Unix socket."""


def adopt_connection(descriptor: int, family: int, factory: IProtocolFactory, reactor: Any) -> None:
    """
    Make a transport of a connected socket, with a protocol.

    @param descriptor: the socket's; it is duplicated, and not closed.
    """
    if family == socket.AF_UNIX:
        adopt: Callable[..., object] = _UnixServer._fromConnectedSocket
        adopt(descriptor, factory, reactor)
    else:
        adopt_tcp: Callable[..., object] = _Server._fromConnectedSocket
        adopt_tcp(descriptor, family, factory, reactor)


def _prepare(kind: type[StreamTransport]) -> None:
    """
    Set all attributes that objects of a class may get later, once, on a first object.

    CPython has one table of attribute names for all objects of a class, to which names
    can be added only while there are few objects.  An object that gets another attribute
    later has a dictionary of its own, of almost a kilobyte.
    """
    first = kind.__new__(kind)
    for name in (
        "producer",
        "streamingProducer",
        "producerPaused",
        "disconnecting",
        "disconnected",
        "unsent",
    ):
        setattr(first, name, None)


for _kind in (_Server, _Client, _UnixServer, _UnixClient):
    _prepare(_kind)


class StreamPort(Accepting, tcp.Port):
    """A TCP port."""

    transport = _Server


class UnixStreamPort(AcceptingAtFile):
    """A listening Unix socket."""

    transport = _UnixServer


class StreamConnector(tcp.Connector):
    """An attempt to connect by TCP, and the connection."""

    def _makeTransport(self) -> _Client:  # noqa: N802 - Twisted's name
        make: Callable[..., _Client] = _Client
        return make(self.host, self.port, self.bindAddress, self, self.reactor)


class UnixStreamConnector(unix.Connector):
    """An attempt to connect to a Unix socket, and the connection."""

    def _makeTransport(self) -> Any:  # noqa: N802 - Twisted's name
        make: Callable[..., _UnixClient] = _UnixClient
        return make(self.address, self, self.reactor, self.checkPID)
