"""Tests for L{reverseproxy.fleet.follower}, with a simulated clock; tests of the directory have more."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.follower import Follower
from reverseproxy.fleet.view import View
from tests.fleet.fake_etcd import FakeEtcd, Store


class FollowerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.etcd: Any = FakeEtcd(self.store)
        self.follower = Follower(
            self.clock, self.etcd, "/f/", View("own"), lambda notices: None, Random(1), lambda: ""
        )
        self.follower.start()
        self.clock.advance(0)
        self.assertEqual((self.follower.up, self.follower.resyncs), (True, 1))

    def tearDown(self) -> None:
        self.follower.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def lag(self) -> Deferred[int]:
        """Begin to follow an endpoint that has less; return what it will tell its revision by."""
        asked: Deferred[int] = Deferred()
        self.patch(self.etcd, "revision", lambda prefix: asked)
        self.store.revision -= 1
        self.store.end(self.store.watches[0])
        self.clock.pump([0.1] * 5)
        self.assertFalse(self.follower.up)
        self.store.revision += 1
        return asked

    def check(self, resyncs: int) -> None:
        """It follows again, and has read everything so many times."""
        self.clock.pump([0.1] * 50)
        self.assertEqual((self.follower.up, self.follower.resyncs), (True, resyncs))

    def test_an_endpoint_that_lags(self) -> None:
        self.lag().callback(self.store.revision)
        self.check(resyncs=1)

    def test_another_store(self) -> None:
        self.lag().callback(0)
        self.check(resyncs=2)

    def test_a_resync_while_it_compares(self) -> None:
        asked = self.lag()
        self.follower.resync()
        asked.callback(self.store.revision)
        self.check(resyncs=2)
