"""Tests for L{reverseproxy.tunnel.agent.link}."""

from __future__ import annotations

import gc
import weakref
from functools import partial
from itertools import pairwise
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.address import UNIXAddress
from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IHalfCloseableProtocol
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase
from zope.interface import implementer
from zope.interface.verify import verifyObject

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.errors import (
    ConnectionUnavailable,
    FrameError,
    FrameTooLarge,
    HandshakePostponed,
    HandshakeRefused,
)
from reverseproxy.interfaces import ConnectionInfo, IConnectionSink, IDrainable
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.transport.closing import LINGER
from reverseproxy.tunnel.agent import link as link_module
from reverseproxy.tunnel.agent.link import AgentLink
from reverseproxy.tunnel.agent.redial import EndedUnused
from reverseproxy.wire.mosn.extensions import ServerAnnouncement
from reverseproxy.wire.mosn.frames import ConnectionInit, GracefulClose, InitResponse, Status, encode
from tests.tunnel.logged import capture
from tests.tunnel.memory import INIT, SUCCESS, AgentWire


@implementer(IDrainable)
class Hosted(Protocol):
    """What a hosting listener makes of a connection; it records."""

    transport: Any

    def __init__(self) -> None:
        self.events: list[object] = []
        self.busy = False

    def connectionMade(self) -> None:
        self.events.append("made")

    def dataReceived(self, data: bytes) -> None:
        self.events.append(data)

    def drain(self) -> None:
        self.events.append("drain")

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.events.append("lost")


@implementer(IHalfCloseableProtocol)
class HalfCloseable(Hosted):
    """One that goes on when the server sends no more."""

    def readConnectionLost(self) -> None:
        self.events.append("end")

    def writeConnectionLost(self) -> None:
        self.events.append("sent")


@implementer(IConnectionSink)
class Sink:
    """A hosting listener."""

    name = "hosting"

    def __init__(self, make: Any = Hosted) -> None:
        self.make = make
        self.infos: list[ConnectionInfo] = []
        self.built: list[Any] = []

    def build_protocol(self, info: ConnectionInfo) -> Any:
        self.infos.append(info)
        protocol = self.make()
        self.built.append(protocol)
        return protocol


class Bench:
    """A link on a connection, with a server that the test plays."""

    def __init__(self, sink: Sink | None = None, init: ConnectionInit | None = None) -> None:
        self.clock = Clock()
        self.sink = sink or Sink()
        self.init = init or ConnectionInit("clientCluster")
        self.told: list[str] = []
        self.addresses: list[str] = []
        self.link = AgentLink(self.make_init, self.sink, self.clock, 15.0, secure=False)
        self.link.lost = lambda reason: self.told.append("lost")
        self.wire = AgentWire(self.clock)
        self.wire.connect(self.link)

    def make_init(self, local_address: str) -> ConnectionInit:
        self.addresses.append(local_address)
        return self.init

    def greet(self) -> Deferred[None]:
        greeting = self.link.greet()
        greeting.addCallback(lambda _: self.told.append("accepted"))
        return greeting

    @property
    def hosted(self) -> Any:
        return self.sink.built[-1]

    def serve(self) -> Any:
        """Bring the link to where the hosted protocol has it."""
        self.greet()
        self.wire.send(SUCCESS)
        return self.hosted

    def turn(self, seconds: float = 0.0) -> None:
        self.clock.advance(seconds)
        self.clock.advance(0)


class GreetingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def refused(self, bench: Bench, greeting: Deferred[None], kind: type[Exception]) -> str:
        """The greeting has failed, and nothing is left of the link."""
        reason = self.failureResultOf(greeting, kind).getErrorMessage()
        self.assertTrue(bench.wire.aborted)
        bench.turn()
        self.assertTrue(bench.wire.lost)
        self.assertEqual(bench.sink.built, [])
        self.assertEqual(bench.told, [])
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        return reason

    def test_the_sink_is_one(self) -> None:
        verifyObject(IConnectionSink, Sink())

    def test_nothing_is_sent_before_the_greeting(self) -> None:
        self.assertEqual(bytes(self.bench.wire.written), b"")

    def test_the_connection_is_tuned(self) -> None:
        tuned: list[tuple[Any, float]] = []
        self.patch(link_module, "tune", lambda *arguments: tuned.append(arguments))
        bench = self.bench
        link = AgentLink(bench.make_init, bench.sink, bench.clock, 15.0, False, 20.0)
        wire = AgentWire(bench.clock)
        wire.connect(link)
        self.assertEqual(tuned, [(wire, 20.0)])

    def test_the_init_frame_is_mosns_byte_for_byte(self) -> None:
        self.bench.greet()
        self.assertEqual(bytes(self.bench.wire.written), INIT)
        self.assertEqual(self.bench.addresses, ["192.168.0.2:50000"])

    def test_success(self) -> None:
        bench = self.bench
        greeting = bench.greet()
        self.assertNoResult(greeting)
        bench.wire.send(SUCCESS)
        self.successResultOf(greeting)
        self.assertEqual(bench.hosted.events, ["made"])
        self.assertIs(bench.hosted.transport, bench.wire)
        self.assertEqual(
            bench.sink.infos,
            [ConnectionInfo(remote="10.0.0.1:9999", local="192.168.0.2:50000", reverse=True)],
        )
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        self.assertFalse(bench.link.server_announced)
        self.assertFalse(bench.link.used)

    def test_the_slot_hears_of_the_success_before_the_hosted_protocol_is_built(self) -> None:
        bench = self.bench
        told: list[str] = []

        def make() -> Hosted:
            told.extend(bench.told)
            return Hosted()

        bench.sink.make = make
        bench.serve()
        self.assertEqual(told, ["accepted"])

    @given(cuts=st.lists(st.integers(0, len(SUCCESS) + 8), max_size=8), surplus=st.binary(max_size=8))
    def test_any_chunking_and_the_surplus_exactly_once(self, cuts: list[int], surplus: bytes) -> None:
        bench = Bench()
        greeting = bench.greet()
        data = SUCCESS + surplus
        edges = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
        for start, end in pairwise(edges):
            bench.wire.send(data[start:end])
        self.successResultOf(greeting)
        made, *received = bench.hosted.events
        self.assertEqual(made, "made")
        self.assertEqual(b"".join(received), surplus)
        self.assertEqual(bench.link.used, bool(surplus))
        bench.wire.send(b"more")
        self.assertEqual(bench.hosted.events[-1], b"more")

    def test_our_server_announces_itself(self) -> None:
        self.bench.greet()
        self.bench.wire.send(encode(InitResponse(Status.SUCCESS, ServerAnnouncement().to_extra())))
        self.assertTrue(self.bench.link.server_announced)

    def test_failure_statuses(self) -> None:
        for status in (0, 2, 3, 4, 77, -1):
            bench = Bench()
            greeting = bench.greet()
            bench.wire.send(encode(InitResponse(Status(status))))
            reason = self.refused(bench, greeting, HandshakeRefused)
            self.assertEqual(reason, Status(status).meaning)

    def test_a_busy_server(self) -> None:
        greeting = self.bench.greet()
        extra = ServerAnnouncement(retry_after=2500).to_extra()
        self.bench.wire.send(encode(InitResponse(Status.UNKNOWN, extra)))
        error = self.failureResultOf(greeting, HandshakePostponed).value
        self.assertEqual((error.status, error.retry_after), (Status.UNKNOWN, 2.5))
        self.assertEqual(str(error), "the server asks to come back in 2.5 s")
        self.assertTrue(self.bench.wire.closed)

    def test_garbage(self) -> None:
        greeting = self.bench.greet()
        self.bench.wire.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        self.assertIn("HTTP server", self.refused(self.bench, greeting, FrameError))

    def test_garbage_in_pieces_is_one_failure(self) -> None:
        greeting = self.bench.greet()
        self.bench.link.dataReceived(b"x")
        self.bench.link.dataReceived(b"yz")
        self.refused(self.bench, greeting, FrameError)

    def test_another_kind_of_frame(self) -> None:
        for frame in (ConnectionInit("clientCluster"), GracefulClose((), "clientCluster")):
            bench = Bench()
            greeting = bench.greet()
            bench.wire.send(encode(frame))
            self.refused(bench, greeting, FrameError)

    def test_a_bad_payload(self) -> None:
        greeting = self.bench.greet()
        self.bench.wire.send(b'\x20\x88\x01\x02\x02\x00\x00\x0e{"status":"1"}')
        self.refused(self.bench, greeting, FrameError)

    def test_no_answer(self) -> None:
        greeting = self.bench.greet()
        self.bench.wire.send(SUCCESS[:-1])
        self.bench.clock.advance(14.9)
        self.assertNoResult(greeting)
        self.bench.clock.advance(0.2)
        self.assertIn("15 s", self.refused(self.bench, greeting, ConnectionUnavailable))

    def test_an_answer_that_has_come_and_is_not_read(self) -> None:
        # We are late, not the server: thousands of others had their turn first.
        self.patch(link_module, "was_heard", lambda transport, since: True)
        self.bench.greet()
        self.bench.clock.advance(15.1)
        self.bench.clock.advance(1.0)
        self.bench.wire.send(SUCCESS)
        self.assertEqual(self.bench.told, ["accepted"])

    def test_the_end_of_the_greeting_is_told(self) -> None:
        for answer in (SUCCESS, b"rubbish" * 10):
            bench = Bench()
            told: list[str] = []
            bench.link.greeted = partial(told.append, "over")
            bench.greet().addErrback(lambda _: None)
            self.assertEqual(told, [])
            bench.wire.send(answer)
            self.assertTrue(told)
        self.bench.link.greeted = partial(told.append, "lost")
        self.bench.wire.reset()
        self.assertEqual(told[-1], "lost")

    def test_lost_while_greeting(self) -> None:
        greeting = self.bench.greet()
        self.bench.wire.reset(ConnectionLost("cable"))
        reason = self.failureResultOf(greeting, ConnectionUnavailable).getErrorMessage()
        self.assertIn("cable", reason)
        self.assertEqual(self.bench.told, [])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_a_lost_link_is_no_garbage(self) -> None:
        """It is freed at once, during the handshake and later, without the garbage collector."""
        gc.disable()
        self.addCleanup(gc.enable)
        for accepted in (False, True):
            bench = Bench()
            greeting = bench.greet()
            if accepted:
                bench.wire.send(SUCCESS)
            bench.wire.reset()
            if not accepted:
                self.failureResultOf(greeting, ConnectionUnavailable)
            gone = weakref.ref(bench.link)
            del bench.link
            bench.wire.protocol = None
            self.assertIsNone(gone())

    def test_lost_before_the_greeting(self) -> None:
        self.bench.wire.reset()
        self.assertTrue(self.bench.link.gone)
        self.failureResultOf(self.bench.greet(), ConnectionUnavailable)
        self.bench.link.close()  # harmless
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_a_server_that_speaks_before_it_is_greeted(self) -> None:
        self.bench.wire.send(SUCCESS)
        self.assertTrue(self.bench.wire.aborted)
        self.assertEqual(self.bench.sink.built, [])

    def test_cancelled(self) -> None:
        greeting = self.bench.greet()
        greeting.cancel()
        self.assertTrue(self.bench.wire.aborted)
        self.failureResultOf(greeting, CancelledError)
        # Whatever the server sent before it saw that is nobody's.
        self.bench.link.dataReceived(SUCCESS)
        self.bench.turn()
        self.assertTrue(self.bench.link.gone)
        self.assertEqual(self.bench.sink.built, [])
        self.assertEqual(self.bench.told, [])
        self.assertEqual(self.bench.clock.getDelayedCalls(), [])

    def test_an_init_frame_that_can_t_be_made_is_a_failed_attempt(self) -> None:
        bench = Bench(init=ConnectionInit("clientCluster", credential="x" * 65536))
        self.assertIn("credential", self.refused(bench, bench.greet(), FrameTooLarge))
        self.assertEqual(bytes(bench.wire.written), b"")

    def test_a_unix_socket(self) -> None:
        bench = self.bench
        link = AgentLink(bench.make_init, bench.sink, bench.clock, 15.0, secure=False)
        wire = AgentWire(bench.clock)
        wire.getHost = lambda: UNIXAddress(None)  # type: ignore[method-assign]
        wire.connect(link)
        self.assertEqual(link.local_address, "unix:")


class HostingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def test_the_hosted_protocol_has_everything_that_follows(self) -> None:
        hosted = self.bench.serve()
        self.bench.wire.send(b"request")
        hosted.transport.write(b"response")
        self.bench.wire.reset()
        self.assertEqual(hosted.events, ["made", b"request", "lost"])
        self.assertEqual(bytes(self.bench.wire.written), INIT + b"response")
        self.assertEqual(self.bench.told, ["accepted", "lost"])

    def test_used_by_the_first_byte(self) -> None:
        hosted = self.bench.serve()
        self.assertFalse(self.bench.link.used)
        self.bench.wire.send(b"x")
        self.assertTrue(self.bench.link.used)
        self.bench.wire.send(b"y")
        self.assertEqual(hosted.events, ["made", b"x", b"y"])
        # The mark is made once and costs later reads nothing.
        self.assertEqual(self.bench.link.dataReceived, hosted.dataReceived)

    def test_used_though_the_hosted_protocol_receives_elsewhere_by_now(self) -> None:
        class Rebinding(Rebindable):
            def __init__(self) -> None:
                self.received: list[bytes] = []

        bench = Bench(Sink(Rebinding))
        hosted = bench.serve()
        hosted.rebind(hosted.received.append)
        self.assertFalse(bench.link.used)
        bench.wire.send(b"first")
        self.assertTrue(bench.link.used)
        hosted.rebind(lambda data: hosted.received.append(data.upper()))
        bench.wire.send(b"second")
        self.assertEqual(hosted.received, [b"first", b"SECOND"])

    def test_used_by_a_relay(self) -> None:
        clock = Clock()
        bench = Bench(Sink(lambda: RelayEnd(clock)))
        hosted = bench.serve()
        backend = RelayEnd(clock)
        service = AgentWire(clock).connect(backend)
        couple(hosted, backend)
        self.assertFalse(bench.link.used)
        bench.wire.send(b"hello")
        self.assertTrue(bench.link.used)
        self.assertEqual(bytes(service.written), b"hello")

    def test_busy_and_drain(self) -> None:
        self.assertFalse(self.bench.link.busy)
        self.bench.link.drain()  # nothing is hosted yet
        hosted = self.bench.serve()
        self.assertFalse(self.bench.link.busy)
        hosted.busy = True
        self.assertTrue(self.bench.link.busy)
        self.bench.link.drain()
        self.assertEqual(hosted.events, ["made", "drain"])

    def test_a_hosted_protocol_that_can_t_drain_is_never_busy(self) -> None:
        bench = Bench(Sink(Protocol))
        bench.serve()
        self.assertFalse(bench.link.busy)
        bench.link.drain()
        self.assertFalse(bench.wire.closed)

    def test_close_sends_what_was_written(self) -> None:
        bench = self.bench
        hosted = bench.serve()
        bench.wire.automatic = False
        hosted.transport.write(b"the end of a response")
        bench.link.close()
        bench.link.close()
        bench.turn(LINGER - 1)
        self.assertFalse(bench.wire.lost)
        bench.wire.receive()
        bench.turn()
        self.assertTrue(bench.wire.lost)
        self.assertFalse(bench.wire.aborted)
        self.assertEqual(bench.told, ["accepted", "lost"])
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_close_of_a_peer_that_never_reads(self) -> None:
        bench = self.bench
        hosted = bench.serve()
        bench.wire.automatic = False
        hosted.transport.registerProducer(object(), True)
        hosted.transport.write(b"x")
        bench.link.close()
        bench.turn(LINGER)
        self.assertTrue(bench.wire.aborted)
        self.assertTrue(bench.wire.lost)
        self.assertEqual(bench.told, ["accepted", "lost"])

    def test_the_hosted_protocol_closes_at_once(self) -> None:
        class Closing(Hosted):
            def connectionMade(self) -> None:
                super().connectionMade()
                self.transport.loseConnection()

        bench = Bench(Sink(Closing))
        bench.greet()
        bench.wire.send(SUCCESS + b"surplus")
        bench.turn()
        self.assertEqual(bench.hosted.events, ["made", "lost"])
        self.assertEqual(bench.told, ["accepted", "lost"])

    def test_half_close_of_the_server(self) -> None:
        hosted = self.bench.serve()
        self.bench.wire.end()
        self.bench.turn()
        self.assertEqual(hosted.events, ["made", "lost"])
        self.assertEqual(self.bench.told, ["accepted", "lost"])

    def half_closed(self, make: Any, may_leave: bool) -> tuple[Bench, list[str]]:
        """Let a server send no more while something is under way."""
        bench = Bench(Sink(make))
        told = bench.told
        bench.link.leaving = lambda link: told.append("leaving")
        bench.link.parted = lambda link: told.append("parted")
        bench.link.may_leave = lambda: may_leave
        bench.serve().busy = True
        bench.wire.end()
        bench.turn()
        self.assertFalse(bench.wire.lost)
        return bench, told

    def test_half_close_while_something_is_under_way(self) -> None:
        """The slot does not wait for the answer to a server that may be gone."""
        bench, told = self.half_closed(HalfCloseable, True)
        self.assertEqual(told, ["accepted", "leaving", "lost"])
        bench.wire.reset()
        self.assertEqual(told, ["accepted", "leaving", "lost", "parted"])

    def test_half_close_while_others_are_leaving(self) -> None:
        bench, told = self.half_closed(HalfCloseable, False)
        self.assertEqual(told, ["accepted"])
        bench.wire.reset()
        self.assertEqual(told, ["accepted", "lost", "parted"])

    def test_half_close_while_nothing_is_under_way(self) -> None:
        """A protocol that closes because of it is busy with that, and nobody waits for anything."""

        class Closing(HalfCloseable):
            def readConnectionLost(self) -> None:
                super().readConnectionLost()
                self.busy = True
                self.transport.loseConnection()

        bench = Bench(Sink(Closing))
        reasons: list[Failure] = []
        bench.link.leaving = lambda link: bench.told.append("leaving")
        bench.link.may_leave = lambda: True
        bench.serve()
        bench.link.lost = reasons.append
        bench.wire.end()
        bench.turn()
        self.assertEqual(bench.told, ["accepted"])
        self.assertEqual([reason.type for reason in reasons], [EndedUnused])

    def test_half_close_of_a_session(self) -> None:
        """It is the client's, who uses the connection up."""

        class Session(RelayEnd):
            busy = False

        _, told = self.half_closed(lambda: Session(Clock()), True)
        self.assertEqual(told, ["accepted"])


