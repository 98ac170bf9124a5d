"""
Look for bytes for which something does not hold.

    python -m tests.fuzz                        every target, 10 s each
    python -m tests.fuzz --seconds 3600 bolt    one of them, for an hour
    python -m tests.fuzz --replay FILE bolt     try what was found again

What it finds is written to a file that the last lines name, and the exit status
is 1.  Put the file into C{tests/fuzz/corpus/TARGET/} once it is mended.
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final

NOTHING_FOUND: Final = 0
FOUND: Final = 1
CANNOT: Final = 2

CORPUS: Final = Path(__file__).parent / "corpus"

LONGEST: Final = 8192
"""Bytes of an input at the most."""

SLOWEST: Final = 10
"""Seconds that one input may take; far more than any should, on a busy machine as well."""

MOST_SHOWN: Final = 8000
"""Characters of a target's output that are shown if it fails: its end."""

MEMORY: Final = 1024
"""Megabytes that a target's process may have."""


def _arguments(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.fuzz", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10, help="for each target (default: 10)")
    parser.add_argument(
        "--jobs", type=int, default=os.cpu_count() or 1, help="targets at once (default: CPUs)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the random numbers (default: 1)")
    parser.add_argument("--found", default=".", help="the folder for what is found (default: this one)")
    parser.add_argument("--replay", metavar="FILE", help="only try this input")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, if none is given")
    return parser.parse_args(argv)


def _fuzz(name: str, options: argparse.Namespace) -> None:
    """Fuzz one target in this process, and exit with its status."""
    import atheris

    with atheris.instrument_imports(include=["reverseproxy"]):
        from tests.fuzz.targets import TARGETS

    target = TARGETS[name]
    with tempfile.TemporaryDirectory() as work:
        begin = Path(work, "seeds")
        begin.mkdir()
        for number, data in enumerate(target.seeds()):
            (begin / str(number)).write_bytes(data)
        grown = Path(work, "grown")
        grown.mkdir()
        known = CORPUS / name
        arguments = [
            *(
                sys.argv[0],
                f"-max_total_time={options.seconds}",
                f"-max_len={LONGEST}",
                f"-seed={options.seed}",
            ),
            *(f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"),
            *(f"-artifact_prefix={options.found}/{name}-", str(grown), str(begin)),
            *([str(known)] if known.is_dir() else []),
        ]
        atheris.Setup(arguments, target.check)
        atheris.Fuzz()


def _run(name: str, options: argparse.Namespace) -> tuple[bool, str]:
    """Fuzz one target in a process of its own; tell whether all held, and what there is to say."""
    arguments = (f"--seconds={options.seconds}", f"--seed={options.seed}", f"--found={options.found}")
    ended = subprocess.run(
        [sys.executable, "-m", "tests.fuzz", "--alone", *arguments, name],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        check=False,
    )
    output = ended.stdout
    tried = re.search(r"number_of_executed_units: (\d+)", output)
    if ended.returncode == 0 and tried is not None:
        return True, f"{name}: {tried[1]} inputs"
    begin = max(output.find(" === "), len(output) - MOST_SHOWN)
    return False, f"{name}: FAILED with status {ended.returncode}\n{output[begin:]}"


def _run_all(names: list[str], options: argparse.Namespace) -> int:
    bad = 0
    with ThreadPoolExecutor(options.jobs) as pool:
        for held, text in pool.map(lambda name: _run(name, options), names):
            print(text, flush=True)
            bad += not held
    if bad:
        print(f"{bad} of {len(names)} failed")
    return FOUND if bad else NOTHING_FOUND


def main(argv: Sequence[str]) -> int:
    """Do what the module's text says; return the exit status."""
    options = _arguments(argv)
    if importlib.util.find_spec("atheris") is None and options.replay is None:
        print("atheris is not installed; it is part of the extra 'test' where there is a wheel of it")
        return CANNOT
    if options.alone:
        _fuzz(options.targets[0], options)
        return NOTHING_FOUND
    from tests.fuzz.targets import TARGETS

    unknown = sorted(set(options.targets) - set(TARGETS))
    if unknown:
        print(f"no target {', '.join(unknown)}; there are {', '.join(TARGETS)}")
        return CANNOT
    names = options.targets or list(TARGETS)
    if options.replay is not None:
        for name in names:
            TARGETS[name].check(Path(options.replay).read_bytes())
            print(f"{name}: all holds")
        return NOTHING_FOUND
    return _run_all(names, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
