"""Tests for L{reverseproxy.cluster.balancers.subsets}."""

from __future__ import annotations

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
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.cluster.balancers.subsets import ANY_HOST, DEFAULT_SUBSET, NO_FALLBACK, SubsetBalancer
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import ClusterConfig
from reverseproxy.errors import NoHealthyHost, QueueTimeout
from reverseproxy.interfaces import IHost, PickContext
from tests import most
from tests.cluster.fakes import FakeHost, ReturningHost

A, B = {"zone": "a"}, {"zone": "b"}


def wanting(metadata: dict[str, str], *tried: FakeHost) -> PickContext:
    return PickContext(tried=set(tried), metadata=metadata)


class SubsetCase(SynchronousTestCase):
    """A cluster with subsets by zone."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.make()

    def make(self, fallback: int = NO_FALLBACK, default: dict[str, str] | None = None) -> None:
        self.subsets = SubsetBalancer(
            RoundRobinBalancer, self.clock.seconds, [["zone"], ["stage", "zone"]], fallback, default
        )
        self.cluster = Cluster(ClusterConfig(name="edge"), self.subsets, self.clock)

    def host(self, address: str, kind: type[FakeHost] = FakeHost, **metadata: str) -> FakeHost:
        host = kind(address, metadata=metadata)
        self.cluster.add_host(host)
        return host


class PickTests(SubsetCase):
    def picked(self, context: PickContext | None) -> set[IHost | None]:
        return {self.subsets.pick(context) for _ in range(10)}

    def test_without_wishes(self) -> None:
        """A request that asks for nothing may go anywhere."""
        hosts = {self.host("a", zone="a"), self.host("b", zone="b"), self.host("c")}
        for context in (None, PickContext(), wanting({})):
            self.assertEqual(self.picked(context), hosts)

    def test_exactly(self) -> None:
        """A request asks for exactly the labels of a selector, whatever else the hosts have."""
        one = self.host("a", zone="a", stage="live", other="x")
        two = self.host("b", zone="a", stage="test")
        self.assertEqual(self.picked(wanting(A)), {one, two})
        self.assertEqual(self.picked(wanting({"zone": "a", "stage": "test"})), {two})
        self.assertEqual(self.picked(wanting({"stage": "test"})), {None})
        self.assertEqual(self.picked(wanting({"zone": "c"})), {None})

    def test_fallback_to_any(self) -> None:
        """Where the subset has no host, any will do."""
        self.make(ANY_HOST)
        one, two = self.host("a", zone="a"), self.host("b", zone="b")
        self.assertEqual(self.picked(wanting({"zone": "c"})), {one, two})
        self.assertEqual(self.picked(wanting(A)), {one})
        self.assertEqual(self.picked(wanting(A, one)), {two})
        self.cluster.set_health(one, False)
        self.assertEqual(self.picked(wanting(A)), {two})
        self.assertEqual(self.picked(wanting(A, one)), {two})
        self.assertEqual(self.subsets.fallbacks, 40)

    def test_fallback_to_default(self) -> None:
        """Or one of the default subset."""
        self.make(DEFAULT_SUBSET, B)
        one, two = self.host("a", zone="a"), self.host("b", zone="b")
        self.assertEqual(self.picked(wanting({"zone": "c"})), {two})
        self.assertEqual(self.picked(wanting(A)), {one})
        self.cluster.remove_host(two)
        self.assertEqual(self.picked(wanting({"zone": "c"})), {None})
        three = self.host("c", zone="b")
        self.assertEqual(self.picked(wanting({"zone": "c"})), {three})

    def test_default_of_all(self) -> None:
        """A default subset without labels has all hosts."""
        self.make(DEFAULT_SUBSET)
        one, two = self.host("a", zone="a"), self.host("b")
        self.assertEqual(self.picked(wanting({"zone": "c"})), {one, two})

    def test_selectors(self) -> None:
        """Selectors without labels make no subset; those with the same ones make one."""
        subsets = SubsetBalancer(RoundRobinBalancer, Clock().seconds, [[], ["a", "b"], ["b", "a", "a"]])
        host = FakeHost("h", metadata={"a": "1", "b": "2"})
        subsets.add(host)
        self.assertEqual((len(subsets), len(subsets.subsets_of(host))), (1, 2))


class WaitTests(SubsetCase):
    def test_busy(self) -> None:
        """A request waits for a host of its subset, whatever others become free."""
        one = self.host("a", ReturningHost, zone="a")
        two = self.host("b", ReturningHost, zone="b")
        self.assertIs(self.cluster.acquire(wanting(A)), one)
        self.assertIs(self.cluster.acquire(wanting(B)), two)
        self.assertIsNone(self.cluster.acquire(wanting(A)))
        waiter = self.cluster.wait(wanting(A), 5.0)
        self.cluster.release(two)
        self.assertNoResult(waiter)
        self.cluster.release(one)
        self.assertIs(self.successResultOf(waiter), one)

    def test_busy_does_not_fall_back(self) -> None:
        """To be busy is not to be empty."""
        self.make(ANY_HOST)
        one = self.host("a", ReturningHost, zone="a")
        self.host("b", ReturningHost, zone="b")
        self.assertIs(self.cluster.acquire(wanting(A)), one)
        self.assertIsNone(self.cluster.acquire(wanting(A)))

    def test_no_such_subset(self) -> None:
        """Where there is nothing to wait for, the failure comes at once."""
        self.host("a", zone="a")
        self.assertRaises(NoHealthyHost, self.cluster.acquire, wanting({"zone": "c"}))
        self.assertRaises(NoHealthyHost, self.cluster.acquire, wanting({"zone": "c", "x": "y"}))

    def test_tried(self) -> None:
        """Hosts of other subsets that were tried do not count against this one."""
        one = self.host("a", ReturningHost, zone="a")
        two = self.host("b", ReturningHost, zone="b")
        self.assertIs(self.cluster.acquire(wanting(A)), one)
        self.assertIsNone(self.cluster.acquire(wanting(A, two)))
        self.assertRaises(NoHealthyHost, self.cluster.acquire, wanting(A, one))

    def test_expected_back(self) -> None:
        """An agent that is lost is expected back to its own subsets only."""
        one = self.host("a", ReturningHost, zone="a")
        self.host("b", ReturningHost, zone="b")
        self.cluster.remove_host(one)
        self.assertRaises(NoHealthyHost, self.cluster.acquire, wanting({"zone": "c"}))
        self.assertIsNone(self.cluster.acquire(wanting(A)))
        waiter = self.cluster.wait(wanting(A), 5.0)
        late = self.cluster.wait(wanting(A), 1.0)
        self.clock.advance(1.0)
        self.failureResultOf(late, QueueTimeout)
        again = self.host("c", ReturningHost, zone="a")
        self.assertIs(self.successResultOf(waiter), again)

    def test_forgotten(self) -> None:
        """A subset is forgotten when nobody is expected back any more."""
        for number in range(100):
            self.cluster.remove_host(self.host("h", ReturningHost, zone=str(number)))
            self.clock.advance(1.0)
        self.assertLessEqual(len(self.subsets), 11)
        self.clock.advance(100)
        self.host("a")
        self.assertEqual(len(self.subsets), 0)
        self.assertRaises(NoHealthyHost, self.cluster.acquire, wanting({"zone": "99"}))

    def test_left_hopeless(self) -> None:
        """Those who wait for a subset fail when it has lost its last host for good."""
        one = self.host("a", ReturningHost, zone="a")
        self.host("b", zone="b")
        self.assertIs(self.cluster.acquire(wanting(A)), one)
        waiter = self.cluster.wait(wanting(A), 5.0)
        self.cluster.set_health(one, False)
        self.failureResultOf(waiter, NoHealthyHost)

    def test_left_to_fall_back(self) -> None:
        """Or they get a host of those that they may fall back to."""
        self.make(ANY_HOST)
        one = self.host("a", ReturningHost, zone="a")
        two = self.host("b", ReturningHost, zone="b")
        self.assertIs(self.cluster.acquire(wanting(A)), one)
        first, second = self.cluster.wait(wanting(A), 5.0), self.cluster.wait(wanting(A), 5.0)
        self.cluster.set_health(one, False)
        self.assertIs(self.successResultOf(first), two)
        self.assertNoResult(second)
        self.cluster.release(two)
        self.assertIs(self.successResultOf(second), two)

    def test_fall_back_keeps_to_limits(self) -> None:
        """They do not get one if the cluster has as many requests as it may have."""
        config = ClusterConfig.model_validate({"name": "edge", "circuit_breakers": [{"max_requests": 1}]})
        self.make(ANY_HOST)
        self.cluster = Cluster(config, self.subsets, self.clock)
        one = self.host("a", ReturningHost, zone="a")
        two = self.host("b", ReturningHost, zone="b")
        self.assertTrue(self.cluster.acquire_for_check(one))
        self.cluster._max_requests = 2
        waiter = self.cluster.wait(wanting(A), 5.0)
        self.cluster._max_requests = 1
        self.cluster.set_health(one, False)
        self.assertNoResult(waiter)
        self.cluster.release(one)
        self.assertIs(self.successResultOf(waiter), two)


class SubsetMachine(RuleBasedStateMachine):
    """Subsets against a naive filter, under everything that can happen."""

    VALUES = st.dictionaries(st.sampled_from(["zone", "stage", "x"]), st.sampled_from(["1", "2"]))

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.hosts: list[FakeHost] = []
        self.suspended: set[FakeHost] = set()
        self.made = 0

    @initialize(fallback=st.sampled_from([NO_FALLBACK, ANY_HOST, DEFAULT_SUBSET]), default=VALUES)
    def begin(self, fallback: int, default: dict[str, str]) -> None:
        self.fallback, self.default = fallback, default
        self.selectors = [["zone"], ["zone", "stage"], ["x"]]
        self.subsets = SubsetBalancer(
            RoundRobinBalancer, self.clock.seconds, self.selectors, fallback, default
        )
        self.cluster = Cluster(ClusterConfig(name="edge"), self.subsets, self.clock)

    @precondition(lambda self: len(self.hosts) < 7)
    @rule(metadata=VALUES, is_reverse=st.booleans(), healthy=st.booleans())
    def join(self, metadata: dict[str, str], is_reverse: bool, healthy: bool) -> None:
        host = (ReturningHost if is_reverse else FakeHost)(f"h{self.made}", metadata=metadata)
        host.healthy = healthy
        self.made += 1
        self.hosts.append(host)
        self.cluster.add_host(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data())
    def leave(self, data: st.DataObject) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        self.hosts.remove(host)
        self.suspended.discard(host)
        self.cluster.remove_host(host)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), healthy=st.booleans())
    def health(self, data: st.DataObject, healthy: bool) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        if host.healthy is not healthy:
            self.suspended.discard(host)  # the cluster's own doing
        self.cluster.set_health(host, healthy)

    @precondition(lambda self: self.hosts)
    @rule(data=st.data(), suspend=st.booleans())
    def suspend(self, data: st.DataObject, suspend: bool) -> None:
        host = data.draw(st.sampled_from(self.hosts))
        if not host.healthy:
            return
        if suspend:
            self.suspended.add(host)
            self.subsets.suspend(host)
        else:
            self.suspended.discard(host)
            self.subsets.resume(host)

    @rule(seconds=st.sampled_from([1.0, 11.0]))
    def time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def naive(self, wanted: dict[str, str], tried: set[FakeHost]) -> set[FakeHost]:
        """All hosts that may serve, from first principles."""
        healthy = {host for host in self.hosts if host.healthy and host not in tried}
        if not wanted:
            return healthy
        found: set[FakeHost] = set()
        if sorted(wanted) in [sorted(selector) for selector in self.selectors]:
            found = {host for host in healthy if wanted.items() <= host.metadata.items()}
        if found or self.fallback == NO_FALLBACK:
            return found
        if self.fallback == ANY_HOST:
            return healthy
        return {host for host in healthy if self.default.items() <= host.metadata.items()}

    @rule(wanted=VALUES, data=st.data())
    def pick(self, wanted: dict[str, str], data: st.DataObject) -> None:
        tried: set[Any] = data.draw(st.sets(st.sampled_from(self.hosts), max_size=2)) if self.hosts else set()
        allowed = self.naive(wanted, tried)
        free = allowed - self.suspended
        picked = {self.subsets.pick(wanting(wanted, *tried)) for _ in range(40)}
        assert picked == (free or {None}), (picked, free)
        # Who is accepted is who would be picked, were he free.
        for host in set(self.hosts) - tried:
            if host.healthy:
                assert self.subsets.accepts(host, wanting(wanted, *tried)) == (host in allowed)

    @invariant()
    def counted(self) -> None:
        if not hasattr(self, "subsets"):
            return
        members = [subset for host in self.hosts for subset in self.subsets.subsets_of(host)]
        for subset in {*members, self.subsets.everyone}:
            mine = [host for host in self.hosts if subset in self.subsets.subsets_of(host)]
            assert subset.size == len(mine)
            assert subset.healthy == sum(host.healthy for host in mine)
            assert all(dict(subset.labels).items() <= host.metadata.items() for host in mine)
        assert len(self.subsets) <= 8


class AnySequenceTests(SynchronousTestCase):
    def test_membership(self) -> None:
        """No sequence of events makes subsets differ from a naive filter."""
        run_state_machine_as_test(
            SubsetMachine, settings=settings(deadline=None, max_examples=most(100), stateful_step_count=40)
        )
