"""What an agent has had to do: counted for each one, and bounded for each one."""

from __future__ import annotations

__all__ = ["AgentFigures"]

from reverseproxy.metrics.latency import Ends, Recently, add_ends


class AgentFigures:
    """
    The requests that one agent has had, over all its connections to this process.

    @ivar ends: how they ended, and how long they took.
    @ivar received: bytes of bodies of requests.
    @ivar sent: bytes of bodies of responses.
    @ivar last_error: when one had no complete answer of it the last time, in
        seconds since 1970, and why.
    @ivar named: whether it has series of its own among the metrics of agents.
    @ivar recently: says how long its requests took lately; made when somebody asks.
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
        """How long its requests took lately, in fine buckets."""
        if self.recently is None:
            self.recently = Recently()
        return self.recently.look(now, self.ends)

    def add(self, other: AgentFigures) -> None:
        """Count what another agent has had as if it were of this one."""
        add_ends(self.ends, other.ends)
        self.received += other.received
        self.sent += other.sent
