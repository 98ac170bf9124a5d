"""
Routes that agents bring: what is decided in L{reverseproxy.tunnel.server.claims} is done here.

Everything that a claim needs is made before the agent is accepted, and taken
away when the claim has ended, so that nobody is ever sent to a cluster that is
not there.
"""

from __future__ import annotations

__all__ = ["NO_ROUTES", "AgentRoutes", "IRouteSurface", "owner_of"]

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, Protocol

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.allowance import Allowance
from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Refusal
from reverseproxy.tunnel.server.claims import Claim, Claims, Denied
from reverseproxy.wire.mosn.frames import Status
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger()


NO_ROUTES: Final = "this server takes no routes from agents"
"""What an agent is told that asks for some."""


class IRouteSurface(Protocol):
    """What routes are made of."""

    def take_over(self, newer: Any) -> None:
        """Make what comes from now on as another one would."""

    def add_cluster(self, name: str) -> None:
        """
        Make a cluster.

        @raise ValueError: if there is one of this name.
        """

    def remove_cluster(self, name: str) -> None:
        """Take it away, and what waits for it."""

    def add_domain(self, domain: str, cluster: str) -> None:
        """
        Send a domain's requests to a cluster.

        @raise ValueError: if somebody has it.
        """

    def remove_domain(self, domain: str) -> None:
        """Do that no more."""

    def open_port(self, port: int, cluster: str) -> None:
        """
        Send a port's sessions to a cluster.

        @raise ValueError: if the port can't be had.
        """

    def close_port(self, port: int) -> None:
        """Take no more sessions; those that are open go on."""


def owner_of(identity: AgentIdentity) -> str:
    """Say whose a claim is that somebody makes; empty for somebody who has proved nothing."""
    if identity.name:
        return f"token:{identity.name} (policy {identity.policy})"
    if identity.certificate is not None:
        return f"certificate:{identity.certificate.key}"
    return ""


class AgentRoutes:
    """
    The routes that the agents of one tunnel listener have brought.

    @ivar claims: whose they are.
    @ivar router: the name of the router that has the domains; empty if there is none.
    @ivar closed: whether agents may bring no more than they have.
    """

    def __init__(
        self,
        claims: Claims,
        surface: IRouteSurface,
        clock: IReactorTime,
        certificates: Sequence[tuple[str, Allowance]] = (),
        router: str = "",
    ) -> None:
        """
        @param router: the name of what takes domains.
        @param certificates: what certificates allow: a subject or an alternative name, and what goes with it.
        """
        self.claims = claims
        self.router = router
        self.closed = False
        self._surface = surface
        self._clock = clock
        self._certificates = certificates
        self._shown: dict[str, str] = {}  # whose the claims are, for people
        self._timer: IDelayedCall | None = None

    def take_over(self, newer: AgentRoutes | None) -> None:
        """
        Go on as another one would; what agents have stays theirs.

        @param newer: L{None} if nobody may bring anything more.
        """
        self.closed = newer is None
        if newer is not None:
            self.claims.rules = newer.claims.rules
            self.router = newer.router
            self._certificates = newer._certificates
            self._surface.take_over(newer._surface)

    def concerns(self, accepted: Accepted) -> bool:
        """Say whether L{ask} has to be asked."""
        return bool(accepted.request) or self.claims.find(accepted.cluster) is not None

    def ask(self, accepted: Accepted, info: ConnectionInfo) -> Claim | Refusal:
        """
        Decide about a connection that may join otherwise, and make what it needs.

        @return: the claim, which the connection holds now.
        """
        if self.closed and self.claims.find(accepted.cluster) is None:
            return Refusal(Status.ROUTE_FORBIDDEN, NO_ROUTES, told=NO_ROUTES)
        identity = accepted.identify(info)
        allowance = accepted.allowance | self._of_certificate(identity)
        verdict = self.claims.judge(owner_of(identity), accepted.cluster, accepted.request, allowance)
        if isinstance(verdict, Claim) and self.claims.find(accepted.cluster) is None:
            verdict = self._open(verdict, allowance, identity)
        if isinstance(verdict, Denied):
            return Refusal(verdict.status, verdict.reason, told=verdict.reason)
        self.claims.hold(verdict)
        return verdict

    def judge_again(self, accepted: Accepted, info: ConnectionInfo) -> str:
        """
        Find out whether a connection that holds a claim would still get it.

        @return: why not; empty if it would.
        """
        if self.claims.find(accepted.cluster) is None:
            return ""
        identity = accepted.identify(info)
        allowance = accepted.allowance | self._of_certificate(identity)
        verdict = self.claims.judge(owner_of(identity), accepted.cluster, accepted.request, allowance)
        return verdict.reason if isinstance(verdict, Denied) else ""

    def let_go(self, claim: Claim) -> None:
        """A connection that held a claim is gone."""
        if self.claims.let_go(claim, self._clock.seconds()):
            self._set_timer()

    def given(self, claim: Claim) -> BroughtRoutes:
        """What an agent is told that it has."""
        return BroughtRoutes(claim.domains, claim.port, self.claims.rules.url if claim.domains else "")

    def describe(self) -> Iterator[dict[str, Any]]:
        """All claims, as JSON has them."""
        now = self._clock.seconds()
        for claim in self.claims:
            yield {
                "cluster": claim.cluster,
                "owner": self._shown[claim.cluster],
                "domains": list(claim.domains),
                "port": claim.port,
                "connections": claim.connections,
                "ends_in": None if claim.until is None else max(round(claim.until - now, 1), 0.0),
            }

    def stop(self) -> None:
        """Nothing ends any more by itself."""
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
        """Make everything that a claim needs, or nothing."""
        surface = self._surface
        undo: list[Any] = []
        try:
            surface.add_cluster(claim.cluster)
            undo.append((surface.remove_cluster, claim.cluster))
            for domain in claim.domains:
                surface.add_domain(domain, claim.cluster)
                undo.append((surface.remove_domain, domain))
            if claim.port is not None:
                claim.port = self._open_port(claim, self.claims.candidates(claim, allowance))
        except ValueError as error:
            for step, what in reversed(undo):
                step(what)
            return Denied(Status.ROUTE_TAKEN, str(error))
        self.claims.open(claim)
        self._shown[claim.cluster] = identity.principal
        log.info(
            "{identity} has brought the cluster {cluster} with {routes}",
            identity=str(identity),
            cluster=claim.cluster,
            routes=str(self.given(claim)),
        )
        return claim

    def _open_port(self, claim: Claim, candidates: Iterable[int]) -> int:
        """
        Open the first port that can be had.

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
            del self._shown[claim.cluster]
            if claim.port is not None:
                self._surface.close_port(claim.port)
            for domain in claim.domains:
                self._surface.remove_domain(domain)
            self._surface.remove_cluster(claim.cluster)
        self._set_timer()
