"""When to try again: pure, given its randomness."""

from __future__ import annotations

__all__ = ["Backoff"]

from random import Random
from typing import Final

SHORTEST: Final = 0.2
"""Seconds that pass at least before a server is asked again that is too busy."""


class Backoff:
    """
    Exponential backoff with full jitter.

    The ceiling doubles from C{base} to C{cap} with each failure; the delay is
    uniform between zero and the ceiling, so that the agents which a restarted
    server lost at one moment don't come back at one moment.

    @ivar failures: failures since the last success.
    """

    def __init__(self, base: float, cap: float, random: Random) -> None:
        """
        @param base: the first ceiling, in seconds.
        @param cap: the largest ceiling, in seconds.
        """
        self._base = base
        self._cap = max(base, cap)
        self._random = random
        self.failures = 0

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0

    def first(self) -> float:
        """Choose a delay as after a first failure, without counting one."""
        return self._random.uniform(0.0, self._base)

    def postponed(self, seconds: float) -> float:
        """
        Choose the delay before the next attempt at a time that the server chose.

        That counts neither as a failure nor as a success.  What is added is for
        servers that give many agents the same time, and for those that give none
        worth waiting for.

        @param seconds: after which the server wants to be asked again.
        @return: seconds; no more than C{cap}.
        """
        if seconds >= self._cap:
            return self._random.uniform(self._cap / 2, self._cap)
        return min(max(seconds, min(SHORTEST, self._cap)) * self._random.uniform(1.0, 1.1), self._cap)

    def failed(self, *, lasting: bool = False) -> float:
        """
        Count a failure and choose the delay before the next attempt.

        @param lasting: the failure will not pass by itself (the server does not
            know our cluster, say): never try again at once.  But somebody may be
            about to see to it, so that the first waits are not long either.
        @return: seconds.
        """
        self.failures += 1
        # 2 ** 63 would overflow nothing in Python, but a float has its limits.
        ceiling = min(self._cap, self._base * 2.0 ** min(self.failures - 1, 60))
        return self._random.uniform(ceiling / 2 if lasting else 0.0, ceiling)
