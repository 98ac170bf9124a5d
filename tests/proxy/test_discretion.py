"""Tests for L{reverseproxy.proxy.http.discretion}: what clients are told of errors."""

from __future__ import annotations

import re
from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.task import Clock
from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.failures import LOG_BURST, Failed
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.discretion import Discretion, is_inside
from reverseproxy.wire.rpc.bolt import encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.proxy.rpc_world import World as RpcWorld
from tests.tunnel.logged import capture
from tests.wire.http1_cases import get
from tests.wire.http2_frames import GET

INSIDE = re.compile(rb"10\.[12]\.|\bc\b|cluster|unknown|host", re.IGNORECASE)
"""What a stranger may not see: addresses and names of hosts and clusters."""

NUMBER = re.compile(rb"\A[a-z ]+ \(error ([0-9a-f]{8})\)\n?\Z")

ROUTES: list[dict[str, Any]] = [
    {"match": {"prefix": "/nowhere"}, "route": {"cluster_name": "unknown"}},
    {"match": {"prefix": "/odd"}, "route": {"cluster_name": "c", "upstream_protocol": "odd"}},
    {"match": {"prefix": "/"}, "route": {"cluster_name": "c", "timeout": "2s"}},
]


FAILED = Failed("GET /a", "1.2.3.4:5", 502, "secret", ResponseFlag.UF)


def body(answer: bytes) -> tuple[int, bytes]:
    head, _, text = answer.partition(b"\r\n\r\n")
    return int(head[9:12]), text


class TextTests(SynchronousTestCase):
    def test_statuses(self) -> None:
        for status in (400, 405, 408, 413, 421, 431, 501, 505):
            self.assertFalse(is_inside(status))
        for status in (404, 500, 502, 503, 504):
            self.assertTrue(is_inside(status))

    def test_the_log_is_bounded(self) -> None:
        discretion = Discretion("l", Clock(), lambda: 0.5, False)
        with capture() as events:
            for _ in range(LOG_BURST + 50):
                self.assertEqual(discretion.text(FAILED), "bad gateway (error 80000000)")
            self.assertEqual(events.text().count("secret"), LOG_BURST)

    def test_what_requests_call_themselves(self) -> None:
        discretion = Discretion("l", Clock(), lambda: 0.5, False)
        with capture() as events:
            discretion.text(FAILED._replace(request_id="abc" + "x" * 500))
            self.assertIn("request id abcxxx", events.text())
            self.assertLess(len(events.text()), 500)

    def test_the_line(self) -> None:
        """It says what an operator needs, once."""
        with capture() as events:
            failed = FAILED._replace(cluster="c", host="10.1.0.0:80", request_id="r-1", trace_id="ab")
            Discretion("l", Clock(), lambda: 0.5, False).text(failed)
            self.assertEqual(
                events.text(),
                "l: GET /a of 1.2.3.4:5 gets 502: secret; see whether the service runs, and whether its "
                "address in the configuration is right (cluster c, host 10.1.0.0:80, error 80000000, request "
                "id r-1, trace ab)",
            )
        [event] = events
        self.assertEqual((event["log_level"], event["flags"]), (LogLevel.warn, "UF"))

    def test_what_a_client_is_told_is_in_the_log_as_well(self) -> None:
        with capture() as events:
            self.assertEqual(Discretion("l", Clock(), lambda: 0.5, True).text(FAILED), "secret")
            self.assertIn("GET /a of 1.2.3.4:5 gets 502: secret; ", events.text())

    def test_its_own_mistakes_are_not(self) -> None:
        with capture() as events:
            text = Discretion("l", Clock(), lambda: 0.5, False).text(FAILED._replace(status=400))
        self.assertEqual((text, events), ("secret", []))


