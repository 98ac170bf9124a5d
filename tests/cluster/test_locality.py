"""Tests for L{reverseproxy.cluster.balancers.locality}."""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.factory import RoundRobinBalancer
from reverseproxy.cluster.balancers.locality import LocalityBalancer
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost


class FarHost(FakeHost):
    @property
    def is_remote(self) -> bool:
        return True


class MovingHost(FakeHost):
    """A plain connection, which another worker has to begin with."""

    exclusive = True
    away = True

    @property
    def is_remote(self) -> bool:
        return self.away


class NearestTests(SynchronousTestCase):
    def make(self, near: int, far: int, workers: int = 2) -> tuple[LocalityBalancer, list[Any], list[Any]]:
        balancer = LocalityBalancer(RoundRobinBalancer, Random(1).random, workers)
        ours = [FakeHost(f"10.0.0.{n}:1") for n in range(near)]
        theirs = [FarHost(f"10.1.0.{n}:1") for n in range(far)]
        for host in (*ours, *theirs):
            balancer.add(host)
        return balancer, ours, theirs

    def far_part(self, near: int, far: int, workers: int = 2) -> float:
        balancer, _, _ = self.make(near, far, workers)
        picked = [balancer.pick(None) for _ in range(2000)]
        return sum(host.is_remote for host in picked if host is not None) / 2000

    def test_own_hosts_first_as_far_as_that_is_fair(self) -> None:
        self.assertEqual(self.far_part(4, 4), 0)
        self.assertEqual(self.far_part(5, 3), 0)
        self.assertLess(abs(self.far_part(1, 3) - 0.5), 0.05)
        self.assertLess(abs(self.far_part(1, 9, 4) - 0.6), 0.05)
        self.assertEqual(self.far_part(0, 3), 1)
        self.assertEqual(self.far_part(3, 0), 0)

    def test_all_hosts_of_all_workers_get_the_same(self) -> None:
        """Where workers have different parts of them."""
        counts: Counter[str] = Counter()
        for near, far in ((1, 7), (7, 1)):
            balancer, ours, theirs = self.make(near, far)
            for _ in range(8000):
                host = balancer.pick(None)
                assert host is not None
                exclusive = host in (ours if near == 1 else theirs)
                counts["the one" if exclusive else "the seven"] += 1
        self.assertLess(abs(counts["the seven"] / 7 / counts["the one"] - 1), 0.25)

    def test_the_others_when_ours_are_busy(self) -> None:
        balancer, ours, theirs = self.make(2, 2)
        for host in ours:
            balancer.suspend(host)
        self.assertIn(balancer.pick(None), theirs)
        for host in theirs:
            balancer.suspend(host)
        self.assertIsNone(balancer.pick(None))
        balancer.resume(ours[1])
        self.assertIs(balancer.pick(None), ours[1])
        self.assertIn(balancer.pick(PickContext(tried={ours[1]})), [None, *theirs])

    def test_plain_connections_of_others_are_not_far(self) -> None:
        """They come here, and stay where the balancer has put them."""
        balancer, ours, theirs = self.make(1, 1)
        moving = MovingHost("10.9.9.9:1")
        balancer.add(moving)
        self.assertEqual(balancer.share, 1)
        moving.away = False
        balancer.suspend(ours[0])
        self.assertIs(balancer.pick(None), moving)
        balancer.remove(moving)
        self.assertIs(balancer.pick(None), theirs[0])

    def test_hosts_that_leave(self) -> None:
        balancer, ours, theirs = self.make(1, 3)
        for host in theirs:
            balancer.remove(host)
        balancer.remove(theirs[0])
        self.assertEqual(balancer.share, 1)
        self.assertIs(balancer.pick(None), ours[0])
        balancer.remove(ours[0])
        self.assertIsNone(balancer.pick(None))
