"""
Which bytes, of those written to a connection that is lost, were certainly never sent.

Bytes that were not acknowledged may have arrived.  But when a network fails, the
kernel soon sends nothing new: it retransmits the first unacknowledged segments, and
what is written later stays in its queue.  The kernel tells how much that is
(C{SIOCOUTQNSD}).  Once the connection is aborted, these bytes can't arrive any more,
and may safely be sent elsewhere.

Positions count bytes that the kernel has taken, from any beginning that stays
the same: those that were acknowledged, and those in its queue.
"""

from __future__ import annotations

__all__ = ["Departures", "Positions", "positions"]

import ctypes
import socket
import sys
from collections import deque
from fcntl import ioctl
from struct import Struct
from typing import Any, Final, NamedTuple

from twisted.internet.error import ConnectionDone
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from reverseproxy.net.tcp_info import tcp_info

_OUTQ: Final = 0x5411
"""C{SIOCOUTQ}: bytes that were not acknowledged."""

_OUTQNSD: Final = 0x894B
"""C{SIOCOUTQNSD}: those of them that were not sent."""

_ATTACH_FILTER: Final = 26
"""C{SO_ATTACH_FILTER}."""

_NOTHING: Final = (ctypes.c_ushort * 4)(0x06, 0, 0, 0)
"""A packet filter of one instruction that drops everything."""

_MOST_NOTES: Final = 64

_size: Final = Struct("i")
_linger: Final = Struct("ii")


class _FilterProgram(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Positions(NamedTuple):
    """
    How much of what was written to a connection was sent.

    @ivar written: where what is written next begins, or later.
    @ivar sent: from where on nothing was ever sent, or earlier.
    """

    written: int
    sent: int


def _under(transport: Any) -> Any:
    """Return the connection below TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def _queued(transport: Any, request: int) -> int:
    return int(_size.unpack(ioctl(transport.fileno(), request, bytes(_size.size)))[0])


def positions(transport: Any) -> Positions | None:
    """
    Ask the kernel how much of what was written to a connection was sent.

    @param transport: over TLS or not.
    @return: L{None} if that is unknown.
    """
    under = _under(transport)
    # Asked first, so that bytes acknowledged meanwhile make both results smaller.
    info = tcp_info(under)
    if info is None or not sys.platform.startswith("linux"):
        return None
    try:
        waiting = _queued(under, _OUTQ)
        return Positions(info.acked + waiting, info.acked + waiting - _queued(under, _OUTQNSD))
    except OSError:
        return None


def _end(under: Any) -> Positions | None:
    """
    Stop the kernel from sending anything more, and ask how much was sent.

    What has not been sent by then never will be, as the socket is reset when it is closed.
    """
    program = _FilterProgram(1, ctypes.addressof(_NOTHING))
    try:
        under.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, bytes(program))
        under.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _linger.pack(1, 0))
    except OSError:
        return None
    return positions(under)


class Departures:
    """
    Remembers, for one connection, how much had been sent at which moment.

    @ivar stayed: once the connection is lost: nothing was sent of what was begun
        after this mark; L{None} if that is unknown.
    """

    __slots__ = ("_notes", "_under", "stayed")

    def __init__(self, transport: Any) -> None:
        """
        @param transport: one of ours, over TLS or not; of others nothing is known.
        """
        self._under = _under(transport)
        self._notes: deque[tuple[int, int]] = deque(maxlen=_MOST_NOTES)
        self.stayed: int | None = None
        if hasattr(self._under, "before_close"):
            self._under.before_close = self._closing

    def note(self, mark: int) -> None:
        """
        Note how much was sent, while something is unacknowledged.

        @param mark: whatever begins later has a larger one.
        """
        found = positions(self._under)
        if found is not None:
            self._notes.append((mark, found.written))

    def forget(self) -> None:
        """Forget what was noted, as everything is acknowledged."""
        self._notes.clear()

    def _closing(self, reason: Failure) -> None:
        """Find C{stayed}, as the connection is about to be closed."""
        # A connection that the peer has closed still sends what is in its queue.
        if not self._notes or reason.check(ConnectionDone):
            return
        found = _end(self._under)
        if found is not None:
            self.stayed = next((mark for mark, written in self._notes if written >= found.sent), None)
