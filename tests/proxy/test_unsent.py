"""
Requests that an agent has not sent on: told by the agent, and heeded by the server.

Of L{reverseproxy.proxy.http.exchange}, L{rpc_exchange}, L{http1}, L{http2} and L{tcp}.
"""

from __future__ import annotations

from random import Random
from typing import Any

from twisted.internet.defer import fail
from twisted.internet.error import ConnectionRefusedError as Refused
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer

from reverseproxy.cluster.balancers.factory import make_balancer
from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import Fault, MuxHost, ReverseHost, StaticHost
from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ClusterConfig, HostConfig, TcpProxyConfig
from reverseproxy.errors import HostGone
from reverseproxy.interfaces import ConnectionInfo, IService
from reverseproxy.mux.session import MuxSession
from reverseproxy.proxy.http.host_choice import MOST_UNCOUNTED
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.proxy.tcp.failover import REPLAY_LIMIT
from reverseproxy.proxy.tcp.router import TcpRouter
from reverseproxy.proxy.tcp.sessions import TcpProxy
from reverseproxy.proxy.tcp.settings import TcpProxySettings
from reverseproxy.testing import Recorder, join
from reverseproxy.wire.http.unsent import Unsent
from reverseproxy.wire.rpc.bolt import Bolt
from reverseproxy.wire.rpc.dubbo import Dubbo, encode_frame
from reverseproxy.wire.yamux.events import MuxLimits
from tests.proxy import rpc_world, test_not_dialled
from tests.proxy.http2_memory import Http2World
from tests.proxy.memory import CountingCluster, Endpoint, Wire, World
from tests.proxy.test_http1 import Http1TestCase, status_of
from tests.proxy.test_http2 import HTTP1
from tests.proxy.test_http2_client import HTTP2
from tests.wire.http1_cases import GOOD, respond
from tests.wire.http2_frames import POST as POST2

BODY = b"x" * 1000
POST = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % len(BODY) + BODY
OK = respond(b"Content-Length: 2", body=b"ok")


def unsent(why: bytes = b"request", *more: bytes) -> bytes:
    return respond(
        b"X-ReverseProxy-Unsent: " + why, b"Content-Length: 2", *more, line=b"HTTP/1.1 502 No", body=b"no"
    )


@implementer(IService)
class Behind:
    def __init__(self, well: bool) -> None:
        self.well = well


class Telling(StaticHost):
    """One that can be dialled, and yet is an agent's that tells."""

    __slots__ = ()

    tells = True  # type: ignore[assignment]


def agents(world: Any, count: int | None = None) -> list[Any]:
    """Let hosts be those of agents that tell."""
    hosts = world.hosts if count is None else world.hosts[:count]
    for host in hosts:
        if isinstance(host, StaticHost):
            host.__class__ = Telling
        else:
            host.tells = True
    return list(hosts)


