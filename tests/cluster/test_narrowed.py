"""Tests for L{reverseproxy.cluster.narrowed}."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Host, StaticHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.cluster.narrowed import NarrowedCluster, SingleCluster
from reverseproxy.config.models import ClusterConfig, HostConfig
from reverseproxy.errors import ClusterUnknown, NoHealthyHost, QueueTimeout
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost
from tests.cluster.test_manager import make_cluster


class OneHost(NarrowedCluster):
    """A cluster of which one host will do."""

    def __init__(self, cluster: Cluster, host: Host) -> None:
        super().__init__(cluster)
        self.host = host

    def narrow(self, context: PickContext | None) -> PickContext:
        return PickContext(only=self.host)

    def has_others(self, context: PickContext) -> bool:
        return False


class NarrowedTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        config = ClusterConfig.model_validate(
            {"name": "c", "circuit_breakers": [{"max_requests": 2, "max_retries": 1}]}
        )
        self.cluster = Cluster(config, make_balancer(config, Random(1), self.clock), self.clock)
        self.hosts = [
            StaticHost(HostConfig(address=f"10.0.0.{number}:80"), None, self.clock)  # type: ignore[arg-type]
            for number in range(3)
        ]
        for host in self.hosts:
            self.cluster.add_host(host)
        self.narrowed = OneHost(self.cluster, self.hosts[1])

    def test_only_those_hosts(self) -> None:
        for _ in range(2):
            self.assertIs(self.narrowed.acquire(), self.hosts[1])
        for _ in range(2):
            self.narrowed.release(self.hosts[1])
        self.assertIs(self.successResultOf(self.narrowed.wait(None, 1.0)), self.hosts[1])

    def test_limits_are_those_of_the_cluster(self) -> None:
        self.cluster.acquire()
        self.narrowed.acquire()
        self.assertTrue(self.cluster.full)
        self.assertTrue(self.narrowed.try_retry())
        self.assertFalse(self.cluster.try_retry())
        self.narrowed.end_retry()
        self.assertTrue(self.cluster.try_retry())

    def test_the_cluster_is_told(self) -> None:
        told: list[object] = []
        self.cluster.on_connect = lambda *what: told.append(what)
        self.narrowed.report(self.hosts[1], Outcome.CONNECTED)
        self.assertEqual(told, [(self.hosts[1], Outcome.CONNECTED)])

    def test_another_configuration(self) -> None:
        config = ClusterConfig.model_validate({"name": "c", "connect_timeout": "7s"})
        self.cluster.change(config)
        self.assertIs(self.narrowed.config, config)
        self.assertEqual(
            (self.narrowed.name, self.narrowed.watches_answers), ("c", self.cluster.watches_answers)
        )

    def test_by_any_name(self) -> None:
        self.assertIs(SingleCluster(lambda: self.narrowed).get("whatever"), self.narrowed)

        def find() -> NarrowedCluster:
            raise ClusterUnknown("gone")

        self.assertRaises(ClusterUnknown, SingleCluster(find).get, "c")


class AmongTests(SynchronousTestCase):
    """Requests for which only a few hosts will do, such as the connections of one agent."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = make_cluster(self.clock)
        self.hosts = [FakeHost(f"h{number}", capacity=1) for number in range(4)]
        for host in self.hosts:
            self.cluster.add_host(host)
        self.few = dict.fromkeys(self.hosts[:2])

    def among(self, **more: Any) -> PickContext:
        return PickContext(among=self.few, **more)

    def test_the_one_with_the_least_to_do(self) -> None:
        found = {self.cluster.acquire(self.among()) for _ in range(2)}
        self.assertEqual(found, set(self.few))
        self.assertIsNone(self.cluster.acquire(self.among()))
        self.assertIn(self.cluster.acquire(), self.hosts[2:])

    def test_not_one_that_has_failed(self) -> None:
        first, second = self.few
        self.assertIs(self.cluster.acquire(self.among(tried={first})), second)
        self.assertRaises(NoHealthyHost, self.cluster.acquire, self.among(tried={first, second}))

    def test_whichever_becomes_free(self) -> None:
        taken = [self.cluster.acquire(self.among()) for _ in range(2)]
        others = [self.cluster.acquire() for _ in range(2)]
        waiting = self.cluster.wait(self.among(), 5.0)
        for host in others:
            assert host is not None
            self.cluster.release(host)
        self.assertNoResult(waiting)
        assert taken[1] is not None
        self.cluster.release(taken[1])
        self.assertIs(self.successResultOf(waiting), taken[1])

    def test_others_are_wanted_meanwhile(self) -> None:
        for _ in range(2):
            self.cluster.acquire(self.among())
        waiting = self.cluster.wait(self.among(), 5.0)
        self.assertEqual([want.number for want in self.cluster.queued_demand()], [1])
        self.clock.advance(6)
        self.failureResultOf(waiting, QueueTimeout)

    def test_none_of_them_is_left(self) -> None:
        for _ in range(2):
            self.cluster.acquire(self.among())
        waiting = self.cluster.wait(self.among(), 5.0)
        for host in list(self.few):
            self.assertNoResult(waiting)
            self.cluster.remove_host(host)
        self.failureResultOf(waiting, NoHealthyHost)

    def test_none_of_them_is_healthy(self) -> None:
        for host in self.few:
            self.cluster.set_health(host, False)
        self.assertRaises(NoHealthyHost, self.cluster.acquire, self.among())
        self.assertIn(self.cluster.acquire(), self.hosts[2:])
