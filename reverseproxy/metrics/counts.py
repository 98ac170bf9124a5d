"""Counters of ended requests, and of agents that join and leave."""

from __future__ import annotations

__all__ = [
    "LEAVE_REASONS",
    "MAX_CELLS",
    "NOWHERE",
    "OTHER",
    "EndedRequest",
    "IEndedRequest",
    "IDestination",
    "Destination",
    "RequestTally",
    "TunnelTally",
    "leave_reason",
]

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from reverseproxy.metrics.accounts import AgentFigures, Counters, RequestCell
from reverseproxy.metrics.latency import BUCKETS, CLASS_STARTS, GRID, Histogram, end_index, note_end

OTHER: Final = "other"
"""The label of everything beyond a bound, counted together."""

MAX_CELLS: Final = 1000
"""Counters that one listener has, by rule and cluster; further requests are counted together."""

MAX_REFUSALS: Final = 1000
"""Refused joins that are kept."""

MAX_REASON: Final = 300
"""Characters of a reason that are kept."""


class IDestination(Protocol):
    """Where a request went: the labels of its metrics."""

    @property
    def cluster_name(self) -> str:
        """The cluster; empty if the request was answered here."""

    @property
    def virtual_host(self) -> str:
        """The virtual host that took the request."""

    @property
    def route(self) -> str:
        """The rule of the virtual host."""


class Destination(NamedTuple):
    """Implement L{IDestination} for requests that no rule of a router takes."""

    cluster_name: str = ""
    virtual_host: str = ""
    route: str = ""


NOWHERE: Final = Destination()
"""The destination of a request that no rule took."""


class ICountedHost(Protocol):
    """A host, as far as counting its requests goes."""

    counters: Counters
    """Those that count its latest request, or those of its agent alone."""

    @property
    def figures(self) -> AgentFigures | None:
        """The counters of its agent; L{None} if no agent has brought the host, or nothing is counted."""


class IEndedRequest(Protocol):
    """A request, or a session, that has ended."""

    @property
    def rule(self) -> IDestination | None:
        """The rule that took it; L{None} if none did."""

    @property
    def host(self) -> ICountedHost | None:
        """The host that it went to; L{None} if it went to none."""

    @property
    def status(self) -> int:
        """The status of the response; 0 if there was none."""

    @property
    def started(self) -> float:
        """When it began, in seconds of the clock."""

    @property
    def received(self) -> int:
        """Bytes of the body of the request."""

    @property
    def sent(self) -> int:
        """Bytes of the body of the response."""


class EndedRequest(NamedTuple):
    """Implement L{IEndedRequest} for sessions."""

    rule: IDestination | None
    host: ICountedHost | None
    status: int
    started: float
    received: int
    sent: int


