"""
The channel between two workers: ordered messages, each with at most one socket.

It is a pair of connected sockets of the kind C{SOCK_SEQPACKET}: each message is one
packet, a JSON object, and may carry a descriptor, so that messages and descriptors keep
their order.  If the other end dies, the kernel drops packets that it has not read, and
closes the connections whose descriptors are in them.
"""

from __future__ import annotations

__all__ = ["MAX_PACKET", "MAX_QUEUED", "Channel", "IChannel", "decode", "encode", "fits"]

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
"""Queued messages to a worker that does not read; with more, the channel is closed."""

PAUSE: Final = 0.01
"""Seconds until a message is sent again after a temporary error of the kernel; see L{_PASSING}."""

_PASSING: Final = frozenset({errno.ETOOMANYREFS, errno.ENOBUFS, errno.ENOMEM})
"""Temporary errors: too many descriptors are in flight, or memory is short."""

_AT_ONCE: Final = 64
"""Packets that are read in one turn of the reactor."""

_buffer = bytearray(MAX_PACKET + 1)  # one for all: a packet is decoded before the next one is read
_CLOEXEC: Final = getattr(socket, "MSG_CMSG_CLOEXEC", 0)
_descriptor_size: Final = array("i").itemsize


class IChannel(Protocol):
    """One end of a channel, as a link knows it."""

    def send(self, message: Message, handle: Any = None) -> None:
        """
        Send a message.

        @param handle: a socket to send along, see L{reverseproxy.transport.handing}; it is
            closed here, whether or not the message is sent.
        @raise WireError: if the message is too large.
        """

    def close(self) -> None:
        """Close this end, without a call of C{lost}."""


def encode(message: Message) -> bytes:
    """
    Encode a message as a packet.

    @raise WireError: if it has more than L{MAX_PACKET} bytes.
    """
    # In UTF-8 what agents announce takes no more bytes than in their frames.
    text = json.dumps(message, ensure_ascii=False, separators=(",", ":"))
    packet = text.encode("utf-8", "surrogatepass")
    if len(packet) > MAX_PACKET:
        raise WireError(f"a message of {len(packet)} bytes can't be sent to another worker")
    return packet


def fits(message: Message) -> bool:
    """Return whether a message is short enough to be sent."""
    try:
        encode(message)
    except WireError:
        return False
    return True


def decode(packet: bytes) -> Message:
    """
    Decode a packet.

    @raise WireError: if it is not a message.
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
    """One end of a channel."""

    def __init__(
        self,
        connection: socket.socket,
        received: Callable[[Message, Any], object],
        lost: Callable[[str], object],
        reactor: Any,
    ) -> None:
        """
        @param connection: the socket, which this object closes.
        @param received: called with each message, and with its socket or L{None}.
        @param lost: called once with a reason when the channel is lost; not after L{close}.
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
        """Start to receive, unless it is closed already."""
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

        @return: true if it was sent, or failed for good; false if it has to wait.
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
            # The messages behind it may depend on it, so the channel ends.
            reason = str(error)
            self._reactor.callLater(0, self._end, reason)
        if handle is not None:
            handle.close()
        return True

    def _await_room(self) -> None:
        """Continue when the channel is writable, or after the pause."""
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
        """Receive messages."""
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
                # Without a descriptor, the flag means that this process can't have one more.
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
        """Send queued messages."""
        while self._queue and not self._closed:
            packet, handle = self._queue[0]
            if not self._send(packet, handle):
                self._await_room()
                return
            self._queue.popleft()
        if not self._closed:
            self._reactor.removeWriter(self)

    def connectionLost(self, reason: Failure) -> None:
        """See L{IReadDescriptor}: the reactor stops, or a call has failed."""
        self._end(reason.getErrorMessage())


def _handle_of(ancillary: list[tuple[int, int, bytes]]) -> socket.socket | None:
    """Return the socket that came with a packet; close any others."""
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
