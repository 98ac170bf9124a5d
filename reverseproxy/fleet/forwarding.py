"""
Streams that other servers forward to the agents of this one.

A stream's header names the agent. Only connections to this server that are hosts of the named cluster
are used: which clusters an agent may join, and its weight, are what this server has verified when the
agent joined, whatever the directory says. Nothing is forwarded a second time.

Where the agent's connection carries streams, bytes are relayed to one of them, whatever protocol they
belong to. Otherwise this server speaks the protocol: L{reverseproxy.fleet.forwarded_protocols} says when
and why.
"""

from __future__ import annotations

__all__ = ["Forwarder"]

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.errors import HostGone, NoHealthyHost, PickFailed
from reverseproxy.fleet.agent_cluster import AgentCluster
from reverseproxy.fleet.forwarded_protocols import ForwardedProtocols
from reverseproxy.fleet.incoming_links import IncomingLink
from reverseproxy.fleet.incoming_stream import IncomingStream
from reverseproxy.fleet.link_frames import StreamHeader
from reverseproxy.fleet.local_hosts import LocalHosts
from reverseproxy.fleet.observers import RequestObservers
from reverseproxy.fleet.outcome_reports import OutcomeReports
from reverseproxy.fleet.traffic import PeerTraffic, Traffic
from reverseproxy.logs import loss
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.access.record import Client, UpstreamDetails
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.proxy.tcp.failover import REPLAY_LIMIT
from reverseproxy.proxy.tcp.forwarding_end import ForwardingEnd

log = Logger()

LOOK: Final = 0.1
"""Seconds between two checks whether an agent is back."""

RETURNS: Final = 10
"""The number of such checks."""


class _Session:
    """A stream that is relayed to an agent's connection; the host is released exactly once."""

    def __init__(
        self,
        cluster: Cluster,
        host: Host,
        counts: PeerTraffic,
        pooled: bool,
        ended: Callable[[_Session], object],
    ) -> None:
        """
        @param pooled: whether it is a connection of the other server's that carries any number of
            requests, or none: these are limited there.
        """
        self.cluster = cluster
        self.host: Host = host
        self.near: RelayEnd | None = None
        self.far: RelayEnd | None = None
        self.failure = ""
        self._counts = counts
        self._pooled = pooled
        self._ended = ended
        self._over = False
        counts.active += 1
        if pooled:
            cluster.queue.exempt()

    def over(self, reason: object = None) -> None:
        """Release the host, as the relay has ended."""
        if self._over:
            return
        self._over = True
        self._counts.active -= 1
        self.host.connection_closed()
        if self._pooled:
            self.cluster.queue.include()
        self.cluster.release(self.host)
        self._ended(self)


