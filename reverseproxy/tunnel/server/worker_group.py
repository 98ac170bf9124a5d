"""The worker processes that serve one listener together, as the tunnel server in one of them uses them."""

from __future__ import annotations

__all__ = ["WorkerGroup"]

from collections.abc import Callable, Sequence
from itertools import count

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IProtocol

from reverseproxy.cluster.host import Host
from reverseproxy.tunnel.server.registry import Requester

_unix_peers = count(1)


class WorkerGroup:
    """
    What a tunnel server needs of the other workers.

    @ivar count: how many processes there are, this one included.
    @ivar unix_prefix: tells this worker's clients of Unix sockets, which have no address, from those of
        others.
    @ivar adopt: registers the protocol of a connection that another worker has accepted with the
        listener; returns the protocol to connect.
    @ivar evict_elsewhere: has the other workers close connections, given a cluster, addresses and the
        requester; fires with the addresses that they have closed. L{None} if there are no others.
    @ivar announce_weight: tells the other workers the weight of a host of this one, which has changed.
    """

    def __init__(self) -> None:
        self.count = 1
        self.unix_prefix = ""
        self.adopt: Callable[[IProtocol], IProtocol] = lambda connection: connection
        self.announce_weight: Callable[[Host], object] = lambda host: None
        self.evict_elsewhere: Callable[[str, Sequence[str], Requester], Deferred[set[str]]] | None = None

    def address_of(self, remote: str) -> str:
        """
        Return a host's address; a client of a Unix socket gets a unique one.

        @param remote: the connection's remote address.
        """
        return f"unix:#{self.unix_prefix}{next(_unix_peers)}" if remote == "unix:" else remote

    def connections_wanted(self, most: int) -> int:
        """
        Return how many connections an agent with streams should hold: one for each worker, within its
        limit.

        @param most: the limit; 0 for none.
        """
        return min(self.count, most or self.count)

    def evict(self, cluster: str, addresses: Sequence[str], requester: Requester) -> Deferred[set[str]]:
        """Have the other workers close connections; fires with the addresses that they have closed."""
        if self.evict_elsewhere is None or not addresses:
            return succeed(set())
        return self.evict_elsewhere(cluster, addresses, requester)
