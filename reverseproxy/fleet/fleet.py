"""This server as a member of a fleet."""

from __future__ import annotations

__all__ = ["Fleet", "FleetParts"]

from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.logger import Logger

from reverseproxy.cluster.balancers.fleet import FleetView
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.fleet.agent_publisher import AgentPublisher
from reverseproxy.fleet.catching_up import CatchUp
from reverseproxy.fleet.forwarding import Forwarder
from reverseproxy.fleet.incoming_links import IncomingLink, IncomingLinks
from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.local_hosts import LocalHosts, name_of
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.orders import KINDS, Orders
from reverseproxy.fleet.outgoing_link import OutgoingLink
from reverseproxy.fleet.outgoing_links import OutgoingLinks
from reverseproxy.fleet.records import HostRecord
from reverseproxy.fleet.remote_hosts import RemoteHosts
from reverseproxy.fleet.review import FleetReview
from reverseproxy.fleet.traffic import Traffic
from reverseproxy.tls import ClientTls, ServerTls
from reverseproxy.tunnel.server.exclusions import Exclusions

log = Logger()


@dataclass(frozen=True, slots=True)
class FleetParts:
    """
    What a fleet is built from.

    @ivar server_id: this server's id.
    @ivar clusters: the clusters that hosts of other servers' agents join.
    @ivar endpoint: makes the endpoint for a server's address; may raise L{ValueError}.
    @ivar prove: returns why a connection's peer is not the server with an id; empty if it is.
    @ivar objection: returns why no requests may be sent to an agent of another server; empty if they
        may.
    @ivar standing: returns a value that differs whenever C{objection} may return something else.
    @ivar tls: for incoming links, and for checking the peers of all links again; L{None} for plaintext.
    @ivar dial_tls: for outgoing links.
    @ivar accounts: what observes requests that other servers forward.
    @ivar exclusions: agents that may not join; L{None} to create an empty list.
    @ivar publishes: whether this process publishes the server's agents; one of several workers does.
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
    This server as a member of a fleet.

    @ivar id: its id.
    @ivar own: its agents.
    @ivar agents: publishes them.
    @ivar traffic: counters of forwarded streams.
    @ivar view: what load balancers need to know of the fleet.
    @ivar remote: the hosts of other servers' agents.
    @ivar links: the links to other servers.
    @ivar incoming: the links that other servers have dialled.
    @ivar orders: operators' actions on agents.
    @ivar directory: the directory; L{None} until L{use} has set it.
    @ivar on_standing: called when objections to agents may have changed.
    @ivar on_linked: called when a link to another server is up.
    """

    on_standing: Callable[[], object] = staticmethod(lambda: None)
    on_linked: Callable[[], object] = staticmethod(lambda: None)

    def __init__(self, parts: FleetParts) -> None:
        self.id = parts.server_id
        self.own = LocalHosts()
        self.agents = AgentPublisher(self.id, self.own, lambda agent: self.incoming.announce(agent))
        self.traffic = Traffic()
        self.view = FleetView(lambda: 1 + len(self.links.all), name_of, self._reaches)
        self.remote = RemoteHosts(parts.clusters, parts.reactor, self.traffic, parts.objection)
        self.links = OutgoingLinks(self.id, parts.reactor, parts.random, self, parts.endpoint, parts.prove)
        self.remote.links = self.links
        self.forwarder = Forwarder(
            self.own, parts.clusters, parts.reactor, parts.random.random, self.traffic, parts.accounts
        )
        self.incoming = IncomingLinks(
            self.id,
            parts.reactor,
            parts.prove,
            self.forwarder,
            self._greet,
            self.agents.state,
            self._hear,
        )
        self.directory: IDirectory | None = None
        exclusions = parts.exclusions
        if exclusions is None:
            exclusions = Exclusions(parts.reactor.seconds)
        self.orders = Orders(exclusions, lambda: self.incoming, parts.reactor)
        self._catch_up = CatchUp(parts.reactor, self.links, self._is_read, exclusions)
        self._publishes = parts.publishes
        self._review = FleetReview(
            parts.reactor,
            self.incoming,
            self.links,
            parts.tls,
            parts.dial_tls,
            parts.standing,
            self._objections_changed,
        )

    # beginning and ending

    def use(self, directory: IDirectory) -> None:
        """Set the directory; nothing is read or published yet."""
        self.directory = directory
        if self._publishes:
            self.agents.directory = directory
        directory.judge(self.links.reaches)
        directory.listen(self.remote)

    def start(self) -> None:
        """Dial the other servers, and publish this server's agents."""
        self.links.start()
        if self.directory is not None:
            self.directory.start()
        self._review.start()
        self._catch_up.start()

    def drain(self) -> None:
        """Publish that this server is about to leave; links announce it by themselves."""
        if self.directory is not None:
            self.directory.drain()

    def stop(self, stays: bool = False) -> Deferred[None]:
        """
        Withdraw all that this server has published, and close all links.

        @param stays: whether another process goes on as this server, so that its records stay.
        @return: fires when that has been done; never fails.
        """
        self._review.stop()
        self._catch_up.stop()
        self.remote.stop()
        self.links.stop()
        self.orders.stop()
        self.incoming.close("stopping")
        if self.directory is None:
            return succeed(None)
        stopping: Deferred[Any] = maybeDeferred(self.directory.stop, stays)
        return stopping.addErrback(lambda reason: log.failure("while leaving the fleet", reason)).addCallback(
            lambda _: None
        )

    def _is_read(self) -> bool:
        return self.directory is None or bool(self.directory.up)

    def _reaches(self, server: str) -> bool:
        return self.links.reaches(server)

    def share(self, cluster: Cluster) -> None:
        """
        Make the agents of a cluster available to other servers, and theirs to this one.

        @param cluster: one that has been added to the clusters already.
        """
        self.own.share(cluster)
        self.remote.share(cluster)

    # ILinkUser

    def link_up(self, link: OutgoingLink) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        self.remote.link_up(link)
        self._catch_up.linked()
        self.on_linked()

    def link_down(self, link: OutgoingLink, reason: str) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        self.remote.link_down(link, reason)
        if self.directory is not None and self.links.all.get(link.server) is link:
            self.directory.lost(link.server)

    def link_message(self, link: OutgoingLink, message: Any) -> None:
        """See L{ILinkUser<reverseproxy.fleet.outgoing_link.ILinkUser>}."""
        if KINDS.isdisjoint(message):
            self.remote.link_message(link, message)
        else:
            answer = self.orders.heard(link.server, message)
            if answer is not None:
                link.send(answer)

    def _hear(self, link: IncomingLink, message: Any) -> None:
        """Process a message from a server that has linked to this one."""
        if "done" in message:
            self.orders.done(link, message)
        else:
            self.forwarder.heard(link, message)

    def _greet(self, link: IncomingLink) -> None:
        """Send a server that has linked the exclusions, and the agents that are not well."""
        self.orders.greet(link)
        for agent in self.agents.unhealthy:
            link.announce(agent)

    def _objections_changed(self) -> None:
        self.on_standing()
        self.remote.review()

    # for the admin API

    def peers(self) -> list[dict[str, Any]]:
        """Return the state of each other server as JSON, in the order of their ids."""
        incoming: dict[str, int] = {}
        for each in self.incoming.all:
            if each.server:
                incoming[each.server] = incoming.get(each.server, 0) + 1
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
                    "hosts": self.remote.number_of(link.server),
                    "forwarded": traffic.sent,
                    "received": traffic.received,
                    "refused": traffic.refused,
                    "in_flight": traffic.active,
                }
            )
        return found
