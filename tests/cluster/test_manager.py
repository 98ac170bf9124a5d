"""Tests for L{reverseproxy.cluster.manager}."""

from __future__ import annotations

from itertools import pairwise
from random import Random
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster import manager, membership_log, queue
from reverseproxy.cluster.balancers import round_robin
from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.manager import Cluster, ClusterManager, IClusterTask, QueuedDemand
from reverseproxy.config.models import CircuitBreakerConfig, ClusterConfig, SlowStartConfig
from reverseproxy.errors import ClusterUnknown, NoHealthyHost, PickFailed, QueueFull, QueueTimeout
from reverseproxy.interfaces import PickContext
from tests import most
from tests.cluster.counting import count_steps, pure_heapq
from tests.cluster.fakes import FakeHost, IdleUser, ReturningHost, Users, reverse_host
from tests.tunnel.logged import capture


def make_cluster(clock: Clock, requests: int = 0, pending: int = 0, **options: Any) -> Cluster:
    breaker = CircuitBreakerConfig(max_requests=requests, max_pending_requests=pending)
    config = ClusterConfig(name="edge", circuit_breakers=(breaker,), **options)
    return Cluster(config, make_balancer(config, Random(1)), clock)


@implementer(IClusterTask)
class Task:
    """Records what it is told."""

    def __init__(self, told: list[object]) -> None:
        self.told = told

    def start(self) -> None:
        self.told.append("start")

    def stop(self) -> None:
        self.told.append("stop")

    def joined(self, host: Host) -> None:
        self.told.append(("joined", host))

    def left(self, host: Host) -> None:
        self.told.append(("left", host))


class ClusterCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.cluster = make_cluster(self.clock)

    def returning(self, *addresses: str) -> list[ReturningHost]:
        hosts = [ReturningHost(address) for address in addresses]
        for host in hosts:
            self.cluster.add_host(host)
        return hosts

    def static(self, *addresses: str) -> list[FakeHost]:
        hosts = [FakeHost(address) for address in addresses]
        for host in hosts:
            self.cluster.add_host(host)
        return hosts

    def take(self, *hosts: Host) -> None:
        """Acquire as many hosts as there are given, which are all that are free."""
        self.assertEqual({self.cluster.acquire() for _ in hosts}, set(hosts))


class AcquireTests(ClusterCase):
    def test_static(self) -> None:
        """A host without a capacity takes any number of requests."""
        (host,) = self.static("a")
        self.take(host)
        self.take(host)
        self.assertEqual((host.active, self.cluster.active), (2, 2))
        self.cluster.release(host)
        self.cluster.release(host)
        self.assertEqual((host.active, self.cluster.active), (0, 0))

    def test_capacity(self) -> None:
        """A full host is not given out, nor is its cluster without hope."""
        one, two = self.returning("a", "b")
        self.take(one, two)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(two)
        self.assertIs(self.cluster.acquire(), two)

    def test_capacity_of_several(self) -> None:
        """A capacity may be more than one."""
        host = FakeHost("a", capacity=2)
        self.cluster.add_host(host)
        self.take(host)
        self.take(host)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(host)
        self.cluster.release(host)
        self.take(host)
        self.take(host)
        self.assertIsNone(self.cluster.acquire())

    def test_already_full(self) -> None:
        """A host that joins without room gets nothing until it has some."""
        host = FakeHost("a", capacity=0)
        self.cluster.add_host(host)
        self.assertIsNone(self.cluster.acquire())

    def test_empty(self) -> None:
        """A cluster without hosts fails at once."""
        error = self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.assertEqual(str(error), "cluster edge has no host")
        self.assertEqual(error.status, 502)

    def test_all_tried(self) -> None:
        """So does one whose hosts have all failed the request."""
        one, two = self.static("a", "b")
        context = PickContext(tried={one})
        self.assertIs(self.cluster.acquire(context), two)
        context.tried.add(two)
        error = self.assertRaises(NoHealthyHost, self.cluster.acquire, context)
        self.assertEqual(str(error), "cluster edge has 2 hosts, none of which is left for it")

    def test_busy_untried(self) -> None:
        """A busy host that was not tried yet is worth waiting for; a tried one is not."""
        one, two = self.returning("a", "b")
        self.take(one, two)
        self.assertIsNone(self.cluster.acquire(PickContext(tried={one})))
        self.assertRaises(NoHealthyHost, self.cluster.acquire, PickContext(tried={one, two}))

    def test_tried_stranger(self) -> None:
        """Tried hosts that left, or are unhealthy, do not count against others."""
        one, two, three = self.returning("a", "b", "c")
        self.cluster.remove_host(three)
        self.clock.advance(60)
        self.cluster.set_health(two, False)
        self.take(one)
        self.assertIsNone(self.cluster.acquire(PickContext(tried={two, three})))
        self.assertRaises(NoHealthyHost, self.cluster.acquire, PickContext(tried={one, two, three}))

    def test_kin_of_a_failed_host(self) -> None:
        """What ended one connection of an agent may have ended the others, so that others' come first."""
        hosts = self.returning("a", "b", "c", "d")
        gone, sibling, another, last = hosts
        gone.same_agent = sibling.same_agent = {gone: None, sibling: None}.keys()
        context = PickContext()
        self.take(gone)
        self.cluster.exclude_agent(gone, context)
        self.assertEqual(context.tried, {gone, sibling})
        self.assertEqual({self.cluster.acquire(context) for _ in range(2)}, {another, last})
        self.assertIsNone(self.cluster.acquire(context))
        for host in (another, last):
            context.tried.add(host)
        self.assertRaises(NoHealthyHost, self.cluster.acquire, context)
        self.assertTrue(context.readmit())
        self.assertIs(self.cluster.acquire(context), sibling)
        self.assertFalse(context.readmit())

    def test_nobody_but_kin(self) -> None:
        """They are better than nothing."""
        gone, sibling = self.returning("a", "b")
        gone.same_agent = {gone: None, sibling: None}.keys()
        context = PickContext()
        self.take(gone, sibling)
        self.cluster.release(sibling)
        self.cluster.exclude_agent(gone, context)
        self.assertEqual((context.tried, context.readmit()), ({gone}, False))
        self.assertIs(self.cluster.acquire(context), sibling)

    def test_not_too_many_kin(self) -> None:
        hosts = self.returning(*map(str, range(200)))
        same_agent = dict.fromkeys(hosts).keys()
        context = PickContext()
        self.returning(*(f"other {number}" for number in range(200)))
        for host in hosts[:3]:
            host.same_agent = same_agent
            self.cluster.exclude_agent(host, context)
        self.assertEqual((len(context.tried), len(context.deprioritized or ())), (64, 63))

    def test_max_requests(self) -> None:
        """The circuit breaker bounds what is under way on all hosts."""
        cluster = make_cluster(self.clock, requests=2)
        host = FakeHost("a")
        cluster.add_host(host)
        cluster.acquire()
        cluster.acquire()
        error = self.assertRaises(QueueFull, cluster.acquire)
        self.assertEqual(error.status, 503)
        self.failureResultOf(cluster.wait(None, 1.0), QueueFull)
        cluster.release(host)
        self.assertIs(cluster.acquire(), host)

    def test_released_too_often(self) -> None:
        """To release what is not taken is an error."""
        (host,) = self.static("a")
        self.assertRaises(ValueError, self.cluster.release, host)
        self.assertEqual((host.active, self.cluster.active), (0, 0))

    def test_release_of_unusable(self) -> None:
        """A host whose connection is being closed is gone when it is released."""
        clock = self.clock
        host, wire = reverse_host(self.cluster.remove_host, clock)
        self.cluster.add_host(host)
        self.take(host)
        self.successResultOf(host.connect(Users()))
        wire.loseConnection()
        self.cluster.release(host)
        self.assertEqual(self.cluster.hosts, {})
        self.assertEqual((host.active, self.cluster.active), (0, 0))
        self.assertIsNone(self.cluster.acquire())

    def test_unusable_while_another_is_released(self) -> None:
        """Who waits for it alone fails, the next one is given what is free."""
        cluster = make_cluster(self.clock, requests=2, pending=10)
        leaving, wire = reverse_host(cluster.remove_host, self.clock)
        host = FakeHost("a")
        for each in (leaving, host):
            cluster.add_host(each)
        cluster.reserve(leaving)
        cluster.take(host)
        cluster.take(host)
        only = [cluster.queue.add(PickContext(only=leaving), 5.0) for _ in range(2)]
        after = cluster.queue.add(None, 5.0)
        leaving.reserved = False
        wire.loseConnection()
        cluster.release(host)
        for each in only:
            self.failureResultOf(each, NoHealthyHost)
        self.assertIs(self.successResultOf(after), host)


