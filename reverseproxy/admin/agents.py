"""The agents of one process: who they are, what they have brought, and how to be rid of them."""

from __future__ import annotations

__all__ = ["MOST_NAMED", "AgentIndex", "agent_key"]

import json
from bisect import bisect_right
from collections.abc import Callable, Iterator, Mapping
from hashlib import sha256
from typing import Any, Final

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import Host
from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import AgentFigures, Histogram
from reverseproxy.metrics.latency import class_names
from reverseproxy.tls import agreed
from reverseproxy.tunnel.server.exclusions import Exclusions, Target, target_of

MOST_ADDRESSES: Final = 20
"""How many of an agent's connections are named one by one."""

MOST_NAMED: Final = 250
"""How many agents have series of their own among the metrics of agents."""


def _ip(host: Host) -> str:
    return host_of(host.address) or "unix"


def agent_key(identity: AgentIdentity, ip: str) -> str:
    """
    Name an agent: the same for all its connections, to whichever worker.

    One of this project is a process; one of MOSN's can't be told from another
    one of the same identity and address.
    """
    certificate = "" if identity.certificate is None else identity.certificate.key
    known = [identity.policy, identity.name, certificate, identity.agent_id or ip]
    return sha256(json.dumps(known).encode()).hexdigest()[:16]


