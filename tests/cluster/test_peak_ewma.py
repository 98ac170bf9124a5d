"""Tests for L{reverseproxy.cluster.balancers.peak_ewma}."""

from __future__ import annotations

from math import exp

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.balancers.peak_ewma import DECAY, EwmaTracker
from reverseproxy.cluster.health.outcome import Outcome
from tests.cluster.fakes import FakeHost

ONE = 1 - exp(-DECAY)
"""What one event makes of a rate."""


class OutcomeTests(SynchronousTestCase):
    def test_of_status(self) -> None:
        """Statuses fall into three classes."""
        for status, outcome in (
            (101, Outcome.SUCCESS),
            (200, Outcome.SUCCESS),
            (399, Outcome.SUCCESS),
            (400, Outcome.CLIENT_ERROR),
            (499, Outcome.CLIENT_ERROR),
            (500, Outcome.SERVER_ERROR),
            (999, Outcome.SERVER_ERROR),
        ):
            self.assertIs(Outcome.of_status(status), outcome)


class LoadMeterTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.clock = Clock()
        self.tracker = EwmaTracker(self.clock, 7.0)
        self.host = FakeHost("a")

    def busy(self, tracker: EwmaTracker, outcome: Outcome = Outcome.SUCCESS, seconds: float = 1.0) -> float:
        """The score of a host with a request under way, for each of the two that it would have."""
        host = FakeHost("busy")
        host.active = 1
        tracker.note(host, outcome, seconds)
        return tracker.score(host) / 2

    def test_unknown(self) -> None:
        """An unknown host costs nothing, but when it is busy: then the average counts, or the default."""
        self.assertEqual(self.tracker.score(self.host), 0.0)
        self.host.active = 1
        self.assertEqual(self.tracker.score(self.host), 14.0)
        self.assertEqual(EwmaTracker(self.clock, 0.0).score(self.host), 20.0)
        self.tracker.note(FakeHost("b"), Outcome.SUCCESS, 0.2)
        self.assertEqual(self.tracker.score(self.host), 0.4)

    def test_clock_set_back(self) -> None:
        """By hours: what was noted counts as if it were of this moment."""
        self.host.active = 1
        other = FakeHost("b")
        for host in (self.host, other):
            self.tracker.note(host, Outcome.RESET, 1.0)
            self.tracker.note(host, Outcome.SUCCESS, 2.0)
        before = [self.tracker.score(host) for host in (self.host, other)]
        self.clock.rightNow -= 24 * 3600
        self.assertEqual([self.tracker.score(host) for host in (self.host, other)], before)
        self.assertGreater(self.tracker.scale(self.host), 0.0)
        self.tracker.note(other, Outcome.SUCCESS, 2.0)
        self.clock.advance(61)
        self.assertEqual(self.tracker.score(other), 0.0)

    def test_unknown_and_far_away(self) -> None:
        """It can't be quicker than the way to it is long."""
        self.host.active = 1
        self.tracker.note(FakeHost("b"), Outcome.SUCCESS, 0.2)
        for rtt, score in ((None, 0.4), (0.1, 0.4), (0.5, 1.0)):
            self.host.far = rtt
            self.assertEqual(self.tracker.score(self.host), score)
        self.tracker.note(self.host, Outcome.SUCCESS, 0.3)
        self.assertAlmostEqual(self.tracker.score(self.host), 0.6)

    def test_connects(self) -> None:
        """That a connection was made says nothing."""
        self.tracker.note(self.host, Outcome.CONNECTED, 0.5)
        self.assertIsNone(self.host.load)

    def test_average(self) -> None:
        """New answers count more than old ones: after 30 s the old ones count exp(-5)."""
        self.tracker.note(self.host, Outcome.SUCCESS, 1.0)
        self.assertEqual(self.tracker.score(self.host), 1.0)
        self.clock.advance(30)
        self.tracker.note(self.host, Outcome.SUCCESS, 2.0)
        self.assertAlmostEqual(self.tracker.score(self.host), 2.0 - exp(-5))

    def test_at_once(self) -> None:
        """Answers that come at the same moment count a little each."""
        self.tracker.note(self.host, Outcome.SUCCESS, 1.0)
        for _ in range(1000):
            self.tracker.note(self.host, Outcome.SUCCESS, 2.0)
        self.assertAlmostEqual(self.tracker.score(self.host), 2.0 - 0.999**1000)

    def test_active(self) -> None:
        """Requests under way count by their bias."""
        for bias, score in ((1.0, 3.0), (2.0, 9.0), (0.0, 1.0), (-1.0, 1.0)):
            tracker = EwmaTracker(self.clock, active_bias=bias)
            host = FakeHost("a")
            tracker.note(host, Outcome.SUCCESS, 1.0)
            self.assertEqual(tracker.score(host), 1.0)
            host.active = 2
            self.assertEqual(tracker.score(host), score)

    def test_fading(self) -> None:
        """The longer a host is idle, the less it costs, and after a minute nothing."""
        self.tracker.note(self.host, Outcome.SUCCESS, 1.0)
        self.clock.advance(6)
        self.assertAlmostEqual(self.tracker.score(self.host), exp(-1))
        self.clock.advance(50)
        self.assertAlmostEqual(self.tracker.score(self.host), exp(-5))
        self.clock.advance(5)
        self.assertEqual(self.tracker.score(self.host), 0.0)

    def test_no_fading_while_busy(self) -> None:
        """While a host is busy it costs what it did, until that is forgotten."""
        self.tracker.note(self.host, Outcome.SUCCESS, 1.0)
        self.host.active = 1
        self.clock.advance(56)
        self.tracker.note(FakeHost("b"), Outcome.SUCCESS, 5.0)
        self.assertAlmostEqual(self.tracker.score(self.host), 2.0)
        self.clock.advance(5)
        self.assertApproximates(self.tracker.score(self.host), 10.0, 0.01)

    def test_client_errors(self) -> None:
        """Client errors count by their bias, against one more request than there were."""
        self.tracker.note(self.host, Outcome.CLIENT_ERROR, 1.0)
        self.assertAlmostEqual(self.tracker.score(self.host), 1 / (1 - ONE / (ONE + 1)))
        tracker = EwmaTracker(self.clock, client_error_bias=0.0)
        self.assertEqual(tracker.score(self.host), 1.0)
        self.assertAlmostEqual(self.busy(self.tracker, Outcome.CLIENT_ERROR), self.tracker.score(self.host))

    def test_server_errors(self) -> None:
        """So do all other failures; those without an answer tell nothing of its time."""
        for outcome in (Outcome.SERVER_ERROR, Outcome.RESET, Outcome.UNREACHABLE):
            host = FakeHost("a")
            tracker = EwmaTracker(self.clock, 1.0, server_error_bias=2.0)
            tracker.note(host, outcome, 1.0)
            self.assertAlmostEqual(tracker.score(host), 1 / (1 - ONE / (ONE + 1)) ** 2)
            assert host.load is not None
            self.assertEqual(host.load.duration, 1.0 if outcome is Outcome.SERVER_ERROR else 0.0)

    def test_many_errors(self) -> None:
        """Errors raise a score tenfold at the most."""
        for _ in range(1000):
            self.tracker.note(self.host, Outcome.SERVER_ERROR, 1.0)
            self.clock.advance(0.001)
        self.assertApproximates(self.tracker.score(self.host), 10.0, 0.1)

    def test_scale(self) -> None:
        """For turns, what is usual is 1, and nothing is far away from it."""
        self.assertEqual(self.tracker.scale(self.host), 1.0)
        self.host.active = 1
        self.assertEqual(self.tracker.scale(self.host), 2.0)
        for _ in range(100):
            self.tracker.note(FakeHost("b"), Outcome.SUCCESS, 0.5)
        self.assertEqual(self.tracker.scale(self.host), 2.0)
        self.tracker.note(self.host, Outcome.SUCCESS, 0.25)
        self.assertApproximates(self.tracker.scale(self.host), 1.0, 0.01)
        slow = FakeHost("slow")
        self.tracker.note(slow, Outcome.SUCCESS, 300.0)
        self.assertEqual(self.tracker.scale(slow), 100.0)
        self.tracker.note(quick := FakeHost("quick"), Outcome.SUCCESS, 1e-6)
        self.assertEqual(self.tracker.scale(quick), 0.01)
        self.clock.advance(61)
        self.assertEqual(self.tracker.scale(quick), 1.0)

    @settings(deadline=None)
    @given(
        st.lists(st.tuples(st.sampled_from(Outcome), st.floats(0, 1e3), st.floats(0, 1e3))),
        st.integers(0, 10**6),
    )
    def test_sane(self, history: list[tuple[Outcome, float, float]], active: int) -> None:
        """Whatever is reported, scores are numbers above 0, and do not grow as time goes by."""
        clock = Clock()
        tracker = EwmaTracker(clock)
        host = FakeHost("a")
        host.active = active
        for outcome, seconds, pause in history:
            tracker.note(host, outcome, seconds)
            clock.advance(pause)
        before = tracker.score(host)
        self.assertTrue(0 <= before < 1e11)
        self.assertTrue(0.01 <= tracker.scale(host) <= 100)
        clock.advance(1.0)
        if host.load is not None and clock.seconds() - host.load.at < 60:
            self.assertLessEqual(tracker.score(host), before * 1.0001)
