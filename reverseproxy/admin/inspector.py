"""
Queries of the state of one process, answered with JSON values.

The state is read from the objects that own it, at the time of the query.  Each
answer is bounded; long lists come in pages.
"""

from __future__ import annotations

__all__ = ["Inspector", "Parts"]

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final
from uuid import uuid4

from twisted.internet.defer import Deferred, succeed
from twisted.internet.interfaces import IReactorTime

from reverseproxy.admin import lists, totals
from reverseproxy.admin.agent_descriptions import AgentPages
from reverseproxy.admin.agent_figures import per_agent_families
from reverseproxy.admin.agent_index import AgentIndex
from reverseproxy.admin.encoding import encode
from reverseproxy.admin.exclusions import lift_ban, list_bans
from reverseproxy.admin.families import to_json
from reverseproxy.admin.figures import (
    cluster_families,
    dial_families,
    join_families,
    listener_families,
    process_families,
)
from reverseproxy.admin.fleet import fleet_families, fleet_of
from reverseproxy.admin.orders import OrderForwarder
from reverseproxy.admin.sampling import Sampler
from reverseproxy.admin.slices import Steps, at_once, in_slices
from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import Config
from reverseproxy.logs import LogFile, LogObserver, Throttle
from reverseproxy.metrics import Journal, RequestTally, TunnelTally
from reverseproxy.process.reloading import Reloader

if TYPE_CHECKING:
    from reverseproxy.fleet.fleet import Fleet
    from reverseproxy.listener import Listener
    from reverseproxy.tunnel.agent.agent import Agent
    from reverseproxy.tunnel.server.filter import TunnelServer

REFUSALS_RATE: Final = 1.0
"""The maximum rate of events about refused joins, per second."""

REFUSALS_BURST: Final = 100
"""The maximum number of such events at once."""


@dataclass
class Parts:
    """
    The parts of a process that the admin API shows or controls.

    @ivar tallies: counters of requests, by listener.
    @ivar tunnels: the tunnel servers, by listener.
    @ivar certificates: returns each certificate's use, name and time of expiry, which may be C{inf}.
    @ivar stopping: returns whether the process is stopping.
    @ivar leaves: counts hosts of agents that have left, by cluster.
    @ivar agent_index: the agents that have joined.
    @ivar refusals: limits the rate of events about refused joins.
    @ivar sampler: samples the event loop's lag and the counters.
    @ivar access_logs: returns the files of access logs.
    @ivar reloading: reloads the configuration; L{None} if another process does.
    @ivar observer: writes the log; L{None} if the program that embeds this one does.
    @ivar fleet: returns this server's part in a fleet; L{None} without one.
    @ivar started: when the process started, in seconds of the clock.
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
    sampler: Sampler = field(init=False)
    refusals: Throttle = field(init=False)

    def __post_init__(self) -> None:
        self.started = self.seconds()
        self.refusals = Throttle(self.clock, REFUSALS_RATE, REFUSALS_BURST)
        self.sampler = Sampler(self.clock, partial(totals.sample, self))

    def seconds(self) -> float:
        """Return the time in seconds of a monotonic clock."""
        return self.clock.seconds()


def note_change(parts: Parts, cluster: str, kind: str, host: Host, reason: str) -> None:
    """
    Record a change of a host; a callback for L{Cluster.on_change<reverseproxy.cluster.manager.Cluster>}.

    Changes of hosts that belong to other workers or other servers are recorded by those.
    """
    if host.server:
        return
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
    Update the index of agents after a change of a connection.

    @return: the id of its agent; empty for a connection that was handed from one worker to another.
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
    Add an event about a refused join; a callback for C{on_refusal} of L{TunnelTally}.

    The rate is limited, as any peer can cause refusals, which must not displace all other events.
    """
    if parts.refusals.allow():
        told = {name: value for name, value in facts.items() if name != "time"}
        parts.journal.add("refusal", **told, suppressed=int(parts.refusals.suppressed))


