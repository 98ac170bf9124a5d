"""
The metrics of one process.

The values of labels are names of clusters, listeners and virtual hosts, which
come from the configuration, and reasons from short lists, so that the number of
series is bounded.
"""

from __future__ import annotations

__all__ = ["cluster_families", "dial_families", "join_families", "listener_families", "process_families"]

from collections.abc import Iterator, Mapping
from functools import partial
from typing import TYPE_CHECKING, Final

from reverseproxy import __version__
from reverseproxy.admin.families import Family
from reverseproxy.admin.slices import Steps, portions
from reverseproxy.cluster.host import Fault, Host, MuxHost
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.logs import LogFile
from reverseproxy.metrics import OTHER
from reverseproxy.metrics.latency import class_names, classes_of
from reverseproxy.proxy.flags import short_names

if TYPE_CHECKING:
    from reverseproxy.admin.inspector import Parts
    from reverseproxy.cluster.cluster import Cluster

PREFIX: Final = "reverseproxy_"

STRIDE: Final = 100
"""How many hosts, or other cheap items, are processed in one step; see L{reverseproxy.admin.slices}."""

CELLS: Final = 4
"""How many histograms, or counters with one, are processed in one step."""


def _family(name: str, kind: str, text: str, *labels: str) -> Family:
    return Family(PREFIX + name, kind, text, labels)


def process_families(parts: Parts) -> Iterator[Family]:
    """Return the metrics of the process as a whole."""
    build = _family("build_info", "largest", "Version of this program; the value is always 1.", "version")
    build.add(1, __version__)
    yield build
    up = _family("uptime_seconds", "largest", "Time since the process started, in seconds.")
    up.add(round(parts.seconds() - parts.started, 3))
    yield up
    expiry = _family(
        "certificate_not_after_timestamp_seconds",
        "largest",
        "Expiry time of a certificate or revocation list, in seconds since the Unix epoch.",
        "use",
        "name",
    )
    for certificate in parts.certificates():
        expiry.add(certificate["not_after"], certificate["use"], certificate["name"])
    yield expiry
    lag = _family(
        "reactor_lag_seconds",
        "histogram",
        "Delay of the event loop in seconds, sampled twice a second by a timer.",
    )
    lag.add(parts.sampler.lag)
    yield lag
    dropped = _family(
        "log_lines_dropped_total",
        "counter",
        "Log lines that were suppressed because of the limit of the log's size, or could not be written.",
    )
    dropped.add(REFUSALS["log"] + LogFile.dropped)
    yield dropped
    refused = _family(
        "refused_total",
        "counter",
        "Connections, requests and log lines refused because of violations or limits, by reason.",
        "reason",
    )
    for reason, number in REFUSALS.items():
        refused.add(number, reason)
    yield refused


def listener_families(parts: Parts, fed: Mapping[str, int]) -> Steps[list[Family]]:
    """
    Return the metrics of listeners: connections, requests and sessions.

    @param fed: the number of connections that agents have passed to each hosting listener.
    """
    connections = _family(
        "listener_connections",
        "gauge",
        "Open connections; of a hosting listener, streams and connections from tunnel servers.",
        "listener",
    )
    accepted = _family(
        "listener_connections_total",
        "counter",
        "Accepted connections; of a hosting listener, streams and connections from tunnel servers.",
        "listener",
    )
    for number, listener in enumerate(list(parts.listeners.values())):
        if number % STRIDE == 0:
            yield
        name = listener.config.name
        connections.add(listener.connections + fed.get(name, 0), name)
        accepted.add(listener.accepted, listener.config.name)
    where = ("listener", "virtual_host", "route", "cluster")
    requests = _family(
        "http_requests_total",
        "counter",
        "Completed requests and TCP sessions; code_class is none for those without a status.",
        *where,
        "code_class",
    )
    durations = _family(
        "http_request_duration_seconds",
        "histogram",
        "Time from the first byte of a request to the last byte of its response, or of a TCP session.",
        "listener",
        "cluster",
    )
    sizes = _family(
        "bytes_total",
        "counter",
        "Bytes of bodies and TCP sessions, received from clients and sent to them.",
        "listener",
        "direction",
    )
    errors = _family(
        "proxy_errors_total",
        "counter",
        "Requests and TCP sessions without a complete response from a host, by response flags.",
        "cluster",
        "reason",
    )
    for tally in list(parts.tallies.values()):
        for number, ((cluster, virtual_host, route), cell) in enumerate(list(tally.cells.items())):
            if number % CELLS == 0:
                yield
            total = cell.total
            durations.add(total.durations, tally.listener, cluster)
            sizes.add(total.received, tally.listener, "received")
            sizes.add(total.sent, tally.listener, "sent")
            for code, ended in class_names(classes_of(total.ends)).items():
                requests.add(ended, tally.listener, virtual_host, route, cluster, code)
        for number, ((cluster, flags), failed) in enumerate(list(tally.errors.items())):
            if number % STRIDE == 0:
                yield
            errors.add(failed, cluster, short_names(flags) or OTHER)
    return [connections, accepted, requests, errors, durations, sizes]


def _fault(host: Host) -> str:
    """Return the state of a host that is not healthy, as a label."""
    return "ejected" if host.health.faults == Fault.EJECTED else "unhealthy"


