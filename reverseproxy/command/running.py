"""Checking and running a file, as C{twistd reverseproxy} does."""

from __future__ import annotations

__all__ = ["check_file", "run_file"]

import sys
from collections.abc import Mapping
from typing import NoReturn

from twisted.scripts import twistd

from reverseproxy.tap import Options


def check_file(file: str, strict: bool) -> NoReturn:
    """Check a configuration, print what there is to say, and end the process."""
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(["--check", *["--strict"] * strict, "--config", file])
    raise AssertionError("a check ends the process")


def run_file(file: str | None, options: Mapping[str, str]) -> None:
    """
    Run a configuration in the foreground.

    @param file: L{None} for the quickstart.
    @param options: further options of C{twistd reverseproxy}, with underscores.
    """
    what = ["--quickstart"] if file is None else ["--config", file]
    for name, value in options.items():
        what += [f"--{name.replace('_', '-')}", value]
    # There may be several in one directory, and none is a daemon: no file with a process id.
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "reverseproxy", *what]
    twistd.run()
