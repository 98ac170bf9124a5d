"""Counters of the requests of one agent, of a bounded size."""

from __future__ import annotations

__all__ = ["AgentFigures"]

from reverseproxy.metrics.latency import Ends, Recently, add_ends


class AgentFigures:
    """
    The requests that went to one agent, over all its connections to this process.

    @ivar ends: the numbers of requests by class of status and duration.
    @ivar received: bytes of bodies of requests.
    @ivar sent: bytes of bodies of responses.
    @ivar last_error: the time of the latest request without a complete answer of the agent, in seconds since
        1970, and the reason.
    @ivar named: whether the agent has series of its own among the metrics of agents.
    @ivar recently: earlier counters, for L{lately}, which creates it.
    """

    __slots__ = ("ends", "last_error", "named", "received", "recently", "sent")

    def __init__(self) -> None:
        self.ends: Ends = []
        self.received = 0
        self.sent = 0
        self.last_error: tuple[float, str] | None = None
        self.named = False
        self.recently: Recently | None = None

    def lately(self, now: float) -> list[int]:
        """Return the durations of the last half minute to minute, in fine buckets."""
        if self.recently is None:
            self.recently = Recently()
        return self.recently.look(now, self.ends)

    def add(self, other: AgentFigures) -> None:
        """Add the counters of another agent."""
        add_ends(self.ends, other.ends)
        self.received += other.received
        self.sent += other.sent
