"""Tests for L{reverseproxy.proxy.http.http1_client}, in memory."""

from __future__ import annotations

from typing import Any

from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.handover import IDetachable
from reverseproxy.cluster.host import IHostPool
from reverseproxy.errors import HostGone
from reverseproxy.proxy import host_connection
from reverseproxy.proxy.http import http1_pool
from reverseproxy.proxy.http.http1_client import Http1Client
from reverseproxy.proxy.http.http1_pool import BUSY_PERIOD, POOL, Http1Pool
from reverseproxy.proxy.pools import pool_of
from reverseproxy.transport.closing import LINGER
from reverseproxy.wire.http.message import Event
from reverseproxy.wire.http1.heads import ResponseHead
from tests.proxy.memory import Wire, World
from tests.wire.http1_cases import respond

OK = respond(b"Content-Length: 2", body=b"ok")


class Exchange:
    """Records what a client tells it."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def upstream_events(self, events: list[Event]) -> None:
        self.events += events

    def upstream_lost(self, reason: str, unsent: bool = False) -> None:
        self.events.append("lost")

    def upstream_full(self, full: bool) -> None:
        self.events.append("full" if full else "not full")


class PoolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.world = World()
        self.host = self.world.hosts[0]

    def pool(self, **options: Any) -> Http1Pool:
        return Http1Pool(self.host, self.world.clock, **options)

    def connect(self, pool: Http1Pool) -> tuple[Http1Client, Wire]:
        return self.successResultOf(pool.connect()), self.world.host()

    def agent_pool(self) -> tuple[Http1Pool, Wire]:
        agent = self.world.agent()
        return pool_of(POOL, self.world.hosts[-1], self.world.clock, 10), agent


class ClientTests(PoolTestCase):
    def test_interfaces(self) -> None:
        pool = self.pool()
        client, _ = self.connect(pool)
        verifyObject(IHostPool, pool)
        for interface in (IDetachable, IHalfCloseableProtocol, IPushProducer):
            verifyObject(interface, client)

    def test_exchange(self) -> None:
        tuned: list[object] = []
        self.patch(host_connection, "tune", lambda *arguments: tuned.append(arguments))
        pool = self.pool()
        client, wire = self.connect(pool)
        self.assertFalse(client.reused)
        self.assertEqual(tuned, [(wire,)])
        exchange = Exchange()
        client.start(exchange, False)
        wire.send(OK)
        self.assertEqual([type(event) for event in exchange.events][:2], [ResponseHead, bytes])
        client.finish(True)
        self.assertTrue(client.reused)
        self.assertEqual((pool.idle, pool.connections), (1, 1))
        self.assertIs(pool.take(), client)
        self.assertIs(pool.take(), None)

    def test_not_reusable(self) -> None:
        pool = self.pool()
        for case in range(3):
            client, wire = self.connect(pool)
            client.start(Exchange(), False)
            wire.send(OK + b"X" * (case == 1))
            if case == 2:
                client.pauseProducing()
            client.finish(case != 0)
            self.world.turn()
            self.assertTrue(wire.lost)
            self.assertEqual(wire.aborted, case == 2)
            self.assertEqual((pool.idle, pool.connections), (0, 0))

    def test_close_is_not_for_ever(self) -> None:
        pool = self.pool()
        self.world.endpoint.automatic = False
        client, wire = self.connect(pool)
        wire.write(b"unread")
        client.close("test")
        self.world.turn(LINGER - 1)
        self.assertFalse(wire.lost)
        self.world.turn(1)
        self.assertTrue(wire.aborted and wire.lost)

    def test_data_while_idle(self) -> None:
        pool = self.pool()
        client, wire = self.connect(pool)
        client.finish(True)
        wire.send(b"HTTP/1.1 408 Request Timeout\r\n\r\n")
        self.assertTrue(wire.aborted)
        self.assertIs(pool.take(), None)

    def test_lost_while_idle(self) -> None:
        for fault in (Wire.end, Wire.reset):
            pool = self.pool()
            client, wire = self.connect(pool)
            client.finish(True)
            fault(wire)
            self.assertIs(pool.take(), None)
            self.world.turn()
            self.assertTrue(wire.lost)
            self.assertEqual(pool.connections, 0)
            self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_lost_while_busy(self) -> None:
        for fault in (Wire.end, Wire.reset):
            client, wire = self.connect(self.pool())
            exchange = Exchange()
            client.start(exchange, False)
            fault(wire)
            self.world.turn()
            self.assertEqual(exchange.events, ["lost"])
            self.assertTrue(client.closed)

    def test_abort_is_silent(self) -> None:
        client, wire = self.connect(self.pool())
        exchange = Exchange()
        client.start(exchange, False)
        client.abort("test")
        wire.send(OK)
        self.world.turn()
        self.assertTrue(wire.lost)
        self.assertEqual(exchange.events, [])

    def test_back_pressure(self) -> None:
        client, wire = self.connect(self.pool())
        exchange = Exchange()
        client.pauseProducing()
        client.resumeProducing()
        client.start(exchange, False)
        client.pauseProducing()
        client.resumeProducing()
        client.stopProducing()
        self.assertEqual(exchange.events, ["full", "not full"])
        client.pause()
        client.pause()
        self.assertFalse(wire.reading)
        wire.send(OK)
        self.assertEqual(len(exchange.events), 2)
        client.resume()
        client.resume()
        self.world.turn()
        self.assertEqual(len(exchange.events), 5)

    def test_paused_connection_is_kept_reading(self) -> None:
        client, wire = self.connect(self.pool())
        exchange = Exchange()
        client.start(exchange, False)
        wire.send(OK)
        client.pause()
        client.finish(True)
        self.assertTrue(wire.reading)


class PoolTests(PoolTestCase):
    def test_last_in_first_out(self) -> None:
        pool = self.pool()
        first, second = (self.connect(pool)[0] for _ in range(2))
        first.finish(True)
        second.finish(True)
        self.assertEqual([pool.take(), pool.take()], [second, first])

    def test_bounded(self) -> None:
        pool = self.pool(max_idle=2)
        clients = [self.connect(pool)[0] for _ in range(3)]
        for client in clients:
            client.finish(True)
        self.world.turn()
        # So many were busy at once, and may be again.
        self.assertEqual((pool.idle, pool.connections), (3, 3))
        self.world.turn(BUSY_PERIOD)
        self.assertEqual(pool.idle, 3)
        self.world.turn(BUSY_PERIOD)
        self.assertEqual((pool.idle, pool.connections), (2, 2))
        self.assertEqual([client.closed for client in clients], [True, False, False])
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_as_many_as_are_needed(self) -> None:
        pool = self.pool(max_idle=2)
        clients = [self.connect(pool)[0] for _ in range(9)]
        for seconds in (0.0, *[BUSY_PERIOD / 3] * 10):
            for client in clients:
                client.finish(True)
            self.world.turn(seconds)
            self.assertEqual({pool.take() for _ in clients}, set(clients))
        # From now on there are three at a time, and two more are kept in any case.
        for client in clients:
            client.finish(True)
        for _ in range(7):
            three = [pool.take() for _ in range(3)]
            for client in three:
                assert client is not None
                client.finish(True)
            self.world.turn(BUSY_PERIOD / 3)
        self.assertEqual(pool.idle, 5)

    def test_there_is_a_bound_to_that(self) -> None:
        self.patch(http1_pool, "MOST_IDLE", 4)
        pool = self.pool(max_idle=2)
        clients = [self.connect(pool)[0] for _ in range(6)]
        for client in clients:
            client.finish(True)
        self.assertEqual(pool.idle, 4)
        pool.drain()
        self.world.turn()
        self.assertEqual((pool.connections, self.world.clock.getDelayedCalls()), (0, []))

    def test_idle_timeout(self) -> None:
        pool = self.pool(idle_timeout=10)
        clients = [self.connect(pool)[0] for _ in range(3)]
        for client in clients:
            client.finish(True)
            self.world.turn(1)
        self.assertEqual(len(self.world.clock.getDelayedCalls()), 1)
        self.world.turn(7)
        self.assertEqual([client.closed for client in clients], [True, False, False])
        last = pool.take()
        assert last is clients[2]
        self.world.turn(1)
        self.assertEqual([client.closed for client in clients], [True, True, False])
        last.finish(True)
        self.world.turn(9)
        self.assertFalse(last.closed)
        self.world.turn(1)
        self.assertTrue(last.closed)
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_no_idle_timeout(self) -> None:
        for timeout in (None, 0):
            self.connect(self.pool(idle_timeout=timeout))[0].finish(True)
            self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_timer_ends_with_the_last_connection(self) -> None:
        pool = self.pool(idle_timeout=10)
        client, wire = self.connect(pool)
        client.finish(True)
        wire.reset()
        self.assertEqual(self.world.clock.getDelayedCalls(), [])

    def test_drain(self) -> None:
        pool = self.pool()
        (idle, idle_wire), (busy, busy_wire) = (self.connect(pool) for _ in range(2))
        idle.finish(True)
        exchange = Exchange()
        busy.start(exchange, False)
        pool.drain()
        pool.drain()
        self.world.turn()
        self.assertEqual((idle_wire.lost, busy_wire.lost), (True, False))
        busy_wire.send(OK)
        self.assertEqual(len(exchange.events), 3)
        busy.finish(True)
        self.world.turn()
        self.assertTrue(busy_wire.lost)

    def test_close(self) -> None:
        pool = self.pool()
        (idle, idle_wire), (busy, busy_wire) = (self.connect(pool) for _ in range(2))
        idle.finish(True)
        exchange = Exchange()
        busy.start(exchange, False)
        pool.close()
        self.world.turn()
        self.assertTrue(idle_wire.lost and busy_wire.lost)
        self.assertEqual(exchange.events, ["lost"])
        self.assertEqual((pool.idle, pool.connections), (0, 0))

    def test_dial_fails(self) -> None:
        self.world.endpoint.answer = ConnectError(string="no")
        self.failureResultOf(self.pool().connect(), ConnectError)

    def test_pool_of(self) -> None:
        pool = pool_of(POOL, self.host, self.world.clock, 10)
        self.assertIs(pool_of(POOL, self.host, self.world.clock, 20), pool)
        self.assertIs(self.host.pools[POOL], pool)
        self.assertFalse(pool.exclusive)


class Other(Protocol):
    """Another protocol that wants an agent's connection."""

    def __init__(self) -> None:
        self.events: list[Any] = []

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def connectionLost(self, reason: Failure | None = None) -> None:
        self.events.append("lost")


