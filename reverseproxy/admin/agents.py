"""The agents of one process: who they are, what they have brought, and how to be rid of them."""

from __future__ import annotations

__all__ = ["MOST_NAMED", "AgentIndex"]

from collections.abc import Callable, Iterator, Mapping
from heapq import nsmallest
from itertools import islice
from math import inf
from typing import Any, Final

from sortedcontainers import SortedList

from reverseproxy.addresses import host_of
from reverseproxy.admin.elsewhere import Elsewhere, describe, where, who_is
from reverseproxy.admin.slices import Steps
from reverseproxy.cluster.host import AgentHost, Host
from reverseproxy.identity import AgentIdentity, handle_of
from reverseproxy.metrics import AgentFigures, Histogram
from reverseproxy.metrics.latency import class_names, classes_of
from reverseproxy.net.tcp_info import tcp_info
from reverseproxy.tls import agreed
from reverseproxy.tunnel.server.exclusion_records import Target, target_of
from reverseproxy.tunnel.server.exclusions import Exclusions

MOST_ADDRESSES: Final = 20
"""How many of an agent's connections are named one by one."""

STRIDE: Final = 50
"""How many agents, or connections of one, are looked at in one step; see L{reverseproxy.admin.slices}."""

MOST_NAMED: Final = 250
"""How many agents have series of their own among the metrics of agents."""


def _ip(host: Host) -> str:
    return host_of(host.address) or "unix"


