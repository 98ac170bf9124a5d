"""The kernel's figures about a TCP connection (C{TCP_INFO}), where the system has them: on Linux."""

from __future__ import annotations

__all__ = ["INFO_SIZE", "LAYOUT", "TCP_INFO", "TcpInfo", "tcp_info", "was_heard"]

import socket
import sys
from contextlib import suppress
from fcntl import ioctl
from struct import Struct
from termios import FIONREAD
from typing import Any, Final, NamedTuple

from reverseproxy.net.handles import descriptor_of, tcp_socket

# Other systems have an option of this name, and put something else in it.
TCP_INFO: Final[int | None] = getattr(socket, "TCP_INFO", None) if sys.platform == "linux" else None


class TcpInfo(NamedTuple):
    """
    The kernel's figures about a connection: the fields of C{struct tcp_info} that are used here.

    @ivar probes: keepalive or window probes without an answer so far.
    @ivar unacked: segments that are sent and not acknowledged.
    @ivar data_age: milliseconds since data arrived.
    @ivar ack_age: milliseconds since any acknowledgement arrived.
    @ivar rtt: the round trip in microseconds, measured by acknowledgements; smoothed, so that one
        measurement changes it by an eighth of the difference.
    @ivar rttvar: its mean deviation in microseconds, which one measurement changes by a quarter.
    @ivar rcv_rtt: the same, measured by data that arrived.
    @ivar acked: bytes that were acknowledged since the connection was made.
    """

    probes: int
    unacked: int
    data_age: int
    ack_age: int
    rtt: int = 0
    rttvar: int = 0
    rcv_rtt: int = 0
    acked: int = 0

    @classmethod
    def parse(cls, raw: bytes) -> TcpInfo:
        """
        Parse what C{getsockopt} returns.

        @param raw: at least L{INFO_SIZE} bytes of C{struct tcp_info}.
        """
        return cls(*LAYOUT.unpack_from(raw))

    @property
    def waits(self) -> bool:
        """Whether the peer owes an acknowledgement."""
        return bool(self.probes or self.unacked)

    @property
    def silence(self) -> float:
        """Seconds since anything arrived from the peer."""
        return min(self.data_age, self.ack_age) / 1000


LAYOUT: Final = Struct("=3xB20xI24xII8xII16xI24xQ")
_size: Final = Struct("i")
INFO_SIZE: Final = LAYOUT.size
"""Bytes of C{struct tcp_info} that are read."""


def tcp_info(transport: Any) -> TcpInfo | None:
    """
    Return the kernel's figures about a connection.

    @param transport: of the connection, over TLS or not.
    @return: L{None} if the system has none, the connection is closed, or is not TCP.
    """
    connection = tcp_socket(transport)[1]
    if connection is None or TCP_INFO is None:
        return None
    try:
        raw = connection.getsockopt(socket.IPPROTO_TCP, TCP_INFO, INFO_SIZE)
    except OSError:
        return None  # it is closed
    return TcpInfo.parse(raw) if len(raw) >= INFO_SIZE else None


def was_heard(transport: Any, since: float) -> bool:
    """
    Say whether data has arrived on a connection recently, or waits in its buffer.

    A process that was busy, or stopped, reads late what its kernel has received long
    ago; so it asks the kernel before it blames the peer.

    @param transport: of the connection, over TLS or not.
    @param since: how recently, in seconds.
    @return: false, too, if that can't be known.
    """
    descriptor = descriptor_of(transport)
    if descriptor >= 0:
        with suppress(OSError):  # it is closed
            if _size.unpack(ioctl(descriptor, FIONREAD, bytes(_size.size)))[0]:
                return True
    info = tcp_info(transport)
    return info is not None and info.data_age < since * 1000
