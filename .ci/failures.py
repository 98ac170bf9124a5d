#!/usr/bin/env python3
"""
Names the tests that failed, each with its reason in a line, as only the end of a log may be kept.

    python .ci/failures.py REPORT

REPORT is what trial has printed: behind its summary of each kind of failure stand the tests' names.
"""

import re
import sys
from pathlib import Path

LONGEST = 200
"""Characters of a reason."""

SEPARATOR, END = "=" * 79, "-" * 79
NAME = re.compile(r"tests(\.\w+)+")
REASON = re.compile(r"[A-Za-z_][\w.]*(: .+|)")


def reason(lines: list[str]) -> str:
    """
    Find what a traceback ends with, behind which logs of processes may stand.

    @return: empty if there is no traceback.
    """
    logs = next((number for number, line in enumerate(lines) if line.startswith("--- ")), len(lines))
    found = [line for line in lines[:logs] if REASON.fullmatch(line) and not NAME.fullmatch(line)]
    return found[-1][:LONGEST] if found else ""


def failures(report: str) -> dict[str, str]:
    """Find the tests that failed, with their reasons."""
    found = {}
    for block in report.partition(f"\n{END}\nRan ")[0].split(f"\n{SEPARATOR}\n")[1:]:
        lines = block.splitlines()
        names = [line for line in lines if NAME.fullmatch(line)]
        found.update(dict.fromkeys(names, reason(lines)))
    return found


def main() -> None:
    """Write a line for each."""
    report = Path(sys.argv[1]).read_text(errors="replace")
    for name, why in sorted(failures(report).items()):
        sys.stdout.write(f"{name}: {why}\n")


if __name__ == "__main__":
    main()