class _Agent:
    """
    One agent.

    @ivar hosts: its connections to this process: of which cluster each is a host,
        and since when.
    @ivar relayed: its connections to other workers, by their clusters.
    @ivar most: how many connections to this process it has had at once.
    """

    __slots__ = ("figures", "hosts", "most", "relayed")

    def __init__(self) -> None:
        self.hosts: dict[Host, tuple[str, float]] = {}
        self.relayed: dict[Host, str] = {}
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

    @ivar rtts: how long pings of agents took, by cluster.
    @ivar connections: connections of agents to this process.
    """

    def __init__(
        self, exclusions: Exclusions, wall: Callable[[], float], seconds: Callable[[], float]
    ) -> None:
        """
        @param wall: tells the time in seconds since 1970.
        @param seconds: tells the time by a clock that is never set.
        """
        self.exclusions = exclusions
        self.rtts: dict[str, Histogram] = {}
        self.connections = 0
        self._wall = wall
        self._seconds = seconds
        self._agents: dict[str, _Agent] = {}
        self._keys: dict[Host, str] = {}
        self._sorted: list[str] | None = None
        self._named = 0
        self._departed = AgentFigures()  # of all that had no series of their own

    def __len__(self) -> int:
        return len(self._agents)

    def found(self, cluster: str, host: Host) -> None:
        """A host is there, since before anybody asked; only those of agents are kept."""
        if host.identity is not None and host not in self._keys:
            self.joined(cluster, host, max(0.0, self._seconds() - host.healthy_since))

    def joined(self, cluster: str, host: Host, age: float = 0.0) -> str:
        """
        A connection has joined.

        @param age: how many seconds ago.
        @return: the agent's id.
        """
        assert host.identity is not None
        key = agent_key(host.identity, _ip(host))
        agent = self._agents.get(key)
        if agent is None:
            agent = self._agents[key] = _Agent()
            self._sorted = None
            if self._named < MOST_NAMED:
                self._named += 1
                agent.figures.named = True
        if host.relayed:
            agent.relayed[host] = cluster
        else:
            agent.hosts[host] = (cluster, self._wall() - age)
            self.connections += 1
            agent.most = max(agent.most, len(agent.hosts))
            rtts = self.rtts.get(cluster) or self.rtts.setdefault(cluster, Histogram())
            host.measure(rtts)
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
        if agent.hosts.pop(host, None) is not None:
            self.connections -= 1
        agent.relayed.pop(host, None)
        if not agent.hosts and not agent.relayed:
            del self._agents[key]
            self._sorted = None
            self._forget(agent.figures)
        return key

    def moved(self, cluster: str, host: Host) -> None:
        """A connection has gone to another worker, or has come from there, which its agent does not know."""
        agent = self._agents.get(self._keys.get(host, ""))
        if agent is None:
            return
        if host.relayed and host in agent.hosts:
            del agent.hosts[host]
            agent.relayed[host] = cluster
            self.connections -= 1
        elif not host.relayed and host in agent.relayed:
            del agent.relayed[host]
            agent.hosts[host] = (cluster, self._wall())
            agent.most = max(agent.most, len(agent.hosts))
            self.connections += 1

    def _forget(self, figures: AgentFigures) -> None:
        if figures.named:
            self._named -= 1
        else:
            self._departed.add(figures)

    def key_of(self, host: Host) -> str:
        """The id of the agent whose connection this is; empty if it is none of an agent."""
        return self._keys.get(host, "")

    def identity_of(self, key: str) -> AgentIdentity | None:
        """Who the agent with an id is; L{None} if it has no connection to this process."""
        agent = self._agents.get(key)
        return None if agent is None or not agent.hosts else agent.first.identity

    # asking

    def page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Describe some agents, in the order of their names.

        @param arguments: C{after} and C{limit} say which; C{cluster} and
            C{identity} leave out others; or C{ids} names them.
        """
        ids = arguments.get("ids")
        if ids is not None:
            known = [(key, self._agents[key]) for key in sorted({*ids}) if key in self._agents]
            return {"agents": [self._describe(key, agent) for key, agent in known]}
        if self._sorted is None:
            self._sorted = sorted(self._agents)
        after, limit = arguments.get("after", ""), arguments.get("limit", 100)
        cluster, identity = arguments.get("cluster"), arguments.get("identity")
        found: list[dict[str, Any]] = []
        for index in range(bisect_right(self._sorted, after), len(self._sorted)):
            key = self._sorted[index]
            agent = self._agents[key]
            if cluster and cluster not in _clusters(agent):
                continue
            if identity and _principal(agent) != identity:
                continue
            found.append(self._describe(key, agent))
            if len(found) == limit:
                break
        return {"agents": found}

    def one(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Describe one agent, if it is here."""
        return self.page({"ids": [arguments["id"]]})

    def named(self) -> Iterator[tuple[str, str, AgentFigures, list[Host]]]:
        """Say what there is to count of each agent that has series of its own: id, identity, and so on."""
        for key, agent in self._agents.items():
            identity = agent.first.identity
            if agent.figures.named and identity is not None:
                yield key, identity.principal, agent.figures, list(agent.hosts)

    def others(self) -> tuple[AgentFigures, int]:
        """Add up what was counted of all that have, or had, no series of their own; and their connections."""
        figures, connections = AgentFigures(), 0
        figures.add(self._departed)
        for agent in self._agents.values():
            if not agent.figures.named:
                figures.add(agent.figures)
                connections += len(agent.hosts)
        return figures, connections

    def _describe(self, key: str, agent: _Agent) -> dict[str, Any]:
        hosts, figures, first = agent.hosts, agent.figures, agent.first
        identity = first.identity
        assert identity is not None
        certificate = identity.certificate
        times = [host.rtt for host in hosts if host.rtt is not None]
        streams = [getattr(host, "streams", None) for host in hosts]
        excluded = self.exclusions.find(identity, _ip(first))
        silent = [host.unanswered for host in hosts if host.rtt is not None]
        return {
            "id": key,
            "identity": identity.principal,
            "proved": identity.proved,
            "token": identity.name or None,
            "policy": identity.policy or None,
            "certificate": None
            if certificate is None
            else {"subject": certificate.subject, "names": list(certificate.names)},
            "claimed_host_name": identity.claim,
            "agent_id": identity.agent_id or None,
            "kind": "reverseproxy" if identity.version else "mosn",
            "version": identity.version,
            "tls": agreed(first.transport) if hosts else None,
            "clusters": sorted(_clusters(agent)),
            "addresses": sorted(host.address for host in hosts)[:MOST_ADDRESSES],
            "connections": len(hosts),
            "most_connections": agent.most,
            "healthy": sum(host.healthy for host in hosts),
            "streams": sum(number or 0 for number in streams),
            "mux": any(number is not None for number in streams),
            "in_flight": sum(host.active for host in (*hosts, *agent.relayed)),
            "ends": class_names(figures.ends.classes),
            "times": figures.lately(self._seconds()),
            "bytes": {"received": figures.received, "sent": figures.sent},
            "last_error": None
            if figures.last_error is None
            else {"time": round(figures.last_error[0], 3), "reason": figures.last_error[1]},
            "weight": first.weight,
            "since": round(min((since for _, since in hosts.values()), default=self._wall()), 3),
            "last_seen": round(self._wall() - min(silent), 3) if silent else None,
            "rtt_seconds": min(times) if times else None,
            "excluded": None if excluded is None else {"seconds": round(excluded[0], 1), "why": excluded[1]},
            "targets": {
                "process": list(target_of(identity, _ip(first), process=True)),
                "identity": list(target_of(identity, _ip(first))),
            },
            "workers": [],
        }

    # changing

    def exclude(self, arguments: Mapping[str, Any]) -> str:
        """Keep somebody out; says what is wrong, or nothing."""
        target: Target = tuple(arguments["target"])
        try:
            self.exclusions.exclude(target, float(arguments["seconds"]), arguments["why"])
        except ValueError as error:
            return str(error)
        return ""

    def lift(self, arguments: Mapping[str, Any]) -> bool:
        """Let somebody in again; whether they were kept out."""
        lifted = [self.exclusions.lift(tuple(target)) for target in arguments["targets"]]
        return True in lifted

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


def _principal(agent: _Agent) -> str:
    """Who has brought an agent's connections, as a policy has proved it."""
    identity = agent.first.identity
    assert identity is not None, "hosts that no agent has are not in the index"
    return identity.principal


def _clusters(agent: _Agent) -> set[str]:
    return {*agent.relayed.values(), *(cluster for cluster, _ in agent.hosts.values())}
