from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionRefusedError
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.host import IHostPool
from reverseproxy.errors import HostGone
from reverseproxy.proxy.connection_pool import Keepalive
from reverseproxy.proxy.http.trust import Trust
from reverseproxy.proxy.pools import is_pooled
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.proxy.rpc.heartbeats import HEARTBEAT_FAILURES
from reverseproxy.proxy.rpc.pool import RpcPool
from reverseproxy.transport.closing import STALL
from reverseproxy.wire.rpc.bolt import Bolt, BoltStatus
from reverseproxy.wire.rpc.dubbo import Dubbo
from reverseproxy.wire.rpc.xprotocol import Kind
from tests.proxy.rpc_world import Peer, World, request, response
from tests.wire.frames import Tiny, tiny


class UpstreamTestCase(SynchronousTestCase):
    world: World

    def tearDown(self) -> None:
        self.world.check_idle(self.fail)

    def reverse(self, **more: Any) -> tuple[Peer, Peer]:
        """A client, and an agent over whose connection one request has gone."""
        self.world = World(**more)
        agent = self.world.agent()
        client = self.world.client()
        client.send(request(1))
        self.assertEqual(agent.echo(), [1])
        self.assertEqual(client.answers(), [(1, 0)])
        return client, agent

    def static(self, **more: Any) -> tuple[Peer, Peer]:
        """A client, and a connection to a static host."""
        self.world = World(1, **more)
        client = self.world.client()
        client.send(request(1))
        host = self.world.host()
        self.assertEqual(host.echo(), [1])
        self.assertEqual(client.answers(), [(1, 0)])
        return client, host


class InterfaceTests(UpstreamTestCase):
    def test_no_matter_to_http(self) -> None:
        self.static()
        self.assertFalse(is_pooled("bolt"))

    def test_interfaces(self) -> None:
        self.reverse()
        verifyObject(IHostPool, self.world.pool)
        verifyObject(IDetachable, self.world.upstream)


class ReverseTests(UpstreamTestCase):
    def test_one_connection_carries_many_requests(self) -> None:
        client, agent = self.reverse()
        client.send(*(request(number, content=str(number).encode()) for number in range(5000)))
        self.assertEqual(self.world.cluster.active, 5000)
        self.assertEqual(self.world.upstream.active, 5000)
        self.assertEqual(len(agent.echo()), 5000)
        self.assertEqual(client.answers(), [(number, 0) for number in range(5000)])
        self.assertEqual(self.world.upstream.active, 0)

    def test_the_first_requests_may_be_many(self) -> None:
        self.world = World()
        agent = self.world.agent()
        client = self.world.client()
        client.send(*(request(number) for number in range(2000)))
        self.assertEqual(len(agent.echo()), 2000)
        self.assertEqual(len(client.answers()), 2000)

    def test_requests_before_there_is_an_agent(self) -> None:
        client, agent = self.reverse()
        agent.wire.reset()
        client.send(request(5), request(6))
        self.assertEqual(client.frames(), [])
        agent = self.world.agent("agent:2")
        self.assertEqual(agent.echo(), [1, 2])
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])

    def test_the_agent_is_lost(self) -> None:
        client, agent = self.reverse()
        client.send(request(5), request(6))
        agent.wire.reset()
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN), (6, BoltStatus.UNKNOWN)])
        self.assertEqual(self.world.cluster.hosts, {})

    def test_the_agent_closes_its_side(self) -> None:
        client, agent = self.reverse()
        client.send(request(5))
        agent.wire.end()
        self.world.turn()
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN)])
        self.assertTrue(agent.wire.lost)

    def test_undecodable_bytes_cost_the_host(self) -> None:
        client, agent = self.reverse()
        client.send(request(5))
        agent.wire.send(b"\x09")
        self.assertEqual(self.world.cluster.hosts, {})
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN)])

    def test_two_agents_share_the_requests(self) -> None:
        client, agent = self.reverse()
        other = self.world.agent("agent:2")
        client.send(*(request(number) for number in range(10)))
        self.assertEqual([len(agent.echo()), len(other.echo())], [5, 5])
        self.assertEqual(len(client.answers()), 10)

    def test_retired_when_idle(self) -> None:
        _client, agent = self.reverse()
        self.world.cluster.remove_host(self.world.hosts[0], "drained")
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertFalse(agent.wire.aborted)

    def test_retired_when_busy(self) -> None:
        client, agent = self.reverse()
        client.send(request(5), request(6))
        self.world.cluster.remove_host(self.world.hosts[0], "drained")
        self.world.turn()
        frames = agent.frames()
        agent.send(response(frames[0].id))
        self.world.turn()
        self.assertFalse(agent.wire.disconnecting)
        agent.send(response(frames[1].id))
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertFalse(agent.wire.aborted)
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])

    def test_closed_when_idle(self) -> None:
        _client, agent = self.reverse()
        self.world.hosts[0].close("stopping")
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertFalse(agent.wire.aborted)

    def test_closed_when_busy(self) -> None:
        client, agent = self.reverse()
        client.send(request(5))
        self.world.hosts[0].close("stopping")
        self.world.turn()
        self.assertTrue(agent.wire.aborted)
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN)])

    def test_detach(self) -> None:
        client, agent = self.reverse()
        upstream = self.world.upstream
        client.send(request(5))
        self.assertFalse(upstream.detach())
        agent.echo()
        client.answers()
        upstream.pause(self)
        self.assertTrue(upstream.detach())
        self.assertTrue(agent.wire.reading)
        self.assertIsNone(agent.wire.producer)
        self.assertFalse(upstream.detach())
        agent.wire.reset()

    def test_bytes_before_the_first_request(self) -> None:
        self.world = World()
        agent = self.world.agent()
        agent.send(Bolt().heartbeat(3))
        client = self.world.client()
        client.send(request(1))
        kinds = [frame.kind for frame in agent.frames()]
        self.assertEqual(sorted(kinds), [Kind.REQUEST, Kind.HEARTBEAT_ACK])
        agent.send(response(1))
        self.assertEqual(client.answers(), [(1, 0)])


