"""Tests for L{reverseproxy.proxy.http.trust}, and for what becomes of requests of strangers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.limits.refusals import REFUSALS
from reverseproxy.proxy.http.response_drain import MAX_BYTES, PATIENCE
from reverseproxy.proxy.http.trust import NOBODY, Trust
from reverseproxy.wire.http.border import ANY, LOOKALIKE, NOTHING
from reverseproxy.wire.rpc.bolt import Bolt, BoltStatus, encode_request
from reverseproxy.wire.rpc.xprotocol import Frame, Kind
from tests.config.documents import FILTER, TUNNEL_SERVER, edited, problems
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.rpc_world import Peer, request, response
from tests.proxy.rpc_world import World as RpcWorld
from tests.tunnel.logged import capture
from tests.wire.frames import Tiny, TinyFrame, tiny
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

CLAIMS = (
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-Proto: https",
    b"X-Real-IP: 1.2.3.4",
    b"Forwarded: for=1.2.3.4",
    b"X-Mosn-Global-Timeout: 1",
    b"X_Forwarded_For: 1.2.3.4",
    b"Transfer_Encoding: chunked",
)
TOLD = CLAIMS[:5]
ROUTES: list[dict[str, Any]] = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}]
OK = respond(b"Content-Length: 2", body=b"ok")


def info(remote: str, reverse: bool = False) -> ConnectionInfo:
    return ConnectionInfo(remote, "10.0.0.1:80", reverse=reverse)


class TrustTests(SynchronousTestCase):
    def test_who_is_believed(self) -> None:
        trust = Trust(["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "::ffff:172.16.0.0/108"])
        for remote, believed in [
            ("10.1.2.3:5", True),
            ("11.1.2.3:5", False),
            ("192.0.2.7:5", True),
            ("192.0.2.8:5", False),
            ("[2001:db8::1]:5", True),
            ("[2001:db9::1]:5", False),
            ("[::ffff:10.1.2.3]:5", True),
            ("172.16.1.1:5", True),
            ("172.32.1.1:5", False),
            ("unix:/run/a", True),
            ("unix:", True),
            ("localhost:5", False),
            ("", False),
        ]:
            self.assertEqual(trust.believes(info(remote)), believed, remote)
            self.assertEqual(trust.foreign(info(remote)), LOOKALIKE if believed else ANY)

    def test_by_default(self) -> None:
        self.assertFalse(NOBODY.believes(info("127.0.0.1:5")))
        self.assertTrue(NOBODY.believes(info("203.0.113.1:7443", reverse=True)))
        self.assertTrue(NOBODY.believes(info("unix:/run/a")))

    def test_everybody(self) -> None:
        trust = Trust(["*"])
        self.assertTrue(trust.believes(info("203.0.113.1:5")))
        self.assertEqual(trust.foreign(info("203.0.113.1:5")), NOTHING)


class HttpTests(SynchronousTestCase):
    def splice_to(
        self, trust: Trust = NOBODY, client: dict[str, Any] | None = None, **more: Any
    ) -> list[bytes]:
        """What a host sees of a request that claims much."""
        world = World(routes=ROUTES, trust=trust, **more)
        wire = world.client(**(client or {}))
        wire.send(get(b"A: 1", *CLAIMS))
        lines = world.host().take().split(b"\r\n")
        world.host().send(OK)
        self.assertIn(b"A: 1", lines)
        return [
            line for line in lines if line.partition(b":")[0] not in (b"A", b"Host", b"GET / HTTP/1.1", b"")
        ]

    def test_strangers(self) -> None:
        self.assertEqual(self.splice_to(), [])

    def test_believed(self) -> None:
        for more in (
            {"trust": Trust(["10.9.9.9"])},
            {"client": {"reverse": True}},
            {"client": {"remote": "unix:/run/a"}},
        ):
            self.assertEqual(self.splice_to(**more), list(TOLD))

    def test_everybody(self) -> None:
        self.assertEqual(self.splice_to(Trust(["*"])), list(CLAIMS))

    def test_own_fields(self) -> None:
        """Whatever is added, it is added to nothing that a stranger claims."""
        ours = [b"X-Forwarded-For: 10.9.9.9", b"X-Forwarded-Proto: http", b"X-Forwarded-Host: a"]
        for mode in ("append", "replace"):
            self.assertEqual(self.splice_to(options={"x_forwarded": mode}), ours)
        believed = self.splice_to(Trust(["10.0.0.0/8"]), options={"x_forwarded": "append"})
        self.assertIn(b"X-Forwarded-For: 1.2.3.4, 10.9.9.9", believed)
        self.assertIn(b"X-Forwarded-Proto: https", believed)

    def test_routes_and_logs_see_what_is_left(self) -> None:
        header = {"headers": [{"name": "x-forwarded-proto", "value": "https"}], "prefix": "/"}
        routes = [{"match": header, "direct_response": {"status": 418}}, *ROUTES]
        for trust, status in ((NOBODY, 200), (Trust(["*"]), 418)):
            world = World(routes=routes, trust=trust)
            client = world.client()
            client.send(get(*CLAIMS))
            if status == 200:
                world.host().send(OK)
            [record] = world.records
            self.assertEqual(record.status, status)
            assert record.request.headers is not None
            self.assertEqual(record.request.headers("x-real-ip"), None if status == 200 else "1.2.3.4")
            client.take()

    def test_it_is_said_once(self) -> None:
        world = World(routes=ROUTES)
        before = REFUSALS["fields"]
        with capture() as events:
            for fields in (CLAIMS, CLAIMS, CLAIMS[5:]):
                world.client().send(get(*fields))
            self.assertEqual(events.text().count("trusted_proxies"), 1)
            self.assertIn("10.9.9.9:1234", events.text())
        self.assertEqual(REFUSALS["fields"] - before, 3)

    def test_http2(self) -> None:
        claims = [(name.lower(), value) for name, _, value in (line.partition(b": ") for line in CLAIMS)]
        http1 = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "upstream_protocol": "Http1"}}]
        for trust, kept in ((NOBODY, ()), (Trust(["10.9.9.9"]), TOLD), (Trust(["*"]), CLAIMS)):
            world = Http2World(routes=http1, trust=trust)
            world.connect().ask([*GET, (b"a", b"1"), *claims])
            lines = world.host().take().split(b"\r\n")[2:-2]
            name_values = [
                line.partition(b": ")[0].lower() + b": " + line.partition(b": ")[2] for line in kept
            ]
            self.assertEqual(lines, [b"a: 1", *name_values])

    def test_grpc(self) -> None:
        """A stranger's deadline can make the time shorter, but not longer."""
        http1 = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "upstream_protocol": "Http1"}}]
        call = [*GET, (b"content-type", b"application/grpc"), (b"te", b"trailers")]
        for trust, deadline, seconds in (
            (NOBODY, b"2S", 3),
            (NOBODY, b"9999S", 40),
            (Trust(["*"]), b"2S", 3),
            (Trust(["*"]), b"9999S", None),
        ):
            world = Http2World(routes=http1, trust=trust, stream_idle=30.0)
            client = world.connect()
            number = client.ask([*call, (b"grpc-timeout", deadline)])
            world.run(80)
            answered = number in client.look().messages
            self.assertEqual(answered, seconds is not None, (deadline, trust))


