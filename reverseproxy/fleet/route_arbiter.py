"""
Decides which agents get the routes that they ask for, in a whole fleet.

A server publishes a grant before it makes it, and waits until the directory reports the
record back (L{reverseproxy.fleet.grants}); if a conflicting record of another server was
there before, it withdraws its own.  Granted routes are installed at all servers.  They
are removed when no server has a record of them any more; each server keeps its record
for the grace time after the last of the agent's connections there.
"""

from __future__ import annotations

__all__ = ["FleetRouteArbiter"]

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.defer import TimeoutError as TooLate
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.expiry import ExpiryTimers
from reverseproxy.fleet.grant_requests import GrantRequest, candidates, record_of, satisfies
from reverseproxy.fleet.grants import GrantTable
from reverseproxy.fleet.interfaces import IRouteDirectory
from reverseproxy.fleet.records import RouteRecord
from reverseproxy.fleet.route_installer import RouteInstaller, describe, matches
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Denied
from reverseproxy.tunnel.server.route_interfaces import Wanted
from reverseproxy.wire.mosn.frames import Status

log = Logger()

DECIDE: Final = 5.0
"""
Seconds to wait for the directory's reports of one request for routes, for all ports together.

This is less than the supervisor of several workers waits for the decision
(L{DECISION_TIMEOUT<reverseproxy.workers.route_arbiter.DECISION_TIMEOUT>}).
"""


