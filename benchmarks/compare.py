"""
Compare this checkout with another one: C{python3 benchmarks/compare.py CHECKOUT --only ROW...}.

Both measure the same rows with their own C{run.py}, in short runs that take turns,
so that what else the machine does meets both.  Printed is the CPU that a request
takes, in all processes, and the median of the ratios of neighbouring runs.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # run as a script: what is beside it is a package
    sys.path[0] = str(HERE.parent)

from benchmarks.model import Run  # noqa: E402

Key = tuple[str, str, float, str]
"""Part, load, what is varied, and the row's title."""


def measure(
    checkout: Path, output: Path, rows: Sequence[str], seconds: int
) -> dict[Key, tuple[float, float]]:
    """
    Let a checkout measure, one round of each row.

    @return: for each row the CPU of a request in microseconds, and requests per second.
    @raise subprocess.CalledProcessError: if it can't.
    """
    command = [sys.executable, str(checkout / "benchmarks" / "run.py"), "--output", str(output)]
    command += [f"--seconds={seconds}", "--rounds=1", "--patience=0"]
    for row in rows:
        command += ["--only", row]
    # Each checkout's processes import its own package.
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, cwd=checkout, env=environment)
    (file,) = output.glob("*.json")
    run = Run.load(file)
    return {
        (cell.part, cell.load, cell.x, cell.title): (cell.rounds[0].cpu_per_request, cell.rounds[0].rate)
        for cell in run.cells
        if cell.valid and cell.rounds[0].result.requests and cell.rounds[0].cpu
    }


def pairs(options: argparse.Namespace) -> Iterator[tuple[dict[Key, tuple[float, float]], ...]]:
    """Measure before and after, as often as asked for; which of them comes first takes turns."""
    checkouts = {"before": options.before.resolve(), "after": HERE.parent}
    for number in range(options.times):
        found = {}
        for side in list(checkouts)[:: -1 if number % 2 else 1]:
            output = HERE / ".work" / "compare" / f"{side}-{number}"
            for old in output.glob("*.json"):
                old.unlink()
            found[side] = measure(checkouts[side], output, options.only, options.seconds)
        yield found["before"], found["after"]


def table(
    found: Sequence[tuple[dict[Key, tuple[float, float]], ...]],
) -> tuple[list[str], list[dict[str, object]]]:
    """The lines to print, and the same as data."""
    lines = [
        "| row | us a request before | after | ratio, median (each) | requests/s, ratio |",
        "|---|---|---|---|---|",
    ]
    data: list[dict[str, object]] = []
    for key in found[0][0]:
        both = [(before[key], after[key]) for before, after in found if key in before and key in after]
        if not both:
            continue
        cpu = [after[0] / before[0] for before, after in both]
        rate = [after[1] / before[1] for before, after in both]
        part, load, x, title = key
        name = f"{title}, {load}" + (f", {x:g}" if x else "")
        figures = {
            "row": name,
            "part": part,
            "before_us": round(statistics.median(before[0] for before, _ in both), 2),
            "after_us": round(statistics.median(after[0] for _, after in both), 2),
            "ratios": [round(each, 3) for each in cpu],
            "ratio": round(statistics.median(cpu), 3),
            "rate_ratio": round(statistics.median(rate), 3),
        }
        data.append(figures)
        lines.append(
            f"| {name} | {figures['before_us']} | {figures['after_us']} | {figures['ratio']}"
            f" ({', '.join(f'{each:.3f}' for each in cpu)}) | {figures['rate_ratio']} |"
        )
    return lines, data


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; its exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").strip().splitlines()[0])
    parser.add_argument("before", type=Path, help="the other checkout, a clone at an older commit")
    parser.add_argument(
        "--only", action="append", required=True, help="a part, row or load, as run.py has them"
    )
    parser.add_argument("--times", type=int, default=5, help="how often each is measured (default 5)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each round (default 3)")
    parser.add_argument("--save", type=Path, help="where to write the figures, as JSON")
    options = parser.parse_args(arguments)
    if not (options.before / "benchmarks" / "run.py").is_file():
        parser.error(f"{options.before} is no checkout: it has no benchmarks/run.py")
    if options.times < 1 or options.seconds < 1:
        parser.error("--times and --seconds must be at least 1")
    lines, data = table(list(pairs(options)))
    print("\n".join(lines))
    if options.save:
        options.save.write_text(json.dumps({"options": options.only, "rows": data}, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
