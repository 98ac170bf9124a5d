"""
Tests for L{reverseproxy.net.lenient_timeouts}, and for everything that judges others by the time they take.

A process that had no turn for some seconds is told of all timers first, and then of
what has come meanwhile.  L{task.Clock} does the same when it is set forward at once.
"""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import TimeoutError
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.net.lenient_timeouts import (
    LATE,
    MAX_EXTENSIONS,
    LenientTimeout,
    add_lenient_timeout,
    timer_lag,
)
from reverseproxy.testing import MemoryReactor, MemoryTransport, mux_pair, run
from reverseproxy.testing.reactor import _FIRST_PORT
from tests.integration import configs


class PatienceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.calls: list[float] = []

    def begin(self, seconds: float) -> LenientTimeout:
        return LenientTimeout(self.clock, seconds, lambda: self.calls.append(self.clock.seconds()))

    def test_lateness(self) -> None:
        self.assertEqual([timer_lag(2.0, now) for now in (1.0, 2.0, 2.0 + LATE, 5.0)], [0.0, 0.0, 0.0, 3.0])

    def test_in_time(self) -> None:
        patience = self.begin(2.0)
        self.clock.advance(1.9)
        self.assertTrue(patience.active())
        self.clock.advance(0.1)
        self.assertEqual((self.calls, patience.active()), ([2.0], False))
        patience.cancel()

    def test_late(self) -> None:
        """As much more as we were late, but no more than there was."""
        for jump, then in ((3.0, 1.0), (60.0, 2.0)):
            self.calls, begun = [], self.clock.seconds()
            self.begin(2.0)
            self.clock.advance(jump)
            self.assertEqual(self.calls, [])
            self.clock.advance(then - 0.01)
            self.assertEqual(self.calls, [])
            self.clock.advance(0.01)
            self.assertApproximates(self.calls[0], begun + jump + then, 0.001)

    def test_late_at_every_turn(self) -> None:
        self.begin(1.0)
        for _ in range(MAX_EXTENSIONS):
            self.clock.advance(10.0)
            self.assertEqual(self.calls, [])
        self.clock.advance(10.0)
        self.assertEqual(len(self.calls), 1)

    def test_cancelled(self) -> None:
        patience = self.begin(1.0)
        self.clock.advance(10.0)
        patience.cancel()
        patience.cancel()
        self.assertEqual((self.clock.getDelayedCalls(), patience.active()), ([], False))

    def test_deferreds(self) -> None:
        early: Deferred[int] = add_lenient_timeout(Deferred(), 1.0, self.clock)
        early.callback(7)
        self.assertEqual((self.successResultOf(early), self.clock.getDelayedCalls()), (7, []))
        never: Deferred[int] = add_lenient_timeout(Deferred(), 1.0, self.clock)
        self.clock.advance(5.0)
        self.assertNoResult(never)
        self.clock.advance(1.0)
        self.failureResultOf(never, TimeoutError)
        told: list[Any] = []
        third: Deferred[int] = Deferred()
        add_lenient_timeout(third, 1.0, self.clock, lambda result, seconds: told.append((result, seconds)))
        self.clock.advance(1.0)
        [(result, seconds)] = told
        self.assertIsInstance(result, Failure)
        result.trap(CancelledError)
        self.assertEqual(seconds, 1.0)
        failed: Deferred[int] = add_lenient_timeout(Deferred(), 1.0, self.clock)
        failed.errback(ValueError())
        self.failureResultOf(failed, ValueError)


