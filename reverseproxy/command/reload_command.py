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
@click.option("--admin", metavar="URL", help="Address of the admin API, if not that in FILE.")
@click.option(
    "--token-file",
    type=click.Path(dir_okay=False),
    help="File with a token of the admin API, with the role operate.",
)
@click.option(
    "--ca",
    type=click.Path(dir_okay=False),
    help="File with the authorities for the certificate of the admin API.",
)
@click.option(
    "--pidfile",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Send SIGHUP to the process with the id in this file instead.",
)
def reload(
    file: str, admin: str | None, token_file: str | None, ca: str | None, pidfile: Path | None
) -> None:
    """
    Let the running process reload its configuration.

    FILE is the configuration with which the process was started. It is checked first; then the
    process reloads it, requested by its admin API or by a signal. All changes are applied in one
    step, or none if there is any problem. The changes are printed; the exit status is 1 if the
    configuration is not in use.
    """
    from reverseproxy.command.reloading import ReloadFailed, reload_by_admin, reload_by_signal
    from reverseproxy.command.remote import AdminEndpoint, AdminProblem, endpoint_of, read_token
    from reverseproxy.config.loader import load

    try:
        try:
            config = load(file).config
        except ConfigError as error:
            from reverseproxy.tap import examine_error

            raise examine_error(error) from None
        endpoint = AdminEndpoint.parse(admin, ca) if admin else endpoint_of(config.admin, ca)
        token = "" if token_file is None else read_token(token_file)
        if pidfile is not None:
            report = reload_by_signal(pidfile, endpoint, token)
        elif endpoint is None:
            fail(f"{file} has no admin API: use --admin URL or --pidfile FILE")
        else:
            report = reload_by_admin(endpoint, token)
    except (ConfigError, AdminProblem, ReloadFailed, OSError) as error:
        fail(f"{error}\nnot reloaded")
    if report is None:
        click.echo("the signal is sent; the result is in the log of the process")
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
