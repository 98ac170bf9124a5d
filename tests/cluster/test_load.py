"""Tests for L{reverseproxy.cluster.balancers.load}."""

from __future__ import annotations

from collections import Counter
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.load import (
    LeastConnectionBalancer,
    LeastRequestBalancer,
    PeakEwmaBalancer,
)
from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
from reverseproxy.cluster.health.outcome import Outcome
from tests import most
from tests.cluster.fakes import FakeHost, hosts_of, picks


class LeastRequestTests(SynchronousTestCase):
    def test_least_busy(self) -> None:
        """With as many choices as hosts, the least busy one is picked."""
        balancer = LeastRequestBalancer(Random(1), choices=3)
        hosts = hosts_of(5, 5, 5)
        for number, host in enumerate(hosts):
            host.active = 3 - number
            balancer.add(host)
        self.assertEqual(set(picks(balancer, 20)), {"h2"})
        balancer.suspend(hosts[2])
        self.assertEqual(set(picks(balancer, 20)), {"h1"})

    def test_two_choices(self) -> None:
        """The busiest of several is never picked, and the others as chance has it."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(1, 1, 1, 1)
        for host in hosts:
            balancer.add(host)
        hosts[1].active = 9
        counts = Counter(picks(balancer, 3000))
        self.assertEqual(set(counts), {"h0", "h2", "h3"})
        for count in counts.values():
            self.assertApproximates(count, 1000, 120)

    def test_one_choice(self) -> None:
        """With one choice it is random; none is taken for one."""
        for choices in (0, 1):
            balancer = LeastRequestBalancer(Random(1), choices=choices)
            hosts = hosts_of(1, 1)
            hosts[0].active = 100
            for host in hosts:
                balancer.add(host)
            self.assertApproximates(Counter(picks(balancer, 2000))["h0"], 1000, 120)

    def test_weighted(self) -> None:
        """With unequal weights, turns follow weight over load."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(4, 1)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(Counter(picks(balancer, 500)), {"h0": 400, "h1": 100})
        hosts[0].active = 3
        self.assertApproximates(Counter(picks(balancer, 500))["h0"], 250, 3)

    def test_bias(self) -> None:
        """The bias says how much load counts."""
        for bias, share in ((0.0, 800), (-1.0, 800), (2.0, 200)):
            balancer = LeastRequestBalancer(Random(1), bias=bias)
            hosts = hosts_of(4, 1)
            hosts[0].active = 3
            for host in hosts:
                balancer.add(host)
            self.assertApproximates(Counter(picks(balancer, 1000))["h0"], share, 3)

    def test_weights_become_equal(self) -> None:
        """When the only host with another weight leaves, chance decides again."""
        balancer = LeastRequestBalancer(Random(1))
        hosts = hosts_of(1, 1, 7)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(Counter(picks(balancer, 900)), {"h0": 100, "h1": 100, "h2": 700})
        balancer.remove(hosts[2])
        hosts[0].active = 1
        self.assertEqual(set(picks(balancer, 20)), {"h1"})


class LeastConnectionTests(SynchronousTestCase):
    def test_fewest(self) -> None:
        """With as many choices as hosts, the one with the fewest connections is picked."""
        balancer = LeastConnectionBalancer(Random(1), choices=3)
        hosts = hosts_of(5, 5, 5)
        for number, host in enumerate(hosts):
            host.connections = 3 - number
            host.active = number
            balancer.add(host)
        self.assertEqual(set(picks(balancer, 20)), {"h2"})

    def test_reverse_hosts(self) -> None:
        """Hosts with one connection each are picked at random."""
        balancer = LeastConnectionBalancer(Random(1))
        for host in hosts_of(1, 1, 1):
            host.connections = 1
            balancer.add(host)
        counts = Counter(picks(balancer, 3000))
        for count in counts.values():
            self.assertApproximates(count, 1000, 120)
        self.assertEqual(len(counts), 3)

    def test_weighted(self) -> None:
        """With unequal weights, turns follow weight over connections."""
        for bias, share in ((1.0, 250), (0.0, 400), (-1.0, 400)):
            balancer = LeastConnectionBalancer(Random(1), bias=bias)
            hosts = hosts_of(4, 1)
            hosts[0].connections = 3
            for host in hosts:
                balancer.add(host)
            self.assertApproximates(Counter(picks(balancer, 500))["h0"], share, 3)


class PeakEwmaTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tracker = EwmaTracker(self.clock)

    def balancer_of(self, *weights: int) -> tuple[PeakEwmaBalancer, list[FakeHost]]:
        balancer = PeakEwmaBalancer(Random(1), self.tracker)
        hosts = hosts_of(*weights)
        for host in hosts:
            balancer.add(host)
        return balancer, hosts

    def test_quickest(self) -> None:
        """Of the hosts compared, the one with the lowest score is picked."""
        balancer, (one, two) = self.balancer_of(1, 1)
        self.tracker.note(one, Outcome.SUCCESS, 0.2)
        self.tracker.note(two, Outcome.SUCCESS, 0.1)
        self.assertEqual(set(picks(balancer, 20)), {"h1"})
        two.active = 2
        self.assertEqual(set(picks(balancer, 20)), {"h0"})

    def test_unknown(self) -> None:
        """As long as nothing is known, it is random."""
        balancer, _ = self.balancer_of(1, 1)
        self.assertApproximates(Counter(picks(balancer, 2000))["h0"], 1000, 120)

    def test_weighted(self) -> None:
        """With unequal weights, turns follow weight over score."""
        balancer, (one, two) = self.balancer_of(4, 1)
        self.tracker.note(one, Outcome.SUCCESS, 0.2)
        self.tracker.note(two, Outcome.SUCCESS, 0.1)
        self.assertApproximates(Counter(picks(balancer, 300))["h0"], 200, 10)

    def test_slow_host_is_tried_again(self) -> None:
        """A host that was slow once gets requests after a while, and keeps them if it is quick."""
        for weights in ((1, 1), (2, 1)):
            balancer, (slow, quick) = self.balancer_of(*weights)
            self.tracker.note(slow, Outcome.SUCCESS, 60.0)
            self.tracker.note(quick, Outcome.SUCCESS, 0.1)
            times = []
            for _ in range(300):
                self.clock.advance(1.0)
                picked = balancer.pick(None)
                assert isinstance(picked, FakeHost)
                self.tracker.note(picked, Outcome.SUCCESS, 0.1)
                if picked is slow:
                    times.append(self.clock.seconds())
            start = self.clock.seconds() - 300
            # With turns, one is planned already when it becomes known that the host is slow.
            early = [time for time in times if time - start < 30]
            self.assertLessEqual(len(early), weights[0] - 1)
            self.assertLess(times[len(early)] - start, 120)
            self.assertTrue(50 < len(times) < 230, (weights, len(times)))

    @settings(deadline=None, max_examples=most(50))
    @given(
        st.lists(st.integers(1, 5), min_size=1, max_size=5),
        st.lists(
            st.tuples(
                st.integers(0, 4),
                st.sampled_from(Outcome),
                st.floats(0, 100),
                st.floats(0, 100),
            ),
            max_size=30,
        ),
    )
    def test_nobody_starves(
        self, weights: list[int], history: list[tuple[int, Outcome, float, float]]
    ) -> None:
        """Whatever was reported before, every host has its turn while time goes by."""
        balancer, hosts = self.balancer_of(*weights)
        for number, outcome, seconds, pause in history:
            self.tracker.note(hosts[number % len(hosts)], outcome, seconds)
            self.clock.advance(pause)
            balancer.pick(None)
        waiting = set(hosts)
        for _ in range(1000):
            self.clock.advance(0.5)
            picked = balancer.pick(None)
            assert isinstance(picked, FakeHost)
            self.tracker.note(picked, Outcome.SUCCESS, 0.1)
            waiting.discard(picked)
            if not waiting:
                break
        self.assertEqual(waiting, set())