class ServerTests(Http1TestCase):
    """A server that is told."""

    def wires(self, world: World) -> list[Wire]:
        return [wire for endpoint in world.endpoints for wire in endpoint.wires]

    def other(self, world: World, *known: Wire) -> Wire:
        (wire,) = [wire for wire in self.wires(world) if wire not in known]
        return wire

    def test_a_post_goes_to_another_agent(self) -> None:
        world = World(hosts=2)
        agents(world)
        client = self.ask(world, POST)
        [first] = self.wires(world)
        first.send(unsent())
        second = self.other(world, first)
        self.assertIn(BODY, second.take())
        self.assertFalse(first.aborted)  # there is nothing wrong with the connection
        second.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertTrue(all(host.healthy for host in world.hosts))
        world.check_idle(self.fail)

    def test_a_service_that_is_gone_is_left_out(self) -> None:
        world = World(hosts=2)
        agents(world)
        client = self.ask(world, POST)
        [first] = self.wires(world)
        first.send(unsent(b"service"))
        self.other(world, first).send(OK)
        self.assertEqual(client.take(), OK)
        self.assertEqual([host.health.faults for host in world.hosts], [Fault.SERVICE, Fault(0)])
        world.turn(1.0)
        self.assertEqual([host.health.faults for host in world.hosts], [Fault(0), Fault(0)])
        world.check_idle(self.fail)

    def test_the_client_is_told_what_the_last_agent_says(self) -> None:
        world = World(hosts=2)
        agents(world)
        client = self.ask(world, POST)
        [first] = self.wires(world)
        first.send(unsent(b"service"))
        self.other(world, first).send(unsent(b"service"))
        answer = self.assert_status(client, 502, b"no")
        self.assertNotIn(b"unsent", answer.lower())
        self.assertTrue(all(host.healthy for host in world.hosts))  # as there is no better one
        world.check_idle(self.fail)

    def test_any_number_of_agents(self) -> None:
        count = MOST_UNCOUNTED
        world = World(hosts=count)
        agents(world)
        client = self.ask(world, POST)
        known: list[Wire] = []
        for _ in range(count - 1):
            wire = self.other(world, *known)
            known.append(wire)
            wire.send(unsent())
        self.other(world, *known).send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_there_is_an_end_to_it(self) -> None:
        world = World(hosts=2 * MOST_UNCOUNTED)
        agents(world)
        client = self.ask(world, POST)
        known: list[Wire] = []
        while not (answer := client.take()):
            wire = self.other(world, *known)
            known.append(wire)
            wire.send(unsent())
        self.assertEqual(status_of(answer), 502)
        self.assertEqual(len(known), MOST_UNCOUNTED + 4)
        world.check_idle(self.fail)

    def test_others_are_not_believed(self) -> None:
        """A host that is dialled, or of an agent that has not agreed on it; and it goes no further."""
        world = World(hosts=2)
        client = self.ask(world, POST)
        [first] = self.wires(world)
        first.send(unsent())
        self.assertEqual(self.wires(world), [first])
        answer = client.take()
        self.assertEqual(status_of(answer), 502)
        self.assertNotIn(b"unsent", answer.lower())
        world.check_idle(self.fail)

    def test_nor_is_what_makes_no_sense(self) -> None:
        for answer in (
            unsent(b"perhaps"),
            respond(b"X-ReverseProxy-Unsent: request", b"Content-Length: 2", body=b"ok"),
        ):
            world = World(hosts=2)
            agents(world)
            client = self.ask(world, POST)
            [first] = self.wires(world)
            first.send(answer)
            self.assertEqual(self.wires(world), [first])
            self.assertIn(status_of(client.take()), (200, 502))
            world.check_idle(self.fail)

    def test_what_is_too_much_to_be_kept(self) -> None:
        world = World(hosts=2)
        agents(world)
        size = 100_000
        client = self.ask(world, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % size)
        client.send(b"x" * size)
        [first] = self.wires(world)
        first.send(unsent())
        self.assertEqual(self.wires(world), [first])
        self.assert_status(client, 502, b"no")
        world.check_idle(self.fail)

    def test_in_the_middle_of_a_body(self) -> None:
        world = World(hosts=2)
        agents(world)
        client = self.ask(world, POST[:-10])
        [first] = self.wires(world)
        first.send(unsent(b"request", b"Connection: close"))
        client.send(POST[-10:])
        second = self.other(world, first)
        self.assertTrue(second.take().endswith(BODY))
        second.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_all_connections_of_an_agent(self) -> None:
        world = World(hosts=4)
        hosts = agents(world)
        kin = property(lambda host: hosts[:3] if host in hosts[:3] else ())
        self.patch(Telling, "same_agent", kin)
        client = self.ask(world, POST)
        [first] = self.wires(world)
        first.send(unsent(b"service"))
        self.assertEqual([host.healthy for host in hosts], [False, False, False, True])
        self.other(world, first).send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_plain_connections_stay(self) -> None:
        world = World(hosts=0)
        first, second = world.agent("agent:1"), world.agent("agent:2")
        agents(world)
        client = self.ask(world, POST)
        asked, other = (first, second) if first.written else (second, first)
        asked.take()
        asked.send(unsent())
        self.assertIn(BODY, other.take())
        other.send(OK)
        self.assertEqual(client.take(), OK)
        self.assertFalse(first.aborted or second.aborted)
        world.check_idle(self.fail)

    def test_others_are_about_to_come_back(self) -> None:
        """Such as those that were used up by an upgrade; but not for long."""
        for comes in (True, False):
            world = World(hosts=0)
            first, second = world.agent("agent:1"), world.agent("agent:2")
            agents(world)
            second.reset()
            client = self.ask(world, POST)
            first.send(unsent())
            world.turn(0.5)
            self.assertEqual((world.cluster.waiting, client.take()), (1, b""))
            if comes:
                third = world.agent("agent:3")
                self.assertIn(BODY, third.take())
                third.send(OK)
                self.assertEqual(client.take(), OK)
            else:
                world.turn(0.6)
                self.assertEqual(status_of(client.take()), 503)
            world.check_idle(self.fail)


