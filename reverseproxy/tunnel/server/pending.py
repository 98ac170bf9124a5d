"""
Connections that have not joined a cluster: how many there may be, and which one is closed to make room.

They are those in the handshake, and the silent ones that MOSN's agents keep in reserve for a graceful
close.
"""

from __future__ import annotations

__all__ = ["PENDING_PART", "IPending", "PendingConnections"]

from collections.abc import Iterator
from typing import Final, Protocol

from reverseproxy.limits.connection_limit import ConnectionLimit, IEvictable

PENDING_PART: Final = 2
"""
The number by which all connections that untrusted peers may have are divided for the limit of pending
ones.
"""


class IPending(IEvictable, Protocol):
    """A connection that has not joined."""

    @property
    def address_key(self) -> str:
        """The address that it is counted with."""

    def transport_objection(self) -> str:
        """Return why the connection may not stay as it is; empty if it may."""

    def drop(self, reason: str) -> None:
        """Close the connection."""


class PendingConnections:
    """The pending connections of one listener."""

    def __init__(self, most: int) -> None:
        """@param most: the limit."""
        self._limit: ConnectionLimit[IPending] = ConnectionLimit(most)

    def __len__(self) -> int:
        return len(self._limit)

    def __iter__(self) -> Iterator[IPending]:
        return iter(self._limit)

    @property
    def most(self) -> int:
        """The limit."""
        return self._limit.most

    def take_over(self, newer: PendingConnections) -> None:
        """Use the limit of another one."""
        self._limit.most = newer.most

    def add(self, connection: IPending) -> None:
        """
        Add a connection.

        If there are too many, the oldest one of the address with the most of them is closed.
        """
        self._limit.add(connection.address_key, connection)
        if len(self._limit) > self._limit.most:
            found = self._limit.victim(connection.address_key)
            victim = connection if found is None else found[1]
            victim.drop("too many connections that have not joined a cluster")

    def discard(self, connection: IPending) -> None:
        """Remove a connection, if it is there."""
        self._limit.discard(connection.address_key, connection)

    def recheck(self) -> None:
        """Close those that may not stay as they are, since the listener's TLS has changed."""
        for connection in list(self._limit):
            reason = connection.transport_objection()
            if reason:
                connection.drop(reason)