class AnswerTests(SynchronousTestCase):
    def check(self, world: World, fields: tuple[bytes, ...] = (), target: bytes = b"/") -> tuple[int, str]:
        """Ask, and let it fail; the status, and what the log says of that error."""
        with capture() as events:
            client = world.client()
            client.send(get(*fields).replace(b"GET /", b"GET " + target, 1))
            world.run(4, 0.5)
            status, text = body(client.take())
            found = NUMBER.match(text)
            assert found is not None, text
            self.assertIsNone(INSIDE.search(text), text)
            [line] = [line for line in events.text().split("\n") if f"error {found[1].decode()}" in line]
        return status, line

    def test_http1(self) -> None:
        for target, status, reason in (
            (b"/nowhere", 404, "unknown"),
            (b"/odd", 502, "odd"),
            (b"/", 504, "did not begin within 2s"),
        ):
            world = World(routes=ROUTES, error_details=False)
            found, line = self.check(world, (b"X-Request-Id: abc",), target)
            self.assertEqual(found, status)
            self.assertIn(reason, line)
            self.assertIn("request id abc)", line)
            self.assertIn("10.9.9.9:1234", line)
            [record] = world.records
            self.assertIn(reason, record.flag)

    def test_no_host(self) -> None:
        world = World(0, routes=ROUTES, error_details=False, cluster={"connect_timeout": "1s"})
        self.assertEqual(self.check(world)[0], 502)
        world = World(3, routes=ROUTES, error_details=False)
        for endpoint in world.endpoints:
            endpoint.answer = ConnectError()
        status, line = self.check(world)
        self.assertEqual(status, 502)
        self.assertIn("(cluster c, host 10.1.0.", line)

    def test_hosts_that_misbehave(self) -> None:
        for answer in (b"nonsense\r\n\r\n", b"HTTP/1.1 101 X\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"):
            world = World(routes=ROUTES, error_details=False)
            client = world.client()
            client.send(get())
            world.host().send(answer)
            status, text = body(client.take())
            self.assertEqual(status, 502)
            self.assertTrue(NUMBER.match(text), text)

    def test_what_is_wrong_with_the_request_is_told(self) -> None:
        world = World(routes=ROUTES, error_details=False)
        client = world.client()
        client.send(get(b"Content-Length: x"))
        self.assertEqual(body(client.take()), (400, b"Invalid character in Content-Length\n"))

    def test_details(self) -> None:
        world = World(routes=ROUTES, error_details=True)
        client = world.client()
        client.send(get().replace(b"GET /", b"GET /nowhere", 1))
        status, text = body(client.take())
        self.assertEqual(status, 404)
        self.assertIn(b"unknown", text)

    def test_http2(self) -> None:
        call = [*GET, (b"content-type", b"application/grpc"), (b"te", b"trailers")]
        world = Http2World(0, routes=ROUTES, error_details=False, cluster={"connect_timeout": "1s"})
        client = world.connect()
        plain, grpc = client.ask(GET), client.ask(call)
        world.run(3)
        answer = client[plain]
        self.assertEqual(answer.status, 502)
        self.assertTrue(NUMBER.match(answer.body), answer.body)
        message = client[grpc].header(b"grpc-message")
        assert message is not None
        self.assertTrue(NUMBER.match(message), message)

    def test_a_call_that_has_begun(self) -> None:
        """The trailers tell no more."""
        routes = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "upstream_protocol": "Http1"}}]
        world = Http2World(routes=routes, error_details=False)
        client = world.connect()
        number = client.ask([*GET, (b"content-type", b"application/grpc"), (b"te", b"trailers")])
        world.host().send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n")
        world.host().reset()
        trailers = dict(client[number].trailers or [])
        self.assertTrue(NUMBER.match(trailers[b"grpc-message"]), trailers)

    def test_rpc(self) -> None:
        """Frames have statuses, and MOSN's sentences."""
        for service in ("unknown", "echo", "turned"):
            world = RpcWorld(0, cluster={"connect_timeout": "1s"})
            client = world.client()
            client.send(encode_request(5, {"service": service}, timeout=0))
            world.run(3)
            answer = client.one()
            self.assertEqual((answer.headers, answer.content), ({}, b""))
        world = RpcWorld(0, cluster={"connect_timeout": "1s"}, protocol=Dubbo())
        client = world.client()
        names = b"".join(map(encode_string, ("2.0.2", "echo", "0.0.0", "say")))
        client.send(encode_frame(0xC2, 5, names))
        world.run(3)
        self.assertIsNone(INSIDE.search(client.one().data))
