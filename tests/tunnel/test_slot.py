"""Tests for L{reverseproxy.tunnel.agent.slot}: every path through the machine, with a clock and no socket."""

from __future__ import annotations

from collections.abc import Callable
from random import Random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from twisted.internet.defer import Deferred
from twisted.internet.error import ConnectionDone, ConnectionRefusedError
from twisted.internet.task import Clock
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import HandshakePostponed, HandshakeRefused
from reverseproxy.tunnel.agent.backoff import Backoff
from reverseproxy.tunnel.agent.redial import (
    BRIEF,
    INSTANT,
    REDIAL_BURST,
    REDIAL_RATE,
    SILENT_BURST,
    EndedUnused,
    RedialPolicy,
)
from reverseproxy.tunnel.agent.slot import make_slot
from reverseproxy.tunnel.agent.slot_core import SlotCore
from reverseproxy.tunnel.agent.slot_interfaces import ConnectionSlot, SlotLink, SlotState
from reverseproxy.wire.mosn.frames import Status
from tests import most


class FakeLink:
    """A link whose fate the test decides."""

    lost: Callable[[Failure], None]

    def __init__(self) -> None:
        self.used = False
        self.closed = False
        self.greeting: Deferred[None] = Deferred(self._cancelled)

    def _cancelled(self, _: object) -> None:
        self.close()

    def greet(self) -> Deferred[None]:
        return self.greeting

    def close(self) -> None:
        self.closed = True


class Highest(Random):
    def uniform(self, a: float, b: float) -> float:
        return b


class Bench:
    """A slot with everything around it under control."""

    def __init__(self, max_attempts: int = -1) -> None:
        self.clock = Clock()
        self.dials: list[Deferred[SlotLink]] = []
        self.states: list[SlotState] = []
        self.cancelled = 0
        self.core = SlotCore(
            name="slot",
            dial=self._dial,
            clock=self.clock,
            redial=RedialPolicy(self.clock, Backoff(2.0, 60.0, Highest()), 30.0),
            max_attempts=max_attempts,
            changed=self.states.append,
        )
        self.slot: ConnectionSlot = make_slot(self.core)

    def _dial(self) -> Deferred[SlotLink]:
        dial: Deferred[SlotLink] = Deferred(self._cancel)
        self.dials.append(dial)
        return dial

    def _cancel(self, _: object) -> None:
        self.cancelled += 1

    def serve(self) -> FakeLink:
        """Bring the slot to serving."""
        link = FakeLink()
        self.dials[-1].callback(link)
        link.greeting.callback(None)
        return link


REFUSED = Failure(ConnectionRefusedError())
DONE = Failure(ConnectionDone())
UNUSED = Failure(EndedUnused())
BUSY = Failure(HandshakePostponed(Status.UNKNOWN, 5.0))


class SlotTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.bench = Bench()

    def tearDown(self) -> None:
        self.flushLoggedErrors()

    def test_the_way_to_service(self) -> None:
        bench = self.bench
        self.assertIs(bench.core.state, SlotState.IDLE)
        bench.slot.start()
        link = FakeLink()
        bench.dials[0].callback(link)
        self.assertIs(bench.core.state, SlotState.GREETING)
        link.greeting.callback(None)
        self.assertEqual(bench.states, [SlotState.DIALLING, SlotState.GREETING, SlotState.SERVING])
        self.assertEqual(bench.clock.getDelayedCalls(), [])

    def test_a_failed_dial_is_repeated_with_backoff_for_ever(self) -> None:
        bench = self.bench
        bench.slot.start()
        for delay in (2, 4, 8, 16, 32, 60, 60, 60):
            bench.dials[-1].errback(REFUSED)
            self.assertIs(bench.core.state, SlotState.WAITING)
            count = len(bench.dials)
            bench.clock.advance(delay - 0.01)
            self.assertEqual(len(bench.dials), count)
            bench.clock.advance(0.01)
            self.assertEqual(len(bench.dials), count + 1)

    def test_a_failed_greeting_is_repeated(self) -> None:
        bench = self.bench
        bench.slot.start()
        link = FakeLink()
        bench.dials[0].callback(link)
        link.greeting.errback(Failure(HandshakeRefused(Status.CREDENTIAL_REJECTED, "no")))
        self.assertIs(bench.core.state, SlotState.WAITING)
        bench.clock.advance(2)
        self.assertEqual(len(bench.dials), 2)

    def postpone(self, seconds: float) -> None:
        """The server is busy."""
        link = FakeLink()
        self.bench.dials[-1].callback(link)
        link.greeting.errback(Failure(HandshakePostponed(Status.UNKNOWN, seconds)))

    def test_a_server_that_is_busy_is_asked_again_when_it_says(self) -> None:
        bench = self.bench
        bench.slot.start()
        for seconds, delay in ((5.0, 5.5), (20.0, 22.0), (1.0, 1.1), (7200.0, 60.0)):
            self.postpone(seconds)
            self.assertIs(bench.core.state, SlotState.WAITING)
            self.assertIsNone(bench.core.link)
            count = len(bench.dials)
            bench.clock.advance(delay - 0.01)
            self.assertEqual(len(bench.dials), count)
            bench.clock.advance(0.02)
            self.assertEqual(len(bench.dials), count + 1)
        bench.serve()
        self.assertIs(bench.core.state, SlotState.SERVING)

    def test_a_busy_server_is_no_failure(self) -> None:
        """Neither does the slot give up, nor does it begin anew, as a failure behind it shows."""
        bench = self.bench = Bench(max_attempts=3)
        bench.slot.start()
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(2)
        for _ in range(10):
            self.postpone(1.0)
            bench.clock.advance(1.2)
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(3.9)
        self.assertEqual(len(bench.dials), 12)
        bench.clock.advance(0.1)
        bench.dials[-1].errback(REFUSED)
        self.assertIs(bench.core.state, SlotState.EXHAUSTED)

    def test_stopped_while_a_server_is_busy(self) -> None:
        bench = self.bench
        bench.slot.start()
        self.postpone(5.0)
        bench.slot.stop()
        self.assertIs(bench.core.state, SlotState.IDLE)
        self.assertEqual(bench.clock.getDelayedCalls(), [])
        bench.slot.postponed(5.0)  # too late
        self.assertIs(bench.core.state, SlotState.IDLE)

    def test_a_server_that_is_reachable_again_is_dialled_soon(self) -> None:
        bench = self.bench
        bench.slot.start()
        for delay in (2, 4, 8, 16, 32):
            bench.dials[-1].errback(REFUSED)
            bench.clock.advance(delay)
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(10)
        bench.slot.reachable()
        bench.clock.advance(1.9)
        bench.slot.reachable()  # it does not begin anew
        self.assertEqual(len(bench.dials), 6)
        bench.clock.advance(0.1)
        self.assertEqual(len(bench.dials), 7)
        # The waits go on from where they were, if it is not.
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(59)
        self.assertEqual(len(bench.dials), 7)

    def test_an_earlier_time_is_kept(self) -> None:
        bench = self.bench
        bench.slot.start()
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(1.5)
        bench.slot.reachable()
        bench.clock.advance(0.5)
        self.assertEqual(len(bench.dials), 2)

    def test_who_waits_for_another_reason_waits_on(self) -> None:
        """Such as for a backend that ends each connection, or because the server said so."""
        self.bench = bench = Bench()
        bench.slot.start()
        for delay in (2, 4):
            bench.serve().lost(DONE)
            bench.clock.advance(delay)
        bench.serve().lost(DONE)
        bench.slot.reachable()
        bench.clock.advance(7.9)
        self.assertEqual(len(bench.dials), 3)
        bench.clock.advance(0.1)
        self.postpone(10.0)
        bench.slot.reachable()
        bench.clock.advance(9.9)
        self.assertEqual(len(bench.dials), 4)
        bench.clock.advance(1.1)
        link = FakeLink()
        bench.dials[-1].callback(link)
        link.greeting.errback(Failure(HandshakeRefused(Status.CLUSTER_UNKNOWN, "no")))
        assert bench.core.timer is not None
        planned = bench.core.timer.getTime()
        bench.slot.reachable()
        self.assertEqual(bench.core.timer.getTime(), planned)

    def test_a_refusal_that_lasts_is_repeated_more_and_more_slowly(self) -> None:
        """Seconds to begin with, as the server may be about to be told of the cluster."""
        for status in (Status.VALIDATOR_MISSING, Status.CLUSTER_UNKNOWN):
            bench = Bench()
            bench.slot.start()
            waits = []
            for number in range(8):
                link = FakeLink()
                bench.dials[number].callback(link)
                link.greeting.errback(Failure(HandshakeRefused(status, "no")))
                assert bench.core.timer is not None
                waits.append(bench.core.timer.getTime() - bench.clock.seconds())
                bench.clock.advance(waits[-1])
            self.assertEqual(waits, sorted(waits))
            self.assertLessEqual(waits[0], 3.0)
            self.assertGreaterEqual(waits[-1], 30.0)

    def test_attempts_are_bounded_on_request(self) -> None:
        bench = Bench(max_attempts=3)
        bench.slot.start()
        for _ in range(2):
            bench.dials[-1].errback(REFUSED)
            bench.clock.advance(60)
        bench.dials[-1].errback(REFUSED)
        self.assertIs(bench.core.state, SlotState.EXHAUSTED)
        bench.clock.advance(1000)
        self.assertEqual(len(bench.dials), 3)
        bench.slot.start()  # nothing begins again by itself
        self.assertIs(bench.core.state, SlotState.EXHAUSTED)
        bench.slot.stop()
        self.assertIs(bench.core.state, SlotState.IDLE)

    def test_success_renews_the_attempts(self) -> None:
        bench = Bench(max_attempts=2)
        bench.slot.start()
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(60)
        link = bench.serve()
        bench.clock.advance(30)
        link.lost(DONE)
        bench.clock.advance(0)
        bench.dials[-1].errback(REFUSED)
        self.assertIs(bench.core.state, SlotState.WAITING)

    def test_a_used_connection_is_replaced_at_once(self) -> None:
        bench = self.bench
        bench.slot.start()
        link = bench.serve()
        link.used = True
        link.lost(DONE)
        bench.clock.advance(0)
        self.assertEqual(len(bench.dials), 2)

    def use_up(self, lived: float = 0.0) -> float:
        """Have the serving connection used up: how long the slot waits then, and dials again."""
        bench = self.bench
        link = bench.serve()
        link.used = True
        bench.clock.advance(lived)
        link.lost(DONE)
        before = bench.clock.seconds()
        [call] = bench.clock.getDelayedCalls()
        bench.clock.advance(call.getTime() - before)
        return bench.clock.seconds() - before

    def test_connections_that_are_used_up_too_fast_are_failures(self) -> None:
        bench = self.bench
        bench.slot.start()
        waits = [self.use_up() for _ in range(REDIAL_BURST)]
        self.assertEqual(set(waits), {0.0})
        # One more is a failure; the wait itself allows for some at once then.
        self.assertEqual([self.use_up() for _ in range(3)], [2.0, 0.0, 0.0])
        while bench.clock.seconds() < 1000:
            self.use_up()
        self.assertEqual(bench.core.redial.backoff.failed(), 60.0)
        dials = len(bench.dials)
        while bench.clock.seconds() < 11000:
            self.use_up()
        self.assertLess((len(bench.dials) - dials) / 10000, REDIAL_BURST / 55)

    def test_a_connection_that_was_not_brief_ends_the_storm(self) -> None:
        bench = self.bench
        bench.slot.start()
        for _ in range(REDIAL_BURST + 1):
            self.use_up()
        self.assertTrue(bench.core.redial.storming)
        self.assertEqual(self.use_up(lived=BRIEF), 0.0)
        self.assertFalse(bench.core.redial.storming)
        self.assertEqual(bench.core.redial.backoff.failures, 0)

    def test_the_waits_of_a_storm_grow(self) -> None:
        bench = self.bench
        bench.slot.start()
        for _ in range(REDIAL_BURST):
            self.use_up()
        self.patch(bench.core.redial.brief, "allow", lambda: False)
        self.assertEqual([self.use_up() for _ in range(4)], [2.0, 4.0, 8.0, 16.0])

    def test_after_a_quiet_time_there_may_be_a_burst_again(self) -> None:
        bench = self.bench
        bench.slot.start()
        for _ in range(REDIAL_BURST):
            self.use_up()
        bench.clock.advance(REDIAL_BURST / REDIAL_RATE)
        self.assertEqual({self.use_up() for _ in range(REDIAL_BURST)}, {0.0})
        self.assertEqual(bench.core.redial.backoff.failures, 0)
        self.assertGreater(self.use_up(), 0.0)

    def test_an_old_connection_is_replaced_at_once(self) -> None:
        bench = self.bench
        bench.slot.start()
        bench.dials[-1].errback(REFUSED)
        bench.clock.advance(60)
        link = bench.serve()
        bench.clock.advance(30)
        link.lost(DONE)
        self.assertEqual(bench.core.redial.backoff.failures, 0)
        bench.clock.advance(0)
        self.assertEqual(len(bench.dials), 3)

    def test_a_connection_that_did_nothing_is_a_failure(self) -> None:
        bench = self.bench
        bench.slot.start()
        bench.serve().lost(DONE)
        bench.clock.advance(1.99)
        self.assertEqual(len(bench.dials), 1)
        bench.clock.advance(0.01)
        self.assertEqual(len(bench.dials), 2)
        bench.serve().lost(DONE)
        bench.clock.advance(2)
        self.assertEqual(len(bench.dials), 2)

    def lose_unused(self, lived: float, reason: Failure = UNUSED) -> float:
        """Have the serving connection end unused: how long the slot waits then, and dials again."""
        bench = self.bench
        link = bench.serve()
        bench.clock.advance(lived)
        link.lost(reason)
        before = bench.clock.seconds()
        [call] = bench.clock.getDelayedCalls()
        bench.clock.advance(call.getTime() - before)
        return round(bench.clock.seconds() - before, 6)

    def test_a_connection_that_its_server_ends_unused_is_replaced_at_once(self) -> None:
        """It may have been lent to somebody who sent nothing; but there is an end to that."""
        bench = self.bench
        bench.slot.start()
        lived = 2 * INSTANT
        waits = [self.lose_unused(lived) for _ in range(SILENT_BURST)]
        self.assertEqual(set(waits), {0.0})
        self.assertEqual(self.lose_unused(lived), BRIEF - lived)
        dials, then = len(bench.dials), bench.clock.seconds()
        while bench.clock.seconds() < then + 1000 * BRIEF:
            self.assertIn(self.lose_unused(lived), (0.0, BRIEF - lived))
        self.assertLess(len(bench.dials) - dials, 2000)
        self.assertEqual(bench.core.redial.backoff.failures, 0)
        # No session that is longer has to wait.
        self.assertEqual({self.lose_unused(BRIEF) for _ in range(100)}, {0.0})
        self.assertEqual(bench.core.redial.backoff.failures, 0)

    def test_one_that_its_server_ends_unused_at_once_is_a_failure(self) -> None:
        self.bench.slot.start()
        self.assertEqual([self.lose_unused(INSTANT / 2) for _ in range(7)], [2, 4, 8, 16, 32, 60, 60])

    def test_one_that_we_end_unused_is_a_failure_if_it_was_brief(self) -> None:
        self.bench.slot.start()
        waits = [self.lose_unused(BRIEF / 2, DONE) for _ in range(4)]
        self.assertEqual(waits, [2, 4, 8, 16])
        self.assertEqual({self.lose_unused(BRIEF, DONE) for _ in range(100)}, {0.0})
        # That was no success either: the next failure waits longer than those before.
        self.assertEqual(self.lose_unused(0, DONE), 32)

    def test_why_it_was_lost_is_said(self) -> None:
        self.assertEqual(UNUSED.getErrorMessage(), "the server has closed it, and had sent nothing")

    def test_drain_keeps_what_serves_and_dials_no_more(self) -> None:
        bench = self.bench
        bench.slot.start()
        link = bench.serve()
        bench.slot.drain()
        bench.slot.drain()
        self.assertIs(bench.core.state, SlotState.DRAINING)
        self.assertFalse(link.closed)
        link.lost(DONE)
        self.assertIs(bench.core.state, SlotState.IDLE)
        bench.clock.advance(100)
        self.assertEqual(len(bench.dials), 1)

    def test_drain_ends_what_does_not_serve(self) -> None:
        dialling, waiting, greeting = Bench(), Bench(), Bench()
        for bench in (dialling, waiting, greeting):
            bench.slot.start()
        waiting.dials[0].errback(REFUSED)
        link = FakeLink()
        greeting.dials[0].callback(link)
        for bench in (dialling, waiting, greeting):
            bench.slot.drain()
            self.assertIs(bench.core.state, SlotState.IDLE)
            bench.clock.advance(100)
            self.assertEqual(len(bench.dials), 1)
        self.assertEqual(dialling.cancelled, 1)
        self.assertTrue(link.closed)

    def test_stop_closes_what_serves(self) -> None:
        bench = self.bench
        bench.slot.start()
        link = bench.serve()
        bench.slot.stop()
        self.assertTrue(link.closed)
        link.lost(DONE)  # reported late
        self.assertIs(bench.core.state, SlotState.IDLE)

    def test_a_dial_that_succeeds_after_the_stop_is_closed(self) -> None:
        bench = self.bench
        bench.slot.start()
        link = FakeLink()
        bench.slot.stop()
        bench.slot.dialled(link)
        self.assertTrue(link.closed)

    def test_a_stopped_slot_starts_again(self) -> None:
        bench = self.bench
        bench.slot.start()
        bench.slot.stop()
        bench.slot.start()
        self.assertIs(bench.core.state, SlotState.DIALLING)


