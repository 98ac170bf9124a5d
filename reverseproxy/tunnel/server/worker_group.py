"""The worker processes that serve one listener together, as the tunnel server in one of them sees them."""

from __future__ import annotations

__all__ = ["WorkerGroup"]

from collections.abc import Callable, Sequence
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol

from reverseproxy.tunnel.server.registry import Requester

_unix_peers = count(1)


class WorkerGroup:
    """
    What a tunnel server needs of the other workers.

    @ivar count: how many processes there are, this one included.
    @ivar unix_prefix: tells this worker's clients of Unix sockets, which have no
        address, from those of others.
    @ivar adopt: takes a protocol for a connection that another worker has accepted into
        those of the listener, and gives what is to be connected.
    @ivar evict_elsewhere: lets the other workers close what is not held here, given
        a cluster, addresses, and who asks; gives the addresses that they closed.
        L{None} if there are no others.
    """

    def __init__(self) -> None:
        self.count = 1
        self.unix_prefix = ""
        self.adopt: Callable[[IProtocol], IProtocol] = lambda connection: connection
        self.evict_elsewhere: Callable[[str, Sequence[str], Requester], Deferred[set[str]]] | None = None

    def address_of(self, remote: str) -> str:
        """
        Say by which address a peer is known; clients of a Unix socket have none, and get one.

        @param remote: the connection's remote address.
        """
        return f"unix:#{self.unix_prefix}{next(_unix_peers)}" if remote == "unix:" else remote

    def connections_wanted(self, most: int) -> int:
        """
        Say how many connections an agent with streams is to hold: one for each worker, as far as it may.

        @param most: how many it may hold; 0 for any number.
        """
        return min(self.count, most or self.count)

    def evict(self, cluster: str, addresses: Sequence[str], requester: Requester) -> Deferred[set[str]]:
        """Have the other workers close connections; fires with the addresses of those that they closed."""
        if self.evict_elsewhere is None or not addresses:
            return succeed(set())
        return self.evict_elsewhere(cluster, addresses, requester)
