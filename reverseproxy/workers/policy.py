"""
Which worker a plain connection goes to: pure.

Each worker whose requests wait says so, and how long the oldest has waited.  One
that has connections compares that with its own.  Nothing is held back meanwhile,
nothing is asked back, and nobody counts who has given how many: whoever has given
too much waits himself soon, and says so.

One connection at a time would be too slow for a worker that has none, and all of
them at once would make the connections go to and fro: so what is owed is a part of
what there is, by how much longer the other one has waited.

A worker that was not given the processor for a moment has requests that have waited long,
and no use for another connection, and one that has just read many answers has many free
connections, and needs them all in the next moment.  So between two workers that both have
connections counts what has lasted: the least that the oldest request has waited at any
moment of the last L{LASTING} seconds (as CoDel, RFC 8289, tells a queue that stands from a
burst), and whether any has waited in that time at all.
"""

from __future__ import annotations

__all__ = ["LASTING", "MARGIN", "TELL_EVERY", "Standing", "is_pressing", "may_spare", "to_give", "to_owe"]

from collections import deque
from typing import Final

TELL_EVERY: Final = 0.01
"""Seconds between two messages of a worker whose requests wait."""

MARGIN: Final = 0.005
"""Seconds that a request of another worker must have waited longer, at the least."""

LASTING: Final = 0.05
"""Seconds for which something has to have been so, between workers that both have connections."""

_RATIO: Final = 1.25
"""How many times as long, besides."""

_SPARE: Final = 8
"""Connections of which one has to be free, before any is given that nobody uses."""

_PART: Final = 4
"""If another worker's requests wait for ever and ours do not, it is owed one in so many of what we have."""


class Standing:
    """How long a worker's oldest request has waited in the last L{LASTING} seconds, at the least."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def note(self, now: float, age: float) -> None:
        """
        It has waited for so long.

        @param age: seconds; 0 if none waits.
        """
        samples = self._samples
        # The last one before the time that counts says how it was when that began.
        while len(samples) > 1 and samples[1][0] <= now - LASTING:
            samples.popleft()
        samples.append((now, age))

    def least(self, now: float) -> float:
        """
        Say how long that was at the least.

        @return: seconds; 0 if that is not known for so long yet.
        """
        if not self._samples or self._samples[0][0] > now - LASTING:
            return 0.0
        return min(age for _, age in self._samples)


def may_spare(some: bool, rested: float) -> bool:
    """
    Say whether what is free here may go to another worker, or is only so for a moment.

    Where requests come and go in bursts, what is free at one worker for a moment would
    go to the other one, and come back in the next moment.

    @param some: whether that worker has connections of its own.
    @param rested: seconds for which no request has been seen to wait here.
    """
    return not some or rested > LASTING


def is_pressing(age: float, some: bool, active: int) -> bool:
    """
    Say whether to give at once what is free.

    @param age: seconds that the oldest request of another worker has waited.
    @param some: whether that worker has connections of its own.
    @param active: how many requests are under way here.
    """
    return not some or not active or age > MARGIN


def to_give(free: int, waiting: int, connections: int) -> int:
    """
    Say how many connections to give at once that nobody uses here.

    None where hardly any are free: under load there always is one for a moment, and
    it would go to and fro.

    @param free: how many there are.
    @param waiting: how many requests of another worker wait.
    @param connections: how many connections there are here, free or not.
    """
    return min(waiting, (free + 1) // 2) if free * _SPARE > connections else 0


def to_owe(age: float, own: float, waiting: int, connections: int) -> int:
    """
    Say how many of the connections that become free next are another worker's.

    @param age: seconds that its oldest request has waited.
    @param own: seconds that ours has; 0 if none waits.
    @param waiting: how many of its requests wait.
    @param connections: how many connections there are here.
    """
    if age <= _RATIO * own + MARGIN or not waiting or not connections:
        return 0
    # Rounded, as otherwise the last bit of a number decided whether it is one more.
    part = round(connections * (age - own) / (age + own) / _PART, 6)
    return max(1, min(waiting, int(part)))
