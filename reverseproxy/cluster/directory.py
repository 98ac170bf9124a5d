"""The clusters of this process by name, for endpoints that are made from a string."""

from __future__ import annotations

__all__ = ["RUNNING", "ClusterDirectory"]

from typing import Final

from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.errors import ClusterUnknown


class ClusterDirectory:
    """The clusters of all running applications."""

    def __init__(self) -> None:
        self._managers: list[ClusterManager] = []

    def add(self, manager: ClusterManager) -> None:
        """Add the clusters of an application that has started."""
        if manager not in self._managers:
            self._managers.append(manager)

    def remove(self, manager: ClusterManager) -> None:
        """Remove the clusters of an application that has stopped; those that are not there are ignored."""
        if manager in self._managers:
            self._managers.remove(manager)

    def find(self, name: str) -> Cluster:
        """
        Find a cluster.

        @raise ClusterUnknown: if there is none of this name, or several applications have one.
        """
        found = [manager.get(name) for manager in self._managers if name in manager]
        if not found:
            known = sorted(cluster.name for manager in self._managers for cluster in manager)
            raise ClusterUnknown(
                f"no application that runs in this process has a cluster {name!r}; there are: "
                f"{', '.join(known) or 'none'}"
            )
        if len(found) > 1:
            raise ClusterUnknown(f"{len(found)} applications in this process have a cluster {name!r}")
        return found[0]


RUNNING: Final = ClusterDirectory()
"""The clusters of this process."""
