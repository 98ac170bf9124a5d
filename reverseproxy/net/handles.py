"""Find the sockets and file descriptors of Twisted's transports."""

from __future__ import annotations

__all__ = ["descriptor_of", "tcp_socket"]

import socket
from typing import Any

from twisted.protocols.policies import ProtocolWrapper


def descriptor_of(transport: Any) -> int:
    """
    Return the file descriptor of a connection.

    @param transport: of the connection, over TLS or not.
    @return: -1 if there is no socket under it.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport
    fileno = getattr(transport, "fileno", None)
    return -1 if fileno is None else int(fileno())


def tcp_socket(transport: Any) -> tuple[Any, socket.socket | None]:
    """
    Find the TCP socket under a transport.

    @param transport: of a connection, over TLS or not.
    @return: the transport that has the socket, and the socket; L{None} if it is not TCP.
    """
    while isinstance(transport, ProtocolWrapper):
        transport = transport.transport  # TLS, whose own handle is not the socket
    get_handle = getattr(transport, "getHandle", None)
    handle = None if get_handle is None else get_handle()
    if isinstance(handle, socket.socket) and handle.family in (socket.AF_INET, socket.AF_INET6):
        return transport, handle
    return transport, None