class StandstillTests(SynchronousTestCase):
    """A machine with a server and its agent stands still for a while, in the midst of anything."""

    def setUp(self) -> None:
        self.reactor = MemoryReactor()
        self.held: list[MemoryTransport] = []
        self.turn = MemoryTransport._turn

    def pass_time(self, seconds: float) -> None:
        for _ in range(round(seconds / 0.1)):
            self.reactor.advance(0.1)

    def hold_network(self) -> None:
        """What is sent from now on stays in the kernel, or somewhere between."""
        self.patch(MemoryTransport, "_turn", lambda transport: self.held.append(transport))

    def release_network(self) -> None:
        self.patch(MemoryTransport, "_turn", self.turn)
        held, self.held = self.held, []
        for each in held:
            each._turn()
        self.reactor.settle()

    def stand_still(self, seconds: float) -> None:
        """Nobody has a turn; afterwards timers are first, and packets take a moment."""
        self.reactor.advance(seconds)
        self.pass_time(0.4)
        self.release_network()
        self.pass_time(0.4)

    def test_questions(self) -> None:
        """Those over connections with streams, of both ends."""
        for jump in (3.0, 60.0):
            ends = mux_pair(self.reactor, accept=Protocol, ping_interval=2.0, ping_timeout=1.0)
            ends[0].open(Factory.forProtocol(Protocol))
            self.pass_time(3.0)
            for end in ends:
                self.hold_network()
                while not end.unanswered:
                    self.pass_time(0.1)
                self.stand_still(jump)
                self.assertEqual([each.lost for each in ends], [False, False], jump)
                self.pass_time(5.0)
            self.assertEqual([each.lost for each in ends], [False, False], jump)

    def test_who_is_gone_is_gone(self) -> None:
        """That somebody has gone meanwhile is found out in as much time as ever."""
        ends = mux_pair(self.reactor, ping_interval=2.0, ping_timeout=1.0)
        self.pass_time(0.1)
        for end in ends:
            end.transport.silent = True  # type: ignore[union-attr]
        self.reactor.advance(10.0)
        self.pass_time(5.0)
        self.assertEqual([end.lost for end in ends], [True, True])

    def serve(self, **agent: Any) -> Any:
        document = configs.server(client="127.0.0.1:2045", tunnel="127.0.0.1:2047")
        [cluster] = document["cluster_manager"]["clusters"]
        check = {"interval": "1s", "timeout": "1s", "unhealthy_threshold": 1}
        cluster["health_check"] = {"protocol": "Http1", "service_name": "any", **check}
        server = run(document, self.reactor)
        document = configs.agent(["127.0.0.1:2047"], answer="served", **agent)
        run(document, self.reactor)
        return server.clusters.get("clientCluster")

    def test_checks(self) -> None:
        for mux in (True, False):
            cluster = self.serve(mux=mux)
            self.pass_time(3.0)
            [host] = cluster.hosts.values()
            for _ in range(3):
                self.hold_network()
                while host.health.check.running is None:
                    self.pass_time(0.1)
                self.stand_still(30.0)
                self.assertTrue(host.healthy, mux)
                self.pass_time(5.0)
                self.assertTrue(host.healthy, mux)
            self.assertEqual((cluster.left, list(cluster.hosts.values())), (0, [host]))
            self.setUp()

    def test_handshakes(self) -> None:
        """Both ends have a deadline for them, and one for the connection."""
        for steps in range(1, 6):
            server = run(configs.server(client="127.0.0.1:2045", tunnel="127.0.0.1:2047"), self.reactor)
            self.hold_network()
            run(configs.agent(["127.0.0.1:2047"], answer="served"), self.reactor)
            for _ in range(steps):
                self.reactor.advance(0.01)
                held, self.held = self.held, []
                for each in held:
                    self.turn(each)
            self.stand_still(60.0)
            self.pass_time(1.0)
            cluster = server.clusters.get("clientCluster")
            self.assertEqual((cluster.joined, cluster.left), (1, 0), steps)
            self.assertEqual(self.dials(), 1, steps)
            self.setUp()

    def dials(self) -> int:
        """How many connections were begun."""
        return self.reactor._next - _FIRST_PORT

    def test_stalls(self) -> None:
        """A server that has just been resumed leaves nobody out for what it has not read yet."""
        cluster = self.serve()
        cluster.change(cluster.config)
        self.pass_time(3.0)
        [host] = cluster.hosts.values()
        stalled: list[object] = []
        self.patch(cluster.service_health, "stall", lambda *told: stalled.append(told))
        self.hold_network()
        while not host.unanswered:
            self.pass_time(0.1)
        self.reactor.advance(30.0)
        self.release_network()
        self.pass_time(1.0)
        self.assertEqual(stalled, [])
