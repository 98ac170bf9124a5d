"""Which waiting requests are announced, and to which workers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from unittest.mock import Mock

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import QueuedDemand
from reverseproxy.workers.demand_announcer import LEAST_GAP, DemandAnnouncer
from reverseproxy.workers.policy import LASTING, TELL_EVERY
from reverseproxy.workers.sibling_demand import SiblingDemands


class FakeLink:
    """A sibling that notes what it is told, and when."""

    def __init__(self, clock: Clock) -> None:
        self.said: list[tuple[float, list[Any]]] = []
        self._clock = clock

    def send(self, message: Any) -> None:
        self.said.append((round(self._clock.seconds(), 6), message["hosts"]))


class FakeDirectory:
    """Siblings, of which some have connections, as this worker may."""

    def __init__(self, links: list[Any]) -> None:
        self.links = links
        self.plain = set(links)
        self.here = 1
        self.settled: list[Any] = []

    def has_plain(self, link: Any, cluster: Any) -> bool:
        return link in self.plain

    def count_here(self, cluster: Any) -> int:
        return self.here

    def settle(self, cluster: Any) -> None:
        self.settled.append(cluster)


class FakeCluster:
    """A cluster of which it is said how many requests wait, and since when."""

    name = "edge"

    def __init__(self, clock: Clock) -> None:
        self.config = Mock(lb_type="LB_ROUNDROBIN")
        self.since: list[float] = []
        self.on_wait: Any = None
        self._clock = clock

    @property
    def waiting(self) -> int:
        return len(self.since)

    def queued_demand(self) -> list[QueuedDemand]:
        return [QueuedDemand((), len(self.since), self.since[0])] if self.since else []

    def wait(self) -> None:
        self.since.append(self._clock.seconds())
        self.on_wait()


class WantingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.link = FakeLink(self.clock)
        self.directory: Any = FakeDirectory([self.link])
        self.wanting = DemandAnnouncer(self.directory, self.clock)
        self.cluster: Any = FakeCluster(self.clock)
        self.wanting.share(self.cluster)
        self.clock.advance(1000)

    def run_for(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.001)):
            self.clock.advance(0.001)

    def assert_told_at(self, *expected: float) -> None:
        told = [when - 1000 for when, _ in self.link.said]
        self.assertEqual(len(told), len(expected), told)
        for when, wanted in zip(told, expected, strict=True):
            self.assertApproximates(when, wanted, 0.0025)  # as this clock goes on by milliseconds

    def test_at_once_and_again(self) -> None:
        self.cluster.wait()
        self.cluster.wait()
        self.run_for(2.5 * TELL_EVERY)
        self.assert_told_at(0.0, 0.01, 0.02)
        self.assertEqual([hosts[0][1] for _, hosts in self.link.said], [1, 2, 2])
        self.assertApproximates(self.link.said[-1][1][0][2], 0.02, 0.0025)

    def test_the_end_is_told_once(self) -> None:
        self.cluster.wait()
        self.cluster.since.clear()
        self.run_for(1)
        self.assertEqual([hosts for _, hosts in self.link.said][1:], [[]])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_first_after_there_was_none(self) -> None:
        self.cluster.wait()
        self.cluster.since.clear()
        self.cluster.wait()
        self.run_for(0.005)
        self.assert_told_at(0.0, LEAST_GAP)

    def load(self) -> list[float]:
        """Let requests wait for a moment each millisecond; when siblings heard of it, at the end."""
        for _ in range(200):
            self.cluster.wait()
            self.cluster.since.clear()
            self.clock.advance(0.001)
        return [when for when, _ in self.link.said if when > 1000 + 2 * LASTING]

    def test_under_load(self) -> None:
        """Where requests wait now and then, all the time, it is told of no more often than each 10 ms."""
        told = self.load()
        self.assertLessEqual(len(told), 0.1 / TELL_EVERY + 1, told)
        self.assertTrue(all(late - early >= TELL_EVERY - 1e-6 for early, late in pairwise(told)))

    def test_who_has_none_does_not_wait_for_that(self) -> None:
        self.directory.here = 0
        self.assertGreater(len(self.load()), 0.1 / TELL_EVERY * 2)

    def test_who_has_nothing_to_give_is_not_told(self) -> None:
        self.directory.plain.clear()
        self.cluster.wait()
        self.run_for(0.02)
        self.assertEqual(self.link.said, [])
        self.cluster.since.clear()
        self.run_for(0.02)
        self.assertEqual([hosts for _, hosts in self.link.said], [[]])

    def test_what_has_lasted(self) -> None:
        self.assertGreater(self.wanting.rested(self.cluster), LASTING)
        self.cluster.wait()
        self.run_for(LASTING - 0.001)
        self.assertEqual(self.wanting.standing(self.cluster), 0.0)
        self.run_for(LASTING)
        self.assertApproximates(self.wanting.standing(self.cluster), 0.04, 0.011)
        self.cluster.since.clear()
        self.run_for(TELL_EVERY + 0.002)
        self.assertEqual(self.wanting.standing(self.cluster), 0.0)
        self.assertLessEqual(self.wanting.rested(self.cluster), 2 * TELL_EVERY)
        self.run_for(2 * LASTING)
        self.assertGreater(self.wanting.rested(self.cluster), LASTING)

    def test_certain_hosts(self) -> None:
        """Where the load balancer decides on one, another one would be of no use."""
        self.cluster.config.lb_type = "LB_MAGLEV"
        self.cluster.wait()
        self.assertEqual((self.directory.settled, self.link.said), ([self.cluster], []))

    def test_stop(self) -> None:
        self.cluster.wait()
        self.wanting.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])


class WishesTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.demands = SiblingDemands()
        self.one, self.other = Mock(name="one"), Mock(name="other")
        self.cluster = Mock()
        self.cluster.would_take = lambda host, labels: labels in ((), host)

    def test_order(self) -> None:
        self.demands.said(self.one, [QueuedDemand((), 1, 5.0)], 10.0)
        self.demands.said(self.other, [QueuedDemand((), 1, 7.0), QueuedDemand((("a", "b"),), 2, 3.0)], 10.0)
        self.assertEqual([link for link, _ in self.demands], [self.other, self.one])
        [(_, first), (_, second)] = self.demands
        self.assertEqual([(each.number, each.age(10.0)) for each in (first, second)], [(3, 7.0), (1, 5.0)])
        self.demands.said(self.other, [], 11.0)
        self.assertEqual([link for link, _ in self.demands], [self.one])

    def test_granting(self) -> None:
        labels = (("a", "b"),)
        self.demands.said(self.one, [QueuedDemand(labels, 1, 5.0), QueuedDemand((), 2, 7.0)], 10.0)
        [(_, demand)] = self.demands
        demand.owed = 2
        granted = [SiblingDemands.grant(self.cluster, host, demand) for host in ("x", labels, "x", "x")]
        self.assertEqual(granted, [True, True, True, False])
        self.assertEqual((demand.owed, self.demands.owed, bool(self.demands)), (0, 0, False))

    def test_who_is_gone(self) -> None:
        self.demands.said(self.one, [QueuedDemand((), 1, 5.0)], 10.0)
        self.demands.said(self.other, [], 10.0)
        self.assertEqual(
            [self.demands.forget(each) for each in (self.one, self.other, self.one)], [True, False, False]
        )
        self.assertFalse(self.demands)

    def test_owing_begins_anew(self) -> None:
        self.demands.said(self.one, [QueuedDemand((), 1, 5.0)], 10.0)
        [(_, demand)] = self.demands
        demand.owed = 3
        self.assertEqual(self.demands.owed, 3)
        self.demands.owe_nothing()
        self.assertEqual(self.demands.owed, 0)