class Inspector:
    """Answers queries about one process."""

    def __init__(self, parts: Parts) -> None:
        self.parts = parts
        orders = self._orders = OrderForwarder(
            parts.agent_index, parts.fleet, self._close_connections, parts.clock
        )
        agents = AgentPages(parts.agent_index)
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
            "routes": partial(lists.agent_routes, parts),
            "certificates": partial(lists.certificates, parts),
            "fleet": partial(fleet_of, parts),
            "summary": partial(totals.summary, parts),
            "by_route": partial(totals.by_route, parts),
            "events": self._events,
            "reload_failed": lambda arguments: parts.journal.add("reload_failed", **arguments),
            "agents": agents.page,
            "agent": agents.one,
            "exclude": parts.agent_index.exclude,
            "lift": parts.agent_index.lift,
            "exclusions": partial(list_bans, parts.agent_index.exclusions),
            "lift_ban": partial(lift_ban, parts.agent_index.exclusions),
            "close_connections": self._close_connections,
            "forward_order": orders.forward,
            "audited": lambda arguments: list(orders.audited),
        }
        self._origin = uuid4().hex

    @property
    def draining(self) -> bool:
        """Whether the process is stopping."""
        return self.parts.stopping()

    def stop(self) -> None:
        """Cancel delayed calls."""
        self._orders.stop()

    def answer(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """
        Answer a query in one step, which blocks the event loop for as long as it takes.

        @return: a value of JSON; L{None} for an unknown query.
        """
        found = self.begin(question, arguments)
        return at_once(found) if isinstance(found, Generator) else found

    def ask(self, question: str, arguments: Mapping[str, Any]) -> Deferred[Any]:
        """Answer a query in short steps, between which the event loop runs."""
        found = self.begin(question, arguments)
        if isinstance(found, Deferred):
            return found
        return in_slices(found, self.parts.clock) if isinstance(found, Generator) else succeed(found)

    def ask_encoded(self, question: str, arguments: Mapping[str, Any]) -> Deferred[list[bytes]]:
        """
        Answer a query as L{ask} does, for another process.

        @return: the answer as JSON, in pieces.
        """
        return self.ask(question, arguments).addCallback(
            lambda value: in_slices(encode(value), self.parts.clock)
        )

    def begin(self, question: str, arguments: Mapping[str, Any]) -> Any:
        """
        Begin to answer a query.

        @return: the answer, or a L{Deferred} or L{Steps<reverseproxy.admin.slices.Steps>} that result in it;
            L{None} for an unknown query.
        """
        found = self._questions.get(question)
        return None if found is None else found(arguments)

    # readiness

    def _unserved(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the servers to which agents of this process have no serving connection yet."""
        agents = [agent for agent in self.parts.agents if agent.plan.config.connection_num]
        return [server for agent in agents for server in agent.unserved]

    def _ready(self, arguments: Mapping[str, Any]) -> list[str]:
        """Return the reasons why the process is not ready; empty if it is."""
        parts = self.parts
        reasons = ["stopping: requests in progress are finished"] if self.draining else []
        reasons += [
            f"listener {listener.name} {'accepts no clients yet' if listener.held else 'is not bound'}"
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
                    f"agent of cluster {config.cluster}: no serving connection to {server}"
                    for server in agent.unserved
                ]
        return reasons

    # metrics, events and logs

    def _metrics(self, arguments: Mapping[str, Any]) -> Steps[list[dict[str, Any]]]:
        parts = self.parts
        families = [*process_families(parts)]
        yield
        families += yield from listener_families(parts, (yield from totals.fed_by_agents(parts)))
        families += yield from cluster_families(parts)
        families += yield from join_families(parts)
        yield
        families += dial_families(parts)
        yield
        families += fleet_families(parts)
        return (yield from to_json(families))

    def _agent_metrics(self, arguments: Mapping[str, Any]) -> Steps[list[dict[str, Any]]]:
        return (yield from to_json((yield from per_agent_families(self.parts))))

    def _events(self, arguments: Mapping[str, Any]) -> dict[str, Any]:
        """
        Return new events.

        @param arguments: C{seen}: the number of the last known event, by process; L{None} to get no events,
            but the number of the last one.
        """
        journal, seen = self.parts.journal, arguments["seen"]
        events = [] if seen is None else journal.since(seen.get(self._origin, 0), arguments["limit"])
        return {"origin": self._origin, "last": journal.last, "events": events}

    def _close_connections(self, arguments: Mapping[str, Any]) -> int:
        """
        Drain or close the connections of an agent, and add an event about it.

        @param arguments: C{id}, C{why}, C{at_once}, and C{order}, the id that all workers get with the same
            order.
        @return: the number of connections.
        """
        parts, key = self.parts, arguments["id"]
        found = parts.agent_index.identity_of(key)
        count = parts.agent_index.close_connections(arguments)
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
                order=arguments.get("order", ""),
            )
        return count

    def _enable_log(self, arguments: Mapping[str, Any]) -> bool:
        """
        Enable or disable a log, until the process stops.

        @param arguments: C{path}, as in the configuration, and C{enabled}.
        @return: whether there is such a log.
        """
        observer = self.parts.observer
        files = [*self.parts.access_logs(), *(() if observer is None else (observer.file,))]
        found = [file for file in files if file.path == arguments["path"]]
        for file in found:
            file.enabled = arguments["enabled"]
        return bool(found)

    def _log_level(self, arguments: Mapping[str, Any]) -> dict[str, Any] | None:
        """Set the level of the log if a C{level} is given, and return its path and level."""
        observer = self.parts.observer
        if observer is None:
            return None
        level = arguments.get("level")
        if isinstance(level, str):
            if arguments.get("path") not in ("", None, observer.file.path):
                return None
            observer.level = level
        return {"path": observer.file.path, "level": observer.level}
