"""
Families of metrics, as processes exchange and merge them; pure.

Workers send them to the supervisor as JSON, and the supervisor merges them.
"""

from __future__ import annotations

__all__ = ["Family", "merge", "number_of", "to_json"]

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from reverseproxy.admin.slices import Steps, consume
from reverseproxy.metrics import Histogram

STRIDE: Final = 100
"""How many samples are processed in one step; see L{reverseproxy.admin.slices}."""

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

    def to_json(self) -> Steps[dict[str, Any]]:
        """Return the family as JSON values."""
        samples: list[Any] = []
        for labels, value in self.samples.items():
            if len(samples) % STRIDE == 0:
                yield
            samples.append([list(labels), value])
        return {
            "name": self.name,
            "kind": self.kind,
            "text": self.text,
            "labels": self.labels,
            "samples": samples,
        }

    def add_json(self, samples: list[Any]) -> Steps[None]:
        """Add the C{samples} of the value of L{to_json}, and remove them from there."""
        for sample in consume(samples):
            if len(samples) % STRIDE == 0:
                yield
            self._put(tuple(sample[0]), sample[1])


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


def to_json(families: list[Family]) -> Steps[list[dict[str, Any]]]:
    """Return families as JSON values, which L{merge} takes, and remove them from their list."""
    values: list[dict[str, Any]] = []
    for family in consume(families):
        value = yield from family.to_json()
        values.append(value)
    return values


def merge(answers: Iterable[Iterable[Mapping[str, Any]]]) -> Steps[list[Family]]:
    """Merge the families of several processes, whose C{samples} are removed from the answers."""
    families: dict[str, Family] = {}
    for answer in answers:
        for value in answer:
            family = families.get(value["name"])
            if family is None:
                labels = tuple(value["labels"])
                family = families[value["name"]] = Family(value["name"], value["kind"], value["text"], labels)
            yield from family.add_json(value["samples"])
    return list(families.values())
