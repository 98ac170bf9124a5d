"""Delays between attempts: pure, given its randomness."""

from __future__ import annotations

__all__ = ["ALONE", "LONGEST", "SOON", "Backoff", "reach_cap"]

from collections.abc import Callable
from random import Random
from typing import Final

from twisted.application.internet import backoffPolicy

SHORTEST: Final = 0.2
"""Seconds, at least, before a server is asked again that is too busy."""


ALONE: Final = 10.0
"""
The longest delay in seconds after a server could not be reached, for an agent with one connection to it.
"""

LONGEST: Final = 60.0
"""The same for an agent with many connections, and after all other failures."""

EACH: Final = 4.0
"""Seconds by which that grows with each further connection."""

SOON: Final = 3.0
"""Seconds within which an attempt is repeated that has itself lasted for longer than the delay."""


def reach_cap(connections: int) -> float:
    """
    Return the longest delay in seconds after a server could not be reached.

    The first connection that succeeds makes the others dial: so with many connections each may wait for
    longer, and the agent as a whole is back as soon. With these numbers that is within 10 s for 99 of
    100 agents, however many connections they have.
    """
    return min(ALONE + EACH * max(connections - 1, 0), LONGEST)


def _no_jitter() -> float:
    return 0.0


class Backoff:
    """
    Twisted's exponential backoff with full jitter.

    The ceiling doubles from C{base} to C{cap} with each failure (L{backoffPolicy}); the delay is uniform
    between zero and the ceiling, so that the agents which a restarted server lost at the same moment do
    not come back at the same moment. Twisted's own jitter is added to the ceiling, and is a second at
    most.

    @ivar failures: failures since the last success.
    """

    def __init__(self, base: float, cap: float, random: Random, reach: float | None = None) -> None:
        """
        @param base: the first ceiling, in seconds.
        @param cap: the largest ceiling, in seconds.
        @param reach: the largest ceiling after a server could not be reached; L{None} for C{cap}.
        """
        self._base = base
        self._cap = max(base, cap)
        reach = self._cap if reach is None else max(base, min(reach, cap))
        self._ceiling = backoffPolicy(base, self._cap, factor=2.0, jitter=_no_jitter)
        self._reach_ceiling = backoffPolicy(base, reach, factor=2.0, jitter=_no_jitter)
        self._random = random
        self.failures = 0

    def adapt(self, other: Backoff) -> None:
        """Use the bounds of another one; failures stay."""
        self._base, self._cap = other._base, other._cap
        self._ceiling, self._reach_ceiling = other._ceiling, other._reach_ceiling

    def reset(self) -> None:
        """Note a success."""
        self.failures = 0

    def first(self) -> float:
        """Return a delay as after a first failure, without counting one."""
        return self._random.uniform(0.0, self._base)

    def another(self, after: float) -> float:
        """
        Return the delay before another connection is dialled in place of one that still serves.

        @param after: seconds after which the server wants that.
        @return: seconds; no more than C{cap}.
        """
        return min(after * self._random.uniform(1.0, 1.1), self._cap)

    def postponed(self, seconds: float) -> float:
        """
        Return the delay before an attempt at a time that the server has chosen.

        That counts neither as a failure nor as a success. Jitter is added for servers that tell many
        agents the same time, or hardly any.

        @param seconds: after which the server wants to be asked again.
        @return: seconds; no more than C{cap}.
        """
        if seconds >= self._cap:
            return self._random.uniform(self._cap / 2, self._cap)
        return min(max(seconds, min(SHORTEST, self._cap)) * self._random.uniform(1.0, 1.1), self._cap)

    def unreached(self, spent: float) -> float:
        """
        Count an attempt in which the server was not reached, and return the delay before the next one.

        The delay counts from the beginning of the attempt, as one that is not answered takes long by
        itself.

        @param spent: seconds that the attempt has lasted.
        @return: seconds.
        """
        delay = self._draw(self._reach_ceiling, 0.0)
        return delay - spent if delay > spent else self._random.uniform(0.0, min(delay, SOON))

    def failed(self, *, lasting: bool = False) -> float:
        """
        Count a failure, and return the delay before the next attempt.

        @param lasting: whether the cause lasts until a configuration is changed (the server does
            not know the cluster, for example): then the delay is at least half of the ceiling. As that
            may happen soon, the first delays are short nevertheless.
        @return: seconds.
        """
        return self._draw(self._ceiling, 0.5 if lasting else 0.0)

    def _draw(self, ceilings: Callable[[int], float], least: float) -> float:
        self.failures += 1
        ceiling = ceilings(self.failures - 1)
        return self._random.uniform(ceiling * least, ceiling)
