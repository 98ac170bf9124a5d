"""Counters of requests, and of agents that come and go."""

from __future__ import annotations

__all__ = [
    "LEAVE_REASONS",
    "MAX_CELLS",
    "NOWHERE",
    "OTHER",
    "Ended",
    "IEnded",
    "IPlace",
    "Place",
    "RequestCell",
    "RequestTally",
    "TunnelTally",
    "leave_reason",
]

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, Protocol

from reverseproxy.metrics.agents import AgentFigures
from reverseproxy.metrics.latency import (
    BUCKETS,
    CLASS_STARTS,
    GRID,
    Ends,
    Histogram,
    Recently,
    coarse,
    end_index,
    note_end,
    times_of,
)

OTHER: Final = "other"
"""What stands for all that there are too many of to tell them apart."""

MAX_CELLS: Final = 1000
"""How many rules, and clusters that these name, one listener tells apart."""

MAX_REFUSALS: Final = 1000
"""How many joins that were refused are kept."""

MAX_REASON: Final = 300
"""Characters of a reason that are kept."""


class IPlace(Protocol):
    """
    Where a request went.

    @ivar cluster_name: to which cluster; empty for what was answered here.
    @ivar virtual_host: by which virtual host.
    @ivar route: by which of its rules.
    """

    @property
    def cluster_name(self) -> str:
        """See above."""

    @property
    def virtual_host(self) -> str:
        """See above."""

    @property
    def route(self) -> str:
        """See above."""


class Place(NamedTuple):
    """See L{IPlace}."""

    cluster_name: str = ""
    virtual_host: str = ""
    route: str = ""


NOWHERE: Final = Place()
"""Of what no rule has taken."""


class ICounted(Protocol):
    """
    Whoever a request may have gone to.

    @ivar figures: counts those of its agent, if it has one, and anybody may ask.
    """

    @property
    def figures(self) -> AgentFigures | None:
        """See above."""


class IEnded(Protocol):
    """
    A request that has ended, or a session.

    @ivar rule: what has taken it; L{None} for nothing.
    @ivar host: who has had it; L{None} for nobody.
    @ivar status: 0 if there was none.
    @ivar started: when it began.
    @ivar received: bytes of the body of the request.
    @ivar sent: bytes of the body of the response.
    """

    @property
    def rule(self) -> IPlace | None:
        """See above."""

    @property
    def host(self) -> ICounted | None:
        """See above."""

    @property
    def status(self) -> int:
        """See above."""

    @property
    def started(self) -> float:
        """See above."""

    @property
    def received(self) -> int:
        """See above."""

    @property
    def sent(self) -> int:
        """See above."""


class Ended(NamedTuple):
    """See L{IEnded}."""

    rule: IPlace | None
    host: ICounted | None
    status: int
    started: float
    received: int
    sent: int


class RequestCell:
    """
    The requests of one listener to one cluster, by one rule.

    @ivar ends: how they ended, and how long they took, from the first byte to the
        last.
    @ivar seconds: how long they took together.
    @ivar received: bytes of bodies of requests.
    @ivar sent: bytes of bodies of responses.
    @ivar recently: says how long they took lately.
    """

    __slots__ = ("ends", "received", "recently", "seconds", "sent")

    def __init__(self) -> None:
        self.ends: Ends = []
        self.seconds = 0.0
        self.received = 0
        self.sent = 0
        self.recently = Recently()

    def lately(self, now: float) -> list[int]:
        """How long they took lately, in fine buckets."""
        return self.recently.look(now, self.ends)

    @property
    def durations(self) -> Histogram:
        """How long they took, in the buckets that Prometheus gets."""
        return coarse(times_of(self.ends), self.seconds)


