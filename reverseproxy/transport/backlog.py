"""
What was written to a connection and is not acknowledged by its peer.

This tells a peer that stands still from one that is slow: bytes that were written
wait in the transport's buffer, and then in the kernel's, which has room for
megabytes.  A client that reads a kilobyte a second causes no event in this process
for an hour.

On Linux the kernel is asked how much is in its buffer (C{SIOCOUTQ}): over TCP that
is what the peer's kernel has not acknowledged, over a Unix socket what the peer has
not read.  On other systems only the transport's buffer is known.
"""

from __future__ import annotations

__all__ = ["NOTHING", "Backlog", "Pace", "backlog_of", "waiting_in"]

import socket
import sys
from collections.abc import Hashable
from struct import Struct
from typing import Any, Final, NamedTuple

from twisted.protocols.policies import ProtocolWrapper


class Backlog(NamedTuple):
    """
    The unacknowledged bytes of a connection.

    @ivar size: how many are known.
    @ivar mark: a value that two calls return equally only if the peer has acknowledged
        nothing in between, provided that nothing was written in between either.
    """

    size: int
    mark: Hashable


NOTHING: Final = Backlog(0, 0)


class Pace:
    """
    Finds out by regular looks whether data moves.

    @ivar quiet: how many looks in a row have seen no progress.
    """

    __slots__ = ("_seen", "quiet")

    def __init__(self) -> None:
        self.quiet = 0
        self._seen: Hashable = None

    def look(self, seen: Hashable, excused: bool = False) -> int:
        """
        Compare the present state with that of the last look.

        @param seen: the present counters, or marks of backlogs; not L{None}.
        @param excused: whether a lack of progress does not count.
        @return: L{quiet}.
        """
        if excused or seen != self._seen:
            self._seen = seen
            self.quiet = 0
        else:
            self.quiet += 1
        return self.quiet


_SIOCOUTQ: Final = 0x5411
_int: Final = Struct("=i")


def waiting_in(connection: socket.socket) -> int:
    """Ask the kernel how many bytes are in its send buffer; 0 if that is unknown."""
    if sys.platform != "linux":
        return 0
    from fcntl import ioctl

    try:
        found: int = _int.unpack(ioctl(connection.fileno(), _SIOCOUTQ, bytes(_int.size)))[0]
    except (OSError, ValueError):
        return 0  # it is closed, or a socket of another kind
    return found


def backlog_of(transport: Any) -> Backlog:
    """
    Return the unacknowledged bytes of a connection.

    @param transport: if it has a method C{backlog}, the result of that is returned;
        if it is of an unknown kind, L{NOTHING}.
    """
    # Over TLS, the buffer is that of the transport below, except during the handshake.
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    ask = getattr(transport, "backlog", None)
    if ask is not None:
        found: Backlog = ask()
        return found
    return _of_descriptor(transport)


def _of_descriptor(transport: Any) -> Backlog:
    """The same for Twisted's own connections."""
    size = len(getattr(transport, "dataBuffer", b"")) - getattr(transport, "offset", 0)
    size += getattr(transport, "_tempDataLen", 0)
    connection = getattr(transport, "socket", None)
    if isinstance(connection, socket.socket):
        size += waiting_in(connection)
    return Backlog(size, size) if size else NOTHING
