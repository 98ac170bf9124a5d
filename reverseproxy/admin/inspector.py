"""
What one process knows of itself: answers to questions, as JSON has them.

Everything is read where it is kept, at the time of the question.  Each answer is
bounded: what there may be many of comes in pages.
"""

from __future__ import annotations

__all__ = ["Inspector", "Parts"]

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from uuid import uuid4

from reverseproxy.admin import lists
from reverseproxy.admin.agents import AgentIndex
from reverseproxy.admin.figures import agent_families, cluster_families, listener_families, process_families
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import Config
from reverseproxy.listener import Listener
from reverseproxy.logs import LogObserver
from reverseproxy.metrics import Journal, RequestTally, TunnelTally
from reverseproxy.tunnel.agent.agent import Agent
from reverseproxy.tunnel.server.filter import TunnelServer


@dataclass
class Parts:
    """
    What a process consists of, as far as anybody may ask about it.

    @ivar tallies: counts of requests, by listener.
    @ivar tunnels: the tunnel servers, by listener.
    @ivar certificates: tells of each certificate: its use, its name and when it expires.
    @ivar seconds: the clock that is never set.
    @ivar stopping: says whether the process is about to end.
    @ivar leaves: counts hosts of agents that have left, by cluster.
    @ivar agent_index: the agents that have joined.
    @ivar observer: writes the log; L{None} if somebody else does.
    """

    config: Config
    clusters: ClusterManager
    listeners: Mapping[str, Listener]
    agents: Iterable[Agent]
    journal: Journal
    tallies: Mapping[str, RequestTally]
    tunnels: Mapping[str, TunnelServer]
    certificates: Callable[[], list[dict[str, Any]]]
    seconds: Callable[[], float]
    stopping: Callable[[], bool]
    agent_index: AgentIndex
    observer: LogObserver | None = None
    leaves: TunnelTally = field(default_factory=TunnelTally)
    started: float = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.seconds()


def note_change(parts: Parts, cluster: str, kind: str, host: Host, reason: str) -> None:
    """
    Keep what has happened to a host; for L{Cluster.on_change<reverseproxy.cluster.manager.Cluster>}.

    Hosts of other workers are theirs to tell of.
    """
    if host.relayed:
        return
    identity = host.identity
    facts: dict[str, Any] = {"cluster": cluster, "host": host.address}
    if identity is not None:
        facts |= {
            "identity": identity.principal,
            "proved": identity.proved,
            "agent_id": identity.agent_id,
            "claimed_host_name": identity.claim,
        }
    if kind == "join" and identity is not None:
        parts.agent_index.joined(cluster, host)
    if kind == "leave" and identity is not None:
        parts.agent_index.left(host)
        parts.leaves.left(cluster, reason)
    if kind == "health":
        facts["healthy"] = host.healthy
    if reason:
        facts["reason"] = reason
    parts.journal.add(kind, **facts)


class Inspector:
    """Answers questions about one process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        self._questions: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "ready": self._ready,
            "metrics": self._metrics,
            "log_level": self._log_level,
            "clusters": partial(lists.clusters, parts),
            "hosts": partial(lists.hosts, parts),
            "listeners": partial(lists.listeners, parts),
            "servers": partial(lists.servers, parts),
            "refused": partial(lists.refused, parts),
            "routes": partial(lists.brought_routes, parts),
            "certificates": lambda arguments: parts.certificates(),
            "events": self._events,
            "agents": parts.agent_index.page,
            "agent": parts.agent_index.one,
            "exclude": parts.agent_index.exclude,
            "lift": parts.agent_index.lift,
            "let_go": parts.agent_index.let_go,
        }
        self._origin = uuid4().hex

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self.parts.stopping()

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """
        Answer a question.

        @return: what JSON has; L{None} to a question that is not known.
        """
        found = self._questions.get(question)
        return None if found is None else found(arguments)

    # whether it can do its work

    def _ready(self, arguments: Mapping[str, Any]) -> list[str]:
        """Say what keeps the process from doing its work: nothing, if all is well."""
        parts = self.parts
        reasons = ["stopping: what is under way is finished"] if self.draining else []
        reasons += [
            f"listener {listener.name} is not bound"
            for listener in parts.listeners.values()
            if listener.config.bind_port and not listener.listening and not self.draining
        ]
        reasons += [
            f"cluster {cluster.name} has no healthy host"
            for cluster in parts.clusters
            if cluster.config.required and not cluster.healthy
        ]
        for agent in parts.agents:
            config = agent.plan.config
            if config.connection_num:
                reasons += [
                    f"agent of cluster {config.cluster}: no connection to {server} serves"
                    for server in agent.unserved
                ]
        return reasons

    # the rest

    def _metrics(self, arguments: Mapping[str, Any]) -> list[dict[str, Any]]:
        parts = self.parts
        families = [
            *process_families(parts),
            *listener_families(parts),
            *cluster_families(parts),
            *agent_families(parts),
        ]
        return [family.to_json() for family in families]

    def _events(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Say what has happened.

        @param arguments: C{seen} has the number of the last event that is known
            of each process; L{None} for only how far things have got.
        """
        journal, seen = self.parts.journal, arguments["seen"]
        events = [] if seen is None else journal.since(seen.get(self._origin, 0), arguments["limit"])
        return {"origin": self._origin, "last": journal.last, "events": events}

    def _log_level(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Say the level of the log, and set it if there is a C{level}."""
        observer = self.parts.observer
        if observer is None:
            return None
        level = arguments.get("level")
        if isinstance(level, str):
            if arguments.get("path") not in ("", None, observer.file.path):
                return None
            observer.level = level
        return {"path": observer.file.path, "level": observer.level}
