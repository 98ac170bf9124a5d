"""Agents of a configuration with the listeners and clusters behind them."""

from __future__ import annotations

__all__ = ["AgentParts", "Surroundings"]

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from reverseproxy.cluster.health.reachability import Reach
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import Config, ListenerConfig, ProxyConfig, TcpProxyConfig, TunnelAgentConfig
from reverseproxy.listener import Listener
from reverseproxy.proxy.readiness import destinations
from reverseproxy.tls import ClientTls

if TYPE_CHECKING:
    from reverseproxy.tunnel.agent.agent import Agent


@dataclass(frozen=True, slots=True)
class AgentParts:
    """
    An agent, and the configuration that it was built from.

    @ivar config: its configuration, with this process's share of its connections.
    @ivar tls: the TLS to its servers.
    @ivar raw: whether its listener relays bytes of any protocol.
    @ivar speaks: the protocols that its listener accepts; empty for any.
    """

    config: TunnelAgentConfig
    agent: Agent
    tls: tuple[ClientTls, ...] = ()
    raw: bool = False
    speaks: tuple[str, ...] = ()


@dataclass(slots=True)
class Surroundings:
    """
    The listeners and clusters behind agents.

    @ivar config: the whole configuration.
    @ivar listeners: by name.
    @ivar clusters: by name.
    @ivar reaches: tracks which of their hosts can be reached, by cluster.
    """

    config: Config
    listeners: Mapping[str, Listener]
    clusters: Mapping[str, Cluster]
    reaches: dict[str, Reach] = field(default_factory=dict)

    def relays(self, listener: str) -> bool:
        """Return whether a listener relays bytes of any protocol."""
        [config] = [each for each in self.config.server.listeners if each.name == listener]
        return _relays(config)

    def speaks(self, listener: str) -> tuple[str, ...]:
        """Return the only protocols that a listener accepts; empty if it accepts others, too."""
        [config] = [each for each in self.config.server.listeners if each.name == listener]
        filters = [each.config for each in config.filter_chain.filters]
        found: set[str] = set()
        for each in filters:
            if not isinstance(each, ProxyConfig) or "Auto" in each.protocols or each.falls_back:
                return ()
            found.update(each.protocols)
        return tuple(sorted(found))

    def hosts_alike(self, parts: AgentParts, listener: str) -> bool:
        """Return whether an agent's announcement of a listener is still right."""
        return parts.raw is self.relays(listener) and parts.speaks == self.speaks(listener)

    def clusters_of(self, listener: str) -> list[str]:
        """Return the clusters behind a listener; empty if the reachability of one can't be tracked."""
        found = destinations(self.config, listener)
        with_hosts = {each.name for each in self.config.cluster_manager.clusters if each.hosts}
        return sorted(found) if found and found <= with_hosts & self.clusters.keys() else []


def _relays(config: ListenerConfig) -> bool:
    return all(isinstance(each.config, TcpProxyConfig) for each in config.filter_chain.filters)
