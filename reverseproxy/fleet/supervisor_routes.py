"""
Decides about agents' routes for a server with several workers: the part of the first worker.

Only the first worker knows the fleet; the supervisor installs granted routes at all workers.
L{reverseproxy.workers.fleet_routes} describes the messages between the two.
"""

from __future__ import annotations

__all__ = ["SupervisorRoutes"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Protocol

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.fleet.grant_requests import record_of, satisfies
from reverseproxy.fleet.interfaces import IRouteDirectory
from reverseproxy.fleet.records import RouteRecord
from reverseproxy.fleet.route_arbiter import FleetRouteArbiter
from reverseproxy.identity import AgentIdentity
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claim, Denied, Rules
from reverseproxy.tunnel.server.route_interfaces import Wanted
from reverseproxy.wire.mosn.frames import Status

log = Logger()

Message = dict[str, Any]


class _IClaims(Protocol):
    """The part of a listener's claims that is used here."""

    rules: Rules

    def find(self, cluster: str) -> Claim | None:
        """Return the claim of a cluster."""

    def find_problem(self, claim: Claim) -> Denied | None:
        """Return why a claim can't be added; L{None} if it can."""


class _SharedClaims:
    """Claims that all workers have, or that the supervisor is about to add."""

    def __init__(self, claims: _IClaims, coming: Mapping[str, Claim], going: dict[str, Claim]) -> None:
        """
        @param coming: claims that the supervisor has been asked to add, by cluster; C{going}: to remove.
        """
        self._claims = claims
        self._coming = coming
        self._going = going
        self.rules = claims.rules

    def find(self, cluster: str) -> Claim | None:
        """Return the claim of a cluster, as it will be when the supervisor has done what it was asked for."""
        claim = self._claims.find(cluster)
        if claim is None or claim is self._going.get(cluster):
            return self._coming.get(cluster)
        return claim

    def find_problem(self, claim: Claim) -> Denied | None:
        """
        Return why a claim can't be added; while claims are being removed, leave it to the supervisor to
        find out.
        """
        for cluster, going in list(self._going.items()):
            if self._claims.find(cluster) is not going:
                del self._going[cluster]
        return None if self._going else self._claims.find_problem(claim)


class _SharedRoutes:
    """The routes of a listener at all workers, as the arbiter sees them."""

    def __init__(
        self,
        routes: AgentRoutes,
        listener: str,
        coming: dict[str, Claim],
        going: dict[str, Claim],
        doubtful: set[str],
        say: Callable[[Message], object],
    ) -> None:
        """
        @param doubtful: gets the clusters whose claims were requested while others were being removed:
            if they can't be added, that may be the reason.
        """
        self.claims = _SharedClaims(routes.claims, coming, going)
        self._routes = routes
        self._listener = listener
        self._coming = coming
        self._going = going
        self._doubtful = doubtful
        self._say = say

    def bring(self, claim: Claim, shown: str, listen: object, again: bool) -> Denied | None:
        """Have the supervisor install routes of another server; those of this one it installs by itself."""
        if again:
            self._coming[claim.cluster] = claim
            if self._going:
                self._doubtful.add(claim.cluster)
            ports = [] if claim.port is None else [[claim.port, self._routes.address_of(claim.port)]]
            self._say(
                {
                    "is": "fleet_bring",
                    "listener": self._listener,
                    "cluster": claim.cluster,
                    "owner": claim.owner,
                    "shown": shown,
                    "domains": list(claim.domains),
                    "ports": ports,
                    "grace": self.claims.rules.grace,
                }
            )
        return None

    def take_away(self, cluster: str, serial: int) -> None:
        """Have the supervisor remove routes at all workers."""
        self._coming.pop(cluster, None)
        self._doubtful.discard(cluster)
        claim = self._routes.claims.find(cluster)
        if claim is not None:
            self._going[cluster] = claim
        self._say({"is": "fleet_take_away", "listener": self._listener, "cluster": cluster})


class SupervisorRoutes:
    """
    Answers the supervisor's requests for routes.

    A grant is held until the supervisor reports how many connections hold it, once all workers have it,
    or that they can't install it. If the supervisor has meanwhile given up a request, and made another
    one for the same cluster, the grant belongs to the last request.

    @ivar arbiter: the arbiter that decides.
    """

    def __init__(
        self,
        directory: IRouteDirectory,
        routes_of: Callable[[str], AgentRoutes | None],
        clock: IReactorTime,
        objection: Callable[[RouteRecord], str],
        linked: Callable[[str], bool],
        worker: Any,
    ) -> None:
        """
        @param routes_of: as for L{FleetRouteArbiter}, as are C{objection} and C{linked}.
        @param worker: provides C{speak_for_fleet}.
        """
        self._directory = directory
        self._routes_of = routes_of
        self._coming: dict[str, Claim] = {}
        self._going: dict[str, dict[str, Claim]] = {}  # claims that are being removed, by listener
        self._doubtful: set[str] = set()
        self._asked: dict[str, int] = {}  # the serial of the last request, by cluster, until it is settled
        self._granted: set[str] = set()  # clusters whose last request has been granted
        self._say: Callable[[Message], object] = worker.speak_for_fleet(self.received)
        self.arbiter = FleetRouteArbiter(directory, self._shared, clock, objection, linked)

    def _shared(self, listener: str) -> Any:
        routes = self._routes_of(listener)
        if routes is None:
            return None
        going = self._going.setdefault(listener, {})
        return _SharedRoutes(routes, listener, self._coming, going, self._doubtful, self._say)

    def received(self, message: Message) -> None:
        """Process a message of the supervisor."""
        match message["do"]:
            case "fleet_ask":
                self._ask(message)
            case "fleet_withdraw":
                # A later request may have been granted the same routes.
                if self._asked.get(message["cluster"]) == message["serial"]:
                    self._give_up(message["cluster"])
            case "fleet_count":
                self._count(message)
            case "fleet_adopt":
                for claim in message["claims"]:
                    self._adopt(claim)
            case "fleet_brought":
                self._brought(message)

    def _adopt(self, claim: Message) -> None:
        """Take over a claim that other workers have, and this one is about to get."""
        record = record_of(self._directory.server_id, claim)
        self._coming[record.cluster] = Claim(record.cluster, record.owner, record.domains, record.port)
        self.arbiter.adopt(record, claim["held"], claim["grace"])

    def _brought(self, message: Message) -> None:
        """Process the result of installing routes of another server."""
        cluster = message["cluster"]
        doubtful = cluster in self._doubtful
        self._doubtful.discard(cluster)
        if not message["problem"]:
            routes = self._routes_of(message["listener"])
            if routes is not None and routes.claims.find(cluster) is not None:
                self._coming.pop(
                    cluster, None
                )  # otherwise only the other workers have it, as this one is about to stop
            self.arbiter.made(cluster, message["listener"])
            return
        self._coming.pop(cluster, None)
        self._give_up(cluster)  # connections that held an earlier installation hold nothing any more
        self.arbiter.failed(cluster)
        if doubtful:
            self.arbiter.review()  # the claims that were being removed are gone by now
            return
        log.warn(
            "routes of cluster {cluster} of another server can't be made: {reason}",
            cluster=cluster,
            reason=message["problem"],
        )

    def _count(self, message: Message) -> None:
        """Note how many connections hold a claim, now that all workers have it."""
        cluster = message["cluster"]
        self._settled(cluster)
        self.arbiter.hold(cluster, message["held"], message["grace"])
        self.arbiter.settle(cluster, message["listener"])

    def _give_up(self, cluster: str) -> None:
        self._settled(cluster)
        self.arbiter.withdraw(cluster)

    def _settled(self, cluster: str) -> None:
        self._asked.pop(cluster, None)
        self._granted.discard(cluster)

    def _ask(self, message: Message) -> None:
        ports = tuple((port, address) for port, address in message["ports"])
        identity = message["identity"]
        claim = Claim(message["cluster"], message["owner"], tuple(message["domains"]), 0 if ports else None)
        wanted = Wanted(
            claim,
            message["shown"],
            ports,
            None if identity is None else AgentIdentity.from_json(identity),
        )
        record = self.arbiter.granted(claim.cluster)
        if claim.cluster in self._granted and record and not satisfies(record, message["listener"], wanted):
            self._give_up(claim.cluster)  # no request waits for the former grant any more
        self._granted.discard(claim.cluster)
        self._asked[claim.cluster] = message["serial"]
        asking = self.arbiter.ask(message["listener"], wanted)
        asking.addErrback(self._failed, claim.cluster)
        asking.addCallback(partial(self._decided, message, wanted))
        asking.addErrback(lambda reason: log.failure("while the fleet was asked", reason))

    def _failed(self, reason: Failure, cluster: str) -> Denied:
        log.failure("while the fleet was asked", reason)
        self.arbiter.withdraw(cluster)
        return Denied(Status.ROUTE_TAKEN, "the fleet could not be asked")

    def _decided(self, message: Message, wanted: Wanted, denied: Denied | None) -> None:
        listener, cluster, serial = message["listener"], message["cluster"], message["serial"]
        if self._asked.get(cluster) != serial:
            return  # a later request gets the decision, or all workers have the routes by now
        told: Message = {"is": "fleet_decided", "serial": serial, "listener": listener, "cluster": cluster}
        record = self.arbiter.granted(cluster)
        if denied is None and (record is None or not satisfies(record, listener, wanted)):
            # It has waited for an earlier request, which was for other routes.
            denied = Denied(Status.ROUTE_TAKEN, f"the cluster {cluster} was given other routes")
            self.arbiter.withdraw(cluster)
        if denied is not None:
            del self._asked[cluster]
            told |= {"port": None, "status": denied.status.value, "problem": denied.reason}
        elif record is not None:
            self._granted.add(cluster)
            self.arbiter.hold(cluster, 1, 0.0)  # held for the supervisor until it reports the result
            told["port"] = record.port
        self._say(told)
