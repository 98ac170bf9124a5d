"""Counters of requests, and of agents that come and go."""

from __future__ import annotations

__all__ = [
    "DURATION_BOUNDS",
    "LEAVE_REASONS",
    "MAX_CELLS",
    "OTHER",
    "Histogram",
    "RequestCell",
    "RequestTally",
    "TunnelTally",
    "leave_reason",
]

from bisect import bisect_left
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Final

DURATION_BOUNDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the buckets of times, in seconds."""

OTHER: Final = "other"
"""What stands for all that there are too many of to tell them apart."""

MAX_CELLS: Final = 1000
"""How many pairs of cluster and virtual host one listener tells apart."""

MAX_REFUSALS: Final = 1000
"""How many joins that were refused are kept."""


class Histogram:
    """
    How often something took how long.

    @ivar bounds: the upper bounds of the buckets but the last, in seconds.
    @ivar counts: how often, by bucket; each is for itself, not for all up to it.
    @ivar total: all of it together, in seconds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


class RequestCell:
    """
    The requests of one listener to one cluster, by one virtual host.

    @ivar classes: how many had a status of which hundred: C{classes[2]} for 200
        to 299; C{classes[0]} for none, as the client had gone.
    @ivar durations: how long they took, from the first byte to the last.
    @ivar received: bytes of bodies of requests.
    @ivar sent: bytes of bodies of responses.
    """

    __slots__ = ("classes", "durations", "received", "sent")

    def __init__(self) -> None:
        self.classes = [0] * 10
        self.durations = Histogram()
        self.received = 0
        self.sent = 0


class RequestTally:
    """
    Counts the requests of one listener.

    @ivar listener: its name.
    @ivar cells: by cluster and virtual host; bounded by L{MAX_CELLS}, as routes
        can name clusters by what a request says.
    """

    __slots__ = ("_cell", "_cluster", "_virtual_host", "cells", "listener")

    def __init__(self, listener: str) -> None:
        self.listener = listener
        # The last one: most requests go where the one before has gone.
        self._cluster = self._virtual_host = ""
        self._cell: RequestCell | None = None
        self.cells: dict[tuple[str, str], RequestCell] = {}

    def note(
        self, cluster: str, virtual_host: str, status: int, seconds: float, received: int, sent: int
    ) -> None:
        """
        Count a request that has ended, or a session.

        @param cluster: where it went; empty for what was answered here.
        @param status: 0 if there was none.
        """
        cell = self._cell
        if cell is None or cluster is not self._cluster or virtual_host is not self._virtual_host:
            cell = self._find(cluster, virtual_host)
        cell.classes[status // 100 if status < 1000 else 0] += 1
        durations = cell.durations
        durations.counts[bisect_left(DURATION_BOUNDS, seconds)] += 1
        durations.total += seconds
        cell.received += received
        cell.sent += sent

    def _find(self, cluster: str, virtual_host: str) -> RequestCell:
        key = (cluster, virtual_host)
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= MAX_CELLS:
                key = (OTHER, OTHER)
            cell = self.cells.setdefault(key, RequestCell())
        self._cluster, self._virtual_host, self._cell = cluster, virtual_host, cell
        return cell


LEAVE_REASONS: Final[Mapping[str, str]] = {
    "the agent leaves": "agent_left",
    "the agent closes it gracefully": "agent_left",
    "the agent closed its side": "agent_left",
    "drained by": "operator",
    "kicked by": "operator",
    "stopping": "server_stopping",
    "the cluster is draining": "server_stopping",
    "replaced by": "replaced",
    "connection lost: the other end closed": "agent_closed",
    "connection lost": "connection_lost",
}
"""How reasons begin, and the few words that stand for them in metrics."""


def leave_reason(reason: str) -> str:
    """Classify why a host has left, so that there are few different reasons."""
    return next((short for begin, short in LEAVE_REASONS.items() if reason.startswith(begin)), OTHER)


class TunnelTally:
    """
    Counts what happens to agents' connections on their way in and out.

    @ivar joins: how many, by cluster (empty if it is not one of ours) and result.
    @ivar leaves: how many, by cluster and reason (L{leave_reason}).
    @ivar handshakes: how long they took, from the first byte to the answer.
    @ivar refusals: the last joins that were refused, oldest first.
    """

    def __init__(self) -> None:
        self.joins: dict[tuple[str, str], int] = {}
        self.leaves: dict[tuple[str, str], int] = {}
        self.handshakes = Histogram()
        self.refusals: deque[dict[str, Any]] = deque(maxlen=MAX_REFUSALS)

    def joined(self, cluster: str, result: str = "accepted") -> None:
        """Count an attempt to join."""
        key = (cluster, result)
        self.joins[key] = self.joins.get(key, 0) + 1

    def left(self, cluster: str, reason: str) -> None:
        """Count a host that an agent had brought, and that has left."""
        key = (cluster, leave_reason(reason))
        self.leaves[key] = self.leaves.get(key, 0) + 1
