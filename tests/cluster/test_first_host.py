"""Tests for L{reverseproxy.cluster.first_host}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.first_host import FirstHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import ClusterConfig, SubsetConfig
from reverseproxy.errors import NoHealthyHost, QueueTimeout
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import ReturningHost


class FirstHostTests(SynchronousTestCase):
    def make(self, seconds: float = 30.0, **options: Any) -> Cluster:
        self.clock = Clock()
        config = ClusterConfig(name="edge", connect_timeout=10.0, **options)
        cluster = Cluster(config, make_balancer(config, Random(1), self.clock), self.clock)
        cluster.add_task(FirstHost(cluster, self.clock, seconds))
        cluster.start()
        return cluster

    def test_it_joins(self) -> None:
        """Those who wait for the first host get it, in their order."""
        cluster = self.make()
        waiting = [cluster.wait(None, 10.0) for _ in range(2)]
        self.clock.advance(9)
        host = ReturningHost("a")
        cluster.add_host(host)
        self.assertIs(self.successResultOf(waiting[0]), host)
        self.assertNoResult(waiting[1])
        cluster.release(host)
        self.assertIs(self.successResultOf(waiting[1]), host)

    def test_it_does_not_join(self) -> None:
        """Each request waits for no longer than it would for a host that was lost."""
        cluster = self.make()
        waiting = cluster.wait(None, 10.0)
        self.clock.advance(10.1)
        self.failureResultOf(waiting, QueueTimeout)

    def test_later(self) -> None:
        """When nobody is expected any more, requests fail at once."""
        cluster = self.make()
        self.clock.advance(29.9)
        self.assertIsNone(cluster.acquire())
        self.clock.advance(0.2)
        self.assertRaises(NoHealthyHost, cluster.acquire)

    def test_never(self) -> None:
        """Nobody has to wait where that is not wanted."""
        self.assertRaises(NoHealthyHost, self.make(0.0).acquire)

    def test_one_has_been_there(self) -> None:
        """From the first host on, all is as ever: there is none to hope for but those that have joined."""
        cluster = self.make()
        host = ReturningHost("a")
        cluster.add_host(host)
        context = PickContext()
        context.tried.add(host)
        self.assertRaises(NoHealthyHost, cluster.acquire, context)

    def test_subsets(self) -> None:
        """Which subsets there will be is not known before."""
        cluster = self.make(lb_subset_config=SubsetConfig(subset_selectors=(("zone",),)))
        context = PickContext(metadata={"zone": "north"})
        waiting = cluster.wait(context, 10.0)
        south, north = (ReturningHost(zone, metadata={"zone": zone}) for zone in ("south", "north"))
        cluster.add_host(south)
        self.assertNoResult(waiting)
        cluster.add_host(north)
        self.assertIs(self.successResultOf(waiting), north)

    def test_limit(self) -> None:
        """No more wait than may."""
        cluster = self.make(circuit_breakers=({"max_pending_requests": 1},))
        waiting = [cluster.wait(None, 10.0) for _ in range(2)]
        self.assertNoResult(waiting[0])
        self.assertIn("wait for cluster edge already", str(self.failureResultOf(waiting[1]).value))

    def test_drained(self) -> None:
        """Nobody waits for a cluster that ends."""
        cluster = self.make()
        waiting = cluster.wait(None, 10.0)
        cluster.drain()
        self.failureResultOf(waiting, NoHealthyHost)
        self.assertRaises(NoHealthyHost, cluster.acquire)
