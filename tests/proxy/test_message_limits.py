"""Limits of heads at both ends of a tunnel, with a margin for the fields that the ends themselves add."""

from __future__ import annotations

from typing import Any

import h2.config
import h2.connection
import h2.events
import h2.settings
from twisted.internet.protocol import Factory, Protocol
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.message_limits import FIELD_ROOM, HEAD_ROOM
from reverseproxy.config.models import ClusterConfig, Http1Options, Http2Options
from reverseproxy.proxy.http.http1_server import head_limits
from reverseproxy.proxy.http.http2_server import limits_of
from reverseproxy.testing import MemoryReactor, Recorder, run
from reverseproxy.wire.rpc.bolt import Bolt, encode_request, encode_response
from reverseproxy.wire.rpc.xprotocol import RpcFrameDecoder
from tests.config.documents import CLUSTER, FILTER, TUNNEL_SERVER, edited, parse, problems
from tests.integration.configs import quick_agent, server
from tests.integration.http2_configs import spoken
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.proxy.test_http1 import status_of
from tests.proxy.test_http2 import HTTP1, path
from tests.proxy.test_http2_client import HTTP2
from tests.tunnel.logged import capture
from tests.wire.http1_cases import GOOD, get, respond
from tests.wire.http2_frames import GET, OK

ADDED = [{"header": {"key": f"x-added-{number}", "value": "v" * 500}, "append": True} for number in range(20)]
"""Headers that an end adds."""


class Service(Protocol):
    """Answers each request, whatever it is."""

    answer = b""
    seen: list[bytes]

    def dataReceived(self, data: bytes) -> None:
        self.received = getattr(self, "received", b"") + data
        while b"\r\n\r\n" in self.received:
            head, _, self.received = self.received.partition(b"\r\n\r\n")
            self.seen.append(head)
            assert self.transport is not None
            self.transport.write(self.answer)


class Tunnel:
    """Both ends of a tunnel in memory, and a service."""

    def __init__(self, between: str, mux: bool, *, answer: bytes = b"", **options: Any) -> None:
        """
        @param options: of both versions of HTTP, for clients.
        """
        self.reactor = MemoryReactor()
        self.seen: list[bytes] = []
        kind = type(
            "Kind", (Service,), {"seen": self.seen, "answer": answer or respond(b"Content-Length: 0")}
        )
        self.reactor.listenTCP(8080, Factory.forProtocol(kind), interface="127.0.0.1")
        cloud = spoken(server(client="127.0.0.1:2045", tunnel="127.0.0.1:2046"), "Http1,Http2", between)
        edge = spoken(quick_agent(2046, "127.0.0.1:8080", mux=mux), between, "Http1")
        habits = {"via": "server", "x_forwarded": "append", **options}
        for listener in cloud["servers"][0]["listeners"]:
            for each in listener["filter_chains"][0]["filters"]:
                if each["type"] == "proxy":
                    each["config"]["extend_config"] = {"Http1": habits, "Http2": habits}
        self.route(cloud)["request_headers_to_add"] = ADDED
        self.route(edge)["response_headers_to_add"] = ADDED
        run(cloud, self.reactor)
        run(edge, self.reactor)
        for _ in range(10):
            self.reactor.advance(0.1)

    def route(self, document: Any) -> Any:
        return document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"][0]["route"]

    def ask(self, request: bytes) -> bytes:
        """Send a request of HTTP/1; return the answer."""
        client = self.reactor.dial("127.0.0.1", 2045, Recorder())
        client.transport.write(request)
        for _ in range(5):
            self.reactor.settle()
        return bytes(client.data)

    def ask_http2(self, fields: list[tuple[str, str]]) -> dict[str, str]:
        """Send a request of HTTP/2; return the head of the answer."""
        client = self.reactor.dial("127.0.0.1", 2045, Recorder())
        config = h2.config.H2Configuration(header_encoding="utf-8")
        http2 = h2.connection.H2Connection(config)
        http2.initiate_connection()
        http2.update_settings({h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: 1_000_000})
        http2.local_settings.acknowledge()
        http2.decoder.max_header_list_size = 1_000_000
        begin = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/")]
        http2.send_headers(1, begin + fields, end_stream=True)
        client.transport.write(http2.data_to_send())
        for _ in range(5):
            self.reactor.settle()
        for event in http2.receive_data(bytes(client.data)):
            if isinstance(event, h2.events.ResponseReceived):
                return dict(event.headers)
        raise AssertionError(bytes(client.data))


