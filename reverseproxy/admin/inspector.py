"""
What one process knows of itself: answers to questions, as JSON has them.

Everything is read where it is kept, at the time of the question.  Each answer is
bounded: what there may be many of comes in pages.
"""

from __future__ import annotations

__all__ = ["Inspector", "Parts"]

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from reverseproxy.admin import lists, totals
from reverseproxy.admin.agent_figures import per_agent_families
from reverseproxy.admin.agents import AgentIndex
from reverseproxy.admin.exclusions import kept_out, let_in
from reverseproxy.admin.figures import (
    cluster_families,
    dial_families,
    join_families,
    listener_families,
    process_families,
)
from reverseproxy.admin.fleet import fleet_families, fleet_of
from reverseproxy.admin.passing import Passing
from reverseproxy.admin.pulse import Pulse
from reverseproxy.admin.slices import Steps, at_once, in_slices
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import Config
from reverseproxy.fleet.fleet import Fleet
from reverseproxy.listener import Listener
from reverseproxy.logs import LogFile, LogObserver, Throttle
from reverseproxy.metrics import Journal, RequestTally, TunnelTally
from reverseproxy.process.reloading import Reloader
from reverseproxy.tunnel.agent.agent import Agent
from reverseproxy.tunnel.server.filter import TunnelServer

REFUSALS_RATE: Final = 1.0
"""Events of joins that were refused, in each second."""

REFUSALS_BURST: Final = 100
"""How many of them may come at once."""


@dataclass
class Parts:
    """
    What a process consists of, as far as anybody may ask about it.

    @ivar tallies: counts of requests, by listener.
    @ivar tunnels: the tunnel servers, by listener.
    @ivar certificates: tells of each certificate: its use, its name and when it expires.
    @ivar stopping: says whether the process is about to end.
    @ivar leaves: counts hosts of agents that have left, by cluster.
    @ivar agent_index: the agents that have joined.
    @ivar clock: what tells the time.
    @ivar refusals: bounds the events of joins that were refused.
    @ivar pulse: looks at what nobody counts.
    @ivar access_logs: tells of the files of access logs.
    @ivar reloading: takes configurations into use; L{None} if that is another process's matter.
    @ivar observer: writes the log; L{None} if somebody else does.
    @ivar fleet: gives this server's part in a fleet; L{None} without one.
    """

    config: Config
    clusters: ClusterManager
    listeners: Mapping[str, Listener]
    agents: Iterable[Agent]
    journal: Journal
    tallies: Mapping[str, RequestTally]
    tunnels: Mapping[str, TunnelServer]
    certificates: Callable[[], list[dict[str, Any]]]
    clock: IReactorTime
    stopping: Callable[[], bool]
    agent_index: AgentIndex
    access_logs: Callable[[], list[LogFile]]
    reloading: Reloader | None = None
    observer: LogObserver | None = None
    fleet: Callable[[], Fleet | None] = lambda: None
    leaves: TunnelTally = field(default_factory=TunnelTally)
    started: float = field(init=False)
    pulse: Pulse = field(init=False)
    refusals: Throttle = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.seconds()
        self.refusals = Throttle(self.clock, REFUSALS_RATE, REFUSALS_BURST)
        self.pulse = Pulse(self.clock, partial(totals.sample, self))

    def seconds(self) -> float:
        """What the clock says that is never set."""
        return self.clock.seconds()


def note_change(parts: Parts, cluster: str, kind: str, host: Host, reason: str) -> None:
    """
    Keep what has happened to a host; for L{Cluster.on_change<reverseproxy.cluster.manager.Cluster>}.

    Hosts of other workers, and of other servers, are theirs to tell of.
    """
    if host.server:
        return  # its own server tells of it, and has it among its agents
    identity = host.identity
    agent = "" if identity is None else _update_index(parts.agent_index, cluster, kind, host)
    if host.is_remote or kind == "move":
        return
    facts: dict[str, Any] = {"cluster": cluster, "host": host.address}
    if identity is not None:
        facts |= {
            "identity": identity.principal,
            "proved": identity.proved,
            "agent_id": identity.agent_id,
            "claimed_host_name": identity.claim,
            "agent": agent,
        }
    if kind == "leave" and identity is not None:
        parts.leaves.left(cluster, reason)
    if kind == "health":
        facts["healthy"] = host.healthy
    if reason:
        facts["reason"] = reason
    parts.journal.add(kind, **facts)


def _update_index(index: AgentIndex, cluster: str, kind: str, host: Host) -> str:
    """
    Tell the index of agents what has happened to a connection.

    @return: the id of its agent; empty for a connection that has gone from one worker to another.
    """
    if kind == "join":
        return index.joined(cluster, host)
    if kind == "leave":
        return index.left(host)
    if kind == "move":
        index.moved(cluster, host)
        return ""
    return index.key_of(host)


def note_refused(parts: Parts, facts: Mapping[str, Any]) -> None:
    """
    Tell who listens to events of a join that was refused; for C{on_refusal} of L{TunnelTally}.

    Strangers can cause as many as they like, which must not push all else out.
    """
    if parts.refusals.allow():
        told = {name: value for name, value in facts.items() if name != "time"}
        parts.journal.add("refusal", **told, suppressed=int(parts.refusals.suppressed))


