"""Tests for L{reverseproxy.tracing.otel}, with requests in memory."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.assembly.tracing import build_tracing
from reverseproxy.cluster.host import StaticHost
from reverseproxy.config.models import TracingOptions
from reverseproxy.errors import ConfigError
from reverseproxy.identity import AgentIdentity
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.http import http2_pool  # noqa: F401  it registers itself
from reverseproxy.proxy.http.trust import Trust
from reverseproxy.tracing.context import extract
from reverseproxy.tracing.otel import OtelTracing
from reverseproxy.wire.rpc.bolt import Bolt, encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from tests.proxy import test_tcp
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import World
from tests.proxy.rpc_world import World as RpcWorld
from tests.proxy.rpc_world import response
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
SPAN = "00f067aa0ba902b7"
PARENT = f"00-{TRACE}-{SPAN}-01"
OK = respond(b"Content-Length: 2", body=b"ok")
WALL = 1_800_000_000.0


def fields_of(request: bytes) -> dict[str, str]:
    lines = request.partition(b"\r\n\r\n")[0].split(b"\r\n")[1:]
    return {
        name.decode().lower(): value.strip().decode() for name, _, value in (x.partition(b":") for x in lines)
    }


class Traced(SynchronousTestCase):
    def tracing(self, **options: Any) -> OtelTracing:
        tracing = OtelTracing(TracingOptions(**options), Clock(), lambda: WALL)
        self.exporter = InMemorySpanExporter()
        tracing._provider.add_span_processor(SimpleSpanProcessor(self.exporter))
        return tracing

    def world(self, options: dict[str, Any] | None = None, **more: Any) -> World:
        more = {"trust": Trust(("*",)), "tracing": self.tracing(**(options or {})), **more}
        return World(**more)

    def spans(self) -> dict[str, Any]:
        found = {span.name: span for span in self.exporter.get_finished_spans()}
        self.assertEqual(len(found), len(self.exporter.get_finished_spans()))
        return found

    def ask(self, world: World, *fields: bytes) -> dict[str, str]:
        """Ask, and let the host answer; what it was asked."""
        world.client().send(get(*fields, line=b"GET /a?secret=1 HTTP/1.1"))
        world.turn()
        request = world.host().take()
        world.host().send(OK)
        world.turn()
        return fields_of(request)


class Http1Tests(Traced):
    def test_a_request(self) -> None:
        """The host goes on with a span of ours, which goes on with the client's."""
        world = self.world()
        self.patch(StaticHost, "identity", AgentIdentity("edge-7", "static"))
        asked = self.ask(world, f"traceparent: {PARENT}".encode(), b"tracestate: a=1", b"X-Other: b")
        spans = self.spans()
        request, attempt = spans["GET all[7]"], spans["upstream"]
        for span in (request, attempt):
            self.assertEqual(f"{span.context.trace_id:032x}", TRACE)
        self.assertEqual(f"{request.parent.span_id:016x}", SPAN)
        self.assertEqual(attempt.parent.span_id, request.context.span_id)
        self.assertEqual((request.kind, attempt.kind), (SpanKind.SERVER, SpanKind.CLIENT))
        self.assertEqual(asked["traceparent"], f"00-{TRACE}-{attempt.context.span_id:016x}-01")
        self.assertEqual((asked["tracestate"], asked["x-other"]), ("a=1", "b"))
        self.assertEqual(
            dict(request.attributes),
            {
                "http.request.method": "GET",
                "url.path": "/a",
                "url.scheme": "http",
                "server.address": "a",
                "client.address": "10.9.9.9",
                "network.protocol.name": "http",
                "network.protocol.version": "1.1",
                "reverseproxy.listener": "test",
                "reverseproxy.bytes_received": 0,
                "reverseproxy.bytes_sent": 2,
                "http.response.status_code": 200,
                "http.route": "all[7]",
            },
        )
        self.assertEqual(
            dict(attempt.attributes),
            {
                "server.address": "10.1.0.0:80",
                "reverseproxy.cluster": "c",
                "reverseproxy.agent": "token:edge-7",
                "http.response.status_code": 200,
            },
        )
        self.assertIs(request.status.status_code, StatusCode.UNSET)
        self.assertGreaterEqual(request.start_time, int(WALL * 1e9))
        [record] = world.records
        self.assertEqual(record.trace_id, TRACE)

    def test_a_host_of_another_server(self) -> None:
        world = self.world()
        kind = type(world.hosts[0])
        world.hosts[0].__class__ = type("Remote", (kind,), {"__slots__": (), "server": "b"})
        self.ask(world)
        attributes = self.spans()["upstream"].attributes
        self.assertEqual(attributes["reverseproxy.server"], "b")

    def test_strangers_are_not_believed(self) -> None:
        for options, trusted in (({}, False), ({"accept": "none"}, True)):
            world = self.world(options, trust=Trust(("*",) if trusted else ()))
            asked = self.ask(world, f"traceparent: {PARENT}".encode(), b"tracestate: a=1", b"b3: 0")
            self.assertNotIn(TRACE, asked["traceparent"])
            self.assertNotIn("tracestate", asked)
            self.assertNotIn("b3", asked)
            self.assertIsNone(self.spans()["GET all[7]"].parent)
        world = self.world({"accept": "all"}, trust=Trust())
        self.assertIn(TRACE, self.ask(world, f"traceparent: {PARENT}".encode())["traceparent"])

    def test_b3(self) -> None:
        """Who speaks B3 is spoken to in B3, and W3C's way as well."""
        for fields, names in (
            ((f"b3: {TRACE}-{SPAN}-1",), {"traceparent", "b3"}),
            (
                (f"X-B3-TraceId: {TRACE}", f"X-B3-SpanId: {SPAN}", "X-B3-ParentSpanId: 00000000000000ab"),
                {"traceparent", "x-b3-traceid", "x-b3-spanid", "x-b3-sampled"},
            ),
        ):
            asked = self.ask(self.world(), *[field.encode() for field in fields])
            self.assertEqual({name for name in asked if "b3" in name or "trace" in name}, names)
            found = extract(asked.get).context
            assert found is not None
            self.assertEqual((f"{found.trace_id:032x}", found.sampled), (TRACE, True))
        asked = self.ask(self.world({"propagation": ("b3",)}))
        self.assertEqual({name for name in asked if "b3" in name or "trace" in name}, {"b3"})

    def test_sampling(self) -> None:
        """What is not recorded has a trace all the same, which those behind us do not record either."""
        world = self.world({"sample_rate": 0.0})
        self.assertRegex(self.ask(world)["traceparent"], r"^00-[0-9a-f]{32}-[0-9a-f]{16}-00$")
        self.assertEqual(self.spans(), {})
        self.assertEqual(len(world.records[0].trace_id), 32)
        for fields, recorded in (
            (f"traceparent: {PARENT}", True),
            (f"traceparent: {PARENT[:-1]}0", False),
            ("b3: 1", True),
            ("X-B3-Sampled: 0", False),
            (f"b3: {TRACE}-{SPAN}", False),
        ):
            self.ask(self.world({"sample_rate": 0.0}), fields.encode())
            self.assertEqual(bool(self.spans()), recorded, fields)
        self.ask(self.world({"sample_rate": 1.0}), b"b3: 0")
        self.assertEqual(self.spans(), {})
        self.ask(self.world({"sample_rate": 1.0}), f"b3: {TRACE}-{SPAN}".encode())
        self.assertNotEqual(self.spans(), {})

    def test_waiting_and_connecting(self) -> None:
        world = self.world(hosts=0, cluster={"connect_timeout": "5s"})
        world.agent()
        client, other = world.client(), world.client()
        client.send(get())
        other.send(get())
        world.turn(1.5)
        agent = world.agent("agent:2")
        world.turn()
        asked = fields_of(agent.take())
        agent.send(OK)
        world.turn()
        spans = self.spans()
        self.assertEqual(set(spans), {"GET all[7]", "wait for a host", "tunnel"})
        wait = spans["wait for a host"]
        self.assertEqual(wait.end_time - wait.start_time, 1_500_000_000)
        self.assertIn(f"{spans['tunnel'].context.span_id:016x}", asked["traceparent"])
        world = self.world()
        world.endpoint.answer = "wait"
        world.client().send(get())
        world.turn(0.25)
        world.endpoint.dials[0].succeed()
        world.host().send(OK)
        world.turn()
        self.assertEqual(set(self.spans()), {"GET all[7]", "connect", "upstream"})

    def test_failures(self) -> None:
        world = self.world()
        world.endpoint.answer = ConnectionRefusedError()
        world.client().send(get())
        world.turn()
        [span] = self.spans().values()
        self.assertEqual(span.attributes["error.type"], "UH,UF")
        self.assertIs(span.status.status_code, StatusCode.ERROR)
        self.assertIn("can't be reached", span.status.description)

    def test_attempts(self) -> None:
        """Each has a span, and its host goes on with that one."""
        routes = [
            {
                "match": {"prefix": "/"},
                "route": {"cluster_name": "c", "retry_policy": {"retry_on": True, "num_retries": 3}},
            }
        ]
        world = self.world(routes=routes)
        client = world.client()
        client.send(get())
        parents = []
        for answer in (respond(b"Content-Length: 0", line=b"HTTP/1.1 503 BUSY"), OK):
            world.turn(0.02)
            parents.append(fields_of(world.host().take())["traceparent"])
            world.host().send(answer)
        world.turn()
        attempts = [span for span in self.exporter.get_finished_spans() if span.name == "upstream"]
        self.assertEqual([span.attributes["http.response.status_code"] for span in attempts], [503, 200])
        self.assertEqual(attempts[1].attributes["http.request.resend_count"], 1)
        for span, parent in zip(attempts, parents, strict=True):
            self.assertIn(f"{span.context.span_id:016x}", parent)

    def test_without_tracing(self) -> None:
        """Nothing is changed, and nothing is known but what the client says."""
        world = World()
        client = world.client()
        request = get(f"traceparent: {PARENT}".encode())
        client.send(request)
        world.turn()
        self.assertEqual(world.host().take(), request)
        exchange = client.protocol._exchange
        self.assertIsNone(exchange._trace)
        self.assertFalse(World(access_log=None).settings.observed)


