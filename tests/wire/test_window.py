from __future__ import annotations

from collections.abc import Iterator

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.wire.window import (
    ENOUGH,
    PROBE_EVERY,
    QUICK,
    RAMP,
    RTT_LASTS,
    SCARCE,
    SHORTEST,
    TOLD_AFTER,
    TOO_MUCH,
    Growth,
    Reserve,
    Round,
)
from tests import most

KB = 1000
MB = 1_000_000
FIRST = 256 * KB
MOST = 64 * MB


class Path:
    """
    One stream over a path, in steps of a millisecond, whose receiver's window a L{Growth} decides on.

    @ivar window: of the stream.
    @ivar most: bytes that were kept for the reader at the most.
    @ivar taken: bytes that the reader has taken.
    """

    def __init__(self, growth: Growth, rtt: float, number: int = 1) -> None:
        self.growth = growth
        self.window = growth.first
        self.most = 0
        self.taken = 0
        self.kept = 0
        self.number = number
        self._delay = rtt / 2
        self._sendable = growth.first
        self._credit = 0
        self._part: Round | None = None
        self._data: list[tuple[float, int]] = []
        self._credits: list[tuple[float, int]] = []
        self._began = 0.0

    def step(self, now: float, rate: int, reads: int) -> None:
        """
        Let a millisecond pass.

        @param rate: bytes that the path carries in it.
        @param reads: bytes that the reader takes in it.
        """
        sent = min(rate, self._sendable)
        if sent:
            self._sendable -= sent
            self._data.append((now + self._delay, sent))
        while self._data and self._data[0][0] <= now:
            self.kept += self._data.pop(0)[1]
        self.most = max(self.most, self.kept)
        took = min(self.kept, reads)
        self.kept -= took
        self.taken += took
        self._consume(took, now)
        while self._credits and self._credits[0][0] <= now:
            self._sendable += self._credits.pop(0)[1]

    def _consume(self, size: int, now: float) -> None:
        self._credit += size
        if self._credit < self.growth.threshold(self.window):
            return
        if self._part is None:
            self._part = Round(self._began, self.window)
        credit, self._credit = self._credit, 0
        change = self.growth.change(self.number, self.window, self._part, credit, now)
        self.window += change
        if credit + change:
            self._credits.append((now + self._delay, credit + change))


def times(seconds: float, begin: float = 0.0) -> Iterator[float]:
    """The milliseconds of some seconds."""
    return (begin + number / 1000 for number in range(round(seconds * 1000)))


def growth(rtt: float, first: int = FIRST, most: int = MOST, allowance: int = MOST) -> Growth:
    """Windows of a connection with a known round trip."""
    made = Growth(first, most, allowance, Reserve())
    made.measured(rtt, 0.0)
    return made


