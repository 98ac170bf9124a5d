"""Tests for small parts of a fleet that decide by themselves: without a store, a link or a reactor."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.fleet.incoming_stream import SilentStreams
from reverseproxy.fleet.outgoing_link import HELLO_TIMEOUT
from reverseproxy.fleet.own_record import OwnRecord
from reverseproxy.fleet.records import HostRecord, ServerRecord
from reverseproxy.fleet.reported_states import ReportedStates
from reverseproxy.fleet.store_health import StoreHealth
from reverseproxy.fleet.work_queue import WorkQueue
from tests.tunnel.logged import capture

AGENT = HostRecord("app", "0" * 32, "b")


class ReportedStateTests(SynchronousTestCase):
    """The last word on an agent is its server's, until the directory has something newer."""

    def setUp(self) -> None:
        self.states = ReportedStates()

    def test_record_alone(self) -> None:
        self.assertFalse(self.states.is_gone(AGENT.key))
        self.assertTrue(self.states.is_well(AGENT))
        self.assertFalse(self.states.is_well(replace(AGENT, well=False)))

    def test_health(self) -> None:
        self.states.set_gone(AGENT.key)
        self.assertTrue(self.states.is_gone(AGENT.key))
        self.states.set_well(AGENT.key, False)
        self.assertFalse(self.states.is_gone(AGENT.key), "who says how it is, has it")
        self.assertFalse(self.states.is_well(AGENT))
        self.states.forget(AGENT.key)
        self.assertTrue(self.states.is_well(AGENT))

    def test_newer_record(self) -> None:
        """One that says nothing new of its health leaves what was reported."""
        self.states.set_well(AGENT.key, False)
        self.states.record_changed(replace(AGENT, connections=2), AGENT)
        self.assertFalse(self.states.is_well(AGENT))
        self.states.set_gone(AGENT.key)
        self.states.record_changed(AGENT, replace(AGENT, well=False))
        self.assertFalse(self.states.is_gone(AGENT.key))
        self.assertTrue(self.states.is_well(AGENT))


class OwnRecordTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.record = OwnRecord("a", lambda: ServerRecord("a", "127.0.0.1:1"))

    def test_made(self) -> None:
        first, second = self.record.make(1), self.record.make(2)
        self.assertEqual((self.record.path, first.id, first.draining), ("servers/a", "a", False))
        self.assertEqual(first.process, second.process)
        self.assertNotEqual(first.incarnation, second.incarnation)
        self.assertFalse(self.record.is_foreign(first))
        self.record.draining = True
        self.assertTrue(self.record.make(2).draining)

    def test_of_another_process(self) -> None:
        other = OwnRecord("a", lambda: ServerRecord("a", "127.0.0.1:2")).make(1)
        self.assertTrue(self.record.is_foreign(other))
        found = self.record.decode(other.encode())
        self.assertEqual(found, other)
        self.assertIsNone(self.record.decode(b"{"))
        with capture() as events:
            self.record.log_replaced(other)
        self.assertIn("give each server an id of its own", events.text())
        with capture() as events:
            self.record.log_replaced(replace(other, address="127.0.0.1:1"))
        self.assertIn("another process is server a now", events.text())

    def test_published_anew(self) -> None:
        """The first look has nothing to compare with."""
        self.assertFalse(self.record.is_published_anew(self.record.make(1)))
        self.assertFalse(self.record.is_published_anew(self.record.make(1)))
        self.assertTrue(self.record.is_published_anew(self.record.make(2)))


class StoreHealthTests(SynchronousTestCase):
    def test_one_line_each_way(self) -> None:
        clock: Any = Clock()
        health = StoreHealth(clock)
        with capture() as events:
            health.note("publisher", "refused")
            health.note("follower", "refused")
            clock.advance(2.5)
            health.note("publisher", "")
            self.assertFalse(health.well)
            health.note("follower", "")
            health.note("follower", "")
        self.assertTrue(health.well)
        self.assertEqual(len(events), 2)
        self.assertIn("etcd is away (refused)", events.text())
        self.assertIn("back after 2.5 s", events.text())


class OnceTests(SynchronousTestCase):
    """Work that waits to begin is not added again; work that has begun is."""

    def test_once(self) -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        items, done = [1, 2], []
        queue.add(lambda _: queue.add_once("all", lambda: items, done.append), [0])
        queue.add(lambda _: None, range(1000))  # keeps it busy for some turns
        for _ in range(3):
            queue.add_once("all", lambda: items, done.append)
        items.append(3)
        clock.pump([0.0] * 30)
        self.assertEqual(done, [1, 2, 1, 2, 3], "at once at first, and once for all three")
        queue.add_once("all", lambda: items, done.append)
        self.assertEqual(done[5:], [1, 2, 3])

    def test_cleared(self) -> None:
        clock = Clock()
        queue = WorkQueue(clock)
        done: list[int] = []
        queue.add(lambda _: None, range(1000))
        queue.add_once("all", lambda: [1], done.append)
        queue.clear()
        queue.add_once("all", lambda: [2], done.append)
        clock.pump([0.0] * 30)
        self.assertEqual(done, [2])


class SilentStreamTests(SynchronousTestCase):
    """Each stream has its own deadline, and all of them one timer."""

    def test_deadlines(self) -> None:
        clock = Clock()
        expired: list[Any] = []
        silent = SilentStreams(clock, expired.append)
        first, second, third = streams = [Any, str, int]  # anything that can be told apart
        for stream in streams:
            silent.add(stream)  # type: ignore[arg-type]
            clock.advance(1.0)
        self.assertEqual(len(clock.getDelayedCalls()), 1)
        silent.remove(second)  # type: ignore[arg-type]
        clock.pump([0.25] * 5)
        self.assertEqual(expired, [first])
        clock.advance(HELLO_TIMEOUT)
        self.assertEqual(expired, [first, third])
        self.assertEqual(clock.getDelayedCalls(), [])
        silent.add(first)  # type: ignore[arg-type]
        silent.stop()
        self.assertEqual(clock.getDelayedCalls(), [])
