"""
Response flags of requests that did not end with a complete response, in every protocol.

A case is a world in memory, the events in it, and the flags in the record of the
only request, or session.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hyperframe.frame import RstStreamFrame
from twisted.internet.error import ConnectionRefusedError, DNSLookupError
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import TcpProxyConfig
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.flags import short_names
from reverseproxy.wire.rpc.bolt import Bolt, encode_request
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from reverseproxy.wire.rpc.xprotocol import XProtocol
from tests.proxy import test_tcp
from tests.proxy.filters.build import chain
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import World
from tests.proxy.rpc_world import ROUTES as RPC_ROUTES
from tests.proxy.rpc_world import Peer, request, response
from tests.proxy.rpc_world import World as RpcWorld
from tests.proxy.test_upgrades import EMPTY, Way, switched
from tests.tunnel.logged import capture
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET

OK = respond(b"Content-Length: 2", body=b"ok")
BUSY = respond(b"Content-Length: 0", line=b"HTTP/1.1 503 BUSY")

RETRY = {"retry_policy": {"retry_on": True, "num_retries": 3, "retry_timeout": "1s"}}

ROUTES: list[dict[str, Any]] = [
    {"match": {"path": "/direct"}, "direct_response": {"status": 418, "body": "short"}, "name": "teapot"},
    {"match": {"prefix": "/nowhere"}, "route": {"cluster_name": "unknown"}},
    {"match": {"prefix": "/odd"}, "route": {"cluster_name": "c", "upstream_protocol": "odd"}},
    {"match": {"prefix": "/again"}, "route": {"cluster_name": "c", **RETRY}},
    {"match": {"prefix": "/"}, "route": {"cluster_name": "c", "timeout": "2s"}},
]

EVERYTHING = f"all[{len(RPC_ROUTES) - 1}]"
"""The rule of RPC that takes what no other one does."""

Case = Callable[[], AccessRecord]


def _last(world: Any) -> AccessRecord:
    world.turn()
    record: AccessRecord = world.records[-1]
    return record


class _Cases:
    """Requests of one protocol, and what becomes of them."""

    def world(self, hosts: int = 1, **more: Any) -> Any:
        raise NotImplementedError

    def ask(self, world: Any, path: bytes = b"/") -> Any:
        raise NotImplementedError

    def client_leaves(self, client: Any) -> None:
        client.reset()

    def answered(self) -> AccessRecord:
        world = self.world()
        self.ask(world)
        world.host().send(OK)
        return _last(world)

    def direct(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/direct")
        return _last(world)

    def no_host(self) -> AccessRecord:
        world = self.world(hosts=0)
        self.ask(world)
        return _last(world)

    def refused(self) -> AccessRecord:
        world = self.world()
        world.endpoint.answer = ConnectionRefusedError()
        self.ask(world)
        return _last(world)

    def refused_by_many(self) -> AccessRecord:
        world = self.world(hosts=5)
        for endpoint in world.endpoints:
            endpoint.answer = ConnectionRefusedError()
        self.ask(world)
        return _last(world)

    def no_name(self) -> AccessRecord:
        world = self.world()
        world.endpoint.answer = DNSLookupError()
        self.ask(world)
        return _last(world)

    def refused_once(self) -> AccessRecord:
        world = self.world(hosts=2)
        world.endpoints[0].answer = world.endpoints[1].answer = ConnectionRefusedError()
        world.endpoints[1].answer = "connect"
        for _ in range(2):  # whichever of the hosts is first
            self.ask(world)
        world.turn()
        for wire in world.endpoints[1].wires:
            wire.send(OK)
        return _last(world)

    def no_route(self) -> AccessRecord:
        world = self.world(routes=ROUTES[:1])
        self.ask(world)
        return _last(world)

    def no_cluster(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/nowhere")
        return _last(world)

    def odd_protocol(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/odd")
        return _last(world)

    def too_late(self) -> AccessRecord:
        world = self.world()
        self.ask(world)
        world.run(4, 0.5)
        return _last(world)

    def attempts_too_late(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/again")
        world.run(10, 0.5)
        return _last(world)

    def too_many_errors(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/again")
        for _ in range(10):
            if not world.records:
                world.host().send(BUSY)
                world.turn(0.02)
        return _last(world)

    def host_lost(self) -> AccessRecord:
        world = self.world()
        self.ask(world, b"/")
        world.host().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nonly")
        world.host().reset()
        return _last(world)

    def nonsense(self) -> AccessRecord:
        world = self.world()
        self.ask(world)
        world.host().send(b"SSH-2.0-OpenSSH_9.2p1\r\n\r\n")
        return _last(world)

    def silence(self) -> AccessRecord:
        world = self.world(stream_idle=30.0)
        self.ask(world)
        world.host().send(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nonly")
        world.run(90, 5)
        return _last(world)

    def overflow(self) -> AccessRecord:
        world = self.world(cluster={"circuit_breakers": [{"max_requests": 1}]})
        self.ask(world)
        self.ask(world)
        return _last(world)

    def queue_too_long(self) -> AccessRecord:
        world = self.world(hosts=0, cluster={"connect_timeout": "1s"})
        world.agent()
        self.ask(world)
        self.ask(world)
        world.run(1.5, 0.25)
        return _last(world)

    def client_gone(self) -> AccessRecord:
        world = self.world()
        client = self.ask(world)
        self.client_leaves(client)
        return _last(world)

    def cut_off(self) -> AccessRecord:
        world = self.world()
        client = self.ask(world)
        wire = getattr(client, "wire", client)
        wire.abortConnection()
        return _last(world)

    def filtered(self, kind: str, options: dict[str, Any]) -> AccessRecord:
        world = self.world(filters=chain((kind, options)))
        self.ask(world)
        world.run(2.5, 0.5)
        if not world.records:
            world.host().send(OK)
        return _last(world)

    def denied(self) -> AccessRecord:
        return self.filtered("ip_access", {"default_action": "deny"})

    def fault(self) -> AccessRecord:
        return self.filtered("fault", {"abort": {"status": 503, "percentage": 100}})


class _Http1(_Cases):
    def world(self, hosts: int = 1, **more: Any) -> World:
        return World(hosts, **{"routes": ROUTES, **more})

    def ask(self, world: World, path: bytes = b"/") -> Any:
        client = world.client()
        client.send(get(line=b"GET " + path + b" HTTP/1.1"))
        world.turn()
        return client

    def bad_request(self) -> AccessRecord:
        world = self.world()
        world.client().send(b"GET  / HTTP/1.1\r\n\r\n")
        return _last(world)

    def too_large(self) -> AccessRecord:
        world = self.world(options={"max_request_body_size": 1})
        world.client().send(get(b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ab"))
        return _last(world)

    def too_slow(self) -> AccessRecord:
        world = self.world(request_time=10.0)
        world.client().send(get(b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"a"))
        world.run(15, 0.5)
        return _last(world)


class _Http2(_Cases):
    def world(self, hosts: int = 1, **more: Any) -> Http2World:
        routes = [
            {**rule, "route": {"upstream_protocol": "Http1", **rule["route"]}} if "route" in rule else rule
            for rule in more.pop("routes", ROUTES)
        ]
        return Http2World(hosts, routes=routes, **more)

    def ask(self, world: Http2World, path: bytes = b"/") -> Http2Peer:
        client = world.connect()
        client.ask([(name, path if name == b":path" else value) for name, value in GET])
        world.turn()
        return client

    def client_leaves(self, client: Http2Peer) -> None:
        client.wire.reset()

    def client_cancels(self) -> AccessRecord:
        world = self.world()
        client = self.ask(world)
        client.send(RstStreamFrame(1, error_code=8).serialize())
        return _last(world)

    def broken_rules(self) -> AccessRecord:
        world = self.world()
        client = self.ask(world)
        client.send(b"\0\0\0\4\0\0\0\0\1")  # SETTINGS of a stream
        return _last(world)

    def reset_by_host(self) -> AccessRecord:
        world = Http2World(routes=[{"match": {"prefix": "/"}, "route": {"cluster_name": "c"}}])
        self.ask(world)
        host = world.peer()
        world.turn()
        [number] = host.look().messages
        host.send(RstStreamFrame(number, error_code=2).serialize())
        return _last(world)


class _Grpc(_Http2):
    def ask(self, world: Http2World, path: bytes = b"/") -> Http2Peer:
        client = world.connect()
        fields = [(name, path if name == b":path" else value) for name, value in GET]
        client.ask([*fields, (b"te", b"trailers"), (b"content-type", b"application/grpc")])
        world.turn()
        return client


COMMON = {
    "answered": "",
    "direct": "",
    "no_host": "UH",
    "refused": "UH,UF",
    "refused_by_many": "UF,URX",
    "no_name": "UH,UF,DF",
    "refused_once": "",
    "no_route": "NR",
    "no_cluster": "NC",
    "odd_protocol": "UPE",
    "too_late": "UT",
    "attempts_too_late": "UT,URX",
    "too_many_errors": "URX",
    "host_lost": "UC",
    "nonsense": "UPE",
    "silence": "SI",
    "overflow": "UO",
    "queue_too_long": "UO",
    "client_gone": "DC",
    "cut_off": "LR",
    "denied": "UAEX",
    "fault": "FI",
}


class HttpTests(SynchronousTestCase):
    def check(self, cases: _Cases, expected: dict[str, str]) -> None:
        found = {}
        for name in expected:
            with capture() as events:
                record = getattr(cases, name)()
            found[name] = short_names(record.flags)
            # The sentence, and MOSN's variable that goes by it, say the same, but for what a host has sent.
            self.assertEqual(bool(record.flag), bool(found[name]) and found[name] != "URX", name)
            ours = record.status >= 500 and record.flag != ""
            lines = [line for line in events.text().split("\n") if f"gets {record.status}: " in line]
            if record.status not in (404, 408):
                self.assertEqual(len(lines), int(ours), f"{name}: {events.text()}")
        self.assertEqual(found, expected)

    def test_http1(self) -> None:
        more = {"bad_request": "DPE", "too_large": "DPE", "too_slow": "DT"}
        self.check(_Http1(), {**COMMON, **more})

    def test_http2(self) -> None:
        more = {"client_cancels": "DR", "broken_rules": "DPE", "reset_by_host": "UR"}
        self.check(_Http2(), {**COMMON, **more})

    def test_grpc(self) -> None:
        self.check(_Grpc(), COMMON)

    def test_delays_and_rates(self) -> None:
        cases = _Http1()
        delay = {"delay": {"fixed_delay": "2s", "percentage": 100}}
        self.assertEqual(short_names(cases.filtered("fault", delay).flags), "DI")
        both = {**delay, "abort": {"status": 503, "percentage": 100}}
        self.assertEqual(short_names(cases.filtered("fault", both).flags), "FI,DI")
        rule = {"resource": "/", "threshold": 0}
        limit = {"global_switch": True, "limit_key_type": "PATH", "rules": [rule]}
        self.assertEqual(short_names(cases.filtered("flowControlFilter", limit).flags), "RL")
        world = World(routes=ROUTES, filters=chain(("payload_limit", {"max_entity_size": 1})))
        world.client().send(get(b"Content-Length: 2", line=b"POST / HTTP/1.1", body=b"ab"))
        self.assertEqual(short_names(_last(world).flags), "DPE")

    def test_what_else_is_known(self) -> None:
        """The rule that took it, and how long it has waited."""
        record = _Http1().direct()
        self.assertEqual((record.rule.route, record.rule.virtual_host), ("teapot", "all"))
        record = _Http1().no_host()
        self.assertEqual(
            (record.rule.route, record.rule.virtual_host, record.upstream.attempts), ("all[4]", "all", 1)
        )
        record = _Http1().queue_too_long()
        self.assertAlmostEqual(record.times.waited, 1.0)
        world = World(routes=ROUTES)
        world.endpoint.answer = "wait"
        client = _Http1().ask(world)
        world.turn(0.25)
        world.endpoint.dials[0].succeed()
        world.host().send(OK)
        self.assertEqual(client.take()[:15], b"HTTP/1.1 200 OK")
        record = _last(world)
        self.assertEqual(
            (record.times.waited, record.times.dialled, record.upstream.attempts), (0.0, 0.25, 1)
        )


class UpgradeTests(SynchronousTestCase):
    def way(self) -> tuple[Way, Any]:
        way = Way(session_idle=60.0)
        client = way.client(EMPTY)
        way.host.send(switched(b"SPDY/3.1"))
        way.pump()
        return way, client

    def flags(self, way: Way) -> str:
        for _ in range(4):
            way.pump()
        [record] = way.near.records
        self.assertEqual(record.status, 101)
        return short_names(record.flags)

    def test_sessions(self) -> None:
        way, client = self.way()
        client.end()
        way.pump()
        way.host.end()
        self.assertEqual(self.flags(way), "")
        way, client = self.way()
        client.reset()
        self.assertEqual(self.flags(way), "DC")
        way, client = self.way()
        way.host.reset()
        self.assertEqual(self.flags(way), "UC")
        way, client = self.way()
        client.abortConnection()
        self.assertEqual(self.flags(way), "LR")
        way, client = self.way()
        for _ in range(40):
            way.pump(5)
        self.assertEqual(self.flags(way), "SI")


class BoltTests(SynchronousTestCase):
    """Requests of one RPC protocol; others derive from this."""

    def protocol(self) -> XProtocol:
        return Bolt()

    def request(self, service: str, timeout: int = 0) -> bytes:
        return request(1, service, timeout=timeout)

    def response(self, number: int, content: bytes = b"") -> bytes:
        return response(number, content)

    def world(self, hosts: int = 1, **more: Any) -> RpcWorld:
        return RpcWorld(hosts, protocol=self.protocol(), **more)

    def flags(self, world: RpcWorld) -> str:
        world.turn()
        return short_names(world.records[-1].flags)

    def ask(self, world: RpcWorld, service: str = "echo", timeout: int = 0) -> Peer:
        client = world.client()
        client.send(self.request(service, timeout))
        world.turn()
        return client

    def simple(self, service: str, hosts: int = 1, **more: Any) -> str:
        world = self.world(hosts, **more)
        self.ask(world, service)
        return self.flags(world)

    def test_answers(self) -> None:
        world = self.world(1)
        self.ask(world)
        host = world.host()
        host.send(self.response(host.one().id))
        self.assertEqual(self.flags(world), "")
        record = world.records[-1]
        told = (
            record.protocol,
            record.request.service,
            record.status,
            record.rule.route,
            record.upstream.cluster,
            record.upstream.attempts,
        )
        self.assertEqual(told, (world.protocol.name, "echo", 200, EVERYTHING, "c", 1))
        self.assertEqual(self.simple("direct"), "")

    def test_where_to(self) -> None:
        self.assertEqual(self.simple("unknown"), "NC")
        self.assertEqual(self.simple(""), "NR")
        self.assertEqual(self.simple("echo", hosts=0), "UH")
        deny = chain(("ip_access", {"default_action": "deny"}))
        self.assertEqual(self.simple("echo", filters=deny), "UAEX")
        abort = chain(("fault", {"abort": {"status": 503, "percentage": 100}}))
        self.assertEqual(self.simple("echo", filters=abort), "FI")

    def test_hosts_that_can_t_be_reached(self) -> None:
        for error, flags in ((ConnectionRefusedError(), "UH,UF"), (DNSLookupError(), "UH,UF,DF")):
            world = self.world(1)
            world.endpoint.answer = error
            self.ask(world)
            self.assertEqual(self.flags(world), flags)
        world = self.world(5)
        for endpoint in world.endpoints:
            endpoint.answer = ConnectionRefusedError()
        with capture() as events:
            self.ask(world)
        self.assertEqual(self.flags(world), "UF,URX")
        self.assertEqual(events.text().count("gets 502: "), 1)

    def test_hosts_that_fail(self) -> None:
        world = self.world(1)
        self.ask(world)
        world.endpoint.wires[0].reset()
        self.assertEqual(self.flags(world), "UC")
        world = self.world(1)
        self.ask(world)
        world.endpoint.wires[0].send(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(100))
        self.assertEqual(self.flags(world), "UPE")
        world = self.world(1, max_frame=100)
        self.ask(world)
        host = world.host()
        host.send(self.response(host.one().id, bytes(1000)))
        self.assertEqual(self.flags(world), "UPE")

    def test_times(self) -> None:
        world = self.world(1)
        self.ask(world, "quick")
        world.run(4, 0.5)
        self.assertEqual(self.flags(world), "UT")
        world = self.world(1)
        self.ask(world, "again")
        world.run(10, 0.5)
        self.assertEqual(self.flags(world), "UT,URX")

    def test_clients(self) -> None:
        for end, flags in (("reset", "DC"), ("abortConnection", "LR")):
            world = self.world(1)
            client = self.ask(world)
            getattr(client.wire, end)()
            self.assertEqual(self.flags(world), flags)
        world = self.world(1)
        client = self.ask(world)
        client.send(b"GET / HTTP/1.1\r\n\r\n")
        self.assertEqual(self.flags(world), "DPE")

    def test_its_own_time(self) -> None:
        world = self.world(1)
        self.ask(world, timeout=1000)
        world.run(4, 0.5)
        self.assertEqual(self.flags(world), "UT")

    def test_another_protocol(self) -> None:
        self.assertEqual(self.simple("turned"), "UPE")


class BoltV2Tests(BoltTests):
    def protocol(self) -> XProtocol:
        return Bolt(2)

    def request(self, service: str, timeout: int = 0) -> bytes:
        return encode_request(1, {"service": service} if service else {}, timeout=timeout, version=2)

    def response(self, number: int, content: bytes = b"") -> bytes:
        return response(number, content, version=2)


class DubboTests(BoltTests):
    def protocol(self) -> XProtocol:
        return Dubbo()

    def request(self, service: str, timeout: int = 0) -> bytes:
        return encode_frame(0xC2, 1, b"".join(map(encode_string, ("2.0.2", service, "1.0", "say"))))

    def response(self, number: int, content: bytes = b"") -> bytes:
        return encode_frame(2, number, b"\x91" + content, status=20)

    def test_its_own_time(self) -> None:
        """Frames of dubbo name none: a request takes as long as its route says."""
        world = self.world()
        self.ask(world, timeout=1000)
        world.run(4, 0.5)
        self.assertEqual(world.records, [])

    def test_another_protocol(self) -> None:
        """It is the one that the route names."""
        world = self.world()
        self.ask(world, "turned")
        host = world.host()
        host.send(self.response(host.one().id))
        self.assertEqual(self.flags(world), "")


class TcpTests(SynchronousTestCase):
    def flags(self, world: test_tcp.World) -> str:
        world.turn()
        return short_names(world.records[-1].flags)

    def test_refused(self) -> None:
        for more, flags in (
            ({"hosts": 0}, "UH"),
            ({"config": TcpProxyConfig(cluster="missing")}, "NC"),
            ({"config": TcpProxyConfig()}, "NR"),
        ):
            world = test_tcp.World(**more)  # type: ignore[arg-type]
            world.client()
            self.assertEqual(self.flags(world), flags)

    def test_unreachable(self) -> None:
        for hosts, error, flags in (
            (1, ConnectionRefusedError(), "UF"),
            (1, DNSLookupError(), "UF,DF"),
            (3, ConnectionRefusedError(), "UF,URX"),
        ):
            world = test_tcp.World(hosts)
            for endpoint in world.endpoints:
                endpoint.answer = error
            with capture() as events:
                world.client()
                self.assertEqual(self.flags(world), flags)
            self.assertEqual(events.text().count("session of 10.9.9.9:1234 closed: "), 1)

    def test_too_many(self) -> None:
        world = test_tcp.World(cluster={"circuit_breakers": [{"max_connections": 1}]})
        world.client()
        world.client()
        self.assertEqual(self.flags(world), "UO")

    def test_sessions(self) -> None:
        for end, flags in (
            (lambda world: world.clients[0].reset(), "DC"),
            (lambda world: world.clients[0].abortConnection(), "LR"),
            (lambda world: world.backend.reset(), "UC"),
            (lambda world: [world.clients[0].end(), world.turn(), world.backend.end()], ""),
            (lambda world: world.turn(80.0), "SI"),
        ):
            world = test_tcp.World(session_idle=30.0)
            world.client().send(b"hello")
            world.turn()
            end(world)
            self.assertEqual(self.flags(world), flags)
