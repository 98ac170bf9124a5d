"""
Families of metrics on their way from where they are counted to Prometheus: pure.

They are JSON between processes, so that a supervisor can add up what its workers
have counted.
"""

from __future__ import annotations

__all__ = ["Family", "merge", "number_of"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from reverseproxy.metrics import Histogram

Value = float | Mapping[str, Any]


@dataclass(slots=True)
class Family:
    """
    One metric, with all its samples.

    @ivar kind: C{"counter"}, C{"gauge"}, C{"largest"} (a gauge of which the
        largest of several processes counts) or C{"histogram"}.
    @ivar labels: names of the labels.
    @ivar samples: for the values of the labels: a number, or what a histogram has.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], Value] = field(default_factory=dict)

    def add(self, value: float | Histogram, *labels: str) -> None:
        """Add a sample; one with the same labels is added to."""
        assert len(labels) == len(self.labels), self.name
        self._put(labels, _plain(value))

    def _put(self, labels: tuple[str, ...], value: Value) -> None:
        old = self.samples.get(labels)
        self.samples[labels] = value if old is None else _sum(self.kind, old, value)

    def to_json(self) -> dict[str, Any]:
        """All of it as JSON has it."""
        return {
            "name": self.name,
            "kind": self.kind,
            "text": self.text,
            "labels": self.labels,
            "samples": [[list(labels), value] for labels, value in self.samples.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Family:
        """Take back what L{to_json} gave."""
        family = cls(value["name"], value["kind"], value["text"], tuple(value["labels"]))
        family.samples = {tuple(labels): sample for labels, sample in value["samples"]}
        return family


def number_of(value: Value) -> float:
    """One number for a sample: of a histogram, the sum of what it has counted."""
    if isinstance(value, Mapping):
        return float(value["total"])
    return value


def _plain(value: float | Histogram) -> Value:
    if isinstance(value, Histogram):
        return {"bounds": list(value.bounds), "counts": list(value.counts), "total": value.total}
    return value


def _sum(kind: str, one: Value, other: Value) -> Value:
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return {
            "bounds": one["bounds"],
            "counts": [a + b for a, b in zip(one["counts"], other["counts"], strict=True)],
            "total": one["total"] + other["total"],
        }
    assert isinstance(one, int | float)
    assert isinstance(other, int | float)
    return max(one, other) if kind == "largest" else one + other


def merge(answers: Iterable[list[Mapping[str, Any]]]) -> list[Family]:
    """Make one of the families of several processes."""
    families: dict[str, Family] = {}
    for answer in answers:
        for value in answer:
            family = Family.from_json(value)
            known = families.setdefault(family.name, family)
            if known is not family:
                for labels, sample in family.samples.items():
                    known._put(labels, sample)
    return list(families.values())
