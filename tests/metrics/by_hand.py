"""Ended requests, counted by hand."""

from __future__ import annotations

__all__ = ["Ended", "check"]

from collections.abc import Iterable
from typing import NamedTuple

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.metrics.accounts import Counters
from reverseproxy.metrics.latency import Ends, classes_of, end_index, note_end, times_of


class Ended(NamedTuple):
    """What counts of a request."""

    status: int
    seconds: float
    received: int
    sent: int


def check(test: SynchronousTestCase, found: Counters, wanted: Iterable[Ended]) -> None:
    """See that counters are what some requests, and no others, make of them."""
    ends: Ends = []
    seconds, received, sent = 0.0, 0, 0
    for each in wanted:
        note_end(ends, end_index(each.status, each.seconds))
        seconds += each.seconds
        received += each.received
        sent += each.sent
    test.assertEqual(classes_of(found.ends), classes_of(ends))
    test.assertEqual(times_of(found.ends), times_of(ends))
    test.assertEqual((found.received, found.sent), (received, sent))
    test.assertAlmostEqual(found.seconds, seconds)
