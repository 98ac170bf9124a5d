"""Agents as the admin API shows them: those of this process, and those of other servers of a fleet."""

from __future__ import annotations

__all__ = ["MOST_ADDRESSES", "AgentPages", "describe_remote", "servers_of"]

from collections.abc import Collection, Iterable, Mapping
from heapq import nsmallest
from itertools import islice
from math import inf
from typing import Any, Final

from reverseproxy.admin.agent_index import AgentIndex, IndexedAgent
from reverseproxy.admin.slices import Steps
from reverseproxy.fleet.records import HostRecord
from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import AgentFigures
from reverseproxy.metrics.latency import class_names, classes_of
from reverseproxy.net.tcp_info import tcp_info
from reverseproxy.tls import agreed
from reverseproxy.tunnel.server.exclusion_records import target_of

MOST_ADDRESSES: Final = 20
"""The maximum number of addresses in the description of one agent."""

STRIDE: Final = 50
"""How many agents, or connections of one, are processed in one step; see L{reverseproxy.admin.slices}."""


class AgentPages:
    """Describes agents, one by one or in pages, for the admin API."""

    def __init__(self, index: AgentIndex) -> None:
        self._index = index

    def page(self, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """
        Describe some agents, in the order of their ids.

        @param arguments: C{after} and C{limit} select the page; C{cluster} and C{identity} filter the agents;
            or C{ids} lists the agents to describe.
        @return: C{agents}, and C{last}: the id after which to continue, even if that agent has left; L{None}
            at the end.
        """
        ids = arguments.get("ids")
        if ids is not None:
            return {"agents": (yield from self._describe_all(sorted({*ids}))), "last": None}
        keys, last = yield from self._choose(arguments)
        return {"agents": (yield from self._describe_all(keys)), "last": last}

    def one(self, arguments: Mapping[str, Any]) -> Steps[dict[str, Any]]:
        """Return a L{page} with only the agent C{id}, or with none if it is unknown."""
        return self.page({"ids": [arguments["id"]]})

    def _choose(self, arguments: Mapping[str, Any]) -> Steps[tuple[list[str], str | None]]:
        """
        Find the agents of a page.

        Between two steps an agent may move to or from another server.  Each step reads both the local and the
        remote agents, so that none is missed that is always connected to one of them.
        """
        after, limit = arguments.get("after", ""), arguments.get("limit", 100)
        cluster, identity = arguments.get("cluster"), arguments.get("identity")
        found: list[str] = []
        while part := self._next(after):
            for key in part:
                if self._matches(key, cluster, identity):
                    found.append(key)
                    if len(found) == limit:
                        return found, key
            after = part[-1]
            yield
        return found, None

    def _next(self, after: str) -> list[str]:
        """Return the next ids, of local and remote agents."""
        index = self._index
        here = index.keys_after(after, STRIDE)
        return sorted({*here, *islice(index.remote.names(after), STRIDE)})[:STRIDE]

    def _matches(self, key: str, cluster: str | None, identity: str | None) -> bool:
        """Whether an agent passes the filters."""
        if not cluster and not identity:
            return True
        agent = self._index.get(key)
        known = [(record.cluster, record.identity) for record in self._index.remote.of(key)]
        if agent is not None:
            known += [(each, agent.identity) for each in agent.clusters]
        return any((not cluster or at == cluster) and _has_principal(who, identity) for at, who in known)

    def _describe_all(self, keys: list[str]) -> Steps[list[dict[str, Any]]]:
        """Describe the agents with some ids; ids of unknown agents are skipped."""
        found: list[dict[str, Any]] = []
        for key in keys:
            yield
            agent, records = self._index.get(key), self._index.remote.of(key)
            if agent is not None:
                answer = yield from self._describe(key, agent)
                found.append({**answer, "elsewhere": servers_of(records)})
            elif records:
                found.append(describe_remote(key, records))
        return found

    def _describe(self, key: str, agent: IndexedAgent) -> Steps[dict[str, Any]]:
        figures, first, identity = agent.figures, agent.first, agent.identity
        total = figures.total
        excluded = self._index.exclusions.find(identity, agent.ip)
        answer = {
            "id": key,
            **_describe_identity(identity),
            "agent_id": identity.agent_id or None,
            "kind": "reverseproxy" if identity.version else "mosn",
            "version": identity.version,
            "tls": agreed(first.transport) if agent.hosts else None,
            "clusters": sorted(agent.clusters),
            "most_connections": agent.most,
            "ends": class_names(classes_of(total.ends)),
            "times": figures.lately(self._index.seconds(), total),
            "bytes": {"received": total.received, "sent": total.sent},
            "last_error": None
            if figures.last_error is None
            else {"time": round(figures.last_error[0], 3), "reason": figures.last_error[1]},
            "weight": first.weight,
            "excluded": None if excluded is None else {"seconds": round(excluded[0], 1), "why": excluded[1]},
            "targets": agent.targets,
            "workers": [],
        }
        return answer | (yield from self._describe_connections(agent))

    def _describe_connections(self, agent: IndexedAgent) -> Steps[dict[str, Any]]:
        """Describe the connections of an agent in total; a MOSN agent may have thousands."""
        healthy = carried = active = 0
        mux = False
        rtt = silent = inf
        since = self._index.wall()
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
                # Without pings of the protocol, the kernel's TCP keepalives show that the peer is alive.
                silent = min(silent, min(known.data_age, known.ack_age) / 1000)
        return {
            "addresses": nsmallest(MOST_ADDRESSES, (host.address for host, _ in hosts)),
            "connections": len(hosts),
            "healthy": healthy,
            "streams": carried,
            "mux": mux,
            "in_flight": active + sum(host.active for host in agent.relayed),
            "since": round(since, 3) if hosts else None,
            "last_seen": round(self._index.wall() - silent, 3) if silent < inf else None,
            "rtt_seconds": rtt if rtt < inf else None,
        }


def _has_principal(found: AgentIdentity | None, principal: str | None) -> bool:
    """Whether an identity has a principal; true if no principal is given."""
    return not principal or (found or AgentIdentity()).principal == principal


def servers_of(records: Iterable[HostRecord]) -> dict[str, dict[str, Any]]:
    """Describe an agent's connections to other servers, by server."""
    found: dict[str, dict[str, Any]] = {}
    for record in records:
        at = found.setdefault(record.server, {"connections": 0, "healthy": False, "clusters": set()})
        at["connections"] += record.connections
        at["healthy"] = at["healthy"] or record.well
        at["clusters"].add(record.cluster)
    return {server: {**at, "clusters": sorted(at["clusters"])} for server, at in found.items()}


def _describe_identity(identity: AgentIdentity) -> dict[str, Any]:
    """Describe an agent's identity: what it has proved, and the host name that it claims."""
    certificate = identity.certificate
    return {
        "identity": identity.principal,
        "proved": identity.proved,
        "token": identity.name or None,
        "policy": identity.policy or None,
        "certificate": None
        if certificate is None
        else {"subject": certificate.subject, "names": list(certificate.names)},
        "claimed_host_name": identity.claim,
    }


def describe_remote(handle: str, records: Collection[HostRecord]) -> dict[str, Any]:
    """
    Describe an agent that has no connection to this server.

    @param records: its hosts in the fleet's directory; at least one.
    @return: the same keys as for an agent of this server; counters are zero, as only its servers know them.
    """
    first = next(iter(records))
    identity = first.identity or AgentIdentity()
    figures = AgentFigures()
    total = figures.total
    return {
        "id": handle,
        **_describe_identity(identity),
        "agent_id": None,
        "kind": "reverseproxy" if identity.version else "mosn",
        "version": identity.version,
        "tls": None,
        "clusters": sorted({record.cluster for record in records}),
        "most_connections": 0,
        "ends": class_names(classes_of(total.ends)),
        "times": figures.lately(0.0, total),
        "bytes": {"received": 0, "sent": 0},
        "last_error": None,
        "weight": first.weight,
        "excluded": None,
        "targets": _known_targets(identity),
        "workers": [],
        "addresses": [],
        "connections": 0,
        "healthy": 0,
        "streams": 0,
        "mux": first.mode == "streams",
        "in_flight": 0,
        "since": None,
        "last_seen": None,
        "rtt_seconds": None,
        "elsewhere": servers_of(records),
    }


def _known_targets(identity: AgentIdentity) -> dict[str, list[str]]:
    """Return the targets of a ban that are known without the agent's address."""
    known = {"identity": target_of(identity, ""), "process": target_of(identity, "", process=True)}
    return {name: list(target) for name, target in known.items() if target[0] != "address"}
