from __future__ import annotations

import datetime
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import LoadResult
from benchmarks.model import Cell, Profile, Round, Run, impersonal
from benchmarks.report import render, target_table
from benchmarks.targets import TARGETS, Target, judge

WHEN = datetime.datetime(2026, 11, 23, 12, 30, tzinfo=datetime.UTC)
RATE = Target("small", "ours-http-tcp", "core", "1k", "rate", 1.6)
CPU = Target("small", "ours-http-tcp", "core", "1k", "cpu", 0.6)
P99 = Target("steady", "ours-http-tcp", "steady", "1k", "p99", 1.0)


def taken(
    requests: int, cpu: tuple[float, ...] = (0.02, 0.02), p99: float = 0.002, problems: tuple[str, ...] = ()
) -> Round:
    result = LoadResult(
        seconds=1.0, requests=requests, received=requests * 1000, p50=0.001, p99=p99, problems=problems
    )
    return Round(result, cpu, tuple(each / 2 for each in cpu), tuple(50_000_000 for _ in cpu), others=0.01)


def run(*cells: Cell) -> Run:
    return Run(
        when=WHEN.isoformat(),
        command="python3 benchmarks/run.py",
        machine="a machine",
        versions={"Envoy": "1.40"},
        options={"seconds": 1.0, "rounds": 3},
        duration=60.0,
        cells=list(cells),
    )


def core(row: str, *rounds: Round, load: str = "1k") -> Cell:
    return Cell("core", load, row, f"the {row}", rounds=list(rounds))


def table_row(text: str, title: str, nth: int = 0) -> list[str]:
    found = [line for line in text.splitlines() if line.startswith(f"| {title} |")]
    return [each.strip() for each in found[nth].strip("|").split("|")]


class JudgeTests(SynchronousTestCase):
    """L{judge} compares medians with Envoy's, and says nothing of what was not measured."""

    def test_met(self) -> None:
        outcome = judge(
            run(
                core("envoy-http", taken(1000), taken(1200), taken(900)),
                core("ours-http-tcp", taken(1700), taken(1800), taken(1600)),
            ),
            RATE,
        )
        self.assertEqual((outcome.ours, outcome.envoys, outcome.ratio), (1700, 1000, 1.7))
        self.assertEqual((outcome.low, outcome.high), (1.5, 1600 / 900))
        self.assertTrue(outcome.met)
        self.assertFalse(outcome.missed)

    def test_missed(self) -> None:
        outcome = judge(run(core("envoy-http", taken(1000)), core("ours-http-tcp", taken(1280))), RATE)
        self.assertTrue(outcome.missed)
        self.assertEqual((outcome.needed, round(outcome.gap, 2)), (1600, 0.25))

    def test_lessIsBetterForCpu(self) -> None:
        for cpu, met in (((0.01, 0.014), True), ((0.01, 0.015), False)):
            outcome = judge(
                run(core("envoy-http", taken(1000)), core("ours-http-tcp", taken(1000, cpu))), CPU
            )
            self.assertEqual((outcome.met, outcome.missed), (met, not met))

    def test_theBoundAsPrinted(self) -> None:
        outcome = judge(run(core("envoy-http", taken(1000)), core("ours-http-tcp", taken(1596))), RATE)
        self.assertTrue(outcome.met)

    def test_notMeasured(self) -> None:
        for cells, why in (
            ((), "not measured"),
            ((core("ours-http-tcp", taken(1)),), "Envoy's figure is missing"),
            ((Cell("core", "1k", "ours-http-tcp", "ours", failure="it ended\nTraceback"),), "it ended"),
            (
                (core("ours-http-tcp", taken(1, problems=("2 timeouts",))), core("envoy-http", taken(1))),
                "2 timeouts",
            ),
        ):
            outcome = judge(run(*cells), RATE)
            self.assertEqual((outcome.ratio, outcome.met, outcome.missed), (None, False, False))
            self.assertEqual(outcome.why, why)

    def test_whyItWasLeftOut(self) -> None:
        whole = run(core("envoy-http", taken(1)))
        whole.left_out["ours-http-tcp"] = "this checkout cannot"
        self.assertEqual(judge(whole, RATE).why, "this checkout cannot")

    def test_latencyAtTheSameRate(self) -> None:
        cells = [
            Cell("steady", "1k", row, row, x, [taken(1000, p99=p99)])
            for row, x, p99 in (
                ("envoy-http", 4000.0, 0.5),
                ("envoy-http", 9000.0, 0.004),
                ("ours-http-tcp", 9000.0, 0.003),
            )
        ]
        self.assertEqual(judge(run(*cells), P99).ratio, 0.75)