class _Agent:
    """
    One agent.

    @ivar hosts: its connections to this process: of which cluster each is a host,
        and since when.
    @ivar relayed: its connections to other workers, by their clusters.
    @ivar clusters: how many of both are hosts of which cluster.
    @ivar most: how many connections to this process it has had at once.
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


class AgentIndex:
    """
    Agents' connections, by agent.

    It is told of each that joins and leaves, so that to find one, or a page of
    them, takes no look at all the others.

    @ivar elsewhere: the agents of other servers of the fleet, for a directory to tell of.
    @ivar rtts: how long pings of agents took, by cluster.
    @ivar connections: connections of agents to this process.
    """

    def __init__(
        self,
        exclusions: Exclusions,
        wall: Callable[[], float],
        seconds: Callable[[], float],
    ) -> None:
        """
        @param wall: tells the time in seconds since 1970.
        @param seconds: tells the time by a clock that is never set.
        """
        self.elsewhere = Elsewhere()
        self.exclusions = exclusions
        self.rtts: dict[str, Histogram] = {}
        self.connections = 0
        self._wall = wall
        self._seconds = seconds
        self._agents: dict[str, _Agent] = {}
        self._keys: dict[Host, str] = {}
        self._in_clusters: dict[str, int] = {}
        self._names = SortedList()
        self._named: dict[str, _Agent] = {}
        self._departed = AgentFigures()  # of all that had no series of their own

    def __len__(self) -> int:
        return len(self._agents)

    def found(self, cluster: str, host: Host) -> None:
        """A host is there, since before anybody asked; only those of agents of this server are kept."""
        if host.identity is not None and not host.server and host not in self._keys:
            self.joined(cluster, host, max(0.0, self._seconds() - host.healthy_since))

    def joined(self, cluster: str, host: Host, age: float = 0.0) -> str:
        """
        A connection has joined.

        @param age: how many seconds ago.
        @return: the agent's id.
        """
        assert host.identity is not None
        key = handle_of(host.identity, _ip(host))
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = _Agent()
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
            agent.hosts[host] = (cluster, self._wall() - age)
            self.connections += 1
            agent.most = max(agent.most, len(agent.hosts))
            rtts = self.rtts.get(cluster) or self.rtts.setdefault(cluster, Histogram())
            host.measure(rtts)
        if isinstance(host, AgentHost):
            host.figures = agent.figures
        self._keys[host] = key
        return key

    def left(self, host: Host) -> str:
        """
        A connection has left.

        @return: the agent's id; empty if it was none of an agent.
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
        """A connection has gone to another worker, or has come from there, which its agent does not know."""
        agent = self._agents.get(self._keys.get(host, ""))
        if agent is None:
            return
        if host.is_remote and host in agent.hosts:
            del agent.hosts[host]
            agent.relayed[host] = cluster
            self.connections -= 1
        elif not host.is_remote and host in agent.relayed:
            del agent.relayed[host]
            agent.hosts[host] = (cluster, self._wall())
            agent.most = max(agent.most, len(agent.hosts))
            self.connections += 1

    def _forget(self, key: str, figures: AgentFigures) -> None:
        if figures.named:
            del self._named[key]
        else:
            self._departed.add(figures)

    def key_of(self, host: Host) -> str:
        """The id of the agent whose connection this is; empty if it is none of an agent."""
        return self._keys.get(host, "")

    def identity_of(self, key: str) -> AgentIdentity | None:
        """Who the agent with an id is; L{None} if it has no connection to this process."""
        agent = self._agents.get(key)
        return None if agent is None or not agent.hosts else agent.first.identity

    def targets_of(self, key: str) -> dict[str, list[str]] | None:
        """By what an agent may be kept out; L{None} if it has no connection to this process."""
        agent = self._agents.get(key)
        return None if agent is None or not agent.hosts else _targets(agent)

    # asking

    def page(self, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """
        Describe some agents, in the order of their names.

        @param arguments: C{after} and C{limit} say which; C{cluster} and
            C{identity} leave out others; or C{ids} names them.
        @return: C{agents}, and C{last}: if there may be more, after which one, whether that is still
            there or not; else L{None}.
        """
        ids = arguments.get("ids")
        if ids is not None:
            return {"agents": (yield from self._describe_all(sorted({*ids}))), "last": None}
        keys, last = yield from self._choose(arguments)
        return {"agents": (yield from self._describe_all(keys)), "last": last}

    def _choose(self, arguments: Mapping[str, Any]) -> Steps[tuple[list[str], str | None]]:
        """
        Find the agents of a page.

        An agent may come from another server between two steps, or go there.  So each step looks at
        both sides, and none is missed that is at one of them all the time.
        """
        after, limit = arguments.get("after", ""), arguments.get("limit", 100)
        cluster, identity = arguments.get("cluster"), arguments.get("identity")
        found: list[str] = []
        while part := self._next(after):
            for key in part:
                if self._is_asked_for(key, cluster, identity):
                    found.append(key)
                    if len(found) == limit:
                        return found, key
            after = part[-1]
            yield
        return found, None

    def _next(self, after: str) -> list[str]:
        """The next agents, here and elsewhere."""
        here = islice(self._names.irange(after, None, (False, True)), STRIDE)
        return sorted({*here, *islice(self.elsewhere.names(after), STRIDE)})[:STRIDE]

    def _is_asked_for(self, key: str, cluster: str | None, identity: str | None) -> bool:
        """Whether an agent is in a cluster, and has an identity, as far as that is asked for."""
        if not cluster and not identity:
            return True
        agent = self._agents.get(key)
        known = [(record.cluster, record.identity) for record in self.elsewhere.of(key)]
        if agent is not None:
            known += [(each, agent.first.identity) for each in agent.clusters]
        return any((not cluster or at == cluster) and _is(who, identity) for at, who in known)

    def _describe_all(self, keys: list[str]) -> Steps[list[dict[str, Any]]]:
        """Describe certain agents, as far as they are here, or at another server."""
        found: list[dict[str, Any]] = []
        for key in keys:
            yield
            agent, records = self._agents.get(key), self.elsewhere.of(key)
            if agent is not None:
                answer = yield from self._describe(key, agent)
                found.append({**answer, "elsewhere": where(records)})
            elif records:
                found.append(describe(key, records))
        return found

    def one(self, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Describe one agent, if it is here."""
        return self.page({"ids": [arguments["id"]]})

    def number_in(self, cluster: str) -> int:
        """How many agents are in a cluster, with those whose connections other workers have."""
        return self._in_clusters.get(cluster, 0)

    def named(self) -> Iterator[tuple[str, str, AgentFigures, list[Host]]]:
        """Say what there is to count of each agent that has series of its own: id, identity, and so on."""
        for key, agent in list(self._named.items()):
            if agent.hosts or agent.relayed:
                identity = agent.first.identity
                assert identity is not None
                yield key, identity.principal, agent.figures, list(agent.hosts)

    def others(self) -> Steps[tuple[AgentFigures, int]]:
        """Add up what was counted of all that have, or had, no series of their own; and their connections."""
        figures, connections = AgentFigures(), 0
        figures.add(self._departed)
        after = ""
        while part := list(islice(self._names.irange(after, None, (False, True)), STRIDE)):
            yield
            for agent in filter(None, map(self._agents.get, part)):
                if not agent.figures.named:
                    figures.add(agent.figures)
                    connections += len(agent.hosts)
            after = part[-1]
        return figures, connections

    def _describe(self, key: str, agent: _Agent) -> Steps[dict[str, Any]]:
        figures, first = agent.figures, agent.first
        identity = first.identity
        assert identity is not None
        excluded = self.exclusions.find(identity, _ip(first))
        answer = {
            "id": key,
            **who_is(identity),
            "agent_id": identity.agent_id or None,
            "kind": "reverseproxy" if identity.version else "mosn",
            "version": identity.version,
            "tls": agreed(first.transport) if agent.hosts else None,
            "clusters": sorted(agent.clusters),
            "most_connections": agent.most,
            "ends": class_names(classes_of(figures.ends)),
            "times": figures.lately(self._seconds()),
            "bytes": {"received": figures.received, "sent": figures.sent},
            "last_error": None
            if figures.last_error is None
            else {"time": round(figures.last_error[0], 3), "reason": figures.last_error[1]},
            "weight": first.weight,
            "excluded": None if excluded is None else {"seconds": round(excluded[0], 1), "why": excluded[1]},
            "targets": _targets(agent),
            "workers": [],
        }
        return answer | (yield from self._look_at_hosts(agent))

    def _look_at_hosts(self, agent: _Agent) -> Steps[dict[str, Any]]:
        """Describe an agent's connections together; one of MOSN's may stand for thousands."""
        healthy = carried = active = 0
        mux = False
        rtt = silent = inf
        since = self._wall()
        hosts = list(agent.hosts.items())
        for index, (host, (_, joined)) in enumerate(hosts, 1):
            if index % STRIDE == 0:
                yield
            healthy += host.healthy
            active += host.active
            since = min(since, joined)
            streams = getattr(host, "streams", None)
            if streams is not None:
                mux = True
                carried += streams
            if host.rtt is not None:
                rtt, silent = min(rtt, host.rtt), min(silent, host.unanswered)
            elif index <= MOST_ADDRESSES and (known := tcp_info(host.transport)) is not None:
                # One that is not asked whether it is there: its kernel is, from time to time.
                silent = min(silent, min(known.data_age, known.ack_age) / 1000)
        return {
            "addresses": nsmallest(MOST_ADDRESSES, (host.address for host, _ in hosts)),
            "connections": len(hosts),
            "healthy": healthy,
            "streams": carried,
            "mux": mux,
            "in_flight": active + sum(host.active for host in agent.relayed),
            "since": round(since, 3) if hosts else None,
            "last_seen": round(self._wall() - silent, 3) if silent < inf else None,
            "rtt_seconds": rtt if rtt < inf else None,
        }

    # changing

    def exclude(self, arguments: Mapping[str, Any]) -> str:
        """Keep somebody out; says what is wrong, or nothing."""
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
        """Let somebody in again; whether they were kept out."""
        lifted = [self.exclusions.lift(tuple(target)) for target in arguments["targets"]]
        return self.exclusions.lift_agent(arguments.get("agent", "")) or True in lifted

    def let_go(self, arguments: Mapping[str, Any]) -> int:
        """
        Drain the connections of an agent, or close them.

        @param arguments: C{id}, C{why}, and C{at_once} to close them.
        @return: how many there were.
        """
        agent = self._agents.get(arguments["id"])
        hosts = [] if agent is None else list(agent.hosts)
        for host in hosts:
            if arguments["at_once"]:
                host.close(arguments["why"])
            elif host.cluster is not None:
                host.cluster.remove_host(host, arguments["why"])
        return len(hosts)


def _targets(agent: _Agent) -> dict[str, list[str]]:
    """By what an agent may be kept out: its process, and all that is the same identity."""
    first = agent.first
    identity, ip = first.identity, _ip(first)
    assert identity is not None, "hosts that no agent has are not in the index"
    return {
        "process": list(target_of(identity, ip, process=True)),
        "identity": list(target_of(identity, ip)),
    }


def _is(found: AgentIdentity | None, principal: str | None) -> bool:
    """Whether somebody is who is asked for, if anybody is."""
    return not principal or (found or AgentIdentity()).principal == principal


def _principal(agent: _Agent) -> str:
    """Who has brought an agent's connections, as a policy has proved it."""
    identity = agent.first.identity
    assert identity is not None, "hosts that no agent has are not in the index"
    return identity.principal
