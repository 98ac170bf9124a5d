"""Samples of a few counters of the last five minutes, so that a dashboard has a history when it is opened."""

from __future__ import annotations

__all__ = ["PERIOD", "History", "Sample", "add_histories"]

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PERIOD: Final = 5.0
"""Seconds between two samples."""

KEPT: Final = 60
"""The maximum number of samples."""

MOST_CLUSTERS: Final = 50
"""The maximum number of clusters with samples."""


@dataclass(slots=True)
class Sample:
    """
    The counters at one moment.

    @ivar requests: requests that have ended so far.
    @ivar errors: requests that have ended with a status of 500 or more.
    @ivar agents: agents that have joined.
    @ivar clusters: requests to each cluster that have ended so far.
    """

    requests: int = 0
    errors: int = 0
    agents: int = 0
    clusters: dict[str, int] = field(default_factory=dict)


class History:
    """The latest samples of gauges, and the growth of counters from one sample to the next."""

    def __init__(self) -> None:
        self._last = Sample()
        self._requests: deque[int] = deque(maxlen=KEPT)
        self._errors: deque[int] = deque(maxlen=KEPT)
        self._agents: deque[int] = deque(maxlen=KEPT)
        self._clusters: dict[str, deque[int]] = {}

    def note(self, sample: Sample) -> None:
        """Keep a sample."""
        last, self._last = self._last, sample
        self._requests.append(sample.requests - last.requests)
        self._errors.append(sample.errors - last.errors)
        self._agents.append(sample.agents)
        for name, requests in sample.clusters.items():
            if name not in self._clusters and len(self._clusters) >= MOST_CLUSTERS:
                continue
            known = self._clusters.setdefault(name, deque(maxlen=KEPT))
            known.append(requests - last.clusters.get(name, 0))

    def to_json(self) -> dict[str, Any]:
        """Return the history as JSON, the oldest sample first."""
        return {
            "period": PERIOD,
            "requests": list(self._requests),
            "errors": list(self._errors),
            "agents": list(self._agents),
            "clusters": {name: list(values) for name, values in self._clusters.items()},
        }


def _add(lists: Iterable[list[int]]) -> list[int]:
    """Return the sums of lists that end at the same time."""
    total: list[int] = []
    for values in lists:
        longer, shorter = (values, total) if len(values) > len(total) else (total, values)
        start = len(longer) - len(shorter)
        total = [*longer[:start], *(a + b for a, b in zip(longer[start:], shorter, strict=True))]
    return total


def _most(lists: Iterable[list[int]]) -> list[int]:
    """Return the largest values of lists that end at the same time."""
    total: list[int] = []
    for values in lists:
        longer, shorter = (values, total) if len(values) > len(total) else (total, values)
        start = len(longer) - len(shorter)
        total = [*longer[:start], *(max(a, b) for a, b in zip(longer[start:], shorter, strict=True))]
    return total


def add_histories(histories: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Merge the histories of several workers.

    Each worker knows all agents, and counts its own requests.
    """
    known = list(histories)
    names = sorted({name for each in known for name in each["clusters"]})
    return {
        "period": PERIOD,
        "requests": _add(each["requests"] for each in known),
        "errors": _add(each["errors"] for each in known),
        "agents": _most(each["agents"] for each in known),
        "clusters": {name: _add(each["clusters"].get(name, []) for each in known) for name in names},
    }
