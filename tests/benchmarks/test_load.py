from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import LoadError, parse, parse_h2, parse_json

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


H2LOAD = """\
finished in 1.00s, 196648.00 req/s, 237.05MB/s
requests: 196648 total, 196680 started, 196648 done, %d succeeded, %d failed, 0 errored, 0 timeout
status codes: %d 2xx, 0 3xx, 0 4xx, %d 5xx
traffic: 237.05MB (248563072) total, 35.44MB (37166472) headers (space savings 0.00%%), 192.04MB data
"""


class ParseH2Tests(SynchronousTestCase):
    """L{parse_h2} reads what h2load prints, and takes the latencies from its log."""

    def test_figures(self) -> None:
        log = "".join(f"1795478635369327\t200\t{number}\n" for number in range(1, 101))
        result = parse_h2(H2LOAD % (196648, 0, 196648, 0), log, client_cpu=0.5)
        self.assertEqual((result.requests, result.received, result.seconds), (196648, 248563072, 1.0))
        self.assertEqual((result.p50, result.p99), (50e-6, 99e-6))
        self.assertEqual(result.problems, ())

    def test_problemsAreNamed(self) -> None:
        result = parse_h2(H2LOAD % (10, 3, 8, 2), "")
        self.assertEqual(result.problems, ("3 failed requests", "2 responses that are not 2xx or 3xx"))

    def test_noSummary(self) -> None:
        with self.assertRaises(LoadError):
            parse_h2("connection refused", "")


class ParseJsonTests(SynchronousTestCase):
    """L{parse_json} reads the line that our own clients print."""

    def test_figures(self) -> None:
        line = '{"seconds": 2.0, "counted": 9, "p50": 0.1, "p99": 0.2, "late_p99": 0.01, "problems": []}'
        result = parse_json(f"warning\n{line}\n", "rate.py", 0.3)
        self.assertEqual((result.requests, result.p99, result.client_cpu), (9, 0.2, 0.3))
        self.assertEqual(result.extra, {"counted": 9, "late_p99": 0.01})

    def test_nothingAnswered(self) -> None:
        result = parse_json('{"seconds": 1, "requests": 0, "p50": 0, "p99": 0, "problems": ["x"]}', "a")
        self.assertEqual(result.problems, ("x", "no request was answered"))

    def test_noSummary(self) -> None:
        for output in ("", "Traceback", "[]", "{}"):
            with self.assertRaises(LoadError):
                parse_json(output, "rate.py")
