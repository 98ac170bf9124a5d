"""
The targets, and whether a run meets them.
"""

from __future__ import annotations

__all__ = ["BASE", "FIGURES", "TARGETS", "Figure", "Outcome", "Target", "judge"]

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.model import Round, Run, median

BASE = "envoy-http"


@dataclass(frozen=True)
class Figure:
    """
    Something that is compared.

    @ivar more: whether more of it is better.
    """

    title: str
    unit: str
    of: Callable[[Round], float]
    more: bool
    digits: int

    def text(self, value: float) -> str:
        """A value of it, for people."""
        return f"{value:,.{self.digits}f} {self.unit}"


FIGURES = {
    "rate": Figure("requests/s", "requests/s", lambda each: each.rate, True, 0),
    "cpu": Figure("CPU per request", "µs", lambda each: each.cpu_per_request, False, 0),
    "megabytes": Figure("MB/s", "MB/s", lambda each: each.megabytes, True, 0),
    "cpu-gb": Figure("CPU per GB", "s/GB", lambda each: each.cpu_per_gigabyte, False, 2),
    "p99": Figure("p99", "ms", lambda each: each.p99, False, 2),
    "resident": Figure("resident memory", "MB", lambda each: sum(each.resident) / 1e6, False, 0),
}


@dataclass(frozen=True)
class Target:
    """
    One target: a figure of ours, divided by Envoy's.

    @ivar work: what is done, for people; the same for targets of one line.
    @ivar bound: that the ratio must reach, or must not exceed.
    """

    work: str
    row: str
    part: str
    load: str
    figure: str
    bound: float


_SMALL = "1 KB, 32 connections"
_BIG = "10 MB, 4 connections"
_STEADY = "1 KB at half of the slower one's peak rate"

TARGETS = (
    Target(f"{_SMALL}: HTTP + relay", "ours-http-tcp", "core", "1k", "rate", 1.6),
    Target(f"{_SMALL}: HTTP + relay", "ours-http-tcp", "core", "1k", "cpu", 0.6),
    Target(f"{_SMALL}: HTTP + HTTP", "ours-http", "core", "1k", "rate", 1.1),
    Target(f"{_SMALL}: HTTP + HTTP", "ours-http", "core", "1k", "cpu", 0.9),
    Target(
        f"{_SMALL}: HTTP + relay, one connection with mux", "ours-http-tcp-mux", "core", "1k", "rate", 1.3
    ),
    Target(f"{_STEADY}: HTTP + relay", "ours-http-tcp", "steady", "1k", "p99", 1.0),
    Target(f"{_BIG}: HTTP + relay", "ours-http-tcp", "core", "10m", "megabytes", 1.25),
    Target(f"{_BIG}: HTTP + relay", "ours-http-tcp", "core", "10m", "cpu-gb", 0.7),
    Target(f"{_SMALL}: relay + relay", "ours-tcp", "core", "1k", "rate", 2.2),
    Target(f"{_SMALL}: HTTP + relay, TLS on the tunnel", "ours-http-tcp-tls", "core", "1k", "rate", 1.1),
    Target(f"{_BIG}: HTTP + relay, TLS on the tunnel", "ours-http-tcp-tls", "core", "10m", "megabytes", 0.75),
    Target(f"{_STEADY}: HTTP + relay, TLS on the tunnel", "ours-http-tcp-tls", "steady", "1k", "p99", 2.0),
    Target(
        "server and agent before any load: HTTP + relay", "ours-http-tcp", "idle", "idle", "resident", 0.6
    ),
)


@dataclass(frozen=True)
class Outcome:
    """
    What became of a target.

    @ivar ours: the median of our figure; None if there is none.
    @ivar envoys: the median of Envoy's.
    @ivar ratio: of the medians.
    @ivar low: the lowest ratio of one round.
    @ivar high: the highest.
    @ivar why: why there is no ratio.
    """

    target: Target
    ours: float | None = None
    envoys: float | None = None
    ratio: float | None = None
    low: float = 0.0
    high: float = 0.0
    why: str = ""

    @property
    def figure(self) -> Figure:
        """What is compared."""
        return FIGURES[self.target.figure]

    @property
    def met(self) -> bool:
        """Whether the target is met; a figure that is missing meets none."""
        if self.ratio is None:
            return False
        # as printed: 1.595 is 1.60
        ratio = round(self.ratio, 2)
        return ratio >= self.target.bound if self.figure.more else ratio <= self.target.bound

    @property
    def missed(self) -> bool:
        """Whether it was measured and is not met."""
        return self.ratio is not None and not self.met

    @property
    def needed(self) -> float:
        """What our figure would have to be, Envoy's being what it is."""
        return self.target.bound * (self.envoys or 0.0)

    @property
    def gap(self) -> float:
        """By what share of itself our figure would have to change; positive, whichever way."""
        return abs(self.needed / self.ours - 1) if self.ours else 0.0


def judge(run: Run, target: Target) -> Outcome:
    """See what became of a target."""
    cells = [cell for cell in run.select(target.part, target.load) if cell.row == target.row]
    if not cells:
        why = run.failures.get(target.row) or run.left_out.get(target.row) or "not measured"
        return Outcome(target, why=why.splitlines()[0])
    cell = cells[0]
    if not cell.valid:
        return Outcome(target, why=cell.problems.splitlines()[0] if cell.problems else "not measured")
    of = FIGURES[target.figure].of
    base = run.find(target.part, target.load, BASE, cell.x)
    if base is None:
        return Outcome(target, median(cell, of), why="Envoy's figure is missing")
    ours, envoys = median(cell, of), median(base, of)
    if not envoys or not ours:
        return Outcome(target, why="too short to say")
    # the rounds took turns: what disturbed one of them disturbed both
    ratios = [of(a) / of(b) for a, b in zip(cell.rounds, base.rounds, strict=False) if of(b)]
    return Outcome(
        target,
        ours,
        envoys,
        ours / envoys,
        min(ratios, default=ours / envoys),
        max(ratios, default=ours / envoys),
    )
