"""How many connections each worker has: of a cluster, and from an IP address."""

from __future__ import annotations

__all__ = ["ConnectionCounts"]

from collections import Counter

from reverseproxy.addresses import host_of
from reverseproxy.workers.entries import Entry


class ConnectionCounts:
    """The number of connections by worker."""

    def __init__(self) -> None:
        self._plain: Counter[tuple[str, int]] = Counter()  # those that can move, by cluster and worker
        self._brought: Counter[tuple[str, int]] = Counter()  # all, by IP address and worker

    def plain(self, cluster: str, at: int) -> int:
        """Return how many connections of a cluster that can move a worker has."""
        return self._plain[cluster, at]

    def brought(self, ip: str, at: int) -> int:
        """Return how many connections from an IP address a worker has."""
        return self._brought[ip, at]

    def count(self, entry: Entry, change: int) -> None:
        """
        Count a connection at its worker.

        @param change: 1 if it has it from now on, -1 if it has it no longer.
        """
        _add(self._brought, (host_of(entry.host.address), entry.at), change)
        if entry.host.exclusive:
            _add(self._plain, (entry.cluster.name, entry.at), change)


def _add(counter: Counter[tuple[str, int]], key: tuple[str, int], change: int) -> None:
    counter[key] += change
    if not counter[key]:
        del counter[key]