class Inspector:
    """Answers questions about one process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        passing = self._passing = Passing(parts.agent_index, parts.fleet, self._let_go, parts.clock)
        self._questions: dict[str, Callable[[Mapping[str, Any]], Any]] = {
            "ready": self._ready,
            "unserved": self._unserved,
            "metrics": self._metrics,
            "agent_metrics": self._agent_metrics,
            "log_level": self._log_level,
            "enable_log": self._enable_log,
            "clusters": partial(lists.clusters, parts),
            "hosts": partial(lists.hosts, parts),
            "weigh": partial(lists.weigh, parts),
            "listeners": partial(lists.listeners, parts),
            "servers": partial(lists.servers, parts),
            "refused": partial(lists.refused, parts),
            "routes": partial(lists.brought_routes, parts),
            "certificates": lambda arguments: parts.certificates(),
            "fleet": partial(fleet_of, parts),
            "summary": lambda arguments: totals.summary(parts),
            "by_route": partial(totals.by_route, parts),
            "events": self._events,
            "reload_failed": lambda arguments: parts.journal.add("reload_failed", **arguments),
            "agents": parts.agent_index.page,
            "agent": parts.agent_index.one,
            "exclude": parts.agent_index.exclude,
            "lift": parts.agent_index.lift,
            "exclusions": partial(kept_out, parts.agent_index.exclusions),
            "let_in": partial(let_in, parts.agent_index.exclusions),
            "let_go": self._let_go,
            "pass_on": passing.pass_on,
            "audited": lambda arguments: list(passing.audited),
        }
        self._origin = uuid4().hex

    @property
    def draining(self) -> bool:
        """Whether the process is about to end."""
        return self.parts.stopping()

    def stop(self) -> None:
        """Do nothing more by itself."""
        self._passing.stop()

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """
        Answer a question at once, whatever waits for that.

        @return: what JSON has; L{None} to a question that is not known.
        """
        found = self.begin(question, arguments)
        return at_once(found) if isinstance(found, Generator) else found

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer a question in turns that are short, however much there is to say."""
        found = self.begin(question, arguments)
        if isinstance(found, Deferred):
            return found
        return in_slices(found, self.parts.clock) if isinstance(found, Generator) else succeed(found)

    def begin(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """Answer a question, or begin to, in L{Steps<reverseproxy.admin.slices.Steps>}."""
        found = self._questions.get(question)
        return None if found is None else found(arguments)

    # whether it can do its work

    def _unserved(self, arguments: Mapping[str, Any]) -> list[str]:
        """Say which servers agents of this process do not serve yet."""
        agents = [agent for agent in self.parts.agents if agent.plan.config.connection_num]
        return [server for agent in agents for server in agent.unserved]

    def _ready(self, arguments: Mapping[str, Any]) -> list[str]:
        """Say what keeps the process from doing its work: nothing, if all is well."""
        parts = self.parts
        reasons = ["stopping: what is under way is finished"] if self.draining else []
        reasons += [
            f"listener {listener.name} {'lets no clients in yet' if listener.held else 'is not bound'}"
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

    def _metrics(self, arguments: Mapping[str, Any]) -> Steps[list[dict[str, Any]]]:
        parts = self.parts
        families = [*process_families(parts)]
        yield
        families += listener_families(parts, (yield from totals.fed_by_agents(parts)))
        families += yield from cluster_families(parts)
        yield
        families += join_families(parts)
        families += dial_families(parts)
        families += fleet_families(parts)
        return [family.to_json() for family in families]

    def _agent_metrics(self, arguments: Mapping[str, Any]) -> Steps[list[dict[str, Any]]]:
        families = yield from per_agent_families(self.parts)
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

    def _let_go(self, arguments: Mapping[str, Any]) -> int:
        """
        Let go of an agent, and keep an event of it.

        @param arguments: C{id}, C{why}, C{at_once}, and C{order}, by which workers that have obeyed the
            same order are known.
        """
        parts, key = self.parts, arguments["id"]
        found = parts.agent_index.identity_of(key)
        count = parts.agent_index.let_go(arguments)
        if found is not None:
            kind = "kick" if arguments["at_once"] else "drain"
            parts.journal.add(
                kind,
                agent=key,
                identity=found.principal,
                proved=found.proved,
                claimed_host_name=found.claim,
                connections=count,
                reason=arguments["why"],
                order=arguments["order"],
            )
        return count

    def _enable_log(self, arguments: Mapping[str, Any]) -> bool:
        """
        Let a log be written, or not, for as long as the process runs.

        @param arguments: C{path}, as the configuration has it, and C{enabled}.
        @return: whether there is such a log.
        """
        observer = self.parts.observer
        files = [*self.parts.access_logs(), *(() if observer is None else (observer.file,))]
        found = [file for file in files if file.path == arguments["path"]]
        for file in found:
            file.enabled = arguments["enabled"]
        return bool(found)

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
