"""
What a peer may make us do that is of no use to anybody: charged by what it costs.

Frames of HTTP/2 and of yamux that carry nothing, questions and settings among
them, are few where everything is in order.  A peer that sends them on and on
keeps us busy with them instead of others.  So they are paid for; what was
paid comes back with the time, and with what is of use.  Pure, given the time.
"""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """
    A number of things that may happen at once, and how fast it comes back.

    What is spent is what something costs, in whatever unit, rather than how often
    it happens: one frame may be the work of a thousand others.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float) -> None:
        self._burst = self._tokens = float(burst)
        self._rate = rate
        self._at = 0.0

    def spend(self, now: float, cost: float = 1) -> bool:
        """Let something happen that counts for as many as it costs; false if it is too much."""
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - cost
        self._at = now
        self._tokens = tokens
        return tokens >= 0

    def earn(self, worth: float = 1) -> None:
        """Something good has happened instead."""
        if self._tokens < self._burst:
            self._tokens += worth
