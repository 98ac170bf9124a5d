"""Timeouts end stalled requests, never flowing ones: in every protocol, and at both ends of a tunnel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple
from unittest.mock import patch

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.durations import format_duration
from reverseproxy.transport.closing import LINGER, STALL
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.rpc.bolt import Bolt, BoltStatus, encode_request, encode_response
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from reverseproxy.wire.rpc.xprotocol import XProtocol
from tests.proxy.http2_memory import Http2Peer, Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.rpc_world import Peer, request, response
from tests.proxy.rpc_world import World as RpcWorld
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.tunnel.logged import capture
from tests.wire.http1_cases import get, respond
from tests.wire.http2_frames import GET, POST

HOUR = 3600
GRPC = [(b"te", b"trailers"), (b"content-type", b"application/grpc")]


class Rpc(NamedTuple):
    """What is different from one RPC protocol to the other."""

    protocol: Callable[[], XProtocol]
    ask: Callable[[int, str], bytes]
    answer: Callable[[int, bytes], bytes]
    good: int
    timeout: int
    id_ends: int


def _invocation(number: int, service: str) -> bytes:
    return encode_frame(0xC2, number, b"".join(map(encode_string, ("2.0.2", service, "1.0", "say"))))


RPC = {
    "bolt": Rpc(Bolt, request, response, 0, BoltStatus.TIMEOUT, 9),
    "boltv2": Rpc(
        lambda: Bolt(2),
        lambda number, service: encode_request(number, {"service": service}, timeout=0, version=2),
        lambda number, content: encode_response(number, content=content, version=2),
        0,
        BoltStatus.TIMEOUT,
        10,
    ),
    "dubbo": Rpc(
        Dubbo, _invocation, lambda number, content: encode_frame(2, number, content, 20), 20, 30, 12
    ),
}


class Http1Tests(SynchronousTestCase):
    def ask(self, world: World, *fields: bytes, line: bytes = b"GET / HTTP/1.1", **more: Any) -> Wire:
        client = world.client(**more)
        client.send(get(*fields, line=line))
        return client

    def over(self, world: World, flag: str, status: int) -> None:
        [record] = world.records
        self.assertEqual((record.flag, record.status), (flag, status))
        world.check_idle(self.fail)

    def test_an_event_a_minute(self) -> None:
        for line in (b"GET / HTTP/1.1", b"GET /quick HTTP/1.1"):
            world = World()
            client = self.ask(world, line=line)
            world.host().send(respond(b"Transfer-Encoding: chunked"))
            for _ in range(120):
                world.run(60, 15)
                world.host().send(b"1\r\nx\r\n")
            self.assertEqual(client.take().count(b"1\r\nx"), 120)
            self.assertFalse(client.lost)

    def test_a_stream_whose_head_comes_with_its_first_event(self) -> None:
        world = World()
        client = self.ask(world, b"Accept: text/event-stream")
        world.run(290, 10)
        world.host().send(respond(b"Transfer-Encoding: chunked"))
        self.assertIn(b"200 OK", client.take())

    def test_a_client_that_reads_little_by_little(self) -> None:
        for reverse in (False, True):
            world = World()
            client = self.ask(world, automatic=False, reverse=reverse)
            world.host().send(respond(b"Content-Length: 200000", body=b"x" * 100_000))
            self.assertFalse(world.host().reading)
            for _ in range(100):
                world.run(290, 10)
                client.receive(1)
            self.assertFalse(client.lost)
            client.receive()
            world.turn()
            world.host().send(b"x" * 100_000)
            client.receive()
            self.assertTrue(client.take().endswith(b"x" * 200_000))

    def test_a_client_that_reads_nothing(self) -> None:
        world = World()
        client = self.ask(world, automatic=False)
        world.host().send(respond(b"Content-Length: 200000", body=b"x" * 100_000))
        with capture() as events:
            world.run(STALL * 1.25 + 75, 5)
        self.assertTrue(client.lost and world.host().lost)
        self.over(world, "the client took nothing of the response for 5m0s", 200)
        self.assertIn("see stream_idle_timeout of the proxy filter", events.text())

    def test_an_agent_leaves_that_to_its_server(self) -> None:
        world = World(idle_timeout=None)
        server = self.ask(world, automatic=False, reverse=True)
        world.host().send(respond(b"Content-Length: 200000", body=b"x" * 100_000))
        world.run(10 * HOUR, 60)
        self.assertFalse(server.lost or world.host().lost)

    def test_a_host_that_sends_nothing_more(self) -> None:
        world = World()
        client = self.ask(world)
        world.host().send(respond(b"Content-Length: 10", body=b"some"))
        world.run(STALL * 1.25 + 75, 5)
        self.assertTrue(client.lost)
        self.over(world, "the host sent nothing of the response for 5m0s", 200)

    def test_a_slow_upload(self) -> None:
        for line in (b"POST / HTTP/1.1", b"POST /quick HTTP/1.1"):
            world = World()
            client = self.ask(world, b"Content-Length: 60", line=line)
            for _ in range(60):
                world.run(120, 0.5)
                client.send(b"x")
            world.turn(1)
            world.host().send(respond(b"Content-Length: 0"))
            self.assertIn(b"200 OK", client.take())

    def test_a_host_that_takes_an_upload_slowly(self) -> None:
        world = World()
        world.endpoint.automatic = False
        client = self.ask(world, b"Content-Length: 60000", line=b"POST /quick HTTP/1.1")
        client.send(b"x" * 60_000)
        for _ in range(1000):
            world.turn(0.5)
            world.host().receive(1)
        world.host().receive()
        world.run(1.75, 0.25)
        self.assertEqual(client.take(), b"")
        world.run(1, 0.25)
        self.assertIn(b" 504 ", client.take())
        self.over(world, "the response did not begin within 2s", 504)

    def test_an_upload_that_stands_still(self) -> None:
        world = World()
        client = self.ask(world, b"Content-Length: 60", line=b"POST / HTTP/1.1")
        client.send(b"x")
        world.run(STALL * 1.25 + 75, 5)
        self.assertIn(b" 408 ", client.take())
        self.over(world, "the client sent nothing of the request for 5m0s", 408)

    def test_an_upload_that_takes_too_long(self) -> None:
        """If that is bounded, a byte now and then does not help."""
        for seconds, idle in ((20.0, 300.0), (20.0, 8.0), (200.0, 300.0)):
            route = {"cluster_name": "c", "idle_timeout": f"{idle:.0f}s"}
            routes = [{"match": {"prefix": "/"}, "route": route}]
            for more in ({}, {"routes": routes}):
                world = World(request_time=seconds, **more)
                client = self.ask(world, b"Content-Length: 600", line=b"POST / HTTP/1.1")
                with capture() as events:
                    for _ in range(int(seconds) - 1):
                        world.turn(1)
                        client.send(b"x")
                    self.assertEqual(client.take(), b"")
                    world.turn(1)
                self.assertIn(b" 408 ", client.take())
                self.assertIn("see request_timeout of the proxy filter", events.text())
                self.over(world, f"not all of the request came within {format_duration(seconds)}", 408)

    def test_an_upload_that_is_complete_in_time(self) -> None:
        world = World(request_time=20.0)
        client = self.ask(world, b"Content-Length: 2", line=b"POST / HTTP/1.1")
        client.send(b"x")
        world.run(19, 1)
        client.send(b"x")
        world.run(30, 1)
        world.host().send(respond(b"Content-Length: 1"))
        world.run(30, 1)
        world.host().send(b"x")
        self.assertIn(b" 200 ", client.take())

    def test_an_upload_beside_its_response(self) -> None:
        """What has been answered is in nobody's way."""
        world = World(request_time=20.0)
        client = self.ask(world, b"Content-Length: 100", line=b"POST / HTTP/1.1")
        client.send(b"x" * 10)
        world.host().send(respond(b"Content-Length: 1"))
        for _ in range(90):
            world.turn(1)
            client.send(b"x")
        world.host().send(b"x")
        self.assertTrue(client.take().endswith(b"\r\n\r\nx"))

    def test_a_host_that_takes_no_upload_in_time(self) -> None:
        world = World(request_time=20.0)
        world.endpoint.automatic = False
        client = self.ask(world, b"Content-Length: 600000", line=b"POST / HTTP/1.1")
        client.send(b"x" * 200_000)
        for _ in range(1000):
            world.turn(1)
            world.host().receive(1)
        self.assertEqual(client.take(), b"")
        world.host().receive()
        world.run(100, 1)
        self.assertIn(b" 408 ", client.take())

    def test_a_host_that_never_continues(self) -> None:
        world = World()
        client = self.ask(world, b"Content-Length: 60", b"Expect: 100-continue", line=b"POST /quick HTTP/1.1")
        world.run(2, 0.5)
        self.assertIn(b" 504 ", client.take())

    def test_interim_responses(self) -> None:
        world = World()
        client = self.ask(world, line=b"GET /quick HTTP/1.1")
        for _ in range(10):
            world.run(1.5, 0.5)
            world.host().send(b"HTTP/1.1 103 Early Hints\r\n\r\n")
        world.host().send(respond(b"Content-Length: 0"))
        self.assertIn(b"200 OK", client.take())

    def test_the_whole_response_if_the_file_asks_for_it(self) -> None:
        route = {"cluster_name": "c", "timeout": "2s", "timeout_includes_response": True}
        for world in (
            World(timeout_to_end=True),
            World(routes=[{"match": {"prefix": "/"}, "route": route}]),
        ):
            client = self.ask(world, line=b"GET /quick HTTP/1.1")
            world.host().send(respond(b"Content-Length: 10", body=b"some"))
            for _ in range(4):
                world.turn(0.5)
                world.host().send(b"x")
            world.turn()
            self.assertTrue(client.lost)
            self.assertEqual(world.records[0].flag, "the response did not come to its end within 2s")

    def test_a_route_of_its_own(self) -> None:
        routes = [{"match": {"prefix": "/"}, "route": {"cluster_name": "c", "idle_timeout": "4s"}}]
        world = World(routes=routes)
        client = self.ask(world)
        world.host().send(respond(b"Content-Length: 10", body=b"some"))
        with capture() as events:
            world.run(5.5, 0.5)
        self.assertTrue(client.lost)
        self.assertIn("see idle_timeout of the route", events.text())

    def test_an_attempt_does_not_begin_before_the_request_is_sent(self) -> None:
        route = {"cluster_name": "c", "retry_policy": {"retry_on": True, "retry_timeout": "1s"}}
        world = World(routes=[{"match": {"prefix": "/"}, "route": route}])
        client = self.ask(world, b"Content-Length: 10", line=b"POST / HTTP/1.1")
        for _ in range(10):
            world.run(5, 0.5)
            client.send(b"x")
        self.assertEqual(client.take(), b"")
        world.run(1.5, 0.5)
        self.assertIn(b" 504 ", client.take())

    def test_the_response_to_a_slow_upload_has_to_begin_in_time(self) -> None:
        for reads in ([b"xx", b"xx", b"x"], [b"xxxxx"]):
            world = World()
            client = self.ask(world, b"Content-Length: 5", line=b"POST /quick HTTP/1.1")
            for data in reads:
                world.run(1.5, 0.25)
                client.send(data)
            world.run(1.75, 0.25)
            self.assertEqual(client.take(), b"")
            world.run(0.5, 0.25)
            self.assertIn(b" 504 ", client.take())
            self.over(world, "the response did not begin within 2s", 504)

    def test_an_upload_that_waits_for_a_host(self) -> None:
        world = World(hosts=0)
        world.agent()
        self.ask(world)
        client = self.ask(world, b"Content-Length: 5", line=b"POST /quick HTTP/1.1")
        world.run(1, 0.25)
        client.send(b"xxxxx")
        world.run(2.25, 0.25)
        self.assertIn(b" 504 ", client.take())

    def test_a_call_of_grpc_web_has_a_deadline(self) -> None:
        world = World()
        fields = b"Content-Type: application/grpc-web", b"Grpc-Timeout: 3S", b"Content-Length: 5"
        client = self.ask(world, *fields, line=b"POST / HTTP/1.1")
        client.send(b"xxxxx")
        world.run(2.75, 0.25)
        self.assertEqual(client.take(), b"")
        world.run(0.5, 0.25)
        self.assertIn(b" 504 ", client.take())

    def test_the_end_of_a_download_behind_a_close(self) -> None:
        for seconds in (LINGER - 1, STALL - 20):
            world = World()
            client = self.ask(world, b"Connection: close", automatic=False)
            world.host().send(respond(b"Content-Length: 100", body=b"x" * 100))
            while client.buffered > 1:
                world.run(seconds, 1)
                self.assertFalse(client.lost)
                client.receive(40)
            client.receive()
            world.run(LINGER * 3, 1)
            self.assertTrue(client.lost and client.take().endswith(b"x" * 100))


