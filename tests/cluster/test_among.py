"""Requests for which only a few hosts will do, such as the connections of one agent."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import NoHealthyHost, QueueTimeout
from reverseproxy.interfaces import PickContext
from tests.cluster.fakes import FakeHost
from tests.cluster.test_manager import make_cluster


class AmongTests(SynchronousTestCase):
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
