"""
What has certainly never left this machine, of what was written to a connection that is lost.

That something was not acknowledged does not mean that it has not arrived.  But
where a network is gone, the kernel soon sends nothing new: it repeats the first
segments that nobody has acknowledged, and what is written later stays in its
queue.  It says how much that is (C{SIOCOUTQNSD}).  Once the connection is
aborted, nobody will ever get that, and it may be sent elsewhere, whatever it is.

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
"""A filter of one instruction: let nothing through."""

_MOST_NOTES: Final = 64

_size: Final = Struct("i")
_linger: Final = Struct("ii")


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("filter", ctypes.c_void_p))


class Positions(NamedTuple):
    """
    How far a connection has got.

    @ivar written: where what is written next begins, or later.
    @ivar sent: from where on nothing was ever sent, or earlier.
    """

    written: int
    sent: int


def _under(transport: Any) -> Any:
    """The connection under TLS."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    return transport


def _queued(transport: Any, request: int) -> int:
    return int(_size.unpack(ioctl(transport.fileno(), request, bytes(_size.size)))[0])


def positions(transport: Any) -> Positions | None:
    """
    Ask the kernel how far a connection has got.

    @param transport: over TLS or not.
    @return: L{None} if that can't be known.
    """
    under = _under(transport)
    # First, so that what is acknowledged meanwhile makes both of them smaller.
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
    See to it that nothing more is sent, whatever comes, and ask how far it has got.

    What has not been sent by then will not be, as the socket is reset when it is closed.
    """
    program = _Program(1, ctypes.addressof(_NOTHING))
    try:
        under.socket.setsockopt(socket.SOL_SOCKET, _ATTACH_FILTER, bytes(program))
        under.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _linger.pack(1, 0))
    except OSError:
        return None
    return positions(under)


class Departures:
    """
    Remembers, for one connection, how far it had got when.

    @ivar stayed: once the connection is lost: nothing has left of what was begun
        after this mark; L{None} if that can't be said of any.
    """

    __slots__ = ("_notes", "_under", "stayed")

    def __init__(self, transport: Any) -> None:
        """
        @param transport: one of ours, over TLS or not; of others nothing can be said.
        """
        self._under = _under(transport)
        self._notes: deque[tuple[int, int]] = deque(maxlen=_MOST_NOTES)
        self.stayed: int | None = None
        if hasattr(self._under, "before_close"):
            self._under.before_close = self._closing

    def note(self, mark: int) -> None:
        """
        Something waits to be acknowledged: note how far it has got.

        @param mark: what is begun after this has a larger one.
        """
        found = positions(self._under)
        if found is not None:
            self._notes.append((mark, found.written))

    def forget(self) -> None:
        """Nothing waits any more."""
        self._notes.clear()

    def _closing(self, reason: Failure) -> None:
        """The connection is about to be closed."""
        # One that the peer has ended delivers what it has.
        if not self._notes or reason.check(ConnectionDone):
            return
        found = _end(self._under)
        if found is not None:
            self.stayed = next((mark for mark, written in self._notes if written >= found.sent), None)