class WaitTests(ClusterCase):
    def wait(self, timeout: float = 5.0, *tried: Host) -> Deferred[Host]:
        return self.cluster.wait(PickContext(tried=set(tried)), timeout)

    def test_for_one_host_that_leaves(self) -> None:
        """However many others there are."""
        one, *others = self.returning("a", "b", "c")
        self.take(one, *others)
        waiter = self.cluster.wait(PickContext(only=one), 5.0)
        self.cluster.remove_host(others[0])
        self.assertNoResult(waiter)
        self.cluster.remove_host(one)
        self.failureResultOf(waiter, NoHealthyHost)

    def test_free(self) -> None:
        """Where a host is free, nobody waits."""
        (host,) = self.static("a")
        self.assertIs(self.successResultOf(self.wait()), host)
        self.assertEqual(host.active, 1)

    def test_without_context(self) -> None:
        """A context is not needed."""
        (host,) = self.returning("a")
        self.take(host)
        waiter = self.cluster.wait(None, 5.0)
        self.cluster.release(host)
        self.assertIs(self.successResultOf(waiter), host)

    def test_in_order(self) -> None:
        """A host that is released goes to the one who has waited the longest."""
        (host,) = self.returning("a")
        self.take(host)
        waiters = [self.wait() for _ in range(3)]
        self.assertEqual(self.cluster.waiting, 3)
        for number, waiter in enumerate(waiters):
            self.assertNoResult(waiter)
            self.cluster.release(host)
            self.assertIs(self.successResultOf(waiter), host)
            self.assertEqual((host.active, self.cluster.active), (1, 1))
            self.assertEqual(self.cluster.waiting, 2 - number)
        self.cluster.release(host)
        self.assertEqual((host.active, self.cluster.active), (0, 0))
        self.assertIs(self.cluster.acquire(), host)

    def test_tried_are_passed_over(self) -> None:
        """A host goes to the first who has not tried it; to nobody, if all have."""
        one, two = self.returning("a", "b")
        self.take(one, two)
        first, second = self.wait(5.0, one), self.wait()
        self.cluster.release(one)
        self.assertNoResult(first)
        self.assertIs(self.successResultOf(second), one)
        self.cluster.release(one)
        self.assertNoResult(first)
        self.assertIs(self.cluster.acquire(), one)
        self.cluster.release(two)
        self.assertIs(self.successResultOf(first), two)

    def test_join(self) -> None:
        """A host that joins serves those who wait: one, or all if it has no capacity."""
        (busy,) = self.returning("a")
        self.take(busy)
        waiters = [self.wait() for _ in range(3)]
        (new,) = self.returning("b")
        self.assertIs(self.successResultOf(waiters[0]), new)
        self.assertEqual(self.cluster.waiting, 2)
        (static,) = self.static("c")
        self.assertIs(self.successResultOf(waiters[1]), static)
        self.assertIs(self.successResultOf(waiters[2]), static)
        self.assertIs(self.cluster.acquire(), static)
        self.assertEqual((static.active, self.cluster.active), (3, 5))

    def test_join_of_tried(self) -> None:
        """A host that joins unwanted is there for the next request."""
        (busy,) = self.returning("a")
        self.take(busy)
        new = ReturningHost("b")
        waiter = self.wait(5.0, new)
        self.cluster.add_host(new)
        self.assertNoResult(waiter)
        self.assertIs(self.cluster.acquire(), new)

    def test_timeout(self) -> None:
        """Each waits for as long as it said."""
        (host,) = self.returning("a")
        self.take(host)
        long, short, middle = self.wait(9.0), self.wait(1.0), self.wait(4.0)
        self.clock.advance(0.9)
        self.assertNoResult(short)
        self.clock.advance(0.1)
        error = self.failureResultOf(short, QueueTimeout).value
        self.assertEqual(error.status, 503)
        self.clock.advance(2.9)
        self.assertNoResult(middle)
        self.clock.advance(0.2)
        self.failureResultOf(middle, QueueTimeout)
        self.cluster.release(host)
        self.assertIs(self.successResultOf(long), host)
        self.clock.advance(60)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_timer(self) -> None:
        """All who wait share a timer."""
        (host,) = self.returning("a")
        self.take(host)
        waiters = [self.wait(1.0 + number / 1000) for number in range(100)]
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.pump([0.001] * 1200)
        for waiter in waiters:
            self.failureResultOf(waiter, QueueTimeout)
        self.assertEqual(self.cluster.waiting, 0)

    def test_no_time(self) -> None:
        """Without time to wait, the failure comes at once."""
        (host,) = self.returning("a")
        self.take(host)
        self.failureResultOf(self.wait(0.0), QueueTimeout)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_full(self) -> None:
        """The queue is bounded."""
        self.cluster = make_cluster(self.clock, pending=2)
        (host,) = self.returning("a")
        self.take(host)
        waiters = [self.wait(), self.wait()]
        self.failureResultOf(self.wait(), QueueFull)
        waiters[0].cancel()
        self.failureResultOf(waiters[0], CancelledError)
        self.assertNoResult(self.wait())

    def test_default_bound(self) -> None:
        """Without configuration, 1,024 may wait."""
        (host,) = self.returning("a")
        self.take(host)
        for _ in range(1024):
            self.assertNoResult(self.wait())
        self.failureResultOf(self.wait(), QueueFull)

    def test_cancel(self) -> None:
        """A client that goes away leaves the queue, and gets no host."""
        (host,) = self.returning("a")
        self.take(host)
        first, second = self.wait(), self.wait()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        self.assertEqual(self.cluster.waiting, 1)
        self.cluster.release(host)
        self.assertIs(self.successResultOf(second), host)

    def test_hopeless(self) -> None:
        """To wait for nothing fails at once."""
        self.failureResultOf(self.wait(), NoHealthyHost)

    def test_cancelled_by_another(self) -> None:
        """A waiter may cancel, or release for, others as it fails."""
        (host,) = self.returning("a")
        self.take(host)
        results: list[object] = []
        first, second, third = self.wait(1.0), self.wait(1.0), self.wait(1.0)

        def at_failure(_: object) -> None:
            second.cancel()
            self.cluster.release(host)

        first.addErrback(at_failure)
        second.addErrback(lambda reason: results.append(reason.type))
        self.clock.advance(1.0)
        self.assertEqual(results, [CancelledError])
        self.assertIs(self.successResultOf(third), host)

    def test_no_recursion(self) -> None:
        """Any number of requests may fail at once with the host that they get."""
        (host,) = self.returning("a")
        self.take(host)
        for _ in range(1024):
            self.wait().addCallback(self.cluster.release)
        self.cluster.release(host)
        self.assertEqual((self.cluster.waiting, self.cluster.active), (0, 0))
        self.assertIs(self.cluster.acquire(), host)

    def test_acquire_while_served(self) -> None:
        """A request that comes while hosts are handed out is not turned away."""
        (host,) = self.returning("a")
        self.take(host)
        results: list[object] = []

        def use(got: Host) -> None:
            self.cluster.release(got)
            results.append(self.cluster.acquire())
            results.append(self.wait())

        self.wait().addCallback(use)
        second = self.wait()
        self.cluster.release(host)
        self.assertIsNone(results[0])
        self.assertIs(self.successResultOf(second), host)
        self.cluster.release(host)
        self.assertIs(self.successResultOf(results[1]), host)  # type: ignore[arg-type]

    def test_removed_while_served(self) -> None:
        """A host that leaves while it is handed out is handed out no more."""
        (host,) = self.static("a")
        self.take(host)
        self.cluster.set_health(host, False)
        self.returning("b")
        self.take(self.cluster.hosts["b"])
        waiters = [self.wait(), self.wait()]
        waiters[0].addCallback(self.cluster.remove_host)
        self.cluster.set_health(host, True)
        self.assertNoResult(waiters[1])
        self.assertEqual(host.active, 2)