class RedialTests(Http1TestCase):
    """Agents whose connections are gone, all at once."""

    def test_as_many_as_there_are(self) -> None:
        """A request does not use its retries up for them, and waits for the first one that is back."""
        connect = ReverseHost.connect

        def gone(host: ReverseHost, factory: Any) -> Any:
            host.close("it is gone")
            return fail(HostGone("it is gone"))

        for count in (1, 5, MOST_UNCOUNTED):
            world = World(hosts=0)
            for number in range(count):
                world.agent(f"agent:{number}")
            self.patch(ReverseHost, "connect", gone)
            client = self.ask(world, POST)
            self.assertEqual((client.take(), len(world.cluster.hosts), world.cluster.waiting), (b"", 0, 1))
            self.patch(ReverseHost, "connect", connect)
            back = world.agent("agent:back")
            self.assertIn(BODY, back.take())
            back.send(OK)
            self.assertEqual(client.take(), OK)
            world.check_idle(self.fail)


class Agent1Tests(Http1TestCase):
    """An agent that tells, in HTTP/1."""

    def told(self, world: World, request: bytes = POST, well: bool = True, **more: Any) -> bytes:
        client = world.client(reverse=True, announced=True, service=Behind(well), **more)
        return self.ask(world, request, client).take()

    def refusing(self, hosts: int = 1) -> World:
        world = World(hosts=hosts)
        for endpoint in world.endpoints:
            endpoint.answer = Refused()
        return world

    def test_the_service_refuses(self) -> None:
        for well, why in ((True, b"request"), (False, b"service")):
            answer = self.told(self.refusing(), well=well)
            self.assertEqual(status_of(answer), 502)
            self.assertIn(b"\r\nx-reverseproxy-unsent: " + why + b"\r\n", answer)

    def test_no_host(self) -> None:
        self.assertIn(b"unsent: request", self.told(World(hosts=0)))

    def test_nobody_else_is_told(self) -> None:
        world = self.refusing()
        for client in (world.client(), world.client(reverse=True, announced=True)):
            answer = self.ask(world, POST, client).take()
            self.assertEqual(status_of(answer), 502)
            self.assertNotIn(b"unsent", answer)

    def test_what_was_sent_is_not_said_to_be_unsent(self) -> None:
        """Lost on its way, then refused: somebody may have acted on it."""
        world = World(
            hosts=2,
            routes=[
                {"match": {"prefix": "/"}, "route": {"cluster_name": "c", "retry_policy": {"retry_on": True}}}
            ],
        )
        client = world.client(reverse=True, announced=True, service=Behind(True))
        self.ask(world, GOOD, client)
        for endpoint in world.endpoints:
            endpoint.answer = Refused()
        [wire] = [wire for endpoint in world.endpoints for wire in endpoint.wires]
        wire.reset()
        world.run(1.0, 0.1)
        answer = client.take()
        self.assertEqual(status_of(answer), 502)
        self.assertNotIn(b"unsent", answer)

    def test_nor_what_is_lost(self) -> None:
        world = World()
        client = world.client(reverse=True, announced=True, service=Behind(True))
        self.ask(world, POST, client)
        world.host().reset()
        answer = client.take()
        self.assertEqual(status_of(answer), 502)
        self.assertNotIn(b"unsent", answer)

    def test_nor_errors_of_the_client_s(self) -> None:
        world = World(options={"max_request_body_size": 10})
        answer = self.told(world)
        self.assertEqual(status_of(answer), 413)
        self.assertNotIn(b"unsent", answer)


