"""
The channel between two workers: messages, in their order, and sockets along with them.

It is a pair of connected sockets of the kind C{SOCK_SEQPACKET}: each message is
one packet, a JSON object, and may have a descriptor with it.  So what is said
behind a descriptor arrives behind it.  A packet that the other end has not read
when it dies is gone with it, and so is the descriptor in it, which closes the
connection: nobody holds one that nobody knows of.
"""

from __future__ import annotations

__all__ = ["MAX_PACKET", "MAX_QUEUED", "Channel", "IChannel", "decode", "encode"]

import errno
import json
import socket
from array import array
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, ILoggingContext, IReadWriteDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.errors import WireError
from reverseproxy.transport.handing import discard
from reverseproxy.workers.messages import Message

log = Logger()

MAX_PACKET: Final = 160 * 1024
"""Bytes of a message: less than what the kernel lets a socket hold, which a packet has to fit into."""

MAX_QUEUED: Final = 65536
"""Messages that wait for a worker which does not read; more of them, and it is given up."""

PAUSE: Final = 0.01
"""Seconds until a message is tried again for which the kernel has no room, other than in the channel."""

_PASSING: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Errors of sending that pass: too many descriptors are on their way and not read yet, or memory is short."""

_AT_ONCE: Final = 64
"""Packets that are read in one go."""

_buffer = bytearray(MAX_PACKET + 1)  # one for all: a packet is decoded before the next one is read
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_descriptor_size: Final = array("i").itemsize


class IChannel(Protocol):
    """One end of a channel, as a link knows it."""

    def send(self, message: Message, handle: Any = None) -> None:
        """
        Send a message.

        @param handle: a socket to go along, as L{reverseproxy.transport.handing}
            has it; it is not ours any more, whatever becomes of the message.
        @raise WireError: if the message is too large.
        """

    def close(self) -> None:
        """Say no more, and hear no more."""


def encode(message: Message) -> bytes:
    """
    Make a message's packet.

    @raise WireError: if it has more than L{MAX_PACKET} bytes.
    """
    packet = json.dumps(message, separators=(",", ":")).encode("ascii")
    if len(packet) > MAX_PACKET:
        raise WireError(f"a message of {len(packet)} bytes can't be sent to another worker")
    return packet


def decode(packet: bytes) -> Message:
    """
    Take a message out of its packet.

    @raise WireError: if it is none.
    """
    try:
        message = json.loads(packet)
    except (ValueError, RecursionError):
        message = None
    if not isinstance(message, dict) or not message:
        raise WireError(f"a message from another worker is no JSON object: {packet[:24]!r}")
    return message


@implementer(IReadWriteDescriptor, ILoggingContext)
class Channel:
    """Our end of a channel."""

    def __init__(
        self,
        connection: socket.socket,
        received: Callable[[Message, Any], object],
        lost: Callable[[str], object],
        reactor: Any,
    ) -> None:
        """
        @param connection: is ours from now on.
        @param received: takes each message, and the socket that came with it, if any.
        @param lost: called once with a reason when the other end is gone; not after L{close}.
        """
        connection.setblocking(False)
        self._socket = connection
        self._received = received
        self._lost = lost
        self._reactor = reactor
        self._queue: deque[tuple[bytes, socket.socket | None]] = deque()
        self._pause: IDelayedCall | None = None
        self._closed = False

    def start(self) -> None:
        """Begin to receive, unless it is closed already."""
        if not self._closed:
            self._reactor.addReader(self)

    # IChannel

    def send(self, message: Message, handle: Any = None) -> None:
        """See L{IChannel}."""
        try:
            packet = encode(message)
        except WireError:
            if handle is not None:
                discard(handle)
            raise
        if self._closed:
            if handle is not None:
                handle.close()
            return
        if self._queue or not self._send(packet, handle):
            self._queue.append((packet, handle))
            if len(self._queue) == 1:
                self._await_room()
            elif len(self._queue) > MAX_QUEUED:
                self._end("it does not read what it is told")

    def _send(self, packet: bytes, handle: socket.socket | None) -> bool:
        """
        Send a packet now.

        @return: whether it was sent, or never will be; false if the other end has to read first.
        """
        ancillary = []
        if handle is not None:
            ancillary.append((socket.SOL_SOCKET, socket.SCM_RIGHTS, array("i", [handle.fileno()])))
        try:
            self._socket.sendmsg([packet], ancillary)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno in _PASSING:
                self._pause = self._reactor.callLater(PAUSE, self._resume)
                return False
            # Whether it is the message or the channel: what was to follow it would make no sense.
            reason = str(error)
            self._reactor.callLater(0, self._end, reason)
        if handle is not None:
            handle.close()
        return True

    def _await_room(self) -> None:
        """Go on as soon as there is room in the channel; after a pause, if something else is missing."""
        if self._pause is None:
            self._reactor.addWriter(self)
        else:
            self._reactor.removeWriter(self)

    def _resume(self) -> None:
        self._pause = None
        self.doWrite()
        if self._queue and not self._closed:
            self._await_room()

    def close(self) -> None:
        """See L{IChannel}."""
        if self._closed:
            return
        self._closed = True
        pause, self._pause = self._pause, None
        if pause is not None:
            pause.cancel()
        self._reactor.removeReader(self)
        self._reactor.removeWriter(self)
        self._socket.close()
        for _, handle in self._queue:
            if handle is not None:
                handle.close()
        self._queue.clear()

    def _end(self, reason: str) -> None:
        if not self._closed:
            self.close()
            self._lost(reason)

    # IReadWriteDescriptor

    def fileno(self) -> int:
        """See L{IReadWriteDescriptor}."""
        return self._socket.fileno()

    def logPrefix(self) -> str:
        """See L{ILoggingContext}."""
        return "channel"

    def doRead(self) -> None:  # noqa: N802
        """Take what has come."""
        for _ in range(_AT_ONCE):
            if self._closed:
                return
            try:
                size, ancillary, flags, _ = self._socket.recvmsg_into(
                    [_buffer], socket.CMSG_SPACE(_descriptor_size), _CLOEXEC
                )
            except BlockingIOError:
                return
            except OSError as error:
                self._end(str(error))
                return
            handle = _handle_of(ancillary)
            if not size:
                self._end("it has ended")
                return
            try:
                # What has come without its descriptor says so itself: this process can't have one more.
                cut = flags & socket.MSG_TRUNC or (flags & socket.MSG_CTRUNC and handle is not None)
                if cut:
                    raise WireError("a message from another worker is cut off")
                message = decode(bytes(_buffer[:size]))
            except WireError as error:
                if handle is not None:
                    handle.close()
                self._end(str(error))
                return
            self._received(message, handle)

    def doWrite(self) -> None:  # noqa: N802
        """Send what had to wait."""
        while self._queue and not self._closed:
            packet, handle = self._queue[0]
            if not self._send(packet, handle):
                self._await_room()
                return
            self._queue.popleft()
        if not self._closed:
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends, or something has failed."""
        self._end(reason.getErrorMessage())


def _handle_of(ancillary: list[tuple[int, int, bytes]]) -> socket.socket | None:
    """Find the descriptor that came with a packet; if there are several, all but the first are closed."""
    found: list[socket.socket] = []
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            numbers = array("i")
            numbers.frombytes(data[: len(data) - len(data) % _descriptor_size])
            for number in numbers:
                with suppress(OSError):
                    found.append(socket.socket(fileno=number))
    for surplus in found[1:]:
        surplus.close()
    return found[0] if found else None
