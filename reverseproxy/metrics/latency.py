"""
How long requests have taken, finely enough to say what most of them took.

Times go into buckets whose bounds grow by about a quarter each, so that a
quantile is right to an eighth or so, whatever the times are; each bound of
L{DURATION_BOUNDS} is one of them.
"""

from __future__ import annotations

__all__ = [
    "DURATION_BOUNDS",
    "FINE_BOUNDS",
    "HUNDREDS",
    "Ends",
    "Histogram",
    "Recently",
    "class_names",
    "classes_of",
    "coarse",
    "quantile",
    "times_of",
]

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Final

DURATION_BOUNDS: Final = (
    0.001,
    0.0025,
    0.005,
    0.01,
    0.025,
    0.05,
    0.1,
    0.25,
    0.5,
    1.0,
    2.5,
    5.0,
    10.0,
    30.0,
    60.0,
)
"""Upper bounds of the buckets of times that Prometheus gets, in seconds."""

_PARTS: Final = 4
"""Fine buckets in each of the coarse ones."""

_CORNERS: Final = (0.0001, 0.00025, 0.0005, *DURATION_BOUNDS)

FINE_BOUNDS: Final[tuple[float, ...]] = (
    *(low * (high / low) ** (part / _PARTS) for low, high in pairwise(_CORNERS) for part in range(_PARTS)),
    _CORNERS[-1],
)
"""Upper bounds of the fine buckets, in seconds; what takes longer has one more."""

_COARSE: Final = (*(bisect_left(DURATION_BOUNDS, bound) for bound in FINE_BOUNDS), len(DURATION_BOUNDS))
"""Which coarse bucket each fine one is part of."""


class Histogram:
    """
    How often something took how long.

    @ivar bounds: the upper bounds of the buckets but the last, in seconds.
    @ivar counts: how often, by bucket; each is for itself, not for all up to it.
    @ivar total: all of it together, in seconds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """Count one."""
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


def coarse(counts: Sequence[int], total: float) -> Histogram:
    """Make what Prometheus gets of fine buckets."""
    histogram = Histogram()
    histogram.total = total
    for bucket, count in zip(_COARSE, counts, strict=True):
        histogram.counts[bucket] += count
    return histogram


def quantile(counts: Sequence[int], share: float) -> float | None:
    """
    Say how long so many took at the most.

    @param counts: fine buckets.
    @param share: how many, from 0 to 1.
    @return: seconds, as if those of a bucket were spread over it; L{None} if
        there are none.
    """
    wanted = sum(counts) * share
    if not wanted:
        return None
    passed = 0
    for index, count in enumerate(counts):
        if count and passed + count >= wanted:
            if index == len(FINE_BOUNDS):
                break
            low = FINE_BOUNDS[index - 1] if index else 0.0
            return low + (FINE_BOUNDS[index] - low) * (wanted - passed) / count
        passed += count
    return FINE_BOUNDS[-1]


_SHIFT: Final = 7
"""Bits that the number of a fine bucket takes."""

HUNDREDS: Final = tuple(status // 100 << _SHIFT for status in range(1000))
"""The hundred of each status, where the keys of C{Ends} have it."""

NO_STATUS: Final = "none"
"""What stands for the hundred of a request that has had no status."""


Ends = dict[int, int]
"""
How requests have ended, and how long they took: one number for each pair of these.

So that to count one is one addition, the key is the hundred of the status and
the fine bucket of the time in one: C{hundred << 7 | bucket}.  There can be no
more than seven hundred, and there are a handful.
"""


def classes_of(ends: Ends) -> dict[int, int]:
    """How many had a status of which hundred; 0 for none."""
    classes: dict[int, int] = {}
    for key, number in ends.items():
        classes[key >> _SHIFT] = classes.get(key >> _SHIFT, 0) + number
    return classes


def times_of(ends: Mapping[int, int]) -> list[int]:
    """How many took how long, in fine buckets; see C{Ends}."""
    times = [0] * (len(FINE_BOUNDS) + 1)
    for key, number in ends.items():
        times[key & (1 << _SHIFT) - 1] += number
    return times


def class_names(classes: Mapping[int, int]) -> dict[str, int]:
    """Name the hundreds of statuses: C{2xx} and so on."""
    return {f"{hundred}xx" if hundred else NO_STATUS: classes[hundred] for hundred in sorted(classes)}


class Recently:
    """
    What has been counted lately, of what is counted for ever.

    It costs nothing to count: whoever looks leaves a mark, and what is older
    than the last mark but one is left out.
    """

    __slots__ = ("_marks", "_period")

    def __init__(self, period: float = 30.0) -> None:
        """
        @param period: seconds between two marks, at the least.
        """
        self._period = period
        self._marks: list[tuple[float, dict[int, int]]] = []

    def look(self, now: float, ends: Ends) -> list[int]:
        """
        Say how long requests took lately: since a look that is C{period} ago or longer, or the first one.

        @param ends: all that have been counted.
        @return: fine buckets.
        """
        marks = self._marks
        if not marks or now - marks[-1][0] >= self._period:
            marks.append((now, dict(ends)))
            del marks[:-2]
        if len(marks) < 2:
            return times_of(ends)
        return [count - old for count, old in zip(times_of(ends), times_of(marks[0][1]), strict=True)]