class FaultTests(SynchronousTestCase):
    """A limit that a request asks for is no fault of a host's."""

    def ask(self, world: World, *fields: bytes) -> Wire:
        client = world.client()
        client.send(get(*fields))
        return client

    def test_attempts(self) -> None:
        """They don't count for the detection of outliers; those that the route limits do."""
        outliers = {"outlier_detection": {"consecutive_resets": 1}}
        routes = [
            {
                "match": {"prefix": "/"},
                "route": {"cluster_name": "c", "retry_policy": {"retry_timeout": "2s"}},
            }
        ]
        for fields, after, healthy in (
            ((b"X-Mosn-Try-Timeout: 500",), 0.6, [True, True]),
            ((b"X-Mosn-Global-Timeout: 500",), 0.6, [True, True]),
            ((), 2.1, [False, True]),
        ):
            world = World(2, cluster=outliers, routes=routes, trust=Trust(["10.9.9.9"]))
            client = self.ask(world, *fields)
            world.turn(after)
            self.assertEqual(client.take()[:12], b"HTTP/1.1 504")
            self.assertEqual([host.healthy for host in world.hosts], healthy, fields)
            world.check_idle(self.fail)

    def test_answers_of_hosts_that_keep_to_it(self) -> None:
        """Behind us may be a proxy that has the same limit, and says so a moment earlier."""
        outliers = {"outlier_detection": {"consecutive_5xx": 1}}
        late = respond(b"Content-Length: 0", line=b"HTTP/1.1 504 Gateway Timeout")
        for fields, healthy in (((b"X-Mosn-Global-Timeout: 500",), True), ((), False)):
            world = World(2, cluster=outliers, routes=ROUTES, trust=Trust(["*"]))
            self.ask(world, *fields)
            world.host().send(late)
            self.assertEqual(world.hosts[0].healthy, healthy)

    def test_strangers(self) -> None:
        """Their wishes don't even count."""
        world = World(2, cluster={"outlier_detection": {"consecutive_resets": 1}}, routes=ROUTES)
        client = self.ask(world, b"x-mosn-try-timeout: 1", b"x-mosn-global-timeout: 1")
        world.turn(5)
        self.assertEqual(client.take(), b"")
        world.host().send(OK)
        self.assertEqual(client.take(), OK)

    def reverse(self, *fields: bytes) -> tuple[World, Wire, Wire]:
        """A request that has run out of the time that it has asked for, on a reverse connection."""
        world = World(0, routes=ROUTES, trust=Trust(["10.9.9.9"]))
        agent = world.agent()
        client = self.ask(world, *fields)
        agent.take()
        world.turn(0.6)
        self.assertEqual(client.take()[:12], b"HTTP/1.1 504")
        return world, client, agent

    def test_reverse_connections_are_kept(self) -> None:
        for fields in ((b"X-Mosn-Try-Timeout: 500",), (b"X-Mosn-Global-Timeout: 500",)):
            world, client, agent = self.reverse(*fields)
            self.assertFalse(agent.aborted)
            self.assertEqual(
                world.cluster.taken, world.cluster.given_back + 1
            )  # nobody else gets it meanwhile
            agent.send(OK[:-1])
            agent.send(OK[-1:])
            world.check_idle(self.fail)
            self.assertEqual(client.take(), b"")
            client.send(get(b"A: again"))
            self.assertIn(b"again", agent.take())
            agent.send(OK)
            self.assertEqual(client.take(), OK)
            world.turn(2 * PATIENCE)
            self.assertFalse(agent.lost)

    def test_but_not_for_long(self) -> None:
        world, _, agent = self.reverse(b"X-Mosn-Try-Timeout: 500")
        world.turn(PATIENCE)
        self.assertTrue(agent.lost)
        self.assertEqual(len(world.cluster.hosts), 0)
        world.check_idle(self.fail)

    def test_nor_for_much(self) -> None:
        world, _, agent = self.reverse(b"X-Mosn-Try-Timeout: 500")
        agent.send(respond(b"Content-Length: 100000000", body=b"x"))
        for _ in range(2 + MAX_BYTES // 65536):
            agent.send(bytes(65536))
        world.turn()
        self.assertTrue(agent.lost)
        world.check_idle(self.fail)

    def test_answers_that_end_it(self) -> None:
        for answer in (
            b"nonsense\r\n\r\n",
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n",
        ):
            world, _, agent = self.reverse(b"X-Mosn-Try-Timeout: 500")
            agent.send(answer)
            world.turn(1)
            self.assertTrue(agent.aborted or agent.disconnecting, answer)
            world.check_idle(self.fail)

    def test_agents_that_leave(self) -> None:
        world, _, agent = self.reverse(b"X-Mosn-Try-Timeout: 500")
        agent.reset()
        world.check_idle(self.fail)
        world.turn(2 * PATIENCE)

    def test_a_route_that_limits_an_attempt_costs_the_connection(self) -> None:
        routes = [
            {
                "match": {"prefix": "/"},
                "route": {"cluster_name": "c", "retry_policy": {"retry_timeout": "500ms"}},
            }
        ]
        world = World(0, routes=routes)
        agent = world.agent()
        self.ask(world)
        world.turn(0.6)
        self.assertTrue(agent.aborted)
        world.check_idle(self.fail)


class NamedFrame(TinyFrame):
    """Headers in the body, as lines."""

    __slots__ = ()

    def fields(self) -> list[tuple[bytes, bytes]]:
        lines = bytes(self.data[4:]).split(b"\n")
        return [(name, value) for name, _, value in (line.partition(b"=") for line in lines)]

    def header(self, name: str) -> str | None:
        value = dict(self.fields()).get(name.encode())
        return None if value is None else value.decode()

    def set_fields(self, fields: Sequence[tuple[bytes, bytes]]) -> None:
        body = b"\n".join(b"=".join(field) for field in fields)
        self.data[3:] = bytes((len(body),)) + body


class Named(Tiny):
    """A protocol of a plug-in that has headers."""

    name = "named"

    def decode(self, buffer: bytearray, start: int) -> Frame | int:
        frame = super().decode(buffer, start)
        return frame if isinstance(frame, int) else NamedFrame(frame.data, frame.kind, frame.id)


class RpcTests(SynchronousTestCase):
    def test_plug_ins(self) -> None:
        body = b"service=echo\nX-Mosn-Try-Timeout=1\nx-own=1"
        for trust, kept in ((NOBODY, b"service=echo\nx-own=1"), (Trust(["*"]), body)):
            world = RpcWorld(1, protocol=Named(), trust=trust)
            client = world.client()
            client.send(tiny(Kind.REQUEST, 5, body))
            frame = world.host().one()
            self.assertEqual(frame.data[4:], kept)
            world.host().send(tiny(Kind.RESPONSE, frame.id))
            self.assertEqual(client.one().id, 5)

    def echo(self, world: RpcWorld, client: Peer, **headers: str) -> Any:
        """What a host sees of a request."""
        client.send(encode_request(5, {"service": "echo", **headers}, b"hi", timeout=0))
        frame = world.host().one()
        world.host().send(response(frame.id))
        self.assertEqual(client.answers(), [(5, 0)])
        return frame

    def test_fields(self) -> None:
        claims = {"X-Mosn-Try-Timeout": "1", "x-forwarded-for": "1.2.3.4", "X-Real-IP": "1.2.3.4", "a_b": "c"}
        for trust, reverse, kept in (
            (NOBODY, False, {"a_b": "c"}),
            (NOBODY, True, claims),
            (Trust(["10.9.9.9"]), False, claims),
        ):
            world = RpcWorld(1, trust=trust)
            frame = self.echo(world, world.client(reverse=reverse), **claims)
            self.assertEqual(dict(frame.headers), {"service": "echo", **kept})
            self.assertEqual(frame.content, b"hi")

    def test_frames_that_claim_nothing_go_as_they_came(self) -> None:
        world = RpcWorld(1)
        frame = self.echo(world, world.client(), other="1")
        sent = encode_request(frame.id, {"service": "echo", "other": "1"}, b"hi", timeout=0)
        self.assertEqual(bytes(frame.data), sent)

    def test_times(self) -> None:
        """Of the route 2 seconds: a stranger's frame can make them less, but not more."""
        for trust, timeout, headers, seconds in (
            (NOBODY, 500, {}, 0.5),
            (NOBODY, 5000, {}, 2.0),
            (NOBODY, -1, {}, 2.0),
            (NOBODY, 0, {"x-mosn-global-timeout": "500"}, 2.0),
            (Trust(["10.9.9.9"]), 500, {}, 0.5),
            (Trust(["10.9.9.9"]), 5000, {}, 5.0),
            (Trust(["10.9.9.9"]), 0, {"x-mosn-global-timeout": "500"}, 0.5),
        ):
            world = RpcWorld(1, trust=trust)
            client = world.client()
            client.send(encode_request(5, {"service": "quick", **headers}, timeout=timeout))
            world.run(seconds - 0.1, 0.1)
            self.assertEqual(client.answers(), [], (timeout, headers))
            world.run(0.3, 0.1)
            self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)], (timeout, headers))

    def test_faults(self) -> None:
        """What the request limits is not the host's fault; what the route limits is."""
        outliers = {"outlier_detection": {"consecutive_resets": 1, "consecutive_5xx": 1}}
        for service, timeout, header, healthy in (
            ("echo", 500, None, True),
            ("echo", 0, "500", True),
            ("again", 0, None, False),
        ):
            world = RpcWorld(2, cluster=outliers, trust=Trust(["10.9.9.9"]))
            client = world.client()
            headers = {"service": service, **({"x-mosn-try-timeout": header} if header else {})}
            client.send(encode_request(5, headers, timeout=timeout))
            world.turn(1.2)
            self.assertEqual(world.hosts[0].healthy, healthy, (service, timeout, header))

    def test_hosts_that_keep_to_it(self) -> None:
        outliers = {"outlier_detection": {"consecutive_5xx": 1}}
        for timeout, healthy in ((500, True), (0, False)):
            world = RpcWorld(2, cluster=outliers)
            client = world.client()
            client.send(request(5, timeout=timeout))
            world.host().send(response(world.host().one().id, status=BoltStatus.TIMEOUT))
            self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
            self.assertEqual(world.hosts[0].healthy, healthy)

    def test_headers_that_can_not_be_read(self) -> None:
        world = RpcWorld(1)
        client = world.client()
        broken = bytearray(encode_request(5, {"service": "echo"}, timeout=0))
        broken[22:26] = b"\x00\x00\xff\xff"
        client.send(bytes(broken))
        self.assertEqual(client.answers(), [(5, BoltStatus.CODEC_EXCEPTION)])
        self.assertEqual(Bolt().name, "bolt")


class ConfigTests(SynchronousTestCase):
    def test_addresses(self) -> None:
        path = f"{FILTER}.config.trusted_proxies"
        self.assertEqual(
            problems(edited(TUNNEL_SERVER, (path, ["*", "10.0.0.0/8", "::1", "10.0.0.7/24"]))), []
        )
        for text in ("10.0.0.0/33", "proxy.example", "", "10.0.0.1:80", "**"):
            [problem] = problems(edited(TUNNEL_SERVER, (path, ["*", text])))
            self.assertIn("trusted_proxies[1]", problem)
