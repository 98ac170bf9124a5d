from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from benchmarks.rate import Book, percentile

MS = 1_000_000


class PercentileTests(SynchronousTestCase):
    """L{percentile} is a value that occurred."""

    def test_ranks(self) -> None:
        values = list(range(1, 101))
        self.assertEqual([percentile(values, share) for share in (0.0, 0.5, 0.99, 1.0)], [1, 50, 99, 100])

    def test_few(self) -> None:
        self.assertEqual(percentile([], 0.5), 0.0)
        self.assertEqual(percentile([7], 0.99), 7)
        self.assertEqual(percentile([2, 1], 0.5), 1)

    @given(st.lists(st.integers(0, 1000), min_size=1), st.floats(0, 1))
    def test_shareIsNotExceeded(self, values: list[int], share: float) -> None:
        found = percentile(values, share)
        self.assertIn(found, values)
        self.assertGreaterEqual(sum(value <= found for value in values) / len(values), share - 1e-9)


class BookTests(SynchronousTestCase):
    """L{Book} counts latencies from when requests were due, whatever became of those before them."""

    def test_dueByTheClockAlone(self) -> None:
        book = Book(start=10 * MS, interval=MS, count=5, skip=0)
        self.assertEqual([book.due(at * MS) for at in (0, 9, 10, 11)], [0, 0, 1, 2])
        self.assertEqual(book.due(100 * MS), 5)
        book.send(10 * MS, 0)
        self.assertEqual(book.due(11 * MS), 1)

    def test_latencyIncludesWaitingForAConnection(self) -> None:
        book = Book(start=0, interval=MS, count=2, skip=0)
        first = book.send(0, 0)
        book.answer(5 * MS, first)
        # the second one was due at 1 ms, and its connection became free at 5 ms
        second = book.send(5 * MS, 5 * MS)
        book.answer(6 * MS, second)
        figures = book.summary()
        self.assertEqual((figures["p50"], figures["max"]), (0.005, 0.005))
        self.assertEqual(figures["queued"], 1)
        # it was not the client that was late
        self.assertEqual(figures["late_max"], 0.0)
        self.assertTrue(book.over)

    def test_clientsLateness(self) -> None:
        book = Book(start=0, interval=MS, count=3, skip=0)
        # due at 0, 1 and 2 ms, with connections free all along
        for at in (0, 3 * MS, 3 * MS):
            book.answer(4 * MS, book.send(at, 0))
        figures = book.summary()
        self.assertEqual((figures["late_p50"], figures["late_max"]), (0.001, 0.002))
        self.assertEqual((figures["max"], figures["p50"]), (0.004, 0.003))
        self.assertEqual(figures["queued"], 0)

    def test_whatWarmsUpDoesNotCount(self) -> None:
        book = Book(start=0, interval=MS, count=3, skip=2)
        for number, took in enumerate((10, 20, 3)):
            book.answer((number + took) * MS, book.send(number * MS, 0))
        figures = book.summary()
        self.assertEqual((figures["sent"], figures["answered"], figures["counted"]), (3, 3, 1))
        self.assertEqual(figures["max"], 0.003)

    def test_nothing(self) -> None:
        figures = Book(start=0, interval=MS, count=1, skip=0).summary()
        self.assertEqual((figures["counted"], figures["p99"], figures["late_p99"]), (0, 0.0, 0.0))