class StaticTests(UpstreamTestCase):
    def test_all_requests_wait_for_one_connection(self) -> None:
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(*(request(number) for number in range(10)))
        self.assertEqual(len(self.world.endpoint.dials), 1)
        self.world.endpoint.dials[0].succeed()
        self.assertEqual(len(self.world.host().echo()), 10)
        self.assertEqual(len(client.answers()), 10)

    def test_max_connections(self) -> None:
        client, _host = self.static(cluster={"circuit_breakers": [{"max_connections": 3}]})
        client.send(*(request(number) for number in range(9)))
        self.assertEqual(len(self.world.endpoint.wires), 3)
        self.assertEqual(sum(len(Peer(wire).echo()) for wire in self.world.endpoint.wires), 9)
        self.assertEqual(self.world.pool.connections, 3)
        client.answers()

    def test_max_request_per_conn(self) -> None:
        client, host = self.static(cluster={"max_request_per_conn": 3})
        client.send(*(request(number) for number in range(4)))
        self.assertEqual(len(self.world.endpoint.wires), 2)
        self.assertEqual(self.world.hosts[0].connections, 1)
        self.assertFalse(host.wire.disconnecting)
        self.assertEqual(len(host.echo()), 2)  # behind the first one
        self.world.turn()
        self.assertTrue(host.wire.lost)
        other = self.world.host()
        client.send(request(4))
        self.assertEqual(len(other.echo()), 3)
        self.world.turn()
        self.assertTrue(other.wire.lost)
        self.assertEqual(len(client.answers()), 5)
        self.assertEqual((self.world.pool.connections, self.world.hosts[0].connections), (0, 0))

    def test_max_request_per_conn_of_many_that_wait(self) -> None:
        self.world = World(1, cluster={"max_request_per_conn": 4})
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(*(request(number) for number in range(10)))
        answered = 0
        for dial in self.world.endpoint.dials:
            dial.succeed()
            answered += len(self.world.host().echo())
        self.world.turn()
        self.assertEqual((answered, len(self.world.endpoint.dials)), (10, 3))
        self.assertEqual(len(client.answers()), 10)

    def test_max_request_per_conn_and_oneway_requests(self) -> None:
        _client, host = self.static(cluster={"max_request_per_conn": 2})
        _client.send(request(5, oneway=True))
        self.assertEqual([frame.kind for frame in host.frames()], [Kind.ONEWAY])
        self.world.turn()
        self.assertTrue(host.wire.lost)

    def test_max_request_per_conn_is_not_for_agents(self) -> None:
        client, agent = self.reverse(cluster={"max_request_per_conn": 2})
        client.send(*(request(number) for number in range(5)))
        self.assertEqual(len(agent.echo()), 5)
        self.assertEqual(len(client.answers()), 5)

    def test_connections_are_counted(self) -> None:
        client, host = self.static(cluster={"circuit_breakers": [{"max_connections": 1}]})
        static = self.world.hosts[0]
        self.assertEqual(static.connections, 1)
        client.send(request(5))
        host.send(Bolt(enable_goaway=True).goaway(1))
        self.assertEqual(static.connections, 0)
        client.send(request(6))
        self.assertEqual(static.connections, 1)
        host.echo()
        self.world.turn()
        self.assertTrue(host.wire.lost)
        self.assertEqual(static.connections, 1)
        self.world.host().echo()
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])
        self.world.host().wire.reset()
        self.assertEqual(static.connections, 0)
        self.world.endpoint.answer = ConnectionRefusedError()
        client.send(request(7))
        self.assertEqual(client.answers(), [(7, BoltStatus.NO_PROCESSOR)])
        self.assertEqual(static.connections, 0)

    def test_as_many_requests_as_its_connections_can_carry(self) -> None:
        cluster = {"circuit_breakers": [{"max_connections": 1}]}
        self.world = World(1, protocol=Tiny(), cluster=cluster)
        client = self.world.client()
        client.send(*(tiny(Kind.REQUEST, number, b"x") for number in range(130)))
        host = self.world.host()
        frames = host.frames()
        self.assertEqual(len(frames), 127)
        self.assertEqual([(f.id, f.service) for f in client.frames()], [(n, "503") for n in (127, 128, 129)])
        host.send(*(tiny(Kind.RESPONSE, frame.id) for frame in frames))
        self.assertEqual(len(client.frames()), 127)
        client.send(tiny(Kind.REQUEST, 1, b"x"))
        host.send(tiny(Kind.RESPONSE, host.one().id))
        self.assertEqual(len(client.frames()), 1)

    def test_as_many_requests_as_were_waiting(self) -> None:
        cluster = {"circuit_breakers": [{"max_connections": 1}]}
        self.world = World(1, protocol=Tiny(), cluster=cluster)
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(*(tiny(Kind.REQUEST, number, b"x") for number in range(130)))
        self.world.endpoint.dials[0].succeed()
        host = self.world.host()
        self.assertEqual(len(host.frames()), 127)
        self.assertEqual(len(client.frames()), 3)
        host.wire.reset()

    def test_the_pool_is_drained(self) -> None:
        client, host = self.static()
        client.send(request(5))
        self.world.cluster.remove_host(self.world.hosts[0], "drained")
        self.world.turn()
        self.assertFalse(host.wire.disconnecting)
        host.echo()
        self.world.turn()
        self.assertTrue(host.wire.lost)
        self.assertEqual(client.answers(), [(5, 0)])

    def test_the_pool_is_drained_while_dialling(self) -> None:
        """A connection that was waited for, and carries nothing then, is not kept."""
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        pool = RpcPool(Bolt(), self.world.hosts[0], self.world.clock)
        waiting = pool.connect()
        pool.drain()
        wire = self.world.endpoint.dials[0].succeed()
        self.world.turn()
        self.assertTrue(self.successResultOf(waiting).closed)
        self.assertTrue(wire.lost)

    def test_the_host_leaves_while_it_is_dialled(self) -> None:
        """The requests that have waited for the connection are answered, and then it goes."""
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        client = self.world.client()
        client.send(request(5), request(6))
        self.world.cluster.remove_host(self.world.hosts[0])
        self.world.endpoint.dials[0].succeed()
        host = self.world.host()
        self.assertEqual(len(host.echo()), 2)
        self.assertEqual(client.answers(), [(5, 0), (6, 0)])
        self.world.turn()
        self.assertTrue(host.wire.lost)

    def test_the_pool_is_closed_while_dialling(self) -> None:
        self.world = World(1)
        self.world.endpoint.answer = "wait"
        pool = RpcPool(Bolt(), self.world.hosts[0], self.world.clock)
        waiting = pool.connect()
        cancelled: Deferred[RpcClient] = pool.connect()
        cancelled.addErrback(lambda _: None)  # type: ignore[arg-type, return-value]
        cancelled.cancel()
        pool.close()
        self.failureResultOf(waiting, HostGone)
        self.assertTrue(self.world.endpoint.dials[0].cancelled)

    def test_a_dial_fails(self) -> None:
        self.world = World(1)
        self.world.endpoint.answer = ConnectionRefusedError()
        pool = RpcPool(Bolt(), self.world.hosts[0], self.world.clock)
        self.failureResultOf(pool.connect(), ConnectionRefusedError)
        self.world.endpoint.answer = "connect"
        self.assertIsInstance(self.successResultOf(pool.connect()), RpcClient)

    def test_idle_timeout(self) -> None:
        client, host = self.static(cluster={"idle_timeout": "10s"})
        self.world.turn(9)
        client.send(request(2))
        self.world.turn(9)
        host.echo()
        client.answers()
        for _ in range(9):
            self.world.turn(1)
            host.send(Bolt().heartbeat(1))
        self.assertFalse(host.wire.lost)
        self.world.turn(1.1)
        self.assertTrue(host.wire.lost)
        client.send(request(3))
        self.assertEqual(self.world.host().echo(), [1])
        self.assertEqual(client.answers(), [(3, 0)])

    def test_oneway_requests_count_for_the_idle_timeout(self) -> None:
        client, host = self.static(cluster={"idle_timeout": "10s"})
        for _ in range(5):
            self.world.turn(8)
            client.send(request(2, oneway=True))
        self.assertFalse(host.wire.lost)

    def test_a_host_that_never_agrees_to_a_close(self) -> None:
        client, host = self.static(cluster={"idle_timeout": "10s"})
        host.wire.automatic = False
        client.send(request(1, oneway=True, content=b"x" * 100_000))
        self.world.turn(11)
        self.assertTrue(host.wire.disconnecting)
        self.assertFalse(host.wire.lost)
        host.wire.receive(10)
        self.world.run(STALL)
        self.assertFalse(host.wire.lost)
        self.world.run(10)
        self.assertTrue(host.wire.lost)
        self.assertEqual(self.world.upstream.active if self.world.pool._all else 0, 0)