class MaxRequestsTests(ClusterCase):
    """Waiting, where the number of requests is bounded, too."""

    def setUp(self) -> None:
        super().setUp()
        self.cluster = make_cluster(self.clock, requests=2)

    def test_join(self) -> None:
        """A host that joins a cluster with as many requests as it may have serves nobody yet."""
        one, two = self.returning("a", "b")
        self.take(one)
        waiter = self.cluster.wait(PickContext(tried={two}), 5.0)
        self.take(two)
        (new,) = self.returning("c")
        self.assertNoResult(waiter)
        self.cluster.release(two)
        self.assertIs(self.successResultOf(waiter), new)
        self.assertEqual(self.cluster.active, 2)

    def test_release_of_removed(self) -> None:
        """Who waits is let in even if the host that was released is gone."""
        one, two = self.returning("a", "b")
        self.take(one)
        waiter = self.cluster.wait(PickContext(tried={two}), 5.0)
        behind = self.cluster.wait(PickContext(tried={two}), 5.0)
        self.take(two)
        (new,) = self.returning("c")
        self.cluster.remove_host(two)
        self.cluster.release(two)
        self.assertIs(self.successResultOf(waiter), new)
        self.cluster.release(one)
        self.assertIs(self.successResultOf(behind), one)
        self.assertEqual(self.cluster.active, 2)

    def test_handed_on(self) -> None:
        """A release makes room for one, not for a second one on another host."""
        one, two = self.returning("a", "b")
        self.take(one)
        first, second = (self.cluster.wait(PickContext(tried={two}), 5.0) for _ in range(2))
        self.take(two)
        self.returning("c")
        self.cluster.release(one)
        self.assertIs(self.successResultOf(first), one)
        self.assertNoResult(second)
        self.assertEqual(self.cluster.active, 2)

    def test_let_in_one_by_one(self) -> None:
        """One who is let in may be followed by no more than there is room for."""
        one, two = self.returning("a", "b")
        self.take(one)
        waiters = [self.cluster.wait(PickContext(tried={two}), 5.0) for _ in range(3)]
        self.take(two)
        self.returning("c", "d", "e")
        self.cluster.remove_host(two)
        self.cluster.release(two)
        self.cluster.remove_host(one)
        self.cluster.release(one)
        self.assertEqual([waiter.called for waiter in waiters], [True, True, False])
        self.assertEqual(self.cluster.active, 2)

    def test_nobody_eligible(self) -> None:
        """Who has tried all that is free goes on waiting."""
        one, two = self.returning("a", "b")
        self.take(one)
        waiter = self.cluster.wait(PickContext(tried={two}), 5.0)
        self.take(two)
        self.cluster.release(two)
        self.assertNoResult(waiter)
        self.assertIs(self.cluster.acquire(), two)