class AnySequence(RuleBasedStateMachine):
    """Whatever happens in whatever order: at most one link, and no lost slot."""

    def __init__(self) -> None:
        super().__init__()
        self.bench = Bench()
        self.links: list[FakeLink] = []
        self.stopped = True

    @rule()
    def start(self) -> None:
        self.bench.slot.start()
        if self.bench.core.state is not SlotState.DRAINING:
            self.stopped = False

    @rule()
    def stop(self) -> None:
        self.bench.slot.stop()
        self.stopped = True

    @rule()
    def drain(self) -> None:
        self.bench.slot.drain()
        self.stopped = True

    @precondition(lambda self: self.bench.dials and not self.bench.dials[-1].called)
    @rule(good=st.booleans())
    def dial_ends(self, good: bool) -> None:
        if good:
            link = FakeLink()
            self.links.append(link)
            self.bench.dials[-1].callback(link)
        else:
            self.bench.dials[-1].errback(REFUSED)

    @precondition(lambda self: self.links and not self.links[-1].greeting.called)
    @rule(how=st.sampled_from([None, REFUSED, BUSY]))
    def greeting_ends(self, how: Failure | None) -> None:
        self.links[-1].greeting.callback(how)  # a failure is one, either way

    @precondition(lambda self: self.bench.core.state in (SlotState.SERVING, SlotState.DRAINING))
    @rule(used=st.booleans())
    def lose(self, used: bool) -> None:
        self.links[-1].used = used
        self.links[-1].closed = True
        self.links[-1].lost(DONE)

    @rule()
    def reachable(self) -> None:
        self.bench.slot.reachable()

    @rule(seconds=st.floats(0, 90))
    def wait(self, seconds: float) -> None:
        self.bench.clock.advance(seconds)

    @invariant()
    def never_two_pending(self) -> None:
        assert len(self.bench.clock.getDelayedCalls()) <= 1
        assert sum(not dial.called for dial in self.bench.dials) <= 1

    @invariant()
    def a_running_slot_is_doing_something(self) -> None:
        state = self.bench.core.state
        if self.stopped:
            assert state in (SlotState.IDLE, SlotState.DRAINING)
            assert not self.bench.clock.getDelayedCalls()
        else:
            assert state not in (SlotState.IDLE, SlotState.DRAINING, SlotState.EXHAUSTED)

    @invariant()
    def an_idle_slot_holds_nothing(self) -> None:
        if self.bench.core.state is SlotState.IDLE:
            assert all(link.closed or link.greeting.called for link in self.links)
            assert self.bench.core.link is None