class RequestTally:
    """
    Counts the requests of one listener.

    @ivar listener: its name.
    @ivar cells: by cluster, virtual host and rule; bounded by L{MAX_CELLS}, as
        routes can name clusters by what a request says.
    @ivar errors: requests that had no complete answer of a host, by cluster and
        the reason; bounded just so.
    """

    __slots__ = ("_cell", "_last", "_places", "cells", "errors", "listener")

    def __init__(self, listener: str) -> None:
        self.listener = listener
        # The last one: most requests go where the one before has gone.
        self._last: IPlace | None = None
        self._cell = RequestCell()
        self._places: dict[str, Place] = {}
        self.cells: dict[tuple[str, str, str], RequestCell] = {}
        self.errors: dict[tuple[str, int], int] = {}

    def end(self, ended: IEnded, now: float) -> None:
        """
        Count a request that has ended, or a session.

        This is done for each request: in one piece, therefore, and with nothing called that is not C.

        @param now: the time, by the clock that says when it began.
        """
        cell = self._cell if ended.rule is self._last else self._find(ended.rule)
        seconds = now - ended.started
        try:
            index = BUCKETS[(seconds * GRID).__trunc__()]
            if ended.status != 200:
                index += CLASS_STARTS[ended.status]
        except IndexError:
            index = end_index(ended.status, seconds)
        try:
            cell.ends[index] += 1
        except IndexError:
            note_end(cell.ends, index)
        sent = ended.sent
        cell.seconds += seconds
        cell.sent += sent
        host = ended.host
        agent = None
        if host is not None and (agent := host.figures) is not None:
            try:
                agent.ends[index] += 1
            except IndexError:
                note_end(agent.ends, index)
            agent.sent += sent
        if ended.received:
            cell.received += ended.received
            if agent is not None:
                agent.received += ended.received

    def place(self, cluster: str) -> Place:
        """
        Say where a session goes that no rule of a router has taken.

        @param cluster: one of the configuration's.
        """
        return self._places.get(cluster) or self._places.setdefault(cluster, Place(cluster))

    def fail(
        self, place: IPlace | None, agent: AgentFigures | None, flags: int, reason: str, now: float
    ) -> None:
        """
        Count a request that has had no complete answer of a host.

        @param flags: why, as a number that stands for it.
        @param reason: why, for people.
        @param now: the time, in seconds since 1970.
        """
        key = ((place or NOWHERE).cluster_name, flags)
        if key not in self.errors and len(self.errors) >= MAX_CELLS:
            key = (OTHER, flags)
        self.errors[key] = self.errors.get(key, 0) + 1
        if agent is not None:
            agent.last_error = (now, reason[:MAX_REASON])

    def _find(self, found: IPlace | None) -> RequestCell:
        place = found or NOWHERE
        key = (place.cluster_name, place.virtual_host, place.route)
        cell = self.cells.get(key)
        if cell is None:
            if len(self.cells) >= MAX_CELLS:
                key = (OTHER, OTHER, "")
            cell = self.cells.setdefault(key, RequestCell())
        self._last, self._cell = found, cell
        return cell


LEAVE_REASONS: Final[Mapping[str, str]] = {
    "the agent leaves": "agent_left",
    "the agent closes it gracefully": "agent_left",
    "the agent closed its side": "agent_left",
    "drained by": "operator",
    "kicked by": "operator",
    "stopping": "server_stopping",
    "the cluster is draining": "server_stopping",
    "replaced by": "replaced",
    "connection lost: the other end closed": "agent_closed",
    "connection lost": "connection_lost",
}
"""How reasons begin, and the few words that stand for them in metrics."""


def leave_reason(reason: str) -> str:
    """Classify why a host has left, so that there are few different reasons."""
    return next((short for begin, short in LEAVE_REASONS.items() if reason.startswith(begin)), OTHER)


class TunnelTally:
    """
    Counts what happens to agents' connections on their way in and out.

    @ivar joins: how many, by cluster (empty if it is not one of ours) and result.
    @ivar leaves: how many, by cluster and reason (L{leave_reason}).
    @ivar handshakes: how long they took, from the first byte to the answer.
    @ivar refusals: the last joins that were refused, oldest first.
    @ivar on_refusal: called with each of them.
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
        """Keep what is known of a join that was refused."""
        self.refusals.append(facts)
        if self.on_refusal is not None:
            self.on_refusal(facts)

    def left(self, cluster: str, reason: str) -> None:
        """Count a host that an agent had brought, and that has left."""
        key = (cluster, leave_reason(reason))
        self.leaves[key] = self.leaves.get(key, 0) + 1
