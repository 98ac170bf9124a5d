"""Which clusters there are in this process, for whoever is at home in it and has only a name."""

from __future__ import annotations

__all__ = ["RUNNING", "ClusterDirectory"]

from typing import Final

from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.errors import ClusterUnknown


class ClusterDirectory:
    """The clusters of all applications that run."""

    def __init__(self) -> None:
        self._managers: list[ClusterManager] = []

    def add(self, manager: ClusterManager) -> None:
        """An application has started."""
        if manager not in self._managers:
            self._managers.append(manager)

    def remove(self, manager: ClusterManager) -> None:
        """An application has stopped, or has never started."""
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
"""Those of this process."""