class _HostCounts:
    """
    The numbers of a cluster's hosts that belong to this process.

    @ivar states: hosts by state.
    @ivar connections: agents' connections by mode.
    @ivar streams: streams on agents' connections.
    """

    def __init__(self) -> None:
        self.states = {"healthy": 0, "unhealthy": 0, "ejected": 0}
        self.connections = {"plain": 0, "streams": 0}
        self.streams = 0

    def add(self, host: Host) -> None:
        """Count a host."""
        self.states["healthy" if host.healthy else _fault(host)] += 1
        if host.identity is None:
            return
        if isinstance(host, MuxHost):
            self.connections["streams"] += 1
            self.streams += host.streams
        else:
            self.connections["plain"] += 1


def _count_hosts(cluster: Cluster) -> Steps[_HostCounts]:
    counts = _HostCounts()
    for portion in portions(cluster.hosts.values(), STRIDE, partial(getattr, cluster, "left")):
        yield
        for host in portion:
            if not host.is_remote:
                counts.add(host)
    return counts


def cluster_families(parts: Parts) -> Steps[list[Family]]:
    """Return the metrics of clusters: hosts, requests under way, agents."""
    hosts = _family("hosts", "gauge", "Hosts of a cluster, by state.", "cluster", "state")
    active = _family("http_requests_in_flight", "gauge", "Requests and TCP sessions in progress.", "cluster")
    pending = _family("cluster_pending_requests", "gauge", "Requests waiting for a host.", "cluster")
    retries = _family("cluster_retries_in_flight", "gauge", "Retries in progress.", "cluster")
    retried = _family(
        "retries_total",
        "counter",
        "Retries of requests, on another host or connection.",
        "cluster",
    )
    waits = _family(
        "cluster_wait_seconds",
        "histogram",
        "Time that requests waited for a host, in seconds; those that did not wait are not counted.",
        "cluster",
    )
    ejections = _family("ejections_total", "counter", "Ejections of hosts because of failures.", "cluster")
    connections = _family(
        "tunnel_connections", "gauge", "Connections of agents that have joined.", "cluster", "mode"
    )
    streams = _family("tunnel_streams", "gauge", "Open streams on connections of agents.", "cluster")
    agents = _family("tunnel_agents", "largest", "Agents that have joined.", "cluster")
    for cluster in list(parts.clusters):
        yield
        name = cluster.name
        active.add(cluster.active, name)
        pending.add(cluster.waiting, name)
        retries.add(cluster.retries, name)
        retried.add(cluster.limits.retried, name)
        waits.add(cluster.queue.waits, name)
        ejections.add(cluster.ejector.total, name)
        counts = yield from _count_hosts(cluster)
        for state, number in counts.states.items():
            hosts.add(number, name, state)
        for mode, number in counts.connections.items():
            if number:
                connections.add(number, name, mode)
        streams.add(counts.streams, name)
        # Each worker knows all agents, so that the numbers must not be added.
        agents.add(parts.agent_index.number_in(name), name)
    return [hosts, active, pending, retries, retried, waits, ejections, connections, streams, agents]


def join_families(parts: Parts) -> Steps[list[Family]]:
    """Return the metrics of agents' connections: round trips, joins, leaves and handshakes."""
    rtts = _family(
        "tunnel_rtt_seconds", "histogram", "Round-trip time of pings to agents, in seconds.", "cluster"
    )
    for index, (name, times) in enumerate(list(parts.agent_index.rtts.items())):
        if index % CELLS == 0:
            yield
        rtts.add(times, name)
    joins = _family(
        "tunnel_joins_total", "counter", "Attempts of agents to join, by result.", "cluster", "result"
    )
    leaves = _family(
        "tunnel_leaves_total",
        "counter",
        "Connections of agents that have left, by reason.",
        "cluster",
        "reason",
    )
    handshakes = _family(
        "tunnel_handshake_duration_seconds",
        "histogram",
        "Time from the first byte of an agent's connection until it joined, in seconds.",
    )
    waiting = _family(
        "tunnel_connections_pending",
        "gauge",
        "Connections to a tunnel listener that have not joined yet.",
        "listener",
    )
    for name, server in list(parts.tunnels.items()):
        yield
        waiting.add(len(server.pending), name)
        handshakes.add(server.tally.handshakes)
        for (cluster_name, result), number in server.tally.joins.items():
            joins.add(number, cluster_name, result)
    for (cluster_name, reason), number in parts.leaves.leaves.items():
        leaves.add(number, cluster_name, reason)
    return [rtts, joins, leaves, handshakes, waiting]


def dial_families(parts: Parts) -> Iterator[Family]:
    """Return the metrics of the connections from this process's agents to their servers."""
    wanted = _family(
        "agent_connections_wanted",
        "gauge",
        "Connections that the agent should have to a tunnel server.",
        "cluster",
        "server",
    )
    serving = _family(
        "agent_connections_serving",
        "gauge",
        "Connections to a tunnel server that have joined and accept requests.",
        "cluster",
        "server",
    )
    dials = _family(
        "agent_dials_total",
        "counter",
        "Attempts to connect to a tunnel server, by result.",
        "cluster",
        "server",
        "result",
    )
    for agent in parts.agents:
        config = agent.plan.config
        for server in agent.servers:
            wanted.add(server.wanted, config.cluster, server.name)
            serving.add(server.serving, config.cluster, server.name)
            for result, number in server.dials.items():
                dials.add(number, config.cluster, server.name, result)
    yield wanted
    yield serving
    yield dials
