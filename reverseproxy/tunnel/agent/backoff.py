"""When to try again: pure, given its randomness."""

from __future__ import annotations

__all__ = ["ALONE", "LONGEST", "SOON", "Backoff", "reach_cap"]

from collections.abc import Callable
from random import Random
from typing import Final

from twisted.application.internet import backoffPolicy

SHORTEST: Final = 0.2
"""Seconds that pass at least before a server is asked again that is too busy."""


ALONE: Final = 10.0
"""The longest wait in seconds for a server that can't be reached, of an agent with one connection to it."""

LONGEST: Final = 60.0
"""The same for an agent with many connections, and for all other reasons to wait."""

EACH: Final = 4.0
"""By how much that grows with each further connection."""

SOON: Final = 3.0
"""Seconds within which an attempt is repeated that has itself lasted for longer than the wait."""


def reach_cap(connections: int) -> float:
    """
    Say how long the connections of an agent may wait for a server that can't be reached.

    Whoever comes first tells the others, who dial then: so with many connections
    each may wait for longer, and the agent as a whole is back as soon.  With these
    numbers that is so for 99 of 100 agents within 10 s, however many connections
    they have.
    """
    return min(ALONE + EACH * max(connections - 1, 0), LONGEST)


def _no_jitter() -> float:
    return 0.0


class Backoff:
    """
    Twisted's exponential backoff, with full jitter.

    The ceiling doubles from C{base} to C{cap} with each failure (L{backoffPolicy}); the
    delay is uniform between zero and the ceiling, so that the agents which a restarted
    server lost at one moment don't come back at one moment.  Twisted's own jitter is added
    to the ceiling, and is a second at the most.

    @ivar failures: failures since the last success.
    """

    def __init__(self, base: float, cap: float, random: Random, reach: float | None = None) -> None:
        """
        @param base: the first ceiling, in seconds.
        @param cap: the largest ceiling, in seconds.
        @param reach: the largest one of waits for a server that can't be reached;
            the same if not given.
        """
        self._base = base
        self._cap = max(base, cap)
        reach = self._cap if reach is None else max(base, min(reach, cap))
        self._ceiling = backoffPolicy(base, self._cap, factor=2.0, jitter=_no_jitter)
        self._reach_ceiling = backoffPolicy(base, reach, factor=2.0, jitter=_no_jitter)
        self._random = random
        self.failures = 0

    def adapt(self, other: Backoff) -> None:
        """Have the bounds of another one; the failures so far count."""
        self._base, self._cap = other._base, other._cap
        self._ceiling, self._reach_ceiling = other._ceiling, other._reach_ceiling

    def reset(self) -> None:
        """Begin anew after a success."""
        self.failures = 0

    def first(self) -> float:
        """Choose a delay as after a first failure, without counting one."""
        return self._random.uniform(0.0, self._base)

    def another(self, after: float) -> float:
        """
        Choose the delay before another connection is dialled in place of one that still serves.

        @param after: when the server wants that, in seconds, with somebody else's place in between.
        @return: seconds; no more than C{cap}.
        """
        return min(after * self._random.uniform(1.0, 1.1), self._cap)

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

    def unreached(self, spent: float) -> float:
        """
        Count an attempt in which the server was not reached, and choose the delay before the next one.

        It is chosen from one attempt's beginning to the next one's, as an attempt
        that nobody answers has taken long enough by itself.

        @param spent: seconds that the attempt has lasted.
        @return: seconds.
        """
        delay = self._draw(self._reach_ceiling, 0.0)
        return delay - spent if delay > spent else self._random.uniform(0.0, min(delay, SOON))

    def failed(self, *, lasting: bool = False) -> float:
        """
        Count a failure and choose the delay before the next attempt.

        @param lasting: the failure will not pass by itself (the server does not
            know our cluster, say): never try again at once.  But somebody may be
            about to see to it, so that the first waits are not long either.
        @return: seconds.
        """
        return self._draw(self._ceiling, 0.5 if lasting else 0.0)

    def _draw(self, ceilings: Callable[[int], float], least: float) -> float:
        self.failures += 1
        ceiling = ceilings(self.failures - 1)
        return self._random.uniform(ceiling * least, ceiling)
