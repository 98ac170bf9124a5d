"""Tests for L{reverseproxy.cluster.balancers.consistent}."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.consistent import POINTS, HashRing, MaglevBalancer, points_of
from reverseproxy.interfaces import IHost, PickContext
from tests import most
from tests.cluster.fakes import FakeHost, hosts_of

KEYS = [b"key %d" % number for number in range(300)]


def ring_of(hosts: Iterable[FakeHost]) -> HashRing:
    ring = HashRing()
    for host in hosts:
        ring.add(host, points_of(host.address))
    return ring


def owners(ring: HashRing, keys: Iterable[bytes] = KEYS) -> dict[bytes, object]:
    return {key: ring.find(key) for key in keys}


def named(names: Iterable[int]) -> list[FakeHost]:
    return [FakeHost(f"10.0.0.{name}:8080") for name in names]


class HashRingTests(SynchronousTestCase):
    def test_empty(self) -> None:
        """Nobody is found on an empty ring, nor if all are ruled out."""
        self.assertIsNone(HashRing().find(b"key"))
        hosts = hosts_of(1, 1)
        ring = ring_of(hosts)
        self.assertEqual(len(ring), 2)
        self.assertIsNone(ring.find(b"key", {*hosts, FakeHost("stranger")}))

    def test_same_key(self) -> None:
        """A key always belongs to the same host."""
        ring = ring_of(hosts_of(1, 1, 1))
        self.assertEqual(owners(ring), owners(ring))

    @settings(deadline=None, max_examples=most(50))
    @given(st.sets(st.integers(0, 10_000), min_size=1, max_size=40), st.randoms(use_true_random=False))
    def test_order(self, names: set[int], random: Random) -> None:
        """Neither the order nor the history counts, only who is there."""
        hosts = named(names)
        others = named(range(10_001, 10_001 + random.randrange(40)))
        ring = ring_of(hosts)
        shuffled = [*hosts, *others]
        random.shuffle(shuffled)
        other = ring_of(shuffled)
        random.shuffle(others)
        for host in others:
            other.remove(host)
        self.assertEqual(owners(ring), owners(other))

    @settings(deadline=None, max_examples=most(50))
    @given(st.sets(st.integers(0, 10_000), min_size=2, max_size=40), st.integers(0, 1000))
    def test_minimal_disruption(self, names: set[int], which: int) -> None:
        """When a host leaves, only its keys move; when it comes back, only those come back."""
        hosts = named(sorted(names))
        leaver = hosts[which % len(hosts)]
        ring = ring_of(hosts)
        before = owners(ring)
        ring.remove(leaver)
        after = owners(ring)
        for key in KEYS:
            if before[key] is leaver:
                self.assertIsNot(after[key], leaver)
            else:
                self.assertIs(after[key], before[key])
        ring.add(leaver, points_of(leaver.address))
        self.assertEqual(owners(ring), before)

    @settings(deadline=None, max_examples=most(50))
    @given(st.sets(st.integers(0, 10_000), min_size=3, max_size=20), st.integers(1, 2), st.data())
    def test_without(self, names: set[int], count: int, data: st.DataObject) -> None:
        """To rule hosts out is as if they were not there."""
        hosts = named(sorted(names))
        ring = ring_of(hosts)
        without = set(data.draw(st.permutations(hosts))[:count])
        rest = ring_of(host for host in hosts if host not in without)
        for key in KEYS:
            self.assertIs(ring.find(key, without), rest.find(key))

    def test_fair(self) -> None:
        """All hosts get about as many keys, and nobody's are spread to one other only."""
        random = Random(1)
        keys = [random.randbytes(8) for _ in range(30_000)]
        for size in (3, 30):
            hosts = named(range(size))
            ring = ring_of(hosts)
            before = owners(ring, keys)
            counts = Counter(before.values())
            mean = len(keys) / size
            self.assertLess(max(counts.values()), 1.3 * mean)
            self.assertGreater(min(counts[host] for host in hosts), 0.65 * mean)
        ring.remove(hosts[0])
        after = owners(ring, keys)
        heirs = Counter(after[key] for key in keys if before[key] is hosts[0])
        self.assertGreater(len(heirs), 7)
        self.assertLess(max(heirs.values()), 0.4 * counts[hosts[0]])

    def test_size(self) -> None:
        """The ring is cut as finely as there are hosts, and has all their points."""
        hosts = named(range(1000))
        ring = ring_of(hosts)
        self.assertTrue(100 < len(ring._arcs) < 10_000)
        self.assertEqual(sum(len(places) for places, _ in ring._arcs), 1000 * POINTS)
        self.assertLess(max(len(places) for places, _ in ring._arcs), 80)
        before = owners(ring)
        for host in hosts[1:]:
            ring.remove(host)
        self.assertTrue(len(ring._arcs) <= 2 * POINTS * 2)
        self.assertEqual(set(owners(ring).values()), {hosts[0]})
        for host in hosts[1:]:
            ring.add(host, points_of(host.address))
        self.assertEqual(owners(ring), before)

    def test_same_points(self) -> None:
        """Hosts that have all points in common, against all odds, are still told apart."""
        one, two = named((1, 2))
        ring = HashRing()
        for host in (one, two):
            ring.add(host, points_of("same"))
        found = ring.find(b"key")
        for host, other in ((one, two), (two, one)):
            ring.remove(host)
            self.assertIs(ring.find(b"key"), other)
            ring.add(host, points_of("same"))
        self.assertIn(found, (one, two))