class MembershipTests(ClusterCase):
    def logged(self, *actions: Any) -> list[str]:
        """What is logged of an action, as cluster, host and reason."""
        lines: list[str] = []

        def observe(event: Any) -> None:
            if event.get("log_namespace") == manager.__name__:
                lines.append(f"{event['cluster']} {event['host']} {event.get('reason', '')}".rstrip(": "))

        globalLogPublisher.addObserver(observe)
        try:
            for action in actions:
                action()
        finally:
            globalLogPublisher.removeObserver(observe)
        return lines

    def test_gauges(self) -> None:
        """Comings and goings are counted and logged."""
        host = FakeHost("a")
        lines = self.logged(
            lambda: self.cluster.add_host(host),
            lambda: self.cluster.set_health(host, False, "no answer"),
            lambda: self.cluster.set_health(host, True),
            lambda: self.cluster.remove_host(host, "agent drains"),
        )
        self.assertEqual(lines, ["edge a", "edge a : no answer", "edge a", "edge a agent drains"])
        self.assertEqual((self.cluster.joined, self.cluster.left), (1, 1))
        self.assertEqual(host.retirements, 1)
        self.assertEqual(repr(self.cluster), "<Cluster edge: 0 hosts, 0 active, 0 waiting>")

    def test_one_line_for_one_connection(self) -> None:
        """The worker that has an agent's connection says that it joined and left; others at DEBUG."""

        class Away(ReturningHost):
            is_remote = True

        for kind, level in ((ReturningHost, LogLevel.info), (Away, LogLevel.debug)):
            host = kind("a")
            with capture() as events:
                self.cluster.add_host(host)
                self.cluster.remove_host(host, "the agent leaves")
            self.assertEqual([event["log_level"] for event in events], [level, level])

    def test_replaced(self) -> None:
        """A new host with the address of a member takes its place; requests on the old one end."""
        (old,) = self.returning("a")
        self.take(old)
        waiter = self.cluster.wait(None, 5.0)
        (new,) = self.returning("a")
        self.assertEqual(old.reasons, ["replaced by a new connection from the same address"])
        self.assertIs(self.successResultOf(waiter), new)
        self.assertEqual(self.cluster.hosts, {"a": new})
        self.cluster.remove_host(old, "connection lost")
        self.cluster.release(old)
        self.assertEqual(self.cluster.hosts, {"a": new})
        self.assertEqual((self.cluster.active, self.cluster.joined, self.cluster.left), (1, 2, 1))

    def test_member_twice(self) -> None:
        """A host is a member of one cluster."""
        (host,) = self.static("a")
        self.assertRaises(ValueError, self.cluster.add_host, host)
        self.assertRaises(ValueError, make_cluster(self.clock).add_host, host)
        make_cluster(self.clock).remove_host(host)
        self.assertEqual(self.cluster.hosts, {"a": host})
        self.cluster.remove_host(host)
        self.cluster.add_host(host)

    def test_returning(self) -> None:
        """When the last reverse host is lost, its agent is given time to come back."""
        (host,) = self.returning("a")
        self.cluster.remove_host(host)
        self.assertIsNone(self.cluster.acquire())
        waiter = self.cluster.wait(None, 60.0)
        self.clock.advance(self.cluster.config.connect_timeout)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.assertNoResult(waiter)
        (new,) = self.returning("b")
        self.assertIs(self.successResultOf(waiter), new)

    def test_returning_after_failure(self) -> None:
        """A request that the lost connection failed may wait for the next one, too."""
        (host,) = self.returning("a")
        self.cluster.remove_host(host)
        waiter = self.cluster.wait(PickContext(tried={host}), 5.0)
        (new,) = self.returning("a")
        self.assertIs(self.successResultOf(waiter), new)

    def test_static_removed(self) -> None:
        """When the last other host is removed, those who wait fail."""
        host, other = FakeHost("a", capacity=1), FakeHost("b", capacity=1)
        self.cluster.add_host(host)
        self.cluster.add_host(other)
        self.take(host, other)
        hopeful = self.cluster.wait(None, 5.0)
        hopeless = self.cluster.wait(PickContext(tried={other}), 5.0)
        self.cluster.remove_host(host)
        self.failureResultOf(hopeless, NoHealthyHost)
        self.assertNoResult(hopeful)
        self.cluster.set_health(other, False)
        self.failureResultOf(hopeful, NoHealthyHost)
        self.assertEqual(self.cluster.waiting, 0)

    def test_failing_together(self) -> None:
        """One who fails may cancel the next one to fail."""
        host = FakeHost("a", capacity=1)
        self.cluster.add_host(host)
        self.take(host)
        first, second = self.cluster.wait(None, 5.0), self.cluster.wait(None, 5.0)
        first.addErrback(lambda _: second.cancel())
        self.cluster.remove_host(host)
        self.failureResultOf(second, CancelledError)

    def test_retired_busy(self) -> None:
        """A host that left while busy is told again when it becomes idle."""
        (host,) = self.static("a")
        self.take(host)
        self.take(host)
        self.cluster.remove_host(host)
        self.cluster.release(host)
        self.assertEqual(host.retirements, 1)
        self.cluster.release(host)
        self.assertEqual(host.retirements, 2)
        self.assertEqual(self.cluster.active, 0)

    def test_graceful(self) -> None:
        """A reverse host that is let go loses an idle connection at once, a busy one when it is released."""
        idle, idle_wire = reverse_host(self.cluster.remove_host, self.clock, "a")
        busy, busy_wire = reverse_host(self.cluster.remove_host, self.clock, "b")
        for host in (idle, busy):
            self.cluster.add_host(host)
            user = self.successResultOf(host.connect(Users(IdleUser)))
        user.idle = False
        self.take(idle, busy)
        self.cluster.release(idle)
        for host in (idle, busy):
            self.cluster.remove_host(host, "graceful close")
        self.assertTrue(idle_wire.disconnecting)
        self.assertFalse(busy_wire.disconnecting)
        user.idle = True
        self.cluster.release(busy)
        self.assertTrue(busy_wire.disconnecting)
        for wire in (idle_wire, busy_wire):
            wire.lose()
        self.assertEqual((self.cluster.active, self.cluster.left), (0, 2))

    def test_lost(self) -> None:
        """A reverse host whose connection is lost leaves, and is not handed out on its release."""
        host, wire = reverse_host(self.cluster.remove_host, self.clock)
        self.cluster.add_host(host)
        self.take(host)
        waiter = self.cluster.wait(None, 5.0)

        class Releasing(IdleUser):
            def connectionLost(user, reason: object = None) -> None:  # noqa: N805
                self.cluster.release(host)

        self.successResultOf(host.connect(Users(Releasing)))
        wire.lose()
        self.assertNoResult(waiter)
        self.assertEqual((self.cluster.hosts, self.cluster.active), ({}, 0))


