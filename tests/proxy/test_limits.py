"""The effect of a cluster's limits and of its hosts' failures on connections to them."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectError
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.proxy.http.http2_pool import POOL as HTTP2
from reverseproxy.proxy.pools import pool_of
from tests.proxy.memory import Wire, World
from tests.proxy.test_tcp import World as TcpWorld
from tests.wire.http1_cases import respond

REQUEST = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
OK = respond(b"Content-Length: 2", body=b"ok")


class Http1Case(SynchronousTestCase):
    def make(self, hosts: int = 1, **cluster: Any) -> None:
        self.world = World(hosts, cluster=cluster)

    def ask(self) -> Wire:
        """Send a request of a new client."""
        client = self.world.client()
        client.send(REQUEST)
        self.world.turn()
        return client

    def answer(self, wire: Wire, answer: bytes = OK) -> None:
        wire.send(answer)
        self.world.turn()


class ConnectionLimitTests(Http1Case):
    def test_counted(self) -> None:
        """Connections are counted from the dial on, until they are lost or closing."""
        self.make()
        (host,) = self.world.hosts
        self.world.endpoint.answer = "wait"
        self.ask()
        self.ask()
        self.assertEqual(host.connections, 2)
        first, second = self.world.endpoint.dials
        second.fail(ConnectError())
        self.assertEqual(host.connections, 1)
        first.succeed()
        self.assertEqual(host.connections, 1)
        self.answer(self.world.host(), respond(b"Content-Length: 0", b"Connection: close"))
        self.assertEqual(host.connections, 0)
        self.world.endpoint.answer = "connect"
        self.ask()
        self.answer(self.world.host())
        self.assertEqual(host.connections, 1)
        self.world.host().reset()
        self.assertEqual(host.connections, 0)

    def test_dropped(self) -> None:
        """They are not counted any more when the host is closed, or the client is gone."""
        self.make()
        (host,) = self.world.hosts
        client = self.ask()
        client.reset()
        self.assertEqual(host.connections, 0)
        self.ask()
        self.assertEqual(host.connections, 1)
        host.close("test")
        self.assertEqual(host.connections, 0)
        self.world.turn(60)
        self.assertEqual(host.connections, 0)

    def test_requests_wait(self) -> None:
        """A request that would need one connection too many waits for another one's."""
        self.make(circuit_breakers=[{"max_connections": 1}])
        one, two = self.ask(), self.ask()
        self.assertEqual((len(self.world.endpoint.wires), self.world.cluster.waiting), (1, 1))
        self.answer(self.world.host())
        self.assertIn(b"ok", one.written)
        self.assertEqual(self.world.cluster.waiting, 0)
        self.answer(self.world.host())
        self.assertIn(b"ok", two.written)
        self.assertEqual(len(self.world.endpoint.wires), 1)
        self.world.check_idle(self.fail)

    def test_other_hosts(self) -> None:
        """Or it goes to another host."""
        self.make(2, circuit_breakers=[{"max_connections": 1}])
        for _ in range(3):
            self.ask()
        self.assertEqual([len(endpoint.wires) for endpoint in self.world.endpoints], [1, 1])
        self.assertEqual(self.world.cluster.waiting, 1)

    def test_stale_connection(self) -> None:
        """A connection that was closed meanwhile makes room for a new one."""
        self.make(circuit_breakers=[{"max_connections": 2}])
        clients = [self.ask(), self.ask()]
        for number in (0, 1):
            self.answer(self.world.host(number))
        self.assertEqual(self.world.pool.idle, 2)
        clients[0].send(REQUEST)
        self.world.turn()
        # The host closes the one that the request is on; another idle one must not be tried either.
        self.world.host(1).reset()
        self.world.turn(1.0)
        self.assertEqual(len(self.world.endpoint.wires), 3)
        self.assertLessEqual(self.world.hosts[0].connections, 2)
        self.answer(self.world.host(2))
        self.assertEqual(clients[0].written.count(b"ok"), 2)

    def test_room_is_made(self) -> None:
        """An idle connection is closed if a new one is wanted and there are as many as there may be."""
        self.make(circuit_breakers=[{"max_connections": 1}])
        self.ask()
        self.answer(self.world.host())
        self.assertEqual(self.world.pool.idle, 1)
        self.world.pool.connect()
        self.world.turn()
        self.assertEqual((self.world.pool.idle, self.world.hosts[0].connections), (0, 1))

    def test_agents(self) -> None:
        """A reverse connection carries one request, whatever the limit."""
        self.make(0, circuit_breakers=[{"max_connections": 5}])
        agent = self.world.agent()
        self.ask()
        self.ask()
        self.assertEqual(self.world.cluster.waiting, 1)
        self.assertEqual((self.world.hosts[0].connections, self.world.hosts[0].capacity), (1, 1))
        self.answer(agent)
        self.assertEqual(self.world.hosts[0].connections, 1)

    def test_http2(self) -> None:
        """Connections of HTTP/2 are counted as well."""
        self.make()
        (host,) = self.world.hosts
        self.world.endpoint.answer = "wait"
        pool = pool_of(HTTP2, host, self.world.clock, None)
        failing = pool.connect()
        self.assertEqual(host.connections, 1)
        self.world.endpoint.dials[0].fail(ConnectError())
        self.failureResultOf(failing)
        self.assertEqual(host.connections, 0)
        made = pool.connect()
        self.world.endpoint.dials[1].succeed()
        self.successResultOf(made)
        self.assertEqual(host.connections, 1)
        self.world.host().reset()
        self.assertEqual(host.connections, 0)


