"""What all connections of one agent have in common."""

from __future__ import annotations

__all__ = ["ADAPTABLE", "AgentPlan", "new_agent_id", "route_request"]

from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from secrets import token_hex
from typing import Any

from twisted.internet.defer import Deferred, maybeDeferred, succeed

from reverseproxy.config.models import TunnelAgentConfig
from reverseproxy.interfaces import IConnectionSink, ICredentialSource
from reverseproxy.tls import ClientTls
from reverseproxy.tunnel.agent.service import HostedService
from reverseproxy.tunnel.streams import StreamSettings
from reverseproxy.wire.mosn.extensions import Announcement
from reverseproxy.wire.mosn.frames import ConnectionInit
from reverseproxy.wire.mosn.route_requests import RouteRequest

ADAPTABLE = frozenset(
    {
        "connect_retry_times",
        "connect_timeout_duration",
        "connection_num",
        "dns_refresh_duration",
        "graceful_close_max_wait_duration",
        "reconnect_base_duration",
        "reconnect_max_duration",
        "server_count",
        "server_list",
        "service_check_interval",
        "stable_duration",
    }
)
"""Keys of an agent's configuration that may change while its connections go on."""


@dataclass(frozen=True)
class AgentPlan:
    """
    Everything that the peers of one agent share.

    @ivar sink: the hosting listener.
    @ivar credentials: L{None} without a credential policy.
    @ivar client_tls: makes the TLS settings for the server of a given name;
        L{None} for plain TCP.
    @ivar agent_id: names this agent to servers of ours.
    @ivar service: what servers are told of; L{None} if they are told nothing.
    @ivar raw: whether the hosting listener relays bytes, so that a connection
        that carries no streams is of use only while the service can be reached.
    @ivar speaks: the protocols that the hosting listener takes; empty if it takes any.
    @ivar seed: what decides to which servers it connects, if not to all; another one for each agent.
    """

    config: TunnelAgentConfig
    sink: IConnectionSink
    reactor: Any
    random: Random
    credentials: ICredentialSource | None
    client_tls: Callable[[str], ClientTls] | None
    agent_id: str
    service: HostedService | None = None
    raw: bool = False
    speaks: tuple[str, ...] = ()
    seed: str = ""

    @property
    def marks(self) -> bool:
        """Whether what is sent on a connection without streams can begin with a mark."""
        return self.raw and self.service is not None

    @property
    def streams(self) -> StreamSettings | None:
        """How streams are to be carried; L{None} if connections are to be leased as a whole."""
        return StreamSettings.of(self.config) if self.config.announce else None

    def make_init(self, credential: str, local_address: str) -> ConnectionInit:
        """
        Make the frame with which a connection introduces itself.

        @param local_address: the connection's own address, as the agent sees it.
        """
        config, streams = self.config, self.streams
        extra = None
        if config.announce:
            extra = Announcement(
                agent=self.agent_id,
                local_address=local_address,
                metadata=dict(config.metadata),
                mux=() if streams is None else streams.offer,
                window=0 if streams is None else streams.window,
                tells=self.service is not None,
                marks=self.marks,
                routes=route_request(config),
                moves=streams is not None,
                speaks=self.speaks,
            ).to_extra()
        return ConnectionInit(
            cluster_name=config.cluster,
            weight=config.weight,
            host_name=config.host_name,
            credential_policy=config.credential_policy,
            credential=credential,
            extra=extra,
        )

    def fetch_credential(self) -> Deferred[str]:
        """Ask for the credential of one dial."""
        if self.credentials is None:
            return succeed("")
        # A source may be a plug-in: one that raises has failed like one that fails later.
        return maybeDeferred(self.credentials.fetch, self.config.cluster)


def route_request(config: TunnelAgentConfig) -> RouteRequest:
    """What routes the configuration has the agent ask for."""
    return RouteRequest(config.routes.domains, config.routes.subdomains, config.routes.port)


def new_agent_id() -> str:
    """Make a name that no other agent has, nor can guess."""
    return token_hex(16)
