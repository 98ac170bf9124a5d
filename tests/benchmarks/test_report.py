from __future__ import annotations

import datetime

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import BIG, SMALL, LoadResult
from benchmarks.report import Cell, Measurement, render

WHEN = datetime.datetime(2026, 11, 23, 12, 30, tzinfo=datetime.UTC)


def measurement(requests: int, cpu: tuple[float, ...], problems: tuple[str, ...] = ()) -> Measurement:
    result = LoadResult(
        seconds=1.0, requests=requests, received=requests * 1000, p50=0.001, p99=0.002, problems=problems
    )
    return Measurement(result=result, cpu=cpu, resident=tuple(50_000_000 for _ in cpu), others=0.01)


def report(**cells: Cell) -> list[str]:
    tables = [(SMALL, {name.replace("_", "-"): cell for name, cell in cells.items()})]
    return render(tables, "a machine", {"Envoy": "1.40"}, 1.0, WHEN).splitlines()


def row(lines: list[str], title: str) -> list[str]:
    [line] = [line for line in lines if line.startswith(f"| {title} |")]
    return [each.strip() for each in line.strip("|").split("|")]


class RenderTests(SynchronousTestCase):
    """L{render} compares medians with Envoy's and keeps invalid rows out."""

    def test_ratios(self) -> None:
        ours = [measurement(requests, (0.01, 0.03)) for requests in (1000, 3000, 2000)]
        lines = report(
            envoy_http=Cell("envoy", [measurement(1000, (0.02, 0.02))]), ours_http=Cell("ours", ours)
        )
        self.assertEqual(
            row(lines, "ours"),
            [
                *("ours", "2,000", "2.00", "-", "1.00", "2.00", "20 (5 + 15)", "0.50", "-", "100"),
                *("1,000-3,000", "0.01"),
            ],
        )

    def test_directHasNoProxy(self) -> None:
        lines = report(direct=Cell("direct", [measurement(1000, ())]))
        self.assertEqual(row(lines, "direct")[6:10], ["-"] * 4)

    def test_invalidRowIsNotCompared(self) -> None:
        lines = report(
            envoy_http=Cell("envoy", [measurement(1000, (0.02, 0.02), ("2 timeouts",))]),
            ours_http=Cell("ours", [measurement(1000, (0.02, 0.02))]),
        )
        self.assertEqual(row(lines, "envoy")[1], "invalid")
        self.assertIn("- envoy: 2 timeouts", lines)
        self.assertEqual(row(lines, "ours")[2], "-")

    def test_failureIsTold(self) -> None:
        lines = report(ours_http=Cell("ours", failure="ended with 1:\nTraceback\n  ImportError: why"))
        self.assertIn("- ours: ended with 1: ... ImportError: why", lines)

    def test_throughput(self) -> None:
        cells = {"envoy-http": Cell("envoy", [measurement(1_000_000, (0.5, 0.5))])}
        lines = render([(BIG, cells)], "a machine", {}, 1.0, WHEN).splitlines()
        self.assertEqual(row(lines, "envoy")[1], "1,000")
        self.assertEqual(row(lines, "envoy")[6], "1.00 (0.50 + 0.50)")
