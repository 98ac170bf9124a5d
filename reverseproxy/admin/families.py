"""
Families of metrics, as processes exchange and merge them; pure.

Workers send them to the supervisor as JSON, and the supervisor merges them.
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

    @ivar kind: C{"counter"}, C{"gauge"}, C{"largest"} (a gauge whose value for
        several processes is the largest of theirs, instead of the sum) or
        C{"histogram"}.
    @ivar text: the help text.
    @ivar labels: the names of the labels.
    @ivar samples: by the values of the labels: a number, or for a histogram a
        mapping with C{bounds}, C{counts} and C{total}.
    """

    name: str
    kind: str
    text: str
    labels: tuple[str, ...] = ()
    samples: dict[tuple[str, ...], Value] = field(default_factory=dict)

    def add(self, value: float | Histogram, *labels: str) -> None:
        """Add a value to the sample with these labels."""
        assert len(labels) == len(self.labels), self.name
        self._put(labels, _plain(value))

    def _put(self, labels: tuple[str, ...], value: Value) -> None:
        old = self.samples.get(labels)
        self.samples[labels] = value if old is None else _sum(self.kind, old, value)

    def to_json(self) -> dict[str, Any]:
        """Return the family as JSON values."""
        return {
            "name": self.name,
            "kind": self.kind,
            "text": self.text,
            "labels": self.labels,
            "samples": [[list(labels), value] for labels, value in self.samples.items()],
        }

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Family:
        """Return a family from the value of L{to_json}."""
        family = cls(value["name"], value["kind"], value["text"], tuple(value["labels"]))
        family.samples = {tuple(labels): sample for labels, sample in value["samples"]}
        return family


def number_of(value: Value) -> float:
    """Return a sample as one number: of a histogram, the sum of its values."""
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
    """Merge the families of several processes."""
    families: dict[str, Family] = {}
    for answer in answers:
        for value in answer:
            family = Family.from_json(value)
            known = families.setdefault(family.name, family)
            if known is not family:
                for labels, sample in family.samples.items():
                    known._put(labels, sample)
    return list(families.values())
