"""Tests for L{reverseproxy.transport.garbage}."""

from __future__ import annotations

import gc
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.garbage import Collections, leave_alone


class Collector:
    """What stands for L{gc}: writes down what it was told to do."""

    def __init__(self) -> None:
        self.done: list[str] = []
        self.callbacks: list[Any] = []

    def look(self, generation: int = 2) -> list[str]:
        """
        Look for garbage by itself.

        @return: what it was told to do meanwhile.
        """
        self.done.clear()
        for phase in ("start", "stop"):
            for callback in self.callbacks:
                callback(phase, {"generation": generation, "collected": 0, "uncollectable": 0})
        return self.done

    def __getattr__(self, name: str) -> Any:
        return lambda: self.done.append(name)


class CollectionsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.collector = Collector()
        self.size = 100
        Collections(self.collector, lambda: self.size).begin()

    def test_what_has_been_looked_at_is_left_alone(self) -> None:
        self.assertEqual(self.collector.done, ["collect", "freeze"])
        self.assertEqual(self.collector.look(), ["freeze"])
        self.size = 199
        self.assertEqual(self.collector.look(), ["freeze"])

    def test_young_objects_are_nothing_to_us(self) -> None:
        self.size = 1000
        for generation in (0, 1):
            self.assertEqual(self.collector.look(generation), [])

    def test_everything_is_looked_at_again_when_there_is_twice_as_much(self) -> None:
        self.size = 200
        self.assertEqual(self.collector.look(), ["unfreeze", "freeze"])
        self.assertEqual(self.collector.look(), ["freeze"])
        self.size = 390
        self.assertEqual(self.collector.look(), ["freeze"])
        self.size = 400
        self.assertEqual(self.collector.look(), ["unfreeze", "freeze"])

    def test_twice_as_much_as_there_was_at_the_least(self) -> None:
        """After most have left, it does not take as many as before."""
        self.size = 1000
        self.assertEqual(self.collector.look(), ["unfreeze", "freeze"])
        self.size = 300
        self.assertEqual(self.collector.look(), ["freeze"])
        self.size = 600
        self.assertEqual(self.collector.look(), ["unfreeze", "freeze"])


class CollectorTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(gc.unfreeze)
        before = list(gc.callbacks)
        self.addCleanup(gc.callbacks.__setitem__, slice(None), before)

    def test_what_there_is_is_not_looked_at_again(self) -> None:
        leave_alone()
        self.assertGreater(gc.get_freeze_count(), 10_000)
        self.assertLess(len(gc.get_objects()), 1_000)

    def test_garbage_that_has_been_left_alone_is_found_at_last(self) -> None:
        class Circle:
            def __init__(self) -> None:
                self.me = self

            def __del__(self) -> None:
                found.append("a circle")

        found: list[str] = []
        size = 1
        circle: Circle | None = Circle()
        Collections(size=lambda: size).begin()
        del circle
        gc.collect()
        self.assertEqual(found, [])
        size = 2
        gc.collect()
        self.assertEqual(found, ["a circle"])