class HealthTests(ClusterCase):
    def test_unhealthy(self) -> None:
        """An unhealthy host gets no request until it is healthy again."""
        one, two = self.static("a", "b")
        self.cluster.set_health(one, False)
        self.cluster.set_health(one, False)
        self.assertIs(self.cluster.acquire(), two)
        self.assertIs(self.cluster.acquire(), two)
        self.cluster.set_health(two, False)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.cluster.set_health(one, True)
        self.assertIs(self.cluster.acquire(), one)

    def test_while_busy(self) -> None:
        """A host that becomes unhealthy while it is busy stays away when it is released."""
        one, two = self.returning("a", "b")
        self.take(one, two)
        self.cluster.set_health(one, False)
        self.cluster.release(one)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.set_health(one, True)
        self.assertIs(self.cluster.acquire(), one)

    def test_back_while_busy(self) -> None:
        """A host that is healthy again, but still busy, is free when it is released."""
        (host,) = self.returning("a")
        self.take(host)
        self.cluster.set_health(host, False)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.cluster.set_health(host, True)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(host)
        self.assertIs(self.cluster.acquire(), host)

    def test_wakes(self) -> None:
        """A host that is healthy again serves those who wait."""
        one, two = self.returning("a", "b")
        self.cluster.set_health(two, False)
        self.take(one)
        waiter = self.cluster.wait(None, 5.0)
        self.cluster.set_health(two, True)
        self.assertIs(self.successResultOf(waiter), two)

    def test_joins_unhealthy(self) -> None:
        """A host may join before it is healthy."""
        host = FakeHost("a")
        host.healthy = False
        self.cluster.add_host(host)
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.cluster.set_health(host, True)
        self.assertIs(self.cluster.acquire(), host)

    def test_leaves_unhealthy(self) -> None:
        """It may leave before it is healthy, too, and is no concern of the cluster's then."""
        one, two = self.static("a", "b")
        self.cluster.set_health(one, False)
        self.cluster.remove_host(one)
        self.cluster.set_health(one, True)
        self.assertFalse(one.healthy)
        self.assertIs(self.cluster.acquire(), two)

    def test_since(self) -> None:
        """It is known since when a host has been healthy."""
        self.clock.advance(100)
        (host,) = self.returning("a")
        self.assertEqual(host.healthy_since, 100)
        self.clock.advance(10)
        self.cluster.set_health(host, False)
        self.cluster.set_health(host, True)
        self.assertEqual(host.healthy_since, 110)

    def test_several_faults(self) -> None:
        """A host is healthy when nothing is wrong with it."""
        (host,) = self.static("a")
        self.cluster.set_health(host, False, fault=Fault.CHECK)
        self.cluster.set_health(host, False)
        self.cluster.set_health(host, True)
        self.assertEqual((host.healthy, host.health.faults), (False, Fault.CHECK))
        self.cluster.set_health(host, True, fault=Fault.CHECK)
        self.assertEqual((host.healthy, host.health.faults, self.cluster.healthy), (True, Fault(0), 1))

    def test_joins_with_a_fault(self) -> None:
        """A host may join with a fault that is known."""
        host = FakeHost("a")
        host.healthy, host.health.faults = False, Fault.CHECK
        self.cluster.add_host(host)
        self.cluster.set_health(host, True, fault=Fault.CHECK)
        self.assertIs(self.cluster.acquire(), host)


class SlowStartTests(SynchronousTestCase):
    def test_reverse_hosts(self) -> None:
        """A connection that has just joined has a small part of its weight, which grows."""
        clock = Clock()
        config = ClusterConfig(
            name="edge",
            lb_type="LB_WEIGHTED_ROUNDROBIN",
            slow_start=SlowStartConfig(mode="duration", slow_start_duration=100.0),
        )
        cluster = Cluster(config, make_balancer(config, Random(1), clock), clock)
        old, _ = reverse_host(cluster.remove_host, clock, "10.0.0.1:1")
        cluster.add_host(old)
        clock.advance(1000)
        new, _ = reverse_host(cluster.remove_host, clock, "10.0.0.2:1")
        cluster.add_host(new)
        shares = []
        for _ in range(12):
            shares.append(0)
            for _ in range(1000):
                host = cluster.acquire()
                assert host is not None
                shares[-1] += host is new
                cluster.release(host)
            clock.advance(10)
        for part, share in zip((0.1, 0.1, 0.2, 0.3, 0.4, 0.5), shares, strict=False):
            self.assertApproximates(share, 1000 * part / (1 + part), 10)
        for earlier, later in pairwise(shares):
            self.assertLessEqual(earlier, later + 2)
        self.assertApproximates(shares[-1], 500, 2)


