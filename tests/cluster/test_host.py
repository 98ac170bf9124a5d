"""Tests for L{reverseproxy.cluster.host}."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectError
from twisted.internet.interfaces import IProtocol, IProtocolFactory, IStreamClientEndpoint
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.host import Host, ReverseHost, StaticHost, clamp_weight
from reverseproxy.config.models import HostConfig
from reverseproxy.errors import ConnectionUnavailable, HostGone
from reverseproxy.interfaces import IHost
from tests.cluster.fakes import (
    FakeHost,
    Gone,
    HalfUser,
    IdleUser,
    Pool,
    User,
    Users,
    Wire,
    reverse_host,
)


@implementer(IStreamClientEndpoint)
class Endpoint:
    """An endpoint whose dials the test answers."""

    def __init__(self) -> None:
        self.cancelled = 0
        self.dials: list[Deferred[IProtocol]] = []

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        dial: Deferred[IProtocol] = Deferred(self.cancel)
        self.dials.append(dial)
        return dial

    def cancel(self, dial: Deferred[IProtocol]) -> None:
        self.cancelled += 1


class HostTests(SynchronousTestCase):
    def test_weight(self) -> None:
        """Weights are brought into MOSN's range."""
        self.assertEqual([clamp_weight(weight) for weight in (-1, 0, 1, 128, 129)], [1, 1, 1, 128, 128])
        self.assertEqual(FakeHost("h", weight=4_294_967_295).weight, 128)

    def test_state(self) -> None:
        """The state is one word for logs."""
        host: Host = FakeHost("h")
        self.assertEqual(host.state, "idle")
        host.active = 1
        self.assertEqual(host.state, "busy")
        host.healthy = False
        self.assertEqual(host.state, "unhealthy")
        host.retire()
        self.assertEqual(host.state, "retired")
        host.close("test")
        self.assertEqual(host.state, "closed")

    def test_connections(self) -> None:
        """Connections are counted, and bounded if the cluster says so."""
        host = FakeHost("h")
        for _ in range(3):
            self.assertTrue(host.may_connect())
            host.connection_opened()
        self.assertEqual(host.connections, 3)
        host.max_connections = 3
        self.assertFalse(host.may_connect())
        host.connection_closed()
        self.assertTrue(host.may_connect())
        self.assertEqual(host.connections, 2)

    def test_connect_check(self) -> None:
        """A health check connects as requests do, where nothing else is known."""
        user = self.successResultOf(FakeHost("h").connect_check(Users()))
        self.assertIsInstance(user, User)

    def test_pools(self) -> None:
        """Pools are drained when the host retires, and closed once with it."""
        host, pool = FakeHost("h"), Pool()
        host.pools["Http1"] = pool
        self.assertTrue(host.usable())
        host.retire()
        self.assertFalse(host.usable())
        host.close("test")
        host.close("test")
        self.assertEqual(pool.events, ["drain", "close"])
        self.assertEqual(host.pools, {})


class StaticHostTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.endpoint = Endpoint()
        config = HostConfig(address="10.0.0.1:80", hostname="one", weight=200, metadata={"zone": "a"})
        self.host = StaticHost(config, self.endpoint, self.clock, connect_timeout=3.0)

    def test_attributes(self) -> None:
        """They come from the configuration."""
        self.assertTrue(verifyObject(IHost, self.host))
        self.assertEqual(
            (self.host.address, self.host.hostname, self.host.weight, dict(self.host.metadata)),
            ("10.0.0.1:80", "one", 128, {"zone": "a"}),
        )
        self.assertIsNone(self.host.capacity)
        self.assertFalse(self.host.is_reverse)
        self.assertFalse(self.host.exclusive)
        self.assertEqual(repr(self.host), "<StaticHost 10.0.0.1:80 idle>")

    def test_connected(self) -> None:
        """A dial that succeeds gives the protocol, and leaves no timer."""
        user = User()
        dial = self.host.connect(Users())
        self.endpoint.dials[0].callback(user)
        self.assertIs(self.successResultOf(dial), user)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_refused(self) -> None:
        """A dial that fails gives the endpoint's error."""
        dial = self.host.connect(Users())
        self.endpoint.dials[0].errback(ConnectError())
        self.failureResultOf(dial, ConnectError)

    def test_timeout(self) -> None:
        """A dial that takes too long is cancelled, with an error that says so."""
        dial = self.host.connect(Users())
        self.clock.advance(2.9)
        self.assertNoResult(dial)
        self.clock.advance(0.2)
        error = self.failureResultOf(dial, ConnectionUnavailable).value
        self.assertEqual(str(error), "10.0.0.1:80 was not connected within 3 s")
        self.assertEqual(self.endpoint.cancelled, 1)

    def test_cancelled(self) -> None:
        """A client that goes away ends the dial."""
        dial = self.host.connect(Users())
        dial.cancel()
        self.failureResultOf(dial, CancelledError)
        self.assertEqual(self.endpoint.cancelled, 1)
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_one_of_several_addresses(self) -> None:
        """A host may be at one of the addresses of a name."""
        config = HostConfig(address="service.example:80", weight=7)
        host = StaticHost(config, Endpoint(), Clock(), address="10.0.0.1:80")
        self.assertEqual((host.address, host.weight), ("10.0.0.1:80", 7))

    def test_checked_elsewhere(self) -> None:
        """Health checks may go to an endpoint of their own."""
        endpoint, check = Endpoint(), Endpoint()
        config = HostConfig(address="10.0.0.1:80")
        host = StaticHost(config, endpoint, Clock(), check_endpoint=check)
        host.connect_check(Users()).addErrback(lambda _: None)
        self.assertEqual((len(endpoint.dials), len(check.dials)), (0, 1))
        host.connect(Users()).addErrback(lambda _: None)
        self.assertEqual((len(endpoint.dials), len(check.dials)), (1, 1))
        host.close("test")
        self.failureResultOf(host.connect_check(Users()), HostGone)

    def test_retired(self) -> None:
        """A request that got the host before it retired may still connect."""
        self.host.retire()
        self.assertNoResult(self.host.connect(Users()))

    def test_closed(self) -> None:
        """A closed host does not dial."""
        self.host.close("test")
        self.failureResultOf(self.host.connect(Users()), HostGone)
        self.assertEqual(self.endpoint.dials, [])


