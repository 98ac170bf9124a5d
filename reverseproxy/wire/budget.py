"""
A token bucket for work that a peer causes and that serves no request.

Frames of HTTP/2 and yamux that carry nothing, such as PING and SETTINGS, are few
from a correct peer.  One that sends them without end would keep the process busy.
So each is charged by its cost; tokens come back with time, and with useful frames.
Pure: given the time.
"""

from __future__ import annotations

__all__ = ["Budget"]


class Budget:
    """
    A token bucket.

    It is charged by cost rather than by count, as one frame may be as much work as a
    thousand others.
    """

    __slots__ = ("_at", "_burst", "_rate", "_tokens")

    def __init__(self, burst: int, rate: float) -> None:
        """
        @param burst: the most tokens, which are there at first.
        @param rate: tokens that come back in a second.
        """
        self._burst = self._tokens = float(burst)
        self._rate = rate
        self._at = 0.0

    def spend(self, now: float, cost: float = 1) -> bool:
        """Take tokens; return whether there were enough."""
        tokens = min(self._burst, self._tokens + (now - self._at) * self._rate) - cost
        self._at = now
        self._tokens = tokens
        return tokens >= 0

    def earn(self, worth: float = 1) -> None:
        """Give tokens back, for something useful."""
        if self._tokens < self._burst:
            self._tokens += worth
