"""
Routes that agents bring, in a whole fleet: who gets them, and that every server has them.

A server that would grant routes publishes that, and waits until the directory has told
it so itself: all that was published before is known then, so that of two servers which
would grant the same to different agents, at the same moment, the one goes on that was
first in the directory, and the other one withdraws.  What is granted is made at all
servers.  It is gone when no server has it any more; each keeps it for the grace time
after the last connection that holds it there.
"""

from __future__ import annotations

__all__ = ["FleetRouteArbiter", "IRouteDirectory"]

from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from itertools import count
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.expiry import ExpiryTimers
from reverseproxy.fleet.grant_requests import GrantRequest, candidates, satisfies
from reverseproxy.fleet.records import RouteKey, RouteRecord, ServerRecord
from reverseproxy.tunnel.server.agent_routes import AgentRoutes, Wanted
from reverseproxy.tunnel.server.claims import Claim, Denied
from reverseproxy.wire.mosn.frames import Status

log = Logger()

DECIDE: Final = 5.0
"""
Seconds that the directory has to tell that something has been published, for all ports together.

Fewer than the supervisor of several workers waits for all of it
(L{TURN_TIMEOUT<reverseproxy.workers.route_desk.TURN_TIMEOUT>}).
"""


class IRouteDirectory(Protocol):
    """What is needed of the directory."""

    @property
    def server_id(self) -> str:
        """What this server is called."""

    @property
    def servers(self) -> Mapping[str, ServerRecord]:
        """The other servers."""

    @property
    def routes(self) -> Mapping[RouteKey, RouteRecord]:
        """The routes that agents have brought to other servers."""

    def publish_routes(self, record: RouteRecord) -> None:
        """Say that this server has some."""

    def withdraw_routes(self, cluster: str) -> None:
        """Say that it has them no more."""

    def follow_routes(
        self,
        told: Callable[[str, RouteRecord], object],
        own: Callable[[RouteRecord, RouteRecord | None], object],
        lost: Callable[[], object],
    ) -> None:
        """Be told of them."""