class GoAwayTests(UpstreamTestCase):
    def setUp(self) -> None:
        self.goaway = Bolt(enable_goaway=True).goaway(1)

    def test_idle_reverse_host(self) -> None:
        _client, agent = self.reverse()
        agent.send(self.goaway)
        self.assertEqual(self.world.cluster.hosts, {})
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertFalse(agent.wire.aborted)

    def test_busy_reverse_host(self) -> None:
        client, agent = self.reverse()
        client.send(request(5))
        [frame] = agent.frames()
        agent.send(self.goaway, self.goaway)
        self.assertEqual(self.world.cluster.hosts, {})
        self.world.turn()
        self.assertFalse(agent.wire.disconnecting)
        client.send(request(6))
        self.assertEqual(agent.frames(), [])
        other = self.world.agent("agent:2")
        other.echo()
        self.assertEqual(client.answers(), [(6, 0)])
        agent.send(response(frame.id))
        self.world.turn()
        self.assertTrue(agent.wire.lost)
        self.assertEqual(client.answers(), [(5, 0)])

    def test_static_host(self) -> None:
        client, host = self.static()
        client.send(request(5))
        host.send(self.goaway)
        client.send(request(6))
        self.assertEqual(self.world.host().echo(), [1])
        self.assertEqual(client.answers(), [(6, 0)])
        host.echo()
        self.world.turn()
        self.assertEqual(client.answers(), [(5, 0)])
        self.assertTrue(host.wire.lost)
        self.assertFalse(self.world.host().wire.lost)

    def test_a_request_is_forgotten_after_it(self) -> None:
        client, host = self.static()
        client.send(request(5, timeout=1000))
        host.send(self.goaway)
        self.world.turn(2)
        self.assertEqual(client.answers(), [(5, BoltStatus.TIMEOUT)])
        self.assertTrue(host.wire.lost)


