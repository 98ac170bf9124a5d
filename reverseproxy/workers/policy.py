"""
Decide which worker a connection without streams moves to; pure.

Each worker with waiting requests announces how long the oldest has waited.  A worker that
has connections compares that with its own requests.  No connection is held back meanwhile or
demanded back, and nothing counts who gave how many: a worker that gave too many soon has
waiting requests, and announces them.

One connection at a time would be too slow for a worker that has none, and all at once would
make connections oscillate.  So the number is a fraction of the connections, by how much
longer the other worker's requests have waited.

A worker that was not scheduled for a moment has requests that have waited long, but needs no
connection; and one that has just read many responses has many idle connections, but needs
them at once.  So between two workers that both have connections, persistent waiting counts:
the minimum of the oldest request's waiting time over the last L{LASTING} seconds (as CoDel,
RFC 8289, tells a standing queue from a burst), and whether any request waited in that time.
"""

from __future__ import annotations

__all__ = ["LASTING", "MARGIN", "TELL_EVERY", "Standing", "is_pressing", "may_spare", "to_give", "to_owe"]

from collections import deque
from typing import Final

TELL_EVERY: Final = 0.01
"""Seconds between two announcements of a worker with waiting requests."""

MARGIN: Final = 0.005
"""Seconds by which a request of another worker must have waited longer."""

LASTING: Final = 0.05
"""Seconds over which waiting has to persist, between workers that both have connections."""

_RATIO: Final = 1.25
"""The factor by which it must have waited longer, in addition."""

_SPARE: Final = 8
"""At least one in so many connections has to be idle before idle ones are moved."""

_PART: Final = 4
"""The largest part of the connections that is owed at once: one in so many."""


class Standing:
    """The minimum of the waiting time of a worker's oldest request over the last L{LASTING} seconds."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, float]] = deque()

    def note(self, now: float, age: float) -> None:
        """
        Record a waiting time.

        @param age: seconds; 0 if no request waits.
        """
        samples = self._samples
        # The last sample before the window gives the value at its beginning.
        while len(samples) > 1 and samples[1][0] <= now - LASTING:
            samples.popleft()
        samples.append((now, age))

    def least(self, now: float) -> float:
        """
        Return the minimum.

        @return: seconds; 0 if the samples don't cover the window yet.
        """
        if not self._samples or self._samples[0][0] > now - LASTING:
            return 0.0
        return min(age for _, age in self._samples)


def may_spare(some: bool, rested: float) -> bool:
    """
    Say whether idle connections may move, or are idle only between two bursts.

    Otherwise connections would move back and forth with every burst.

    @param some: whether the other worker has connections of its own.
    @param rested: seconds since a request last waited here.
    """
    return not some or rested > LASTING


def is_pressing(age: float, some: bool, active: int) -> bool:
    """
    Say whether to move idle connections at once.

    @param age: seconds for which the oldest request of the other worker has waited.
    @param some: whether the other worker has connections of its own.
    @param active: requests under way here.
    """
    return not some or not active or age > MARGIN


def to_give(free: int, waiting: int, connections: int) -> int:
    """
    Return how many idle connections to move at once.

    None if only few are idle: under load one always is for a moment, and it would move back
    and forth.

    @param free: idle connections here.
    @param waiting: waiting requests of the other worker.
    @param connections: all connections here, idle or not.
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
