"""The subcommand C{reload}."""

from __future__ import annotations

__all__ = ["reload"]

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from reverseproxy.command.terminal import FILE, fail
from reverseproxy.errors import ConfigError


@click.command()
@click.argument("file", type=FILE)
@click.option("--admin", metavar="URL", help="Where the admin API is, if not where FILE says.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file with a token of the admin API that has the role operate.",
)
@click.option("--ca", type=click.Path(dir_okay=False), help="Who has signed the admin API's certificate.")
@click.option(
    "--pidfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Send SIGHUP to the process with the number in this file instead.",
)
def reload(
    file: str, admin: str | None, token_file: Path | None, ca: str | None, pidfile: Path | None
) -> None:
    """
    Let a running process go on with a changed configuration.

    FILE is that configuration, as the process has read it when it was started. It is checked
    here first. Then the process that runs it is told, by its admin API, or by
    a signal. It changes in one step what is different, and nothing if anything is wrong. The
    exit status is 0 if it has, and what has changed is printed.
    """
    from reverseproxy.command.reloading import ReloadFailed, reload_by_admin, reload_by_signal
    from reverseproxy.command.remote import AdminEndpoint, AdminProblem, endpoint_of
    from reverseproxy.config.loader import load

    try:
        try:
            config = load(file).config
        except ConfigError as error:
            from reverseproxy.tap import examine_error

            raise examine_error(error, file) from None
        endpoint = AdminEndpoint.parse(admin, ca) if admin else endpoint_of(config.admin, ca)
        token = token_file.read_text("utf-8").strip() if token_file is not None else ""
        if pidfile is not None:
            report = reload_by_signal(pidfile, endpoint, token)
        elif endpoint is None:
            fail(f"{file} has no admin API to ask: write --admin URL or --pidfile FILE")
        else:
            report = reload_by_admin(endpoint, token)
    except (ConfigError, AdminProblem, ReloadFailed, OSError) as error:
        fail(f"{error}\nnot reloaded")
    if report is None:
        click.echo("the signal is sent; the log of the process says what has come of it")
        return
    _tell_reloaded(report)


def _tell_reloaded(report: dict[str, Any]) -> None:
    """Print what has come of a reload, and end with status 1 if it has failed."""
    for each in report["warnings"]:
        click.echo(f"warning: {_problem(each, report)}", err=True)
    if not report["successful"]:
        problems = [_problem(each, report) for each in report["problems"]]
        fail("\n".join([*problems, f"not reloaded: generation {report['generation']} stays in use"]))
    for key, why in report["needs_restart"].items():
        click.echo(f"needs a restart: {key}: {why}", err=True)
    for what, delta in report["changes"].items():
        if isinstance(delta, dict) and what != "needs_restart":
            for how, names in delta.items():
                if names:
                    click.echo(f"{what} {how}: {', '.join(names)}")
    click.echo(f"generation {report['generation']} is in use")


def _problem(problem: Mapping[str, str], report: Mapping[str, Any]) -> str:
    """Format what is wrong as the process itself does; one that is older names no file for each."""
    parts = (problem.get("file") or report["file"], problem["path"], problem["message"])
    return ": ".join(part for part in parts if part)