class Agent2Tests(SynchronousTestCase):
    """The same in HTTP/2, and gRPC, up to a client of the server's."""

    def ask(self, grpc: bool, service: Behind | None) -> Any:
        world = Http2World(routes=HTTP1)
        world.endpoint.answer = Refused()
        client = world.connect(reverse=True, announced=True, service=service)
        more = [(b"te", b"trailers"), (b"content-type", b"application/grpc")] if grpc else []
        return client[client.ask([*POST2, *more], b"x")]

    def test_told(self) -> None:
        for grpc in (False, True):
            answer = self.ask(grpc, Behind(False))
            self.assertEqual((answer.status, answer.header(b"x-reverseproxy-unsent")), (502, b"service"))

    def test_nobody_else_is(self) -> None:
        for grpc in (False, True):
            answer = self.ask(grpc, None)
            self.assertEqual(answer.status, 200 if grpc else 502)
            self.assertIsNone(answer.header(b"x-reverseproxy-unsent"))


class RpcTests(SynchronousTestCase):
    """bolt, boltv2 and dubbo."""

    def requests(self) -> list[tuple[Any, bytes]]:
        return [
            (Bolt(), rpc_world.request(7)),
            (Bolt(2), rpc_world.request(7, version=2)),
            (Dubbo(), encode_frame(0xC2, 7, b"\x052.0.2\x0fcom.example.Svc\x050.0.0\x03say")),
        ]

    def test_agent(self) -> None:
        for protocol, request in self.requests():
            for well, why in ((True, Unsent.REQUEST), (False, Unsent.SERVICE)):
                world = rpc_world.World(1, protocol=protocol)
                world.endpoint.answer = Refused()
                info = ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", reverse=True, service=Behind(well))
                wire = Wire(world.clock).connect(RpcProxy(world.settings, info))
                client = rpc_world.Peer(wire, protocol)
                client.send(request)
                frame = client.one()
                self.assertEqual((frame.id, protocol.unsent(frame)), (7, why))
                # Not to anybody else.
                other = world.client()
                other.send(request)
                self.assertIsNone(protocol.unsent(other.one()))

    def test_server(self) -> None:
        for protocol, request in self.requests():
            world = rpc_world.World(2, protocol=protocol)
            agents(world)
            client = world.client()
            client.send(request)
            [first] = [wire for endpoint in world.endpoints for wire in endpoint.wires]
            frame = rpc_world.Peer(first, protocol).one()
            first.send(protocol.reply_unsent(frame, Unsent.SERVICE))
            [second] = [w for endpoint in world.endpoints for w in endpoint.wires if w is not first]
            frame = rpc_world.Peer(second, protocol).one()
            second.send(protocol.reply(frame, 200))
            answer = client.one()
            self.assertEqual((answer.id, protocol.http_status(answer)), (7, 200))
            self.assertEqual([host.healthy for host in world.hosts], [False, True])
            world.turn(1.0)
            world.check_idle(self.fail)

    def test_nobody_else_has_it(self) -> None:
        for protocol, request in self.requests():
            world = rpc_world.World(1, protocol=protocol)
            agents(world)
            client = world.client()
            client.send(request)
            frame = world.host().one()
            world.host().send(protocol.reply_unsent(frame, Unsent.SERVICE))
            answer = client.one()
            self.assertIsNone(protocol.unsent(answer))
            self.assertNotEqual(protocol.http_status(answer), 200)
            world.check_idle(self.fail)


