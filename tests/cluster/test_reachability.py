"""Tests for L{reverseproxy.cluster.health.reachability} and L{reverseproxy.tunnel.agent.service}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.interfaces import IProtocol, IProtocolFactory
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.health.reachability import PROBE_TIMEOUT, Reach
from reverseproxy.cluster.host import Fault
from reverseproxy.cluster.manager import Cluster, IClusterTask
from reverseproxy.config.models import ClusterConfig
from reverseproxy.interfaces import IService
from reverseproxy.tunnel.agent.service import HostedService
from tests.cluster.fakes import FakeHost


class Target(FakeHost):
    """
    A host that takes connections, or not.

    @ivar up: whether it does; L{None}: nothing happens.
    """

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.up: bool | None = True
        self.asked = 0
        self.transports: list[StringTransport] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        self.asked += 1
        connecting: Deferred[IProtocol] = Deferred()
        if self.up:
            protocol: Any = factory.buildProtocol(None)
            self.transports.append(StringTransport())
            protocol.makeConnection(self.transports[-1])
            connecting.callback(protocol)
        elif self.up is False:
            connecting.errback(Failure(Refused()))
        return connecting


class ReachTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.make()

    def make(self, hosts: int = 1, interval: float = 1.0) -> None:
        self.cluster = Cluster(ClusterConfig(name="web"), RoundRobinBalancer(), self.clock)
        self.hosts = [Target(f"h{number}") for number in range(hosts)]
        self.reach = Reach(self.cluster, self.clock, interval)
        self.cluster.add_task(self.reach)
        for host in self.hosts:
            self.cluster.add_host(host)
        self.service = HostedService("web", [self.reach])
        self.told: list[bool] = []
        self.service.watch(self.told.append)
        self.cluster.start()
        self.addCleanup(self.cluster.stop)

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds * 20)):
            self.clock.advance(0.05)

    def refuse(self, number: int = 0) -> None:
        """A request finds that a host can't be reached."""
        self.hosts[number].up = False
        self.cluster.report(self.hosts[number], Outcome.UNREACHABLE)

    def test_interfaces(self) -> None:
        verifyObject(IClusterTask, self.reach)
        verifyObject(IService, self.service)

    def test_idle(self) -> None:
        """Known within a second, and the connections carry nothing."""
        self.pass_time(3.0)
        self.assertIn(self.hosts[0].asked, (3, 4))
        self.assertEqual(
            {(each.value(), each.disconnecting) for each in self.hosts[0].transports}, {(b"", True)}
        )
        self.hosts[0].up = False
        self.pass_time(1.0)
        self.assertEqual(self.told, [False])
        self.hosts[0].up = True
        self.pass_time(0.8)
        self.assertEqual(self.told, [False, True])

    def test_a_request_is_refused(self) -> None:
        self.refuse()
        self.assertEqual(self.told, [False])
        self.pass_time(10.0)
        self.assertEqual(self.told, [False])
        self.assertLessEqual(self.hosts[0].asked, 21)
        self.cluster.report(self.hosts[0], Outcome.CONNECTED)
        self.assertEqual(self.told, [False, True])

    def test_a_request_was_refused_by_mistake(self) -> None:
        self.cluster.report(self.hosts[0], Outcome.UNREACHABLE)
        self.assertEqual(self.told, [False, True])

    def test_answers_say_nothing(self) -> None:
        self.cluster.report(self.hosts[0], Outcome.RESET)
        self.cluster.report(self.hosts[0], Outcome.SERVER_ERROR)
        self.assertEqual(self.told, [])

    def test_a_host_that_is_connected_is_not_asked(self) -> None:
        self.hosts[0].connection_opened()
        self.pass_time(5.0)
        self.assertEqual(self.hosts[0].asked, 0)
        self.hosts[0].connection_closed()
        self.hosts[0].up = False
        self.pass_time(1.0)
        self.assertEqual(self.told, [False])

    def test_nothing_happens(self) -> None:
        self.hosts[0].up = None
        self.pass_time(1.0 + PROBE_TIMEOUT)
        self.assertEqual(self.told, [False])

    def test_one_of_two(self) -> None:
        self.make(2)
        self.refuse(0)
        self.assertEqual(self.told, [])
        self.assertEqual({host.address for host in self.hosts if host.healthy}, {"h1"})
        self.refuse(1)
        self.assertEqual(self.told, [False])
        self.assertEqual({host.address for host in self.hosts if host.healthy}, {"h0", "h1"})

    def test_health_checks_count(self) -> None:
        self.cluster.set_health(self.hosts[0], False, "a check", Fault.CHECK)
        self.pass_time(0.5)
        self.assertEqual(self.told, [False])
        self.cluster.set_health(self.hosts[0], True, "a check", Fault.CHECK)
        self.pass_time(0.5)
        self.assertEqual(self.told, [False, True])

    def test_without_questions(self) -> None:
        self.make(1, 0.0)
        self.pass_time(10.0)
        self.assertEqual(self.hosts[0].asked, 0)
        self.refuse()
        self.assertEqual(self.told, [False])
        self.hosts[0].up = True
        self.pass_time(1.0)
        self.assertEqual(self.told, [False, True])

    def test_the_shortest_interval_counts(self) -> None:
        for intervals, wanted in (((0.0, 0.0), 0.0), ((0.0, 2.0), 2.0), ((3.0, 2.0), 2.0), ((1.0, 0.0), 1.0)):
            reach = Reach(self.cluster, self.clock, intervals[0])
            reach.want(intervals[1])
            self.assertEqual(reach._interval, wanted)

    def test_hosts_come_and_go(self) -> None:
        self.refuse()
        self.cluster.add_host(Target("other"))
        self.assertEqual(self.told, [False, True])
        self.cluster.remove_host(self.cluster.hosts["other"])
        self.assertEqual(self.told, [False, True, False])

    def test_the_end(self) -> None:
        self.hosts[0].up = None
        self.pass_time(2.0)
        self.cluster.stop()
        self.assertEqual(self.told, [])
        self.assertEqual(self.clock.getDelayedCalls(), [])


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clusters = [Cluster(ClusterConfig(name="c"), RoundRobinBalancer(), self.clock) for _ in range(2)]
        self.reaches = [Reach(cluster, self.clock, 1.0) for cluster in self.clusters]
        for cluster in self.clusters:
            cluster.add_task(self.reaches[self.clusters.index(cluster)])
            cluster.add_host(FakeHost("h"))
            cluster.start()
        self.service = HostedService("both", self.reaches)

    def test_one_of_two_is_enough(self) -> None:
        for number, cluster in enumerate(self.clusters):
            cluster.set_health(cluster.hosts["h"], False)
            self.clock.advance(1)
            self.assertEqual(self.service.well, number == 0)

    def test_without_any(self) -> None:
        service = HostedService("none")
        self.assertTrue(service.well)
        self.successResultOf(service.until_well())

    def test_waiting(self) -> None:
        for cluster in self.clusters:
            cluster.set_health(cluster.hosts["h"], False)
        self.clock.advance(1)
        waiting, given_up = self.service.until_well(), self.service.until_well()
        given_up.cancel()
        self.failureResultOf(given_up)
        self.assertNoResult(waiting)
        told: list[bool] = []
        self.service.watch(told.append)
        self.clusters[1].set_health(self.clusters[1].hosts["h"], True)
        self.clock.advance(1)
        self.successResultOf(waiting)
        self.service.unwatch(told.append)
        self.service.unwatch(told.append)
        self.assertEqual(told, [True])