class ReverseHostCase(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.gone = Gone()

    def make(self, **options: Any) -> tuple[ReverseHost, Wire]:
        return reverse_host(self.gone, self.clock, **options)


class LeaseTests(ReverseHostCase):
    def test_attributes(self) -> None:
        """It carries one request, and is expected to come back."""
        host, _ = self.make()
        self.assertTrue(verifyObject(IHost, host))
        self.assertEqual(
            (host.address, host.hostname, host.weight, dict(host.metadata)),
            ("10.0.0.7:50000", "edge", 10, {"zone": "a"}),
        )
        self.assertEqual(host.capacity, 1)
        self.assertTrue(host.is_reverse)
        self.assertTrue(host.exclusive)
        self.assertEqual(host.state, "idle")
        self.assertEqual(self.make(capacity=None)[0].capacity, None)

    def test_lease(self) -> None:
        """The protocol has the connection, with no layer in between, until it is lost."""
        host, wire = self.make()
        users = Users()
        user = self.successResultOf(host.connect(users))
        self.assertIs(user, users.made[0])
        self.assertEqual(host.state, "leased")
        self.assertEqual(wire.protocol.dataReceived, user.dataReceived)
        wire.receive(b"answer")
        self.assertEqual(users.numPorts, 1)
        wire.lose()
        self.assertEqual(users.numPorts, 0)
        self.assertEqual(user.events, ["made", b"answer", "lost"])
        self.assertEqual(host.state, "closed")
        self.assertEqual(len(self.gone.reasons), 1)
        self.assertIn("connection lost", self.gone.reasons[0])

    def test_exclusive(self) -> None:
        """While it is leased to a busy protocol, nobody else gets it."""
        host, _ = self.make()
        self.successResultOf(host.connect(Users()))
        self.failureResultOf(host.connect(Users()), HostGone)
        host, _ = self.make()
        user = self.successResultOf(host.connect(Users(IdleUser)))
        user.idle = False
        self.failureResultOf(host.connect(Users()), HostGone)

    def test_taken_from_idle(self) -> None:
        """An idle protocol that can gives it up for the next one."""
        host, wire = self.make()
        idle_users = Users(IdleUser)
        idle = self.successResultOf(host.connect(idle_users))
        user = self.successResultOf(host.connect(Users()))
        self.assertEqual(idle_users.numPorts, 0)
        wire.receive(b"answer")
        wire.lose()
        self.assertEqual(idle.events, ["made", "detached"])
        self.assertEqual(user.events, ["made", b"answer", "lost"])

    def test_one_connection(self) -> None:
        """There is one connection, always, and it may always be leased."""
        host, _ = self.make()
        host.max_connections = 1
        host.connection_opened()
        self.assertTrue(host.may_connect())
        self.assertEqual(host.connections, 1)
        host.connection_closed()
        self.assertEqual(host.connections, 1)

    def test_take_back(self) -> None:
        """It can be taken back from a user who is idle."""
        host, _ = self.make()
        self.assertTrue(host.take_back())
        user = self.successResultOf(host.connect(Users(IdleUser)))
        assert isinstance(user, IdleUser)
        user.idle = False
        self.assertFalse(host.take_back())
        user.idle = True
        self.assertTrue(host.take_back())
        self.assertEqual(host.state, "idle")

    def test_not_attached(self) -> None:
        """Before it has the connection, it can't be leased."""
        wire = Wire(Handover())
        host = ReverseHost("a", "", 1, None, wire, self.gone, clock=self.clock)
        self.failureResultOf(host.connect(Users()), HostGone)
        host.close("test")
        self.assertTrue(wire.disconnecting)

    def test_lost(self) -> None:
        """A lost connection can't be leased."""
        host, wire = self.make()
        wire.lose()
        users = Users()
        self.failureResultOf(host.connect(users), HostGone)
        self.assertEqual(users.made, [])
        self.assertEqual(len(self.gone.reasons), 1)

    def test_no_protocol(self) -> None:
        """A factory may change its mind; the connection stays."""
        host, wire = self.make()
        users = Users(lambda: None)
        self.failureResultOf(host.connect(users), HostGone)
        self.assertEqual(users.numPorts, 0)
        self.assertFalse(wire.disconnecting)
        self.successResultOf(host.connect(Users()))

    def test_broken_protocol(self) -> None:
        """A protocol that raises as it is connected costs the connection and nothing else."""

        class Broken(User):
            def connectionMade(self) -> None:
                raise RuntimeError("broken")

        host, wire = self.make()
        self.failureResultOf(host.connect(Users(Broken)), RuntimeError)
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(wire.aborted)
        self.assertTrue(host.closed)
        self.assertEqual(self.gone.reasons, ["protocol failed: broken"])


class EarlyTests(ReverseHostCase):
    def test_delivered(self) -> None:
        """What a backend says first is there for the first protocol, once."""
        host, wire = self.make(surplus=b"220 ")
        wire.receive(b"ready\r\n")
        user = self.successResultOf(host.connect(Users()))
        wire.receive(b"250 ok\r\n")
        self.assertEqual(user.events, ["made", b"220 ready\r\n", b"250 ok\r\n"])

    def test_bounded(self) -> None:
        """Beyond the limit, reading is paused until the lease."""
        host, wire = self.make(max_early_bytes=10)
        wire.receive(b"x" * 10)
        self.assertTrue(wire.reading)
        wire.receive(b"y")
        self.assertFalse(wire.reading)
        wire.receive(b"z")  # what a TLS transport had decrypted already
        user = self.successResultOf(host.connect(Users()))
        self.assertTrue(wire.reading)
        self.assertEqual(user.events, ["made", b"x" * 10 + b"yz"])

    def test_paused_by_user(self) -> None:
        """A user that pauses the connection on its early bytes finds it paused."""

        class Slow(User):
            def dataReceived(self, data: bytes) -> None:
                self.transport.pauseProducing()  # type: ignore[union-attr]

        host, wire = self.make(max_early_bytes=2, surplus=b"early")
        self.assertFalse(wire.reading)
        self.successResultOf(host.connect(Users(Slow)))
        self.assertFalse(wire.reading)

    def test_read_at_resume(self) -> None:
        """A transport that delivers as it is resumed keeps the order of bytes."""
        host, wire = self.make(max_early_bytes=2, surplus=b"one ")

        def resume() -> None:
            wire.receive(b"two")

        wire.resumeProducing = resume  # type: ignore[method-assign]
        user = self.successResultOf(host.connect(Users()))
        self.assertEqual(user.events, ["made", b"one two"])

    def test_lost_at_resume(self) -> None:
        """A transport that finds out at the resumption that it is lost fails the lease."""
        host, wire = self.make(max_early_bytes=2, surplus=b"early")
        wire.resumeProducing = wire.lose  # type: ignore[method-assign, assignment]
        users = Users()
        self.failureResultOf(host.connect(users), HostGone)
        self.assertEqual(users.made[0].events, [])
        self.assertEqual(users.numPorts, 0)

    def test_unsolicited(self) -> None:
        """After a lease, bytes that nobody asked for cost the connection."""
        host, wire = self.make()
        self.successResultOf(host.connect(Users(IdleUser)))
        self.failureResultOf(host.connect(Users(lambda: None)), HostGone)
        wire.receive(b"HTTP/1.1 200 OK\r\n")
        self.assertTrue(host.closed)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.gone.reasons, ["data came while the connection was idle"])