class OtherProtocolTests(Traced):
    def test_http2(self) -> None:
        for more in ([], [(b"te", b"trailers"), (b"content-type", b"application/grpc")]):
            world = Http2World(
                trust=Trust(("*",)),
                tracing=self.tracing(),
                routes=[{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}, "name": "everything"}],
            )
            client = world.connect()
            client.ask([*GET, (b"traceparent", PARENT.encode()), *more])
            world.turn()
            host = world.peer()
            world.turn()
            [(number, message)] = host.look().messages.items()
            asked = message.header(b"traceparent")
            host.answer(number)
            world.turn()
            spans = self.spans()
            self.assertEqual(set(spans), {"GET everything", "upstream"})
            self.assertEqual(asked, f"00-{TRACE}-{spans['upstream'].context.span_id:016x}-01".encode())
            self.assertEqual(spans["GET everything"].attributes["network.protocol.version"], "2")

    def check_rpc(self, world: RpcWorld, asks: bytes, answer: Callable[[int], bytes]) -> tuple[Any, Any]:
        """
        Send a request, and answer it.

        @return: what the host was asked, and the record of it.
        """
        client = world.client()
        client.send(asks)
        world.turn()
        host = world.host()
        frame = host.one()
        host.send(answer(frame.id))
        world.turn()
        self.assertEqual(len(client.frames()), 1)
        [record] = world.records
        return frame, record

    def test_bolt(self) -> None:
        for version, name in ((1, "bolt"), (2, "boltv2")):
            world = RpcWorld(1, protocol=Bolt(version), trust=Trust(("*",)), tracing=self.tracing())
            headers = {"service": "echo", "traceparent": PARENT}
            asks = encode_request(1, headers, b"hello", timeout=0, version=version)
            answer = partial(response, version=version)
            frame, record = self.check_rpc(world, asks, answer)
            self.assertEqual(frame.content, b"hello")
            spans = self.spans()
            self.assertEqual(set(spans), {"echo", "upstream"})
            self.assertEqual(
                frame.header("traceparent"), f"00-{TRACE}-{spans['upstream'].context.span_id:016x}-01"
            )
            self.assertEqual(f"{spans['echo'].parent.span_id:016x}", SPAN)
            self.assertEqual(spans["echo"].attributes["rpc.system"], name)
            self.assertEqual(record.trace_id, TRACE)

    def test_no_room_for_a_trace(self) -> None:
        """A request whose headers are as large as can be goes on as it is."""
        world = RpcWorld(1, tracing=self.tracing())
        headers = {"service": "echo", "filler": "x" * (65_535 - 33)}
        frame, _ = self.check_rpc(world, encode_request(1, headers, b"hello", timeout=0), response)
        self.assertEqual((frame.content, frame.header("traceparent")), (b"hello", None))
        world.check_idle(self.fail)

    def test_dubbo(self) -> None:
        """Its frames have no place for a trace: it begins here, and the host hears nothing of it."""
        world = RpcWorld(1, protocol=Dubbo(), trust=Trust(("*",)), tracing=self.tracing())
        body = b"".join(map(encode_string, ("2.0.2", "com.example.Echo", "1.0", "say")))
        frame, record = self.check_rpc(
            world, encode_frame(0xC2, 1, body), lambda number: encode_frame(2, number, b"\x91", status=20)
        )
        self.assertEqual(bytes(frame.data[16:]), body)
        spans = self.spans()
        self.assertEqual(set(spans), {"com.example.Echo/say", "upstream"})
        self.assertEqual(spans["com.example.Echo/say"].attributes["rpc.system"], "dubbo")
        self.assertEqual(record.trace_id, f"{spans['upstream'].context.trace_id:032x}")


