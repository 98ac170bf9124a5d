"""
What was written to a connection, and its peer has not taken.

Whoever judges whether a peer stands still, or is merely slow, has to know that:
bytes that were written wait in the transport, and then in the kernel, which
has room for megabytes of them.  A client that takes a kilobyte a second makes
nothing happen in this process for an hour.

On Linux the kernel is asked how much waits there (C{SIOCOUTQ}): over TCP that is
what the peer's kernel has not acknowledged, over a Unix socket what the peer
has not read.  Elsewhere only the transport's own part is known.
"""

from __future__ import annotations

__all__ = ["NOTHING", "Backlog", "backlog_of", "waiting_in"]

import socket
import sys
from collections.abc import Hashable
from struct import Struct
from typing import Any, Final, NamedTuple

from twisted.protocols.policies import ProtocolWrapper


class Backlog(NamedTuple):
    """
    What waits for a peer.

    @ivar size: bytes that are known to wait.
    @ivar mark: something that is equal at two looks only if the peer has taken
        nothing in between, provided that nothing was written in between either.
    """

    size: int
    mark: Hashable


NOTHING: Final = Backlog(0, 0)

_SIOCOUTQ: Final = 0x5411
_int: Final = Struct("=i")


def waiting_in(connection: socket.socket) -> int:
    """Ask the kernel how many bytes of what was sent wait in it; 0 if it does not say."""
    if sys.platform != "linux":
        return 0
    from fcntl import ioctl

    try:
        found: int = _int.unpack(ioctl(connection.fileno(), _SIOCOUTQ, bytes(_int.size)))[0]
    except (OSError, ValueError):
        return 0  # it is closed, or no such socket
    return found


def backlog_of(transport: Any) -> Backlog:
    """
    Find what waits for the peer of a connection.

    @param transport: of any kind; of those with a method C{backlog} it is what
        that returns.  Of a kind that nobody knows, nothing waits.
    """
    # Over TLS, what waits is in the transport below, but for a handshake.
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