class ReservationTests(ClusterCase):
    """Hosts that other workers have, or are about to be given."""

    def test_it_gets_nothing_but_there_is_hope(self) -> None:
        (host,) = self.returning("a")
        self.cluster.reserve(host)
        self.cluster.reserve(host)
        waiter = self.cluster.wait(None, 5)
        self.assertNoResult(waiter)
        self.assertFalse(self.cluster.acquire_for_check(host))
        self.cluster.unreserve(host)
        self.assertIs(self.successResultOf(waiter), host)
        self.cluster.unreserve(host)
        self.assertEqual(host.active, 1)

    def test_what_is_under_way_goes_on(self) -> None:
        idle: list[Host] = []
        self.cluster.on_idle = idle.append
        host = FakeHost("a", capacity=3)
        self.cluster.add_host(host)
        self.take(host)
        self.take(host)
        self.cluster.reserve(host)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(host)
        self.assertEqual(idle, [])
        self.cluster.release(host)
        self.assertEqual(idle, [host])
        self.cluster.set_capacity(host, 10)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.unreserve(host)
        self.take(host)

    def test_who_gets_a_host_that_is_free(self) -> None:
        host, other = self.returning("a", "b")
        self.take(host, other)
        waiter = self.cluster.wait(None, 5)

        def wanted(free: Host) -> bool:
            if free is not host:
                return False
            self.cluster.reserve(free)
            return True

        self.cluster.on_free = wanted
        self.cluster.release(host)
        self.assertNoResult(waiter)
        self.cluster.release(other)
        self.assertIs(self.successResultOf(waiter), other)
        self.assertTrue(host.reserved)

    def test_wants(self) -> None:
        told: list[int] = []
        self.cluster.on_wait = lambda: told.append(self.cluster.waiting)
        (host,) = self.returning("a")
        self.take(host)
        self.assertEqual(self.cluster.queued_demand(), [])
        began = self.clock.seconds()
        self.cluster.wait(None, 5)
        self.clock.advance(1)
        self.cluster.wait(PickContext(metadata={"zone": "a"}), 5)  # which no subset goes by
        self.cluster.wait(PickContext(only=host), 5)
        self.assertEqual(self.cluster.queued_demand(), [QueuedDemand((), 2, began)])
        self.assertEqual(told, [1, 2, 3])
        self.assertTrue(self.cluster.would_take(host, (("zone", "b"),)))


class LimitTests(ClusterCase):
    def limited(self, **limits: int) -> Cluster:
        config = ClusterConfig.model_validate({"name": "edge", "circuit_breakers": [limits]})
        self.cluster = Cluster(config, make_balancer(config, Random(1)), self.clock)
        return self.cluster

    def test_sessions(self) -> None:
        """For sessions with a connection each, the whole cluster's are bounded."""
        self.assertTrue(self.cluster.may_open())
        cluster = self.limited(max_connections=2)
        (host,) = self.static("a")
        self.assertEqual(host.max_connections, 2)
        self.take(host)
        self.assertTrue(cluster.may_open())
        self.take(host)
        self.assertFalse(cluster.may_open())
        cluster.release(host)
        self.assertTrue(cluster.may_open())

    def test_retries(self) -> None:
        """Retries are bounded, too."""
        for _ in range(1000):
            self.assertTrue(self.cluster.try_retry())
        cluster = self.limited(max_retries=2)
        self.assertEqual([cluster.try_retry() for _ in range(3)], [True, True, False])
        self.assertEqual(cluster.retries, 2)
        cluster.end_retry()
        self.assertTrue(cluster.try_retry())
        cluster.end_retry()
        cluster.end_retry()
        error = self.assertRaises(ValueError, cluster.end_retry)
        self.assertIn("ended more often than it began", str(error))

    def test_requests_of_a_host(self) -> None:
        """A host may turn out to carry only so many requests at once; others wait then."""
        (host,) = self.static("a")
        self.take(host)
        self.cluster.set_capacity(host, 2)
        self.take(host)
        self.assertIsNone(self.cluster.acquire())
        waiter = self.cluster.wait(None, 5.0)
        self.cluster.release(host)
        self.assertIs(self.successResultOf(waiter), host)
        self.cluster.release(host)
        self.cluster.release(host)
        self.assertEqual(host.active, 0)
        self.take(host)

    def test_fewer_than_there_are(self) -> None:
        """If it has more already, it gets the next one when there is room."""
        (host,) = self.static("a")
        for _ in range(3):
            self.take(host)
        self.cluster.set_capacity(host, 1)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(host)
        self.cluster.release(host)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.release(host)
        self.take(host)

    def test_more(self) -> None:
        """If it can carry more than before, it gets more."""
        (host,) = self.returning("a")
        self.take(host)
        waiters = [self.cluster.wait(None, 5.0) for _ in range(2)]
        self.cluster.set_capacity(host, 2)
        self.assertIs(self.successResultOf(waiters[0]), host)
        self.assertNoResult(waiters[1])
        self.cluster.set_capacity(host, 4)
        self.assertIs(self.successResultOf(waiters[1]), host)
        self.take(host)
        self.assertIsNone(self.cluster.acquire())
        self.cluster.set_capacity(host, None)
        self.take(host)
        self.take(host)

    def test_while_served(self) -> None:
        """It may turn out while it is given to those who wait."""
        (busy,) = self.returning("a")
        self.take(busy)
        waiters = [self.cluster.wait(None, 5.0) for _ in range(3)]
        host = FakeHost("b")
        waiters[0].addCallback(lambda got: self.cluster.set_capacity(got, 1) or got)
        self.cluster.add_host(host)
        self.assertIs(self.successResultOf(waiters[0]), host)
        self.assertNoResult(waiters[1])
        self.cluster.release(host)
        self.assertIs(self.successResultOf(waiters[1]), host)

    def test_of_others(self) -> None:
        """Hosts that get nothing now are limited all the same."""
        stranger = FakeHost("b")
        self.cluster.set_capacity(stranger, 1)
        (sick,) = self.static("a")
        self.cluster.set_health(sick, False)
        self.cluster.set_capacity(sick, 1)
        self.assertEqual((stranger.capacity, sick.capacity), (1, 1))
        self.cluster.set_health(sick, True)
        self.take(sick)
        self.assertIsNone(self.cluster.acquire())


