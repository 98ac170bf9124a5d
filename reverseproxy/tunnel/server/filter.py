"""
The C{tunnel} network filter, which turns accepted connections into hosts.

A L{TunnelServer} has what all connections of one listener share;
L{reverseproxy.tunnel.server.connection} has one connection.
"""

from __future__ import annotations

__all__ = ["TunnelServer"]

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.host import MuxHost, ReverseHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import TunnelConfig
from reverseproxy.interfaces import ConnectionInfo, IConnectionValidator
from reverseproxy.limits.connection_limit import Descriptors
from reverseproxy.metrics import TunnelTally
from reverseproxy.tunnel.handshake import Admission
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.connection import TunnelConnection
from reverseproxy.tunnel.server.departure import Departure
from reverseproxy.tunnel.server.exclusions import Exclusions
from reverseproxy.tunnel.server.joins import JoinRate
from reverseproxy.tunnel.server.judging import CredentialJudge, make_validators
from reverseproxy.tunnel.server.peer_log import PeerLog
from reverseproxy.tunnel.server.pending import PENDING_PART, PendingConnections
from reverseproxy.tunnel.server.quotas import Quotas
from reverseproxy.tunnel.server.registry import Registry, Requester, Selection
from reverseproxy.tunnel.server.revocation import Revocations
from reverseproxy.tunnel.server.transport_policy import TransportPolicy
from reverseproxy.tunnel.server.worker_group import WorkerGroup
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit

OWNER_SHARE: Final = 0.75
"""The part of all connections that a process can have that one agent, credential or address may have."""


class TunnelServer:
    """
    What all tunnel connections of one listener share.

    @ivar pending: the connections that have not joined a cluster.
    @ivar join_rate: the rate limit of joins.
    @ivar quotas: limits of the connections of one agent, credential or address.
    @ivar judge: asks validators, and delays addresses that were refused too often.
    @ivar registry: the connections of this listener that have joined; another listener may use other
        CAs, and other names for agents.
    @ivar exclusions: agents that operators exclude.
    @ivar revocations: judges connections again that have joined.
    @ivar transport_policy: what the listener demands of transports.
    @ivar departure: how it leaves its agents; L{None} before it does.
    @ivar tally: counts joins, and keeps recent refusals.
    @ivar routes: routes of agents; L{None} if they may bring none.
    @ivar workers: the processes that share this server's work.
    @ivar peer_log: logs misbehaving peers.
    """

    routes: AgentRoutes | None = None
    departure: Departure | None = None

    def __init__(
        self,
        listener: str,
        config: TunnelConfig,
        clusters: ClusterManager,
        clock: IReactorTime,
        find_validator: Callable[[str, Mapping[str, Any]], IConnectionValidator],
        policies: Collection[str] = (),
    ) -> None:
        """
        @param find_validator: makes the validator of a credential policy, given its configuration.
        @param policies: the policies that agents may use where none is demanded, if their validators
            need no configuration.
        @raise ValueError: if a policy is unknown, or its configuration is invalid.
        """
        self.listener = listener
        self.config = config
        self.tally = TunnelTally()
        self.exclusions = Exclusions(clock.seconds)
        self.clusters = clusters
        self.clock = clock
        self.registry: Registry[ReverseHost | MuxHost] = Registry()
        self.judge = CredentialJudge(listener, clock, find_validator, policies)
        self.admission = Admission(
            cluster_known=lambda name: name in clusters,
            validators=make_validators(config, find_validator),
            policy=config.credential_policy,
            cluster_policies=config.cluster_credential_policies,
            find_other=self.judge.find_unconfigured,
        )
        self.streams = StreamSettings.of(config)
        descriptors = Descriptors.current().for_strangers
        self.pending = PendingConnections(min(config.max_pending_connections, descriptors // PENDING_PART))
        self.quotas = Quotas.of(config, max(int(descriptors * OWNER_SHARE), 1))
        self.join_rate = JoinRate(config.max_joins_per_second, config.handshake_timeout, self.pending.most)
        self.revocations = Revocations(
            listener, lambda: [*self.admission.validators, *self.judge.unconfigured], clock
        )
        self.transport_policy = TransportPolicy()
        self.workers = WorkerGroup()
        self.peer_log = PeerLog(listener, clock)

    def take_over(self, newer: TunnelServer) -> None:
        """
        Use the configuration of another server; connections stay.

        Whether these still qualify is decided by L{look}.
        """
        if self.routes is None:
            self.routes = newer.routes
        else:
            self.routes.take_over(newer.routes)
        self.config = newer.config
        self.admission = newer.admission
        self.streams = newer.streams
        self.judge.take_over(newer.judge)
        self.quotas.take_over(newer.quotas)
        self.pending.take_over(newer.pending)
        self.join_rate.take_over(newer.join_rate)

    def brought(self, cluster: str) -> bool:
        """Return whether an agent has brought a cluster."""
        return self.routes is not None and self.routes.claims.find(cluster) is not None

    def brings_cluster(self, init: ConnectionInit) -> bool:
        """Return whether an agent requests routes, so that its cluster may be created for it."""
        announcement = Announcement.from_extra(init.extra)
        return announcement is not None and bool(announcement.routes)

    def look(self) -> None:
        """Judge connections again if credentials, or what is demanded of transports, have changed."""
        changed = self.transport_policy.changed()
        if changed:
            self.pending.recheck()
        self.revocations.look(changed)

    def build_protocol(self, info: ConnectionInfo) -> TunnelConnection:
        """Make the protocol of an accepted connection."""
        return TunnelConnection(self, info)

    def evict(
        self, cluster: str, addresses: Iterable[str], requester: Requester
    ) -> Selection[ReverseHost | MuxHost]:
        """
        Remove the hosts that a graceful close names, as far as the requester owns them.

        @param requester: the sender, as far as its identity is proved.
        @return: what was removed, and what was refused.
        """
        selection = self.registry.select_evictable(cluster, addresses, requester)
        for held in selection.evict:
            if held.host.cluster is not None:
                held.host.cluster.remove_host(held.host, "the agent closes it gracefully")
            held.host.retire()
        return selection

    def leave(self, after: float) -> Departure:
        """
        Begin to leave: agents are told, and none may join any more.

        @param after: seconds after which agents are to dial again.
        """
        if self.departure is None:
            self.departure = Departure(self.listener, self.registry, self.config.max_joins_per_second, after)
            self.departure.tell()
        return self.departure

    def stop(self) -> None:
        """Log pending summaries about misbehaving peers."""
        self.peer_log.stop()
