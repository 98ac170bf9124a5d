"""
Connections that have not joined a cluster: how many there may be, and which one makes room.

They are those in the handshake, and the silent ones that MOSN's agents keep aside for
a graceful close.
"""

from __future__ import annotations

__all__ = ["PENDING_PART", "IPending", "PendingConnections"]

from collections.abc import Iterator
from typing import Final, Protocol

from reverseproxy.limits.connection_limit import Crowd, IMember

PENDING_PART: Final = 2
"""Connections that have not joined may be one in so many of those that strangers may hold."""


class IPending(IMember, Protocol):
    """A connection that has not joined."""

    @property
    def crowd(self) -> str:
        """The address that it is counted with."""

    def transport_objection(self) -> str:
        """Say why the connection may not stay as it is; empty if it may."""

    def drop(self, reason: str) -> None:
        """Close the connection."""


class PendingConnections:
    """The pending connections of one listener."""

    def __init__(self, most: int) -> None:
        """
        @param most: how many there may be.
        """
        self._crowd: Crowd[IPending] = Crowd(most)

    def __len__(self) -> int:
        return len(self._crowd)

    def __iter__(self) -> Iterator[IPending]:
        return iter(self._crowd)

    @property
    def most(self) -> int:
        """How many there may be."""
        return self._crowd.most

    def take_over(self, newer: PendingConnections) -> None:
        """Have the limit of another one."""
        self._crowd.most = newer.most

    def add(self, connection: IPending) -> None:
        """
        Count a connection.

        If there are too many, the oldest one of the address that has most of them makes room.
        """
        self._crowd.add(connection.crowd, connection)
        if len(self._crowd) > self._crowd.most:
            found = self._crowd.victim(connection.crowd)
            victim = connection if found is None else found[1]
            victim.drop("too many connections that have not joined a cluster")

    def discard(self, connection: IPending) -> None:
        """Count a connection no more; one that is not counted is ignored."""
        self._crowd.discard(connection.crowd, connection)

    def recheck(self) -> None:
        """Close those that may not stay as they are, since the listener's TLS has changed."""
        for connection in list(self._crowd):
            reason = connection.transport_objection()
            if reason:
                connection.drop(reason)
