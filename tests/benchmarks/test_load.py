from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import LoadError, parse

SUMMARY = (
    '{"seconds": 2.000000, "requests": 100, "bytes": 4000000, "p50": 0.001000000, "p99": 0.002500000, '
    '"connect": 0, "read": 0, "write": 0, "timeout": %d, "status": %d}'
)


class ParseTests(SynchronousTestCase):
    """L{parse} reads the line that the script prints after wrk's own summary."""

    def test_figures(self) -> None:
        result = parse("Running 2s test\n\n" + SUMMARY % (0, 0) + "\n", client_cpu=0.5)
        self.assertEqual((result.rate, result.megabytes_per_second), (50.0, 2.0))
        self.assertEqual((result.p50, result.p99, result.client_cpu), (0.001, 0.0025, 0.5))
        self.assertEqual(result.problems, ())

    def test_problemsAreNamed(self) -> None:
        result = parse(SUMMARY % (3, 7))
        self.assertEqual(result.problems, ("3 timeouts", "7 responses that are not 2xx or 3xx"))

    def test_nothingAnswered(self) -> None:
        result = parse((SUMMARY % (0, 0)).replace('"requests": 100', '"requests": 0'))
        self.assertEqual(result.problems, ("no request was answered",))

    def test_noSummary(self) -> None:
        with self.assertRaises(LoadError) as caught:
            parse("unable to connect to 127.0.0.1:1 Connection refused\n")
        self.assertIn("Connection refused", str(caught.exception))