class MaglevTests(SynchronousTestCase):
    def test_sticky(self) -> None:
        """Requests with the same key go to the same host, as long as it can take them."""
        balancer = MaglevBalancer()
        for host in hosts_of(1, 100, 1):
            balancer.add(host)

        def pick(*tried: IHost) -> IHost | None:
            return balancer.pick(PickContext(hash_key=b"someone", tried=set(tried)))

        first = pick()
        assert first is not None
        for _ in range(10):
            self.assertIs(pick(), first)
        balancer.suspend(first)
        second = pick()
        self.assertIsNot(second, first)
        self.assertIs(pick(), second)
        balancer.resume(first)
        self.assertIs(pick(), first)
        self.assertIs(pick(first), second)

    def test_again(self) -> None:
        """A request that is sent again goes to another host, and only if there is none to the same."""
        balancer = MaglevBalancer()
        hosts = hosts_of(1, 1, 1)
        for host in hosts:
            balancer.add(host)
        context = PickContext(hash_key=b"someone")
        first, second, third = (balancer.pick(context) for _ in range(3))
        assert first is not None
        assert second is not None
        self.assertIsNot(second, first)
        self.assertIs(third, first)
        context.tried.add(first)
        self.assertIs(balancer.pick(context), second)
        (last,) = set(hosts) - {first, second}
        self.assertIs(balancer.pick(context), last)
        balancer.suspend(second)
        self.assertIs(balancer.pick(context), last)
        balancer.suspend(last)
        self.assertIsNone(balancer.pick(context))

    def test_without_key(self) -> None:
        """Requests without a key take turns."""
        balancer = MaglevBalancer()
        for host in hosts_of(1, 1):
            balancer.add(host)
        addresses = [getattr(balancer.pick(context), "address", "") for context in (None, PickContext()) * 2]
        self.assertEqual(addresses, ["h0", "h1", "h0", "h1"])

    def test_weights(self) -> None:
        """Weights do not count."""
        balancer = MaglevBalancer()
        for host in hosts_of(1, 128):
            balancer.add(host)
        random = Random(1)
        picked = Counter(
            getattr(balancer.pick(PickContext(hash_key=random.randbytes(8))), "address", "")
            for _ in range(2000)
        )
        self.assertApproximates(picked["h0"], 1000, 250)
