"""Tests for L{reverseproxy.cluster.health.checks}."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.defer import CancelledError, Deferred, succeed
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.health.checks import CheckState, HealthMonitor, IHealthChecker
from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.manager import Cluster, IClusterTask
from reverseproxy.config.models import ClusterConfig, HealthCheckConfig
from reverseproxy.errors import NoHealthyHost
from tests.cluster.fakes import FakeHost, IdleUser, ReturningHost, Users, reverse_host


class CheckStateTests(SynchronousTestCase):
    def notes(self, state: CheckState, results: str) -> str:
        """Which results have changed the state."""
        return "".join("!" if state.note(result == "+") else "." for result in results)

    def test_at_once(self) -> None:
        """With thresholds of 1 every other result is a change; a host is healthy to begin with."""
        self.assertEqual(self.notes(CheckState(), "++-+--+"), "..!!!.!")

    def test_thresholds(self) -> None:
        """Results must speak against the state in a row."""
        self.assertEqual(self.notes(CheckState(rise=2, fall=3), "--+--+---"), "........!")
        state = CheckState(rise=2, fall=3)
        self.assertEqual(self.notes(state, "---+-+++--+---"), "..!...!......!")
        self.assertFalse(state.healthy)

    @given(st.integers(1, 4), st.integers(1, 4), st.lists(st.booleans()))
    def test_model(self, rise: int, fall: int, results: list[bool]) -> None:
        """The state is that of the last row that was long enough."""
        state = CheckState(rise, fall)
        healthy = True
        for end in range(1, len(results) + 1):
            state.note(results[end - 1])
            needed = fall if healthy else rise
            if end >= needed and all(result is not healthy for result in results[end - needed : end]):
                healthy = not healthy
                results[:end] = [healthy] * end
            self.assertEqual(state.healthy, healthy)


@implementer(IHealthChecker)
class Checker:
    """Answers when told to."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Deferred[None]]] = []
        self.cancelled: list[str] = []
        self.unwanted: set[str] = set()
        self.error: Exception | None = None

    def wants(self, host: Host) -> bool:
        return host.address not in self.unwanted

    def check(self, host: Host) -> Deferred[None]:
        if self.error is not None:
            raise self.error
        verdict: Deferred[None] = Deferred(lambda _: self.cancelled.append(host.address))
        self.asked.append((host.address, verdict))
        return verdict

    def take(self) -> Deferred[None]:
        """The verdict that is waited for, of the only check."""
        ((_, verdict),) = self.asked
        self.asked.clear()
        return verdict


class MonitorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.make()

    def make(self, **options: Any) -> None:
        self.clock = Clock()
        config = ClusterConfig(name="edge", lb_type="LB_ROUNDROBIN")
        self.cluster = Cluster(config, make_balancer(config, Random(1)), self.clock)
        self.checker = Checker()
        self.monitor = HealthMonitor(
            self.cluster,
            HealthCheckConfig(service_name="any", **options),
            self.checker,
            self.clock,
            lambda: 0.5,
        )
        self.cluster.add_task(self.monitor)

    def host(self, address: str = "a", kind: type[FakeHost] = FakeHost) -> FakeHost:
        host = kind(address)
        self.cluster.add_host(host)
        return host

    def fail_one(self) -> None:
        self.checker.take().errback(ValueError("sick"))


