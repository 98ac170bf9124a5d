"""
Services that claim what only an agent may report: that a request was not sent on.

An agent forwards none of that, in any protocol, so that a server, which trusts
agents, sends no request twice because of it.
"""

from __future__ import annotations

import zlib
from typing import Any

from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.interfaces import ConnectionInfo, IService
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.wire.http.unsent import Unsent
from reverseproxy.wire.http2.frames import ErrorCode
from reverseproxy.wire.rpc.bolt import Bolt, BoltStatus, encode_response
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame, encode_string
from tests.proxy import rpc_world
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import Wire, World
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import respond
from tests.wire.http2_frames import POST

SAYS = (b"request", b"service", b"SERVICE", b"x")
MARK = b"x-reverseproxy-unsent"


@implementer(IService)
class Behind:
    well = True


def reverse(**more: Any) -> dict[str, Any]:
    return {"reverse": True, "announced": True, "service": Behind(), **more}


class HttpTests(SynchronousTestCase):
    def test_http1_services(self) -> None:
        for says in SAYS:
            for status in (b"502 No", b"503 No", b"599 No"):
                for name in (MARK, MARK.title(), MARK.upper()):
                    world = World()
                    client = world.client(**reverse())
                    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nx")
                    field = name + b": " + says
                    world.host().send(
                        respond(field, field, b"Content-Length: 2", line=b"HTTP/1.1 " + status, body=b"no")
                    )
                    answer = client.take()
                    self.assertTrue(answer.startswith(b"HTTP/1.1 " + status[:3]), answer)
                    self.assertNotIn(b"unsent", answer.lower())
                    world.check_idle(self.fail)

    def test_http2_to_http1(self) -> None:
        for grpc in (False, True):
            world = Http2World(routes=HTTP1)
            client = world.connect(**reverse())
            more = [(b"te", b"trailers"), (b"content-type", b"application/grpc")] if grpc else []
            number = client.ask([*POST, *more], b"x")
            world.host().send(
                respond(
                    MARK.title() + b": service", b"Content-Length: 2", line=b"HTTP/1.1 502 No", body=b"no"
                )
            )
            self.assertEqual(client[number].status, 502)
            self.assertIsNone(client[number].header(MARK))

    def test_http2_to_http2(self) -> None:
        for grpc in (False, True):
            more = [(b"te", b"trailers"), (b"content-type", b"application/grpc")] if grpc else []
            world = Http2World(routes=HTTP2)
            client = world.connect(**reverse())
            number = client.ask([*POST, *more], b"x")
            host = world.peer()
            stream = max(host.look().messages)
            host.answer(stream, [(b":status", b"502"), (MARK, b"service")], b"", [(MARK, b"service")])
            self.assertEqual(client[number].status, 502)
            self.assertIsNone(client[number].header(MARK))

    def test_a_stream_that_is_refused_after_all(self) -> None:
        """Who has begun to answer has seen the request, whatever comes then."""
        for begin in ([(b":status", b"200")], [(b":status", b"502"), (MARK, b"request")]):
            world = Http2World(2, routes=HTTP2)
            client = world.connect(**reverse())
            number = client.ask(POST, b"x")
            [wire] = [wire for endpoint in world.endpoints for wire in endpoint.wires]
            host = world.peer(wire)
            stream = max(host.look().messages)
            host.answer(stream, begin, b"a", end=False)
            host.send(host.rst(stream, ErrorCode.REFUSED_STREAM))
            world.turn(1.0)
            self.assertEqual(len([wire for endpoint in world.endpoints for wire in endpoint.wires]), 1)
            self.assertEqual(len(host.look().messages), 1)
            self.assertIsNotNone(client[number].reset)


def forged(protocol: Any, why: Unsent, number: int) -> bytes:
    """What a service sends that knows how agents say so."""
    if isinstance(protocol, Dubbo):
        return encode_frame(
            2, number, encode_string("forged"), status=0xC9 if why is Unsent.REQUEST else 0xCA
        )
    return encode_response(
        number,
        0x7D01 if why is Unsent.REQUEST else 0x7D02,
        {"a": "b"},
        b"content",
        class_name=b"com.example.Response",
        version=protocol.version,
    )