class EndTests(ReverseHostCase):
    def test_end_while_held(self) -> None:
        """An end-of-file on a held connection closes it."""
        host, wire = self.make()
        wire.end()
        self.assertTrue(host.closed)
        self.assertTrue(wire.disconnecting)
        self.assertEqual(self.gone.reasons, ["the agent closed its side"])
        wire.lose()
        self.assertEqual(len(self.gone.reasons), 1)

    def test_end_while_leased(self) -> None:
        """A session may go on after an end-of-file, but no other begins."""
        host, wire = self.make()
        user = self.successResultOf(host.connect(Users(HalfUser)))
        wire.end()
        self.assertEqual(user.events, ["made", "read lost"])
        self.assertEqual(self.gone.reasons, ["the agent closed its side"])
        self.assertFalse(host.closed)
        self.failureResultOf(host.connect(Users()), HostGone)
        wire.lose()
        self.assertTrue(host.closed)
        self.assertEqual(len(self.gone.reasons), 1)

    def test_order(self) -> None:
        """The host is gone before its user hears of it; pools close last."""
        events: list[object] = []

        class Witness(User):
            def connectionLost(self, reason: object = None) -> None:
                events.append("user")

        class WitnessPool(Pool):
            def close(self) -> None:
                events.append("pool")

        host, wire = reverse_host(lambda host, reason: events.append(host.state), self.clock)
        host.pools["Http1"] = WitnessPool()
        self.successResultOf(host.connect(Users(Witness)))
        wire.lose()
        self.assertEqual(events, ["closed", "user", "pool"])
        self.assertEqual(host.pools, {})

    def test_usable(self) -> None:
        """A host whose user closes its connection is gone before the connection is."""
        host, wire = self.make()
        self.assertTrue(host.usable())
        self.successResultOf(host.connect(Users()))
        wire.loseConnection()
        self.assertFalse(host.usable())
        self.assertEqual(self.gone.reasons, ["its connection is being closed"])
        self.failureResultOf(host.connect(Users()), HostGone)

    def test_memory(self) -> None:
        """Early bytes are not kept after a loss."""
        host, wire = self.make(surplus=b"early")
        wire.lose()
        self.assertEqual(host._held._early, [])