class FleetRouteArbiter:
    """An L{IRouteArbiter<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter>} for a whole fleet."""

    def __init__(
        self,
        directory: IRouteDirectory,
        routes_of: Callable[[str], AgentRoutes | None],
        clock: IReactorTime,
        objection: Callable[[RouteRecord], str] = lambda record: "",
        linked: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """
        @param routes_of: as for L{RouteInstaller}, as is C{objection}.
        @param linked: returns whether there is a link to a server, which has proved its identity: routes of
            other servers are not installed, as anybody who can write to the store may have published
            them; see L{review}.
        """
        self._directory = directory
        self._clock = clock
        self._linked = linked
        self._installer = RouteInstaller(routes_of, objection)
        self._grants = GrantTable(directory, clock)
        self._held: dict[str, int] = {}  # connections that hold a claim here, by cluster
        self._requests: dict[str, GrantRequest] = {}  # requests that are being decided, by cluster
        self._timers = ExpiryTimers(clock, self._expired)
        self._retry: dict[str, None] = {}  # clusters with routes of other servers that are not installed
        self._orphans: dict[str, RouteRecord] = {}  # kept for the grace time: their server has disappeared
        directory.follow_routes(self._on_remote_record, self._on_own_record, self._grants.lease_lost)

    # IRouteArbiter

    def ask(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """See L{IRouteArbiter.ask<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter.ask>}."""
        cluster = wanted.claim.cluster
        request = self._requests.get(cluster)
        if request is not None:
            # Usually another connection of the same agent, which then checks what was granted.
            return request.add(listener, wanted)
        request = self._requests[cluster] = GrantRequest(listener, wanted)
        answer = request.add(listener, wanted)
        # Not cancelled with the connection that asks: others may have joined the request.
        Deferred.fromCoroutine(self._decide(listener, wanted)).addBoth(self._answer, cluster)
        return answer

    def _answer(self, result: Denied | Failure | None, cluster: str) -> None:
        if isinstance(result, Failure):  # an error in this program
            self._grants.abandon(cluster)
        self._requests.pop(cluster).answer(result)

    async def _decide(self, listener: str, wanted: Wanted) -> Denied | None:
        cluster = wanted.claim.cluster
        until = self._clock.seconds() + DECIDE
        known = self._grants.find(cluster)
        if known is not None:
            # Granted to a connection that is gone meanwhile, or held at another listener.
            if satisfies(known, listener, wanted):
                return await self._grant(known, until)
            return Denied(Status.ROUTE_TAKEN, f"the cluster {cluster} has other routes at this server")
        problem = Denied(Status.ROUTE_TAKEN, "all ports that its identity may have are taken")
        for record in candidates(self._directory.server_id, listener, wanted):
            denied = await self._grant(record, until)
            if denied is None:
                return None
            problem = denied
            if self._conflicts_beyond_port(record) or self._clock.seconds() >= until:
                break
        return problem

    def _conflicts_beyond_port(self, record: RouteRecord) -> bool:
        """Return whether a record would conflict with those of other servers with any other port, too."""
        return any(
            each.cluster == record.cluster or not set(each.domains).isdisjoint(record.domains)
            for each in self._directory.routes.values()
            if each.conflicts(record)
        )

    async def _grant(self, record: RouteRecord, until: float) -> Denied | None:
        cluster = record.cluster
        denied = None if self._grants.is_confirmed(record) else await self._propose(record, until)
        denied = denied or self._install(record, remote=False)
        if denied is not None:
            self._grants.withdraw(cluster)
            if held := self._held.get(cluster):
                # Another server has been granted the same meanwhile, and a connection here holds it.
                self.hold(cluster, held, self._installer.grace(record))
            return denied
        self._grants.confirm(cluster)
        self._timers.later(cluster, self._installer.grace(record))
        log.info(
            "{owner} has brought the cluster {cluster} with {routes} to the fleet",
            owner=record.shown,
            cluster=cluster,
            routes=describe(record),
        )
        return None

    async def _propose(self, record: RouteRecord, until: float) -> Denied | None:
        try:
            other = await self._grants.propose(record, until)
        except TooLate:
            return Denied(
                Status.ROUTE_TAKEN, "the directory of the fleet can't be reached, so that nothing is decided"
            )
        if other is not None:
            return Denied(Status.ROUTE_TAKEN, f"it is had by the cluster {other.cluster}, at {other.server}")
        return None

    def count(self, claim: Claim, change: int, grace: float) -> None:
        """See L{IRouteArbiter.count<reverseproxy.tunnel.server.route_interfaces.IRouteArbiter.count>}."""
        self.hold(claim.cluster, max(self._held.get(claim.cluster, 0) + change, 0), grace)

    def hold(self, cluster: str, held: int, grace: float) -> None:
        """
        Set how many connections hold a claim at this server.

        @param grace: seconds after which the routes expire, if there are none.
        """
        self._held[cluster] = held
        if not held:
            self._timers.later(cluster, grace)
            return
        self._timers.cancel(cluster)
        if cluster not in self._grants:
            record = self._installed_record(cluster)
            self._orphans.pop(cluster, None)
            if record is not None:
                self._grants.publish(replace(record, server=self._directory.server_id))

    def _installed_record(self, cluster: str) -> RouteRecord | None:
        """Return the record of another server, or an orphaned one, whose routes are installed here."""
        orphan = self._orphans.get(cluster)
        for record in (*self._remote(cluster), *([] if orphan is None else [orphan])):
            if self._installer.has(record):
                return record
        return None

    # the process that takes over

    def bequeath(self, claim: Mapping[str, Any]) -> dict[str, Any] | None:
        """
        Return a claim as JSON for L{inherit}, in the process that replaces this one.

        @param claim: as L{AgentRoutes.bequeath} returns it.
        @return: L{None} if another server has granted it, from which the other process learns of it.
        """
        record = self._grants.find(claim["cluster"])
        if record is None:
            return None
        identity = record.identity
        return {**claim, "identity": None if identity is None else identity.to_json()}

    def inherit(self, claims: Iterable[Mapping[str, Any]]) -> None:
        """
        Restore the routes that the process before this one has granted, for the grace time, until their
        agents are back.

        Call it before the directory is started.
        """
        for claim in claims:
            record = record_of(self._directory.server_id, claim)
            denied = self._install(record, remote=True)
            if denied is None:
                self.adopt(record, 0, self._installer.grace(record))
                continue
            log.warn(
                "the routes of cluster {cluster} are not handed on: {reason}",
                cluster=record.cluster,
                reason=denied.reason,
            )

    # for the worker that answers the supervisor

    def granted(self, cluster: str) -> RouteRecord | None:
        """Return what this server has granted to a cluster, or proposes to."""
        return self._grants.find(cluster)

    def adopt(self, record: RouteRecord, held: int, grace: float) -> None:
        """
        Take over a grant from the process that had it before this one.

        @param held: how many connections hold it at this server; with none, it expires.
        @param grace: seconds until then.
        """
        cluster = record.cluster
        self._held[cluster] = held
        if held:
            self._grants.publish(record)
        elif not any(self._remote(cluster)):
            self._orphans[cluster] = record
            self._timers.later(cluster, grace)

    def withdraw(self, cluster: str) -> None:
        """Withdraw a grant whose routes could not be installed."""
        self._held.pop(cluster, None)
        self._timers.cancel(cluster)
        self._grants.withdraw(cluster)

    def failed(self, cluster: str) -> None:
        """Retry later to install routes of another server, which has failed."""
        if any(self._remote(cluster)):
            self._retry[cluster] = None

    def made(self, cluster: str, listener: str) -> None:
        """Compare routes of another server that have just been installed with its present records."""
        self.settle(cluster, listener)
        for record in list(self._remote(cluster)):
            self._on_remote_record("came", record)

    # expiry

    def _expired(self, cluster: str) -> None:
        self._held.pop(cluster, None)
        orphan = self._orphans.pop(cluster, None)
        record = self._grants.find(cluster) or orphan
        self._grants.withdraw(cluster)
        if record is not None:
            self.settle(cluster, record.listener)
        self.review()

    def _remote(self, cluster: str) -> Iterator[RouteRecord]:
        return (each for each in self._directory.routes.values() if each.cluster == cluster)

    def settle(self, cluster: str, listener: str) -> None:
        """Remove the routes of a cluster that no server has a record of any more."""
        if cluster in self._grants or cluster in self._orphans:
            return
        remote = list(self._remote(cluster))
        if not remote:
            self._retry.pop(cluster, None)
        claim = self._installer.find(listener, cluster)
        if claim is None or any(each.listener == listener and matches(claim, each) for each in remote):
            return
        log.info(
            "the cluster {cluster} is gone with {routes}: its agent has come back nowhere, or with others",
            cluster=cluster,
            routes=describe(claim),
        )
        self._installer.remove(listener, cluster)

    def stop(self) -> None:
        """Cancel all timers."""
        self._timers.stop()

    # records in the directory

    def _on_own_record(self, record: RouteRecord, other: RouteRecord | None) -> None:
        """Take the directory's report of a record of this server; see L{GrantTable.reported}."""
        if not self._grants.reported(record, other) or other is None:
            return
        log.warn(
            "the routes of cluster {cluster} ({routes}) were given to cluster {other} at {server} while "
            "this server was not there: its agents lose them",
            cluster=record.cluster,
            routes=describe(record),
            other=other.cluster,
            server=other.server,
        )
        self._timers.cancel(record.cluster)
        self._grants.withdraw(record.cluster)
        self._installer.remove(record.listener, record.cluster)
        self._on_remote_record("came", other)

    def _on_remote_record(self, event: str, record: RouteRecord) -> None:
        """
        Follow a record of another server.

        @param event: C{"came"} or C{"left"}.
        """
        if event == "left":
            self._remote_left(record)
            return
        cluster = record.cluster
        if not self._linked(record.server):
            self._retry[cluster] = None
            return
        if not self._installer.objection(record):
            self._replace_orphan(cluster)
        if self._grants.precedes(record):
            # The other server will withdraw it.
            self._retry[cluster] = None
            return
        denied = self._install(record, remote=True)
        if denied is not None:
            self._retry[cluster] = None
            log.warn(
                "routes of cluster {cluster} of {owner}, brought to {server}, can't be made: {reason}",
                cluster=record.cluster,
                owner=record.shown,
                server=record.server,
                reason=denied.reason,
            )

    def _remote_left(self, record: RouteRecord) -> None:
        cluster = record.cluster
        alone = cluster not in self._grants and not any(self._remote(cluster))
        if alone and record.server not in self._directory.servers:
            # The server has disappeared without withdrawing it: its agent may come to another server.
            self._orphans[cluster] = record
            self._timers.later(cluster, self._installer.grace(record))
        self.settle(cluster, record.listener)
        self.review()

    def _replace_orphan(self, cluster: str) -> None:
        """Stop keeping an orphaned record: a server has a record of the cluster again."""
        orphan = self._orphans.pop(cluster, None)
        if orphan is not None and cluster not in self._grants:
            self._timers.cancel(cluster)
            self.settle(cluster, orphan.listener)

    def _install(self, record: RouteRecord, remote: bool) -> Denied | None:
        """Install the routes of a record, unless they are; see L{RouteInstaller.install}."""
        if self._installer.has(record):
            return None
        denied = self._installer.install(record, remote)
        if denied is None:
            self._retry.pop(record.cluster, None)
        return denied

    def judge_again(self) -> None:
        """Remove routes of other servers that this server's configuration does not allow any more."""
        for record in list(self._directory.routes.values()):
            cluster = record.cluster
            if cluster in self._grants or not self._installer.has(record):
                continue
            objection = self._installer.objection(record)
            if objection and not self._is_allowed_elsewhere(record):
                self._retry[cluster] = None
                self._installer.remove(record.listener, cluster)
                log.warn(
                    "routes of cluster {cluster} of {owner}, brought to {server}, are taken away: {reason}",
                    cluster=cluster,
                    owner=record.shown,
                    server=record.server,
                    reason=objection,
                )
        self.review()

    def _is_allowed_elsewhere(self, record: RouteRecord) -> bool:
        """Return whether any server has a record of the same routes to which there is no objection."""
        return any(
            not each.conflicts(record) and not self._installer.objection(each)
            for each in self._remote(record.cluster)
        )

    def review(self) -> None:
        """
        Retry to install the routes of other servers that could not be installed.

        To be called when the configuration has changed, routes were removed, or there is a link to
        another server.
        """
        if not self._retry:
            return
        waiting: dict[str, list[RouteRecord]] = {cluster: [] for cluster in self._retry}
        self._retry.clear()
        for record in self._directory.routes.values():
            if record.cluster in waiting:
                waiting[record.cluster].append(record)
        for cluster, records in waiting.items():
            if records and all(map(self._is_denied, records)):
                self._retry[cluster] = None

    def _is_denied(self, record: RouteRecord) -> bool:
        if not self._linked(record.server) or self._grants.precedes(record):
            return True
        return self._install(record, remote=True) is not None
