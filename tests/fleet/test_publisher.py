"""Tests for L{reverseproxy.fleet.publisher}, and what it and a follower are made of."""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet import watch_events
from reverseproxy.fleet.etcd_json import KeyValue, WatchMessage
from reverseproxy.fleet.lease import Lease
from reverseproxy.fleet.outbox import Outbox
from reverseproxy.fleet.publisher import STALE_RECORDS_DELAY, Publisher
from reverseproxy.fleet.watch_events import TooManyEvents, WatchEvents
from tests.fleet.fake_etcd import FakeEtcd, Store


class CountingClock(Clock):
    """A clock that does not let anybody call again and again without time passing."""

    calls_left = 1000

    def callLater(self, *args: Any, **kwargs: Any) -> Any:
        """Count calls."""
        self.calls_left -= 1
        if self.calls_left < 0:
            raise AssertionError("this is a busy loop")
        return super().callLater(*args, **kwargs)


class PublisherTests(SynchronousTestCase):
    """What another process has left is deleted after a while, at whatever time that begins."""

    def test_no_busy_loop(self) -> None:
        """Where floating point makes C{began + delay - began} less than C{delay}, too."""
        began = 6.72
        self.assertLess(began + STALE_RECORDS_DELAY - began, STALE_RECORDS_DELAY, "or this tests nothing")
        clock = CountingClock()
        clock.advance(began)
        store = Store(clock)
        store.commit({"/fleet/servers/a": b"old", "/fleet/hosts/c/x/a": b"old"})
        outbox = Outbox("servers/a")
        outbox.put("servers/a", b"new")
        etcd: Any = FakeEtcd(store)
        publisher = Publisher(clock, etcd, "/fleet/", 30, outbox, lambda: None, Random(1))
        publisher.start(lambda: [key.removeprefix("/fleet/") for key in store.keys])
        clock.advance(0)
        self.assertEqual(publisher.leases, 1)
        clock.advance(1.0)
        self.assertIn("/fleet/hosts/c/x/a", store.keys)
        clock.advance(STALE_RECORDS_DELAY - 1.0)
        clock.pump([0.1] * 10)
        self.assertEqual(list(store.keys), ["/fleet/servers/a"])
        self.assertEqual(store.keys["/fleet/servers/a"].value, b"new")


class LeaseTests(SynchronousTestCase):
    def test_renewed_in_thirds(self) -> None:
        lease = Lease(9)
        self.assertEqual((lease.id, lease.count), (0, 0))
        lease.granted(7, 100.0)
        self.assertEqual((lease.id, lease.count, lease.renewal_due), (7, 1, 103.0))
        lease.renewed(103.5)
        self.assertEqual(lease.renewal_due, 106.5)
        self.assertEqual(lease.drop(), 7)
        self.assertEqual((lease.id, lease.count, lease.drop()), (0, 1, 0))


class WatchEventsTests(SynchronousTestCase):
    """Changes of one revision are handed on together."""

    def setUp(self) -> None:
        self.events = WatchEvents()

    def take(self, *revisions: int, fragment: bool = False) -> list[int]:
        changes = tuple(KeyValue("k", b"", each) for each in revisions)
        found = self.events.take(WatchMessage(9, changes, fragment))
        return [each.revision for each in found]

    def test_whole(self) -> None:
        self.assertEqual(self.take(1, 1, 2), [1, 1, 2])
        self.assertEqual(self.take(), [])

    def test_fragments(self) -> None:
        self.assertEqual(self.take(1, 2, 2, fragment=True), [1])
        self.assertEqual(self.take(2, fragment=True), [])
        self.assertEqual(self.take(fragment=True), [])
        self.assertEqual(self.take(2, 3), [2, 2, 2, 2, 3])
        self.assertEqual(self.take(4), [4])

    def test_cleared(self) -> None:
        """Another watch tells all of a revision once more."""
        self.take(1, fragment=True)
        self.events.clear()
        self.assertEqual(self.take(1, 1), [1, 1])

    def test_too_many(self) -> None:
        self.patch(watch_events, "MOST_EVENTS", 3)
        self.take(1, 1, fragment=True)
        self.assertRaises(TooManyEvents, self.take, 1, 1, fragment=True)
