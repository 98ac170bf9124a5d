"""This server's part in a fleet: what it knows of the others, its links, and what it does for them."""

from __future__ import annotations

__all__ = ["Fleet", "FleetParts"]

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any, Final

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.task import LoopingCall
from twisted.logger import Logger

from reverseproxy.addresses import host_of
from reverseproxy.cluster.balancers.fleet import FleetView
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.fleet.announcer import Agent
from reverseproxy.fleet.forwarding import Forwarder
from reverseproxy.fleet.incoming_links import IncomingLink, IncomingLinks
from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.local_hosts import LocalHosts, mode_of, name_of
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.orders import KINDS, Orders
from reverseproxy.fleet.outgoing_links import OutgoingLink, OutgoingLinks
from reverseproxy.fleet.records import HostKey, HostRecord
from reverseproxy.fleet.remote_hosts import RemoteHosts
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.identity import handle_of
from reverseproxy.tls import ClientTls, ServerTls, verify_again
from reverseproxy.tunnel.server.exclusions import Exclusions

log = Logger()

REVIEW: Final = 1.0
"""Seconds between two looks at whether the configuration of this server has changed its mind on agents."""


@dataclass(frozen=True, slots=True)
class FleetParts:
    """
    What a fleet is made of that is not its own.

    @ivar server_id: what this server is called.
    @ivar clusters: who can serve.
    @ivar endpoint: makes what dials another server at an address; may raise L{ValueError}.
    @ivar prove: says why the peer of a connection is not a certain server; empty if it is.
    @ivar objection: says why nothing is to be sent to an agent of another server; empty if something may be.
    @ivar standing: gives what is another thing whenever C{objection} may have changed its mind.
    @ivar tls: for links of others, and what peers of all links are judged by; L{None} for plaintext.
    @ivar dial_tls: what other servers are dialled with.
    @ivar accounts: who wants to know of what others have forwarded.
    @ivar exclusions: who may not join; L{None} for one of its own.
    @ivar publishes: whether this process tells the others of this server's agents; one of several workers
        does.
    """

    server_id: str
    clusters: ClusterManager
    reactor: Any
    random: Random
    endpoint: Callable[[str], IStreamClientEndpoint]
    prove: Callable[[Any, str], str]
    objection: Callable[[HostRecord], str] = field(default=lambda record: "")
    standing: Callable[[], Hashable] = field(default=lambda: None)
    tls: ServerTls | None = None
    dial_tls: ClientTls | None = None
    accounts: RequestObservers = field(default_factory=RequestObservers)
    exclusions: Exclusions | None = None
    publishes: bool = True