class TaskTests(ClusterCase):
    """What runs beside a cluster."""

    def setUp(self) -> None:
        super().setUp()
        self.told: list[object] = []
        self.cluster.add_task(Task(self.told))

    def test_told(self) -> None:
        """It is told of hosts, whether it runs or not."""
        (host,) = self.static("a")
        ClusterManager([self.cluster]).start()
        (new,) = self.static("a")
        self.cluster.remove_host(new)
        ClusterManager([self.cluster]).stop()
        self.assertEqual(
            self.told, [("joined", host), "start", ("left", host), ("joined", new), ("left", new), "stop"]
        )

    def test_end(self) -> None:
        """It ends with the cluster, before the hosts leave."""
        (host,) = self.static("a")
        self.cluster.start()
        self.cluster.close("test")
        self.assertEqual(self.told, [("joined", host), "start", "stop", ("left", host)])


class EndTests(ClusterCase):
    def test_drain(self) -> None:
        """Hosts are let go, those who wait fail, and nothing new begins."""
        idle, busy = self.returning("a", "b")
        self.cluster.set_health(idle, False)
        self.take(busy)
        waiters = [self.cluster.wait(None, 5.0) for _ in range(2)]
        waiters[0].addErrback(lambda _: waiters[1].cancel())
        self.cluster.drain()
        self.failureResultOf(waiters[1], CancelledError)
        self.assertEqual((idle.retirements, busy.retirements), (1, 1))
        self.assertEqual(self.cluster.hosts, {})
        error = self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.assertEqual(str(error), "cluster edge is draining")
        self.failureResultOf(self.cluster.wait(None, 5.0), NoHealthyHost)
        self.cluster.release(busy)
        self.assertEqual((busy.retirements, self.cluster.active), (2, 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_close(self) -> None:
        """All is closed, with the reason."""
        (host,) = self.returning("a")
        self.take(host)
        waiter = self.cluster.wait(None, 5.0)
        self.cluster.close("shutdown")
        self.failureResultOf(waiter, NoHealthyHost)
        self.assertEqual(host.reasons, ["shutdown"])
        self.assertEqual(self.cluster.hosts, {})
        self.cluster.close("shutdown")
        self.assertRaises(NoHealthyHost, self.cluster.acquire)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_host(self) -> None:
        """An agent that comes too late is sent away."""
        self.cluster.drain()
        host = ReturningHost("a")
        self.cluster.add_host(host)
        self.assertEqual(host.reasons, ["cluster edge is draining"])
        self.assertEqual(self.cluster.hosts, {})


class ManagerTests(ClusterCase):
    def test_get(self) -> None:
        """Clusters are found by name."""
        clusters = ClusterManager([self.cluster])
        self.assertIs(clusters.get("edge"), self.cluster)
        self.assertEqual((list(clusters), len(clusters)), ([self.cluster], 1))
        self.assertIn("edge", clusters)
        error = self.assertRaises(ClusterUnknown, clusters.get, "nowhere")
        self.assertEqual((str(error), error.status), ("there is no cluster 'nowhere'", 404))

    def test_duplicate(self) -> None:
        """Names are unique."""
        self.assertRaises(ValueError, ClusterManager, [self.cluster, make_cluster(self.clock)])

    def test_end(self) -> None:
        """All clusters end together."""
        (host,) = self.static("a")
        clusters = ClusterManager([self.cluster])
        clusters.drain()
        self.assertEqual(host.retirements, 1)
        self.cluster = make_cluster(self.clock)
        (host,) = self.static("a")
        ClusterManager([self.cluster]).close("shutdown")
        self.assertEqual(host.reasons, ["shutdown"])


class CostTests(SynchronousTestCase):
    """With 10,000 agents, joining and leaving, and every request, cost what they do with 100."""

    def setUp(self) -> None:
        heapq = pure_heapq()
        for name in ("heapify", "heappop", "heappush", "heapreplace"):
            self.patch(round_robin, name, getattr(heapq, name))

        class Silent:
            def info(self, message: str, **fields: object) -> None:
                pass

            debug = info

        self.patch(membership_log, "log", Silent())

    def steps(self, size: int) -> float:
        cluster = make_cluster(Clock(), lb_type="LB_WEIGHTED_ROUNDROBIN")
        hosts: list[Host] = [ReturningHost(f"h{number}", 1 + number % 7) for number in range(size)]
        for host in hosts:
            cluster.add_host(host)
        rounds = 500

        def act() -> None:
            for number in range(rounds):
                place = number * 7919 % size
                cluster.remove_host(hosts[place])
                hosts[place] = ReturningHost(f"h{place}", 1 + place % 7)
                cluster.add_host(hosts[place])
                host = cluster.acquire()
                assert host is not None
                cluster.set_health(host, False)
                cluster.release(host)
                cluster.set_health(host, True)

        return count_steps(act) / rounds

    def test_cost(self) -> None:
        self.assertLess(self.steps(10_000), 4 * self.steps(100))

    def test_hot_path(self) -> None:
        """What every request pays is bounded: it makes no Deferred, and little else."""
        cluster = make_cluster(Clock())
        for number in range(100):
            cluster.add_host(FakeHost(f"h{number}"))

        def request() -> None:
            host = cluster.acquire()
            assert host is not None
            cluster.release(host)

        request()
        self.patch(queue, "Deferred", None)
        self.patch(queue, "_Waiter", None)
        self.assertLess(count_steps(request), 1000)


class ClusterMachine(RuleBasedStateMachine):
    """A cluster under everything that can happen to it."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.taken: list[Host] = []
        self.hosts: list[Host] = []
        self.waiters: dict[int, tuple[Deferred[Host], set[Any], float]] = {}
        self.made = 0
        self.borrowed = 0

    @initialize(
        lb_type=st.sampled_from(["LB_RANDOM", "LB_ROUNDROBIN", "LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST"]),
        requests=st.sampled_from([0, 0, 3]),
        pending=st.sampled_from([0, 2]),
    )
    def begin(self, lb_type: str, requests: int, pending: int) -> None:
        self.cluster = make_cluster(self.clock, requests, pending, lb_type=lb_type)
        self.max_requests = requests or 10**9
        self.max_waiting = pending or 1024

    @precondition(lambda self: len(self.hosts) < 6)
    @rule(weight=st.integers(1, 3), capacity=st.sampled_from([1, 1, 1, 2, None]), is_reverse=st.booleans())
    def join(self, weight: int, capacity: int | None, is_reverse: bool) -> None:
        host = (ReturningHost if is_reverse else FakeHost)(f"h{self.made}", weight)
        host.capacity = capacity
        self.made += 1
        self.hosts.append(host)
        self.cluster.add_host(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def replace(self, data: st.DataObject) -> None:
        old = data.draw(st.sampled_from(self.hosts))
        host = ReturningHost(old.address)
        self.hosts[self.hosts.index(old)] = host
        self.cluster.add_host(host)
        assert old.closed

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.hosts.remove(host)
        self.cluster.remove_host(host)
        assert host.retired

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), healthy=st.booleans())
    def health(self, data: st.DataObject, healthy: bool) -> None:
        self.cluster.set_health(data.draw(st.sampled_from(self.hosts)), healthy)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), capacity=st.sampled_from([None, 1, 2, 3]))
    def set_capacity(self, data: st.DataObject, capacity: int | None) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.cluster.set_capacity(host, None if capacity is None else max(capacity, host.active))

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def acquire_for_check(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        room = not host.reserved and (host.capacity is None or host.active < host.capacity)
        assert self.cluster.acquire_for_check(host) == room
        if room:
            self.taken.append(host)
            self.borrowed += 1

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), reserved=st.booleans())
    def reserve(self, data: st.DataObject, reserved: bool) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        if reserved:
            self.cluster.reserve(host)
        else:
            self.cluster.unreserve(host)
        assert host.reserved is reserved

    def tried(self, data: st.DataObject) -> set[Any]:
        return data.draw(st.sets(st.sampled_from(self.hosts), max_size=2)) if self.hosts else set()

    def free(self, tried: set[Any]) -> set[Any]:
        return {
            host
            for host in self.hosts
            if host.healthy
            and host not in tried
            and not host.reserved
            and (host.capacity is None or host.active < host.capacity)
            and self.cluster.active < self.max_requests
        }

    @rule(data=st.data())
    def acquire(self, data: st.DataObject) -> None:
        tried = self.tried(data)
        free = self.free(tried)
        try:
            host = self.cluster.acquire(PickContext(tried=set(tried)))
        except PickFailed:
            assert not free
            return
        if host is None:
            assert not free
        else:
            assert host in free
            self.taken.append(host)

    @rule(data=st.data(), timeout=st.sampled_from([0.5, 2.0, 30.0]), retry=st.booleans())
    def wait(self, data: st.DataObject, timeout: float, retry: bool) -> None:
        tried = self.tried(data)
        free = self.free(tried)
        before = self.cluster.waiting
        number = self.made
        self.made += 1
        waiter = self.cluster.wait(PickContext(tried=set(tried)), timeout)
        self.waiters[number] = (waiter, tried, self.clock.seconds() + timeout)
        if not waiter.called:
            assert not free
            assert before < self.max_waiting

        def got(host: Host) -> None:
            # First come, first served, among those who can use the host.
            for earlier, (_, others_tried, _) in self.waiters.items():
                assert earlier >= number or host in others_tried
            assert host not in tried
            assert host in self.hosts
            del self.waiters[number]
            if retry and self.cluster.active % 2:
                self.cluster.release(host)
            else:
                self.taken.append(host)

        def failed(reason: Any) -> None:
            reason.trap(QueueFull, QueueTimeout, NoHealthyHost, CancelledError)
            if reason.check(QueueTimeout):
                assert self.clock.seconds() >= self.waiters[number][2]
            del self.waiters[number]

        waiter.addCallbacks(got, failed)
        waiter.addErrback(lambda reason: self.errors.append(reason))

    @initialize()
    def no_errors(self) -> None:
        self.errors: list[Any] = []

    @precondition(lambda self: self.waiters)
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        number = data.draw(st.sampled_from(sorted(self.waiters)))
        self.waiters[number][0].cancel()
        assert number not in self.waiters

    @precondition(lambda self: self.taken)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.taken))
        self.taken.remove(host)
        self.cluster.release(host)

    @rule(seconds=st.sampled_from([0.1, 1.0, 11.0]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        late = [number for number, entry in self.waiters.items() if entry[2] < self.clock.seconds() - 0.011]
        assert not late

    @invariant()
    def consistent(self) -> None:
        if not hasattr(self, "cluster"):
            return
        if getattr(self, "errors", None):
            self.errors[0].raiseException()
        assert self.cluster.active == len(self.taken) <= self.max_requests + self.borrowed
        for host in {*self.hosts, *self.taken}:
            assert host.active == self.taken.count(host)
            assert host.capacity is None or host.active <= host.capacity
        assert set(self.cluster.hosts.values()) == set(self.hosts)
        assert self.cluster.joined - self.cluster.left == len(self.hosts)
        assert self.cluster.waiting == len(self.waiters) <= self.max_waiting
        for _, tried, _ in self.waiters.values():
            assert not self.free(tried), "somebody waits although a host is free"
        assert len(self.clock.getDelayedCalls()) <= 1

    def teardown(self) -> None:
        if not hasattr(self, "cluster"):
            return
        for number in list(self.waiters):
            if number in self.waiters:
                self.waiters[number][0].cancel()
        for host in self.taken:
            self.cluster.release(host)
        assert self.cluster.active == 0
        assert all(host.active == 0 for host in {*self.hosts, *self.taken})
        self.cluster.drain()
        assert self.clock.getDelayedCalls() == []


class AnySequenceTests(SynchronousTestCase):
    def test_consistent(self) -> None:
        """No sequence of events breaks a promise of the cluster."""
        run_state_machine_as_test(
            ClusterMachine, settings=settings(deadline=None, max_examples=most(150), stateful_step_count=50)
        )
