"""Tests for L{reverseproxy.fleet.watchdog}, with a simulated clock."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.watchdog import ECHO, LOOK, RENEW, Watchdog
from tests.fleet.fake_etcd import FakeEtcd, Store


class WatchdogTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.store = Store(self.clock)
        self.store.commit({"/f/own": b"1"})
        self.heard = self.store.revision
        self.doubts = 0
        self.troubles: list[str] = []
        self.ends: list[Any] = []
        self.watchdog = Watchdog(self.clock, Random(1), lambda: self.heard, self.doubt, self.troubles.append)
        self.etcd: Any = FakeEtcd(self.store)
        self.watchdog.use(self.etcd)

    def doubt(self) -> None:
        """Take note of it."""
        self.doubts += 1

    def guard(self, look: str = "") -> Any:
        """Look after a watch."""
        watch = self.etcd.watch("/f/", 1, lambda message: None)
        self.watchdog.guard(watch, lambda: look, lambda: b"1")
        watch.ended.addErrback(self.ends.append)
        return watch

    def tearDown(self) -> None:
        """Nothing is left behind."""
        self.watchdog.give_up()
        self.watchdog.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_renewed_from_time_to_time(self) -> None:
        self.guard()
        self.clock.pump([1.0] * int(RENEW))
        self.assertEqual([each.type for each in self.ends], [CancelledError])
        self.assertIs(self.watchdog.watch, None)

    def test_silent(self) -> None:
        """What has been written has not come back; and then it has."""
        self.guard()
        self.watchdog.expect(self.heard + 1)
        self.watchdog.expect(self.heard + 2)
        self.clock.advance(ECHO)
        self.clock.advance(0)
        self.assertEqual(len(self.ends), 1)
        self.guard()
        self.heard += 2
        self.watchdog.expect(self.heard)
        self.clock.advance(ECHO)
        self.assertEqual(len(self.ends), 1)

    def test_endpoint_that_is_left(self) -> None:
        self.guard()
        self.etcd.on_left("somewhere else")
        self.clock.advance(0)
        self.assertEqual(self.ends, [])
        self.etcd.on_left(self.etcd.endpoint)
        self.assertEqual(self.ends, [], "not from within what has found that out")
        self.clock.advance(0)
        self.assertEqual(len(self.ends), 1)

    def test_looks(self) -> None:
        """A key that is another twice in a row is a reason for doubts, and once is none."""
        self.guard("/f/own")
        self.store.commit({"/f/own": b"2"})
        self.clock.advance(LOOK)
        self.store.commit({"/f/own": b"1"})
        self.clock.pump([LOOK] * 2)
        self.assertEqual(self.doubts, 0)
        self.store.commit({"/f/own": b"2"})
        self.clock.pump([LOOK] * 2)
        self.assertEqual(self.doubts, 1)

    def test_looks_in_vain(self) -> None:
        """An endpoint that does not answer others has its watch ended."""
        self.guard("/f/own")
        self.etcd.reachable = False
        self.clock.advance(LOOK)
        self.assertEqual(len(self.troubles), 1)
        self.clock.advance(0)
        self.assertEqual(len(self.ends), 1)
