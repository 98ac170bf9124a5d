"""How the last minutes were, in a few numbers: for who comes to look, and has not looked before."""

from __future__ import annotations

__all__ = ["PERIOD", "History", "Sample", "add_histories"]

from collections import deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

PERIOD: Final = 5.0
"""Seconds between two samples."""

KEPT: Final = 60
"""How many samples are kept."""

MOST_CLUSTERS: Final = 50
"""Of how many clusters there are samples."""


@dataclass(slots=True)
class Sample:
    """
    What there is at one moment.

    @ivar requests: how many have ended so far.
    @ivar errors: how many of them with a status from 500 on.
    @ivar agents: how many are there.
    @ivar clusters: how many requests to each cluster have ended so far.
    """

    requests: int = 0
    errors: int = 0
    agents: int = 0
    clusters: dict[str, int] = field(default_factory=dict)


class History:
    """The last samples; of what is counted, how much it has grown between two of them."""

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
        """All of it as JSON has it, the oldest sample first."""
        return {
            "period": PERIOD,
            "requests": list(self._requests),
            "errors": list(self._errors),
            "agents": list(self._agents),
            "clusters": {name: list(values) for name, values in self._clusters.items()},
        }


def _add(lists: Iterable[list[int]]) -> list[int]:
    """Add up what ends at the same time."""
    total: list[int] = []
    for values in lists:
        longer, shorter = (values, total) if len(values) > len(total) else (total, values)
        start = len(longer) - len(shorter)
        total = [*longer[:start], *(a + b for a, b in zip(longer[start:], shorter, strict=True))]
    return total


def _most(lists: Iterable[list[int]]) -> list[int]:
    """Take the largest of what ends at the same time."""
    total: list[int] = []
    for values in lists:
        longer, shorter = (values, total) if len(values) > len(total) else (total, values)
        start = len(longer) - len(shorter)
        total = [*longer[:start], *(max(a, b) for a, b in zip(longer[start:], shorter, strict=True))]
    return total


def add_histories(histories: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """
    Make one of the histories of several workers.

    Each worker knows all agents, and has requests of its own.
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
