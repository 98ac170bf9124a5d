"""Tests for L{reverseproxy.assembly.opening}: when clients are let in."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.assembly.opening import AGAIN, LOOK, TELL, Opening
from tests.tunnel.logged import capture


class Held:
    """A listener that is held."""

    def __init__(self, name: str, fails: int = 0, waits: bool = True) -> None:
        self.name = name
        self.held = True
        self.tried = 0
        self.config = SimpleNamespace(open_when_ready=waits)
        self._fails = fails

    def open(self) -> bool:
        self.tried += 1
        self.held = self.tried <= self._fails
        return not self.held


class OpeningTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.clusters: list[Any] = []
        self.listeners: dict[str, Held] = {}
        world: Any = SimpleNamespace(reactor=self.clock, clusters=self.clusters, listeners=self.listeners)
        self.opening = Opening(world)

    def cluster(self, name: str, required: bool = True, healthy: int = 0) -> Any:
        made = SimpleNamespace(name=name, config=SimpleNamespace(required=required), healthy=healthy)
        self.clusters.append(made)
        return made

    def hold(self, name: str, **more: Any) -> Held:
        made = self.listeners[name] = Held(name, **more)
        return made

    def test_it_waits_for_all_that_are_required(self) -> None:
        first, second = self.cluster("a"), self.cluster("b")
        self.cluster("c", required=False)
        held, other = self.hold("web"), self.hold("else", waits=False)
        with capture() as logged:
            self.opening.start()
            self.opening.start()
            self.assertEqual((held.held, other.held), (True, False))  # the latter was held before a reload
            first.healthy = 1
            self.clock.pump([LOOK] * int(TELL / LOOK + 1))
        self.assertTrue(held.held)
        texts = [each for each in logged.text().splitlines() if "accepts no clients yet" in each]
        self.assertEqual(len(texts), 2)
        self.assertTrue(texts[0].endswith("no healthy host: a, b"), texts)
        self.assertTrue(texts[1].endswith("no healthy host: b"), texts)
        second.healthy = 1
        self.clock.advance(LOOK)
        self.assertFalse(held.held)
        self.clock.advance(LOOK)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        # What is open stays so; another configuration may hold another one.
        second.healthy = 0
        self.opening.start()
        self.assertEqual(self.clock.getDelayedCalls(), [])
        again = self.hold("more")
        self.opening.start()
        self.assertTrue(again.held)
        self.opening.stop()
        self.opening.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_kernel_refuses(self) -> None:
        held = self.hold("web", fails=2)
        self.opening.start()
        self.clock.pump([LOOK] * 5)
        self.assertEqual(held.tried, 1)
        self.clock.advance(AGAIN)
        self.clock.advance(AGAIN)
        self.assertEqual((held.tried, held.held), (3, False))
