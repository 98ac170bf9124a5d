"""Tests for L{reverseproxy.routing.timeouts}."""

from __future__ import annotations

from typing import NamedTuple

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.routing import ClusterRoute, RetryPolicy, patience, timeouts
from reverseproxy.routing.timeouts import (
    DEFAULT_TIMEOUT,
    GLOBAL_TIMEOUT_HEADER,
    MAX_TIMEOUT,
    TRY_TIMEOUT_HEADER,
)


class Pair(NamedTuple):
    """What L{Timeouts} begins with."""

    total: float
    attempt: float


def found(
    total: float = 10.0,
    attempt: float = 0.0,
    try_header: str | None = None,
    global_header: str | None = None,
    frame: int | None = None,
) -> Pair:
    """What counts, in all and for an attempt, given a route's times and what the request says."""
    route = ClusterRoute("c", total, retry=RetryPolicy(try_timeout=attempt))
    headers = {TRY_TIMEOUT_HEADER: try_header, GLOBAL_TIMEOUT_HEADER: global_header}
    return Pair(*timeouts(route, headers.get, frame)[:2])


class TimeoutTests(SynchronousTestCase):
    """L{timeouts}."""

    def test_route(self) -> None:
        """By themselves, the route's times count."""
        for total, attempt, expected in [
            (10.0, 0.0, (10.0, 0.0)),
            (10.0, 2.0, (10.0, 2.0)),
            (0.0, 0.0, (0.0, 0.0)),
            # a time of an attempt that is not shorter than the whole is none
            (10.0, 10.0, (10.0, 0.0)),
            (10.0, 11.0, (10.0, 0.0)),
            # there is nothing that it could be longer than
            (0.0, 2.0, (0.0, 2.0)),
        ]:
            self.assertEqual(found(total, attempt), expected)
            route = ClusterRoute("c", total, retry=RetryPolicy(try_timeout=attempt))
            self.assertEqual(timeouts(route, None), (*expected, False, False))

    def test_headers(self) -> None:
        """What the request's headers say counts rather than the route, in milliseconds."""
        for try_header, global_header, expected in [
            ("500", None, (10.0, 0.5)),
            (None, "500", (0.5, 0.0)),
            ("500", "2000", (2.0, 0.5)),
            ("2000", "500", (0.5, 0.0)),
            ("500", "500", (0.5, 0.0)),
            ("+500", "+2000", (2.0, 0.5)),
            ("1", "00020", (0.02, 0.001)),
            # no time at all
            ("-1", None, (10.0, 0.0)),
            ("0", None, (10.0, 0.0)),
            (None, "-1", (0.0, 3.0)),
            ("5000", "-1", (0.0, 5.0)),
            # 0 is as if nobody had said anything
            (None, "0", (DEFAULT_TIMEOUT, 3.0)),
            (None, "-0", (DEFAULT_TIMEOUT, 3.0)),
        ]:
            self.assertEqual(
                found(10.0, 3.0, try_header, global_header), expected, (try_header, global_header)
            )

    def test_headersLengthen(self) -> None:
        """A request may take longer than the route would let it; an attempt's own time counts then."""
        self.assertEqual(found(1.0, 2.0), (1.0, 0.0))
        self.assertEqual(found(1.0, 2.0, global_header="5000"), (5.0, 2.0))

    def test_headersThatAreNoNumbers(self) -> None:
        """What Go does not take for a number is as if it were not there."""
        for text in [
            "", " ", "1s", "1.5", "1e3", "0x10", "1_000", " 1", "1 ", "--1", "+", "\u0661", "1\n", "five",
            "9223372036854775808", "-9223372036854775809", "1" * 5000,
        ]:  # fmt: skip
            self.assertEqual(found(10.0, 3.0, text, text), (10.0, 3.0), text)

    def test_large(self) -> None:
        """The longest time is one that a clock can be set to."""
        for text in ["9223372036854775807", "2147483649", "0" * 100 + "99999999999"]:
            self.assertEqual(found(10.0, 3.0, None, text), (MAX_TIMEOUT, 3.0))
            self.assertEqual(found(0.0, 3.0, text), (0.0, MAX_TIMEOUT))
        self.assertEqual(found(10.0, 3.0, None, "-9223372036854775808"), (0.0, 3.0))

    def test_frame(self) -> None:
        """An RPC frame's own time counts most; it says nothing of attempts."""
        for frame, expected in [
            (None, (2.0, 0.5)),
            (0, (2.0, 0.5)),
            (1000, (1.0, 0.5)),
            (500, (0.5, 0.0)),
            (-1, (0.0, 0.5)),
            (2**31 - 1, (MAX_TIMEOUT - 0.001, 0.5)),
        ]:
            self.assertEqual(found(10.0, 3.0, "500", "2000", frame), expected, frame)

    def test_whose_choice_it_is(self) -> None:
        """It is the request's as far as it says so, and that counts."""
        route = ClusterRoute("c", 10.0, retry=RetryPolicy(try_timeout=3.0))
        for try_header, global_header, frame, expected in [
            (None, None, None, (False, False)),
            ("500", None, None, (False, True)),
            (None, "500", None, (True, False)),
            ("500", "500", None, (True, False)),
            ("0", "0", 0, (False, False)),
            ("-1", "-1", None, (False, False)),
            (None, None, 20, (True, False)),
            (None, "20", -1, (False, False)),
            ("x", "y", None, (False, False)),
        ]:
            headers = {TRY_TIMEOUT_HEADER: try_header, GLOBAL_TIMEOUT_HEADER: global_header}
            times = timeouts(route, headers.get, frame)
            self.assertEqual((times.total_asked, times.attempt_asked), expected)
            self.assertEqual(times.asked, any(expected))

    def test_strangers_frames(self) -> None:
        """What a stranger's frame says can make the time shorter only."""
        for total, frame, expected in [
            (10.0, 1000, (1.0, True)),
            (10.0, 10_000, (10.0, False)),
            (10.0, 20_000, (10.0, False)),
            (10.0, -1, (10.0, False)),
            (10.0, 0, (10.0, False)),
            (0.0, 20_000, (20.0, True)),
            (0.0, -1, (0.0, False)),
        ]:
            times = timeouts(ClusterRoute("c", total), None, frame, believed=False)
            self.assertEqual((times.total, times.total_asked), expected, (total, frame))

    @settings(deadline=None)
    @given(
        st.floats(0, 1e6),
        st.floats(0, 1e6),
        st.none() | st.integers().map(str) | st.text(max_size=4),
        st.none() | st.integers().map(str) | st.text(max_size=4),
        st.none() | st.integers(-(2**31), 2**31 - 1),
    )
    def test_always(
        self,
        total: float,
        attempt: float,
        try_header: str | None,
        global_header: str | None,
        frame: int | None,
    ) -> None:
        """Whatever the request says, times are times, and that of an attempt is the shorter one."""
        result = found(total, attempt, try_header, global_header, frame)
        self.assertGreaterEqual(result.attempt, 0.0)
        self.assertTrue(0.0 <= result.total <= max(total, MAX_TIMEOUT))
        self.assertTrue(not result.total or result.attempt < result.total)


