"""A cluster of which only one agent's own connections to this server are used."""

from __future__ import annotations

__all__ = ["AgentCluster"]

from collections.abc import Callable, Collection

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.cluster.narrowed import NarrowedCluster
from reverseproxy.interfaces import PickContext


class AgentCluster(NarrowedCluster):
    """A cluster from which only the connections of one agent to this server are picked."""

    def __init__(self, cluster: Cluster, find: Callable[[], Collection[Host]]) -> None:
        """@param find: returns the agent's hosts."""
        super().__init__(cluster)
        self._find = find

    def narrow(self, context: PickContext | None) -> PickContext:
        """Restrict the choice to the agent's hosts; see L{NarrowedCluster.narrow}."""
        return PickContext(tried=set() if context is None else context.tried, among=self._find())

    def take_free(self) -> Host | None:
        """
        Take one of the agent's hosts even if the cluster has C{max_requests} in progress.

        @return: L{None} if none has free capacity.
        """
        cluster = self._cluster
        host = cluster.choose(self.narrow(None))
        if host is not None:
            cluster.take(host)
        return host

    def has_others(self, context: PickContext) -> bool:
        """Return whether the agent has other healthy hosts; see L{ICluster.has_others}."""
        return any(host.healthy and host not in context.tried for host in self._find())
