"""
Moving open connections to another process.

The socket itself is moved, and bytes that have arrived and were not read stay in the
kernel.  So this process must not shut it down: it only closes its descriptor, which
the other process does not notice.

A transport of another kind may return something else in place of a socket
(C{take_out}), as those in memory do; see L{reverseproxy.testing}.
"""

from __future__ import annotations

__all__ = ["discard", "is_socket", "make_pair", "put_in", "take_out"]

import socket
from typing import Any

from twisted.internet import tcp
from twisted.internet.interfaces import IProtocol
from twisted.internet.protocol import Factory
from twisted.protocols.policies import ProtocolWrapper
from twisted.python.failure import Failure

from reverseproxy.errors import ConnectionUnavailable


class _Giving(Factory):
    """Returns one protocol."""

    noisy = False

    def __init__(self, protocol: IProtocol) -> None:
        self._protocol = protocol

    def buildProtocol(self, addr: Any) -> Any:
        return self._protocol


def is_socket(transport: Any) -> bool:
    """Return whether a transport is of a kind whose socket can be moved; one over TLS is not."""
    if isinstance(transport, ProtocolWrapper):
        return False
    return isinstance(transport, tcp.Connection) or hasattr(transport, "take_out")


def take_out(transport: Any) -> Any:
    """
    Take the socket out of a transport, which calls its protocol no more.

    @return: the socket; L{None}, and nothing is changed, if something is unsent,
        or the connection is being closed.
    """
    take = getattr(transport, "take_out", None)
    return _take_out(transport) if take is None else take()


def _take_out(transport: Any) -> socket.socket | None:
    """The same for Twisted's own connections, and for those that derive from them."""
    # Our connections keep what is unsent apart from Twisted's buffer.
    unsent = getattr(transport, "unsent", 0) or len(transport.dataBuffer) - transport.offset
    if (
        not transport.connected
        or transport.disconnecting
        or unsent
        or transport._tempDataLen
        or transport._writeDisconnecting
        or transport._writeDisconnected
        or transport._aborting
        or getattr(transport, "_reset", False)
        or transport.producer is not None
    ):
        return None
    transport.stopReading()
    transport.stopWriting()
    connection = transport.socket
    taken = socket.socket(connection.family, connection.type, connection.proto, connection.detach())
    # As after a loss, but without shutdown and connectionLost.
    transport.connected = 0
    transport.disconnected = 1
    return taken


def put_in(handle: Any, protocol: IProtocol, reactor: Any) -> None:
    """
    Give a protocol to a socket that was taken out, perhaps by another process.

    @raise ConnectionRefusedByPeer: if the connection is lost.
    """
    if not isinstance(handle, socket.socket):
        handle.put_in(protocol)
        return
    with handle:
        handle.setblocking(False)
        try:
            reactor.adoptStreamConnection(handle.fileno(), handle.family, _Giving(protocol))
        except OSError as error:
            raise ConnectionUnavailable(f"the connection is lost: {error}") from error


def discard(handle: Any) -> None:
    """Close a socket that was taken out."""
    if isinstance(handle, socket.socket):
        handle.close()
    else:
        handle.discard()


def make_pair(reactor: Any) -> tuple[Any, Any]:
    """Return the two ends of a connection within this machine, as L{put_in} takes them."""
    make = getattr(reactor, "make_pair", None)
    return socket.socketpair() if make is None else make()


def lose(protocol: IProtocol, reason: BaseException) -> None:
    """Call C{connectionLost} on the protocol of a transport whose socket was taken out."""
    protocol.connectionLost(Failure(reason))
