"""
Eject hosts of agents that respond with gateway errors.

MOSN's agents don't report that they have not sent a request on: they respond with a
gateway error (502, 503 or 504).  Several of these in a row, on all connections of an agent
together, eject its hosts, for a time that grows with each repetition.  At most as many
are ejected as L{reverseproxy.cluster.health.ejection} allows.
"""

from __future__ import annotations

__all__ = ["FIRST_REST", "Gateways"]

from itertools import islice
from typing import TYPE_CHECKING, Final

from reverseproxy.cluster.host import Host

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

FIRST_REST: Final = 1.0
"""Seconds of the first ejection."""

_STATUSES: Final = frozenset({502, 503, 504})

_MOST_KIN: Final = 1024


class Gateways:
    """
    Tracks the responses of one cluster's agents.

    @ivar rows: the number of gateway errors in a row, by the first host of an agent; while
        there are any, all responses have to be reported.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.rows: dict[Host, int] = {}
        self._cluster = cluster
        self._limit = 0
        self._watches = False

    def configure(self, limit: int, watches: bool) -> None:
        """
        Apply another configuration.

        @param limit: the number of gateway errors in a row that ejects hosts; 0 for never.
        @param watches: whether all responses are reported anyway.
        """
        self._limit = limit
        self._watches = watches
        if not limit:
            self.rows.clear()
        self._cluster.watches_answers = watches or bool(self.rows)

    def note(self, host: Host, status: int) -> None:
        """Add the status of a response from an agent's host."""
        cluster, limit = self._cluster, self._limit
        if not limit or host.cluster is not cluster or host in cluster.ejector.ejected:
            return
        first = next(iter(host.same_agent), host)
        if status not in _STATUSES:
            self.rows.pop(first, None)
        else:
            row = self.rows.get(first, 0) + 1
            if row >= limit:
                row = limit - 1  # one more error is enough after the ejection
                reason = f"{limit} answers in a row were {status} or the like"
                for each in list(islice(host.same_agent, _MOST_KIN)) or [host]:
                    cluster.ejector.rest(each, FIRST_REST, reason)
            if row:
                self.rows[first] = row
        cluster.watches_answers = self._watches or bool(self.rows)

    def forget(self, host: Host) -> None:
        """Forget a host that has left the cluster."""
        if self.rows.pop(host, None) is not None:
            self._cluster.watches_answers = self._watches or bool(self.rows)