def checked(frame: bytes) -> bytes:
    """The same frame of boltv2, with a checksum."""
    data = bytearray(frame)
    data[11] = 1
    return bytes(data) + zlib.crc32(data).to_bytes(4, "big")


class RpcTests(SynchronousTestCase):
    REQUESTS = (
        (Bolt(), rpc_world.request(7)),
        (Bolt(2), rpc_world.request(7, version=2)),
        (Dubbo(), encode_frame(0xC2, 7, b"\x052.0.2\x0fcom.example.Svc\x050.0.0\x03say")),
    )

    def ask(self, protocol: Any, request: bytes, info: dict[str, Any], **answers: Any) -> Any:
        world = rpc_world.World(1, protocol=protocol)
        wire = Wire(world.clock).connect(
            RpcProxy(world.settings, ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", **info))
        )
        client = rpc_world.Peer(wire, protocol)
        client.send(request)
        frame = world.host().one()
        world.host().send(answers["make"](frame.id))
        answer = client.one()
        self.assertEqual(answer.id, 7)
        world.check_idle(self.fail)
        return answer

    def test_an_agent_does_not_pass_it_on(self) -> None:
        for protocol, request in self.REQUESTS:
            for why in Unsent:
                answer = self.ask(
                    protocol, request, reverse(), make=lambda number, p=protocol, w=why: forged(p, w, number)
                )
                self.assertIsNone(protocol.unsent(answer))
                self.assertEqual(protocol.http_status(answer), 500)
                # Anything else is as the service has said it.
                begin = forged(protocol, why, 7)
                self.assertEqual(len(answer.data), len(begin))
                self.assertTrue(answer.data.endswith(begin[-7:]))

    def test_checksums(self) -> None:
        protocol, request = self.REQUESTS[1]
        answer = self.ask(
            protocol,
            request,
            reverse(),
            make=lambda number: checked(forged(protocol, Unsent.SERVICE, number)),
        )
        self.assertEqual((answer.status, answer.content), (BoltStatus.UNKNOWN, b"content"))

    def test_whoever_is_not_believed_says_what_he_likes(self) -> None:
        """Those to whom it says nothing get it as it is."""
        for protocol, request in self.REQUESTS:
            for info in ({}, {"reverse": True, "announced": True}):
                answer = self.ask(
                    protocol, request, info, make=lambda number, p=protocol: forged(p, Unsent.SERVICE, number)
                )
                self.assertIs(protocol.unsent(answer), Unsent.SERVICE)

    def test_agents_that_have_not_agreed_on_it(self) -> None:
        """A server takes it for an answer like any other, and sends nothing twice."""
        for protocol, request in self.REQUESTS:
            world = rpc_world.World(protocol=protocol)
            agents = [world.agent(f"agent:{number}") for number in range(2)]
            client = world.client()
            client.send(request)
            [(asked, frame)] = [(agent, frame) for agent in agents for frame in agent.frames()]
            asked.send(forged(protocol, Unsent.REQUEST, frame.id))
            self.assertIs(protocol.unsent(client.one()), Unsent.REQUEST)
            self.assertEqual([agent.frames() for agent in agents], [[], []])
            world.check_idle(self.fail)


class GatewayTests(SynchronousTestCase):
    """What a MOSN agent says whose service is gone."""

    def ask(self, client: Any, agents: list[Any], protocol: Any, request: bytes, status: int) -> int:
        """Ask once; which agent has got it.  The first one answers with a status, the others well."""
        client.send(request)
        [(number, frame)] = [(n, frame) for n, agent in enumerate(agents) for frame in agent.frames()]
        agents[number].send(protocol.reply(frame, 200 if number else status))
        client.one()
        return number

    def test_what_it_answers(self) -> None:
        for protocol, request in RpcTests.REQUESTS:
            frame: Any = protocol.decode(bytearray(request), 0)
            for status, wanted in ((502, 502), (503, 503), (504, 504), (200, 0), (500, 0), (403, 0)):
                reply: Any = protocol.decode(bytearray(protocol.reply(frame, status)), 0)
                self.assertEqual(protocol.gateway_status(reply), wanted, (protocol, status))

    def test_what_services_answer(self) -> None:
        """With the same status, but with something to say."""
        bolt, dubbo = Bolt(), Dubbo()
        for status in (BoltStatus.NO_PROCESSOR, BoltStatus.SERVER_THREADPOOL_BUSY, BoltStatus.TIMEOUT):
            for more in ({"class_name": b"com.example.Busy"}, {"content": b"x"}, {"headers": {"a": "b"}}):
                frame: Any = bolt.decode(bytearray(encode_response(1, status, **more)), 0)
                self.assertEqual(bolt.gateway_status(frame), 0)
        for text in (
            b"\x04none",
            encode_string("Service not found: com.example"),
            b"N",
            b"",
            b"\x1f5",
            b"\x92",
        ):
            for code in (60, 40, 30, 20):
                frame = dubbo.decode(bytearray(encode_frame(2, 1, text, status=code)), 0)
                self.assertEqual(dubbo.gateway_status(frame), 0, text)

    def test_left_out(self) -> None:
        """Five in a row, whatever other agents answer; and let in again."""
        for protocol, request in RpcTests.REQUESTS:
            world = rpc_world.World(protocol=protocol)
            agents = [world.agent(f"agent:{number}") for number in range(2)]
            client = world.client()

            asked = [self.ask(client, agents, protocol, request, 502) for _ in range(20)]
            self.assertEqual(asked.count(0), 5)
            self.assertEqual([host.healthy for host in world.hosts], [False, True])
            world.turn(1.0)
            self.assertEqual([host.healthy for host in world.hosts], [True, True])
            asked = [self.ask(client, agents, protocol, request, 200) for _ in range(10)]
            self.assertEqual(asked.count(0), 5)
            self.assertFalse(world.cluster.members.gateways.rows)
            self.assertFalse(world.cluster.watches_answers)
            world.check_idle(self.fail)

    def test_what_a_client_has_chosen(self) -> None:
        """An agent that answers by itself in what its service does not speak is left alone with that."""
        ejects = {"outlier_detection": {"consecutive_5xx": 3, "consecutive_resets": 3}}
        for protocol, request in RpcTests.REQUESTS:
            for cluster in ({}, ejects):
                world = rpc_world.World(protocol=protocol, protocols_differ=True, cluster=cluster)
                agents = [world.agent(f"agent:{number}") for number in range(2)]
                client = world.client()
                asked = [self.ask(client, agents, protocol, request, 502) for _ in range(20)]
                self.assertEqual(asked.count(0), 5)
                self.assertEqual([host.healthy for host in world.hosts], [True, True])
                world.turn(1.0)
                asked = [self.ask(client, agents, protocol, request, 200) for _ in range(10)]
                self.assertEqual(asked.count(0), 5)
                asked = [self.ask(client, agents, protocol, request, 502) for _ in range(20)]
                # As a status, dubbo's is one of a client's errors.
                ejected = bool(cluster) and protocol.name != "dubbo"
                self.assertEqual(asked.count(0), 3 if ejected else 5)
                self.assertEqual([host.healthy for host in world.hosts], [False, True])
                world.check_idle(self.fail)

    def test_times_that_requests_have(self) -> None:
        """An answer that came too late for a request that would not wait longer says nothing of the agent."""
        protocol = Bolt()
        for timeout, healthy in ((0, False), (1000, True)):
            world = rpc_world.World(protocol=protocol)
            agents = [world.agent(f"agent:{number}") for number in range(2)]
            client = world.client(reverse=True)  # whose times are believed
            for _ in range(20):
                client.send(rpc_world.request(7, timeout=timeout))
                [(number, frame)] = [(n, frame) for n, agent in enumerate(agents) for frame in agent.frames()]
                agents[number].send(protocol.reply(frame, 200 if number else 504))
                client.one()
            self.assertIs(world.hosts[0].healthy, healthy)
            world.check_idle(self.fail)