class UnusualTests(UpstreamTestCase):
    def test_heartbeats_of_the_host_are_answered(self) -> None:
        _client, host = self.static()
        host.send(Bolt().heartbeat(77))
        frame = host.one()
        self.assertEqual((frame.kind, frame.id), (Kind.HEARTBEAT_ACK, 77))

    def test_dubbo_heartbeats_that_want_no_answer(self) -> None:
        self.world = World(1, protocol=Dubbo())
        pool = RpcPool(Dubbo(), self.world.hosts[0], self.world.clock)
        self.successResultOf(pool.connect())
        host = self.world.host()
        host.wire.send(Dubbo().heartbeat(1).replace(b"\xe2", b"\xa2"))
        self.assertEqual(host.wire.take(), b"")

    def test_requests_of_the_host_are_refused(self) -> None:
        _client, host = self.static()
        host.send(request(78), request(79, oneway=True))
        frame = host.one()
        self.assertEqual((frame.kind, frame.id, frame.status), (Kind.RESPONSE, 78, BoltStatus.NO_PROCESSOR))

    def test_unknown_ids(self) -> None:
        client, host = self.static()
        client.send(request(5))
        host.send(response(99), response(1), response(0))
        self.assertEqual(client.frames(), [])
        self.assertEqual(self.world.upstream.dropped, 3)
        host.echo()
        self.assertEqual(client.answers(), [(5, 0)])

    def test_an_answer_to_a_heartbeat_is_no_response(self) -> None:
        client, host = self.static()
        client.send(request(5))
        [frame] = host.frames()
        host.send(Bolt().answer_heartbeat(frame))
        self.assertEqual(client.frames(), [])
        host.send(response(frame.id))
        self.assertEqual(client.answers(), [(5, 0)])

    def test_numbers_begin_anew(self) -> None:
        client, host = self.static()
        upstream = self.world.upstream
        upstream.in_flight._last = 0xFFFFFFFD
        client.send(*(request(number) for number in range(4)))
        frames = host.frames()
        self.assertEqual([frame.id for frame in frames], [0xFFFFFFFE, 0xFFFFFFFF, 1, 2])
        upstream.in_flight._last = 0xFFFFFFFD
        client.send(request(9))
        self.assertEqual(host.one().id, 3)
        host.send(*(response(frame.id) for frame in frames), response(3))
        self.assertEqual(client.answers(), [(0, 0), (1, 0), (2, 0), (3, 0), (9, 0)])

    def test_local_address(self) -> None:
        self.static()
        self.assertEqual(self.world.upstream.local_address, "10.0.0.1:1")
        self.assertEqual(self.world.upstream.local_address, "10.0.0.1:1")