class Fleet:
    """
    This server, as one of a fleet.

    @ivar id: what it is called.
    @ivar view: what load balancers have to know.
    @ivar own: its agents.
    @ivar links: to the other servers.
    @ivar remote: hosts of agents that are theirs.
    @ivar entrance: where the others come in.
    @ivar traffic: what has been forwarded.
    @ivar orders: what operators do to agents.
    @ivar directory: who is in the fleet; L{None} until it has been given.
    @ivar on_standing: called when what speaks against agents may be different now.
    @ivar on_linked: called when there is a link to another server.
    """

    on_standing: Callable[[], object] = staticmethod(lambda: None)
    on_linked: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, parts: FleetParts) -> None:
        self.id = parts.server_id
        self.own = LocalHosts()
        self.traffic = Traffic()
        self.view = FleetView(lambda: 1 + len(self.links.all), name_of, self._reaches)  # type: ignore[arg-type]
        self.remote = RemoteHosts(parts.clusters, parts.reactor, self.traffic, parts.objection)
        self.links = OutgoingLinks(self.id, parts.reactor, parts.random, self, parts.endpoint, parts.prove)
        self.remote.links = self.links
        self.forwarder = Forwarder(
            self.own, parts.clusters, parts.reactor, parts.random.random, self.traffic, parts.accounts
        )
        self.entrance = IncomingLinks(
            self.id,
            parts.reactor,
            parts.prove,
            self.forwarder,
            self._greet,
            self._state,
            self._hear,
        )
        self.directory: IDirectory | None = None
        exclusions = parts.exclusions
        if exclusions is None:
            exclusions = Exclusions(parts.reactor.seconds)
        self.orders = Orders(exclusions, lambda: self.entrance, parts.reactor)
        self._publishes = parts.publishes
        self._told: dict[Agent, bool] = {}
        self._tls, self._dial_tls = parts.tls, parts.dial_tls
        self._version = 0 if parts.tls is None else parts.tls.version
        self._standing = parts.standing
        self._stood: Hashable = None
        self._review = LoopingCall(self._look)
        self._review.clock = parts.reactor
        self.own.listeners.append(self)

    # beginning and ending

    def use(self, directory: IDirectory) -> None:
        """Take the directory; nothing is read or published yet."""
        self.directory = directory
        directory.judge(self.links.reaches)
        directory.listen(self.remote)

    def start(self) -> None:
        """Link to the others, and let them know of our agents."""
        self.links.start()
        if self.directory is not None:
            self.directory.start()
        self._review.start(REVIEW, now=False)

    def drain(self) -> None:
        """This server is about to leave: let the directory say so; the links do by themselves."""
        if self.directory is not None:
            self.directory.drain()

    def stop(self, stays: bool = False) -> Deferred[None]:
        """
        End: nothing of this server stays known, and nothing is forwarded any more.

        @param stays: whether another process goes on as this server, so that what is known stays.
        @return: fires when that is so; never fails.
        """
        if self._review.running:
            self._review.stop()
        self.remote.stop()
        self.links.stop()
        self.orders.stop()
        self.entrance.close("stopping")
        if self.directory is None:
            return succeed(None)
        stopping: Deferred[Any] = maybeDeferred(self.directory.stop, stays)
        return stopping.addErrback(lambda reason: log.failure("while leaving the fleet", reason)).addCallback(
            lambda _: None
        )

    def _reaches(self, server: str) -> bool:
        return self.links.reaches(server)

    def _look(self) -> None:
        tls = self._tls
        if tls is not None:
            tls.reload_if_changed()
            if self._dial_tls is not None:
                self._dial_tls.reload_if_changed()
            if tls.version != self._version:
                self._version = tls.version
                self._judge_links(tls)
        standing = self._standing()
        if standing != self._stood:
            self._stood = standing
            self.on_standing()
            self.remote.review()

    def _judge_links(self, tls: ServerTls) -> None:
        """End links of servers whose certificates are not good any more."""
        for incoming in list(self.entrance.links):
            reason = verify_again(incoming.transport, tls)
            if reason:
                incoming.complain(reason)
                incoming.session.abort(reason)
        for outgoing in self.links:
            session = outgoing.session
            reason = "" if session is None else verify_again(session.transport, tls)
            if reason:
                outgoing.revoke(reason)

    def share(self, cluster: Cluster) -> None:
        """
        Let the others use a cluster's hosts, and the other way round.

        @param cluster: one that is among all clusters already.
        """
        self.own.share(cluster)
        self.remote.share(cluster)

    # ILinkUser

    def link_up(self, link: OutgoingLink) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_links.ILinkUser>}."""
        self.remote.link_up(link)
        self.on_linked()

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_links.ILinkUser>}."""
        self.remote.link_down(link, reason)
        if self.directory is not None and self.links.all.get(link.server) is link:
            self.directory.lost(link.server)

    def link_told(self, link: OutgoingLink, message: Any) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_links.ILinkUser>}."""
        if KINDS.isdisjoint(message):
            self.remote.link_told(link, message)
        else:
            answer = self.orders.heard(link.server, message)
            if answer is not None:
                link.say(answer)

    def _hear(self, link: IncomingLink, message: Any) -> None:
        """Take what a server has said that has linked."""
        if "done" in message:
            self.orders.done(link, message)
        else:
            self.forwarder.heard(link, message)

    # IOwnListener: what others have to know of our agents

    def agent_came(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        self._tell(cluster.name, agent, self.own.is_well(cluster.name, agent))
        self._publish(cluster.name, agent)

    def agent_changed(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        well = self.own.is_well(cluster.name, agent)
        if self._told.get((cluster.name, agent)) is not well:
            self._tell(cluster.name, agent, well)
        self._publish(cluster.name, agent)

    def agent_left(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        self._told.pop((cluster.name, agent), None)
        self.entrance.tell((cluster.name, agent))
        if self.directory is not None and self._publishes:
            self.directory.withdraw(HostKey(cluster.name, agent, self.id))

    def _tell(self, cluster: str, agent: str, well: bool) -> None:
        self._told[cluster, agent] = well
        self.entrance.tell((cluster, agent))

    def _state(self, agent: Agent) -> dict[str, Any]:
        """What others are told of an agent."""
        well = self._told.get(agent)
        how = {"gone": True} if well is None else {"well": well}
        return {**how, "cluster": agent[0], "agent": agent[1]}

    def _greet(self, link: IncomingLink) -> None:
        """Tell a server that has linked what it would not expect."""
        self.orders.greet(link)
        for agent, well in self._told.items():
            if not well:
                link.tell(agent)

    def record(self, cluster: str, agent: str) -> HostRecord | None:
        """What others have to know of one of our agents; L{None} if it is gone."""
        hosts = self.own.find(cluster, agent)
        if not hosts:
            return None
        first = next(iter(hosts))
        return HostRecord(
            cluster,
            agent,
            self.id,
            hostname=first.hostname[:256],
            weight=first.weight,
            connections=len(hosts),
            metadata=first.metadata,
            identity=first.identity,
            mode=mode_of(first),
            tells=all(host.tells for host in hosts),
            well=any(host.healthy for host in hosts),
            handle=_handle(first),
        )

    def _publish(self, cluster: str, agent: str) -> None:
        if self.directory is None or not self._publishes:
            return
        record = self.record(cluster, agent)
        if record is not None:
            self.directory.publish(record)

    # what there is, for the admin API

    def peers(self) -> list[dict[str, Any]]:
        """Each other server, by id."""
        incoming: dict[str, int] = {}
        for each in self.entrance.links:
            if each.server:
                incoming[each.server] = incoming.get(each.server, 0) + 1
        counts: dict[str, int] = {}
        for key in self.remote.hosts:
            counts[key.server] = counts.get(key.server, 0) + 1
        found = []
        for link in sorted(self.links, key=lambda link: link.server):
            traffic = self.traffic.of(link.server)
            found.append(
                {
                    "server": link.server,
                    "address": link.record.address,
                    "version": link.record.version,
                    "state": link.phase.value,
                    "problem": link.problem,
                    "leaving": link.leaving or link.record.draining,
                    "rtt_seconds": link.rtt,
                    "losses": link.losses,
                    "incoming_links": incoming.get(link.server, 0),
                    "hosts": counts.get(link.server, 0),
                    "forwarded": traffic.sent,
                    "received": traffic.received,
                    "refused": traffic.refused,
                    "in_flight": traffic.active,
                }
            )
        return found


def _handle(host: Host) -> str:
    """What operators call the agent of a host; empty if it is none of an agent's."""
    if host.identity is None:
        return ""
    return handle_of(host.identity, host_of(host.address) or "unix")