class PatienceTests(SynchronousTestCase):
    """L{patience}."""

    def test_what_nobody_has_said(self) -> None:
        """Streams that may begin with their first message have the time that the next one has."""
        route = ClusterRoute("c")
        grpc = {"content-type": "application/grpc+proto"}
        for headers, expected in [
            ({}, DEFAULT_TIMEOUT),
            ({"accept": "text/html"}, DEFAULT_TIMEOUT),
            ({"accept": "Text/Event-Stream"}, 300.0),
            (grpc, 300.0),
            ({**grpc, "grpc-timeout": "2M"}, 120.0),
            ({**grpc, "grpc-timeout": "500m"}, 0.5),
            ({**grpc, "grpc-timeout": "99999999H"}, MAX_TIMEOUT),
            ({**grpc, "grpc-timeout": "999999999S"}, 300.0),
            ({**grpc, "grpc-timeout": "soon"}, 300.0),
            ({GLOBAL_TIMEOUT_HEADER: "0"}, DEFAULT_TIMEOUT),
            ({GLOBAL_TIMEOUT_HEADER: "500"}, None),
        ]:
            self.assertEqual(patience(route, headers.get, 300.0), expected, headers)
        for text, expected in [("2M", 120.0), ("5M", 300.0), ("99999999H", 300.0), ("soon", 300.0)]:
            found = patience(route, {**grpc, "grpc-timeout": text}.get, 300.0, believed=False)
            self.assertEqual(found, expected, text)
        self.assertEqual(patience(route, {"accept": "text/event-stream"}.get, 1.0), DEFAULT_TIMEOUT)
        self.assertIsNone(patience(ClusterRoute("c", 5.0, timeout_said=True), grpc.get, 300.0))
