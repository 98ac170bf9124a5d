"""Tests for L{reverseproxy.proxy.connection_pool}, without connections."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.cluster.host import IHostPool
from reverseproxy.errors import ConnectionUnavailable, HostGone, ProtocolRefused, QueueFull
from reverseproxy.proxy.connection_pool import (
    ConnectionPool,
    Keepalive,
    PoolSettings,
    SharedPool,
    pool_settings,
)
from reverseproxy.proxy.host_connection import HostConnection, SharedConnection


def make_cluster(**values: Any) -> Any:
    """Make what of a cluster counts for pools, and notes what it is told."""
    told: list[Any] = []
    config = SimpleNamespace(
        requests_per_connection=7, keepalive=SimpleNamespace(interval=5.0, timeout=2.0), **values
    )
    support = SimpleNamespace(
        succeeded=lambda host, name: told.append(("succeeded", name)),
        note_answer=lambda host, name: told.append(("answered", name)),
    )
    return SimpleNamespace(
        config=config,
        told=told,
        members=SimpleNamespace(protocol_support=support),
        set_capacity=lambda host, capacity: told.append(("capacity", capacity)),
        remove_host=lambda host, reason: told.append(("removed", reason)),
    )


class FakeHost:
    """A host whose dials end when a test says so."""

    def __init__(self, exclusive: bool = False, most: int = 0, cluster: Any = None) -> None:
        self.address = "10.0.0.1:80"
        self.exclusive = self.is_reverse = exclusive
        self.max_connections = most
        self.cluster = cluster
        self.retired = self.closed = False
        self.connections = 0
        self.dials: list[Deferred[Any]] = []
        self.factories: list[Any] = []

    def may_connect(self) -> bool:
        return not self.max_connections or self.connections < self.max_connections

    def connection_opened(self) -> None:
        self.connections += 1

    def connection_closed(self) -> None:
        self.connections -= 1

    def connect(self, factory: Any) -> Deferred[Any]:
        dial: Deferred[Any] = Deferred()
        self.dials.append(dial)
        self.factories.append(factory)
        return dial

    def succeed(self, number: int = -1) -> Any:
        """Let a connection be made."""
        connection = self.factories[number].buildProtocol(None)
        connection._pool.add(connection)
        self.dials[number].callback(connection)
        return connection


class One(HostConnection):
    """A connection for one exchange at a time."""

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        self._pool = pool
        self.ended = ""

    def close(self, reason: str) -> None:
        self.ended = reason
        self._pool.forget(self)

    def drop(self, reason: str) -> None:
        self.ended = f"dropped: {reason}"
        self._pool.remove(self)


class Many(One, SharedConnection):
    """A connection for some exchanges at once, which only grow more."""

    room = 2

    def __init__(self, pool: ConnectionPool[Any]) -> None:
        super().__init__(pool)
        self.reused = False
        self.carried = 0
        self.drained = False

    @property
    def has_room(self) -> bool:
        return not self.ended and self.carried < self.room

    def reserve(self) -> Any:
        self._pool.mark_busy(self, None)
        self.carried += 1
        return self, self.carried

    def drain(self) -> None:
        self.drained = True


class OnePool(ConnectionPool[One]):
    def _build(self) -> One:
        return One(self)


class ManyPool(SharedPool[Many]):
    def _build(self) -> Many:
        return Many(self)


class SettingsTests(SynchronousTestCase):
    def test_of_a_cluster(self) -> None:
        host: Any = FakeHost(cluster=make_cluster())
        self.assertEqual(pool_settings(host, 9.0), PoolSettings(9.0, 7, Keepalive(5.0, 2.0)))
        self.assertEqual(pool_settings(host, 0).idle_timeout, None)

    def test_of_an_agent(self) -> None:
        """Its connection is not closed for being idle, nor after some requests."""
        host: Any = FakeHost(exclusive=True, cluster=make_cluster())
        self.assertEqual(pool_settings(host, 9.0), PoolSettings(None, 0, Keepalive(5.0, 2.0)))

    def test_of_a_stream(self) -> None:
        """A stream may be closed when it is idle; C{max_request_per_conn} is for hosts that are dialled."""
        host: Any = FakeHost(cluster=make_cluster())
        host.is_reverse = True
        self.assertEqual(pool_settings(host, 9.0), PoolSettings(9.0, 0, Keepalive(5.0, 2.0)))

    def test_without_a_cluster(self) -> None:
        host: Any = FakeHost()
        self.assertEqual(pool_settings(host, None), PoolSettings(None, 0, Keepalive(0.0, 1.0)))


class PoolTestCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()

    def one(self, host: FakeHost, idle_timeout: float | None = None) -> OnePool:
        return OnePool("One", host, self.clock, idle_timeout)  # type: ignore[arg-type]

    def many(self, host: FakeHost, idle_timeout: float | None = None) -> ManyPool:
        return ManyPool("Many", host, self.clock, idle_timeout)  # type: ignore[arg-type]


class ConnectionPoolTests(PoolTestCase):
    def test_interface(self) -> None:
        verifyObject(IHostPool, self.one(FakeHost()))

    def test_dialling(self) -> None:
        host = FakeHost()
        pool = self.one(host)
        dial = pool._dial()
        self.assertEqual((host.connections, pool.connections, pool.busy), (1, 0, True))
        connection = host.succeed()
        self.assertIs(self.successResultOf(dial), connection)
        self.assertEqual((host.connections, pool.connections, pool.idle, pool.busy), (1, 1, 0, True))
        pool.mark_idle(connection)
        self.assertEqual((pool.idle, pool.busy), (1, False))
        pool.remove(connection)
        self.assertEqual((host.connections, pool.connections, pool.idle, pool.busy), (0, 0, 0, False))

    def test_dialling_fails(self) -> None:
        host = FakeHost()
        pool = self.one(host)
        dial = pool._dial()
        host.dials[0].errback(ConnectionRefusedError())
        self.failureResultOf(dial, ConnectionRefusedError)
        self.assertEqual((host.connections, pool.busy), (0, False))

    def test_dialling_is_cancelled(self) -> None:
        host = FakeHost()
        dial = self.one(host)._dial()
        dial.cancel()
        self.failureResultOf(dial, CancelledError)
        self.assertEqual(host.connections, 0)

    def test_closed_while_dialling(self) -> None:
        """Who waits for a connection hears that the host is gone."""
        host = FakeHost()
        pool = self.one(host)
        dials = [pool._dial(), pool._dial()]
        pool.close()
        for dial in dials:
            self.failureResultOf(dial, HostGone)
        self.assertEqual(host.connections, 0)

    def test_counted_once(self) -> None:
        """A connection that is about to close makes room at once, and is lost later."""
        host = FakeHost()
        pool = self.one(host)
        pool._dial()
        connection = host.succeed()
        pool.forget(connection)
        self.assertEqual((host.connections, pool.connections), (0, 0))
        pool.forget(connection)
        pool.close()
        self.assertEqual(connection.ended, "dropped: the host is gone")
        pool.remove(connection)
        self.assertEqual(host.connections, 0)

    def test_leaving_is_busy(self) -> None:
        """A connection that takes no more requests may carry some: it is to be closed with its pool."""
        host = FakeHost()
        pool = self.one(host)
        pool._dial()
        leaving = host.succeed()
        pool.forget(leaving)
        self.assertEqual((pool.connections, pool.busy), (0, True))
        pool._dial()
        pool.mark_idle(host.succeed())
        self.assertTrue(pool.busy)
        pool.remove(leaving)
        self.assertEqual((pool.connections, pool.busy), (1, False))

    def test_room(self) -> None:
        """As many idle connections go as have to, and the one that was used last stays longest."""
        host = FakeHost(most=3)
        pool = self.one(host)
        made = []
        for _ in range(3):
            pool._dial()
            made.append(host.succeed())
        for number in (1, 0):
            pool.mark_idle(made[number])
        pool.make_room()
        self.assertEqual([each.ended for each in made], ["", "makes room for a new one", ""])
        pool.make_room()
        self.assertEqual((pool.connections, pool.idle), (2, 1))

    def test_idle_timeout(self) -> None:
        host = FakeHost()
        pool = self.one(host, 10.0)
        made = []
        for _ in range(3):
            pool._dial()
            made.append(host.succeed())
            pool.mark_idle(made[-1])
            self.clock.advance(1)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        self.clock.advance(6)
        pool.mark_busy(made[1], None)
        pool.mark_idle(made[1])
        self.clock.advance(1)
        self.assertEqual([each.ended for each in made], ["idle timeout", "", ""])
        self.clock.advance(2)
        self.assertEqual([each.ended for each in made], ["idle timeout", "", "idle timeout"])
        self.clock.advance(6)
        self.assertEqual((made[1].ended, pool.idle), ("", 1))
        self.clock.advance(1)
        self.assertEqual((made[1].ended, pool.idle), ("idle timeout", 0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_no_idle_timeout(self) -> None:
        host = FakeHost()
        pool = self.one(host)
        pool._dial()
        pool.mark_idle(host.succeed())
        self.assertEqual((pool.idle, self.clock.getDelayedCalls()), (1, []))

    def test_the_timer_ends_with_the_last_connection(self) -> None:
        host = FakeHost()
        pool = self.one(host, 10.0)
        pool._dial()
        connection = host.succeed()
        pool.mark_idle(connection)
        pool.forget(connection)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)
        pool.remove(connection)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_late(self) -> None:
        """If it is this process that is late, the host may have sent something that waits to be read."""
        host = FakeHost()
        pool = self.one(host, 10.0)
        pool._dial()
        connection = host.succeed()
        pool.mark_idle(connection)
        self.clock.advance(15)
        self.assertEqual(connection.ended, "")
        self.clock.advance(5)
        self.assertEqual(connection.ended, "idle timeout")

    def test_heard(self) -> None:
        cluster = make_cluster()
        pool = self.one(FakeHost(cluster=cluster))
        pool.heard(False)
        pool.heard(True)
        self.assertEqual(cluster.told, [("answered", "One"), ("succeeded", "One")])
        self.one(FakeHost()).heard(True)

    def test_retired(self) -> None:
        """With an agent's connection goes its host; others make room for another connection."""
        for exclusive, told in ((True, [("removed", "goaway")]), (False, [])):
            cluster = make_cluster()
            host = FakeHost(exclusive, cluster=cluster)
            pool = self.one(host)
            pool._dial()
            pool.retire(host.succeed(), "goaway")
            self.assertEqual((cluster.told, host.connections, pool.connections), (told, 0, 0))

    def test_capacity(self) -> None:
        for exclusive, most, told in ((True, 5, [3]), (False, 5, [15]), (False, 0, [])):
            cluster = make_cluster()
            self.one(FakeHost(exclusive, most, cluster))._set_capacity(3)
            self.assertEqual(cluster.told, [("capacity", number) for number in told])
        self.one(FakeHost(most=5))._set_capacity(3)