class FleetRouteArbiter:
    """An L{IRouteArbiter<reverseproxy.tunnel.server.agent_routes.IRouteArbiter>} for a whole fleet."""

    def __init__(
        self,
        directory: IRouteDirectory,
        routes_of: Callable[[str], AgentRoutes | None],
        clock: IReactorTime,
        objection: Callable[[RouteRecord], str] = lambda record: "",
        linked: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """
        @param routes_of: finds the routes of a tunnel listener, if agents may bring some there.
        @param objection: says why an agent of another server may not have its routes here, whatever
            that one thinks; empty if it may.
        @param linked: whether there is a link to a server, which has proved to be it: nothing is made here
            of what somebody says in its name before; see L{review}.
        """
        self._directory = directory
        self._routes_of = routes_of
        self._clock = clock
        self._objection = objection
        self._linked = linked
        self._serials = count(1)
        self._own: dict[str, RouteRecord] = {}
        self._confirmed: set[str] = set()
        self._held: dict[str, int] = {}
        self._pending: dict[str, Deferred[RouteRecord | None]] = {}
        self._asking: dict[str, GrantRequest] = {}  # what is being decided, by cluster
        self._ends = ExpiryTimers(clock, self._end)
        self._waiting: dict[str, None] = {}  # clusters whose routes could not be made here yet
        self._gone: dict[str, RouteRecord] = {}  # what stays for a while, as its servers are gone
        directory.follow_routes(self._told, self._own_is_there, self._confirmed.clear)

    # IRouteDesk

    def ask(self, listener: str, wanted: Wanted) -> Deferred[Denied | None]:
        """See L{IRouteArbiter.ask<reverseproxy.tunnel.server.agent_routes.IRouteArbiter.ask>}."""
        cluster = wanted.claim.cluster
        question = self._asking.get(cluster)
        if question is not None:
            # Another connection of the same agent, mostly: who asks looks at what has come of it.
            return question.add(listener, wanted)
        question = self._asking[cluster] = GrantRequest(listener, wanted)
        answer = question.add(listener, wanted)
        # Whoever asks may go away, but others may wait for the same: it is decided all the same.
        Deferred.fromCoroutine(self._decide(listener, wanted)).addBoth(self._answer, cluster)
        return answer

    def _answer(self, result: Denied | Failure | None, cluster: str) -> None:
        if isinstance(result, Failure):  # a mistake of ours leaves nothing behind
            self._pending.pop(cluster, None)
            self._withdraw(cluster)
        self._asking.pop(cluster).answer(result)

    async def _decide(self, listener: str, wanted: Wanted) -> Denied | None:
        cluster = wanted.claim.cluster
        until = self._clock.seconds() + DECIDE
        known = self._own.get(cluster)
        if known is not None:
            # Granted a moment ago, to somebody who waits for it no more; or had at another listener.
            if satisfies(known, listener, wanted):
                return await self._try(known, until)
            return Denied(Status.ROUTE_TAKEN, f"the cluster {cluster} has other routes at this server")
        problem = Denied(Status.ROUTE_TAKEN, "all ports that its identity may have are taken")
        for record in candidates(self._directory.server_id, listener, wanted):
            denied = await self._try(record, until)
            if denied is None:
                return None
            problem = denied
            if self._is_about_more(record) or self._clock.seconds() >= until:
                break
        return problem

    def _is_about_more(self, record: RouteRecord) -> bool:
        """Whether another port would make no difference."""
        return any(
            each.cluster == record.cluster or not set(each.domains).isdisjoint(record.domains)
            for each in self._directory.routes.values()
            if each.conflicts(record)
        )

    async def _try(self, record: RouteRecord, until: float) -> Denied | None:
        cluster = record.cluster
        denied = None if self._has(record) else await self._publish(record, until)
        denied = denied or self._bring(record, again=False)
        if denied is not None:
            self._withdraw(cluster)
            if held := self._held.get(cluster):
                # What another server has been granted meanwhile has a connection here already.
                self.hold(cluster, held, self._grace(record))
            return denied
        self._confirmed.add(cluster)
        self._ends.later(cluster, self._grace(record))
        log.info(
            "{owner} has brought the cluster {cluster} with {routes} to the fleet",
            owner=record.shown,
            cluster=cluster,
            routes=_shown(record),
        )
        return None

    async def _publish(self, record: RouteRecord, until: float) -> Denied | None:
        """Have the directory say whether a record may stay there."""
        cluster = record.cluster
        deciding: Deferred[RouteRecord | None] = Deferred()
        self._pending[cluster] = deciding
        self._own[cluster] = record
        deciding.addTimeout(max(until - self._clock.seconds(), 0.0), self._clock)
        self._directory.publish_routes(record)
        try:
            other = await deciding
        except Exception:
            return Denied(
                Status.ROUTE_TAKEN, "the directory of the fleet can't be reached, so that nothing is decided"
            )
        finally:
            self._pending.pop(cluster, None)
        if other is not None:
            return Denied(Status.ROUTE_TAKEN, f"it is had by the cluster {other.cluster}, at {other.server}")
        return None

    def _has(self, record: RouteRecord) -> bool:
        """Whether the directory has said already that this server has it."""
        return record.cluster in self._confirmed and self._own.get(record.cluster) == record

    def count(self, claim: Claim, change: int, grace: float) -> None:
        """See L{IRouteArbiter.count<reverseproxy.tunnel.server.agent_routes.IRouteArbiter.count>}."""
        self.hold(claim.cluster, max(self._held.get(claim.cluster, 0) + change, 0), grace)

    def hold(self, cluster: str, held: int, grace: float) -> None:
        """
        Say how many connections hold a claim here.

        @param grace: as in L{count}.
        """
        self._held[cluster] = held
        if held:
            self._ends.cancel(cluster)
            if cluster not in self._own:
                record = self._made(cluster)
                self._gone.pop(cluster, None)
                if record is not None:
                    self._own[cluster] = record = _of(record, self._directory.server_id)
                    self._directory.publish_routes(record)
        else:
            self._ends.later(cluster, grace)

    def _made(self, cluster: str) -> RouteRecord | None:
        """What has been made here of a cluster of another server, as that one has said it."""
        gone = self._gone.get(cluster)
        for record in (*self._others(cluster), *([] if gone is None else [gone])):
            routes = self._routes_of(record.listener)
            claim = None if routes is None else routes.claims.find(cluster)
            if claim is not None and _is(claim, record):
                return record
        return None

    def granted(self, cluster: str) -> RouteRecord | None:
        """What the fleet has granted to a cluster of this server."""
        return self._own.get(cluster)

    def adopt(self, record: RouteRecord, held: int, grace: float) -> None:
        """
        Go on with what there was before this process knew of the fleet.

        @param held: how many connections hold it here; if there are none, others may have it.
        """
        cluster = record.cluster
        self._held[cluster] = held
        if held:
            self._own[cluster] = record
            self._directory.publish_routes(record)
        elif not any(self._others(cluster)):
            self._gone[cluster] = record
            self._ends.later(cluster, grace)

    def withdraw(self, cluster: str) -> None:
        """What has been granted could not be made here."""
        self._held.pop(cluster, None)
        self._ends.cancel(cluster)
        self._withdraw(cluster)

    def failed(self, cluster: str) -> None:
        """Routes of another server could not be made here: try again when something is different."""
        if any(self._others(cluster)):
            self._waiting[cluster] = None

    def made(self, cluster: str, listener: str) -> None:
        """Routes of another server are here: it may have other ones by now, or none."""
        self.settle(cluster, listener)
        for record in list(self._others(cluster)):
            self._told("came", record)

    # when they end

    def _grace(self, record: RouteRecord) -> float:
        routes = self._routes_of(record.listener)
        return 0.0 if routes is None else routes.claims.rules.grace

    def _end(self, cluster: str) -> None:
        self._held.pop(cluster, None)
        record = self._own.get(cluster, self._gone.pop(cluster, None))
        self._withdraw(cluster)
        if record is not None:
            self.settle(cluster, record.listener)
        self.review()

    def _withdraw(self, cluster: str) -> None:
        self._confirmed.discard(cluster)
        if self._own.pop(cluster, None) is not None:
            self._directory.withdraw_routes(cluster)

    def _others(self, cluster: str) -> Iterator[RouteRecord]:
        return (each for each in self._directory.routes.values() if each.cluster == cluster)

    def settle(self, cluster: str, listener: str) -> None:
        """Take routes away that nobody has any more, or not like that."""
        if cluster in self._own or cluster in self._gone:
            return
        others = list(self._others(cluster))
        if not others:
            self._waiting.pop(cluster, None)
        routes = self._routes_of(listener)
        claim = None if routes is None else routes.claims.find(cluster)
        if routes is None or claim is None:
            return
        if any(each.listener == listener and _is(claim, each) for each in others):
            return
        log.info(
            "the cluster {cluster} is gone with {routes}: its agent has come back nowhere, or with others",
            cluster=cluster,
            routes=_shown(claim),
        )
        routes.take_away(cluster, claim.serial)

    def stop(self) -> None:
        """Nothing ends any more by itself."""
        self._ends.stop()

    # what the directory tells

    def _own_is_there(self, record: RouteRecord, other: RouteRecord | None) -> None:
        """Routes of this server are in the directory; C{other} conflicts, and was there before."""
        cluster = record.cluster
        if self._own.get(cluster) != record:
            return
        deciding = self._pending.get(cluster)
        if deciding is not None:
            if not deciding.called:
                if other is None:
                    self._confirmed.add(cluster)
                # What is told of in the same message is made before it goes on.
                self._clock.callLater(0, self._decided, deciding, other)
        elif other is None:
            self._confirmed.add(cluster)
        elif cluster not in self._confirmed:
            log.warn(
                "the routes of cluster {cluster} ({routes}) were given to cluster {other} at {server} while "
                "this server was not there: its agents lose them",
                cluster=cluster,
                routes=_shown(record),
                other=other.cluster,
                server=other.server,
            )
            self._lose(record, other)

    def _decided(self, deciding: Deferred[RouteRecord | None], other: RouteRecord | None) -> None:
        if not deciding.called:
            deciding.callback(other)

    def _lose(self, record: RouteRecord, other: RouteRecord) -> None:
        """Give up what another server has given to somebody else."""
        cluster = record.cluster
        self._ends.cancel(cluster)
        self._withdraw(cluster)
        routes = self._routes_of(record.listener)
        claim = None if routes is None else routes.claims.find(cluster)
        if routes is not None and claim is not None:
            routes.take_away(cluster, claim.serial)
        self._told("came", other)

    def _told(self, what: str, record: RouteRecord) -> None:
        """Another server has routes, or has them no more."""
        cluster = record.cluster
        if what == "left":
            alone = cluster not in self._own and not any(self._others(cluster))
            if alone and record.server not in self._directory.servers:
                # Nobody has taken that back: the agent is on its way to another server.
                self._gone[cluster] = record
                self._ends.later(cluster, self._grace(record))
            self.settle(cluster, record.listener)
            self.review()
            return
        if not self._linked(record.server):
            self._waiting[cluster] = None
            return
        if not self._objection(record):
            self._back(cluster)
        if self._was_second(record):
            # Its server withdraws it.
            self._waiting[cluster] = None
            return
        denied = self._bring(record, again=True)
        if denied is not None:
            self._waiting[cluster] = None
            log.warn(
                "routes of cluster {cluster} of {owner}, brought to {server}, can't be made: {reason}",
                cluster=record.cluster,
                owner=record.shown,
                server=record.server,
                reason=denied.reason,
            )

    def _back(self, cluster: str) -> None:
        """What has stayed for an agent that was on its way is another server's now, if that has the same."""
        gone = self._gone.pop(cluster, None)
        if gone is not None and cluster not in self._own:
            self._ends.cancel(cluster)
            self.settle(cluster, gone.listener)

    def _was_second(self, record: RouteRecord) -> bool:
        """Whether routes of another server conflict with some that this one has had before."""
        return any(self._own[each].conflicts(record) for each in self._confirmed if each in self._own)

    def _bring(self, record: RouteRecord, again: bool) -> Denied | None:
        """
        Make routes here.

        @param again: whether another server has decided that.
        """
        routes = self._routes_of(record.listener)
        if routes is None:
            return Denied(Status.ROUTE_FORBIDDEN, f"agents may bring none to the listener {record.listener}")
        known = routes.claims.find(record.cluster)
        if known is not None:
            if _is(known, record):
                return None
            return Denied(
                Status.ROUTE_TAKEN, f"{record.cluster} is another agent's, or has other routes, here"
            )
        objection = self._objection(record) if again else ""
        if objection:
            return Denied(Status.ROUTE_FORBIDDEN, objection)
        claim = Claim(record.cluster, record.owner, record.domains, record.port, serial=next(self._serials))
        denied = routes.claims.find_problem(claim) if again else None
        if record.port is not None and not routes.claims.rules.ports.permits_port(record.port):
            denied = Denied(Status.ROUTE_FORBIDDEN, f"agents may not have the port {record.port} here")
        denied = denied or routes.bring(claim, record.shown, None, again)
        if denied is None:
            self._waiting.pop(record.cluster, None)
        return denied

    def judge_again(self) -> None:
        """What agents may have here may be different now: see to what those of other servers have brought."""
        for record in list(self._directory.routes.values()):
            cluster = record.cluster
            routes = self._routes_of(record.listener)
            claim = None if routes is None else routes.claims.find(cluster)
            if routes is None or claim is None or cluster in self._own or not _is(claim, record):
                continue
            objection = self._objection(record)
            if objection and not self._is_granted(claim):
                self._waiting[cluster] = None
                routes.take_away(cluster, claim.serial)
                log.warn(
                    "routes of cluster {cluster} of {owner}, brought to {server}, are taken away: {reason}",
                    cluster=cluster,
                    owner=record.shown,
                    server=record.server,
                    reason=objection,
                )
        self.review()

    def _is_granted(self, claim: Claim) -> bool:
        """Whether any other server has just these routes, and may have them."""
        return any(_is(claim, each) and not self._objection(each) for each in self._others(claim.cluster))

    def review(self) -> None:
        """
        Try again what could not be made here.

        The configuration is another one, somebody has gone, or there is a link to another server.
        """
        if not self._waiting:
            return
        waiting: dict[str, list[RouteRecord]] = {cluster: [] for cluster in self._waiting}
        self._waiting.clear()
        for record in self._directory.routes.values():
            if record.cluster in waiting:
                waiting[record.cluster].append(record)
        for cluster, records in waiting.items():
            if records and all(map(self._is_denied, records)):
                self._waiting[cluster] = None

    def _is_denied(self, record: RouteRecord) -> bool:
        if not self._linked(record.server) or self._was_second(record):
            return True
        return self._bring(record, again=True) is not None


def _is(claim: Claim, record: RouteRecord) -> bool:
    """Whether a claim is what another server has granted."""
    return (claim.owner, claim.port, set(claim.domains)) == (record.owner, record.port, set(record.domains))


def _of(record: RouteRecord, server: str) -> RouteRecord:
    """The same at another server."""
    return replace(record, server=server)


def _shown(routes: RouteRecord | Claim) -> str:
    """Routes for people."""
    found: list[Any] = list(routes.domains)
    if routes.port is not None:
        found.append(f"port {routes.port}")
    return ", ".join(map(str, found)) or "nothing"
