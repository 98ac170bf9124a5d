"""
How soon agents are back after an outage, and how many dial in a second: computed, with a clock.

What is real here are the slots with their waits, and the server's gate for joins.
"""

from __future__ import annotations

from collections import Counter
from random import Random
from typing import Any

from twisted.internet.defer import Deferred, fail
from twisted.internet.error import ConnectionLost, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ConnectionUnavailable, HandshakePostponed
from reverseproxy.tunnel.agent.backoff import Backoff, reach_cap
from reverseproxy.tunnel.agent.redial import RedialPolicy
from reverseproxy.tunnel.agent.slot import make_slot
from reverseproxy.tunnel.agent.slot_core import SlotCore
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotState
from reverseproxy.tunnel.server.joins import PATIENCE, JoinGate

AGENTS = 1000
STEP = 0.05
RETRANSMITTED = (1.0, 3.0, 7.0)
"""When Linux asks again, in seconds, before a dial is given up after L{TIMEOUT}."""

TIMEOUT = 15.0


class Link:
    """A connection that has been made."""

    used = False

    def __init__(self, world: World) -> None:
        self.lost: Any = None
        self._world = world

    def greet(self) -> Deferred[None]:
        return self._world.greet()

    def close(self) -> None:
        pass


class World:
    """
    A server that is away for a while, and agents that have lost it at one moment.

    @ivar dials: how many attempts there were in each second.
    """

    def __init__(self, silent: bool, outage: float, connections: int = 1, agents: int = AGENTS) -> None:
        self.clock = Clock()
        self.silent = silent
        self.up = outage
        self.dials: Counter[int] = Counter()
        self.gate = JoinGate(1000)
        random = Random(7)
        self.cores: list[SlotCore] = []
        self.agents: list[list[ConnectionSlot]] = []
        for _ in range(agents):
            slots: list[ConnectionSlot] = []
            for _ in range(connections):
                core = SlotCore(
                    name="",
                    dial=self.dial,
                    clock=self.clock,
                    redial=RedialPolicy(self.clock, Backoff(3.0, 60.0, random, reach_cap(connections)), 30.0),
                    max_attempts=-1,
                    changed=lambda state, slots=slots: self.changed(slots, state),
                )
                self.cores.append(core)
                slots.append(make_slot(core))
            self.agents.append(slots)

    def changed(self, slots: list[ConnectionSlot], state: SlotState) -> None:
        if state is SlotState.SERVING:
            for slot in slots:
                slot.reachable()

    def dial(self) -> Deferred[Any]:
        now = self.clock.seconds()
        self.dials[int(now)] += 1
        if now >= self.up:
            return self.later(0.05, Link(self))
        if not self.silent:
            return fail(ConnectionRefusedError())
        heard = [again for again in RETRANSMITTED if now + again >= self.up]
        if heard:
            return self.later(heard[0], Link(self))
        return self.later(TIMEOUT, Failure(ConnectionUnavailable("it took longer than 15 s")))

    def greet(self) -> Deferred[None]:
        wait = self.gate.ask(self.clock.seconds(), PATIENCE)
        if wait < 0:
            return self.later(0.05, Failure(HandshakePostponed(0, -wait)))
        return self.later(wait + 0.05, None)

    def later(self, seconds: float, result: Any) -> Deferred[Any]:
        done: Deferred[Any] = Deferred(lambda _: call.cancel())
        call = self.clock.callLater(seconds, done.callback, result)
        return done

    @property
    def serving(self) -> int:
        return sum(core.state is SlotState.SERVING for core in self.cores)

    def run(self, seconds: float) -> list[int]:
        """
        Lose the server, and see who is back.

        @return: how many connections serve, in each second since it is up.
        """
        self.up, up = 0.0, self.up  # they were connected
        for slots in self.agents:
            for slot in slots:
                slot.start()
        while self.serving < len(self.cores):
            self.clock.advance(STEP)
        self.clock.advance(60)
        lost = self.clock.seconds()
        self.up = lost + up
        self.dials.clear()
        for core in self.cores:
            assert core.link is not None
            core.link.lost(Failure(ConnectionLost()))
        back: list[int] = []
        while self.clock.seconds() < self.up + seconds - 1e-6:
            self.clock.advance(STEP)
            if self.clock.seconds() >= self.up + len(back) + 1 - 1e-6:
                back.append(self.serving)
        self.rate = [self.dials[int(lost) + second] for second in range(int(up + seconds))]
        return back


class ComingBackTests(SynchronousTestCase):
    def check(self, world: World) -> None:
        total = len(world.cores)
        back = world.run(15)
        self.assertGreaterEqual(back[9], 0.99 * total, back)
        self.assertEqual(back[14], total, back)
        # All dial at once when they lose the server, and no more than so many after that.
        self.assertLess(max(world.rate[1:]), 0.7 * AGENTS, world.rate)
        self.assertLess(sum(world.rate[5:10]), 5 * 0.35 * AGENTS, world.rate)

    def test_a_server_that_was_killed(self) -> None:
        self.check(World(silent=False, outage=10))

    def test_a_server_that_was_away_for_longer(self) -> None:
        world = World(silent=False, outage=120, agents=200)
        back = world.run(15)
        self.assertEqual(back[10], 200, back)

    def test_a_machine_of_which_nothing_is_heard(self) -> None:
        self.check(World(silent=True, outage=10))

    def test_agents_with_many_connections_dial_no_more_often(self) -> None:
        world = World(silent=False, outage=60, connections=6, agents=100)
        back = world.run(20)
        self.assertGreaterEqual(back[13], 0.99 * 600, back)
        self.assertEqual(back[-1], 600, back)
        alone = World(silent=False, outage=60, agents=100)
        alone.run(15)
        self.assertLess(sum(world.rate[30:60]), 3 * sum(alone.rate[30:60]))
