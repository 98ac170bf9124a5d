"""All clusters, by name."""

from __future__ import annotations

__all__ = [
    "LOG_BURST",
    "LOG_RATE",
    "DEPRIORITIZED_WAIT",
    "Cluster",
    "ClusterManager",
    "IClusterTask",
    "Labels",
    "QueuedDemand",
]

from collections.abc import Iterable, Iterator

from reverseproxy.cluster.cluster import DEPRIORITIZED_WAIT, LOG_BURST, LOG_RATE, Cluster
from reverseproxy.cluster.queue import Labels, QueuedDemand
from reverseproxy.cluster.tasks import IClusterTask
from reverseproxy.errors import ClusterUnknown


class ClusterManager:
    """The clusters of one application, by name."""

    def __init__(self, clusters: Iterable[Cluster] = ()) -> None:
        self._clusters: dict[str, Cluster] = {}
        for cluster in clusters:
            self.add(cluster)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self._clusters.values())

    def __len__(self) -> int:
        return len(self._clusters)

    def __contains__(self, name: object) -> bool:
        return name in self._clusters

    def add(self, cluster: Cluster) -> None:
        """
        Add a cluster.

        @raise ValueError: if there is one of this name.
        """
        if cluster.name in self._clusters:
            raise ValueError(f"there is a cluster {cluster.name} already")
        self._clusters[cluster.name] = cluster

    def remove(self, name: str) -> Cluster:
        """
        Remove a cluster, which goes on with its requests in progress.

        @raise ClusterUnknown: if there is none of this name.
        """
        cluster = self.get(name)
        del self._clusters[name]
        return cluster

    def get(self, name: str) -> Cluster:
        """
        Find a cluster.

        @raise ClusterUnknown: if there is none of this name.
        """
        try:
            return self._clusters[name]
        except KeyError:
            raise ClusterUnknown(f"there is no cluster {name!r}") from None

    def start(self) -> None:
        """Start the background tasks of all clusters; see L{Cluster.start}."""
        for cluster in self:
            cluster.start()

    def stop(self) -> None:
        """Stop them; see L{Cluster.stop}."""
        for cluster in self:
            cluster.stop()

    def drain(self) -> None:
        """Drain all clusters; see L{Cluster.drain}."""
        for cluster in self:
            cluster.drain()

    def close(self, reason: str) -> None:
        """Close all clusters; see L{Cluster.close}."""
        for cluster in self:
            cluster.close(reason)