class MonitorTests(MonitorCase):
    def test_interfaces(self) -> None:
        verifyObject(IClusterTask, self.monitor)
        verifyObject(IHealthChecker, self.checker)

    def test_rhythm(self) -> None:
        """After a delay, and then an interval after each result, a little spread."""
        self.make(initial_delay_seconds=2.0, interval=10.0, interval_jitter=1.0)
        host = self.host()
        self.clock.advance(60)
        self.assertEqual(self.checker.asked, [])
        self.cluster.start()
        self.clock.advance(1.9)
        self.assertEqual(self.checker.asked, [])
        self.clock.advance(0.1)
        verdict = self.checker.take()
        self.clock.advance(0.5)
        verdict.callback(None)
        self.clock.advance(10.4)
        self.assertEqual(self.checker.asked, [])
        self.clock.advance(0.2)
        self.checker.take().callback(None)
        self.assertEqual((host.health.faults, self.monitor.passed, self.monitor.failed), (Fault(0), 2, 0))

    def test_unhealthy_and_back(self) -> None:
        """A host that fails gets no requests until it passes again."""
        host = self.host()
        self.cluster.start()
        self.clock.advance(1)
        self.fail_one()
        self.assertEqual((host.healthy, host.health.faults, self.monitor.failed), (False, Fault.CHECK, 1))
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.clock.advance(16)
        self.checker.take().callback(None)
        self.assertIs(self.cluster.acquire(), host)
        self.assertEqual(host.healthy_since, self.clock.seconds())

    def test_thresholds(self) -> None:
        self.make(unhealthy_threshold=2, healthy_threshold=2)
        host = self.host()
        self.cluster.start()
        states = []
        for passes in (False, False, True, True):
            self.clock.advance(16)
            self.checker.take().callback(None) if passes else self.fail_one()
            states.append(host.healthy)
        self.assertEqual(states, [True, False, False, True])

    def test_timeout(self) -> None:
        """A check that takes too long has failed, and is ended."""
        host = self.host()
        self.cluster.start()
        self.clock.advance(1)
        self.clock.advance(1)
        self.assertEqual((host.healthy, self.checker.cancelled), (False, ["a"]))

    def test_nothing_to_find_out(self) -> None:
        """Where there is nothing to find out now, there may be later."""
        host = self.host()
        self.cluster.start()
        self.checker.unwanted = {"a"}
        self.clock.advance(1)
        self.assertEqual(self.checker.asked, [])
        self.checker.unwanted = set()
        self.clock.advance(16)
        self.fail_one()
        self.assertFalse(host.healthy)

    def test_broken_checker(self) -> None:
        """A checker that raises has failed."""
        host = self.host()
        self.checker.error = ValueError("broken")
        self.cluster.start()
        self.clock.advance(1)
        self.assertFalse(host.healthy)

    def test_joins_later(self) -> None:
        """Hosts that join while checks run are checked, too, if there is anything to check."""
        self.checker.unwanted = {"b"}
        self.cluster.start()
        self.host("a")
        self.host("b")
        self.clock.advance(1)
        self.assertEqual([address for address, _ in self.checker.asked], ["a"])

    def test_leaves(self) -> None:
        """A host that leaves is checked no more."""
        waiting, checked = self.host("a"), self.host("b")
        self.cluster.start()
        self.cluster.remove_host(waiting)
        self.clock.advance(1)
        self.assertEqual([address for address, _ in self.checker.asked], ["b"])
        self.cluster.remove_host(checked)
        self.assertEqual(self.checker.cancelled, ["b"])
        self.assertEqual((checked.health.check, checked.healthy, self.monitor.failed), (None, True, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_leaves_by_its_verdict(self) -> None:
        """It may leave because of the verdict."""
        host = self.host()
        self.cluster.start()
        self.clock.advance(1)
        self.patch(self.cluster, "set_health", lambda *_: self.cluster.remove_host(host))
        self.fail_one()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_stop(self) -> None:
        """When checks are stopped, nothing is left; they may begin anew."""
        host = self.host()
        self.cluster.start()
        self.cluster.start()
        self.clock.advance(1)
        self.cluster.stop()
        self.cluster.stop()
        self.assertEqual((self.checker.cancelled, self.clock.getDelayedCalls()), (["a"], []))
        self.checker.asked.clear()
        self.cluster.start()
        self.clock.advance(1)
        self.fail_one()
        self.assertFalse(host.healthy)

    def test_end(self) -> None:
        """When the cluster ends, so do they, for good."""
        self.host()
        self.cluster.start()
        self.cluster.close("test")
        self.cluster.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_at_once(self) -> None:
        """A checker may know at once."""
        self.patch(self.checker, "check", lambda host: succeed(None))
        self.host()
        self.cluster.start()
        self.clock.pump([1, 16, 16])
        self.assertEqual(self.monitor.passed, 3)

    def test_not_lent(self) -> None:
        """A host that is dialled is checked whether it is busy or not."""
        host = self.host("a", ReturningHost)
        self.assertIs(self.cluster.acquire(), host)
        self.cluster.start()
        self.clock.advance(1)
        self.assertEqual((len(self.checker.asked), host.active), (1, 1))


class ReverseHostTests(MonitorCase):
    """The connection of a reverse host is the checker's while nobody else needs it."""

    def setUp(self) -> None:
        super().setUp()
        self.reverse, self.wire = reverse_host(self.cluster.remove_host, self.clock)
        self.cluster.add_host(self.reverse)
        self.cluster.start()

    def test_lent(self) -> None:
        """During a check nobody else gets the host; those who wait get it afterwards."""
        self.clock.advance(1)
        self.assertEqual(self.reverse.active, 1)
        self.assertIsNone(self.cluster.acquire())
        waiter = self.cluster.wait(None, 5.0)
        self.checker.take().callback(None)
        self.assertIs(self.successResultOf(waiter), self.reverse)

    def test_failed(self) -> None:
        """If it fails, they do not get it."""
        self.clock.advance(1)
        waiter = self.cluster.wait(None, 5.0)
        self.fail_one()
        self.failureResultOf(waiter, NoHealthyHost)
        self.assertEqual((self.reverse.active, self.reverse.health.faults), (0, Fault.CHECK))
        self.clock.advance(16)
        self.checker.take().callback(None)
        self.assertIs(self.cluster.acquire(), self.reverse)

    def test_busy(self) -> None:
        """It is not checked while it is busy."""
        self.assertIs(self.cluster.acquire(), self.reverse)
        self.clock.advance(1)
        self.assertEqual(self.checker.asked, [])
        self.cluster.release(self.reverse)
        self.clock.advance(16)
        self.assertEqual(len(self.checker.asked), 1)

    def test_lost(self) -> None:
        """It may be lost during a check."""
        self.clock.advance(1)
        verdict = self.checker.take()
        verdict.addErrback(lambda reason: reason.trap(CancelledError))
        self.wire.lose()
        self.assertEqual((self.cluster.hosts, self.cluster.active, self.reverse.active), ({}, 0, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class BorrowTests(SynchronousTestCase):
    def test_borrow(self) -> None:
        """A certain host can be taken if it has room, whether it is healthy or not."""
        clock = Clock()
        config = ClusterConfig(name="edge")
        cluster = Cluster(config, make_balancer(config, Random(1)), clock)
        host, wire = reverse_host(cluster.remove_host, clock)
        self.assertFalse(cluster.acquire_for_check(host))
        cluster.add_host(host)
        cluster.set_health(host, False)
        self.assertTrue(cluster.acquire_for_check(host))
        self.assertFalse(cluster.acquire_for_check(host))
        cluster.release(host)
        self.successResultOf(host.connect(Users(IdleUser)))
        wire.loseConnection()
        self.assertFalse(cluster.acquire_for_check(host))
        self.assertEqual(cluster.hosts, {})
        static = FakeHost("a")
        cluster.add_host(static)
        self.assertTrue(cluster.acquire_for_check(static))
