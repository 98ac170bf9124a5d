"""
Connections that send at once.

Twisted's stock transport keeps what is written until the reactor says that the
socket can be written to, which costs two system calls and an event for every
write.  The connections here send in C{write}, and wait for the reactor only for
what the kernel did not take.  They receive into one buffer for all connections.

Everything else is Twisted's: how to connect and to accept, to close and to
half-close, producers.  What differs:

  - C{write} may send before it returns, so that C{abortConnection} takes back
    less of what was written.  An error that C{write} meets is reported by the
    reactor as ever, in a later turn, after one more read: an answer that came
    before the connection was reset is not lost.
  - Up to L{READ_SIZE} bytes are received at once, not 64 KiB; fewer while turns are long.
  - A producer is paused by what is still to be sent, not by what was written.
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
"""Bytes that one read takes at the most."""

BULK: Final = 32768
"""Bytes of one read from which on L{StreamTransport.splice_to} lets the kernel move them."""

_PIECES: Final = 64
"""How many writes that had to wait are sent by one system call at the most."""

# One for all: what arrives is copied out before anybody hears of it.  A buffer
# for each read would be memory that the allocator maps and unmaps every time.
_buffer = memoryview(bytearray(READ_SIZE))


class _Pipes:
    """The pipe of this process, once there is use for one."""

    def __init__(self) -> None:
        self._pipe: Pipe | None = None
        self._usable = True

    def get(self) -> Pipe | None:
        """The pipe; L{None} if there is none to be had."""
        if self._pipe is None and self._usable:
            try:
                self._pipe = Pipe()
            except OSError:
                self._usable = False
        return self._pipe

    def give_up(self) -> None:
        """The kernel does not want to move anything: not of such sockets, or not for us."""
        pipe, self._pipe = self._pipe, None
        self._usable = False
        if pipe is not None:
            pipe.close()


_pipes = _Pipes()

_UNABLE: Final = frozenset({EINVAL, ENOSYS, EPERM})
"""What the kernel says if it does not move anything, or may not."""


class StreamTransport(tcp.Connection):
    """
    What is new, to be mixed into Twisted's connections.

    @ivar unsent: bytes that were written and that the kernel has not taken.
    @ivar before_close: called once with why the connection is lost, as long as the
        socket is there.
    """

    unsent = 0
    before_close: Callable[[Failure], object] | None = None
    _pieces: deque[bytes]  # what is unsent, if anything is
    _offset = 0  # bytes of the first piece that are sent
    _reset = False  # write has met an error, which is for doRead or doWrite to report
    _onward: StreamTransport | None = None  # where what comes is passed on to
    _onward_left = 0  # how much of it, bytes
    _onward_told: Callable[[int], object]
    producer: Any  # pushes, or pulls; Twisted says only that it is one of these
    _in_bulk = False  # much came with the last read

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        # What each read and write looks at: CPython finds an object's own attributes
        # at a tenth of the price of a default that its class has.
        self.unsent = 0
        self.producer = self._onward = None
        self._writeDisconnected = self._aborting = False
        initialize: Callable[..., None] = super().__init__
        initialize(*args, **kwargs)

    # This and write run for every message, hence no helpers.

    def doRead(self) -> Any:  # noqa: N802 - Twisted's name, as are those below
        """Receive, and deliver; see L{IReadDescriptor}."""
        if self._onward is not None:
            return self._pass(self._onward)
        try:
            size = self.socket.recv_into(_buffer, PORTIONS.size)
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if size:
            self.protocol.dataReceived(_buffer[:size].tobytes())
            return None
        # The kernel reports an error once, so if write has met it this only looks like an end-of-file.
        return CONNECTION_LOST if self._reset else CONNECTION_DONE

    def write(self, data: bytes) -> None:
        """Send, or keep what can't be sent now; see L{ITransport}."""
        if not isinstance(data, bytes):
            raise TypeError("Data must be bytes")
        if not self.connected or self._writeDisconnected or self._aborting or not data:
            return
        sent = 0
        # A pull producer is asked for more when what it wrote is sent, so that has to be an event.
        if not self.unsent and (self.producer is None or self.streamingProducer):
            try:
                sent = self.socket.send(data)
            except BlockingIOError:
                pass
            except OSError as error:
                # The other two are met again: one says that we can't send, the other that we can't yet.
                self._reset = error.errno not in (EPIPE, ENOBUFS)
        if sent < len(data):
            self._keep(data, sent)

    def splice_to(self, target: StreamTransport, size: int, told: Callable[[int], object]) -> None:
        """
        Send what comes from now on to another connection, instead of telling the protocol of it.

        It is as if the protocol wrote it there at once: what the target does not
        take is kept there, and its producer is paused.  But nothing is made of
        it here, and much of it does not come here at all.

        @param size: how many bytes; what comes behind them is the protocol's again.
        @param told: called with the size of each part that was passed on.
        """
        self._onward = target
        self._onward_left = size
        self._onward_told = told
        self._in_bulk = False

    def stop_splice(self) -> None:
        """Pass nothing on any more."""
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
        try:
            size = self.socket.recv_into(_buffer, min(self._onward_left, PORTIONS.size))
        except BlockingIOError:
            return None
        except OSError:
            return CONNECTION_LOST
        if not size:
            return CONNECTION_LOST if self._reset else CONNECTION_DONE
        self._in_bulk = size >= BULK
        target.write_view(_buffer[:size])
        self._passed(size)
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
        self._onward_told(size)

    def _move(self, pipe: Pipe, target: StreamTransport) -> bool:
        """
        Let the kernel move what has come.

        @return: whether anything was moved.  What kept it from that, or an
            end-of-file, is for an ordinary read to find.
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
                self._reset = True  # of which the read would hear nothing
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
        """Send, or keep what can't be sent now; see L{ITransport}."""
        self.write(b"".join(iovec))

    def doWrite(self) -> Any:  # noqa: N802
        """Send what was kept, and then do what had to wait for that; see L{IWriteDescriptor}."""
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
        """Send an end-of-file after everything else; see L{IHalfCloseableDescriptor}."""
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
        There is none.

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
        There is no such thing here.

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
    Give a protocol to a connection that somebody else has accepted.

    @param descriptor: the connection's; it is not closed, but duplicated.
    """
    if family == socket.AF_UNIX:
        adopt: Callable[..., object] = _UnixServer._fromConnectedSocket
        adopt(descriptor, factory, reactor)
    else:
        adopt_tcp: Callable[..., object] = _Server._fromConnectedSocket
        adopt_tcp(descriptor, family, factory, reactor)


def _prepare(kind: type[StreamTransport]) -> None:
    """
    Name once what objects of a class get late.

    CPython has one table of names for all of them, to which names can be added
    only while there are few objects.  Whoever gets a name later has a dictionary
    of his own, which is almost a kilobyte.
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
    """A Unix socket that is listened on."""

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
