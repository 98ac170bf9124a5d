"""Publishes this server's agents: records in the directory, and health over links, which is faster."""

from __future__ import annotations

__all__ = ["AgentPublisher"]

from collections.abc import Callable, Iterator
from typing import Any

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import Cluster
from reverseproxy.fleet.announcer import Agent
from reverseproxy.fleet.interfaces import IDirectory
from reverseproxy.fleet.local_hosts import LocalHosts, mode_of
from reverseproxy.fleet.records import HostKey, HostRecord
from reverseproxy.identity import handle_of


class AgentPublisher:
    """
    An L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>} for other servers.

    @ivar directory: gets the records; L{None} for none.
    """

    def __init__(self, server_id: str, own: LocalHosts, announce: Callable[[Agent], object]) -> None:
        """
        @param own: this server's agents.
        @param announce: announces an agent's L{state} over all links.
        """
        self.directory: IDirectory | None = None
        self._id = server_id
        self._own = own
        self._announce = announce
        self._announced: dict[Agent, bool] = {}  # whether each agent is healthy, as announced
        own.listeners.append(self)

    def agent_came(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        self._note(cluster.name, agent, self._own.is_well(cluster.name, agent))
        self._publish(cluster.name, agent)

    def agent_changed(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        well = self._own.is_well(cluster.name, agent)
        if self._announced.get((cluster.name, agent)) is not well:
            self._note(cluster.name, agent, well)
        self._publish(cluster.name, agent)

    def agent_left(self, cluster: Cluster, agent: str) -> None:
        """See L{ILocalHostListener<reverseproxy.fleet.local_hosts.ILocalHostListener>}."""
        self._announced.pop((cluster.name, agent), None)
        self._announce((cluster.name, agent))
        if self.directory is not None:
            self.directory.withdraw(HostKey(cluster.name, agent, self._id))

    def _note(self, cluster: str, agent: str, well: bool) -> None:
        self._announced[cluster, agent] = well
        self._announce((cluster, agent))

    def state(self, agent: Agent) -> dict[str, Any]:
        """Return the message that announces an agent's state."""
        well = self._announced.get(agent)
        how = {"gone": True} if well is None else {"well": well}
        return {**how, "cluster": agent[0], "agent": agent[1]}

    def _publish(self, cluster: str, agent: str) -> None:
        if self.directory is None:
            return
        record = self.record(cluster, agent)
        if record is not None:
            self.directory.publish(record)

    def record(self, cluster: str, agent: str) -> HostRecord | None:
        """Return the record of an agent; L{None} if it has no connections."""
        hosts = self._own.find(cluster, agent)
        if not hosts:
            return None
        first = next(iter(hosts))
        return HostRecord(
            cluster,
            agent,
            self._id,
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

    @property
    def unhealthy(self) -> Iterator[Agent]:
        """The agents that are not healthy, which a server that has just linked can't know."""
        return (agent for agent, well in self._announced.items() if not well)


def _handle(host: Host) -> str:
    """Return the id of a host's agent in the admin API; empty if the host is not an agent's."""
    if host.identity is None:
        return ""
    return handle_of(host.identity, host_of(host.address) or "unix")
