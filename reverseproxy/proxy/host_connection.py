"""
Connections to hosts, whatever protocol they carry.

A connection belongs to a pool (L{reverseproxy.proxy.connection_pool}), which
dials it, gives it exchanges to carry, and closes it when it has been idle for
long or the host leaves its cluster.
"""

from __future__ import annotations

__all__ = ["HostConnection", "SharedConnection", "next_number"]

from itertools import count
from typing import TYPE_CHECKING, Any

from twisted.logger import Logger

from reverseproxy.errors import ConnectionUnavailable
from reverseproxy.limits.buffered_bytes import TRUSTED, BufferAccount
from reverseproxy.net.formatting import own_address
from reverseproxy.net.tcp_options import tune

if TYPE_CHECKING:
    from reverseproxy.proxy.connection_pool import ConnectionPool

log = Logger()

next_number = count(1).__next__
"""Return a number that no other connection to a host has in this process."""


class HostConnection:
    """Base of protocols that are one connection to a host and belong to its pool."""

    transport: Any
    _pool: ConnectionPool[Any]
    _local_address: str | None = None
    _number = 0

    # what a pool calls

    def drain(self) -> None:
        """
        Take no more requests, and close when those under way are answered.

        The pool calls this for connections that are not idle.  By default they
        go on, and the pool closes them when they come back.
        """

    def close(self, reason: str) -> None:
        """Close the connection after what was written; no request may be under way."""
        raise NotImplementedError

    def drop(self, reason: str) -> None:
        """Close the connection now; the requests under way on it fail."""
        raise NotImplementedError

    # how it begins

    def _tune(self) -> None:
        """Set the socket's options, unless an agent has dialled: its socket has them already."""
        if not self._pool.exclusive:
            tune(self.transport)

    # for access logs

    @property
    def local_address(self) -> str:
        """Our own address on this connection; empty if it has none that is worth logging."""
        if self._local_address is None:
            self._local_address = own_address(self.transport)
        return self._local_address

    @property
    def connection_number(self) -> int:
        """The number of this connection among all to hosts, for access logs."""
        if not self._number:
            self._number = next_number()
        return self._number

    # bounded memory

    def open_account(self) -> BufferAccount:
        """See L{reverseproxy.limits.buffered_bytes.AccountedProtocol}."""
        return TRUSTED.account(self._pool.host.address, self._made_room)

    def _made_room(self, reason: str) -> None:
        """Close the connection, as the process keeps too much of what hosts have not finished."""
        log.warn("{host} is cut off: {reason}", host=self._pool.host.address, reason=reason)
        self._cut_off(reason)

    def _cut_off(self, reason: str) -> None:
        self.drop(reason)


class SharedConnection(HostConnection):
    """
    Base of connections that carry many requests at once.

    @ivar reused: whether the host may have closed the connection before it sees
        a request that is sent now.
    """

    reused: bool

    @property
    def has_room(self) -> bool:
        """Whether another request may be sent."""
        raise NotImplementedError

    def reserve(self) -> Any:
        """
        Take a place for one request, for which there must be room.

        @return: what an exchange uses to send it.
        """
        raise NotImplementedError

    @property
    def refusal(self) -> ConnectionUnavailable:
        """Why a connection that was just made takes no request."""
        return ConnectionUnavailable("the connection was lost at once")