class SharedPoolTests(PoolTestCase):
    def test_all_share_the_next_connection(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        self.assertIs(pool.take(), None)
        waiting = [pool.connect(), pool.connect()]
        self.assertEqual((len(host.dials), host.connections), (1, 1))
        connection = host.succeed()
        self.assertEqual([self.successResultOf(each) for each in waiting], [(connection, 1), (connection, 2)])
        self.assertIs(pool.take(), None)

    def test_another_one_for_the_rest(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        waiting = [pool.connect() for _ in range(5)]
        for number in (0, 1, 2):
            self.assertEqual(len(host.dials), number + 1)
            host.succeed()
        self.assertEqual([self.successResultOf(each)[1] for each in waiting], [1, 2, 1, 2, 1])
        self.assertEqual((len(host.dials), pool.take()[1]), (3, 2))

    def test_no_further_connection(self) -> None:
        host = FakeHost(most=1)
        pool = self.many(host)
        waiting = [pool.connect() for _ in range(3)]
        host.succeed()
        self.failureResultOf(waiting[2], QueueFull)
        self.failureResultOf(pool.connect(), QueueFull)
        self.assertEqual(len(host.dials), 1)

    def test_no_further_connection_of_an_agent(self) -> None:
        host = FakeHost(exclusive=True)
        pool = self.many(host)
        waiting = [pool.connect() for _ in range(3)]
        host.succeed()
        self.failureResultOf(waiting[2], QueueFull)
        self.failureResultOf(pool.connect(), QueueFull)
        self.assertEqual(len(host.dials), 1)

    def test_a_new_connection(self) -> None:
        """A connection that the host may have closed will not do, unless the host has no other."""
        for exclusive in (False, True):
            host = FakeHost(exclusive)
            pool = self.many(host)
            pool.connect()
            first = host.succeed()
            first.carried = 0
            self.assertEqual(self.successResultOf(pool.connect()), (first, 1))
            first.reused = True
            another = pool.connect()
            if exclusive:
                self.assertEqual(self.successResultOf(another), (first, 2))
            else:
                self.assertNoResult(another)
                self.assertEqual((host.succeed(), 1), self.successResultOf(another))

    def test_failure(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        waiting = [pool.connect(), pool.connect()]
        host.dials[0].errback(ConnectionRefusedError())
        for each in waiting:
            self.failureResultOf(each, ConnectionRefusedError)
        self.assertEqual((host.connections, pool.busy), (0, False))
        pool.connect()
        self.assertEqual(len(host.dials), 2)

    def test_cancelled(self) -> None:
        """One that does not wait any more gets nothing, and the others are served."""
        host = FakeHost()
        pool = self.many(host)
        first, second = pool.connect(), pool.connect()
        first.cancel()
        self.failureResultOf(first, CancelledError)
        connection = host.succeed()
        self.assertEqual(self.successResultOf(second), (connection, 1))

    def test_cancelled_by_another(self) -> None:
        for succeeds in (True, False):
            host = FakeHost()
            pool = self.many(host)
            first, second = pool.connect(), pool.connect()
            first.addBoth(lambda _, second=second: second.cancel())
            if succeeds:
                host.succeed()
            else:
                host.dials[0].errback(ConnectionRefusedError())
            self.failureResultOf(second, CancelledError)
            self.assertIs(self.successResultOf(first), None)

    def test_tried_again_at_once(self) -> None:
        """Whoever asks for another connection as soon as one has failed is not told of that failure again."""
        host = FakeHost()
        pool = self.many(host)
        again: list[Deferred[Any]] = []
        pool.connect().addErrback(lambda _: again.append(pool.connect()))
        host.dials[0].errback(ConnectionRefusedError())
        self.assertNoResult(again[0])
        connection = host.succeed()
        self.assertEqual(self.successResultOf(again[0]), (connection, 1))

    def test_lost_at_once(self) -> None:
        for refusal in (None, ProtocolRefused("no")):
            host = FakeHost()
            pool = self.many(host)
            waiting = pool.connect()
            connection = host.factories[0].buildProtocol(None)
            if refusal is not None:
                self.patch(Many, "refusal", refusal)
            pool.add(connection)
            connection.drop("test")
            host.dials[0].callback(connection)
            reason = self.failureResultOf(waiting, ConnectionUnavailable)
            self.assertEqual(str(reason.value), "no" if refusal else "the connection was lost at once")
            self.assertEqual((host.connections, len(host.dials)), (0, 1))

    def test_idle(self) -> None:
        """A connection is idle from the beginning, until it is used."""
        host = FakeHost()
        pool = self.many(host, 10.0)
        waiting = pool.connect()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        connection = host.succeed()
        self.assertEqual((pool.idle, pool.busy), (1, False))
        self.assertEqual(pool.take(), (connection, 1))
        self.assertEqual((pool.idle, pool.busy), (0, True))
        self.clock.advance(10)
        self.assertEqual(connection.ended, "")
        pool.mark_idle(connection)
        self.clock.advance(10)
        self.assertEqual(connection.ended, "idle timeout")

    def test_drain(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        pool.connect()
        busy = host.succeed()
        busy.reused = True
        pool.connect()
        idle = host.succeed()
        pool.mark_idle(idle)
        pool.drain()
        self.assertEqual((busy.ended, busy.drained), ("", True))
        self.assertEqual((idle.ended, idle.drained), ("drained", False))
        pool.drain()
        self.assertEqual(busy.ended, "")

    def test_drained_while_dialling(self) -> None:
        """Who waits is served, on as many connections as it takes; each goes with its last request."""
        host = FakeHost()
        pool = self.many(host)
        waiting = [pool.connect() for _ in range(3)]
        pool.drain()
        for each in (host.succeed(), host.succeed()):
            self.assertEqual((each.ended, each.drained), ("", True))
        self.assertEqual([self.successResultOf(each)[1] for each in waiting], [1, 2, 1])
        self.assertEqual(len(host.dials), 2)

    def test_drained_while_dialling_for_nobody(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        waiting = pool.connect()
        pool.drain()
        waiting.cancel()
        self.failureResultOf(waiting, CancelledError)
        self.assertEqual((host.succeed().ended, host.connections), ("drained", 0))

    def test_drained_and_not_used_after_all(self) -> None:
        """Who gets a place may leave it at once."""
        host = FakeHost()
        pool = self.many(host)
        waiting = pool.connect().addCallback(lambda place: pool.mark_idle(place[0]))
        pool.drain()
        self.assertEqual((host.succeed().ended, host.connections), ("drained", 0))
        self.assertIs(self.successResultOf(waiting), None)

    def test_made_when_the_host_had_left(self) -> None:
        host = FakeHost()
        host.retired = True
        waiting = self.many(host).connect()
        connection = host.succeed()
        self.assertEqual((connection.ended, connection.drained), ("", True))
        self.assertEqual(self.successResultOf(waiting), (connection, 1))

    def test_close(self) -> None:
        host = FakeHost()
        pool = self.many(host)
        pool.connect()
        leaving = host.succeed()
        pool.forget(leaving)
        waiting = [pool.connect(), pool.connect()]
        pool.close()
        for each in waiting:
            self.failureResultOf(each, HostGone)
        self.assertEqual((leaving.ended, host.connections), ("dropped: the host is gone", 0))
