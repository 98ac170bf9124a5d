"""
The steps by which an agent joins a cluster, in order.

L{reverseproxy.tunnel.handshake} and the other modules of this package decide about each step; this one
waits where a step takes time, and keeps what has been taken so far.
"""

from __future__ import annotations

__all__ = ["JoinAttempt"]

from typing import TYPE_CHECKING

from twisted.internet.task import deferLater

from reverseproxy.identity import AgentIdentity
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.tunnel.handshake import Accepted, Hangup, Refusal, identify_refused
from reverseproxy.tunnel.server.agent_routes import NO_ROUTES
from reverseproxy.tunnel.server.claims import Claim
from reverseproxy.tunnel.server.quotas import NOBODY, QuotaPlace
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit, Status
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

if TYPE_CHECKING:
    from reverseproxy.tunnel.server.filter import TunnelServer


class JoinAttempt:
    """
    An agent's attempt to join with one connection.

    @ivar init: its init frame.
    @ivar identity: its identity, once that is proved, whether or not it may join.
    @ivar claim: the claim to routes that it holds.
    """

    __slots__ = (
        "_abandoned",
        "_address_key",
        "_info",
        "_place",
        "_reviews",
        "_server",
        "claim",
        "identity",
        "init",
    )

    def __init__(
        self, server: TunnelServer, info: ConnectionInfo, address_key: str, init: ConnectionInit
    ) -> None:
        """@param address_key: the client address, as addresses are grouped."""
        self._server = server
        self._info = info
        self._address_key = address_key
        self._abandoned = False
        self._place = NOBODY
        self._reviews = server.revocations.reviews
        self.init = init
        self.identity: AgentIdentity | None = None
        self.claim: Claim | None = None

    def abandon(self) -> None:
        """Take no further step, as the connection is being closed."""
        self._abandoned = True

    @property
    def outdated(self) -> bool:
        """Whether something has changed since it began by which the agent might not be let in."""
        return self._server.revocations.reviews != self._reviews

    @property
    def given_routes(self) -> BroughtRoutes:
        """The routes that the agent gets."""
        routes = self._server.routes
        return BroughtRoutes() if self.claim is None or routes is None else routes.given(self.claim)

    async def decide(self) -> Accepted | Refusal | Hangup | None:
        """
        Take one step after the other, until one of them refuses.

        @return: L{None} if the attempt was abandoned.
        """
        server, init = self._server, self.init
        leaving = self._turn_away()
        if leaving is not None:
            return leaving
        checked = server.admission.check_policy(init)
        if isinstance(checked, Refusal):
            return checked
        if checked is not None:
            await server.judge.wait_for_turn(self._address_key)
            if self._abandoned:
                return None
        identity = await server.judge.validate(checked, init.credential, init.host_name, init.cluster_name)
        if self._abandoned:
            return None
        verdict = server.admission.conclude(init, identity, server.brings_cluster(init))
        if isinstance(verdict, Refusal):
            if identity is not None:
                self.identity = identify_refused(self._info, init, identity)
            return verdict
        self.identity = verdict.identify(self._info)
        return await self._find_room(verdict)

    def _turn_away(self) -> Refusal | Hangup | None:
        """Return the refusal if the server is about to leave."""
        departure = self._server.departure
        if departure is None:
            return None
        return departure.turn_away(Announcement.from_extra(self.init.extra) is not None)

    async def _find_room(self, accepted: Accepted) -> Accepted | Refusal | Hangup | None:
        """Check limits; last, so that only agents that may join count towards them."""
        server = self._server
        if server.exclusions.until_known is not None:
            await server.exclusions.until_known()
            if self._abandoned:
                return None
        refusal = server.exclusions.refuse(accepted, self._info) or self._take_place(accepted)
        if refusal is not None:
            return refusal
        wait = server.join_rate.ask(server.clock.seconds(), accepted.announcement is not None)
        if not isinstance(wait, float):
            return wait
        if wait > 0:
            await deferLater(server.clock, wait)
            if self._abandoned:
                return None
            refusal = server.exclusions.refuse(accepted, self._info)
            if refusal is not None:
                return refusal
        refusal = await self._take_routes(accepted)
        if refusal is not None:
            return refusal
        # Again, as either may have been decided while something was waited for.
        return self._turn_away() or server.exclusions.refuse(accepted, self._info) or accepted

    def _take_place(self, accepted: Accepted) -> Refusal | Hangup | None:
        quotas = self._server.quotas
        place = quotas.place(accepted, self._info, self._address_key)
        refusal = quotas.refuse(place, accepted.announcement is not None)
        if refusal is None:
            self._place = place
        return refusal

    async def _take_routes(self, accepted: Accepted) -> Refusal | None:
        """Claim the routes that the agent requests, unless it may not have them."""
        server = self._server
        routes = server.routes
        if accepted.named and accepted.cluster in server.clusters and not server.brought(accepted.cluster):
            return None  # the configuration has its routes, and it need not bring any
        if routes is None:
            if accepted.request:
                return Refusal(Status.ROUTE_FORBIDDEN, NO_ROUTES, told=NO_ROUTES)
        elif routes.concerns(accepted):
            verdict = await routes.ask(accepted, self._info)
            if isinstance(verdict, Refusal):
                return verdict
            self.claim = verdict
        return None

    def take_place(self) -> QuotaPlace:
        """Return the place in the quotas, which the caller has to give back."""
        place, self._place = self._place, NOBODY
        return place

    def release(self) -> None:
        """Give back all that the connection has taken."""
        self._server.quotas.give_back(self.take_place())
        claim, self.claim = self.claim, None
        if claim is not None and self._server.routes is not None:
            self._server.routes.let_go(claim)