class Http2Tests(SynchronousTestCase):
    def world(self, **more: Any) -> tuple[Http2World, Http2Peer]:
        world = Http2World(routes=HTTP1, **more)
        self.addCleanup(world.check_idle, self.fail)
        return world, world.connect({4: 10})

    def test_a_client_that_takes_little_by_little(self) -> None:
        world, client = self.world()
        number = client.ask(GET)
        world.host().send(respond(b"Content-Length: 100", body=b"x" * 100))
        for _ in range(9):
            world.run(290, 10)
            client.send(client.window(number, 10))
        self.assertEqual((len(client[number].body), client[number].ended), (100, True))

    def test_a_client_that_takes_nothing(self) -> None:
        world, client = self.world()
        number = client.ask(GET)
        world.host().send(respond(b"Transfer-Encoding: chunked"))
        world.host().send(b"64\r\n" + b"x" * 100 + b"\r\n")
        world.run(STALL * 1.25 + 75, 5)
        self.assertEqual(client[number].reset, ErrorCode.CANCEL)
        self.assertEqual(world.records[0].flag, "the client took nothing of the response for 5m0s")

    def test_calls_that_are_quiet_at_first(self) -> None:
        for fields, seconds in (([], 290), ([(b"grpc-timeout", b"1H")], 3590)):
            world, client = self.world()
            number = client.ask([*POST, *GRPC, *fields], b"x")
            world.run(seconds, 10)
            world.host().send(respond(b"Transfer-Encoding: chunked"))
            self.assertEqual(client[number].status, 200)
            client.send(client.rst(number))

    def test_calls_with_a_deadline(self) -> None:
        """However they come, and whatever they carry, the answer does not come minutes too late."""
        fields = [*POST, *GRPC, (b"grpc-timeout", b"3S")]
        for body, reads in ((b"x" * 5, 1), (b"x" * 5, 2), (b"x" * 100_000, 1), (b"", 1), (b"", 2)):
            world, client = self.world()
            number = client.ask(fields, b"x" if reads > 1 else body, end=reads == 1)
            if reads > 1:
                world.run(2, 0.25)
                client.send(client.data(number, body, True))
            world.run(2.75, 0.25)
            self.assertNotIn(number, client.look().messages)
            world.run(1, 0.25)
            self.assertEqual(client[number].header(b"grpc-status"), b"4", (body, reads))

    def test_a_deadline_that_is_over_at_once(self) -> None:
        for text in (b"0S", b"1n", b"00000000H"):
            world, client = self.world()
            number = client.ask([*POST, *GRPC, (b"grpc-timeout", text)], b"x")
            world.turn(0.01)
            self.assertEqual(client[number].header(b"grpc-status"), b"4", text)

    def test_a_deadline_that_is_none(self) -> None:
        for route, text in (({"timeout": "20s"}, b"3S"), ({}, b"soon"), ({}, b"-1S"), ({}, b"")):
            world = Http2World(routes=[{"match": {"prefix": "/"}, "route": {**HTTP1[-1]["route"], **route}}])
            client = world.connect()
            number = client.ask([*POST, *GRPC, (b"grpc-timeout", text)], b"x")
            world.run(19, 1)
            self.assertNotIn(number, client.look().messages)

    def test_a_short_deadline_and_an_agent_that_takes_nothing(self) -> None:
        """It is looked at now and then, and not all the time."""
        world = Http2World(0, routes=HTTP1)
        agent = world.agent(automatic=False)
        client = world.connect()
        client.ask([*POST, *GRPC, (b"grpc-timeout", b"1n")], b"x" * 60_000)
        self.assertTrue(agent.buffered)
        with patch.object(world.clock, "callLater", wraps=world.clock.callLater) as timers:
            world.run(1, 0.1)
        self.assertLess(timers.call_count, 60)
        client.send(client.rst(1))

    def test_a_slow_upload(self) -> None:
        world, client = self.world()
        number = client.ask([*POST[:3], (b":path", b"/quick")], b"x", end=False)
        for _ in range(30):
            world.run(120, 1)
            client.send(client.data(number, b"x"))
        client.send(client.data(number, b"x", True))
        world.host().send(respond(b"Content-Length: 0"))
        self.assertEqual(client[number].status, 200)

    def test_an_upload_that_takes_too_long(self) -> None:
        world, client = self.world(request_time=20.0)
        number = client.ask([*POST[:3], (b":path", b"/quick")], b"x", end=False)
        for _ in range(19):
            world.turn(1)
            client.send(client.data(number, b"x"))
        self.assertNotIn(number, client.look().messages)
        world.turn(1)
        self.assertEqual(client[number].status, 408)
        self.assertEqual(world.records[0].flag, "not all of the request came within 20s")

    def test_a_ping_behind_a_large_request(self) -> None:
        world = Http2World(routes=HTTP2, cluster={"keepalive": {"interval": 10.0, "timeout": 1.0}})
        client = world.connect()
        number = client.ask(POST, b"x", end=False)
        host = world.peer()
        host.wire.automatic = False
        client.send(client.data(number, b"x" * 16_000))
        for _ in range(100):
            world.turn(0.5)
            host.wire.receive(10)
        self.assertFalse(host.wire.lost)
        world.run(30, 0.5)
        self.assertTrue(host.wire.lost)


