"""
Agents that answer for services that are gone.

MOSN's agents don't say that they have not sent a request on: they answer it, with
a status that gateways have.  Several of these in a row, from all connections of
an agent together, have its hosts left out for a moment; one that goes on like
that for longer and longer.  The floor is that of L{reverseproxy.cluster.health.ejection}.
"""

from __future__ import annotations

__all__ = ["FIRST_REST", "Gateways"]

from itertools import islice
from typing import TYPE_CHECKING, Final

from reverseproxy.cluster.host import Host

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster

FIRST_REST: Final = 1.0
"""Seconds for which hosts are left out the first time."""

_STATUSES: Final = frozenset({502, 503, 504})

_MOST_KIN: Final = 1024


class Gateways:
    """
    Follows the answers of one cluster's agents.

    @ivar rows: how many such answers there were in a row, by the first host of an
        agent; as long as there are any, all answers are to be told.
    """

    def __init__(self, cluster: Cluster) -> None:
        self.rows: dict[Host, int] = {}
        self._cluster = cluster
        self._limit = 0
        self._watches = False

    def configure(self, limit: int, watches: bool) -> None:
        """
        Go by this from now on.

        @param limit: after how many such answers hosts are left out; 0 for never.
        @param watches: whether all answers are to be told anyhow.
        """
        self._limit = limit
        self._watches = watches
        if not limit:
            self.rows.clear()
        self._cluster.watches_answers = watches or bool(self.rows)

    def note(self, host: Host, status: int) -> None:
        """Take in a status that an agent's host has answered with."""
        cluster, limit = self._cluster, self._limit
        if not limit or host.cluster is not cluster or host in cluster.ejector.ejected:
            return
        first = next(iter(host.same_agent), host)
        if status not in _STATUSES:
            self.rows.pop(first, None)
        else:
            row = self.rows.get(first, 0) + 1
            if row >= limit:
                row = limit - 1  # when it is let in again, one is enough
                reason = f"{limit} answers in a row were {status} or the like"
                for each in list(islice(host.same_agent, _MOST_KIN)) or [host]:
                    cluster.ejector.rest(each, FIRST_REST, reason)
            if row:
                self.rows[first] = row
        cluster.watches_answers = self._watches or bool(self.rows)

    def forget(self, host: Host) -> None:
        """A host has left the cluster."""
        if self.rows.pop(host, None) is not None:
            self._cluster.watches_answers = self._watches or bool(self.rows)
