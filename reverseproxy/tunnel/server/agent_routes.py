"""
Routes that agents bring: requests for them, the claims that agents hold, and their end.

L{reverseproxy.tunnel.server.claims} decides. Everything that a claim needs is created before the agent
is accepted, and removed when the claim has ended, so that no request is ever routed to a cluster that
does not exist.

Where several workers serve, all of them have all claims, and an arbiter decides, one request after the
other: it has each worker create what a claim needs (L{AgentRoutes.bring}) and remove it again, and
counts the connections that hold it at all workers.
"""

from __future__ import annotations

__all__ = ["NO_ROUTES", "AgentRoutes"]

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.identity import AgentIdentity
from reverseproxy.identity.allowance import Allowance
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.listener import Listen
from reverseproxy.tunnel.handshake import Accepted, Refusal
from reverseproxy.tunnel.server.claims import Claim, Claims, Denied
from reverseproxy.tunnel.server.route_interfaces import IRouteArbiter, IRouteSurface, Wanted, owner_of
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger()


NO_ROUTES: Final = "this server takes no routes from agents"
"""The reason for refusing an agent's request for routes."""


class AgentRoutes:
    """
    The routes that the agents of one tunnel listener have brought.

    @ivar claims: the claims.
    @ivar router: the name of the router that gets the domains; empty if there is none.
    @ivar closed: whether agents may bring no more than they have.
    @ivar arbiter: the arbiter, if there are several workers or servers.
    @ivar listener: the listener's name, for the arbiter.
    """

    arbiter: IRouteArbiter | None = None
    listener = ""

    def __init__(
        self,
        claims: Claims,
        surface: IRouteSurface,
        clock: IReactorTime,
        certificates: Sequence[tuple[str, Allowance]] = (),
        router: str = "",
    ) -> None:
        """
        @param surface: creates what routes consist of.
        @param certificates: routes that certificates allow: a subject or an alternative name, and the
            allowance.
        @param router: the name of the router that gets domains.
        """
        self.claims = claims
        self.router = router
        self.closed = False
        self._surface = surface
        self._clock = clock
        self._certificates = certificates
        self._shown: dict[str, str] = {}  # owners as text, by cluster
        self._timer: IDelayedCall | None = None

    def take_over(self, newer: AgentRoutes | None) -> None:
        """
        Use the configuration of another one; existing claims stay.

        @param newer: L{None} if agents may bring nothing more.
        """
        self.closed = newer is None
        if newer is not None:
            self.claims.rules = newer.claims.rules
            self.router = newer.router
            self._certificates = newer._certificates
            self._surface.take_over(newer._surface)

    def concerns(self, accepted: Accepted) -> bool:
        """Return whether L{ask} is needed for a connection."""
        return bool(accepted.request) or self.claims.find(accepted.cluster) is not None

    async def ask(self, accepted: Accepted, info: ConnectionInfo) -> Claim | Refusal:
        """
        Decide about a connection that may join otherwise, and create what it needs.

        @return: the claim, which the connection holds from now on.
        """
        if self.closed and self.claims.find(accepted.cluster) is None:
            return Refusal(Status.ROUTE_FORBIDDEN, NO_ROUTES, told=NO_ROUTES)
        identity = accepted.identify(info)
        allowance = accepted.allowance | self._of_certificate(identity)
        verdict = self._judge(accepted, identity, allowance)
        if isinstance(verdict, Claim) and self.claims.find(accepted.cluster) is None:
            if self.arbiter is None:
                verdict = self._open(verdict, allowance, identity)
            else:
                denied = await self.arbiter.ask(self.listener, self._wanted(verdict, allowance, identity))
                verdict = denied or self._judge(accepted, identity, allowance)
                if isinstance(verdict, Claim) and self.claims.find(accepted.cluster) is None:
                    verdict = Denied(Status.ROUTE_TAKEN, "its routes have just been taken away")
        if isinstance(verdict, Denied):
            return Refusal(verdict.status, verdict.reason, told=verdict.reason)
        self._hold(verdict)
        return verdict

    def _judge(self, accepted: Accepted, identity: AgentIdentity, allowance: Allowance) -> Claim | Denied:
        return self.claims.judge(owner_of(identity), accepted.cluster, accepted.request, allowance)

    def _wanted(self, claim: Claim, allowance: Allowance, identity: AgentIdentity) -> Wanted:
        ports: list[int] = [] if claim.port is None else self.claims.candidates(claim, allowance)
        addresses = tuple((port, self._surface.address_of(port)) for port in ports)
        return Wanted(claim, identity.principal, addresses, identity)

    def hold(self, cluster: str) -> Claim | None:
        """Let a connection that another worker has accepted hold its cluster's claim, if there is one."""
        claim = self.claims.find(cluster)
        if claim is not None:
            self._hold(claim)
        return claim

    def _hold(self, claim: Claim) -> None:
        self.claims.hold(claim)
        if self.arbiter is not None:
            self.arbiter.count(claim, 1, self.claims.rules.grace)

    def judge_again(self, accepted: Accepted, info: ConnectionInfo) -> str:
        """
        Check whether a connection that holds a claim would still get it.

        @return: why not; empty if it would.
        """
        if self.claims.find(accepted.cluster) is None:
            return ""
        identity = accepted.identify(info)
        allowance = accepted.allowance | self._of_certificate(identity)
        verdict = self._judge(accepted, identity, allowance)
        return verdict.reason if isinstance(verdict, Denied) else ""

    def objection(
        self, identity: AgentIdentity, allowance: Allowance | None, domains: Sequence[str], port: int | None
    ) -> str:
        """
        Return why routes that an agent has brought to another server are not allowed here.

        @param allowance: what its credential allows here; L{None} if its validator does not know agents
            by their names, so that the other server's decision counts.
        @return: empty if they are allowed.
        """
        if allowance is None and identity.name:
            return ""  # nothing here knows what it may have
        allowed = (allowance or Allowance()) | self._of_certificate(identity)
        for domain in domains:
            if not allowed.permits_domain(domain):
                return f"{identity.principal} may not bring {domain} here"
        if port is not None and not allowed.permits_port(port):
            return f"{identity.principal} may not bring the port {port} here"
        return ""

    def let_go(self, claim: Claim) -> None:
        """Release a claim that a connection has held."""
        last = self.claims.let_go(claim, self._clock.seconds())
        if self.arbiter is not None:
            self.arbiter.count(claim, -1, self.claims.rules.grace)
        elif last:
            self._set_timer()

    # decisions of the arbiter

    def bring(self, claim: Claim, shown: str, listen: Listen | None, again: bool) -> Denied | None:
        """
        Create what a claim needs that was granted for all workers.

        @param shown: the owner as text.
        @param listen: listens at its port, if it has one; L{None} to bind it here.
        @param again: whether it was granted before, and this worker is new.
        @return: why that is not possible.
        """
        denied = None if again else self.claims.find_problem(claim)
        if self.closed and not again:
            denied = Denied(Status.ROUTE_FORBIDDEN, NO_ROUTES)
        if denied is None:
            undo: list[Any] = []
            try:
                self._make(claim, undo)
                if claim.port is not None:
                    self._surface.open_port(claim.port, claim.cluster, listen)
                    undo.append((self._surface.close_port, claim.port))
                self.claims.open(claim)
            except ValueError as error:
                denied = self._undo(undo, error)
            else:
                self._shown[claim.cluster] = shown
                if again:
                    self._surface.expect_host(claim.cluster, self.claims.rules.grace)
        return denied

    def address_of(self, port: int) -> str:
        """Return the address at which a port would be opened."""
        return self._surface.address_of(port)

    def take_away(self, cluster: str, serial: int) -> None:
        """
        Remove a claim that has ended, or could not be created at all workers.

        @param serial: of the claim; another one of the cluster stays.
        """
        claim = self.claims.find(cluster)
        if claim is not None and claim.serial == serial:
            self.claims.remove(claim)
            self._unmake(claim)

    def bequeath(self, listener: str) -> Iterator[dict[str, Any]]:
        """
        Return all claims as JSON for L{inherit}, in the process that replaces this one.

        @param listener: the tunnel listener's name.
        """
        for claim in self.claims:
            yield {
                "listener": listener,
                "cluster": claim.cluster,
                "owner": claim.owner,
                "shown": self._shown[claim.cluster],
                "domains": list(claim.domains),
                "port": claim.port,
                "address": "" if claim.port is None else self._surface.address_of(claim.port),
                "grace": self.claims.rules.grace,
            }

    def inherit(self, claims: Iterable[Mapping[str, Any]]) -> None:
        """
        Restore the claims of the process before this one, for the grace time, until their agents are
        back.
        """
        for facts in claims:
            claim = Claim(facts["cluster"], facts["owner"], tuple(facts["domains"]), facts["port"])
            denied = self.bring(claim, facts["shown"], None, again=False)
            if denied is not None:
                log.warn(
                    "the routes of cluster {cluster} are not handed on: {reason}",
                    cluster=claim.cluster,
                    reason=denied.reason,
                )
                continue
            claim.until = self._clock.seconds() + self.claims.rules.grace
            self._surface.expect_host(claim.cluster, self.claims.rules.grace)
        self._set_timer()

    def given(self, claim: Claim) -> BroughtRoutes:
        """Return the routes of a claim, as the agent is told."""
        return BroughtRoutes(claim.domains, claim.port, self.claims.rules.url if claim.domains else "")

    def describe(self) -> Iterator[dict[str, Any]]:
        """Return all claims as JSON for the admin API."""
        now = self._clock.seconds()
        for claim in list(self.claims):  # which may change between two of them
            yield {
                "cluster": claim.cluster,
                "owner": self._shown.get(claim.cluster, ""),
                "domains": list(claim.domains),
                "port": claim.port,
                "connections": claim.connections,
                "ends_in": None if claim.until is None else max(round(claim.until - now, 1), 0.0),
            }

    def stop(self) -> None:
        """Cancel the timer for the end of claims."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _of_certificate(self, identity: AgentIdentity) -> Allowance:
        subject = identity.certificate
        allowed = Allowance()
        if subject is not None:
            names = {subject.subject, *subject.names}
            for name, allowance in self._certificates:
                if name in names:
                    allowed |= allowance
        return allowed

    def _open(self, claim: Claim, allowance: Allowance, identity: AgentIdentity) -> Claim | Denied:
        """Create everything that a claim needs, or nothing."""
        undo: list[Any] = []
        try:
            self._make(claim, undo)
            if claim.port is not None:
                claim.port = self._open_port(claim, self.claims.candidates(claim, allowance))
        except ValueError as error:
            return self._undo(undo, error)
        self.claims.open(claim)
        self._shown[claim.cluster] = identity.principal
        log.info(
            "{identity} has brought the cluster {cluster} with {routes}",
            identity=str(identity),
            cluster=claim.cluster,
            routes=str(self.given(claim)),
        )
        return claim

    def _make(self, claim: Claim, undo: list[Any]) -> None:
        """
        Create a cluster and its domains.

        @param undo: gets the steps that remove each of it.
        @raise ValueError: if something can't be created.
        """
        surface = self._surface
        surface.add_cluster(claim.cluster)
        undo.append((surface.remove_cluster, claim.cluster))
        for domain in claim.domains:
            surface.add_domain(domain, claim.cluster)
            undo.append((surface.remove_domain, domain))

    def _undo(self, undo: list[Any], error: ValueError) -> Denied:
        for step, what in reversed(undo):
            step(what)
        return Denied(Status.ROUTE_TAKEN, str(error))

    def _unmake(self, claim: Claim) -> None:
        del self._shown[claim.cluster]
        if claim.port is not None:
            self._surface.close_port(claim.port)
        for domain in claim.domains:
            self._surface.remove_domain(domain)
        self._surface.remove_cluster(claim.cluster)

    def _open_port(self, claim: Claim, candidates: Iterable[int]) -> int:
        """
        Open the first port that can be opened.

        @raise ValueError: if none can.
        """
        problem = "all ports that its identity may have are taken"
        for port in candidates:
            try:
                self._surface.open_port(port, claim.cluster)
            except ValueError as error:
                problem = str(error)
            else:
                return port
        raise ValueError(problem)

    def _set_timer(self) -> None:
        end = self.claims.next_end
        if self._timer is None and end is not None:
            self._timer = self._clock.callLater(max(end - self._clock.seconds(), 0.0), self._expire)

    def _expire(self) -> None:
        self._timer = None
        for claim in self.claims.expire(self._clock.seconds()):
            log.info(
                "the cluster {cluster} is gone with {routes}: no connection of its agent has come back",
                cluster=claim.cluster,
                routes=str(self.given(claim)),
            )
            self._unmake(claim)
        self._set_timer()
