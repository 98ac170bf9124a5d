"""
Histograms of durations, fine enough for quantiles.

Durations are counted in buckets whose bounds grow by about a quarter each, so that
the error of a quantile is about an eighth, whatever the times are.  Each bound of
L{DURATION_BOUNDS} is also one of these.
"""

from __future__ import annotations

__all__ = [
    "BUCKETS",
    "CLASS_STARTS",
    "DURATION_BOUNDS",
    "FINE_BOUNDS",
    "GRID",
    "GRID_END",
    "Ends",
    "Histogram",
    "Recently",
    "add_ends",
    "class_names",
    "classes_of",
    "coarse",
    "end_index",
    "no_ends",
    "note_end",
    "quantile",
    "times_of",
]

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from itertools import pairwise
from operator import add
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
"""Upper bounds of the buckets that are exported to Prometheus, in seconds."""

_PARTS: Final = 4
"""Fine buckets in each of the coarse ones."""

_CORNERS: Final = (0.0001, 0.00025, 0.0005, *DURATION_BOUNDS)

_GRID: Final = 100_000
"""Steps per second; each fine bound is a multiple of a step."""

FINE_BOUNDS: Final[tuple[float, ...]] = (
    *(
        round(low * (high / low) ** (part / _PARTS) * _GRID) / _GRID
        for low, high in pairwise(_CORNERS)
        for part in range(_PARTS)
    ),
    _CORNERS[-1],
)
"""Upper bounds of the fine buckets, in seconds; one more bucket has no upper bound."""

GRID: Final = _GRID * (1 - 2**-50)
"""The factor from seconds to an index of C{BUCKETS}; below C{_GRID}, as a bucket includes its upper bound."""

GRID_END: Final = 0.1
"""The time that C{BUCKETS} ends at, in seconds."""

BUCKETS: Final = [bisect_left(FINE_BOUNDS, (step + 1) / _GRID) for step in range(round(_GRID * GRID_END))]
"""
The fine bucket of each step of time, up to L{GRID_END}.

An index takes a third of the time of a search in the bounds.  This is a list, as the interpreter
has a faster instruction for indexing lists than for C{bytes}.
"""

_COARSE: Final = (*(bisect_left(DURATION_BOUNDS, bound) for bound in FINE_BOUNDS), len(DURATION_BOUNDS))
"""The index of the coarse bucket that contains each fine one."""


class Histogram:
    """
    A histogram of durations.

    @ivar bounds: the upper bounds of the buckets but the last, in seconds.
    @ivar counts: the number of durations in each bucket alone; not cumulative.
    @ivar total: the sum of the durations, in seconds.
    """

    __slots__ = ("bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float] = DURATION_BOUNDS) -> None:
        self.bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def note(self, seconds: float) -> None:
        """Count a duration; a negative one, as the clock was set back, counts as 0."""
        seconds = max(0.0, seconds)
        self.counts[bisect_left(self.bounds, seconds)] += 1
        self.total += seconds


def coarse(counts: Sequence[int], total: float) -> Histogram:
    """
    Return the histogram that is exported to Prometheus.

    @param counts: fine buckets.
    @param total: the sum of the durations, in seconds.
    """
    histogram = Histogram()
    histogram.total = total
    for bucket, count in zip(_COARSE, counts, strict=True):
        histogram.counts[bucket] += count
    return histogram


def quantile(counts: Sequence[int], share: float) -> float | None:
    """
    Return a quantile of durations.

    @param counts: fine buckets.
    @param share: which quantile, from 0 to 1.
    @return: seconds, interpolated linearly within a bucket; L{None} without durations.
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


_WIDTH: Final = len(FINE_BOUNDS) + 1
"""The number of fine buckets."""

_CLASSES: Final = (2, 0, 4, 5, 3, 1, 6, 7, 8, 9)
"""The first digits of statuses, 0 for none; the more frequent ones come first."""

CLASS_STARTS: Final = tuple(_CLASSES.index(status // 100) * _WIDTH for status in range(1000))
"""The index in C{Ends} of the first bucket of each status."""

NO_STATUS: Final = "none"
"""The name of the class of requests without a status."""

Ends = list[float]
"""
The numbers of ended requests by class of status and duration.

It consists of the fine buckets of each class, one class after the other, and grows when a class is needed.
The numbers are whole, but C{float}: adding these takes the interpreter three quarters of the time of C{int},
as it keeps the memory of earlier ones at hand.
"""


def end_index(status: int, seconds: float) -> int:
    """Return the index in C{Ends} of a request with any status and duration."""
    start = CLASS_STARTS[status if 0 <= status < 1000 else 0]
    return start + bisect_left(FINE_BOUNDS, seconds)


def no_ends() -> Ends:
    """Return counts of the first class of statuses, which is that of 200."""
    return [0.0] * _WIDTH


def note_end(ends: Ends, index: int) -> None:
    """Count a request, and extend C{ends} if it is the first one of its class."""
    missing = index // _WIDTH * _WIDTH + _WIDTH - len(ends)
    ends.extend([0.0] * missing)
    ends[index] += 1.0


def add_ends(ends: Ends, other: Ends) -> None:
    """Add the counts of C{other} to C{ends}."""
    size = len(other)
    ends.extend([0.0] * (size - len(ends)))
    ends[:size] = map(add, ends, other)


def classes_of(ends: Ends) -> dict[int, int]:
    """Return the number of requests by the first digit of the status, 0 without a status."""
    found = {
        _CLASSES[start // _WIDTH]: int(sum(ends[start : start + _WIDTH]))
        for start in range(0, len(ends), _WIDTH)
    }
    return {first: number for first, number in found.items() if number}


def times_of(ends: Ends) -> list[int]:
    """Return the number of requests by duration, in fine buckets."""
    return [int(sum(ends[bucket::_WIDTH])) for bucket in range(_WIDTH)]


def class_names(classes: Mapping[int, int]) -> dict[str, int]:
    """Replace the first digits of statuses by the names of the classes: C{2xx} and so on."""
    return {f"{hundred}xx" if hundred else NO_STATUS: classes[hundred] for hundred in sorted(classes)}


class Recently:
    """
    The recent growth of counters.

    It does not slow counting down: reading it copies the counters from time to time, and the result is the
    difference from the copy before the last one.
    """

    __slots__ = ("_marks", "_period")

    def __init__(self, period: float = 30.0) -> None:
        """
        @param period: the minimum time between two copies, in seconds.
        """
        self._period = period
        self._marks: list[tuple[float, Ends]] = []

    def look(self, now: float, ends: Ends) -> list[int]:
        """
        Return the durations of the last C{period} to two periods, or since the first call.

        @param now: the time, in seconds.
        @param ends: the counters.
        @return: fine buckets.
        """
        marks = self._marks
        if not marks or now - marks[-1][0] >= self._period:
            marks.append((now, ends.copy()))
            del marks[:-2]
        if len(marks) < 2:
            return times_of(ends)
        return [count - old for count, old in zip(times_of(ends), times_of(marks[0][1]), strict=True)]
