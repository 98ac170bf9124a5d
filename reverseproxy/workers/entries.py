"""A host of one of the workers, and what the others are told of it."""

from __future__ import annotations

__all__ = ["Entry"]

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.workers.messages import Message
from reverseproxy.workers.requests import PROTOCOL, is_committed


class Entry:
    """
    A host of one of the workers.

    @ivar number: its name in all workers.
    @ivar cluster: its cluster.
    @ivar host: the host object of this worker.
    @ivar at: the number of the worker that has its connection.
    @ivar moves: how often the connection has moved.
    @ivar committed: whether siblings know that it can't move any more.
    """

    __slots__ = ("at", "cluster", "committed", "host", "moves", "number")

    def __init__(self, number: str, cluster: Cluster, host: Host, at: int, moves: int = 0) -> None:
        self.number = number
        self.cluster = cluster
        self.host = host
        self.at = at
        self.moves = moves
        self.committed = False

    def facts(self) -> Message:
        """Return what siblings need to know of it, for a message."""
        host = self.host
        committed = is_committed(host)
        return {
            "id": self.number,
            "cluster": self.cluster.name,
            "address": host.address,
            "hostname": host.hostname,
            "weight": host.weight,
            "metadata": dict(host.metadata),
            "kind": PROTOCOL if committed else ("plain" if host.exclusive else "streams"),
            "identity": None if host.identity is None else host.identity.to_json(),
            "tells": host.tells,
            "speaks": None if host.announced is None else sorted(host.announced),
            "well": self.cluster.service_health.is_up(host),
            "moves": self.moves,
        }