class FailingTests(SynchronousTestCase):
    """Whatever a hosted protocol does wrong costs its link only, and the slot hears of the loss."""

    def fail_with(self, sink: Sink, data: bytes = SUCCESS) -> Bench:
        bench = Bench(sink)
        with capture() as events:
            bench.greet()
            bench.wire.send(data)
            bench.turn()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertIn("listener hosting", events.text())
        self.assertIn("10.0.0.1:9999", events.text())
        self.assertTrue(bench.wire.lost)
        self.assertEqual(bench.told, ["accepted", "lost"])
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        return bench

    def test_build(self) -> None:
        def make() -> Any:
            raise ZeroDivisionError

        self.fail_with(Sink(make))

    def test_connection_made(self) -> None:
        class Failing(Hosted):
            def connectionMade(self) -> None:
                raise ZeroDivisionError

        bench = self.fail_with(Sink(Failing))
        self.assertEqual(bench.hosted.events, ["lost"])

    def test_the_surplus(self) -> None:
        class Failing(Hosted):
            def dataReceived(self, data: bytes) -> None:
                raise ZeroDivisionError

        bench = self.fail_with(Sink(Failing), SUCCESS + b"x")
        self.assertEqual(bench.hosted.events, ["made", "lost"])

    def test_connection_lost(self) -> None:
        class Failing(Hosted):
            def connectionLost(self, reason: Failure = connectionDone) -> None:
                raise ZeroDivisionError

        bench = Bench(Sink(Failing))
        bench.serve()
        bench.wire.reset()
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.assertEqual(bench.told, ["accepted", "lost"])