class RunTests(SynchronousTestCase):
    """A L{Run} is kept whole."""

    def test_saveAndLoad(self) -> None:
        whole = run(core("envoy-http", taken(1000), taken(900, problems=("1 timeouts",))))
        whole.profiles.append(Profile("ours-http", "1k", {"server": [("a", 0.5)]}, {}, {"server": "x.svg"}))
        whole.facts["import-python"] = 9e6
        path = Path(self.mktemp()) / "run.json"
        whole.save(path)
        again = Run.load(path)
        self.assertEqual(again.cells, whole.cells)
        self.assertEqual(render(again, "x.json"), render(whole, "x.json"))

    def test_somethingElse(self) -> None:
        path = Path(self.mktemp())
        path.write_text('{"cells": []}')
        with self.assertRaises(ValueError):
            Run.load(path)


class ImpersonalTests(SynchronousTestCase):
    """L{impersonal} takes paths and addresses out."""

    def test_examples(self) -> None:
        checkout = Path(__file__).resolve().parent.parent.parent
        text = f"{checkout}/benchmarks/x.py and {Path.home()}/y: https://index.example/simple http://127.0.0.1:80/"
        self.assertEqual(
            impersonal(text), "./benchmarks/x.py and ~/y: https://.../simple http://127.0.0.1:80/"
        )