class PathTests(SynchronousTestCase):
    """What comes of it, over paths of all kinds."""

    def check_full(self, rtt: float, rate: int, first: int = FIRST, ramp: float = 6.0) -> Path:
        """Find that a stream takes all of a path soon."""
        path = Path(growth(rtt, first), rtt)
        for now in times(ramp * rtt):
            path.step(now, rate, 10**9)
        before = path.taken
        for now in times(1.0, ramp * rtt):
            path.step(now, rate, 10**9)
        self.assertGreater((path.taken - before) / (1000 * rate), 0.97)
        return path

    def test_long_ways_are_full_after_a_few_round_trips(self) -> None:
        for rtt in (0.02, 0.08, 0.2):
            for rate in (1 * MB, 10 * MB, 190 * MB):
                for first in (64 * KB, FIRST):
                    with self.subTest(rtt=rtt, rate=rate, first=first):
                        self.check_full(rtt, rate // 1000, first)

    def test_a_window_is_no_larger_than_it_has_to_be(self) -> None:
        for rtt, rate in ((0.08, 10 * MB), (0.2, 5 * MB), (0.02, 100 * MB)):
            with self.subTest(rtt=rtt, rate=rate):
                path = self.check_full(rtt, rate // 1000)
                for now in times(100 * rtt, 6 * rtt + 1.0):
                    path.step(now, rate // 1000, 10**9)
                self.assertLess(path.window, 1.25 * TOO_MUCH * rtt * rate)

    def test_short_ways_need_no_more(self) -> None:
        for rtt in (0.0001, 0.0005):
            path = Path(growth(rtt), rtt)
            for now in times(1.0):
                path.step(now, 50 * KB, 10**9)
            self.assertEqual(path.window, FIRST)

    def test_slow_readers_have_us_keep_little(self) -> None:
        # The first 64 KB are taken at once, as a kernel does it, and the rest at 1 MB/s.
        path = Path(growth(0.08, 64 * KB), 0.08)
        for number, now in enumerate(times(5.0)):
            path.step(now, 100 * KB, 64 * KB if number == 40 else 1 * KB)
        self.assertLess(path.most, 1.25 * RAMP * 64 * KB)
        self.assertLess(path.kept, 1.25 * TOO_MUCH * 80 * KB)

    def test_readers_that_become_slow(self) -> None:
        path = self.check_full(0.08, 50 * KB)
        grown = path.window
        self.assertGreater(grown, 4 * MB)
        for now in times(1.0, 2.0):
            path.step(now, 50 * KB, 0)
        self.assertLessEqual(path.most, grown)  # that was on its way already, and no more comes
        # Nothing can be taken back, but of what is passed on from now on no more is given.
        for now in times(grown / MB + 3.0, 3.0):
            path.step(now, 50 * KB, 1 * KB)
        self.assertLess(path.window, 1.25 * TOO_MUCH * 80 * KB)

    def test_readers_that_stop_for_ever(self) -> None:
        path = Path(growth(0.2), 0.2)
        for now in times(5.0):
            path.step(now, 190 * KB, 190 * KB if now < 1.0 else 0)
        self.assertLessEqual(path.most, MOST)

    def test_streams_share_what_a_connection_has(self) -> None:
        shared = growth(0.2, allowance=16 * MB)
        paths = [Path(shared, 0.2, number) for number in range(4)]
        # One was there first, and took all that there is.
        for now in times(3.0):
            paths[0].step(now, 400 * KB, 10**9)
        self.assertEqual(shared.grown, 16 * MB)
        for now in times(3.0, 3.0):
            for path in paths:
                path.step(now, 100 * KB, 10**9)
        self.assertLessEqual(shared.grown, 16 * MB)
        for path in paths:
            self.assertApproximates(path.window, FIRST + 4 * MB, 2 * MB)

    def test_connections_share_what_the_process_has(self) -> None:
        reserve = Reserve(8 * MB)
        grown = [Growth(FIRST, MOST, MOST, reserve) for _ in range(4)]
        for each in grown:
            each.measured(0.1, 0.0)
        paths = [Path(each, 0.1) for each in grown]
        for now in times(4.0):
            for index, path in enumerate(paths):
                if now >= 0.5 * index:
                    path.step(now, 100 * KB, 10**9)
        self.assertLessEqual(reserve.taken, 8 * MB)
        for path in paths:
            self.assertApproximates(path.window, FIRST + 2 * MB, 1 * MB)

    def test_a_short_round_trip_makes_only_slow(self) -> None:
        # A peer that says that it is near gets what it asks for.
        path = Path(growth(0.0001), 0.2)
        for now in times(2.0):
            path.step(now, 10 * KB, 10**9)
        self.assertLess(path.window, 2 * MB)

    def test_a_long_round_trip_gains_no_more_than_the_bounds(self) -> None:
        # And one that answers late, as if it were far away.
        path = Path(growth(30.0), 0.001)
        for now in times(2.0):
            path.step(now, 100 * KB, 10**9)
        self.assertEqual(path.window, MOST)


class ChangeTests(SynchronousTestCase):
    """Single decisions."""

    def test_nothing_is_known_of_the_way(self) -> None:
        unknown = Growth(FIRST, MOST, MOST, Reserve())
        part = Round(0.0, FIRST)
        self.assertEqual(unknown.change(1, FIRST, part, FIRST, 0.0), 0)

    def test_time_that_goes_back(self) -> None:
        part = Round(10.0, FIRST)
        self.assertEqual(growth(0.1).change(1, FIRST, part, FIRST, 9.0), 0)
        self.assertEqual((part.since, part.passed), (9.0, 0))

    def test_half_of_a_window_at_once(self) -> None:
        part = Round(0.0, FIRST)
        self.assertEqual(growth(0.1).change(1, FIRST, part, FIRST // 2, 0.01), RAMP * FIRST // 2 - FIRST)

    def test_a_little_of_it(self) -> None:
        part = Round(0.0, FIRST)
        self.assertEqual(growth(0.1).change(1, FIRST, part, FIRST // 5, 0.01), 0)
        self.assertEqual(
            growth(0.1).change(1, FIRST, Round(0.0, FIRST), FIRST * 3 // 10, 0.01),
            ENOUGH * FIRST * 3 // 10 - FIRST,
        )

    def test_large_windows_grow_less(self) -> None:
        part = Round(0.0, 4 * MB)
        made = growth(0.1)
        made.change(1, FIRST, Round(0.0, FIRST), FIRST, 0.01)
        self.assertEqual(made.change(1, 4 * MB, part, 4 * MB, 0.01), QUICK - 4 * MB)

    def test_what_comes_with_one_read_says_nothing_of_a_short_way(self) -> None:
        made = growth(0.0002)
        part = Round(0.0, FIRST)
        self.assertEqual(made.change(1, FIRST, part, FIRST, SHORTEST / 2), 0)
        self.assertEqual(made.change(1, FIRST, part, FIRST, SHORTEST / 2), 0)
        # What came in all of that time does.
        self.assertEqual(made.change(1, FIRST, part, FIRST, SHORTEST), ENOUGH * 3 * FIRST - FIRST)

    def test_a_window_that_has_just_grown_does_not_shrink(self) -> None:
        made = growth(0.1)
        part = Round(0.0, FIRST)
        window = FIRST + made.change(1, FIRST, part, FIRST, 0.0)
        self.assertEqual(made.change(1, window, part, 1 * KB, 0.3), 0)
        # Some of it is always given.
        self.assertEqual(made.change(1, window, part, 1 * KB, 0.5), -1 * KB + 1 * KB // 16)

    def test_it_shrinks_to_no_less_than_it_was_at_first(self) -> None:
        made = growth(0.1)
        part = Round(0.0, FIRST)
        window = FIRST + made.change(1, FIRST, part, FIRST, 0.0)
        self.assertEqual(made.change(1, window, part, 100 * MB, 1000.0), FIRST - window)
        self.assertEqual(made.grown, 0)
        self.assertEqual(made.change(1, FIRST, part, FIRST, 2000.0), 0)

    def test_how_often_the_peer_is_told(self) -> None:
        made = growth(0.1, first=1)
        self.assertEqual([made.threshold(window) for window in (1, 100, 64 * 2**20)], [1, 50, TOLD_AFTER])
        self.assertEqual(growth(0.1).threshold(FIRST), FIRST // 2)

    def test_a_growth_that_is_closed(self) -> None:
        reserve = Reserve()
        made = Growth(FIRST, MOST, MOST, reserve)
        made.measured(0.1, 0.0)
        window = FIRST + made.change(1, FIRST, Round(0.0, FIRST), FIRST, 0.0)
        made.close()
        self.assertEqual((made.grown, reserve.taken, reserve.streams), (0, 0, 0))
        made.forget(1, window)
        made.close()
        self.assertEqual((made.grown, reserve.taken, reserve.streams), (0, 0, 0))


class RoundTripTests(SynchronousTestCase):
    """How far away the peer is."""

    def test_the_least_counts(self) -> None:
        made = growth(0.2)
        for rtt, now, expected in ((0.3, 1.0, 0.2), (0.1, 2.0, 0.1), (0.2, 3.0, 0.1), (0.0, 4.0, 0.1)):
            made.measured(rtt, now)
            self.assertEqual(made.rtt, expected)

    def test_but_not_for_ever(self) -> None:
        made = growth(0.2)
        made.measured(0.3, RTT_LASTS)
        self.assertEqual(made.rtt, 0.2)
        made.measured(0.3, RTT_LASTS + 1)
        self.assertEqual(made.rtt, 0.3)

    def test_no_way_is_shorter_than_a_turn(self) -> None:
        self.assertEqual(growth(0.00001).rtt, SHORTEST)

    def test_questions_are_few_and_only_while_something_comes(self) -> None:
        made = growth(0.1)
        self.assertFalse(made.due(0.0))
        asked = 0
        for second in range(100):
            made.change(1, FIRST, Round(0.0, FIRST), 1, float(second))
            asked += made.due(float(second))
        self.assertEqual(asked, 100 / PROBE_EVERY)
        self.assertTrue(made.due(1000.0))  # something came since
        self.assertFalse(made.due(2000.0))


class ReserveTests(SynchronousTestCase):
    def test_it_is_shared_only_while_it_is_scarce(self) -> None:
        reserve = Reserve(100)
        reserve.streams = 4
        self.assertEqual(reserve.take(60, 0.0), 60)
        self.assertEqual(reserve.share(0.0), 100)
        self.assertEqual(reserve.take(60, 1.0), 40)
        self.assertEqual(reserve.share(1.0), 25)
        self.assertEqual(reserve.share(1.0 + SCARCE), 100)
        reserve.give_back(100)
        self.assertEqual(reserve.take(100, 1.0), 100)

    def test_there_may_be_nothing_at_all(self) -> None:
        reserve = Reserve(0)
        self.assertEqual((reserve.take(1, 0.0), reserve.share(0.0), reserve.taken), (0, 0, 0))


SIZES = st.sampled_from([1, 1000, 20_000, FIRST // 2, FIRST, MB, 10 * MB])
STEPS = st.lists(
    st.tuples(
        st.integers(0, 5),  # a stream
        SIZES,
        st.sampled_from([0.0, 0.0001, 0.01, 0.2, 5.0, -1.0]),  # time that passes
        st.sampled_from(["change", "change", "change", "forget", "measured", "close"]),
    ),
    max_size=80,
)


class BoundsTests(SynchronousTestCase):
    """Whatever happens, in whatever order, nothing is exceeded and nothing is lost."""

    @given(
        STEPS,
        st.sampled_from([0, MB, MOST]),
        st.sampled_from([0, 100 * KB, 3 * MB, 10**9]),
        st.sampled_from([1, FIRST, 5 * MB]),
    )
    @settings(deadline=None, max_examples=most(300))
    def test_bounds(
        self, steps: list[tuple[int, int, float, str]], allowance: int, limit: int, most: int
    ) -> None:
        reserve = Reserve(limit)
        ends = [Growth(FIRST, most, allowance, reserve) for _ in range(2)]
        windows: list[dict[int, tuple[int, Round]]] = [{}, {}]
        now = 100.0
        for stream, size, wait, what in steps:
            now += wait
            which = stream & 1
            made, known = ends[which], windows[which]
            if what == "measured":
                made.measured(wait, now)
            elif what == "forget":
                window, _ = known.pop(stream, (FIRST, None))
                made.forget(stream, window)
            elif what == "close":
                made.close()
                known.clear()
            else:
                window, part = known.get(stream) or (FIRST, Round(now, FIRST))
                change = made.change(stream, window, part, size, now)
                self.assertGreater(change, -size)
                known[stream] = (window + change, part)
                self.assertTrue(FIRST <= window + change <= max(FIRST, most))
            for end, all_windows in zip(ends, windows, strict=True):
                self.assertEqual(end.grown, sum(window - FIRST for window, _ in all_windows.values()))
                self.assertLessEqual(end.grown, allowance)
            self.assertEqual(reserve.taken, sum(end.grown for end in ends))
            self.assertLessEqual(reserve.taken, limit)
        for end in ends:
            end.close()
        self.assertEqual((reserve.taken, reserve.streams), (0, 0))
