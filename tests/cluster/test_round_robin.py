"""Tests for L{reverseproxy.cluster.balancers.round_robin}."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers import round_robin
from reverseproxy.cluster.balancers.round_robin import (
    RequestRoundRobinBalancer,
    RoundRobinBalancer,
    ScaledWeightedRoundRobinBalancer,
    WeightedRoundRobinBalancer,
)
from reverseproxy.interfaces import PickContext
from tests import most
from tests.cluster.fakes import FakeHost, hosts_of, picks


class RoundRobinTests(SynchronousTestCase):
    def test_rotation(self) -> None:
        """Whoever was picked the longest time ago is next, whatever its weight."""
        balancer = RoundRobinBalancer()
        for host in hosts_of(1, 100, 3):
            balancer.add(host)
        self.assertEqual(picks(balancer, 7), ["h0", "h1", "h2", "h0", "h1", "h2", "h0"])

    def test_suspended_keeps_its_place(self) -> None:
        """A host that comes back is where it was, or first if its turn has passed, once."""
        balancer = RoundRobinBalancer()
        hosts = hosts_of(1, 1, 1)
        for host in hosts:
            balancer.add(host)
        self.assertEqual(picks(balancer, 1), ["h0"])
        balancer.suspend(hosts[2])
        balancer.resume(hosts[2])
        self.assertEqual(picks(balancer, 3), ["h1", "h2", "h0"])
        balancer.suspend(hosts[1])
        self.assertEqual(picks(balancer, 6), ["h2", "h0", "h2", "h0", "h2", "h0"])
        balancer.resume(hosts[1])
        self.assertEqual(picks(balancer, 4), ["h1", "h2", "h0", "h1"])

    def test_newcomer(self) -> None:
        """A new host is last."""
        balancer = RoundRobinBalancer()
        for host in hosts_of(1, 1):
            balancer.add(host)
        self.assertEqual(picks(balancer, 3), ["h0", "h1", "h0"])
        balancer.add(FakeHost("new"))
        self.assertEqual(picks(balancer, 4), ["h1", "h0", "new", "h1"])

    def test_alone(self) -> None:
        """A host that was alone for long has neither more nor fewer turns once there is another one."""
        balancer = WeightedRoundRobinBalancer()
        balancer.add(FakeHost("first", 3))
        self.assertEqual(picks(balancer, 100), ["first"] * 100)
        balancer.add(FakeHost("second", 3))
        self.assertEqual(picks(balancer, 6), ["first", "second"] * 3)

    def test_tried_is_late(self) -> None:
        """A host that was passed over as tried is next, and only once."""
        balancer = RoundRobinBalancer()
        hosts = hosts_of(1, 1, 1)
        for host in hosts:
            balancer.add(host)
        context = PickContext(tried={hosts[0]})
        for expected in ("h1", "h2", "h1", "h2"):
            self.assertEqual(balancer.pick(context).address, expected)  # type: ignore[union-attr]
        self.assertEqual(picks(balancer, 4), ["h0", "h1", "h2", "h0"])


class WeightedRoundRobinTests(SynchronousTestCase):
    def test_spread(self) -> None:
        """Turns follow weights, and are spread out."""
        balancer = WeightedRoundRobinBalancer()
        for host in hosts_of(4, 2, 1):
            balancer.add(host)
        self.assertEqual(picks(balancer, 7), ["h0", "h1", "h0", "h0", "h2", "h1", "h0"])

    @settings(deadline=None, max_examples=most(100))
    @given(st.lists(st.integers(1, 128), min_size=1, max_size=12), st.integers(1, 3))
    def test_fair(self, weights: list[int], cycles: int) -> None:
        """In full cycles, each host gets its share to within one turn."""
        balancer = WeightedRoundRobinBalancer()
        hosts = hosts_of(*weights)
        for host in hosts:
            balancer.add(host)
        counts = Counter(picks(balancer, sum(weights) * cycles))
        for host in hosts:
            self.assertApproximates(counts[host.address], host.weight * cycles, 1)

    @settings(deadline=None, max_examples=most(100))
    @given(st.integers(1, 128), st.integers(1, 12), st.integers(1, 40))
    def test_equal_weights(self, weight: int, size: int, rounds: int) -> None:
        """With equal weights it is plain rotation."""
        balancer = WeightedRoundRobinBalancer()
        for host in hosts_of(*[weight] * size):
            balancer.add(host)
        rotation = [f"h{number}" for number in range(size)]
        self.assertEqual(picks(balancer, size * rounds), rotation * rounds)

    @settings(deadline=None, max_examples=most(50))
    @given(st.integers(1, 128), st.integers(1, 128), st.integers(0, 500))
    def test_no_credit(self, weight: int, other: int, missed: int) -> None:
        """A host that was away does not get back the turns that it missed."""
        balancer = WeightedRoundRobinBalancer()
        away, present = hosts_of(weight, other)
        balancer.add(away)
        balancer.add(present)
        balancer.suspend(away)
        picks(balancer, missed)
        balancer.resume(away)
        counts = Counter(picks(balancer, weight + other))
        self.assertApproximates(counts["h0"], weight, 2)

    def test_memory(self) -> None:
        """Hosts that come and go leave nothing behind."""
        balancer = WeightedRoundRobinBalancer()
        balancer.add(FakeHost("stays", 128))
        for _ in range(1000):
            host = FakeHost("guest")
            balancer.add(host)
            balancer.remove(host)
        self.assertLess(len(balancer._heap), 100)
        self.assertEqual(picks(balancer, 2), ["stays", "stays"])
        for host in hosts_of(*[1] * 20):
            balancer.add(host)
            balancer.suspend(host)
            balancer.remove(host)
        self.assertEqual(picks(balancer, 300), ["stays"] * 300)
        self.assertEqual(len(balancer._heap), 1)
        self.assertEqual(balancer._dead, 0)


class ScaledTurnsTests(SynchronousTestCase):
    def test_scales(self) -> None:
        """Every scale counts, at the moment of each turn."""
        slow, busy = {"h0": 2.0}, {"h0": 2.0}
        balancer = ScaledWeightedRoundRobinBalancer(
            lambda host: slow.get(host.address, 1.0), lambda host: busy.get(host.address, 1.0)
        )
        for host in hosts_of(4, 1):
            balancer.add(host)
        self.assertEqual(Counter(picks(balancer, 200)), {"h0": 100, "h1": 100})
        slow.clear()
        self.assertApproximates(Counter(picks(balancer, 300))["h0"], 200, 2)
        busy.clear()
        self.assertApproximates(Counter(picks(balancer, 500))["h0"], 400, 2)

    def test_newcomer(self) -> None:
        """The first turn of a host is as far away as its scale says."""
        balancer = ScaledWeightedRoundRobinBalancer(lambda host: 10.0 if host.address == "new" else 1.0)
        balancer.add(FakeHost("old"))
        balancer.add(FakeHost("new"))
        self.assertEqual(picks(balancer, 10), ["old"] * 9 + ["new"])


class RequestRoundRobinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.balancer = RequestRoundRobinBalancer()
        self.hosts = hosts_of(1, 1, 1)
        for host in self.hosts:
            self.balancer.add(host)

    def test_each_request(self) -> None:
        """Every request begins with the first host."""
        self.assertEqual(picks(self.balancer, 3), ["h0", "h0", "h0"])
        for _ in range(2):
            self.assertIs(self.balancer.pick(PickContext()), self.hosts[0])

    def test_again(self) -> None:
        """A request that is sent again goes on behind the host it was given, and around."""
        context = PickContext()
        picked = [getattr(self.balancer.pick(context), "address", "") for _ in range(5)]
        self.assertEqual(picked, ["h0", "h1", "h2", "h0", "h1"])

    def test_order(self) -> None:
        """Hosts keep their places while they are suspended; newcomers are last."""
        one = self.hosts[0]
        self.balancer.suspend(one)
        self.assertEqual(picks(self.balancer, 1), ["h1"])
        self.balancer.resume(one)
        self.assertEqual(picks(self.balancer, 1), ["h0"])
        self.balancer.remove(one)
        self.balancer.add(one)
        context = PickContext()
        picked = [getattr(self.balancer.pick(context), "address", "") for _ in range(3)]
        self.assertEqual(picked, ["h1", "h2", "h0"])

    def test_moved_on(self) -> None:
        """A request goes on from where it was, even if that host has left."""
        context = PickContext()
        self.balancer.pick(context)
        self.balancer.pick(context)
        self.balancer.remove(self.hosts[1])
        self.assertIs(self.balancer.pick(context), self.hosts[2])

    def test_tried(self) -> None:
        """Hosts that were tried are passed over."""
        one, two, three = self.hosts
        context = PickContext(tried={one, three})
        for _ in range(2):
            self.assertIs(self.balancer.pick(context), two)
        context.tried.add(two)
        self.assertIsNone(self.balancer.pick(context))


class OrderedTests(SynchronousTestCase):
    """The tree of bits, with numbers that share words at some levels and not at others."""

    NUMBERS = st.one_of(st.integers(0, 600), st.integers(2**18 - 300, 2**18 + 600), st.integers(0, 2**45 - 1))

    @given(st.lists(st.tuples(st.booleans(), NUMBERS), max_size=60), st.lists(NUMBERS, max_size=20))
    def test_as_a_sorted_list(self, changes: list[tuple[bool, int]], looks: list[int]) -> None:
        ordered, wanted = round_robin._Ordered(), set[int]()
        for add, number in changes:
            if add:
                ordered.add(number)
                wanted.add(number)
            elif wanted:
                number = min(wanted, key=lambda each: abs(each - number))
                ordered.remove(number)
                wanted.discard(number)
            self.assertEqual(number in ordered, number in wanted)
        found, place = [], -1
        while (place := ordered.after(place)) >= 0:
            found.append(place)
        self.assertEqual(found, sorted(wanted))
        for number in looks:
            self.assertEqual(
                ordered.after(number), min((each for each in wanted if each > number), default=-1)
            )
        for number in wanted:
            ordered.remove(number)
        self.assertEqual(ordered._levels, ({}, {}, {}, {}, {}))
