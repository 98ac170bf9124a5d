"""The agents of one process: who they are, what they have brought, and how to be rid of them."""

from __future__ import annotations

__all__ = ["AgentIndex", "agent_key", "merge_agents"]

import json
from collections.abc import Iterable, Mapping
from hashlib import sha256
from typing import Any, Final

from reverseproxy.addresses import host_of
from reverseproxy.cluster.host import Host
from reverseproxy.identity import AgentIdentity
from reverseproxy.tunnel.server.exclusions import Exclusions, Target, target_of

MOST_ADDRESSES: Final = 20
"""How many of an agent's connections are named one by one."""

_ADDED: Final = ("connections", "healthy", "streams", "in_flight", "requests")
_UNITED: Final = ("clusters", "addresses", "workers")


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


class AgentIndex:
    """
    Agents' connections, by agent.

    It is told of each that joins and leaves, so that to find one, or a page of
    them, takes no look at all the others.
    """

    def __init__(self, exclusions: Exclusions, wall: Any) -> None:
        self.exclusions = exclusions
        self._wall = wall
        self._agents: dict[str, dict[Host, tuple[str, float]]] = {}
        self._keys: dict[Host, str] = {}
        self._sorted: list[str] | None = None

    def __len__(self) -> int:
        return len(self._agents)

    def joined(self, cluster: str, host: Host) -> None:
        """A connection has joined."""
        assert host.identity is not None
        key = agent_key(host.identity, _ip(host))
        if key not in self._agents:
            self._sorted = None
        self._agents.setdefault(key, {})[host] = (cluster, self._wall())
        self._keys[host] = key

    def left(self, host: Host) -> None:
        """A connection has left."""
        key = self._keys.pop(host, None)
        if key is None:
            return
        hosts = self._agents[key]
        del hosts[host]
        if not hosts:
            del self._agents[key]
            self._sorted = None

    # asking

    def page(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Describe some agents, in the order of their names.

        @param arguments: C{after} and C{limit} say which; C{cluster} and
            C{identity} leave out others.
        """
        if self._sorted is None:
            self._sorted = sorted(self._agents)
        after, limit = arguments.get("after", ""), arguments.get("limit", 100)
        cluster, identity = arguments.get("cluster"), arguments.get("identity")
        found: list[dict[str, Any]] = []
        for key in self._sorted:
            if key <= after:
                continue
            hosts = self._agents[key]
            if cluster and not any(name == cluster for name, _ in hosts.values()):
                continue
            if identity and next(iter(hosts)).identity.principal != identity:  # type: ignore[union-attr]
                continue
            found.append(self._describe(key, hosts))
            if len(found) == limit:
                break
        return {"agents": found, "total": len(self._agents)}

    def one(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """Describe one agent, if it is here."""
        hosts = self._agents.get(arguments["id"])
        return {"agents": [] if hosts is None else [self._describe(arguments["id"], hosts)], "total": 0}

    def _describe(self, key: str, hosts: Mapping[Host, tuple[str, float]]) -> dict[str, Any]:
        first = next(iter(hosts))
        identity = first.identity
        assert identity is not None
        certificate = identity.certificate
        times = [host.rtt for host in hosts if host.rtt is not None]
        streams = [getattr(host, "streams", None) for host in hosts]
        excluded = self.exclusions.find(identity, _ip(first))
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
            "clusters": sorted({cluster for cluster, _ in hosts.values()}),
            "addresses": sorted(host.address for host in hosts)[:MOST_ADDRESSES],
            "connections": len(hosts),
            "healthy": sum(host.healthy for host in hosts),
            "streams": sum(number or 0 for number in streams),
            "mux": any(number is not None for number in streams),
            "in_flight": sum(host.active for host in hosts),
            "requests": sum(host.picked for host in hosts),
            "weight": first.weight,
            "since": round(min(since for _, since in hosts.values()), 3),
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
        hosts = list(self._agents.get(arguments["id"], ()))
        for host in hosts:
            if arguments["at_once"]:
                host.close(arguments["why"])
            elif host.cluster is not None:
                host.cluster.remove_host(host, arguments["why"])
        return len(hosts)


def merge_agents(answers: Iterable[tuple[int, Mapping[str, Any]]], limit: int) -> list[dict[str, Any]]:
    """
    Make one of what several workers know.

    Of each worker that has more, all up to its last one are here, so that the
    first C{limit} of all of them are complete.

    @param answers: by the number of the worker.
    """
    agents: dict[str, dict[str, Any]] = {}
    for worker, answer in answers:
        for found in answer["agents"]:
            agent = {**found, "workers": [worker] if worker else []}
            known = agents.setdefault(agent["id"], agent)
            if known is not agent:
                _unite(known, agent)
    return [agents[key] for key in sorted(agents)][:limit]


def _unite(known: dict[str, Any], other: Mapping[str, Any]) -> None:
    for name in _ADDED:
        known[name] += other[name]
    for name in _UNITED:
        known[name] = sorted({*known[name], *other[name]})[: MOST_ADDRESSES if name == "addresses" else None]
    known["since"] = min(known["since"], other["since"])
    times = [each for each in (known["rtt_seconds"], other["rtt_seconds"]) if each is not None]
    known["rtt_seconds"] = min(times) if times else None
    known["mux"] = known["mux"] or other["mux"]
    known["excluded"] = known["excluded"] or other["excluded"]