class RpcTests(SynchronousTestCase):
    def set_up(
        self, service: str = "quick", rpc: Rpc = RPC["bolt"], **settings: Any
    ) -> tuple[RpcWorld, Peer, Peer]:
        world = RpcWorld(1, idle_timeout=None, protocol=rpc.protocol(), **settings)
        client = world.client()
        client.send(rpc.ask(5, service))
        return world, client, world.host()

    def test_a_response_that_comes_slowly(self) -> None:
        for name, rpc in RPC.items():
            world, client, host = self.set_up(rpc=rpc)
            answer = rpc.answer(host.one().id, b"x" * 100)
            for start in range(0, len(answer) - 20, 20):
                host.wire.send(answer[start : start + 20])
                world.run(60, 1)
            host.wire.send(answer[start + 20 :])
            self.assertEqual(client.answers(), [(5, rpc.good)], name)

    def test_a_response_that_stands_still(self) -> None:
        for name, rpc in RPC.items():
            world, client, host = self.set_up(rpc=rpc, stream_idle=40.0)
            host.wire.send(rpc.answer(host.one().id, b"x" * 100)[:50])
            world.run(39, 1)
            self.assertEqual(client.answers(), [], name)
            world.run(14, 1)
            self.assertEqual(client.answers(), [(5, rpc.timeout)], name)
            self.assertEqual(world.records[0].flag, "the host sent nothing of the response for 40s")

    def test_a_request_that_stands_still(self) -> None:
        """Whatever an idle connection may take."""
        for idle in (None, 10.0, 3600.0):
            for name, rpc in RPC.items():
                world = RpcWorld(1, idle_timeout=idle, stream_idle=40.0, protocol=rpc.protocol())
                client = world.client()
                asked = rpc.ask(5, "echo")
                for start in range(0, len(asked) - 1, 10):
                    client.wire.send(asked[start : start + 10][: len(asked) - 1 - start])
                    world.run(39, 1)
                self.assertFalse(client.wire.lost, name)
                world.run(2, 1)
                self.assertTrue(client.wire.lost, name)

    def test_a_request_that_takes_too_long(self) -> None:
        """If that is bounded, a byte now and then does not help, nor do other requests under way."""
        for idle in (None, 10.0, 3600.0):
            for name, rpc in RPC.items():
                world = RpcWorld(1, idle_timeout=idle, request_time=20.0, protocol=rpc.protocol())
                client = world.client()
                client.wire.send(rpc.ask(4, "echo"))
                world.run(30, 1)
                asked = rpc.ask(5, "echo")
                for start in range(20):
                    self.assertFalse(client.wire.lost, name)
                    client.wire.send(asked[start : start + 1])
                    world.turn(1)
                self.assertTrue(client.wire.lost, name)

    def test_requests_that_come_in_time(self) -> None:
        for name, rpc in RPC.items():
            world = RpcWorld(1, idle_timeout=None, request_time=20.0, protocol=rpc.protocol())
            client = world.client()
            asked = rpc.ask(5, "echo") * 30
            for start in range(0, len(asked), 15):
                client.wire.send(asked[start : start + 15])
                world.turn(5)
            self.assertFalse(client.wire.lost, name)
            self.assertEqual(world.cluster.taken, 30)

    def test_the_response_to_another(self) -> None:
        """Only its id says whose it is."""
        for name, rpc in RPC.items():
            world, client, host = self.set_up(rpc=rpc)
            host.wire.send(rpc.answer(host.one().id + 1, b"x" * 100)[:50])
            world.run(3, 0.5)
            self.assertEqual(client.answers(), [(5, rpc.timeout)], name)

    def test_a_response_of_which_not_even_the_id_has_come(self) -> None:
        """It counts as begun: whose it is can't be told."""
        for name, rpc in RPC.items():
            world, client, host = self.set_up(rpc=rpc)
            answer = rpc.answer(host.one().id, b"x")
            host.wire.send(answer[: rpc.id_ends - 1])
            world.run(30, 1)
            self.assertEqual(client.answers(), [], name)
            host.wire.send(answer[rpc.id_ends - 1 :])
            self.assertEqual(client.answers(), [(5, rpc.good)], name)

    def test_a_request_that_is_taken_slowly(self) -> None:
        world = RpcWorld(1, idle_timeout=None)
        world.endpoint.automatic = False
        client = world.client()
        client.send(request(5, "quick", content=b"x" * 100_000))
        wire = world.endpoint.wires[0]
        for _ in range(200):
            world.turn(0.5)
            wire.receive(100)
        self.assertEqual(client.answers(), [])
        world.run(4, 0.5)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])

    def test_heartbeats_behind_a_large_request(self) -> None:
        world = RpcWorld(1, idle_timeout=None)
        world.endpoint.automatic = False
        client = world.client()
        client.send(request(5, content=b"x" * 100_000, timeout=-1))
        wire = world.endpoint.wires[0]
        for _ in range(400):
            world.turn(0.5)
            wire.receive(1)
        self.assertFalse(wire.lost)
        world.run(120, 0.5)
        self.assertTrue(wire.lost)

    def test_what_a_frame_says_is_all_its_client_waits(self) -> None:
        world, client, host = self.set_up("echo")
        client.send(request(6, timeout=1000))
        host.frames()
        world.run(1.5, 0.25)
        self.assertEqual(client.answers(), [(6, BoltStatus.TIMEOUT)])

    def test_partial_ids(self) -> None:
        for name, rpc in RPC.items():
            data = bytearray(rpc.answer(77, b"x"))
            sizes = (1, rpc.id_ends - 1, rpc.id_ends, len(data) - 1)
            found = [rpc.protocol().partial_id(data[:size]) for size in sizes]
            self.assertEqual(found, [None, None, 77, 77], name)
        # All of Java's long, as it came.
        data = bytearray(encode_frame(2, 2**63 - 1, b"x", 20))
        self.assertEqual(Dubbo().partial_id(data[:12]), 2**63 - 1)
