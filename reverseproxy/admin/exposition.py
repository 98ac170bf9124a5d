"""Families of metrics, as Prometheus reads them."""

from __future__ import annotations

__all__ = ["expose"]

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from reverseproxy.admin.families import Family, number_of


class _Collector(Collector):
    """Hands over what is there already."""

    def __init__(self, families: Iterable[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        """Give one family after the other."""
        for family in self._families:
            yield _metric(family)


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


def expose(families: Iterable[Family], accept: str) -> tuple[bytes, str]:
    """
    Write metrics down.

    @param accept: what the reader takes: OpenMetrics, if it says so.
    @return: the text, and its content type.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector(families))
    encode, content_type = choose_encoder(accept)
    return encode(registry), content_type
