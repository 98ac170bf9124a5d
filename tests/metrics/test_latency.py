"""Tests for L{reverseproxy.metrics.latency} and L{reverseproxy.metrics.history}."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics import AgentFigures, Destination, RequestTally
from reverseproxy.metrics.history import KEPT, MOST_CLUSTERS, History, Sample, add_histories
from reverseproxy.metrics.latency import (
    DURATION_BOUNDS,
    FINE_BOUNDS,
    Ends,
    Histogram,
    Recently,
    class_names,
    classes_of,
    coarse,
    end_index,
    note_end,
    quantile,
    times_of,
)
from tests.metrics.test_counts import note


def counted(*seconds: float) -> AgentFigures:
    """Count requests that took so long."""
    agent = AgentFigures()
    tally = RequestTally("front")
    for each in seconds:
        note(tally, Destination("blue"), agent, 200, each, 0, 0)
    return agent


class BoundsTests(SynchronousTestCase):
    def test_they_fit(self) -> None:
        """What Prometheus gets is what it would get without the fine buckets."""
        self.assertEqual(sorted({*FINE_BOUNDS}), list(FINE_BOUNDS))
        self.assertLess({*DURATION_BOUNDS}, {*FINE_BOUNDS})
        random, wanted = Random(1), Histogram()
        times = [random.expovariate(1) * 10 ** random.uniform(-4, 2) for _ in range(2000)]
        times += [*DURATION_BOUNDS, 0.0, 1e9]
        for each in times:
            wanted.note(each)
        found = coarse(times_of(counted(*times).total.ends), wanted.total)
        self.assertEqual(found.counts, wanted.counts)
        self.assertEqual(found.total, wanted.total)

    def test_quantiles(self) -> None:
        """They are right to an eighth, whatever the times are."""
        random = Random(2)
        for scale in (0.0005, 0.01, 2.0):
            times = sorted(random.uniform(0.2, 1.8) * scale for _ in range(1001))
            counts = times_of(counted(*times).total.ends)
            for share in (0.5, 0.9, 0.99):
                found = quantile(counts, share)
                assert found is not None
                exact = times[int(share * 1000)]
                self.assertApproximates(found, exact, exact / 8)

    def test_extremes(self) -> None:
        self.assertIsNone(quantile([0] * (len(FINE_BOUNDS) + 1), 0.5))
        self.assertIsNone(quantile([], 0.5))
        self.assertEqual(quantile(times_of(counted(1e9).total.ends), 0.99), FINE_BOUNDS[-1])
        found = quantile(times_of(counted(0.0).total.ends), 0.99)
        assert found is not None
        self.assertLessEqual(found, FINE_BOUNDS[0])


class EndsTests(SynchronousTestCase):
    def test_classes(self) -> None:
        tally, agent = RequestTally("front"), AgentFigures()
        for status in (200, 204, 404, 503, 0, 100000):
            note(tally, Destination("blue"), agent, status, 0.01, 0, 0)
        self.assertEqual(class_names(classes_of(agent.total.ends)), {"none": 2, "2xx": 2, "4xx": 1, "5xx": 1})
        self.assertEqual(sum(times_of(agent.total.ends)), 6)

    def test_lately(self) -> None:
        """What is older than a minute or so is left out, if somebody looks from time to time."""
        ends: Ends = []
        recently = Recently(30.0)

        def end(status: int, times: int, seconds: float = 0.0) -> None:
            for _ in range(times):
                note_end(ends, end_index(status, seconds))

        end(200, 5)
        self.assertEqual(sum(recently.look(0.0, ends)), 5)
        end(204, 1)
        self.assertEqual(sum(recently.look(10.0, ends)), 6)
        self.assertEqual(sum(recently.look(30.0, ends)), 1)
        end(503, 2, 0.0002)
        self.assertEqual(sum(recently.look(31.0, ends)), 3)
        self.assertEqual(sum(recently.look(60.0, ends)), 2)
        self.assertEqual(sum(recently.look(90.0, ends)), 0)


class HistoryTests(SynchronousTestCase):
    def test_growth(self) -> None:
        history = History()
        history.note(Sample(10, 1, 3, {"blue": 10}))
        history.note(Sample(15, 1, 2, {"blue": 12, "green": 3}))
        found = history.to_json()
        self.assertEqual((found["requests"], found["errors"], found["agents"]), ([10, 5], [1, 0], [3, 2]))
        self.assertEqual(found["clusters"], {"blue": [10, 2], "green": [3]})

    def test_bounds(self) -> None:
        history = History()
        names = {f"cluster-{number}": number for number in range(MOST_CLUSTERS + 5)}
        for _ in range(KEPT + 5):
            history.note(Sample(1, 1, 1, names))
        found = history.to_json()
        self.assertEqual((len(found["requests"]), len(found["clusters"])), (KEPT, MOST_CLUSTERS))

    def test_workers(self) -> None:
        """One that was started later has less to say; all know all agents."""
        one, other = History(), History()
        one.note(Sample(1, 0, 2, {"blue": 1}))
        for each in (one, other):
            each.note(Sample(4, 1, 3, {"blue": 4}))
        found = add_histories([one.to_json(), other.to_json()])
        self.assertEqual((found["requests"], found["agents"]), ([1, 7], [2, 3]))
        self.assertEqual(found["clusters"], {"blue": [1, 7]})
        self.assertEqual(add_histories([])["requests"], [])
