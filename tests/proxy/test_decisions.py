"""Tests for L{reverseproxy.proxy.http.decisions}: what becomes of requests, for whoever wants to know."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.internet.error import ConnectionRefusedError
from twisted.logger import LogLevel, formatEvent
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.logs import DEBUGGING, LogFile, LogObserver
from reverseproxy.proxy.http.decisions import LoggedExchange, describe_sending, exchange_class
from reverseproxy.proxy.http.exchange import Exchange
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.proxy.rpc_world import World as RpcWorld
from tests.proxy.rpc_world import request
from tests.proxy.test_tcp import World as TcpWorld
from tests.tunnel.logged import capture
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

OK = respond(b"Content-Length: 2", body=b"ok")


class DecisionTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.addCleanup(DEBUGGING.set, DEBUGGING.on)
        DEBUGGING.set(True)

    def told(self, world: Any, act: Callable[[], object]) -> list[str]:
        with capture() as events:
            act()
            world.turn()
            world.turn(0.02)
        found = [
            formatEvent(event)
            for event in events
            if event["log_level"] is LogLevel.debug and event["log_namespace"].endswith("decisions")
        ]
        begin = "test: GET /a of 10.9.9.9:1234: "
        self.assertEqual([line for line in found if not line.startswith(begin)], [])
        return [line.removeprefix(begin) for line in found]

    def ask(self, world: World) -> None:
        world.client().send(get(line=b"GET /a?secret=1 HTTP/1.1"))

    def test_a_request(self) -> None:
        world = World()

        def act() -> None:
            self.ask(world)
            world.host().send(OK)

        self.assertEqual(
            self.told(world, act),
            [
                "route all[7] leads to cluster c, timeout 1m0s, 3 retries at the most",
                "attempt 1 goes to host 10.1.0.0:80",
                "sent over a new connection from 10.0.0.1:1",
                "ended with 200 after 0.000 s",
            ],
        )

    def test_no_address(self) -> None:
        """A stream to another worker has none."""
        self.assertEqual(describe_sending("an idle connection", ""), "sent over an idle connection")

    def test_a_request_that_is_tried_again(self) -> None:
        world = World(hosts=2)
        for endpoint in world.endpoints:
            endpoint.answer = ConnectionRefusedError()
        found = self.told(world, lambda: self.ask(world))
        self.assertEqual(found[2], "attempt 1 has failed (unreachable): another one")
        self.assertEqual(found[4], "attempt 2 has failed (unreachable): another one")
        self.assertRegex(found[-2], r"^ended after 0\.000 s, UH,UF: host 10\.1\.0\..:80 can't be reached: ")
        self.assertEqual(found[-1], "gets 502")

    def test_http2(self) -> None:
        routes = [{"match": {"prefix": "/a"}, "direct_response": {"status": 204}}]
        world = Http2World(routes=routes)
        fields = [(name, b"/a" if name == b":path" else value) for name, value in GET]
        found = self.told(world, lambda: world.connect().ask(fields))
        self.assertEqual(found[0], "route all[0] answers it")
        self.assertEqual(found[-1], "gets 204")

    def test_no_route(self) -> None:
        world = World(routes=[])
        self.assertEqual(self.told(world, lambda: self.ask(world))[0], "no route takes it")

    def lines(self, act: Callable[[], object]) -> list[str]:
        with capture() as events:
            act()
        return [formatEvent(event) for event in events if event["log_level"] is LogLevel.debug]

    def test_rpc(self) -> None:
        world = RpcWorld(1)

        def act() -> None:
            world.client().send(request(7))
            world.turn()
            world.host().echo()
            world.client().send(request(8, "direct"))

        begin = "test: bolt request {} for {} of 10.9.9.9:1234: "
        first, second = begin.format(7, "echo"), begin.format(8, "direct")
        self.assertEqual(
            self.lines(act),
            [
                first + "route all[10] leads to cluster c, timeout 1m0s, 3 retries at the most",
                first + "attempt 1 goes to host 10.1.0.0:80",
                first + "sent over the connection from 10.0.0.1:1",
                first + "ended with 200 after 0.000 s",
                second + "route all[0] answers it",
                second + "ended after 0.000 s",
            ],
        )

    def test_tcp(self) -> None:
        world = TcpWorld()

        def act() -> None:
            world.client()
            world.clients[0].end()
            world.turn()
            world.backend.end()
            world.turn(1.5)

        self.assertEqual(
            self.lines(act),
            [
                "front: session of 10.9.9.9:1234: attempt 1 goes to host 10.1.0.0:80 of cluster c",
                "front: session of 10.9.9.9:1234: ended after 0.250 s: the other end closed the connection",
            ],
        )

    def test_the_level_may_change(self) -> None:
        """Nothing of it is there where it is not asked for."""
        self.assertIs(exchange_class.kind, LoggedExchange)
        observer = LogObserver(LogFile("/dev/null"), "INFO", lambda event, worker: "")
        self.addCleanup(observer.close)
        self.assertIs(exchange_class.kind, Exchange)
        observer.level = "DEBUG"
        self.assertIs(exchange_class.kind, LoggedExchange)
        observer.level = "WARN"
        world = World()
        self.assertEqual(self.told(world, lambda: self.ask(world)), [])
        tcp = TcpWorld()
        self.assertEqual(self.lines(tcp.client), [])