class SessionTests(SynchronousTestCase):
    """tcp_proxy over streams: both ends, with services that refuse or not."""

    def setUp(self) -> None:
        self.clock = Clock()
        config = ClusterConfig.model_validate({"name": "c", "lb_type": "LB_REQUEST_ROUNDROBIN"})
        self.cluster = CountingCluster(config, make_balancer(config, Random(1), self.clock), self.clock)
        self.services: list[Endpoint] = []
        self.sessions: list[MuxSession] = []

    def settings(self, cluster: CountingCluster) -> TcpProxySettings:
        return TcpProxySettings(
            listener="l",
            router=TcpRouter(TcpProxyConfig(cluster="c")),
            clusters=ClusterManager([cluster]),
            clock=self.clock,
        )

    def agent(self, answer: Any, tells: bool = True) -> Endpoint:
        service = Endpoint(self.clock)
        service.answer = answer
        config = ClusterConfig(name="c")
        cluster = CountingCluster(config, make_balancer(config, Random(1)), self.clock)
        cluster.add_host(StaticHost(HostConfig(address="10.1.0.1:80"), service, self.clock))  # type: ignore[arg-type]
        info = ConnectionInfo("1.1.1.1:1", "1.1.1.1:2", reverse=True, service=Behind(True) if tells else None)
        settings = self.settings(cluster)
        limits = MuxLimits(tells=tells)
        near = MuxSession(True, self.clock, limits)
        far = MuxSession(False, self.clock, limits, lambda: TcpProxy(settings, info))
        number = len(self.services)
        host = MuxHost(f"agent:{number}", "", 1, None, near, self.cluster.remove_host)
        host.tells = tells
        join(self.clock, near, far)
        self.turn()
        self.cluster.add_host(host)
        self.services.append(service)
        return service

    def turn(self) -> None:
        for _ in range(30):
            self.clock.advance(0)

    def client(self, data: bytes = b"") -> Recorder:
        client = Recorder()
        join(
            self.clock,
            client,
            TcpProxy(self.settings(self.cluster), ConnectionInfo("9.9.9.9:1", "1.1.1.1:80")),
        )
        if data:
            client.transport.write(data)
        self.turn()
        return client

    def received(self, service: Endpoint) -> bytes:
        return b"".join(wire.take() for wire in service.wires)

    def check(self) -> None:
        self.assertEqual(self.cluster.taken, self.cluster.given_back)

    def test_another_agent(self) -> None:
        self.agent(Refused())
        good = self.agent("connect")
        for data in (b"", b"hello"):
            client = self.client(data)
            self.assertIsNone(client.reason)
            client.transport.write(b" world")
            self.turn()
            self.assertEqual(self.received(good), data + b" world")
            good.wires[-1].send(b"answer")
            self.turn()
            self.assertEqual(client.data, b"answer")
            client.transport.loseConnection()
            good.wires[-1].end()
            self.turn()
        self.check()

    def test_whatever_is_in_the_way(self) -> None:
        for way in test_not_dialled.FAILURES.values():
            self.agent(way)
        good = self.agent("connect")
        for _ in range(20):
            client = self.client(b"hello")
            self.assertIsNone(client.reason)
            self.assertEqual(self.received(good), b"hello")
            client.transport.abortConnection()
            self.turn()
        self.assertTrue(all(service.dials for service in self.services))

    def test_while_the_client_sends(self) -> None:
        """What comes while an agent still dials is not lost, nor doubled."""
        slow = self.agent("wait")
        good = self.agent("connect")
        client = self.client(b"one")
        client.transport.write(b"two")
        self.turn()
        slow.dials[0].fail(Refused())
        self.turn()
        client.transport.write(b"three")
        self.turn()
        self.assertEqual(self.received(good), b"onetwothree")

    def test_a_client_that_has_sent_its_end(self) -> None:
        slow = self.agent("wait")
        good = self.agent("connect")
        client = self.client(b"one")
        client.transport.loseWriteConnection()
        self.turn()
        slow.dials[0].fail(Refused())
        self.turn()
        self.assertEqual(self.received(good), b"one")
        self.assertIsNone(client.reason)
        good.wires[0].send(b"answer")
        good.wires[0].end()
        self.turn()
        self.assertEqual(client.data, b"answer")
        self.assertIsNotNone(client.reason)
        self.check()

    def test_too_much(self) -> None:
        slow = self.agent("wait")
        good = self.agent("connect")
        client = self.client(b"x" * (REPLAY_LIMIT + 1))
        slow.dials[0].fail(Refused())
        self.turn()
        self.assertIsNotNone(client.reason)
        self.assertEqual(good.wires, [])
        self.check()

    def test_nobody_can(self) -> None:
        for _ in range(3):
            self.agent(Refused())
        client = self.client(b"hello")
        self.assertIsNotNone(client.reason)
        self.assertEqual([len(service.dials) for service in self.services], [1, 1, 1])
        self.check()

    def test_the_service_has_had_it(self) -> None:
        """One that takes the connection, and then breaks it off, has perhaps acted on what came."""
        bad = self.agent("connect")
        good = self.agent("connect")
        client = self.client(b"hello")
        bad.wires[0].reset()
        self.turn()
        self.assertIsNotNone(client.reason)
        self.assertEqual(good.wires, [])
        self.check()

    def test_agents_that_do_not_tell(self) -> None:
        self.agent(Refused(), tells=False)
        good = self.agent("connect")
        client = self.client(b"hello")
        self.assertIsNotNone(client.reason)
        self.assertEqual(good.wires, [])
        self.check()


