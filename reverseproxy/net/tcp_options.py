"""Options that every TCP connection gets."""

from __future__ import annotations

__all__ = ["NOT_SENT", "has_ended", "limit_unsent", "tune"]

import math
import socket
import sys
from contextlib import suppress
from typing import Any, Final

from twisted.protocols.policies import ProtocolWrapper

from reverseproxy.net.dead_peers import DEAD_PEER_TIMEOUT, PATIENCE, register
from reverseproxy.net.handles import tcp_socket
from reverseproxy.net.tcp_info import TCP_INFO

_PROBES: Final = 3

_IDLE: Final[int | None] = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS
_INTERVAL: Final[int | None] = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT: Final[int | None] = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)


_RTO_MAX: Final = 44
"""C{TCP_RTO_MAX_MS}, which Python has no name for."""

_NOTSENT_LOWAT: Final[int | None] = 25 if sys.platform == "linux" else None

NOT_SENT: Final = 65536
"""Bytes of unsent data that the kernel may hold; see L{limit_unsent}."""

_MAX_IDLE: Final = 32767
"""Seconds; the most that Linux takes."""


_MOST_PROBES: Final = 127


def tune(transport: Any, dead_peer_timeout: float = DEAD_PEER_TIMEOUT) -> None:
    """
    Set the options of a connection: send small writes at once, and detect a dead peer.

    On an idle connection, the kernel probes the peer after half of the timeout, and three
    times in the other half.  L{PeerSweep<reverseproxy.net.dead_peers.PeerSweep>} judges
    what stays unanswered.  Systems without C{TCP_INFO} use C{TCP_USER_TIMEOUT} instead, if
    they have it: data must be acknowledged within the timeout, and so a peer whose receive
    buffer stays full for that long counts as dead, too.

    It may be called again with another timeout.  It does nothing for anything but TCP.

    @param transport: of the connection, over TLS or not.
    @param dead_peer_timeout: seconds; at least two.
    """
    transport, connection = tcp_socket(transport)
    if connection is None:
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    half = dead_peer_timeout / 2
    idle = min(max(int(half), 1), _MAX_IDLE)
    interval = min(max(int(half / _PROBES), 1), _MAX_IDLE)
    probes = min(max(int((dead_peer_timeout - idle) / interval), 1), _PROBES)
    wanted: list[tuple[int | None, int]] = [(_IDLE, idle), (_INTERVAL, interval), (_COUNT, probes)]
    if TCP_INFO is None:
        wanted.append((_USER_TIMEOUT, min(max(int(dead_peer_timeout * 1000), 1), 2**31 - 1)))
    else:
        # The kernel does not know of other connections that share a slow path with this one.
        probes = min(max(math.ceil((PATIENCE - idle) / interval), probes), _MOST_PROBES)
        wanted[-1] = (_COUNT, probes)
        # So several retransmissions, and window probes, fit into the timeout.
        wanted.append((_RTO_MAX, min(max(int(dead_peer_timeout * 250), 1000), 120_000)))
        register(transport, connection, dead_peer_timeout)
    options += [(socket.IPPROTO_TCP, option, value) for option, value in wanted if option is not None]
    for each in options:
        # The connection may be reset, which the transport detects; or the kernel may be too old.
        with suppress(OSError):
            connection.setsockopt(*each)


def has_ended(transport: Any) -> bool:
    """
    Say whether the peer has closed or reset a connection, even if nothing has read that yet.

    @param transport: of the connection, over TLS or not.
    @return: false, too, if it has no socket.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if not isinstance(handle, socket.socket):
        return False
    try:
        return not handle.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True


def limit_unsent(transport: Any, size: int = NOT_SENT) -> None:
    """
    Bound the unsent data in the kernel's send buffer (C{TCP_NOTSENT_LOWAT}).

    Nothing overtakes data in that buffer, so a ping would wait behind megabytes.  It does
    nothing for anything but TCP.

    @param transport: of the connection, over TLS or not.
    @param size: bytes beside those that are sent and not acknowledged.
    """
    connection = tcp_socket(transport)[1]
    option = getattr(socket, "TCP_NOTSENT_LOWAT", _NOTSENT_LOWAT)
    if connection is not None and option is not None:
        with suppress(OSError):
            connection.setsockopt(socket.IPPROTO_TCP, option, size)
