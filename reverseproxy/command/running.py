"""Checking and running a file, as C{twistd reverseproxy} does, and looking at what it needs."""

from __future__ import annotations

__all__ = ["check_file", "examine_file", "run_file"]

import sys
from collections.abc import Mapping
from typing import NoReturn

import click
from twisted.internet.task import react
from twisted.scripts import twistd

from reverseproxy.command.doctor import examine
from reverseproxy.command.machine import Finding
from reverseproxy.tap import Options


def check_file(file: str, strict: bool) -> NoReturn:
    """Check a configuration, print what there is to say, and end the process."""
    options = Options()  # type: ignore[no-untyped-call]
    options.parseOptions(["--check", *["--strict"] * strict, "--config", file])
    raise AssertionError("a check ends the process")


def examine_file(file: str) -> NoReturn:
    """Look at everything that a configuration needs, print what is found, and end the process."""

    def tell(finding: Finding) -> None:
        click.echo(str(finding))

    def end(well: bool) -> None:
        raise SystemExit(0 if well else 1)

    react(lambda reactor: examine(file, reactor, tell).addCallback(end))
    raise AssertionError("react ends the process")


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