class RequestsPerConnectionTests(Http1Case):
    def rounds(self, count: int) -> int:
        """
        Send requests one after the other.

        @return: how many connections that took.
        """
        client = self.world.client()
        for _ in range(count):
            client.send(REQUEST)
            self.world.turn()
            self.answer(self.world.host())
        self.assertEqual(client.written.count(b"ok"), count)
        return len(self.world.endpoint.wires)

    def test_limited(self) -> None:
        """A connection is closed after as many requests as the document says."""
        self.make(max_request_per_conn=3)
        self.assertEqual(self.rounds(7), 3)
        self.assertEqual(self.world.hosts[0].connections, 1)

    def test_not_by_default(self) -> None:
        self.make()
        self.assertEqual(self.rounds(2000), 1)

    def test_agents(self) -> None:
        """A reverse connection is not."""
        self.make(0, max_request_per_conn=1)
        agent = self.world.agent()
        client = self.world.client()
        for _ in range(3):
            client.send(REQUEST)
            self.world.turn()
            self.answer(agent)
        self.assertEqual(client.written.count(b"ok"), 3)
        self.assertFalse(agent.disconnecting)


class LeftOutTests(Http1Case):
    def test_unreachable(self) -> None:
        """A host that can't be reached is left out after five times, without losing a request."""
        self.make(2)
        self.world.endpoints[0].answer = ConnectError()
        for _ in range(20):
            client = self.ask()
            self.world.turn(0.1)
            self.answer(self.world.endpoints[1].wires[-1])
            self.assertIn(b"ok", client.written)
        self.assertEqual(len(self.world.endpoints[0].dials), 5)
        self.assertFalse(self.world.hosts[0].healthy)
        self.world.turn(30)
        self.assertTrue(self.world.hosts[0].healthy)

    def test_server_errors(self) -> None:
        """Answers count if the configuration says so."""
        self.make(2, outlier_detection={"consecutive_5xx": 2})
        bad = b"HTTP/1.1 503 X\r\nContent-Length: 0\r\n\r\n"
        for number in (0, 1, 0):
            self.ask()
            self.answer(self.world.endpoints[number].wires[-1], bad)
        self.assertEqual([host.healthy for host in self.world.hosts], [False, True])


class SpokenTests(Http1Case):
    def test_another_protocol(self) -> None:
        """A reverse connection on which a health check has spoken another protocol is left alone."""
        self.make(0)
        other, agent = self.world.agent("agent:1"), self.world.agent("agent:2")
        self.world.hosts[0].committed_protocol = "bolt"
        self.world.hosts[1].committed_protocol = "Http1"
        for _ in range(3):
            self.ask()
            self.answer(agent)
        self.assertEqual(bytes(other.written), b"")


class TcpTests(SynchronousTestCase):
    def test_sessions_are_bounded(self) -> None:
        """There are as many sessions as the whole cluster may have connections, as in MOSN."""
        world = TcpWorld(2, cluster={"circuit_breakers": [{"max_connections": 2}]})
        first, _, third = (world.client() for _ in range(3))
        self.assertEqual([host.connections for host in world.hosts], [1, 1])
        self.assertTrue(third.disconnecting or third.aborted)
        self.assertIn("as many connections as it may have", self.failure(world))
        first.reset()
        world.turn()
        self.assertEqual(sum(host.connections for host in world.hosts), 1)
        fourth = world.client()
        self.assertFalse(fourth.disconnecting or fourth.aborted)

    def failure(self, world: TcpWorld) -> str:
        world.turn()
        return world.records[-1].flag

    def test_left_out(self) -> None:
        """A host that can't be reached is left out."""
        world = TcpWorld(2)
        world.endpoints[0].answer = ConnectError()
        for _ in range(20):
            world.client()
        self.assertEqual(len(world.endpoints[0].dials), 5)
        self.assertEqual([host.healthy for host in world.hosts], [False, True])
        self.assertEqual([host.connections for host in world.hosts], [0, 20])

    def test_client_gone(self) -> None:
        """A client that goes away while a host is dialled says nothing about the host."""
        world = TcpWorld(2)
        for endpoint in world.endpoints:
            endpoint.answer = "wait"
        for _ in range(20):
            world.client().reset()
            world.turn()
        self.assertEqual([host.health.failures for host in world.hosts], [None, None])
        self.assertEqual([host.connections for host in world.hosts], [0, 0])

    def test_by_client(self) -> None:
        """Where requests go by a key, sessions go by the client's address."""
        world = TcpWorld(5, cluster={"lb_type": "LB_MAGLEV"})
        for _ in range(10):
            world.client()
        self.assertEqual(sorted(host.connections for host in world.hosts), [0, 0, 0, 0, 10])
