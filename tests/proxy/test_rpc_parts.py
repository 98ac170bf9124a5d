"""Tests for the parts of an RPC client's connection: its timeouts, draining and output buffer."""

from __future__ import annotations

from math import inf
from typing import Any, cast

from twisted.internet.defer import CancelledError
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HostGone
from reverseproxy.limits.buffered_bytes import FREE, BufferBudget
from reverseproxy.proxy.closing import FRESH, QUIET
from reverseproxy.proxy.connection_pool import Keepalive
from reverseproxy.proxy.rpc import answers as rpc_answers
from reverseproxy.proxy.rpc import under_way
from reverseproxy.proxy.rpc.answers import STALL, WRITE_SIZE, Answers
from reverseproxy.proxy.rpc.draining import DRAIN_GRACE, ConnectionDrain, DrainStage
from reverseproxy.proxy.rpc.heartbeats import HEARTBEAT_FAILURES, HEARTBEAT_IDLE, Heartbeats
from reverseproxy.proxy.rpc.in_flight import InFlight
from reverseproxy.proxy.rpc.interfaces import Batch
from reverseproxy.proxy.rpc.outgoing import Outgoing
from reverseproxy.proxy.rpc.read_timeouts import ExpiredTimeout, ReadTimeouts
from reverseproxy.proxy.rpc.under_way import UnderWay
from reverseproxy.transport.backlog import Backlog
from reverseproxy.transport.closing import CloseLimits
from tests.proxy.rpc_world import World


class LeavingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.looks = 0
        self.leaving = ConnectionDrain(self.clock, self.look)

    def look(self) -> None:
        self.looks += 1

    def test_nobody_wants_it_to_end(self) -> None:
        self.assertFalse(self.leaving.wanted)
        self.assertFalse(self.leaving.is_due(0.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_the_client_sends_no_more(self) -> None:
        self.leaving.eof = True
        self.assertTrue(self.leaving.wanted)
        self.assertTrue(self.leaving.is_due(0.0))

    def test_told(self) -> None:
        """It is left when nothing has come for a moment, which begins anew with what comes."""
        self.leaving.begin(told=True, bounded=False, heard_at=-100.0)
        self.assertFalse(self.leaving.is_due(0.0))
        self.clock.advance(0.9)
        self.leaving.answered()  # no matter
        self.assertFalse(self.leaving.is_due(0.5))
        self.clock.advance(0.1)
        self.assertEqual(self.looks, 1)
        self.assertFalse(self.leaving.is_due(0.5))
        self.clock.advance(0.5)
        self.assertEqual(self.looks, 2)
        self.assertTrue(self.leaving.is_due(0.5))
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_not_told(self) -> None:
        """Who has been silent for long is left at once, and others a moment after the last answer."""
        self.leaving.begin(told=False, bounded=False, heard_at=-FRESH)
        self.assertTrue(self.leaving.is_due(-FRESH))
        self.leaving.answered()
        self.assertFalse(self.leaving.is_due(-FRESH))
        self.clock.advance(QUIET)
        self.assertTrue(self.leaving.is_due(-FRESH))

    def test_fresh(self) -> None:
        self.leaving.begin(told=False, bounded=False, heard_at=0.1 - FRESH)
        self.assertFalse(self.leaving.is_due(0.1 - FRESH))
        self.clock.advance(QUIET)
        self.assertTrue(self.leaving.is_due(0.1 - FRESH))

    def test_bounded(self) -> None:
        """Requests that are refused put nothing off."""
        self.leaving.begin(told=True, bounded=True, heard_at=0.0)
        self.clock.advance(DRAIN_GRACE)
        self.assertEqual((self.looks, self.leaving.stage), (1, DrainStage.REFUSING))
        self.assertTrue(self.leaving.is_due(self.clock.seconds()))

    def test_hurry(self) -> None:
        self.leaving.begin(told=False, bounded=True, heard_at=0.0)
        self.leaving.answered()
        self.assertFalse(self.leaving.is_due(0.0))
        self.leaving.hurry()
        self.assertTrue(self.leaving.is_due(0.0))

    def test_it_ends(self) -> None:
        """It never goes back, and has no timers left."""
        self.leaving.begin(told=True, bounded=True, heard_at=0.0)
        self.leaving.is_due(0.0)
        self.leaving.end(DrainStage.CLOSING)
        self.assertTrue(self.leaving.over)
        self.assertFalse(self.leaving.is_due(0.0))
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.leaving.end(DrainStage.LOST)
        self.leaving.end(DrainStage.CLOSING)
        self.leaving.hurry()
        self.assertIs(self.leaving.stage, DrainStage.LOST)


class _Transport:
    """Takes everything, and says how much that is."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.producer: Any = None
        self.kept = 0

    def backlog(self) -> Backlog:
        return Backlog(self.kept, self.kept)

    def registerProducer(self, producer: object, streaming: bool) -> None:
        self.producer = producer

    def write(self, data: bytes) -> None:
        self.written.append(data)


class ReadTimeoutsTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.settings = World(idle_timeout=90.0, stream_idle=30.0, request_time=60.0).settings
        self.timeouts = ReadTimeouts(self.settings)

    def look(self, now: float, waits: bool = False, reading: bool = True) -> float | ExpiredTimeout:
        return self.timeouts.look(now, waits, reading, CloseLimits(), _Transport())

    def test_idle(self) -> None:
        self.assertEqual(self.look(10.0), 80.0)
        self.assertIs(self.look(90.0), ExpiredTimeout.IDLE)

    def test_a_request_is_under_way(self) -> None:
        self.assertEqual(self.look(500.0, waits=True), 90.0)

    def test_never_idle(self) -> None:
        self.settings = World(idle_timeout=None).settings
        self.timeouts = ReadTimeouts(self.settings)
        self.assertEqual(self.look(5000.0), inf)

    def test_a_frame_that_stops(self) -> None:
        self.timeouts.heard_at = 10.0
        self.assertEqual(self.timeouts.in_frame(10.0, False), 40.0)
        self.assertEqual(self.look(30.0), 10.0)
        self.assertIs(self.look(40.0), ExpiredTimeout.STREAM_IDLE)

    def test_a_frame_that_takes_for_ever(self) -> None:
        for second in range(0, 60, 10):
            self.timeouts.heard_at = float(second)
            self.assertEqual(self.timeouts.in_frame(float(second), False), min(second + 30.0, 60.0))
        self.assertIs(self.look(60.0), ExpiredTimeout.REQUEST)

    def test_another_frame(self) -> None:
        """Its time begins when it does."""
        self.timeouts.in_frame(0.0, False)
        self.timeouts.heard_at = 50.0
        self.timeouts.in_frame(50.0, True)
        self.assertEqual(self.look(61.0), 19.0)
        self.timeouts.between_frames()
        self.assertEqual(self.look(61.0), 79.0)

    def test_nothing_is_read(self) -> None:
        """What waits for us has all the time that we take, and then its own anew."""
        self.timeouts.in_frame(0.0, False)
        self.assertEqual(self.look(100.0, reading=False), 15.0)
        self.timeouts.excuse(100.0)
        self.assertEqual(self.look(101.0), 29.0)


class _Host:
    """Counts who holds it up."""

    def __init__(self) -> None:
        self.pausers: set[object] = set()

    def pause(self, who: object) -> None:
        self.pausers.add(who)

    def resume(self, who: object) -> None:
        self.pausers.discard(who)


class AnswersTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.settings = World(stream_idle=300.0).settings
        self.clock = self.settings.clock
        self.told: list[object] = []
        self.transport = _Transport()
        self.host = _Host()

    def answers(self, patient: bool = False) -> Answers:
        answers = Answers(self.settings, self, patient)
        answers.open(self.transport)
        return answers

    def answers_flushed(self) -> None:
        self.told.append("flushed")

    def answers_full(self, full: bool) -> None:
        self.told.append(full)

    def answers_stalled(self, reason: str) -> None:
        self.told.append(reason)

    def test_one_write_for_a_batch(self) -> None:
        answers = self.answers()
        batch: Batch = []
        answers.add(b"a", batch, None)
        answers.add(bytearray(b"b"), batch, None)
        self.assertEqual((batch, self.transport.written, answers.size), ([answers], [], 2))
        answers.flush()
        self.assertEqual((self.transport.written, answers.size, bool(answers)), ([b"ab"], 0, False))
        answers.add(b"c", None, None)
        self.assertEqual((self.transport.written[1:], self.told), ([b"c"], ["flushed", "flushed"]))

    def test_no_more_than_the_transport_takes(self) -> None:
        answers = self.answers()
        self.assertIs(self.transport.producer, answers)
        answers.pauseProducing()
        for _ in range(4):
            answers.add(b"x" * WRITE_SIZE, None, None)
        self.assertEqual(self.transport.written, [])
        self.assertEqual(answers.size, 4 * WRITE_SIZE)
        write = self.transport.write
        self.patch(self.transport, "write", lambda data: (write(data), answers.pauseProducing()))
        for left in (3, 2, 1, 0):
            answers.resumeProducing()
            self.assertEqual((answers.size, answers.full), (left * WRITE_SIZE, True))

    def test_who_brings_too_much_is_held_up(self) -> None:
        self.patch(rpc_answers, "OUT_LIMIT", 100)
        answers = self.answers()
        answers.pauseProducing()
        answers.add(b"x" * 100, None, self.host)
        self.assertEqual(self.host.pausers, set())
        answers.add(b"x", None, self.host)
        self.assertEqual(self.host.pausers, {answers})
        answers.resumeProducing()
        self.assertEqual(self.host.pausers, set())
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_for_how_long(self) -> None:
        self.patch(rpc_answers, "OUT_LIMIT", 100)
        for patient in (False, True):
            answers = self.answers(patient)
            answers.pauseProducing()
            answers.add(b"x" * 100, None, None)
            answers.add(b"x", None, self.host)
            self.told.clear()
            self.clock.advance(STALL)
            self.assertEqual(len(self.told), 0 if patient else 1)
            answers.close()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            self.assertEqual(self.host.pausers, set())

    def test_nothing_is_taken(self) -> None:
        answers = self.answers()
        answers.pauseProducing()
        self.told.clear()
        for _ in range(5):
            self.clock.advance(75)
        self.assertEqual(self.told, ["it has taken nothing for 5m0s; see stream_idle_timeout"])

    def test_closed(self) -> None:
        answers = self.answers()
        answers.close()
        answers.add(b"x", None, self.host)
        answers.pauseProducing()
        answers.resumeProducing()
        self.assertEqual((self.transport.written, bool(answers)), ([], False))
        self.assertEqual(self.clock.getDelayedCalls(), [])


class InFlightTests(SynchronousTestCase):
    def test_ids_go_round(self) -> None:
        """Those that somebody waits with are passed over, whatever they are for."""
        in_flight = InFlight(5)
        ids = []
        for _ in range(3):
            ids.append(in_flight.next_id())
            in_flight.requests[ids[-1]] = cast("Any", object())
        self.assertEqual(ids, [1, 2, 3])
        del in_flight.requests[2]
        in_flight.heartbeats[4] = cast("Any", object())
        self.assertEqual([in_flight.next_id() for _ in range(4)], [5, 2, 5, 2])

    def test_take_all(self) -> None:
        in_flight = InFlight(5)
        in_flight.requests[1] = in_flight.requests[3] = exchange = cast("Any", object())
        self.assertEqual(in_flight.take_all(), [exchange, exchange])
        self.assertEqual(in_flight.requests, {})


class HeartbeatTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.in_flight = InFlight(1000)
        self.sent: list[int] = []
        self.unread = False
        self.taken = 0
        self.failed: list[int] = []

    def send_heartbeat(self, number: int) -> None:
        self.sent.append(number)

    def dead(self, failures: int) -> None:
        self.failed.append(failures)

    def heartbeats(self, interval: float = 0.0) -> Heartbeats:
        return Heartbeats(self.clock, Keepalive(interval, 1.0), self.in_flight, self)

    def test_only_in_a_row(self) -> None:
        heartbeats = self.heartbeats()
        for _ in range(HEARTBEAT_FAILURES - 1):
            heartbeats.send()
            self.clock.advance(1)
        self.assertEqual((self.failed, heartbeats.failures), ([], HEARTBEAT_FAILURES - 1))
        heartbeats.send()
        self.in_flight.heartbeats.pop(self.sent[-1]).answered()
        self.clock.advance(1)
        self.assertEqual(self.failed, [])
        heartbeats.send()
        self.clock.advance(1)
        self.assertEqual(self.failed, [HEARTBEAT_FAILURES])
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_what_is_no_failure(self) -> None:
        """We do not read, or the host takes what was sent before."""
        heartbeats = self.heartbeats()
        for unread, more in ((True, 0), (False, 1)):
            heartbeats.send()
            self.unread = unread
            self.taken += more
            self.clock.advance(1)
            self.assertEqual(heartbeats.failures, 0)
        self.assertEqual(self.in_flight.heartbeats, {})

    def test_schedule(self) -> None:
        heartbeats = self.heartbeats(5.0)
        heartbeats.begin()
        self.clock.pump([5, 5])
        self.assertEqual(self.sent, [1, 2])
        heartbeats.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_silence(self) -> None:
        """One is sent when nothing has come for long, unless we have not read."""
        heartbeats = self.heartbeats()
        heartbeats.begin()
        self.clock.advance(HEARTBEAT_IDLE - 1)
        heartbeats.heard()
        self.clock.advance(1)
        self.assertEqual(self.sent, [])
        self.clock.advance(HEARTBEAT_IDLE - 1)
        self.assertEqual(self.sent, [1])
        self.in_flight.heartbeats.pop(1).answered()
        self.unread = True
        self.clock.advance(HEARTBEAT_IDLE)
        self.unread = False
        heartbeats.excuse()
        self.clock.advance(HEARTBEAT_IDLE - 1)
        self.assertEqual(self.sent, [1])
        self.clock.advance(1)
        self.assertEqual(self.sent, [1, 2])
        self.in_flight.heartbeats.pop(2).answered()
        heartbeats.stop()
        self.assertEqual(self.clock.getDelayedCalls(), [])

    def test_a_question(self) -> None:
        heartbeats = self.heartbeats()
        first, second, third, fourth = (heartbeats.ask() for _ in range(4))
        self.in_flight.heartbeats.pop(1).answered()
        self.assertIsNone(self.successResultOf(first))
        second.cancel()
        self.failureResultOf(second, CancelledError)
        self.unread = True
        third.cancel()
        self.assertIsNone(self.successResultOf(third))
        heartbeats.stop()
        self.failureResultOf(fourth, HostGone)
        self.assertEqual(self.in_flight.heartbeats, {})


class _Downstream:
    """Remembers who has caught up."""

    def __init__(self) -> None:
        self.taken: list[object] = []

    def upstream_taken(self, outgoing: Outgoing) -> None:
        self.taken.append(outgoing)


class OutgoingTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.transport = _Transport()
        self.outgoing = Outgoing()
        self.outgoing.open(self.transport)

    def test_one_write_for_a_batch(self) -> None:
        batch: Batch = []
        self.outgoing.add(b"a", batch)
        self.outgoing.add(bytearray(b"b"), batch)
        self.assertEqual((batch, self.transport.written), ([self.outgoing], []))
        self.outgoing.flush()
        self.outgoing.flush()
        self.outgoing.add(b"c", None)
        self.assertEqual((self.transport.written, self.outgoing.written), ([b"ab", b"c"], 3))

    def test_backlog(self) -> None:
        """What waits of one request is what waits of all up to it."""
        self.outgoing.add(b"x" * 10, None)
        position = self.outgoing.written
        batch: Batch = []
        self.outgoing.add(b"y" * 5, batch)
        self.assertEqual(self.outgoing.backlog(position).size, 0)
        self.assertEqual(self.outgoing.backlog(self.outgoing.written).size, 5)
        self.transport.kept = 12
        self.assertEqual(self.outgoing.backlog(position).size, 12)
        self.assertEqual(self.outgoing.backlog(self.outgoing.written).size, 17)

    def test_who_waits(self) -> None:
        downstream = _Downstream()
        self.outgoing.pauseProducing()
        self.outgoing.block(downstream)
        self.assertEqual((self.outgoing.full, downstream.taken), (True, []))
        self.outgoing.resumeProducing()
        self.outgoing.resumeProducing()
        self.assertEqual((self.outgoing.full, downstream.taken), (False, [self.outgoing]))
        self.outgoing.block(downstream)
        self.outgoing.close()
        self.outgoing.lost()
        self.assertEqual(downstream.taken, [self.outgoing] * 2)

    def test_closed(self) -> None:
        batch: Batch = []
        self.outgoing.add(b"a", batch)
        self.outgoing.close()
        self.outgoing.flush()
        self.outgoing.add(b"b", None)
        self.assertEqual(self.transport.written, [])
        self.assertEqual(self.outgoing.waits.size, 0)


class _Exchange:
    """As much of one as counts."""

    def __init__(self, received: int) -> None:
        self.received = received


class UnderWayTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.books = BufferBudget(10 * FREE)
        self.under_way = UnderWay(self.books)

    def add(self, received: int) -> Any:
        exchange: Any = _Exchange(received)
        self.under_way.add(exchange)
        return exchange

    def test_many(self) -> None:
        self.patch(under_way, "MAX_REQUESTS", 2)
        first, _ = self.add(1), self.add(1)
        self.assertTrue(self.under_way.full)
        self.under_way.remove(first)
        self.assertFalse(self.under_way.full)

    def test_large(self) -> None:
        self.patch(under_way, "HELD_LIMIT", 100)
        self.add(50)
        self.assertFalse(self.under_way.full)
        second = self.add(50)
        self.assertTrue(self.under_way.full)
        self.under_way.remove(second)
        self.assertEqual((self.under_way.full, self.under_way.held), (False, 50))

    def test_all_clients_together_have_much(self) -> None:
        """Who has little himself is read on."""
        self.books.account("10.0.0.1", lambda reason: None).keep(6 * FREE)
        self.add(FREE)
        self.assertFalse(self.under_way.full)
        self.add(1)
        self.assertTrue(self.under_way.full)

    def test_a_host_that_takes_nothing(self) -> None:
        self.under_way.blocking.add(Outgoing())
        self.assertTrue(self.under_way.full)
        exchange = self.add(1)
        self.assertEqual(self.under_way.take_all(), [exchange])
        self.assertEqual((self.under_way.full, self.under_way.held), (False, 0))