class PlainSessionTests(SynchronousTestCase):
    """tcp_proxy over connections of their own, each of which is good for one session."""

    def setUp(self) -> None:
        self.clock = Clock()
        config = ClusterConfig.model_validate({"name": "c", "lb_type": "LB_REQUEST_ROUNDROBIN"})
        self.cluster = CountingCluster(config, make_balancer(config, Random(1), self.clock), self.clock)
        self.seen: list[TcpProxy] = []

    def settings(self, cluster: CountingCluster) -> TcpProxySettings:
        return TcpProxySettings(
            listener="l",
            router=TcpRouter(TcpProxyConfig(cluster="c")),
            clusters=ClusterManager([cluster]),
            clock=self.clock,
        )

    def agent(self, answer: Any = "connect", marks: bool = True) -> Endpoint:
        """Let an agent bring a host; what its service does when it is dialled."""
        service = Endpoint(self.clock)
        service.answer = answer
        config = ClusterConfig(name="c")
        cluster = CountingCluster(config, make_balancer(config, Random(1)), self.clock)
        cluster.add_host(StaticHost(HostConfig(address="10.1.0.1:80"), service, self.clock))  # type: ignore[arg-type]
        info = ConnectionInfo(
            "1.1.1.1:1", "1.1.1.1:2", reverse=True, service=Behind(True) if marks else None, marked=marks
        )
        owner = Handover()
        far = TcpProxy(self.settings(cluster), info)
        self.seen.append(far)
        join(self.clock, owner, far)
        host = ReverseHost(
            f"agent:{len(self.seen)}",
            "",
            1,
            None,
            owner.transport,
            self.cluster.remove_host,
            clock=self.clock,
        )
        host.tells = marks
        if marks:
            host.expect_mark()
        host.attach(owner)
        self.turn()
        self.cluster.add_host(host)
        return service

    turn = SessionTests.turn
    client = SessionTests.client
    received = SessionTests.received
    check = SessionTests.check

    def goes_on(self, client: Recorder, good: Endpoint, sent: bytes) -> None:
        """A session has found a service, and works in both directions."""
        self.assertIsNone(client.reason)
        client.transport.write(b" world")
        self.turn()
        self.assertEqual(self.received(good), sent + b" world")
        good.wires[-1].send(b"\x01answer")
        good.wires[-1].send(b"\x00more")
        self.turn()
        self.assertEqual(client.data, b"\x01answer\x00more")
        good.wires[-1].end()
        client.transport.loseConnection()
        self.turn()
        self.check()

    def test_a_session(self) -> None:
        """The mark is seen by nobody, whatever the service sends, and whoever begins."""
        service = self.agent()
        self.goes_on(self.client(b"hello"), service, b"hello")
        service = self.agent()
        service.wires[0].send(b"\x01banner")
        self.turn()
        client = self.client()
        self.assertEqual(client.data, b"\x01banner")
        client.transport.write(b"hello")
        service.wires[0].send(b"!")
        self.turn()
        self.assertEqual((client.data, self.received(service)), (b"\x01banner!", b"hello"))

    def test_the_service_ends_it_in_the_same_moment(self) -> None:
        """Whichever comes first at the agent, as long as the service has had nothing."""
        for end in ("end", "reset"):
            for data in (b"", b"hello"):
                bad = self.agent()
                client = self.client()
                good = self.agent()
                getattr(bad.wires[0], end)()  # has not been heard of by the server
                if data:
                    client.transport.write(data)
                self.turn()
                self.assertEqual(self.received(bad), b"")
                self.goes_on(client, good, data)

    def test_the_service_can_not_be_dialled(self) -> None:
        slow = self.agent("wait")
        client = self.client(b"hello")
        good = self.agent()
        slow.dials[0].fail(Refused())
        self.turn()
        self.goes_on(client, good, b"hello")

    def test_whatever_is_in_the_way(self) -> None:
        for way in test_not_dialled.FAILURES.values():
            slow = self.agent("wait")
            client = self.client(b"hello")
            good = self.agent()
            slow.dials[0].fail(way)
            self.turn()
            self.goes_on(client, good, b"hello")

    def test_the_service_has_had_it(self) -> None:
        for end in ("end", "reset"):
            bad = self.agent()
            client = self.client(b"hello")
            good = self.agent()
            self.assertEqual(self.received(bad), b"hello")
            getattr(bad.wires[0], end)()
            self.turn()
            self.assertIsNotNone(client.reason)
            self.assertEqual(self.received(good), b"")
            good.wires[0].reset()
            self.turn()

    def test_the_client_has_had_something(self) -> None:
        bad = self.agent()
        client = self.client()
        good = self.agent()
        bad.wires[0].send(b"banner")
        self.turn()
        bad.wires[0].reset()
        self.turn()
        self.assertEqual(client.data, b"banner")
        self.assertIsNotNone(client.reason)
        self.assertEqual(self.received(good), b"")

    def test_at_rest(self) -> None:
        """One whose service has gone is no host any more, at once."""
        for end in ("end", "reset"):
            service = self.agent()
            self.assertEqual(len(self.cluster.hosts), 1)
            getattr(service.wires[0], end)()
            self.turn()
            self.assertEqual(len(self.cluster.hosts), 0)

    def test_nobody_else(self) -> None:
        """The last one says so, too: it is waited for as one that was lost, and then the client is told."""
        service = self.agent()
        client = self.client(b"")
        service.wires[0].reset()
        self.turn()
        self.assertEqual((self.cluster.waiting, client.reason), (1, None))
        self.clock.advance(self.cluster.config.connect_timeout + 1)
        self.turn()
        self.assertIsNotNone(client.reason)
        self.check()

    def test_others_are_used_up(self) -> None:
        """Agents that have lent all their connections dial others: there is something to wait for."""
        used = self.agent()
        first = self.client(b"one")
        self.assertEqual(self.received(used), b"one")
        used.wires[0].reset()  # the session is over, and the connection with it
        bad = self.agent()
        client = self.client()
        bad.wires[0].reset()
        client.transport.write(b"hello")
        self.turn()
        self.assertEqual((self.cluster.waiting, client.reason), (1, None))
        self.goes_on(client, self.agent(), b"hello")
        self.assertIsNotNone(first.reason)

    def test_too_much(self) -> None:
        slow = self.agent("wait")
        client = self.client(b"x" * (REPLAY_LIMIT + 1))
        good = self.agent()
        slow.dials[0].fail(Refused())
        self.turn()
        self.assertIsNotNone(client.reason)
        self.assertEqual(self.received(good), b"")

    def test_agents_that_do_not_mark(self) -> None:
        """What they send is passed on as it is, from the first byte on."""
        service = self.agent(marks=False)
        client = self.client(b"hello")
        service.wires[0].send(b"\x00\x01")
        self.turn()
        self.assertEqual(client.data, b"\x00\x01")
        bad = self.agent(marks=False)
        client = self.client()
        good = self.agent(marks=False)
        bad.wires[0].reset()
        self.turn()
        self.assertIsNotNone(client.reason)
        self.assertEqual(self.received(good), b"")

    def test_no_mark(self) -> None:
        """An agent that has agreed on one, and sends none, is cut off."""
        for data in (b"\x02", b"HTTP/1.1 200 OK"):
            self.agent()
            client = self.client(b"hello")
            self.seen[-1].transport.write(data)
            self.turn()
            self.assertEqual(client.data, b"")
            self.assertIsNotNone(client.reason)


