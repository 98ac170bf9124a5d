"""
The agent: keeps connections to every tunnel server, and drains them.

An L{Agent} is one C{tunnel_agent} entry of the configuration. It has a L{Peer} for each address that its
servers resolve to; a peer has C{connection_num} slots (L{reverseproxy.tunnel.agent.slot}), and a slot
has one connection.
"""

from __future__ import annotations

__all__ = ["Agent"]

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList
from twisted.internet.interfaces import IDelayedCall
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.errors import ReverseProxyError
from reverseproxy.logs import counted, how_many
from reverseproxy.tunnel.agent.choosing import ServerChoice
from reverseproxy.tunnel.agent.discovery import Target
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.peer import Peer
from reverseproxy.tunnel.agent.plan import AgentPlan
from reverseproxy.wire.mosn.route_requests import BroughtRoutes

log = Logger(__package__)

DEFICIT_INTERVAL = 60.0
"""Seconds between two warnings about missing connections."""

LAST_RESORT = 10.0
"""
Seconds for which connections to a server that is no longer listed are kept if no other server has taken
its place.
"""


class Agent(Service):
    """
    One C{tunnel_agent} entry.

    @ivar plan: what its peers share.
    @ivar draining: whether it has been told to stop.
    """

    draining = False

    def __init__(self, plan: AgentPlan, watch: Callable[[Callable[[Sequence[Target]], None]], Any]) -> None:
        """
        @param watch: makes the source of targets, which has C{start}, C{stop} and C{relist}; called with
            the callback for each complete list.
        """
        self.plan = plan
        self._watcher = watch(self._update)
        self._peers: dict[Target, Peer] = {}
        self._leaving: dict[Peer, Deferred[None]] = {}
        self._listed: tuple[Target, ...] = ()
        self._choice = self._make_choice()
        self._look: IDelayedCall | None = None
        self._deficit_loop = LoopingCall(self._warn_of_deficit)
        self._deficit_loop.clock = plan.reactor

    @property
    def wanted(self) -> int:
        """How many connections there should be."""
        return sum(peer.wanted for peer in self._peers.values())

    @property
    def serving(self) -> int:
        """How many connections serve."""
        return sum(peer.serving for peer in self._peers.values())

    @property
    def routes(self) -> dict[str, BroughtRoutes]:
        """The routes that servers have granted to it, by server."""
        return {peer.name: peer.routes for peer in self._peers.values() if peer.routes}

    @property
    def by_server(self) -> dict[str, int]:
        """How many connections serve, by server."""
        return {peer.name: peer.serving for peer in self._peers.values()}

    @property
    def servers(self) -> list[Peer]:
        """The present servers."""
        return list(self._peers.values())

    @property
    def links(self) -> Iterator[AgentLink]:
        """Its connections to all servers, including those that only finish requests."""
        return (link for peer in [*self._peers.values(), *self._leaving] for link in peer.links)

    @property
    def doing(self) -> str:
        """What is in progress on its connections, for the log: numbers by kind."""
        return how_many(each for link in self.links for each in link.doing)

    @property
    def unserved(self) -> list[str]:
        """The servers to which no connection serves; "any server" if no server is known."""
        by_server = self.by_server
        return [name for name, serving in by_server.items() if not serving] if by_server else ["any server"]

    def startService(self) -> None:
        """Look up the servers, and dial them."""
        Service.startService(self)
        self._watcher.start()
        self._deficit_loop.start(DEFICIT_INTERVAL, now=False)

    def _make_choice(self) -> ServerChoice | None:
        count = self.plan.config.server_count
        return ServerChoice(self.plan.seed or self.plan.agent_id, count) if count else None

    def adapt(self, config: TunnelAgentConfig) -> None:
        """
        Use other servers, other settings of dialling, or another number of connections.

        Connections that are still wanted stay.

        @param config: differs from the present one in keys of L{ADAPTABLE} only.
        """
        before, self.plan = self.plan.config, replace(self.plan, config=config)
        for peer in self._peers.values():
            peer.adapt(self.plan)
        if config.server_count != before.server_count:
            self._choice = self._make_choice()
            self._update(self._listed)
        self._watcher.relist(config.server_list, config.dns_refresh_duration)

    def _changed(self) -> None:
        """Handle a change of a slot's state."""
        if self._choice is not None and not self.draining:
            self._look_in(0.0)  # not now: dialling changes states while it runs

    def _warn_of_deficit(self) -> None:
        serving, wanted = self.serving, self.wanted
        if serving < wanted:
            log.warn(
                "agent of cluster {cluster}: {deficit} of {wanted} connections are missing",
                cluster=self.plan.config.cluster,
                deficit=wanted - serving,
                wanted=wanted,
            )

    def _update(self, targets: Sequence[Target]) -> None:
        if self.draining:
            return
        self._listed = tuple(targets)
        if self._choice is not None:
            self._choice.offer(targets)
            gone = [target for target in self._peers if target not in self._listed]
            if gone:
                self.plan.reactor.callLater(LAST_RESORT, self._leave_unlisted, gone)
            self._choose()
            return
        self._leave_unlisted(list(self._peers))
        for target in targets:
            if target not in self._peers:
                self._join(target)

    def _leave_unlisted(self, targets: Sequence[Target]) -> None:
        """Leave those of some servers that are not listed."""
        if self.draining:
            return
        for target in targets:
            if target not in self._listed and target in self._peers:
                self._part_with(target, "is no longer listed")

    def _part_with(self, target: Target, why: str) -> None:
        peer = self._peers.pop(target)
        if self._choice is not None:
            self._choice.forget(target)
        log.info(
            "agent of cluster {cluster}: server {server} {why}",
            cluster=self.plan.config.cluster,
            server=peer.name,
            why=why,
        )
        self._leave(peer)

    # a choice of servers

    def _look_in(self, seconds: float) -> None:
        """Choose again in some seconds, or sooner."""
        look = self._look
        if look is not None and look.active():
            if look.getTime() <= self.plan.reactor.seconds() + seconds:
                return
            look.cancel()
        self._look = self.plan.reactor.callLater(seconds, self._choose)

    def _choose(self) -> None:
        """Dial the chosen servers, and leave others as soon as they are not needed."""
        choice, clock = self._choice, self.plan.reactor
        if choice is None or self.draining:
            return
        now = clock.seconds()
        # Without a reachable service, no connection may be wanted.
        unwell = self.plan.service is not None and not self.plan.service.well
        for target, peer in self._peers.items():
            choice.note(target, bool(peer.serving) or (unwell and not peer.leaves), peer.leaves, now)
        chosen = choice.choose(now)
        for target in chosen:
            if target not in self._peers:
                self._join(target)
                choice.note(target, False, False, now)
        serving = sum(bool(self._peers[target].serving) for target in chosen if target in self._peers)
        if serving >= choice.wanted:
            for target in [each for each in self._peers if each not in chosen]:
                self._part_with(target, "is not needed" if target in self._listed else "is no longer listed")
        wait = choice.next_look(now)
        if wait is not None:
            self._look_in(wait)

    def _leave(self, peer: Peer) -> None:
        leaving = self._leaving[peer] = peer.drain(self.plan.config.graceful_close_max_wait_duration)
        leaving.addCallback(lambda _: self._left(peer))

    def _left(self, peer: Peer) -> None:
        del self._leaving[peer]

    def _join(self, target: Target) -> None:
        try:
            peer = Peer(self.plan, target, self._changed)
        except (ReverseProxyError, ValueError) as error:
            # A server name that is found at run time may be one that TLS can't verify.
            log.error(
                "agent of cluster {cluster}: can't dial {server}: {reason}",
                cluster=self.plan.config.cluster,
                server=target.server,
                reason=str(error),
            )
            return
        self._peers[target] = peer
        log.info(
            "agent of cluster {cluster}: dialling {server}, {connections}",
            cluster=self.plan.config.cluster,
            server=peer.name,
            connections=counted(self.plan.config.connection_num, "connection"),
            count=self.plan.config.connection_num,
        )
        peer.start()

    def drain(self) -> Deferred[None]:
        """
        Leave all servers gracefully, at the same time.

        @return: fires when no connection is left, after C{graceful_close_max_wait_duration} at the
            latest.
        """
        self._quit()
        seconds = self.plan.config.graceful_close_max_wait_duration
        drains = [*self._leaving.values(), *(peer.drain(seconds) for peer in self._peers.values())]
        return DeferredList(drains, consumeErrors=True).addCallback(lambda _: None)

    def _quit(self) -> None:
        self.draining = True
        self._watcher.stop()
        if self._look is not None and self._look.active():
            self._look.cancel()
        if self._deficit_loop.running:
            self._deficit_loop.stop()

    def stopService(self) -> None:
        """Close all connections at once."""
        Service.stopService(self)
        self._quit()
        for peer in [*self._peers.values(), *self._leaving]:
            peer.stop()
