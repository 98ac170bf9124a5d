"""What all connections of one agent share."""

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
"""Keys of an agent's configuration that may change while its connections stay."""


@dataclass(frozen=True)
class AgentPlan:
    """
    What the peers of one agent share.

    @ivar config: the agent's configuration.
    @ivar sink: the hosting listener.
    @ivar credentials: the source of credentials; L{None} without a credential policy.
    @ivar client_tls: makes the TLS settings for a server's name; L{None} for plain TCP.
    @ivar agent_id: the agent's id for servers of this project.
    @ivar service: whose health is reported to servers; L{None} if none is.
    @ivar raw: whether the hosting listener relays bytes, so that a connection without streams is useful
        only while the service is reachable.
    @ivar speaks: the protocols that the hosting listener accepts; empty for any.
    @ivar seed: determines the choice of servers, if not all are dialled; differs for each agent.
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
        """The settings of streams; L{None} if connections carry none."""
        return StreamSettings.of(self.config) if self.config.announce else None

    def make_init(self, credential: str, local_address: str) -> ConnectionInit:
        """
        Make a connection's init frame.

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
        """Return the credential for one dial."""
        if self.credentials is None:
            return succeed("")
        # A source may be a plug-in, and may raise at once or fail later.
        return maybeDeferred(self.credentials.fetch, self.config.cluster)


def route_request(config: TunnelAgentConfig) -> RouteRequest:
    """Return the routes that the configuration has the agent request."""
    return RouteRequest(config.routes.domains, config.routes.subdomains, config.routes.port)


def new_agent_id() -> str:
    """Return an id that is unique, and can't be guessed."""
    return token_hex(16)
