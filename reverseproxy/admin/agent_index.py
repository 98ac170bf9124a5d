"""An index of one process's connections from agents, by agent."""

from __future__ import annotations

__all__ = ["MOST_NAMED", "AgentIndex", "IndexedAgent"]

from collections.abc import Callable, Iterator, Mapping
from itertools import islice
from typing import Any, Final

from sortedcontainers import SortedList

from reverseproxy.addresses import host_of
from reverseproxy.admin.remote_agents import RemoteAgents
from reverseproxy.admin.slices import Steps
from reverseproxy.cluster.host import AgentHost, Host
from reverseproxy.identity import AgentIdentity, handle_of
from reverseproxy.metrics import AgentFigures, Histogram
from reverseproxy.tunnel.server.exclusion_records import Target, target_of
from reverseproxy.tunnel.server.exclusions import Exclusions

STRIDE: Final = 10
"""How many agents are processed in one step; see L{reverseproxy.admin.slices}."""

MOST_NAMED: Final = 250
"""The maximum number of agents with their own series in the metrics of agents."""


def _ip(host: Host) -> str:
    return host_of(host.address) or "unix"


class IndexedAgent:
    """
    One agent, with its connections.

    @ivar hosts: its connections to this process, each with its cluster and the time at which it joined, in
        seconds since 1970.
    @ivar relayed: its connections to other workers, each with its cluster.
    @ivar clusters: the number of both by cluster.
    @ivar most: the largest number of simultaneous connections so far, to this worker and all others.
    @ivar figures: the counters of its requests.
    """

    __slots__ = ("clusters", "figures", "hosts", "most", "relayed")

    def __init__(self) -> None:
        self.hosts: dict[Host, tuple[str, float]] = {}
        self.relayed: dict[Host, str] = {}
        self.clusters: dict[str, int] = {}
        self.most = 0
        self.figures = AgentFigures()

    @property
    def first(self) -> Host:
        """One of its connections."""
        return next(iter(self.hosts or self.relayed))

    @property
    def ip(self) -> str:
        """Its IP address, or C{"unix"} for a Unix socket."""
        return _ip(self.first)

    @property
    def identity(self) -> AgentIdentity:
        """Its identity, proved or claimed."""
        identity = self.first.identity
        assert identity is not None, "the index has only hosts that belong to agents"
        return identity

    @property
    def targets(self) -> dict[str, list[str]]:
        """The targets of a ban: C{process} for this agent alone, C{identity} for all with its identity."""
        return {
            "process": list(target_of(self.identity, self.ip, process=True)),
            "identity": list(target_of(self.identity, self.ip)),
        }


