"""
Counters of ended requests, by rule and by agent.

A request counts for the rule that took it (L{RequestCell}) and for the agent that it went to
(L{AgentFigures}).  Adding to the counters of both would take a quarter of the time of counting, so a rule and
an agent share counters for what both have in common, and whoever reads adds up what a rule or an agent has.
"""

from __future__ import annotations

__all__ = ["MAX_SHARES", "UNCOUNTED", "Account", "AgentFigures", "Counters", "RequestCell"]

from typing import Any, Final

from reverseproxy.metrics.latency import Ends, Histogram, Recently, add_ends, coarse, no_ends, times_of

MAX_SHARES: Final = 16
"""
The number of agents that a rule shares counters with, and of rules that an agent shares counters with.

Shared counters take 1 KB, and whoever reads the rule or the agent adds them up.
"""


class Counters:
    """
    Requests that have ended.

    @ivar cell: the rule that they count for; L{None} if they count for an agent alone.
    @ivar agent: the agent that they count for; L{None} if they count for a rule alone.
    @ivar beside: for those of an agent alone, the rule that the latest request was counted for elsewhere.
    @ivar ends: the numbers of requests by class of status and duration, from the first byte to the last; if
        they count for a rule, there are those of statuses from 200 to 299 at least.
    @ivar seconds: the sum of their durations.
    @ivar received: bytes of bodies of requests.
    @ivar sent: bytes of bodies of responses.
    """

    __slots__ = ("agent", "beside", "cell", "ends", "received", "seconds", "sent")

    def __init__(self, cell: RequestCell | None = None, agent: AgentFigures | None = None) -> None:
        self.cell = cell
        self.agent = agent
        self.beside: RequestCell | None = None
        self.ends: Ends = [] if cell is None else no_ends()
        self.seconds = 0.0
        self.received = 0
        self.sent = 0

    @property
    def durations(self) -> Histogram:
        """The durations, in the buckets that are exported to Prometheus."""
        return coarse(times_of(self.ends), self.seconds)

    def add(self, other: Counters) -> None:
        """Add other counters."""
        add_ends(self.ends, other.ends)
        self.seconds += other.seconds
        self.received += other.received
        self.sent += other.sent


UNCOUNTED: Final = Counters()
"""Those of a host that no request has gone to, and no agent has brought; they count nothing."""


class Account:
    """
    What has been counted for a rule, or for an agent.

    @ivar own: the counters of requests that no shared ones count.
    @ivar shares: the counters that it shares with others, by whom with; at most L{MAX_SHARES}.
    """

    __slots__ = ("_recently", "own", "shares")

    def __init__(self, own: Counters) -> None:
        self.own = own
        self.shares: dict[Any, Counters] = {}
        self._recently: Recently | None = None  # most agents need none, as nobody looks at them

    @property
    def total(self) -> Counters:
        """All counters together; not to be changed."""
        if not self.shares:
            return self.own
        total = Counters()
        for counters in (self.own, *self.shares.values()):
            total.add(counters)
        return total

    def lately(self, now: float, total: Counters) -> list[int]:
        """
        Return the durations of the last half minute to minute, in fine buckets.

        @param total: the present L{total}, which whoever asks has added up already.
        """
        if self._recently is None:
            self._recently = Recently()
        return self._recently.look(now, total.ends)


class RequestCell(Account):
    """
    The requests of one listener to one cluster, by one rule.

    @ivar shares: the counters of its requests to single agents, by agent.
    """

    __slots__ = ()

    def __init__(self) -> None:
        super().__init__(Counters(self))


class AgentFigures(Account):
    """
    The requests that went to one agent, over all its connections to this process.

    @ivar shares: the counters of its requests by single rules, by rule.
    @ivar last_error: the time of the latest request without a complete answer of the agent, in seconds since
        1970, and the reason.
    @ivar named: whether the agent has series of its own among the metrics of agents.
    """

    __slots__ = ("last_error", "named")

    def __init__(self) -> None:
        super().__init__(Counters(agent=self))
        self.last_error: tuple[float, str] | None = None
        self.named = False

    def count_for(self, cell: RequestCell) -> Counters:
        """
        Find what counts the agent's requests by a rule.

        @return: shared counters, or the agent's own if no more can be shared.
        """
        found = self.shares.get(cell)
        if found is None:
            if len(self.shares) >= MAX_SHARES or len(cell.shares) >= MAX_SHARES:
                self.own.beside = cell
                return self.own
            found = self.shares[cell] = cell.shares[self] = Counters(cell, self)
        return found

    def leave(self) -> None:
        """
        Leave what it shares to its rules, so that other agents can.

        Requests that are still under way will count for their rules alone.
        """
        for cell, counters in self.shares.items():
            cell.own.add(counters)
            del cell.shares[self]
            self.own.add(counters)
            counters.cell = counters.agent = None
        self.shares.clear()
        self.own.agent = self.own.beside = None

    def add(self, other: AgentFigures) -> None:
        """Add the counters of another agent."""
        self.own.add(other.total)
