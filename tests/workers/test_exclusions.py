"""Tests for L{reverseproxy.workers.exclusions}."""

from __future__ import annotations

from functools import partial
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.tunnel.server.exclusion_records import Exclusion, Lifted
from reverseproxy.tunnel.server.exclusions import MOST, Exclusions
from reverseproxy.workers.exclusions import SupervisorExclusions, report, take
from tests.tunnel.logged import capture
from tests.workers.world import World

EDGE = ("token", "static", "edge")


class WorkerPlace:
    """
    A worker, and whom it keeps out.

    @ivar said: what it tells other servers.
    """

    def __init__(self, clock: Clock) -> None:
        self.exclusions = Exclusions(clock.seconds)
        self.said: list[Any] = []
        self.there = True
        self.exclusions.on_excluded = self.exclusions.on_lifted = self.said.append

    def send(self, message: Any) -> None:
        if self.there:
            take(self.exclusions, message)


class WorkersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.places: list[WorkerPlace] = []
        self.exclusions = SupervisorExclusions(self.places, self.clock)
        for _ in range(3):
            self.start(len(self.places))

    def start(self, number: int) -> WorkerPlace:
        """Start a worker, in the place of another one if there is one."""
        place = WorkerPlace(self.clock)
        self.places[number : number + 1] = [place]
        report(place.exclusions, lambda message: self.exclusions.received(place, message))
        self.exclusions.started(place)
        return place

    def kept_out(self) -> list[int]:
        """How many each worker keeps out."""
        return [len(each.exclusions) for each in self.places]

    def test_decided_in_one(self) -> None:
        """As by an order that came to the worker that had the agent: all let it in no more, and say so."""
        self.places[1].exclusions.exclude(EDGE, 60.0, "banned by ops at server b", "1", "x")
        self.assertEqual(self.kept_out(), [1, 1, 1])
        for each in self.places:
            [said] = each.said
            self.assertEqual((said.ids, said.agents), (("1",), ("x",)))
        self.places[2].exclusions.lift_agent("x")
        self.assertEqual(self.kept_out(), [0, 0, 0])
        self.assertEqual([each.said[1:] for each in self.places], [[Lifted(("1",), 60.0)]] * 3)

    def test_decided_in_all(self) -> None:
        """As the admin API does it: each says it once."""
        for each in self.places:
            each.exclusions.exclude(EDGE, 60.0, "banned by ops", "1")
        self.assertEqual([len(each.said) for each in self.places], [1, 1, 1])

    def test_heard_by_one(self) -> None:
        """Who has told it has told all other servers."""
        self.places[0].exclusions.heard(Exclusion(EDGE, 60.0, "banned by ops at server b", ("1",)))
        self.assertEqual(self.kept_out(), [1, 1, 1])
        self.places[2].exclusions.heard_lifted(Lifted(("1",), 60.0))
        self.assertEqual(self.kept_out(), [0, 0, 0])
        self.assertEqual([each.said for each in self.places], [[], [], []])

    def test_decided_after_it_was_heard(self) -> None:
        """The servers that have linked to the others hear it from them nevertheless, if they know it not."""
        self.places[0].there = False
        self.places[1].exclusions.heard(Exclusion(EDGE, 60.0, "banned by ops at server b", ("1",)))
        self.places[0].there = True
        self.places[0].exclusions.exclude(EDGE, 60.0, "banned by ops at server b", "1")
        self.assertEqual(self.kept_out(), [1, 1, 1])
        self.assertEqual(len(self.places[0].said), 1)

    def test_a_worker_that_is_started_anew(self) -> None:
        """It knows what the others have heard, with what has become of it, and for as long."""
        self.places[0].exclusions.exclude(EDGE, 60.0, "banned by ops", "1", "x")
        self.places[1].exclusions.heard(Exclusion(EDGE, 300.0, "banned by ops at server b", ("2",), ("y",)))
        self.places[2].exclusions.exclude(("address", "::1"), 60.0, "banned by ops", "3")
        self.places[2].exclusions.heard_lifted(Lifted(("3",), 60.0))
        self.clock.advance(100)
        fresh = self.start(1)
        [found] = fresh.exclusions
        self.assertEqual((found.until, found.ids, found.agents), (300.0, ("1", "2"), ("x", "y")))
        self.assertEqual(fresh.said, [])

    def test_what_was_lifted_does_not_come_back(self) -> None:
        """Not with a worker that is new, nor with what it is asked to keep out."""
        self.places[0].exclusions.exclude(EDGE, 60.0, "banned by ops", "1")
        self.places[1].exclusions.heard_lifted(Lifted(("1",), 60.0))
        fresh = self.start(0)
        self.assertEqual(self.kept_out(), [0, 0, 0])
        fresh.exclusions.exclude(EDGE, 60.0, "banned by ops", "1")
        self.assertEqual(self.kept_out(), [0, 0, 0])

    def test_too_many(self) -> None:
        for number in range(MOST):
            self.places[0].exclusions.exclude(("address", str(number)), 60.0, "x", str(number))
        message = {"decided": True, **Exclusion(EDGE, 60.0, "x", ("x",)).to_json(0.0)}
        with capture() as events:
            self.assertFalse(take(self.places[0].exclusions, message))
        self.assertIn("can't be applied here: there are 1000 bans already", events.text())


class ServersTests(SynchronousTestCase):
    """Two workers that serve."""

    def test_an_agent_that_dials_the_other_worker(self) -> None:
        """Whom one of them has been told to keep out gets to no other one, until it is let in there."""
        world = World(2)
        places: list[Any] = [self.place(proxy) for proxy in world.proxies]
        exclusions = SupervisorExclusions(places, world.reactor)
        for worker, place in zip(world.workers, places, strict=True):
            worker.tell = partial(exclusions.received, place)
        first, second = (proxy._world.exclusions for proxy in world.proxies)
        first.exclude(("address", "127.0.0.1"), 600.0, "banned by ops at server b", "1")
        world.agent(1)
        self.assertEqual(world.hosts(1), [])
        self.assertTrue(first.lift(("address", "127.0.0.1")))
        self.assertEqual(len(second), 0)
        world.turn(61)
        self.assertEqual(len(world.hosts(1)), 1)

    def place(self, proxy: Any) -> Any:
        """A worker's place, whose worker gets what it is told."""
        found = WorkerPlace(Clock())
        found.send = proxy.told  # type: ignore[method-assign]
        return found