class RelayingAgentTests(SynchronousTestCase):
    """Agents that relay bytes, for servers that know what these are."""

    def bring(self, world: Any, name: str) -> Wire:
        """Let an agent bring a connection that begins with a mark."""
        wire = Wire(world.clock)
        owner = Handover()
        wire.connect(owner)
        host = ReverseHost(name, "", 1, None, wire, world.cluster.remove_host, clock=world.clock)
        host.tells = True
        host.expect_mark()
        host.attach(owner)
        world.hosts.append(host)
        world.cluster.add_host(host)
        return wire

    def test_http1(self) -> None:
        world = World(hosts=0)
        wires = [self.bring(world, f"agent:{number}") for number in range(2)]
        client = world.client()
        client.send(POST)
        [first] = [wire for wire in wires if wire.written]
        first.send(b"\x01")
        world.turn()
        self.assertTrue(first.aborted)
        [second] = [wire for wire in wires if wire is not first]
        self.assertIn(BODY, second.take())
        second.send(b"\x00")
        second.send(OK)
        self.assertEqual(client.take(), OK)
        # The mark is for the connection, not for each request.
        client.send(POST)
        second.send(OK)
        self.assertEqual(client.take(), OK)
        world.check_idle(self.fail)

    def test_http2(self) -> None:
        world = Http2World(hosts=0, routes=HTTP2)
        wires = [self.bring(world, f"agent:{number}") for number in range(2)]
        client = world.connect()
        numbers = [client.ask(POST2, b"x") for _ in range(2)]
        for number in numbers:
            self.assertEqual(client.look().messages.get(number), None)
        [first] = [wire for wire in wires if wire.written][:1]
        first.send(b"\x01")
        world.turn()
        [second] = [wire for wire in wires if wire is not first]
        second.send(b"\x00")
        host = world.peer(second)
        for stream in sorted(host.look().messages):
            host.answer(stream)
        self.assertEqual([client[number].status for number in numbers], [200, 200])
        world.check_idle(self.fail)

    def test_rpc(self) -> None:
        for protocol, request in RpcTests().requests():
            world = rpc_world.World(protocol=protocol)
            wires = [self.bring(world, f"agent:{number}") for number in range(2)]
            client = world.client()
            client.send(request)
            [first] = [wire for wire in wires if wire.written]
            first.send(b"\x01")
            world.turn()
            [second] = [wire for wire in wires if wire is not first]
            frame = rpc_world.Peer(second, protocol).one()
            second.send(b"\x00" + protocol.reply(frame, 200))
            self.assertEqual(protocol.http_status(client.one()), 200)
            world.check_idle(self.fail)

    def test_nobody_else(self) -> None:
        for protocol, request in RpcTests().requests():
            world = rpc_world.World(protocol=protocol)
            wire = self.bring(world, "agent:1")
            client = world.client()
            client.send(request)
            wire.send(b"\x01")
            world.turn()
            world.turn(1.1)  # for one that may come back
            answer = client.one()
            self.assertNotEqual(protocol.http_status(answer), 200)
            self.assertIsNone(protocol.unsent(answer))
            world.check_idle(self.fail)
