"""Tests for L{reverseproxy.cluster.health.stalls}."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.health import stalls
from reverseproxy.cluster.health.stalls import LOOKS, STALL, Stalls
from reverseproxy.cluster.host import Fault
from reverseproxy.cluster.manager import Cluster, IClusterTask
from reverseproxy.config.models import ClusterConfig
from reverseproxy.net.tcp_info import TcpInfo
from tests.cluster.fakes import FakeHost

QUIET = TcpInfo(0, 0, 5000, 5000)
UNACKED = TcpInfo(0, 3, 5000, 5000)
HEARD = TcpInfo(0, 3, 5000, 10)


class AgentHost(FakeHost):
    """A host of an agent, and what the kernel says of its connection."""

    is_reverse = True
    found: TcpInfo | None = QUIET
    silent = 0.0

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.noted: list[bool] = []

    def note_wait(self, waits: bool) -> None:
        self.noted.append(waits)

    @property
    def transport(self) -> Any:
        return self

    @property
    def unanswered(self) -> float:
        return self.silent


class StallTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.patch(stalls, "tcp_info", lambda host: host.found)
        self.clock = Clock()
        self.cluster = Cluster(ClusterConfig(name="edge"), RoundRobinBalancer(), self.clock)
        self.task = Stalls(self.cluster, self.clock)
        self.cluster.add_task(self.task)
        self.cluster.start()
        self.hosts = [AgentHost(f"h{number}") for number in range(3)]
        for host in self.hosts:
            self.cluster.add_host(host)

    def tearDown(self) -> None:
        self.cluster.close("the test ends")
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.05)):
            self.clock.advance(0.05)

    def well(self) -> list[bool]:
        return [host.healthy for host in self.hosts]

    def use(self, *numbers: int) -> None:
        for number in numbers:
            self.assertTrue(self.cluster.acquire_for_check(self.hosts[number]))

    def test_interface(self) -> None:
        verifyObject(IClusterTask, self.task)

    def test_within_a_second(self) -> None:
        self.use(0)
        self.pass_time(1.0)
        self.assertEqual(self.well(), [True] * 3)
        self.hosts[0].found = UNACKED
        self.pass_time(STALL - 0.1)
        self.assertEqual(self.well(), [True] * 3)
        self.pass_time(0.1 + 2 * LOOKS)
        self.assertEqual(self.well(), [False, True, True])
        self.assertEqual(self.hosts[0].health.faults, Fault.SERVICE)
        self.hosts[0].found = QUIET._replace(ack_age=10)
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well(), [True] * 3)

    def test_how_far_it_has_got(self) -> None:
        """That is noted as long as something waits, and forgotten when nothing does."""
        self.use(0)
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.hosts[0].noted, [])
        self.hosts[0].found = UNACKED
        self.pass_time(3 * LOOKS)
        self.hosts[0].found = QUIET
        self.pass_time(3 * LOOKS)
        self.assertIn(len(self.hosts[0].noted), (3, 4, 5))
        self.assertEqual(set(self.hosts[0].noted[:-1]), {True})
        self.assertFalse(self.hosts[0].noted[-1])
        self.assertEqual(self.hosts[1].noted, [])

    def test_something_comes_now_and_then(self) -> None:
        self.use(0)
        for _ in range(20):
            self.hosts[0].found = UNACKED
            self.pass_time(0.3)
            self.hosts[0].found = HEARD
            self.pass_time(LOOKS)
            self.assertEqual(self.well(), [True] * 3)

    def test_at_rest_nothing_is_looked_at(self) -> None:
        for host in self.hosts:
            host.found = UNACKED
        self.pass_time(5.0)
        self.assertEqual(self.well(), [True] * 3)

    def test_all_of_them(self) -> None:
        self.use(0, 1, 2)
        for host in self.hosts:
            host.found = UNACKED
        self.pass_time(2.0)
        self.assertEqual(self.well(), [True] * 3)  # as there is no better one
        self.hosts[1].found = HEARD
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well(), [False, True, False])

    def test_a_process_that_stands_still(self) -> None:
        """Its kernel acknowledges, but it does not answer pings."""
        self.use(0)
        self.hosts[0].silent = STALL
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well(), [False, True, True])
        self.hosts[0].silent = 0.0
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well(), [True] * 3)

    def test_others_of_the_same_agent(self) -> None:
        """Those at rest have nothing to show; they are let in again when something comes."""
        self.hosts[0].same_agent = self.hosts[1].same_agent = self.hosts[:2]
        self.use(0)
        self.hosts[0].found = UNACKED
        self.pass_time(STALL + 2 * LOOKS)
        self.assertEqual(self.well(), [False, False, True])
        self.cluster.remove_host(self.hosts[0])
        self.pass_time(1.0)
        self.assertEqual(self.well()[1:], [False, True])
        self.hosts[1].found = QUIET._replace(data_age=100)
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well()[1:], [True, True])

    def test_what_is_said_still_counts(self) -> None:
        self.use(0)
        self.hosts[0].found = UNACKED
        self.pass_time(STALL + 2 * LOOKS)
        self.cluster.service_health.report(self.hosts[0], False)
        self.hosts[0].found = HEARD
        self.pass_time(2 * LOOKS)
        self.assertEqual(self.well(), [False, True, True])
        self.cluster.service_health.report(self.hosts[0], True)
        self.assertEqual(self.well(), [True] * 3)

    def test_others_are_told(self) -> None:
        told: list[bool] = []
        self.cluster.service_health.on_report = lambda host: told.append(
            self.cluster.service_health.is_up(host)
        )
        self.use(0)
        self.hosts[0].found = UNACKED
        self.pass_time(STALL + 2 * LOOKS)
        self.hosts[0].found = HEARD
        self.pass_time(2 * LOOKS)
        self.assertEqual(told, [False, True])

    def test_a_connection_of_which_nothing_is_known(self) -> None:
        self.use(0)
        self.hosts[0].found = None
        self.pass_time(3.0)
        self.assertEqual(self.well(), [True] * 3)

    def test_without_agents_there_is_nothing_to_look_at(self) -> None:
        for host in self.hosts:
            self.cluster.remove_host(host)
        self.pass_time(1.0)
        self.assertEqual(self.clock.getDelayedCalls(), [])
