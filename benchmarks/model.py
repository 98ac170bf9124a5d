"""
What a run measured, and how it is kept: one document of JSON.
"""

from __future__ import annotations

__all__ = ["QUIET", "Cell", "Profile", "Round", "Run", "impersonal", "interval", "median"]

import json
import re
import statistics
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.load import LoadResult

QUIET = 0.2  # cores that others may use


@dataclass(frozen=True)
class Round:
    """
    One run of a load on a peer.

    @ivar result: what the client says.
    @ivar cpu: CPU seconds used by each of the peer's processes, server first.
    @ivar system: how much of that was spent in the kernel.
    @ivar resident: their resident memory in bytes at the end.
    @ivar others: CPU seconds used by whatever has no part in the run.
    """

    result: LoadResult
    cpu: tuple[float, ...] = ()
    system: tuple[float, ...] = ()
    resident: tuple[int, ...] = ()
    others: float = 0.0

    @property
    def disturbance(self) -> float:
        """How many cores were used by whatever has no part in the run."""
        return self.others / self.result.seconds

    @property
    def quiet(self) -> bool:
        """Whether it was not disturbed much."""
        return self.disturbance <= QUIET

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.result.rate

    @property
    def megabytes(self) -> float:
        """Megabytes (1,000,000 bytes) per second."""
        return self.result.megabytes_per_second

    @property
    def cpu_per_request(self) -> float:
        """Microseconds, all processes of the peer."""
        return sum(self.cpu) / max(1, self.result.requests) * 1e6

    @property
    def cpu_per_gigabyte(self) -> float:
        """Seconds, all processes of the peer."""
        return sum(self.cpu) / max(1, self.result.received) * 1e9

    @property
    def p99(self) -> float:
        """The 99th percentile of latency, milliseconds."""
        return self.result.p99 * 1e3

    @property
    def p50(self) -> float:
        """The median of latency, milliseconds."""
        return self.result.p50 * 1e3


@dataclass
class Cell:
    """
    All rounds of one load on one peer, or why there are none.

    @ivar part: of the run.
    @ivar load: its name.
    @ivar row: the peer's name.
    @ivar title: how the report calls the peer.
    @ivar x: what is varied, if something is.
    """

    part: str
    load: str
    row: str
    title: str
    x: float = 0.0
    rounds: list[Round] = field(default_factory=list)
    failure: str = ""

    @property
    def problems(self) -> str:
        """What makes it invalid; C{""} if nothing does."""
        if self.failure:
            return self.failure
        return "; ".join(problem for each in self.rounds for problem in each.result.problems)

    @property
    def valid(self) -> bool:
        """Whether the figures may be compared."""
        return bool(self.rounds) and not self.problems


@dataclass(frozen=True)
class Profile:
    """
    Where the processes of a row spent their time.

    @ivar roles: for each process, (what, share of its samples) by where the code
        is that was running, most first.
    @ivar functions: the same by function.
    @ivar flames: the flame graphs' files by process, beside the report.
    """

    row: str
    load: str
    roles: dict[str, list[tuple[str, float]]]
    functions: dict[str, list[tuple[str, float]]]
    flames: dict[str, str]


@dataclass
class Run:
    """
    Everything that one run of the benchmarks found.

    @ivar when: ISO 8601, UTC.
    @ivar duration: seconds that all of it took.
    @ivar command: what was typed.
    @ivar options: lengths and numbers of rounds, by name.
    @ivar facts: single figures by name.
    @ivar profiles: of rows that missed a target.
    @ivar scale: what C{scale.py} wrote.
    @ivar failures: what could not be measured, and why.
    @ivar left_out: what was not tried, and why.
    """

    when: str
    command: str
    machine: str
    versions: dict[str, str]
    options: dict[str, float]
    duration: float = 0.0
    cells: list[Cell] = field(default_factory=list)
    facts: dict[str, float] = field(default_factory=dict)
    profiles: list[Profile] = field(default_factory=list)
    scale: dict[str, Any] = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)

    def find(self, part: str, load: str, row: str, x: float | None = None) -> Cell | None:
        """A cell that may be compared; None if it was not measured, or is invalid."""
        for cell in self.cells:
            if (cell.part, cell.load, cell.row) == (part, load, row) and x in (None, cell.x) and cell.valid:
                return cell
        return None

    def select(self, part: str, load: str | None = None) -> list[Cell]:
        """All cells of a part, and of a load, in order."""
        return [cell for cell in self.cells if cell.part == part and load in (None, cell.load)]

    def save(self, path: Path) -> None:
        """Write it down."""
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(impersonal(json.dumps(asdict(self), indent=1)) + "\n")

    @classmethod
    def load(cls, path: Path) -> Run:
        """
        Read what L{save} wrote.

        @raise ValueError: if it is something else.
        """
        try:
            document = json.loads(path.read_text())
            cells = []
            for cell in document.pop("cells"):
                rounds = []
                for each in cell.pop("rounds"):
                    result = each.pop("result")
                    result["problems"] = tuple(result["problems"])
                    figures = {key: tuple(each.pop(key)) for key in ("cpu", "system", "resident")}
                    rounds.append(Round(LoadResult(**result), **figures, **each))
                cells.append(Cell(**cell, rounds=rounds))
            profiles = [Profile(**each) for each in document.pop("profiles")]
            return cls(**document, cells=cells, profiles=profiles)
        except (KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{path} is not what a run writes: {error!r}") from error


def impersonal(text: str) -> str:
    """
    Take out what is of one machine alone and may stand in what failed: paths, and whole addresses.
    """
    checkout = Path(__file__).resolve().parent.parent
    for path, name in ((str(checkout), "."), (sys.prefix, "python"), (str(Path.home()), "~")):
        if len(path) > 1:
            text = text.replace(path, name)
    return re.sub(r"https?://(?!127\.)[^\s/\"\\]+", "https://...", text)


def median(cell: Cell, figure: Callable[[Round], float]) -> float:
    """The median of a figure over the rounds."""
    return statistics.median(figure(each) for each in cell.rounds)


def interval(ratios: list[float]) -> tuple[float, float]:
    """
    Find where the median lies with a probability of 95 %, whatever the distribution is.

    By the binomial distribution of how many are below it, as the normal one has it.
    """
    known, count = sorted(ratios), len(ratios)
    away = 0.98 * count**0.5
    low, high = int(count / 2 - away), int(count / 2 + away + 1)
    return known[max(low, 0)], known[min(high, count - 1)]
