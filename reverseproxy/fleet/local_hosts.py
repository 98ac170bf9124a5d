"""
This server's agents, by their keys in the fleet.

All connections of one agent, whichever worker has them, are one host to other servers.
"""

from __future__ import annotations

__all__ = ["ILocalHostListener", "LocalHosts", "name_of"]

from collections.abc import Collection, Iterator
from functools import partial
from typing import Protocol

from twisted.logger import Logger
from zope.interface import implementer

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster, IClusterTask
from reverseproxy.fleet.records import agent_key

log = Logger()


def mode_of(host: Host) -> str:
    """
    Return C{"plain"} if a host's connection carries one request or session at a time; otherwise
    C{"streams"}.
    """
    return "plain" if host.exclusive or host.committed_protocol else "streams"


def name_of(host: Host) -> str:
    """Return the key of a host's agent; the address of a host that is not an agent's."""
    if host.server:
        return host.address.rpartition("/")[2]
    if not host.is_reverse:
        return host.address
    ip = host_of(host.address) or host.address
    return agent_key(host.identity, host.hostname, ip, host.weight, host.metadata, mode_of(host))


class ILocalHostListener(Protocol):
    """Gets events about this server's agents."""

    def agent_came(self, cluster: Cluster, agent: str) -> None:
        """Handle the first connection of an agent."""

    def agent_changed(self, cluster: Cluster, agent: str) -> None:
        """Handle another number of connections, or a change of the health or the weight of one."""

    def agent_left(self, cluster: Cluster, agent: str) -> None:
        """Handle the loss of an agent's last connection."""


@implementer(IClusterTask)
class _Members:
    """Follows the hosts of one cluster."""

    def __init__(self, own: LocalHosts, cluster: Cluster) -> None:
        self._own = own
        self._cluster = cluster

    def start(self) -> None:
        """See L{IClusterTask}."""

    def stop(self) -> None:
        """See L{IClusterTask}."""

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}."""
        if host.is_reverse and not host.server:
            self._own.joined(self._cluster, host)

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""
        self._own.left(self._cluster, host)


class LocalHosts:
    """
    The hosts of all agents that are connected to this server.

    @ivar listeners: get events about them.
    """

    def __init__(self) -> None:
        self.listeners: list[ILocalHostListener] = []
        self._agents: dict[tuple[str, str], dict[Host, None]] = {}
        self._names: dict[Host, str] = {}

    def share(self, cluster: Cluster) -> None:
        """Follow the hosts of a cluster from now on, those included that it has."""
        members = _Members(self, cluster)
        cluster.add_task(members)
        cluster.on_health = cluster.on_weight = partial(self._changed, cluster)
        for host in list(cluster.hosts.values()):
            members.joined(host)

    def find(self, cluster: str, agent: str) -> Collection[Host]:
        """Return all connections of an agent; the collection changes with them until the last one is gone."""
        return self._agents.get((cluster, agent), {})

    def name_of(self, host: Host) -> str:
        """Return the key of a host's agent; empty if it is not one of this server's agents."""
        return self._names.get(host, "")

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(list(self._agents))

    def joined(self, cluster: Cluster, host: Host) -> None:
        """Add a connection of an agent."""
        agent = self._names[host] = name_of(host)
        hosts = self._agents.setdefault((cluster.name, agent), {})
        hosts[host] = None
        for each in self.listeners:
            (each.agent_came if len(hosts) == 1 else each.agent_changed)(cluster, agent)

    def left(self, cluster: Cluster, host: Host) -> None:
        """Remove a connection of an agent."""
        agent = self._names.pop(host, None)
        if agent is None:
            return
        hosts = self._agents.get((cluster.name, agent), {})
        hosts.pop(host, None)
        if not hosts:
            self._agents.pop((cluster.name, agent), None)
        for each in self.listeners:
            (each.agent_changed if hosts else each.agent_left)(cluster, agent)

    def _changed(self, cluster: Cluster, host: Host) -> None:
        agent = self._names.get(host)
        if agent is not None:
            for each in self.listeners:
                each.agent_changed(cluster, agent)

    def is_well(self, cluster: str, agent: str) -> bool:
        """Return whether any connection of an agent is healthy."""
        return any(host.healthy for host in self._agents.get((cluster, agent), ()))
