"""Metrics in the exposition formats of Prometheus and OpenMetrics."""

from __future__ import annotations

__all__ = ["Exposition"]

from collections.abc import Callable, Iterable, Iterator, Mapping
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
"""How many samples, or lines of samples, are encoded in one step; see L{reverseproxy.admin.slices}."""

MAX_KEPT: Final = 200
"""The maximum number of texts of families that are kept."""

Encoder = Callable[[CollectorRegistry], bytes]
"""Encodes what a registry collects, in one format."""


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
            histogram.add_metric(_writable(values), _buckets(sample), sample["total"])
        found: Metric = histogram
        return found
    metric: Any
    if family.kind == "counter":
        metric = CounterMetricFamily(family.name.removesuffix("_total"), family.text, labels=labels)
    else:
        metric = GaugeMetricFamily(family.name, family.text, labels=labels)
    for values, sample in family.samples.items():
        metric.add_metric(_writable(values), number_of(sample))
    made: Metric = metric
    return made


def _writable(labels: Iterable[str]) -> list[str]:
    """Return values of labels without lone surrogates, which can't be encoded as UTF-8."""
    return [
        label if label.isascii() else label.encode("utf-8", "backslashreplace").decode() for label in labels
    ]


def _buckets(sample: Mapping[str, Any]) -> list[tuple[str, float]]:
    bounds = [*(f"{bound:g}" for bound in sample["bounds"]), "+Inf"]
    return list(zip(bounds, accumulate(sample["counts"]), strict=True))


class Exposition:
    """
    Encodes metrics.

    It keeps the text of small families, as most of them are the same at the next scrape.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, str], tuple[Family, bytes]] = {}

    def encode(self, families: Iterable[Family], accept: str) -> Steps[tuple[bytes, str]]:
        """
        Encode metrics.

        @param families: to be left unchanged from now on; those with many samples lose them.
        @param accept: the header field C{Accept} of the request: OpenMetrics if it asks for that, else the
            text format of Prometheus.
        @return: the text, and its content type.
        """
        encoder, content_type = _choose_encoder(accept)
        end = encoder(CollectorRegistry(auto_describe=False))  # what follows all families
        texts = []
        lines = 0
        for family in families:
            known, text = self._known.get((family.name, content_type), (None, b""))
            if known == family:
                texts.append(text)
                continue
            small = len(family.samples) <= PORTION
            start = len(texts)
            for portion in _portions(family):
                text = _encode(portion, encoder).removesuffix(end)
                # The comments about a family may stand only once.
                texts.append(text if len(texts) == start else _without_comments(text))
                lines += _lines_of(portion)
                if lines >= PORTION:
                    lines = 0
                    yield
            if small:
                self._keep(family, content_type, b"".join(texts[start:]))
        return b"".join([*texts, end]), content_type

    def _keep(self, family: Family, content_type: str, text: bytes) -> None:
        if len(self._known) >= MAX_KEPT:
            self._known.clear()
        self._known[family.name, content_type] = (family, text)


def _choose_encoder(accept: str) -> tuple[Encoder, str]:
    """Choose a format; the text format of Prometheus if the client accepts no other that is known."""
    try:
        return choose_encoder(accept)
    except (TypeError, ValueError):  # the version of a format is none
        return choose_encoder("")


def _encode(family: Family, encoder: Encoder) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collector([_metric(family)]))
    return encoder(registry)


def _portions(family: Family) -> Iterator[Family]:
    """
    Split a family into parts that are small enough to be encoded in one step.

    Many samples are removed from it on the way, as freeing them all in the end would be a long step.
    """
    samples = family.samples
    most = 1 if family.kind == "histogram" else PORTION
    if len(samples) <= most:
        yield family
        return
    take = samples.pop if len(samples) > PORTION else samples.__getitem__
    labels = iter(list(samples))
    while portion := list(islice(labels, most)):
        yield replace(family, samples={each: take(each) for each in portion})


def _lines_of(family: Family) -> int:
    """Return the number of lines of the samples of a family."""
    return sum(
        len(sample["counts"]) + 2 if isinstance(sample, Mapping) else 1 for sample in family.samples.values()
    )


def _without_comments(text: bytes) -> bytes:
    while text.startswith(b"# "):
        text = text[text.index(b"\n") + 1 :]
    return text