class AnySequenceTests(SynchronousTestCase):
    def test_any_sequence(self) -> None:
        run_state_machine_as_test(
            AnySequence, settings=settings(max_examples=most(60), stateful_step_count=40, deadline=None)
        )
        self.flushLoggedErrors()


class RedialTests(SynchronousTestCase):
    """Delays before a connection is replaced, by how it was lost; without a slot."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.redial = RedialPolicy(self.clock, Backoff(2.0, 60.0, Highest()), 30.0)

    def test_used(self) -> None:
        """A used connection is replaced at once, up to a burst of brief ones; then it counts as a failure."""
        for _ in range(REDIAL_BURST):
            self.assertEqual(self.redial.after_loss(0.1, True, False), 0.0)
        self.assertEqual(self.redial.after_loss(0.1, True, False), 2.0)
        self.assertTrue(self.redial.storming)
        self.clock.advance(1.0)
        self.assertEqual(self.redial.after_loss(0.1, True, False), 0.0)
        self.assertEqual(self.redial.backoff.failures, 1, "a brief one among many resets nothing")
        self.assertEqual(self.redial.after_loss(BRIEF, True, False), 0.0)
        self.assertEqual((self.redial.storming, self.redial.backoff.failures), (False, 0))

    def test_unused(self) -> None:
        self.assertEqual(self.redial.after_loss(30.0, False, False), 0.0)
        self.assertEqual(self.redial.after_loss(INSTANT / 2, False, True), 2.0)
        self.assertEqual(self.redial.after_loss(BRIEF / 2, False, False), 4.0)
        for _ in range(SILENT_BURST):
            self.assertEqual(self.redial.after_loss(BRIEF / 2, False, True), 0.0)
        self.assertEqual(self.redial.after_loss(BRIEF / 4, False, True), BRIEF * 3 / 4)
        self.assertFalse(self.redial.storming)

    def test_refused(self) -> None:
        """What lasts until somebody changes a configuration is not tried again at once."""
        lowest = Random()
        lowest.uniform = lambda a, b: a  # type: ignore[method-assign]
        redial = RedialPolicy(self.clock, Backoff(2.0, 60.0, lowest), 30.0)
        self.assertEqual(redial.after_refusal(Status.CREDENTIAL_REJECTED), 0.0)
        self.assertEqual(redial.after_refusal(Status.CLUSTER_UNKNOWN), 2.0)

    def test_leave(self) -> None:
        self.redial.after_loss(0.0, False, False)
        self.assertAlmostEqual(self.redial.after_leave(5.0), 5.5)
        self.assertEqual(self.redial.backoff.failures, 0)

    def test_adapted(self) -> None:
        self.redial.after_loss(0.0, False, False)
        self.redial.adapt(Backoff(1.0, 8.0, Highest()), 5.0)
        self.assertEqual(self.redial.after_loss(0.0, False, False), 2.0)
        self.assertEqual(self.redial.after_loss(5.0, False, False), 0.0)