class HeartbeatTests(UpstreamTestCase):
    def test_sent_when_idle(self) -> None:
        _client, agent = self.reverse()
        self.world.turn(14.9)
        self.assertEqual(agent.frames(), [])
        self.world.turn(0.1)
        frame = agent.one()
        self.assertEqual((frame.kind, frame.id, frame.timeout), (Kind.HEARTBEAT, 2, -1))
        agent.send(Bolt().answer_heartbeat(frame))
        self.world.turn(14.9)
        self.assertEqual(agent.frames(), [])
        self.world.turn(0.2)
        self.assertEqual(agent.one().id, 3)

    def test_anything_that_comes_puts_them_off(self) -> None:
        client, agent = self.reverse()
        for number in range(5):
            self.world.turn(10)
            client.send(request(number))
            self.assertEqual([frame.kind for frame in agent.frames()], [Kind.REQUEST])
            agent.send(response(2 + number))
        client.answers()

    def test_sent_while_a_request_is_under_way(self) -> None:
        client, agent = self.reverse()
        client.send(request(5))
        [frame] = agent.frames()
        self.world.turn(15)
        self.assertEqual(agent.one().kind, Kind.HEARTBEAT)
        agent.send(response(frame.id))
        self.assertEqual(client.answers(), [(5, 0)])

    def test_answered_for_years(self) -> None:
        _client, agent = self.reverse()
        for _ in range(500):
            self.world.turn(15)
            agent.send(*(Bolt().answer_heartbeat(frame) for frame in agent.frames()))
        self.assertFalse(agent.wire.lost)
        self.assertEqual(len(self.world.cluster.hosts), 1)

    def test_never_answered(self) -> None:
        client, agent = self.reverse(trust=Trust(["*"]))
        client.send(request(5, timeout=-1))
        agent.frames()
        for number in range(HEARTBEAT_FAILURES):
            self.assertEqual(len(self.world.cluster.hosts), 1)
            self.world.turn(15)
            self.assertEqual(agent.one().id, 3 + number)
        self.world.turn(1.1)
        self.assertTrue(agent.wire.lost)
        self.assertEqual(self.world.cluster.hosts, {})
        self.assertEqual(client.answers(), [(5, BoltStatus.UNKNOWN)])

    def test_answered_late(self) -> None:
        _client, agent = self.reverse()
        for _ in range(20):
            self.world.turn(15)
            frames = agent.frames()
            self.world.turn(1)
            self.world.turn(1)
            agent.send(*(Bolt().answer_heartbeat(frame) for frame in frames))
        self.assertFalse(agent.wire.lost)
        self.assertEqual(self.world.upstream.dropped, 20)

    def test_any_response_is_an_answer(self) -> None:
        _client, agent = self.reverse()
        self.world.turn(15)
        agent.send(response(agent.one().id))
        self.assertEqual(self.world.upstream.dropped, 0)

    def test_no_timer_is_left(self) -> None:
        _client, agent = self.reverse(idle_timeout=None)
        self.world.turn(15)
        self.assertEqual(len(agent.frames()), 1)
        agent.wire.reset()
        self.world.turn(60)  # deadlines of requests are forgotten in bulk
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_boltv2(self) -> None:
        self.world = World(protocol=Bolt(2))
        agent = self.world.agent()
        client = self.world.client()
        client.send(request(1, version=2))
        agent.echo()
        client.answers()
        self.world.turn(15)
        frame = agent.one()
        self.assertEqual((frame.kind, frame.version), (Kind.HEARTBEAT, 2))

    def test_a_protocol_without(self) -> None:
        self.world = World(protocol=Tiny(), idle_timeout=None)
        agent = self.world.agent()
        client = self.world.client()
        client.send(tiny(Kind.REQUEST, 1, b"x"))
        agent.send(tiny(Kind.RESPONSE, 1))
        self.assertEqual(client.one().id, 1)
        agent.frames()
        self.world.turn(1000)
        self.assertEqual(agent.frames(), [])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_the_keepalive_of_the_cluster(self) -> None:
        client, agent = self.reverse(cluster={"keepalive": {"interval": "5s", "timeout": "2s"}})
        self.assertEqual(self.world.pool.settings.keepalive, Keepalive(5.0, 2.0))
        self.world.turn(4)
        client.send(request(5))
        agent.echo()
        client.answers()
        self.world.turn(1)
        self.assertEqual(agent.one().kind, Kind.HEARTBEAT)
        self.world.turn(1.9)
        self.assertEqual(len(self.world.upstream.in_flight.heartbeats), 1)
        self.world.turn(0.2)
        self.assertEqual(len(self.world.upstream.in_flight.heartbeats), 0)
        self.world.turn(2.9)
        self.assertEqual(agent.one().kind, Kind.HEARTBEAT)
        agent.wire.reset()
