"""
The report: medians over the rounds, their spread, and the ratios to Envoy.
"""

from __future__ import annotations

__all__ = ["Cell", "Measurement", "baseline", "median", "render"]

import datetime
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.load import SMALL, Load, LoadResult

QUIET = 0.2  # cores that others may use

# ratio column -> the peer that is 1.00
BASELINES = {"x Envoy HTTP": "envoy-http", "x Envoy tcp": "envoy-tcp"}


@dataclass(frozen=True)
class Measurement:
    """
    One run of a load on a peer.

    @ivar cpu: CPU seconds used by each of the peer's processes, server first.
    @ivar resident: their resident memory in bytes at the end of the run.
    @ivar others: CPU seconds used by whatever has no part in the run.
    """

    result: LoadResult
    cpu: tuple[float, ...]
    resident: tuple[int, ...]
    others: float

    @property
    def disturbance(self) -> float:
        """How many cores were used by whatever has no part in the run."""
        return self.others / self.result.seconds

    @property
    def quiet(self) -> bool:
        """Whether the run was not disturbed much."""
        return self.disturbance <= QUIET


@dataclass
class Cell:
    """All rounds of one load on one peer, or why there are none."""

    title: str
    measurements: list[Measurement] = field(default_factory=list)
    failure: str = ""

    @property
    def problems(self) -> str:
        """What makes the row invalid; C{""} if nothing does."""
        if self.failure:
            return self.failure
        return "; ".join(problem for each in self.measurements for problem in each.result.problems)

    @property
    def valid(self) -> bool:
        """Whether the figures may be compared."""
        return bool(self.measurements) and not self.problems


def median(cell: Cell, figure: Callable[[Measurement], float]) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(figure(each) for each in cell.measurements)


def baseline(cells: Mapping[str, Cell], name: str) -> Cell | None:
    """The row that others are compared with, if it was measured and is valid."""
    cell = cells.get(name)
    return cell if cell is not None and cell.valid else None


def _rate(each: Measurement) -> float:
    return each.result.rate


def _throughput(each: Measurement) -> float:
    return each.result.megabytes_per_second


def _cpu_per_request(each: Measurement) -> float:
    """Microseconds."""
    return sum(each.cpu) / each.result.requests * 1e6


def _cpu_per_gigabyte(each: Measurement) -> float:
    """Seconds."""
    return sum(each.cpu) / (each.result.received / 1e9)


def _share(cell: Cell, figure: Callable[[Measurement], float]) -> str:
    """Split a CPU figure by process: server + agent."""
    total = median(cell, lambda each: sum(each.cpu))
    if not total or len(cell.measurements[0].cpu) < 2:
        return ""
    amount = median(cell, figure)
    digits = 0 if amount >= 10 else 2
    parts = [median(cell, lambda each, n=n: each.cpu[n]) / total * amount for n in range(2)]  # type: ignore[misc]
    return " (" + " + ".join(f"{part:.{digits}f}" for part in parts) + ")"


def _ratio(cell: Cell, base: Cell | None, figure: Callable[[Measurement], float]) -> str:
    if base is None or not median(base, figure):
        return "-"
    return f"{median(cell, figure) / median(base, figure):.2f}"


def _row(name: str, cell: Cell, cells: Mapping[str, Cell], load: Load) -> list[str]:
    small = load is SMALL
    main, cost = (_rate, _cpu_per_request) if small else (_throughput, _cpu_per_gigabyte)
    values = [main(each) for each in cell.measurements]
    bases = [baseline(cells, base) for base in BASELINES.values()]
    proxies = bool(cell.measurements[0].cpu)
    amount = median(cell, cost)
    return [
        cell.title,
        f"{median(cell, main):,.0f}",
        *(_ratio(cell, base, main) for base in bases),
        f"{median(cell, lambda each: each.result.p50) * 1e3:.2f}",
        f"{median(cell, lambda each: each.result.p99) * 1e3:.2f}",
        f"{amount:.{0 if amount >= 10 else 2}f}{_share(cell, cost)}" if proxies else "-",
        *(_ratio(cell, base, cost) if proxies else "-" for base in bases),
        f"{median(cell, lambda each: sum(each.resident)) / 1e6:.0f}" if proxies else "-",
        f"{min(values):,.0f}-{max(values):,.0f}",
        f"{median(cell, lambda each: each.disturbance):.2f}",
    ]


def _table(load: Load, cells: Mapping[str, Cell]) -> list[str]:
    unit, cost = ("requests/s", "CPU µs/request") if load is SMALL else ("MB/s", "CPU s/GB")
    heads = [
        *("path", unit, *BASELINES, "p50 ms", "p99 ms"),
        f"{cost} (server + agent)",
        *(f"CPU {name}" for name in BASELINES),
        *("resident MB", "lowest-highest round", "cores used by others"),
    ]
    lines = ["| " + " | ".join(heads) + " |", "|---" + "|---:" * (len(heads) - 1) + "|"]
    broken = []
    for name, cell in cells.items():
        if cell.valid:
            lines.append("| " + " | ".join(_row(name, cell, cells, load)) + " |")
        else:
            reason = (cell.problems or "not measured").strip().splitlines()
            lines.append(f"| {cell.title} | invalid" + " |" * (len(heads) - 1))
            # what is between the first and the last line of a log has been printed when it happened
            broken.append(f"- {cell.title}: {reason[0]}{' ... ' + reason[-1].strip() if reason[1:] else ''}")
    return [*lines, *(["", "Invalid:", *broken] if broken else [])]


def render(
    tables: Sequence[tuple[Load, Mapping[str, Cell]]],
    machine: str,
    versions: Mapping[str, str],
    seconds: float,
    when: datetime.datetime,
) -> str:
    """
    Write the whole report, Markdown.

    @param tables: for each load, its rows by name, in order.
    @param machine: the machine's description.
    @param versions: name -> version of what was compared.
    @param seconds: how long one round was.
    """
    everything = [each for _, cells in tables for cell in cells.values() for each in cell.measurements]
    rounds = max((len(cell.measurements) for _, cells in tables for cell in cells.values()), default=0)
    lines = [
        f"# Benchmark of {when:%Y-%m-%d}",
        "",
        f"Taken at {when:%H:%M} UTC on one machine: {machine}. "
        + ", ".join(f"{name} {version}" for name, version in versions.items())
        + ".",
        "",
        f"Loopback; client, backend and proxies share the cores; {rounds} interleaved rounds of "
        f"{seconds:g} s a row, medians shown. CPU and memory are of both proxy processes together. CPU per "
        "request and per GB are the figures to carry over to other machines. x Envoy: above 1 is better "
        "for requests and MB, below 1 is better for CPU.",
    ]
    if everything:
        others = max(each.disturbance for each in everything)
        lines += [
            "",
            f"What had no part in the run used at most {others:.2f} cores during any round"
            + (": **the machine was not quiet**." if others > QUIET else "."),
        ]
    for load, cells in tables:
        lines += ["", f"## {load.title}", "", *_table(load, cells)]
    return "\n".join(lines) + "\n"