class RequestTally:
    """
    Counts the requests of one listener.

    @ivar listener: its name.
    @ivar cells: counters by cluster, virtual host and rule; bounded by L{MAX_CELLS}, as a route can take
        the name of the cluster from the request.
    @ivar errors: requests without a complete answer of a host, by cluster and reason; bounded likewise.
    @ivar rule: the rule of the previous request that had one, as most requests have the same one.
    @ivar cell: the counters of that rule.
    """

    __slots__ = ("_places", "cell", "cells", "errors", "listener", "rule")

    def __init__(self, listener: str) -> None:
        self.listener = listener
        self.rule: IDestination = Destination()  # of no request
        self.cell = RequestCell()
        self._places: dict[str, Destination] = {}
        self.cells: dict[tuple[str, str, str], RequestCell] = {}
        self.errors: dict[tuple[str, int], int] = {}

    def end(self, ended: IEndedRequest, now: float) -> None:
        """
        Count a request that has ended, or a session.

        It runs for each request, so it calls no Python function, as a call would take half of its time again.

        @param now: the time, by the clock that L{IEndedRequest.started} is read from.
        """
        cell = self.cell if ended.rule is self.rule else self._find(ended.rule)
        host = ended.host
        counters = cell.own if host is None else host.counters
        if counters.cell is not cell and counters.beside is not cell:
            assert host is not None
            agent = counters.agent
            counters = host.counters = cell.own if agent is None else agent.count_for(cell)
        seconds = now - ended.started
        if seconds < 0.0:  # the clock of a foreign reactor was set back
            seconds = 0.0
        try:
            index = BUCKETS[(seconds * GRID).__trunc__()]
            if ended.status != 200:
                index += CLASS_STARTS[ended.status]
            counters.ends[index] += 1.0
        except IndexError:
            index = end_index(ended.status, seconds)
            note_end(counters.ends, index)
        counters.seconds += seconds
        counters.sent += ended.sent
        if ended.received:
            counters.received += ended.received
        if counters.cell is None:
            # The agent's own: the rule counts the request as well.
            counters = cell.own
            try:
                counters.ends[index] += 1.0
            except IndexError:
                note_end(counters.ends, index)
            counters.seconds += seconds
            counters.sent += ended.sent
            if ended.received:
                counters.received += ended.received

    def place(self, cluster: str) -> Destination:
        """
        Return the destination of a session, which no rule of a router takes.

        @param cluster: the name of a configured cluster.
        """
        return self._places.get(cluster) or self._places.setdefault(cluster, Destination(cluster))

    def fail(
        self, place: IDestination | None, agent: AgentFigures | None, flags: int, reason: str, now: float
    ) -> None:
        """
        Count a request without a complete answer of a host.

        @param flags: the reason, as response flags.
        @param reason: the reason, for people.
        @param now: the time, in seconds since 1970.
        """
        key = ((place or NOWHERE).cluster_name, flags)
        if key not in self.errors and len(self.errors) >= MAX_CELLS:
            key = (OTHER, flags)
        self.errors[key] = self.errors.get(key, 0) + 1
        if agent is not None:
            agent.last_error = (now, reason[:MAX_REASON])

    def _find(self, found: IDestination | None) -> RequestCell:
        place = found or NOWHERE
        key = (place.cluster_name, place.virtual_host, place.route)
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= MAX_CELLS:
                key = (OTHER, OTHER, "")
            cell = self.cells.setdefault(key, RequestCell())
        if found is not None:
            self.rule, self.cell = found, cell
        return cell


LEAVE_REASONS: Final[Mapping[str, str]] = {
    "the agent leaves": "agent_left",
    "the agent closes it gracefully": "agent_left",
    "the agent closed its side": "agent_left",
    "drained by": "operator",
    "kicked by": "operator",
    "revoked": "revoked",
    "stopping": "server_stopping",
    "the cluster is draining": "server_stopping",
    "the server stops": "server_stopping",
    "the server is about to leave": "server_stopping",
    "replaced by": "replaced",
    "connection lost: the other end closed": "agent_closed",
    "connection lost": "connection_lost",
}
"""The label in metrics of each reason for leaving, by how the reason begins."""


def leave_reason(reason: str) -> str:
    """Return the label of a reason for leaving; there are few different ones."""
    return next((short for begin, short in LEAVE_REASONS.items() if reason.startswith(begin)), OTHER)


class TunnelTally:
    """
    Counts agents' connections that join, are refused, and leave.

    @ivar joins: attempts to join, by cluster (empty if it is not configured) and result.
    @ivar leaves: hosts that left, by cluster and reason (L{leave_reason}).
    @ivar handshakes: durations of handshakes, from the first byte to the answer.
    @ivar refusals: the last joins that were refused, oldest first.
    @ivar on_refusal: called with each refused join.
    """

    def __init__(self) -> None:
        self.joins: dict[tuple[str, str], int] = {}
        self.leaves: dict[tuple[str, str], int] = {}
        self.handshakes = Histogram()
        self.refusals: deque[dict[str, Any]] = deque(maxlen=MAX_REFUSALS)
        self.on_refusal: Callable[[dict[str, Any]], object] | None = None

    def joined(self, cluster: str, result: str = "accepted") -> None:
        """Count an attempt to join."""
        key = (cluster, result)
        self.joins[key] = self.joins.get(key, 0) + 1

    def refused(self, facts: dict[str, Any]) -> None:
        """Record a join that was refused."""
        self.refusals.append(facts)
        if self.on_refusal is not None:
            self.on_refusal(facts)

    def left(self, cluster: str, reason: str) -> None:
        """Count a host of an agent that has left."""
        key = (cluster, leave_reason(reason))
        self.leaves[key] = self.leaves.get(key, 0) + 1
