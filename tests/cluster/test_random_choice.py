"""Tests for L{reverseproxy.cluster.balancers.random_choice}."""

from __future__ import annotations

from collections import Counter
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.random_choice import RandomBalancer
from reverseproxy.interfaces import IHost, PickContext
from tests.cluster.fakes import hosts_of, picks


class RandomTests(SynchronousTestCase):
    def test_uniform(self) -> None:
        """Every host is as likely, whatever was tried."""
        balancer = RandomBalancer(Random(7))
        hosts = hosts_of(1, 100, 1, 1, 1)
        for host in hosts:
            balancer.add(host)
        counts = Counter(picks(balancer, 5000))
        for host in hosts:
            self.assertApproximates(counts[host.address], 1000, 120)
        context = PickContext(tried={hosts[0], hosts[3]})
        counts = Counter(getattr(balancer.pick(context), "address", "") for _ in range(3000))
        self.assertEqual(set(counts), {"h1", "h2", "h4"})
        for count in counts.values():
            self.assertApproximates(count, 1000, 120)

    def test_cheapest(self) -> None:
        """Of the hosts that are drawn, the cheapest one is picked; each is asked for its cost once."""
        balancer = RandomBalancer(Random(7))
        hosts = hosts_of(1, 1, 1, 1)
        for host in hosts:
            balancer.add(host)
        asked: list[str] = []

        def cost(host: IHost) -> float:
            asked.append(host.address)
            return {"h0": 3.0, "h1": 2.0, "h2": 2.5, "h3": 1.0}[host.address]

        self.assertIs(balancer.cheapest(None, 4, cost), hosts[3])
        self.assertEqual(sorted(asked), ["h0", "h1", "h2", "h3"])
        self.assertIs(balancer.cheapest(PickContext(tried={hosts[3]}), 9, cost), hosts[1])
        counts = Counter(getattr(balancer.cheapest(None, 2, cost), "address", "") for _ in range(3000))
        # The best of two out of four: the cheapest in 3 of 6 pairs, the next one in 2, then in 1.
        for address, share in (("h3", 1500), ("h1", 1000), ("h2", 500), ("h0", 0)):
            self.assertApproximates(counts[address], share, 120)
        self.assertIsNone(balancer.cheapest(PickContext(tried=set(hosts)), 2, cost))
