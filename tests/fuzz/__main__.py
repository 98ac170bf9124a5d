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
import sys
import tempfile
from collections.abc import Sequence
from contextlib import redirect_stderr
from io import StringIO
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, NoReturn

if TYPE_CHECKING:
    from tests.fuzz.targets import Target

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
    parser.add_argument("targets", nargs="*", metavar="TARGET", help="all, if none is given")
    return parser.parse_args(argv)


def _fuzz(name: str, target: Target, options: argparse.Namespace, output: IO[bytes]) -> NoReturn:
    """Fuzz one target in this process, and end it."""
    import atheris

    for stream in (1, 2):
        os.dup2(output.fileno(), stream)
    work = Path(tempfile.mkdtemp(dir=options.work))
    begin, grown, known = work / "seeds", work / "grown", CORPUS / name
    begin.mkdir()
    grown.mkdir()
    for number, data in enumerate(target.seeds()):
        (begin / str(number)).write_bytes(data)
    arguments = [
        *(sys.argv[0], f"-max_total_time={options.seconds}", f"-max_len={LONGEST}", f"-seed={options.seed}"),
        *(f"-timeout={SLOWEST}", f"-rss_limit_mb={MEMORY}", "-print_final_stats=1"),
        *(f"-artifact_prefix={options.found}/{name}-", str(grown), str(begin)),
        *([str(known)] if known.is_dir() else []),
    ]
    try:
        atheris.Setup(arguments, target.check)
        atheris.Fuzz()  # which ends the process itself
    finally:
        os._exit(CANNOT)


def _judge(name: str, code: int, output: IO[bytes]) -> bool:
    """Tell how it went; whether all held."""
    output.seek(0)
    text = output.read().decode("utf-8", "replace")
    output.close()
    tried = re.search(r"number_of_executed_units: (\d+)", text)
    if code == 0 and tried is not None:
        print(f"{name}: {tried[1]} inputs", flush=True)
        return True
    begin = max(text.find(" === "), len(text) - MOST_SHOWN)
    print(f"{name}: FAILED with status {code}\n{text[begin:]}", flush=True)
    return False


def _run(targets: dict[str, Target], options: argparse.Namespace) -> int:
    """
    Fuzz each target in a process of its own.

    They are forked, as instrumenting the package takes as long as trying a target.
    """
    waiting, bad = list(targets.items()), 0
    running: dict[int, tuple[str, IO[bytes]]] = {}
    while waiting or running:
        if waiting and len(running) < options.jobs:
            name, target = waiting.pop(0)
            output = tempfile.TemporaryFile()  # noqa: SIM115
            child = os.fork()
            if not child:
                _fuzz(name, target, options, output)
            running[child] = (name, output)
            continue
        ended, status = os.wait()
        bad += not _judge(running[ended][0], os.waitstatus_to_exitcode(status), running.pop(ended)[1])
    if bad:
        print(f"{bad} of {len(targets)} failed")
    return FOUND if bad else NOTHING_FOUND


def _targets(instrumented: bool) -> dict[str, Target]:
    if instrumented:
        import atheris

        # It names each module that it instruments.
        with redirect_stderr(StringIO()), atheris.instrument_imports(include=["reverseproxy"]):
            from tests.fuzz.targets import TARGETS
    else:
        from tests.fuzz.targets import TARGETS
    return TARGETS


def main(argv: Sequence[str]) -> int:
    """Do what the module's text says; return the exit status."""
    options = _arguments(argv)
    if importlib.util.find_spec("atheris") is None and options.replay is None:
        print("atheris is not installed; it is part of the extra 'test' where there is a wheel of it")
        return CANNOT
    targets = _targets(instrumented=options.replay is None)
    unknown = sorted(set(options.targets) - set(targets))
    if unknown:
        print(f"no target {', '.join(unknown)}; there are {', '.join(targets)}")
        return CANNOT
    chosen = {name: targets[name] for name in options.targets or targets}
    if options.replay is not None:
        for name, target in chosen.items():
            target.check(Path(options.replay).read_bytes())
            print(f"{name}: all holds")
        return NOTHING_FOUND
    with tempfile.TemporaryDirectory() as options.work:
        return _run(chosen, options)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
