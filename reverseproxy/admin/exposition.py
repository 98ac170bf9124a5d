"""Metrics in the exposition formats of Prometheus and OpenMetrics."""

from __future__ import annotations

__all__ = ["expose"]

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import accumulate, islice
from typing import Any, Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from reverseproxy.admin.families import Family, number_of
from reverseproxy.admin.slices import Steps

PORTION: Final = 15
"""How many samples are encoded in one step; see L{reverseproxy.admin.slices}."""


class _Collector(Collector):
    """A Prometheus collector of metrics that have been collected before."""

    def __init__(self, metrics: Iterable[Metric]) -> None:
        self._metrics = metrics

    def collect(self) -> Iterable[Metric]:
        """Return the metrics; see L{Collector}."""
        return self._metrics


def _metric(family: Family) -> Metric:
    labels = list(family.labels)
    if family.kind == "histogram":
        histogram = HistogramMetricFamily(family.name, family.text, labels=labels)
        for values, sample in family.samples.items():
            assert isinstance(sample, Mapping)
            histogram.add_metric(list(values), _buckets(sample), sample["total"])
        found: Metric = histogram
        return found
    metric: Any
    if family.kind == "counter":
        metric = CounterMetricFamily(family.name.removesuffix("_total"), family.text, labels=labels)
    else:
        metric = GaugeMetricFamily(family.name, family.text, labels=labels)
    for values, sample in family.samples.items():
        metric.add_metric(list(values), number_of(sample))
    made: Metric = metric
    return made


def _buckets(sample: Mapping[str, Any]) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in sample["bounds"]), "+Inf"]
    return list(zip(bounds, accumulate(sample["counts"]), strict=True))


def expose(families: Iterable[Family], accept: str) -> Steps[tuple[bytes, str]]:
    """
    Encode metrics.

    @param accept: the header field C{Accept} of the request: OpenMetrics if it asks for that, else the text
        format of Prometheus.
    @return: the text, and its content type.
    """
    encode, content_type = choose_encoder(accept)
    end = encode(CollectorRegistry(auto_describe=False))
    parts = []

    def write(metrics: Iterable[Metric]) -> bytes:
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Collector(metrics))
        text: bytes = encode(registry)
        return text.removesuffix(end)

    small: list[Metric] = []
    samples = 0
    for family in families:
        portions = _portions(family)
        first = next(portions)
        small.append(_metric(first))
        samples += len(first.samples)
        if samples >= PORTION:
            parts.append(write(small))
            small, samples = [], 0
            yield
        for portion in portions:
            # The comments about a family may stand only once.
            parts.append(_without_comments(write([_metric(portion)])))
            yield
    return b"".join([*parts, write(small), end]), content_type


def _portions(family: Family) -> Iterator[Family]:
    """Split a family into parts that are small enough to be encoded in one step."""
    items = iter(family.samples.items())
    yield replace(family, samples=dict(islice(items, PORTION)))
    while portion := dict(islice(items, PORTION)):
        yield replace(family, samples=portion)


def _without_comments(text: bytes) -> bytes:
    while text.startswith(b"# "):
        text = text[text.index(b"\n") + 1 :]
    return text
