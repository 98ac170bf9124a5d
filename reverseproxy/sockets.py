"""
What every TCP connection is told.

Kernels wait for hours until they find out that a peer is gone which said
nothing of it: a NAT that forgot the connection, a machine without power.
"""

from __future__ import annotations

__all__ = ["DEAD_PEER_TIMEOUT", "tune"]

import socket
from contextlib import suppress
from typing import Any, Final

from twisted.protocols.policies import ProtocolWrapper

DEAD_PEER_TIMEOUT: Final = 60.0
"""Seconds until a peer that does not answer any more counts as gone."""

_PROBES: Final = 3

_IDLE: Final[int | None] = getattr(socket, "TCP_KEEPIDLE", getattr(socket, "TCP_KEEPALIVE", None))  # macOS
_INTERVAL: Final[int | None] = getattr(socket, "TCP_KEEPINTVL", None)
_COUNT: Final[int | None] = getattr(socket, "TCP_KEEPCNT", None)
_USER_TIMEOUT: Final[int | None] = getattr(socket, "TCP_USER_TIMEOUT", None)

_MAX_IDLE: Final = 32767
"""Seconds; Linux takes no more."""


def tune(transport: Any, dead_peer_timeout: float = DEAD_PEER_TIMEOUT) -> None:
    """
    Send small writes at once, and notice a peer that is gone.

    At rest the kernel asks the peer after half of the time, and three times in
    the other half.  Where it has C{TCP_USER_TIMEOUT}, what was sent must be
    acknowledged in the same time; a peer that answers, but has had no room for
    what waits for it in all of that time, counts as gone too.

    Does nothing for anything but TCP, such as a Unix socket.

    @param transport: of a connection, over TLS or not.
    @param dead_peer_timeout: seconds.
    """
    connection = _tcp_socket(transport)
    if connection is None:
        return
    options = [(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1), (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)]
    half = dead_peer_timeout / 2
    for option, value in (
        (_IDLE, min(max(int(half), 1), _MAX_IDLE)),
        (_INTERVAL, min(max(int(half / _PROBES), 1), _MAX_IDLE)),
        (_COUNT, _PROBES),
        (_USER_TIMEOUT, min(max(int(dead_peer_timeout * 1000), 1), 2**31 - 1)),
    ):
        if option is not None:
            options.append((socket.IPPROTO_TCP, option, value))
    for each in options:
        # It may be reset already, which the transport will find out by itself.
        with suppress(OSError):
            connection.setsockopt(*each)


def _tcp_socket(transport: Any) -> socket.socket | None:
    """Find the socket under a transport."""
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport  # TLS, whose own handle is not the socket
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        return handle
    return None