class RenderTests(SynchronousTestCase):
    """L{render} writes everything that was found, and what was not."""

    def text(self, whole: Run) -> str:
        return render(whole, "../benchmarks/results/x.json")[0]

    def test_nothing(self) -> None:
        text, plots = render(run(), "x.json")
        self.assertIn(f"**0 of {len(TARGETS)} targets are met**", text)
        self.assertIn("targets.svg", plots)

    def test_targets(self) -> None:
        whole = run(
            core("envoy-http", taken(1000)),
            core("ours-http-tcp", taken(1700, (0.01, 0.01))),
            core("ours-http", taken(1000)),
        )
        lines = target_table(whole)
        self.assertIn("| 1,700 requests/s | 1,000 requests/s | 1.70 (1.70-1.70) | ≥ 1.6 | met |", lines[2])
        self.assertTrue(lines[4].endswith("| 1.00 (1.00-1.00) | ≥ 1.1 | **missed** |"))
        self.assertTrue(lines[6].endswith("| not measured |"))

    def test_peers(self) -> None:
        ours = [taken(requests, (0.01, 0.03)) for requests in (1000, 3000, 2000)]
        text = self.text(run(core("envoy-http", taken(1000)), core("ours-http", *ours)))
        self.assertEqual(
            table_row(text, "the ours-http"),
            [
                *("the ours-http", "2,000", "1,000-3,000", "2.00", "1.00", "2.00", "20 (5 + 15)", "0.50"),
                *("100", "0.01"),
            ],
        )

    def test_directHasNoProxy(self) -> None:
        row = table_row(self.text(run(core("direct", taken(1000, ())))), "the direct")
        self.assertEqual((row[3], row[6], row[8]), ("-", "-", "-"))

    def test_invalidRowIsNotCompared(self) -> None:
        text = self.text(
            run(core("envoy-http", taken(1000, problems=("2 timeouts",))), core("ours-http", taken(1000)))
        )
        self.assertEqual(table_row(text, "the envoy-http")[1], "invalid")
        self.assertIn("- the envoy-http: 2 timeouts", text)
        self.assertEqual(table_row(text, "the ours-http")[3], "-")

    def test_failuresAreTold(self) -> None:
        whole = run()
        whole.failures["bolt"] = "ended with 1:\nTraceback"
        whole.left_out["workers"] = "13 minutes were over"
        text = self.text(whole)
        self.assertIn("- bolt: ended with 1:", text)
        self.assertIn("- workers: 13 minutes were over", text)

    def test_whoLimitsAMissedRow(self) -> None:
        whole = run(core("envoy-http", taken(1000)), core("ours-http-tcp", taken(1000, (0.95, 0.4))))
        whole.profiles.append(
            Profile(
                "ours-http-tcp",
                "1k",
                {"server": [("reverseproxy/wire/http1", 0.6), ("twisted", 0.4)], "agent": [("epoll", 1.0)]},
                {"server": [("read (http1.py)", 0.6)]},
                {"server": "flame.svg"},
            )
        )
        text = self.text(whole)
        self.assertIn("where 1,600 requests/s would meet it, 60 % more.", text)
        # 950 µs of 0.95 cores; 594 at 1,600 requests/s
        self.assertIn("The server is busy for 95 % of a core", text)
        self.assertIn("It takes 950 µs a request", text)
        self.assertIn("it would have 594, so that 356 would have to go.", text)
        self.assertIn("`reverseproxy/wire/http1` 570.0, `twisted` 380.0", text)
        self.assertIn(
            "our own modules alone (without `twisted`) 62 % less. The kernel's part is 475.0, and "
            "the interpreter's and libraries' 475.0.",
            text,
        )
        self.assertEqual(table_row(text, "`reverseproxy/wire/http1`")[1], "570.0 (60 %)")
        self.assertIn("(performance/flame.svg)", text)
        self.assertIn("[Profile of ours-http-tcp, 1k](#profile-of-ours-http-tcp-1k)", text)

    def test_large(self) -> None:
        million = taken(1_000_000, (0.5, 0.5))
        text = self.text(run(core("envoy-http", million, load="10m")))
        row = table_row(text, "the envoy-http")
        self.assertEqual((row[1], row[6]), ("1,000", "1.00 (0.50 + 0.50)"))

    def test_growth(self) -> None:
        cells = [Cell("connections", "1k", "a", "row a", float(x), [taken(x * 10)]) for x in (1, 10, 100)]
        text, plots = render(run(*cells), "x.json")
        self.assertIn("- row a: 10 requests/s at 1, 1,000 at 100.", text)
        self.assertIn("connections.svg", plots)
        self.assertIn("performance/connections.svg", text)

    def test_scale(self) -> None:
        whole = run()
        whole.scale = {
            "memory": {"bytes_per_connection": 4348, "curve": [[0, 70_000_000], [1000, 74_348_000]]},
            "joins": {
                "joins_per_second": 970,
                "cpu_us_per_join": 125,
                "cpu_us_per_leave": 45,
                "leaves_per_cpu_second": 22222,
            },
            "picking": [
                {"balancer": "LB_RANDOM", "hosts": 10, "request_us": 1.01, "leave_us": 12.7},
                {"balancer": "LB_RANDOM", "hosts": 100, "request_us": 1.5, "leave_us": 3.9},
            ],
            "recovery": {
                "connections": 1000,
                "agents": 100,
                "down": 10.0,
                "back": {"50 %": 1.5, "90 %": 20.0},
                "most_dials_per_second": 1234,
                "curve": [{"seconds": 1.5, "serving": 0.5}, {"seconds": 90.0, "serving": 0.993}],
            },
        }
        text, plots = render(whole, "x.json")
        self.assertIn("takes 4,348 bytes of the server: 70 MB without any, 74 MB with 1,000.", text)
        self.assertIn("970 connections joined in a second, at 125 µs", text)
        self.assertIn("| `LB_RANDOM` | 1.01 | 1.50 | 3.9 |", text)
        self.assertIn("Back were 50 % after 1.5 s, 90 % after 20 s; 99.3 % after 90 s.", text)
        self.assertIn("scale-memory.svg", plots)
        self.assertIn("scale-recovery.svg", plots)

    def test_aLoudMachineIsTold(self) -> None:
        each = taken(1000)
        loud = Round(each.result, each.cpu, each.system, each.resident, others=1.0)
        self.assertIn("**the machine was not quiet**", self.text(run(core("ours-http", loud))))
        self.assertNotIn("not quiet", self.text(run(core("ours-http", each))))

    def test_requestsThatDiffer(self) -> None:
        cells = [
            Cell("varied", "1k-varied", row, f"ours, {row}", rounds=[taken(rate, cpu)])
            for row, rate, cpu in (("envoy-http", 1000, (0.02, 0.02)), ("ours-http-tcp", 1500, (0.02, 0.016)))
        ]
        text = self.text(run(*cells))
        self.assertIn("1.50 for requests/s of ours-http-tcp (≥ 1.6: missed)", text)
        self.assertIn("0.60 for CPU per request of ours-http-tcp (≤ 0.6: met).", text)
