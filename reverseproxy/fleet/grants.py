"""Routes that this server has granted, or proposes to grant, and what the directory says about them."""

from __future__ import annotations

__all__ = ["GrantTable"]

from collections.abc import Iterator
from dataclasses import dataclass

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from reverseproxy.fleet.interfaces import IRouteDirectory
from reverseproxy.fleet.records import RouteRecord


@dataclass(slots=True)
class _Grant:
    """
    Routes that this server publishes.

    @ivar confirmed: whether the directory has reported the record back without a conflicting older one.
    """

    record: RouteRecord
    confirmed: bool = False


class GrantTable:
    """
    This server's grants, at most one for each cluster.

    A proposal is published like a grant.  The directory reports it back together with a conflicting
    record of another server that was there before, if there is one; all records that were published
    earlier are known by then, so that of two servers that propose conflicting grants exactly one gets it.
    """

    def __init__(self, directory: IRouteDirectory, clock: IReactorTime) -> None:
        self._directory = directory
        self._clock = clock
        self._grants: dict[str, _Grant] = {}
        self._decisions: dict[str, Deferred[RouteRecord | None]] = {}

    def __contains__(self, cluster: str) -> bool:
        return cluster in self._grants

    def find(self, cluster: str) -> RouteRecord | None:
        """Return the record of a cluster; L{None} if this server publishes none."""
        grant = self._grants.get(cluster)
        return None if grant is None else grant.record

    def is_confirmed(self, record: RouteRecord) -> bool:
        """Return whether the directory has confirmed exactly this record."""
        grant = self._grants.get(record.cluster)
        return grant is not None and grant.confirmed and grant.record == record

    def _confirmed(self) -> Iterator[RouteRecord]:
        return (grant.record for grant in self._grants.values() if grant.confirmed)

    def precedes(self, record: RouteRecord) -> bool:
        """Return whether a confirmed grant of this server conflicts with a record of another server."""
        return any(each.conflicts(record) for each in self._confirmed())

    def publish(self, record: RouteRecord) -> None:
        """Publish a record without waiting for the directory."""
        self._enter(record)
        self._directory.publish_routes(record)

    def _enter(self, record: RouteRecord) -> None:
        known = self._grants.get(record.cluster)
        self._grants[record.cluster] = _Grant(record, known is not None and known.confirmed)

    async def propose(self, record: RouteRecord, until: float) -> RouteRecord | None:
        """
        Publish a record, and wait until the directory reports it back.

        @param until: when to give up, in seconds of the clock.
        @return: the conflicting record of another server that was there before; L{None} if there is none.
        @raise TimeoutError: if the directory has not reported it by then; of L{twisted.internet.defer}.
        """
        cluster = record.cluster
        decision = self._decisions[cluster] = Deferred()
        self._enter(record)
        decision.addTimeout(max(until - self._clock.seconds(), 0.0), self._clock)
        self._directory.publish_routes(record)
        try:
            return await decision
        finally:
            self._decisions.pop(cluster, None)

    def reported(self, record: RouteRecord, other: RouteRecord | None) -> bool:
        """
        Take the directory's report of a record of this server.

        @param other: a conflicting record of another server that was there before.
        @return: whether the grant is lost to the other server, so that it has to be given up.
        """
        cluster = record.cluster
        grant = self._grants.get(cluster)
        if grant is None or grant.record != record:
            return False
        decision = self._decisions.get(cluster)
        if decision is None:
            lost = other is not None and not grant.confirmed
            grant.confirmed = grant.confirmed or other is None
            return lost
        if not decision.called:
            grant.confirmed = grant.confirmed or other is None
            # The other records of the same report are taken in first.
            self._clock.callLater(0, self._decide, decision, other)
        return False

    def _decide(self, decision: Deferred[RouteRecord | None], other: RouteRecord | None) -> None:
        if not decision.called:
            decision.callback(other)

    def confirm(self, cluster: str) -> None:
        """Mark a grant as confirmed."""
        if cluster in self._grants:
            self._grants[cluster].confirmed = True

    def withdraw(self, cluster: str) -> None:
        """Withdraw the record of a cluster, if there is one."""
        if self._grants.pop(cluster, None) is not None:
            self._directory.withdraw_routes(cluster)

    def abandon(self, cluster: str) -> None:
        """Withdraw the record of a cluster, and wait for the directory's report no more."""
        self._decisions.pop(cluster, None)
        self.withdraw(cluster)

    def lease_lost(self) -> None:
        """Treat no grant as confirmed: the lease has ended, and other servers may have got the same."""
        for grant in self._grants.values():
            grant.confirmed = False