class AgentIndex:
    """
    The connections of agents to one process, by agent.

    It is updated whenever a connection joins or leaves, so that finding an agent, or a page of agents, needs
    no scan of all others.

    @ivar remote: the agents of other servers of the fleet; to be registered as a listener of the fleet's
        directory.
    @ivar exclusions: the bans that this server enforces.
    @ivar rtts: histograms of round-trip times of pings to agents, by cluster.
    @ivar connections: the number of agents' connections to this process.
    @ivar wall: returns the time in seconds since 1970.
    @ivar seconds: returns the time in seconds of a monotonic clock.
    """

    def __init__(
        self,
        exclusions: Exclusions,
        wall: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        self.remote = RemoteAgents()
        self.exclusions = exclusions
        self.rtts: dict[str, Histogram] = {}
        self.connections = 0
        self.wall = wall
        self.seconds = seconds
        self._agents: dict[str, IndexedAgent] = {}
        self._keys: dict[Host, str] = {}
        self._in_clusters: dict[str, int] = {}
        self._names = SortedList()
        self._named: dict[str, IndexedAgent] = {}
        self._departed = AgentFigures()  # of all agents that left and had no series of their own

    def __len__(self) -> int:
        return len(self._agents)

    # updates

    def found(self, cluster: str, host: Host) -> None:
        """Add a connection that joined earlier than this index, if it belongs to an agent of this server."""
        if host.identity is not None and not host.server and host not in self._keys:
            self.joined(cluster, host, max(0.0, self.seconds() - host.healthy_since))

    def joined(self, cluster: str, host: Host, age: float = 0.0) -> str:
        """
        Add a connection.

        @param age: the time since it joined, in seconds.
        @return: the id of its agent.
        """
        assert host.identity is not None
        key = handle_of(host.identity, _ip(host))
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = IndexedAgent()
            self._names.add(key)
            if len(self._named) < MOST_NAMED:
                self._named[key] = agent
                agent.figures.named = True
        if cluster not in agent.clusters:
            self._in_clusters[cluster] = self._in_clusters.get(cluster, 0) + 1
        agent.clusters[cluster] = agent.clusters.get(cluster, 0) + 1
        if host.is_remote:
            agent.relayed[host] = cluster
        else:
            agent.hosts[host] = (cluster, self.wall() - age)
            self.connections += 1
            rtts = self.rtts.get(cluster) or self.rtts.setdefault(cluster, Histogram())
            host.measure(rtts)
        # Of all workers, as connections are lost at one worker and come back at another.
        agent.most = max(agent.most, len(agent.hosts) + len(agent.relayed))
        if isinstance(host, AgentHost):
            host.counters = agent.figures.own
        self._keys[host] = key
        return key

    def left(self, host: Host) -> str:
        """
        Remove a connection.

        @return: the id of its agent; empty if it did not belong to an agent.
        """
        key = self._keys.pop(host, None)
        if key is None:
            return ""
        agent = self._agents[key]
        held = agent.hosts.pop(host, None)
        if held is not None:
            self.connections -= 1
        cluster = held[0] if held is not None else agent.relayed.pop(host)
        agent.clusters[cluster] -= 1
        if not agent.clusters[cluster]:
            del agent.clusters[cluster]
            self._in_clusters[cluster] -= 1
        if not agent.hosts and not agent.relayed:
            del self._agents[key]
            self._names.remove(key)
            self._forget(key, agent.figures)
        return key

    def moved(self, cluster: str, host: Host) -> None:
        """Record that a connection was handed to or from another worker, which its agent does not notice."""
        agent = self._agents.get(self._keys.get(host, ""))
        if agent is None:
            return
        if host.is_remote and host in agent.hosts:
            del agent.hosts[host]
            agent.relayed[host] = cluster
            self.connections -= 1
        elif not host.is_remote and host in agent.relayed:
            del agent.relayed[host]
            agent.hosts[host] = (cluster, self.wall())
            self.connections += 1

    def _forget(self, key: str, figures: AgentFigures) -> None:
        figures.leave()
        if figures.named:
            del self._named[key]
        else:
            self._departed.add(figures)

    # lookups

    def get(self, key: str) -> IndexedAgent | None:
        """Return the agent with an id, also if only other workers have its connections; else L{None}."""
        return self._agents.get(key)

    def keys_after(self, key: str, most: int) -> list[str]:
        """Return the next ids after an id, in order, at most C{most} of them."""
        return list(islice(self._names.irange(key, None, (False, True)), most))

    def key_of(self, host: Host) -> str:
        """Return the id of the agent that a connection belongs to; empty if it belongs to none."""
        return self._keys.get(host, "")

    def identity_of(self, key: str) -> AgentIdentity | None:
        """Return the identity of an agent; L{None} if it has no connection to this process."""
        agent = self._agents.get(key)
        return None if agent is None or not agent.hosts else agent.identity

    def targets_of(self, key: str) -> dict[str, list[str]] | None:
        """Return L{IndexedAgent.targets} of an agent; L{None} if it has no connection to this process."""
        agent = self._agents.get(key)
        return None if agent is None or not agent.hosts else agent.targets

    def number_in(self, cluster: str) -> int:
        """Return the number of agents of a cluster, including those whose connections other workers have."""
        return self._in_clusters.get(cluster, 0)

    def named(self) -> Iterator[tuple[str, str, AgentFigures, list[Host]]]:
        """Iterate over the agents with their own series: id, identity, counters and connections."""
        for key, agent in list(self._named.items()):
            if agent.hosts or agent.relayed:
                yield key, agent.identity.principal, agent.figures, list(agent.hosts)

    def others(self) -> Steps[tuple[AgentFigures, int]]:
        """
        Sum up the counters of all agents, past and present, without series of their own.

        @return: the sums, and the number of their connections.
        """
        figures, connections = AgentFigures(), 0
        figures.add(self._departed)
        after = ""
        while part := self.keys_after(after, STRIDE):
            yield
            for agent in filter(None, map(self._agents.get, part)):
                if not agent.figures.named:
                    figures.add(agent.figures)
                    connections += len(agent.hosts)
            after = part[-1]
        return figures, connections

    # operators' actions

    def exclude(self, arguments: Mapping[str, Any]) -> str:
        """
        Ban a target.

        @param arguments: C{target}, C{seconds}, C{why}, and optionally C{id} and C{agent}.
        @return: the reason if that is impossible; else empty.
        """
        target: Target = tuple(arguments["target"])
        try:
            self.exclusions.exclude(
                target,
                float(arguments["seconds"]),
                arguments["why"],
                arguments.get("id", ""),
                arguments.get("agent", ""),
            )
        except ValueError as error:
            return str(error)
        return ""

    def lift(self, arguments: Mapping[str, Any]) -> bool:
        """
        Lift the bans of C{targets}, and all bans of an C{agent}.

        @return: whether there were any.
        """
        lifted = [self.exclusions.lift(tuple(target)) for target in arguments["targets"]]
        return self.exclusions.lift_agent(arguments.get("agent", "")) or True in lifted

    def close_connections(self, arguments: Mapping[str, Any]) -> int:
        """
        Drain the connections of an agent, or close them immediately.

        @param arguments: C{id}, C{why}, and C{at_once}: whether to close them immediately.
        @return: their number.
        """
        agent = self._agents.get(arguments["id"])
        hosts = [] if agent is None else list(agent.hosts)
        for host in hosts:
            if arguments["at_once"]:
                host.close(arguments["why"])
            elif host.cluster is not None:
                host.cluster.remove_host(host, arguments["why"])
        return len(hosts)
