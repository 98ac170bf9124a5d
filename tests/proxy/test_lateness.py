"""
Delays of this process don't count as timeouts of its peers, in any protocol.

After a delay, a process gets all expired timers first, and then the data that has
come meanwhile: as with a L{Clock} that is advanced in one step.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.net.lenient_timeouts import LATE, MAX_EXTENSIONS
from reverseproxy.proxy.lazy_timer import LazyTimer
from reverseproxy.wire.rpc.bolt import Bolt
from tests.proxy import rpc_world, test_tcp
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World, pass_time
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

STANDSTILL = 300.0
"""Seconds without a turn."""

ROUTE = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "upstream_protocol": "Http1"}}]
QUICK = [
    {
        "match": {"prefix": "/"},
        "route": {"cluster_name": "c", "upstream_protocol": "Http1", "timeout": "2s"},
    }
]


class LazyTimerTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.fired: list[float] = []
        self.timer = LazyTimer(self.clock, lambda: self.fired.append(self.clock.seconds()))

    def test_in_time(self) -> None:
        self.timer.look_at(5.0)
        self.timer.look_at(7.0)
        self.assertEqual(self.timer.fires_at, 5.0)
        self.clock.advance(5.0 + LATE)
        self.assertEqual((len(self.fired), self.timer.fires_at), (1, float("inf")))

    def test_late(self) -> None:
        """As much more as it was late, and no more than it was set for."""
        for jump, then in ((6.0, 1.0), (100.0, 5.0)):
            begun = self.clock.seconds()
            self.fired.clear()
            self.timer.look_at(begun + 5.0)
            self.clock.advance(jump)
            self.assertEqual((self.fired, self.timer.fires_at), ([], begun + jump + then))
            self.clock.advance(then)
            self.assertEqual(self.fired, [begun + jump + then])

    def test_sooner_after_all(self) -> None:
        self.timer.look_at(5.0)
        self.clock.advance(20.0)
        self.timer.look_at(21.0)
        self.clock.advance(1.0)
        self.assertEqual(self.fired, [21.0])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late_at_every_turn(self) -> None:
        self.timer.look_at(1.0)
        for _ in range(MAX_EXTENSIONS):
            self.clock.advance(10.0)
            self.assertEqual(self.fired, [])
        self.clock.advance(10.0)
        self.assertEqual(len(self.fired), 1)

    def test_stopped(self) -> None:
        self.timer.look_at(5.0)
        self.clock.advance(20.0)
        self.timer.stop()
        self.timer.look_at(21.0)
        self.clock.advance(100.0)
        self.assertEqual((self.fired, self.clock.getDelayedCalls()), ([], []))


class ClientTests(SynchronousTestCase):
    """What a client has sent in time is in time, and who is silent is left all the same."""

    def both(self, begin: Callable[[], tuple[Clock, Wire, float, Callable[[], object]]]) -> None:
        """
        @param begin: gives the clock, a connection, how long something may take on it, and what
            sends something and looks at what comes of it.
        """
        clock, wire, seconds, go_on = begin()
        pass_time(clock, seconds - 1.0)
        clock.advance(STANDSTILL)
        clock.advance(0)
        self.assertFalse(wire.lost or wire.write_closed or wire.aborted)
        go_on()
        clock, wire, seconds, _ = begin()
        for _ in range(MAX_EXTENSIONS + 1):
            clock.advance(seconds + STANDSTILL)
        clock.advance(0)
        self.assertTrue(wire.lost or wire.write_closed or wire.aborted or wire.written)

    def test_http1_idle(self) -> None:
        def begin() -> Any:
            world = World()
            client = world.client()

            def ask() -> None:
                client.send(get(line=b"GET /direct HTTP/1.1"))
                self.assertIn(b" 418 ", client.take())

            return world.clock, client, 90.0, ask

        self.both(begin)

    def test_http1_head(self) -> None:
        def begin() -> Any:
            world = World(head_timeout=10.0)
            client = world.client()
            request = get(line=b"GET /direct HTTP/1.1")
            client.send(request[:-5])

            def finish() -> None:
                client.send(request[-5:])
                self.assertIn(b" 418 ", client.take())

            return world.clock, client, 10.0, finish

        self.both(begin)

    def test_http1_response(self) -> None:
        """The host's answer, that is."""

        def begin() -> Any:
            world = World(routes=QUICK)
            client = world.client()
            client.send(get())

            def answer() -> None:
                world.host().send(respond(b"Content-Length: 2", body=b"ok"))
                self.assertIn(b" 200 ", client.take())

            return world.clock, client, 2.0, answer

        self.both(begin)

    def test_http1_attempt(self) -> None:
        def begin() -> Any:
            policy = {"retry_policy": {"retry_on": True, "retry_timeout": "2s", "num_retries": 1}}
            route = {**ROUTE[0], "route": {**ROUTE[0]["route"], **policy}}  # type: ignore[dict-item]
            world = World(routes=[route])
            client = world.client()
            client.send(get())

            def answer() -> None:
                world.host().send(respond(b"Content-Length: 2", body=b"ok"))
                self.assertIn(b" 200 ", client.take())
                self.assertEqual(world.records[0].upstream.attempts, 1)

            return world.clock, client, 2.0, answer

        self.both(begin)

    def test_http2_idle(self) -> None:
        def begin() -> Any:
            world = Http2World(routes=ROUTE)
            client = world.connect()

            def ask() -> None:
                number = client.ask(GET)
                world.host().send(respond(b"Content-Length: 2", body=b"ok"))
                self.assertEqual(client[number].body, b"ok")

            client.wire.written.clear()
            client.wire.received = client.wire._mark = 0
            return world.clock, client.wire, 90.0, ask

        self.both(begin)

    def test_http2_response(self) -> None:
        def begin() -> Any:
            world = Http2World(routes=QUICK)
            client = world.connect()
            number = client.ask(GET)

            def answer() -> None:
                world.host().send(respond(b"Content-Length: 2", body=b"ok"))
                self.assertEqual((client[number].status, client[number].body), (200, b"ok"))

            return world.clock, client.wire, 2.0, answer

        self.both(begin)

    def test_rpc_idle(self) -> None:
        def begin() -> Any:
            world = rpc_world.World(1, idle_timeout=10.0)
            client = world.client()

            def ask() -> None:
                client.send(Bolt().heartbeat(1))
                self.assertTrue(client.wire.take())

            return world.clock, client.wire, 10.0, ask

        self.both(begin)

    def test_rpc_frame(self) -> None:
        def begin() -> Any:
            world = rpc_world.World(1, idle_timeout=None, stream_idle=10.0)
            client = world.client()
            beat = Bolt().heartbeat(1)
            client.send(beat[:5])

            def finish() -> None:
                client.send(beat[5:])
                self.assertTrue(client.wire.take())

            return world.clock, client.wire, 10.0, finish

        self.both(begin)

    def test_tcp(self) -> None:
        """A session is looked at four times, and only the last look may be late."""

        def begin() -> Any:
            world = test_tcp.World(session_idle=8.0)
            client = world.client()
            client.send(b"hello")

            def go_on() -> None:
                host = world.endpoints[0].wires[0]
                host.take()
                client.send(b"again")
                self.assertEqual(host.take(), b"again")
                pass_time(world.clock, 8.0)
                self.assertFalse(client.lost or client.aborted)

            return world.clock, client, 10.0, go_on

        clock, wire, seconds, go_on = begin()
        pass_time(clock, seconds - 1.0)
        clock.advance(STANDSTILL)
        self.assertFalse(wire.lost or wire.aborted)
        go_on()
        pass_time(clock, 30.0)
        self.assertTrue(wire.lost)
