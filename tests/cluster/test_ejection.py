"""Tests for L{reverseproxy.cluster.health.ejection}."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.health.ejection import may_eject
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.host import Fault
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import ClusterConfig, OutlierDetectionConfig
from reverseproxy.errors import NoHealthyHost
from tests import most
from tests.cluster.fakes import FakeHost, ReturningHost


class FloorTests(SynchronousTestCase):
    def test_half(self) -> None:
        """By default at least half of the hosts stay."""
        most = [
            max(ejected for ejected in range(members + 1) if may_eject(members, ejected, 1, 50))
            for members in range(1, 8)
        ]
        self.assertEqual(most, [0, 1, 1, 2, 2, 3, 3])

    @given(st.integers(1, 10**4), st.integers(1, 10**4), st.integers(0, 10**4), st.integers(0, 100))
    def test_floor(self, members: int, ejected: int, healthy: int, percent: int) -> None:
        """Never more than the part, and never the last one."""
        if may_eject(members, ejected, healthy, percent):
            self.assertLessEqual(ejected / members, percent / 100 + 1e-9)
            self.assertGreater(healthy, 0)


class EjectorCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def make(self, hosts: int = 4, **options: Any) -> None:
        config = ClusterConfig(name="edge", outlier_detection=OutlierDetectionConfig(**options))
        self.cluster = Cluster(config, RoundRobinBalancer(), self.clock)
        self.hosts = [FakeHost(f"h{number}") for number in range(hosts)]
        for host in self.hosts:
            self.cluster.add_host(host)

    def fail_with(self, outcome: Outcome, times: int = 5, host: int = 0) -> bool:
        """
        Report failures.

        @return: whether the host is healthy afterwards.
        """
        for _ in range(times):
            self.cluster.report(self.hosts[host], outcome)
        return self.hosts[host].healthy

    def picks(self) -> set[object]:
        return {self.cluster.acquire() for _ in range(20)}


class EjectTests(EjectorCase):
    def test_connects(self) -> None:
        """A host that can't be connected to five times in a row is left out for a while."""
        self.make()
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE, 4))
        self.assertFalse(self.fail_with(Outcome.UNREACHABLE, 1))
        self.assertEqual(self.hosts[0].health.faults, Fault.EJECTED)
        self.assertEqual(self.picks(), set(self.hosts[1:]))
        self.clock.advance(29.9)
        self.assertFalse(self.hosts[0].healthy)
        self.clock.advance(0.1)
        self.assertTrue(self.hosts[0].healthy)
        self.assertEqual(self.picks(), set(self.hosts))
        self.assertEqual((self.cluster.ejector.ejected, self.cluster.ejector.total), ({}, 1))

    def test_in_a_row(self) -> None:
        """A connection that is made begins the row anew."""
        self.make()
        for good in (
            Outcome.CONNECTED,
            Outcome.SUCCESS,
            Outcome.CLIENT_ERROR,
            Outcome.SERVER_ERROR,
            Outcome.RESET,
        ):
            self.fail_with(Outcome.UNREACHABLE, 4)
            self.cluster.report(self.hosts[0], good)
        self.assertTrue(self.hosts[0].healthy)

    def test_only_connects(self) -> None:
        """By default nothing else counts, and nothing else needs to be reported."""
        self.make()
        self.assertFalse(self.cluster.watches_answers)
        self.assertTrue(self.fail_with(Outcome.SERVER_ERROR, 1000))
        self.assertTrue(self.fail_with(Outcome.RESET, 1000))

    def test_server_errors(self) -> None:
        """Answers from 500 on count if the configuration says so; a reset between them changes nothing."""
        self.make(consecutive_5xx=3)
        self.assertTrue(self.cluster.watches_answers)
        self.fail_with(Outcome.SERVER_ERROR, 2)
        self.assertTrue(self.fail_with(Outcome.CLIENT_ERROR, 1))
        self.fail_with(Outcome.SERVER_ERROR, 2)
        self.assertTrue(self.fail_with(Outcome.RESET, 9))
        self.assertFalse(self.fail_with(Outcome.SERVER_ERROR, 1))

    def test_resets(self) -> None:
        """So do answers that are cut off."""
        self.make(consecutive_resets=3)
        self.assertTrue(self.cluster.watches_answers)
        self.fail_with(Outcome.RESET, 2)
        self.assertTrue(self.fail_with(Outcome.SUCCESS, 1))
        self.fail_with(Outcome.RESET, 2)
        self.assertTrue(self.fail_with(Outcome.SERVER_ERROR, 1))
        self.assertFalse(self.fail_with(Outcome.RESET, 3))

    def test_off(self) -> None:
        """Nothing counts if nothing shall."""
        self.make(consecutive_connect_failures=0)
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE, 1000))

    def test_successes_cost_nothing(self) -> None:
        """Hosts that never fail have no record."""
        self.make()
        for outcome in (Outcome.CONNECTED, Outcome.SUCCESS, Outcome.CLIENT_ERROR):
            self.fail_with(outcome)
        self.assertIsNone(self.hosts[0].health.failures)

    def test_reverse_hosts(self) -> None:
        """A connection that an agent has made can't be out of reach; its answers count like others'."""
        self.make(consecutive_5xx=2)
        self.hosts[0] = ReturningHost("agent")
        self.cluster.add_host(self.hosts[0])
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE, 100))
        self.assertFalse(self.fail_with(Outcome.SERVER_ERROR, 2))

    def test_strangers(self) -> None:
        """What is reported of hosts that have left is of no interest."""
        self.make()
        self.cluster.remove_host(self.hosts[0])
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE))

    def test_longer_each_time(self) -> None:
        """The time doubles, up to the longest, until the host has done well for as long as that."""
        self.make(base_ejection_time=10.0, max_ejection_time=60.0)
        for seconds in (10, 20, 40, 60, 60):
            self.assertFalse(self.fail_with(Outcome.UNREACHABLE))
            self.clock.advance(seconds - 0.5)
            self.assertFalse(self.hosts[0].healthy)
            self.clock.advance(0.5)
            self.assertTrue(self.hosts[0].healthy)
        self.cluster.report(self.hosts[0], Outcome.CONNECTED)
        self.clock.advance(61)
        self.fail_with(Outcome.UNREACHABLE)
        self.clock.advance(10)
        self.assertTrue(self.hosts[0].healthy)

    def test_shortest_longest(self) -> None:
        """The first time is as long as it says, although another is to be the longest."""
        self.make(base_ejection_time=100.0, max_ejection_time=1.0)
        self.fail_with(Outcome.UNREACHABLE)
        self.clock.advance(99)
        self.assertFalse(self.hosts[0].healthy)

    def test_probation(self) -> None:
        """A host that was let in again is left out at its next failure, until it has done better."""
        self.make(consecutive_5xx=3)
        self.fail_with(Outcome.SERVER_ERROR)
        self.clock.advance(30)
        self.assertFalse(self.fail_with(Outcome.SERVER_ERROR, 1))
        self.clock.advance(60)
        self.fail_with(Outcome.SUCCESS, 1)
        self.assertTrue(self.fail_with(Outcome.SERVER_ERROR, 2))
        self.assertFalse(self.fail_with(Outcome.SERVER_ERROR, 1))

    def test_other_faults(self) -> None:
        """A host that is unhealthy for another reason as well stays so when it is let in again."""
        self.make()
        host = self.hosts[0]
        self.fail_with(Outcome.UNREACHABLE)
        self.cluster.set_health(host, False, "test", Fault.CHECK)
        self.assertEqual(host.health.faults, Fault.EJECTED | Fault.CHECK)
        self.clock.advance(30)
        self.assertEqual((host.health.faults, host.healthy), (Fault.CHECK, False))
        self.cluster.set_health(host, True, "test", Fault.CHECK)
        self.assertEqual((host.health.faults, host.healthy), (Fault(0), True))
        self.assertEqual(self.cluster.healthy, 4)

    def test_unhealthy_is_left_out(self) -> None:
        """A host that is unhealthy already may be left out; it is one of those that may."""
        self.make(2)
        self.cluster.set_health(self.hosts[0], False)
        self.fail_with(Outcome.UNREACHABLE)
        self.assertEqual(self.hosts[0].health.faults, Fault.EJECTED | Fault.ORDERED)
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE, host=1))