WAYS = [(between, mux) for between in ("Http1", "Http2") for mux in (True, False)]


def largest(size: int, fields: int, begin: bytes) -> bytes:
    """A head of so many bytes with so many fields."""
    lines = [b"X-%d: y\r\n" % number for number in range(fields - 1 - begin.count(b"\r\n") + 1)]
    head = begin + b"".join(lines) + b"Y: \r\n\r\n"
    return head[:-4] + b"y" * (size - len(head)) + b"\r\n\r\n"


class RoomTests(SynchronousTestCase):
    def test_a_long_target(self) -> None:
        """The server takes it, and so does the agent, with what the server has added."""
        for between, mux in WAYS:
            with self.subTest(between=between, mux=mux):
                tunnel = Tunnel(between, mux)
                request = get(line=b"GET /%b HTTP/1.1" % (b"x" * 8100))
                request = request.replace(b"/x", b"/" + b"x" * (8193 - len(request)))
                self.assertEqual(len(request), 8192)
                self.assertEqual(status_of(tunnel.ask(request)), 200)
                self.assertIn(b"x-added-19", tunnel.seen[0].lower())
                self.assertEqual(status_of(tunnel.ask(request.replace(b"/x", b"/xx", 1))), 431)

    def test_the_largest_heads(self) -> None:
        for between, mux in WAYS:
            with self.subTest(between=between, mux=mux):
                answer = largest(65536, 100, b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n")
                tunnel = Tunnel(between, mux, answer=answer)
                request = largest(8192, 100, b"GET / HTTP/1.1\r\nHost: a\r\n")
                received = tunnel.ask(request)
                self.assertEqual(status_of(received), 200, received[:1000])
                self.assertGreater(len(received), 65536)
                self.assertIn(b"x-added-19", received.lower())
                # and in HTTP/2, where much larger ones are taken
                used = sum(
                    len(name) + len(value) + 32 for name, value in ((":method", "GET"), (":path", "/"))
                )
                fields = [(f"x-{number}", "y" * 500) for number in range(95)]
                used += sum(len(name) + len(value) + 32 for name, value in fields)
                answered = tunnel.ask_http2([*fields, ("z", "z" * (65300 - used))])
                self.assertEqual(answered[":status"], "200")
                self.assertEqual(answered["x-added-19"], "v" * 500)
                self.assertGreater(len(tunnel.seen[-1]), 65536)

    def test_limits_that_are_higher(self) -> None:
        for between, mux in WAYS:
            with self.subTest(between=between, mux=mux):
                tunnel = Tunnel(between, mux, max_headers_count=105)
                self.assertEqual(status_of(tunnel.ask(get(*[b"x: y"] * 104))), 200)
                self.assertEqual(status_of(tunnel.ask(get(*[b"x: y"] * 105))), 431)

    def test_what_an_agent_demands_itself(self) -> None:
        for options, size in (
            (Http1Options(), 65536 + HEAD_ROOM),
            (Http1Options(max_header_size=0), 8192 + HEAD_ROOM),
            (Http1Options(max_header_size=4096), 4096 + HEAD_ROOM),
        ):
            self.assertEqual(head_limits(options, True), (size, 100 + FIELD_ROOM))
            self.assertEqual(head_limits(options, False), (options.max_header_size, 100))
        options = Http2Options(max_header_list_size=2000, max_headers_count=10)
        inner, outer = limits_of(options, True), limits_of(options)
        self.assertEqual((outer.max_header_list_size, outer.max_fields), (2000, 10))
        self.assertEqual(inner.max_fields, 10 + FIELD_ROOM)
        self.assertGreaterEqual(inner.max_header_list_size, 2000 + HEAD_ROOM)


class LimitTests(SynchronousTestCase):
    def test_fields_of_requests(self) -> None:
        world = World(options={"max_headers_count": 3})
        for fields, status in ((2, 200), (3, 431)):
            client = world.client()
            client.send(get(*[b"X: y"] * fields))
            if status == 200:
                world.host().send(respond(b"Content-Length: 0"))
            data = client.take()
            self.assertEqual(status_of(data), status)
            self.assertEqual(b"(max_headers_count)" in data, status != 200)

    def test_fields_that_are_many(self) -> None:
        world = World(options={"max_headers_count": 500, "max_header_size": 20_000})
        client = world.client()
        for _ in range(3):
            client.send(get(*[b"X: y"] * 499))
            world.host().send(respond(b"Content-Length: 0"))
            self.assertEqual(status_of(client.take()), 200)

    def test_requests_of_http2(self) -> None:
        world = Http2World(routes=HTTP1, http2={"max_headers_count": 2, "max_header_list_size": 1024})
        for fields, reason in (
            ([(b"x", b"y")] * 3, b"(max_headers_count)"),
            ([(b"x", b"y" * 1000)], b"(max_header_list_size)"),
        ):
            client = world.connect()
            answer = client[client.ask([*path(b"/"), *fields])]
            self.assertEqual(answer.status, 431)
            self.assertIn(reason, answer.body)

    def responses(self, reverse: bool, data: bytes, **keys: int) -> int:
        """Let a host, or an agent, answer so; return the status that the client gets."""
        world = World(hosts=0 if reverse else 1, cluster=keys)
        agent = world.agent() if reverse else None
        client = world.client()
        client.send(GOOD)
        with capture() as events:
            (agent or world.host()).send(data)
        status = status_of(client.take())
        name = "max_response_header" if status == 502 else ""
        self.assertIn(name, events.text())
        return status

    def test_responses(self) -> None:
        keys = {"max_response_header_size": 2000, "max_response_headers_count": 5}
        for data, plain, agent in (
            (respond(b"Content-Length: 0", b"X: " + b"x" * 1900), 200, 200),
            (respond(b"Content-Length: 0", b"X: " + b"x" * 2000), 502, 200),
            (respond(b"Content-Length: 0", b"X: " + b"x" * (2000 + HEAD_ROOM)), 502, 502),
            (respond(b"Content-Length: 0", *[b"X: y"] * 4), 200, 200),
            (respond(b"Content-Length: 0", *[b"X: y"] * 5), 502, 200),
            (respond(b"Content-Length: 0", *[b"X: y"] * (5 + FIELD_ROOM)), 502, 502),
        ):
            self.assertEqual(self.responses(False, data, **keys), plain)
            self.assertEqual(self.responses(True, data, **keys), agent)
        wide = {"max_response_header_size": 300_000, "max_response_headers_count": 1000}
        data = respond(b"Content-Length: 0", *[b"X: " + b"x" * 200] * 999)
        self.assertEqual(self.responses(False, data, **wide), 200)

    def test_responses_of_http2(self) -> None:
        for keys, fields in (
            ({"max_response_header_size": 1024}, [(b"x", b"y" * 1000)]),
            ({"max_response_headers_count": 3}, [(b"x", b"y")] * 4),
        ):
            for cluster, status in ((keys, 502), ({}, 200)):
                world = Http2World(routes=HTTP2, cluster=cluster)
                client = world.connect()
                number = client.ask(GET)
                with capture() as events:
                    world.peer().answer(1, [*OK, *fields])
                self.assertEqual(client[number].status, status)
                self.assertEqual(next(iter(keys)) in events.text(), status == 502)

    def test_trailers(self) -> None:
        trailers = b"".join(b"T%d: x\r\n" % number for number in range(4))
        world = World(options={"max_headers_count": 3})
        client = world.client()
        client.send(get(b"Transfer-Encoding: chunked", body=b"0\r\n" + trailers + b"\r\n"))
        self.assertEqual(status_of(client.take()), 431)
        world = World(cluster={"max_response_headers_count": 3})
        client = world.client()
        client.send(GOOD)
        world.host().send(respond(b"Transfer-Encoding: chunked", body=b"0\r\n" + trailers + b"\r\n"))
        self.assertFalse(client.take().endswith(b"0\r\n\r\n"))

    def test_keys(self) -> None:
        for name, bad in (("max_response_header_size", 100), ("max_response_headers_count", 0)):
            [problem] = problems(edited(TUNNEL_SERVER, (f"{CLUSTER}.{name}", bad)))
            self.assertIn(f"{name}: {bad} is out of range", problem)
        [problem] = problems(
            edited(TUNNEL_SERVER, (f"{FILTER}.config.extend_config", {"max_headers_count": 0}))
        )
        self.assertIn("max_headers_count: 0 is out of range", problem)
        document = edited(TUNNEL_SERVER, (f"{CLUSTER}.max_response_header_size", 5000))
        [cluster, *_] = parse(document).config.cluster_manager.clusters
        self.assertEqual(cluster.max_response_header_size, 5000)
        self.assertEqual(ClusterConfig(name="c").max_response_headers_count, 100)


class RpcRoomTests(SynchronousTestCase):
    def test_frames_that_the_ends_lengthen(self) -> None:
        """A frame that the one end has taken is no reason for the other to close the connection of all."""
        reactor = MemoryReactor()
        limit = 20_000
        filters = {"downstream_protocol": "bolt", "extend_config": {"bolt": {"max_frame_size": limit}}}
        cloud, edge = (
            server(client="127.0.0.1:2045", tunnel="127.0.0.1:2046"),
            quick_agent(2046, "127.0.0.1:8080"),
        )
        for document, added in ((cloud, "request_headers_to_add"), (edge, "response_headers_to_add")):
            for listener in document["servers"][0]["listeners"]:
                for each in listener["filter_chains"][0]["filters"]:
                    if each["type"] == "proxy":
                        each["config"].update(filters)
            rule = document["servers"][0]["routers"][0]["virtual_hosts"][0]["routers"][0]
            rule["match"] = {"headers": [{"name": "service", "value": ".*"}]}
            rule["route"][added] = ADDED

        class Echo(Protocol):
            def connectionMade(self) -> None:
                self.decoder = RpcFrameDecoder(Bolt(), 1_000_000)

            def dataReceived(self, data: bytes) -> None:
                for frame in self.decoder.feed(data):
                    sizes.append(len(frame.data))
                    assert self.transport is not None
                    self.transport.write(encode_response(frame.id, 0, {"a": "b"}, bytes(limit - 100)))

        sizes: list[int] = []
        reactor.listenTCP(8080, Factory.forProtocol(Echo), interface="127.0.0.1")
        run(cloud, reactor)
        run(edge, reactor)
        for _ in range(10):
            reactor.advance(0.1)
        client = reactor.dial("127.0.0.1", 2045, Recorder())
        client.transport.write(encode_request(7, {"service": "echo"}, bytes(limit - 100)))
        for _ in range(5):
            reactor.settle()
        [answer] = RpcFrameDecoder(Bolt(), 1_000_000).feed(bytes(client.data))
        self.assertEqual((answer.id, answer.status), (7, 0))
        self.assertGreater(len(answer.data), limit)
        self.assertGreater(sizes[0], limit)
