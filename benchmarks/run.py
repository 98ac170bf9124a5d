"""
Run the benchmarks: C{python3 benchmarks/run.py}.

Installs what it needs, starts everything, drives it, prints the targets and
whether they are met, writes the report, stops everything.  See README.md beside
this file.
"""

from __future__ import annotations

import argparse
import datetime
import resource
import shlex
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # run as a script: what is beside it is a package
    sys.path[0] = str(HERE.parent)

from benchmarks import parts, report  # noqa: E402
from benchmarks.bench import Bench, Lengths, say  # noqa: E402
from benchmarks.install import InstallError, install  # noqa: E402
from benchmarks.load import LOADS  # noqa: E402
from benchmarks.measure import machine  # noqa: E402
from benchmarks.model import Run, impersonal  # noqa: E402
from benchmarks.processes import PeerError  # noqa: E402
from benchmarks.rows import SATURATED  # noqa: E402

WORK = HERE / ".work"
DOCS = HERE.parent / "docs"
RESULTS = HERE / "results"
DESCRIPTORS = 16384
QUICK = Lengths(seconds=1.0, rounds=1, quick=True, patience=0.0)


def write(run: Run, directory: Path, results: Path) -> Path:
    """
    Write the figures, the report and its plots.

    @param directory: for the report; plots go into a directory in it.
    @param results: for the figures.
    @return: the report's file.
    """
    run.save(results)
    relative = (
        Path("..", *results.relative_to(directory.parent).parts).as_posix()
        if results.is_relative_to(directory.parent)
        else str(results)
    )
    text, plots = report.render(run, relative)
    place = directory / report.PLOTS
    place.mkdir(parents=True, exist_ok=True)
    flames = {name for profile in run.profiles for name in profile.flames.values()}
    for old in place.glob("*.svg"):
        if old.name not in plots and old.name not in flames:
            old.unlink()
    for name, plot in plots.items():
        (place / name).write_text(plot)
    path = directory / "performance.md"
    path.write_text(impersonal(text))
    return path


def measure(
    bench: Bench, wanted: Sequence[str], rows: Sequence[str], loads: Sequence[str], flames: Path
) -> None:
    """Do the parts that are wanted, in the order in which they matter."""
    chosen = [load for load in LOADS if load.name in loads]
    steps = {
        "core": lambda: parts.core(bench, rows, chosen),
        "varied": lambda: parts.varied(bench),
        "steady": lambda: parts.steady(bench),
        "http2": lambda: parts.http2(bench),
        "profiles": lambda: parts.profiles(bench, flames),
        "bolt": lambda: parts.bolt(bench),
        "memory": lambda: parts.memory(bench),
        "growth": lambda: parts.growth(bench),
        "workers": lambda: parts.workers(bench),
        "scale": lambda: parts.scale(bench),
        "long": lambda: parts.long_wires(bench),
        "fleet": lambda: parts.fleet(bench),
    }
    if "core" in wanted:
        bench.attempt("idle", lambda: parts.idle(bench, rows))
    for name, step in steps.items():
        if name in wanted:
            bench.attempt(name, step)


def _options(arguments: Sequence[str] | None) -> argparse.Namespace:
    lengths = Lengths()
    parser = argparse.ArgumentParser(
        description="Compare this project's tunnel with Envoy's here, and write docs/performance.md."
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="one round of 1 s of everything, fewer points: to see that all of it works",
    )
    parser.add_argument("--seconds", type=int, help=f"length of one round (default {lengths.seconds:g})")
    parser.add_argument("--rounds", type=int, help=f"rounds of every row (default {lengths.rounds})")
    parser.add_argument(
        "--patience",
        type=int,
        help="seconds, all together, for repeating rounds that others disturbed "
        f"(default {lengths.patience:g}; with --quick none)",
    )
    parser.add_argument(
        "--minutes",
        type=float,
        help=f"after which nothing new is begun (default {lengths.minutes:g})",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*parts.PARTS, *parts.EXTRA, *SATURATED, *(load.name for load in LOADS)],
        help="a part, or a row or a load of the part core, instead of all; may be given several times",
    )
    parser.add_argument(
        "--output",
        type=Path,
        help="the directory for the report (default: docs; with --quick or --only: benchmarks/.work/report)",
    )
    parser.add_argument("--prepare", action="store_true", help="install what is needed, and measure nothing")
    parser.add_argument(
        "--render", type=Path, help="write the report from these figures, and measure nothing"
    )
    options = parser.parse_args(arguments)
    for name in ("seconds", "rounds"):
        if (getattr(options, name) or 1) < 1:
            parser.error(f"--{name} must be at least 1")
    return options


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command.

    @return: the exit status: 0, or 1 if something could not be measured.
    """
    options = _options(arguments)
    whole = not options.quick and not options.only
    directory = options.output or (DOCS if whole or options.render else WORK / "report")
    if options.render:
        run = Run.load(options.render)
        print(f"written: {write(run, directory, options.render.resolve())}")
        return 0
    base = QUICK if options.quick else Lengths()
    given = {
        name: getattr(options, name)
        for name in ("seconds", "rounds", "patience", "minutes")
        if getattr(options, name) is not None
    }
    lengths = Lengths(**{**asdict(base), **given})
    wanted = [name for name in (*parts.PARTS, *parts.EXTRA) if name in options.only]
    rows = [name for name in SATURATED if name in options.only]
    loads = [load.name for load in LOADS if load.name in options.only]
    if rows or loads:
        wanted = [*wanted, "core"]
    begun = time.monotonic()
    now = datetime.datetime.now(datetime.UTC)
    results = (RESULTS if whole and not options.output else directory) / f"{now:%Y-%m-%d}.json"

    # SIGTERM ends as an interrupt does: with everything stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = DESCRIPTORS if hard == resource.RLIM_INFINITY else min(DESCRIPTORS, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
    WORK.mkdir(exist_ok=True)
    work = WORK / "run"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir()
    try:
        tools = install(WORK, say, also=("py-spy",))
        if options.prepare:
            return 0
        run = Run(
            when=now.isoformat(timespec="seconds"),
            command=shlex.join(
                ["python3", "benchmarks/run.py", *(sys.argv[1:] if arguments is None else arguments)]
            ),
            machine=machine(),
            versions=tools.versions(),
            options={"seconds": lengths.seconds, "rounds": lengths.rounds, "quick": float(lengths.quick)},
            left_out=dict(tools.missing),
        )
        with Bench(tools, run, work, lengths) as bench:
            measure(
                bench,
                wanted or parts.PARTS,
                rows or SATURATED,
                loads or [load.name for load in LOADS],
                directory / report.PLOTS,
            )
    except (InstallError, PeerError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    run.duration = time.monotonic() - begun
    path = write(run, directory, results)
    print("\n".join(report.target_table(run)))
    broken = [cell for cell in run.cells if not cell.valid]
    for cell in broken:
        say(f"invalid: {cell.part} {cell.load}, {cell.title}: {cell.problems.splitlines()[0]}")
    for name, why in run.failures.items():
        say(f"failed: {name}: {why.splitlines()[0]}")
    say(f"{run.duration / 60:.1f} minutes; report: {path}, figures: {results}")
    return 1 if broken or run.failures else 0


if __name__ == "__main__":
    sys.exit(main())