class KeepTests(EjectorCase):
    def test_half_stays(self) -> None:
        """At most half of the hosts are left out; another may be as soon as one is let in again."""
        self.make()
        healthy = [self.fail_with(Outcome.UNREACHABLE, host=number) for number in range(4)]
        self.assertEqual(healthy, [False, False, True, True])
        self.clock.advance(30)
        self.assertFalse(self.fail_with(Outcome.UNREACHABLE, 1, host=2))

    def test_all_but_one(self) -> None:
        """One stays even if all may be left out."""
        self.make(3, max_ejection_percent=100)
        healthy = [self.fail_with(Outcome.UNREACHABLE, host=number) for number in range(3)]
        self.assertEqual(healthy, [False, False, True])

    def test_only_one(self) -> None:
        """The only host stays."""
        self.make(1, max_ejection_percent=100)
        self.assertTrue(self.fail_with(Outcome.UNREACHABLE, 100))

    def test_others_leave(self) -> None:
        """When others leave, hosts are let in again until half of them are in."""
        self.make()
        for number in (0, 1):
            self.fail_with(Outcome.UNREACHABLE, host=number)
        self.cluster.remove_host(self.hosts[2])
        self.assertEqual([host.healthy for host in self.hosts[:2]], [True, False])
        self.cluster.remove_host(self.hosts[3])
        self.assertEqual([host.healthy for host in self.hosts[:2]], [True, False])
        self.cluster.remove_host(self.hosts[0])
        self.assertTrue(self.hosts[1].healthy)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_others_become_unhealthy(self) -> None:
        """When all others are unhealthy, one that is left out for this alone is let in again."""
        self.make()
        for number in (0, 1):
            self.fail_with(Outcome.UNREACHABLE, host=number)
        self.cluster.set_health(self.hosts[0], False, fault=Fault.CHECK)
        self.cluster.set_health(self.hosts[2], False, fault=Fault.CHECK)
        self.assertFalse(self.hosts[1].healthy)
        self.cluster.set_health(self.hosts[3], False, fault=Fault.CHECK)
        self.assertEqual([host.healthy for host in self.hosts], [False, True, False, False])
        self.cluster.set_health(self.hosts[1], False, fault=Fault.CHECK)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)

    def test_many_come_back_at_once(self) -> None:
        """As when a reload lets far fewer be left out, while a check of each fails, too."""
        self.make(1500, max_ejection_percent=100)
        for number in range(1400):
            self.fail_with(Outcome.UNREACHABLE, host=number)
            self.cluster.set_health(self.hosts[number], False, fault=Fault.CHECK)
        fewer = OutlierDetectionConfig(max_ejection_percent=10)
        self.cluster.change(ClusterConfig(name="edge", outlier_detection=fewer))
        self.assertEqual(len(self.cluster.ejector.ejected), 150)
        self.assertEqual([host.healthy for host in self.hosts], 1400 * [False] + 100 * [True])

    def test_those_who_wait(self) -> None:
        """Whoever waits does not fail if a host is let in again instead."""
        self.make(2)
        one, two = self.hosts
        two.capacity = 1
        self.fail_with(Outcome.UNREACHABLE)
        self.assertIs(self.cluster.acquire(), two)
        waiter = self.cluster.wait(None, 5.0)
        self.cluster.set_health(two, False, fault=Fault.CHECK)
        self.assertIs(self.successResultOf(waiter), one)

    def test_leaves(self) -> None:
        """A host that leaves while it is left out leaves no timer behind."""
        self.make()
        self.fail_with(Outcome.UNREACHABLE)
        self.cluster.remove_host(self.hosts[0])
        self.assertEqual((self.cluster.ejector.ejected, self.clock.getDelayedCalls()), ({}, []))

    def test_end(self) -> None:
        """So does a cluster that ends; nobody is let in again for that."""
        for end in ("drain", "close"):
            self.make()
            self.fail_with(Outcome.UNREACHABLE)
            self.cluster.drain() if end == "drain" else self.cluster.close("test")
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual((self.hosts[0].healthy, self.cluster.hosts), (False, {}))