class Forwarder:
    """Serves the streams that other servers open."""

    def __init__(
        self,
        own: LocalHosts,
        clusters: ClusterManager,
        clock: IReactorTime,
        random: Callable[[], float],
        traffic: Traffic,
        accounts: RequestObservers | None = None,
    ) -> None:
        """
        @param own: this server's agents.
        @param random: returns numbers from 0 to 1.
        @param traffic: the counters of other servers.
        @param accounts: what observes requests and sessions.
        """
        self._own = own
        self._clusters = clusters
        self._clock = clock
        self._traffic = traffic
        self._accounts = accounts or RequestObservers()
        self._reports = OutcomeReports()
        self._protocols = ForwardedProtocols(own, clock, random, self._accounts)

    def __call__(self, link: IncomingLink, stream: IncomingStream, header: StreamHeader) -> None:
        """Serve a stream, or refuse it."""
        counts = self._traffic.of(link.server)
        counts.received += 1
        reason = self._serve(link, stream, header, counts)
        if reason:
            counts.refused += 1
            log.debug(
                "fleet: what {server} forwards to agent {agent} of cluster {cluster} is refused: {reason}",
                server=link.server,
                agent=header.agent,
                cluster=header.cluster,
                reason=reason,
            )
            stream.refuse()

    def _serve(
        self, link: IncomingLink, stream: IncomingStream, header: StreamHeader, counts: PeerTraffic
    ) -> str:
        """
        Serve a stream.

        @return: why that is not possible; empty if it has been done.
        """
        if not header.may_be_served:
            return "it has been forwarded before"
        if header.cluster not in self._clusters:
            return "there is no such cluster"
        cluster = self._clusters.get(header.cluster)
        hosts = self._own.find(header.cluster, header.agent)
        if not hosts:
            return "there is no such agent"
        if header.protocol and (self._accounts.wanted or not all(_carries_streams(host) for host in hosts)):
            return self._protocols.serve(cluster, link, stream, header)
        chosen = AgentCluster(cluster, lambda: hosts)
        try:
            # What a pooled connection carries is limited at the other server.
            host = (chosen.take_free() if header.protocol else None) or chosen.acquire()
        except PickFailed as error:
            return str(error)
        if host is not None:
            self._join(link, stream, header, counts, cluster, host)
            return ""
        waiting = chosen.wait(None, cluster.config.connect_timeout)
        waiting.addCallbacks(
            lambda found: self._join(link, stream, header, counts, cluster, found),
            lambda reason: self._not_served(link, stream, header, counts, reason),
        )
        return ""

    def _not_served(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        reason: Failure,
    ) -> None:
        reason.trap(PickFailed)
        if reason.check(NoHealthyHost) and stream.kept >= REPLAY_LIMIT:
            # The other server does not buffer so much, and can't send it elsewhere. A session uses up a
            # connection without streams, which the agent replaces, so that it is back in a moment if it
            # is alive.
            self._await_return(link, stream, header, counts, RETURNS)
            return
        counts.refused += 1
        stream.refuse()

    def _await_return(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        looks: int,
    ) -> None:
        """Check now and then whether an agent is back."""
        if stream.transport.disconnected:
            return
        if self._own.find(header.cluster, header.agent) or not looks:
            if self._serve(link, stream, header, counts):
                counts.refused += 1
                stream.refuse()
            return
        self._clock.callLater(LOOK, self._await_return, link, stream, header, counts, looks - 1)

    # relaying

    def _join(
        self,
        link: IncomingLink,
        stream: IncomingStream,
        header: StreamHeader,
        counts: PeerTraffic,
        cluster: Cluster,
        host: Host,
    ) -> None:
        began = self._clock.seconds()
        ended = partial(self._account, link, header, began)
        session = _Session(cluster, host, counts, bool(header.protocol), ended)
        host.connection_opened()
        if stream.transport.disconnected:
            session.over()
            return
        connecting = host.connect(CallableFactory(partial(ForwardingEnd, self._clock)))
        connecting.addCallbacks(
            partial(self._joined, session, stream), partial(self._not_joined, session, stream)
        )

    def _joined(self, session: _Session, stream: IncomingStream, far: Any) -> None:
        near = ForwardingEnd(self._clock)
        session.near, session.far = near, far
        agent = self._own.name_of(session.host)
        self._reports.note(stream.link.server, session.cluster, agent, session.host)
        far.on_close = session.over
        if stream.transport.disconnected:
            far.abort()
            return
        stream.give_to(near)
        couple(near, far)
        if far.lost:
            session.over()

    def heard(self, link: IncomingLink, message: Mapping[str, Any]) -> None:
        """See L{OutcomeReports.received}."""
        self._reports.received(link.server, message)

    def _not_joined(self, session: _Session, stream: IncomingStream, reason: Failure) -> None:
        session.failure = loss(reason)
        session.over()
        stream.refuse()
        if reason.check(HostGone) is None:
            log.debug(
                "fleet: {host} can't be connected: {reason}", host=session.host.address, reason=loss(reason)
            )

    def _account(self, link: IncomingLink, header: StreamHeader, began: float, session: _Session) -> None:
        access_log = self._accounts.access_log
        if access_log is None:
            return
        near, far, host = session.near, session.far, session.host
        duration = self._clock.seconds() - began
        access_log(
            AccessRecord(
                header.protocol or "tcp",
                Client(header.client, link.info.local),
                upstream=UpstreamDetails(
                    session.cluster.name, host.hostname or host.address, agent=host.identity
                ),
                duration=duration,
                bytes_received=0 if near is None else near.received,
                bytes_sent=0 if far is None else far.received,
                flag=session.failure,
                forwarded_by=link.server,
            )
        )


def _carries_streams(host: Host) -> bool:
    """
    Return whether bytes can be relayed to a host: it carries streams, and reports which it has not
    passed on.
    """
    return not host.exclusive and not host.committed_protocol and host.tells