class TcpTests(Traced):
    def test_a_session(self) -> None:
        """It is a trace of its own, with what became of it, and how long that took."""
        world = test_tcp.World(tracing=self.tracing())
        self.patch(StaticHost, "identity", AgentIdentity("edge-7", "static"))
        client = world.client()
        world.turn()
        client.send(b"SSH-2.0")
        world.turn(1)
        world.backend.send(b"welcome")
        world.turn(1)
        self.assertEqual(self.spans(), {}, "it goes on")
        client.loseConnection()
        world.backend.loseConnection()
        world.turn(10)
        spans = self.spans()
        self.assertEqual(set(spans), {"tcp front", "connect", "upstream"})
        session, attempt = spans["tcp front"], spans["upstream"]
        self.assertEqual(session.parent, None)
        self.assertEqual(
            {span.parent.span_id for span in spans.values() if span.parent}, {session.context.span_id}
        )
        self.assertEqual(session.status.status_code, StatusCode.UNSET)
        self.assertEqual(
            dict(session.attributes),
            {
                "network.transport": "tcp",
                "client.address": "10.9.9.9",
                "reverseproxy.listener": "front",
                "reverseproxy.bytes_received": 7,
                "reverseproxy.bytes_sent": 7,
            },
        )
        self.assertEqual(
            dict(attempt.attributes),
            {
                "server.address": "10.1.0.0:80",
                "reverseproxy.cluster": "c",
                "reverseproxy.agent": "token:edge-7",
            },
        )
        [record] = world.records
        self.assertEqual(record.trace_id, f"{session.context.trace_id:032x}")

    def test_a_session_that_fails(self) -> None:
        world = test_tcp.World(tracing=self.tracing())
        world.endpoints[0].answer = ConnectionRefusedError()
        world.client()
        world.turn()
        spans = self.spans()
        self.assertEqual(set(spans), {"tcp front", "connect"})
        self.assertEqual(spans["tcp front"].attributes["reverseproxy.flags"], "UF")
        self.assertEqual(spans["tcp front"].status.status_code, StatusCode.ERROR)

    def test_on_an_agent(self) -> None:
        """A connection that nobody uses is no session, and a session begins with its first byte."""
        for data, names in ((b"", set()), (b"hello", {"tcp front", "connect", "upstream"})):
            world = test_tcp.World(tracing=self.tracing(), tally=RequestTally("front"))
            client = world.client(reverse=True)
            world.turn(100)
            if data:
                client.send(data)
            world.turn(1)
            client.reset()
            world.turn(10)
            spans = self.spans()
            self.assertEqual(set(spans), names)
            [*records] = world.records
            self.assertEqual(len(records), len(data[:1]))
            tally = world.settings.tally
            assert tally is not None
            self.assertEqual(len(tally.cells), len(records))
            if data:
                session = spans["tcp front"]
                self.assertEqual((session.end_time - session.start_time) // 10**9, 1)
                self.assertApproximates(records[0].duration, 1.0, 0.5)

    def test_through_an_agent(self) -> None:
        world = test_tcp.World(0, tracing=self.tracing())
        agent = world.agent()
        client = world.client()
        client.send(b"hello")
        world.turn()
        agent.reset()
        world.turn(10)
        self.assertIn("tunnel", self.spans())


class BuildingTests(SynchronousTestCase):
    def test_it(self) -> None:
        self.assertIsInstance(build_tracing(TracingOptions(), Clock()), OtelTracing)

    def test_what_is_missing(self) -> None:
        error = self.assertRaises(ConfigError, build_tracing, TracingOptions(), Clock(), "reverseproxy.none")
        self.assertIn("pip install 'reverseproxy[tracing]'", str(error))