class EjectorMachine(RuleBasedStateMachine):
    """A cluster whose hosts fail, come, go and are busy."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.hosts: list[FakeHost] = []
        self.made = 0

    @initialize(percent=st.sampled_from([0, 10, 50, 100]), hosts=st.integers(0, 5))
    def begin(self, percent: int, hosts: int) -> None:
        self.percent = percent
        outliers = OutlierDetectionConfig(
            consecutive_connect_failures=2,
            consecutive_5xx=2,
            consecutive_resets=1,
            max_ejection_percent=percent,
        )
        config = ClusterConfig(name="edge", outlier_detection=outliers)
        self.cluster = Cluster(config, RoundRobinBalancer(), self.clock)
        for _ in range(hosts):
            self.join()

    @precondition(lambda self: len(self.hosts) < 8)
    @rule()
    def join(self) -> None:
        host = FakeHost(f"h{self.made}")
        self.made += 1
        self.hosts.append(host)
        self.cluster.add_host(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.hosts.remove(host)
        self.cluster.remove_host(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), healthy=st.booleans(), fault=st.sampled_from([Fault.CHECK, Fault.ORDERED]))
    def health(self, data: st.DataObject, healthy: bool, fault: Fault) -> None:
        self.cluster.set_health(data.draw(st.sampled_from(self.hosts)), healthy, fault=fault)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), outcome=st.sampled_from(Outcome), times=st.integers(1, 3))
    def report(self, data: st.DataObject, outcome: Outcome, times: int) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        for _ in range(times):
            self.cluster.report(host, outcome)

    @rule(seconds=st.sampled_from([1.0, 30.0, 700.0]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        if seconds > 300:
            assert not self.cluster.ejector.ejected

    @invariant()
    def floor(self) -> None:
        if not hasattr(self, "cluster"):
            return
        ejected = [host for host in self.hosts if Fault.EJECTED in host.health.faults]
        assert set(ejected) == set(self.cluster.ejector.ejected)
        assert len(ejected) * 100 <= len(self.hosts) * self.percent
        assert len(self.clock.getDelayedCalls()) == len(ejected)
        # Without ejection there would be as many, so it never empties a cluster.
        good = [host for host in self.hosts if not host.health.faults & ~Fault.EJECTED]
        assert self.cluster.healthy == sum(host.healthy for host in self.hosts)
        assert bool(good) == bool(self.cluster.healthy)
        for host in self.hosts:
            assert host.healthy == (not host.health.faults)
        if good:
            assert self.cluster.acquire() is not None


class AnySequenceTests(SynchronousTestCase):
    def test_never_empty(self) -> None:
        """No sequence of events makes ejection empty a cluster, or leave out more than it may."""
        run_state_machine_as_test(
            EjectorMachine, settings=settings(deadline=None, max_examples=most(150), stateful_step_count=50)
        )