class CloseTests(ReverseHostCase):
    def test_held(self) -> None:
        """A held connection is closed in order."""
        host, wire = self.make()
        pool = host.pools["Http1"] = Pool()
        host.close("test")
        host.close("again")
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.aborted)
        self.assertEqual(self.gone.reasons, ["test"])
        self.assertEqual(pool.events, ["close"])
        wire.lose()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_deadline(self) -> None:
        """A peer that does not agree to the close is left at a deadline."""
        host, wire = self.make(close_timeout=2.0)
        host.close("test")
        self.clock.advance(2.0)
        self.assertTrue(wire.aborted)
        wire.lose()

    def test_lost_at_once(self) -> None:
        """A transport may be lost within loseConnection."""
        host, wire = self.make()
        wire.loseConnection = wire.lose  # type: ignore[method-assign, assignment]
        host.close("test")
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.assertEqual(self.gone.reasons, ["test"])

    def test_idle_user(self) -> None:
        """A connection whose user is idle is closed in order, too."""
        host, wire = self.make()
        user = self.successResultOf(host.connect(Users(IdleUser)))
        host.close("test")
        self.assertEqual(user.events, ["made", "detached"])
        self.assertTrue(wire.disconnecting)
        self.assertFalse(wire.aborted)

    def test_busy_user(self) -> None:
        """A busy one is aborted."""
        host, wire = self.make()
        user = self.successResultOf(host.connect(Users()))
        host.close("test")
        self.assertTrue(wire.aborted)
        wire.lose()
        self.assertEqual(user.events, ["made", "lost"])


class RetireTests(ReverseHostCase):
    def test_held(self) -> None:
        """An unused connection is closed at once."""
        host, wire = self.make()
        host.retire()
        self.assertTrue(host.closed)
        self.assertTrue(wire.disconnecting)
        host.retire()

    def test_idle_user(self) -> None:
        """So is one whose user is idle."""
        host, wire = self.make()
        self.successResultOf(host.connect(Users(IdleUser)))
        host.retire()
        self.assertTrue(wire.disconnecting)

    def test_busy_user(self) -> None:
        """A busy one goes on, until its user closes it."""
        host, wire = self.make()
        pool = host.pools["Http1"] = Pool()
        user = self.successResultOf(host.connect(Users(IdleUser)))
        user.idle = False
        host.retire()
        self.assertFalse(wire.disconnecting)
        self.assertEqual(pool.events, ["drain"])
        self.assertFalse(host.usable())
        user.idle = True
        host.retire()
        self.assertTrue(wire.disconnecting)
        self.assertEqual(pool.events, ["drain", "drain", "close"])

    def test_acquired(self) -> None:
        """A request that has the host, but has not connected yet, still can."""
        host, wire = self.make()
        host.active = 1
        host.retire()
        self.assertFalse(wire.disconnecting)
        self.successResultOf(host.connect(Users()))