class ReverseHostTests(PoolTestCase):
    """A reverse host's connection is the host."""

    def lease(self) -> tuple[Http1Pool, Http1Client, Wire]:
        pool, agent = self.agent_pool()
        self.assertTrue(pool.exclusive)
        return pool, self.successResultOf(pool.connect()), agent

    def test_kept(self) -> None:
        pool, client, agent = self.lease()
        self.assertTrue(client.reused)
        client.finish(True)
        self.world.turn(1000)
        self.assertIs(pool.take(), client)
        self.assertFalse(agent.lost)

    def test_detached_when_idle(self) -> None:
        pool, client, agent = self.lease()
        client.finish(True)
        factory = Factory.forProtocol(Other)
        other = self.successResultOf(self.world.hosts[-1].connect(factory))
        self.assertIs(pool.take(), None)
        self.assertEqual(pool.connections, 0)
        agent.send(b"data")
        agent.reset()
        self.assertEqual(other.events, [b"data", "lost"])
        self.assertIs(client.transport, None)

    def test_not_detached_when_busy(self) -> None:
        for closing in (False, True):
            _, client, agent = self.lease()
            client.start(Exchange(), False)
            if closing:
                client.finish(False)
            self.failureResultOf(self.world.hosts[-1].connect(Factory.forProtocol(Other)), HostGone)
            self.assertEqual(agent.disconnecting, closing)
            self.world.agent(f"agent:{closing}")

    def test_host_goes_with_the_connection(self) -> None:
        for case in range(4):
            _, client, agent = self.lease()
            host = self.world.hosts[-1]
            if case == 0:
                client.finish(True)
                agent.send(b"unasked")
            elif case == 1:
                client.start(Exchange(), False)
                client.abort("test")
            elif case == 2:
                client.start(Exchange(), False)
                agent.end()
            else:
                agent.reset()
            self.assertTrue(host.closed)
            self.assertNotIn(host.address, self.world.cluster.hosts)
            self.world.turn()
            self.assertTrue(agent.lost)

    def test_closed_host(self) -> None:
        _, client, agent = self.lease()
        exchange = Exchange()
        client.start(exchange, False)
        self.world.hosts[-1].close("test")
        self.world.turn()
        self.assertTrue(agent.lost)
        self.assertEqual(exchange.events, ["lost"])

    def test_retired(self) -> None:
        """A host that left its cluster closes its connection: idle now, busy when it is done."""
        for busy in (False, True):
            pool, client, agent = self.lease()
            host = self.world.hosts[-1]
            host.active = int(busy)
            if busy:
                client.start(Exchange(), False)
            else:
                client.finish(True)
            self.world.cluster.remove_host(host)
            self.world.turn()
            self.assertEqual(agent.lost, not busy)
            if busy:
                agent.send(OK)
                client.finish(True)
                self.world.turn()
                self.assertTrue(agent.lost)
            self.assertEqual(pool.idle, 0)

    def test_leased_when_retired_already(self) -> None:
        """A request may have taken the host before it was told to go."""
        agent = self.world.agent()
        host = self.world.hosts[-1]
        host.active = 1
        self.world.cluster.remove_host(host)
        pool = Http1Pool(host, self.world.clock)
        client = self.successResultOf(pool.connect()) if not host.closed else None
        if client is not None:
            client.finish(True)
            self.world.turn()
        self.assertTrue(agent.disconnecting)
        self.assertEqual(pool.idle, 0)

    def test_early_data(self) -> None:
        """An agent that speaks first is no HTTP server."""
        pool, agent = self.agent_pool()
        agent.send(b"SSH-2.0-x\r\n")
        client = self.successResultOf(pool.connect())
        self.assertTrue(client.closed)
        self.world.turn()
        self.assertTrue(agent.lost)
