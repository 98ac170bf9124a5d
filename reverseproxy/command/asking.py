"""Subcommands that query a running process by its admin API: C{status}, C{ready}, C{agents} and C{drain}."""

from __future__ import annotations

__all__ = ["agents", "drain", "exclusions", "ready", "status"]

import json
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final

import click

if TYPE_CHECKING:
    from reverseproxy.command.remote import AdminClient


INCOMPLETE: Final = 3
"""The status of an incomplete result: a worker did not answer, or a server of the fleet was not reached."""


def _failed(problem: Exception) -> SystemExit:
    """Return an exception that prints a message and exits with status 1."""
    click.echo(str(problem), err=True)
    return SystemExit(1)


def _end(lacks: Sequence[str]) -> None:
    """Exit, with a message and another status if answers were incomplete; see L{INCOMPLETE}."""
    for each in lacks:
        click.echo(each, err=True)
    if lacks:
        raise SystemExit(INCOMPLETE)


def _admin_options(function: Callable[..., None]) -> Callable[..., None]:
    """Add the options of the admin API, and of the output."""
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print the response of the admin API as JSON."),
        click.option(
            "--ca",
            type=click.Path(exists=True, dir_okay=False),
            help="File with the authorities for the certificate of the admin API.",
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            help="File with a token of the admin API.",
        ),
        click.option(
            "--config",
            type=click.Path(dir_okay=False),
            help="Configuration of the process, if it runs on this machine.",
        ),
        click.option(
            "--admin",
            metavar="ADDRESS",
            help="Address of the admin API: HOST:PORT, a URL, or the path of a Unix socket.",
        ),
    ):
        function = option(function)
    return function


def _client(admin: str | None, config: str | None, token_file: str | None, ca: str | None) -> AdminClient:
    from reverseproxy.command.remote import AdminClient, find_admin

    if (admin is None) == (config is None):
        raise click.UsageError("name the process: --admin ADDRESS, or --config FILE")
    return AdminClient.with_token_file(find_admin(admin, config, ca), token_file)


@click.command()
@_admin_options
def status(
    admin: str | None, config: str | None, token_file: str | None, ca: str | None, as_json: bool
) -> None:
    """
    Show the status of a running process.

    It lists listeners, clusters, and the tunnel servers of agents. The exit status is 1 if the process
    can't be reached, is draining, or has a problem, such as a listener that is not bound, or a tunnel
    server without a connection.

    \b
      reverseproxy status --config server.json
      reverseproxy status --admin 127.0.0.1:34901 --token-file operator.token --json
    """
    from reverseproxy.command.remote import AdminProblem
    from reverseproxy.command.tables import status_lines, unwell

    try:
        client = _client(admin, config, token_file, ca)
        summary = client.ask("summary")
        lists = {name: list(client.items(name)) for name in ("clusters", "listeners", "servers")}
    except AdminProblem as problem:
        raise _failed(problem) from None
    reasons = [*unwell(summary, lists["listeners"], lists["servers"]), *client.problems]
    if as_json:
        click.echo(json.dumps({"summary": summary, **lists, "unwell": reasons}, indent=2))
    else:
        lines = [*status_lines(summary, **lists), *(f"problem: {reason}" for reason in reasons)]
        click.echo("\n".join(lines))
    raise SystemExit(1 if reasons else 0)


@click.command()
@_admin_options
def ready(
    admin: str | None, config: str | None, token_file: str | None, ca: str | None, as_json: bool
) -> None:
    """
    Check whether a running process is ready.

    The exit status is 0 if it is, else 1, with the reasons if the caller may read them. This is the
    result of /readyz of the admin API, for which no token is needed. Use it as the health check of
    a container.

    \b
      reverseproxy ready --config /etc/reverseproxy.json
    """
    from reverseproxy.command.remote import AdminProblem

    try:
        reasons = _client(admin, config, token_file, ca).ready().splitlines()
    except AdminProblem as problem:
        raise _failed(problem) from None
    if as_json:
        click.echo(json.dumps({"ready": not reasons, "reasons": reasons[1:]}))
    else:
        click.echo("\n".join(reasons) or "ready", err=bool(reasons))
    raise SystemExit(1 if reasons else 0)


@click.command()
@_admin_options
@click.option("--cluster", help="Only agents of this cluster.")
@click.option("--identity", help="Only agents with this identity, such as token:NAME.")
def agents(
    admin: str | None,
    config: str | None,
    token_file: str | None,
    ca: str | None,
    as_json: bool,
    cluster: str | None,
    identity: str | None,
) -> None:
    """
    List the agents that have joined a tunnel server.

    The exit status is 3 if the list is incomplete, as a worker did not answer.

    \b
      reverseproxy agents --config server.json --cluster clientCluster
    """
    from reverseproxy.clock import wall_time
    from reverseproxy.command.remote import AdminProblem
    from reverseproxy.command.tables import agents_table

    try:
        client = _client(admin, config, token_file, ca)
        found = list(client.items("agents", cluster=cluster, identity=identity))
    except AdminProblem as problem:
        raise _failed(problem) from None
    if as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(agents_table(found, wall_time())))
    else:
        click.echo("no agent has joined", err=True)
    _end(client.problems)


@click.command()
@_admin_options
@click.argument("agent")
@click.option("--for", "seconds", type=click.FloatRange(1), help="Seconds of the ban; default: one hour.")
@click.option("--resume", is_flag=True, help="Lift the bans of the agent instead.")
def drain(
    admin: str | None,
    config: str | None,
    token_file: str | None,
    ca: str | None,
    as_json: bool,
    agent: str,
    seconds: float | None,
    resume: bool,
) -> None:
    """
    Drain an agent, and ban it for a time.

    Requests in progress are finished; then the connections are closed. AGENT is an id that "reverseproxy
    agents" or, for --resume, "reverseproxy exclusions" lists, or the beginning of one. A token with the
    role "operate" is required.

    The exit status is 3 if the result is incomplete: a worker did not answer, or another server of the
    fleet was not reached.

    \b
      reverseproxy drain 0d1c8e6b --config server.json --token-file operator.token --for 600
      reverseproxy drain 0d1c8e6b --config server.json --token-file operator.token --resume
    """
    from reverseproxy.command.remote import AdminProblem, agent_path
    from reverseproxy.logs import counted

    if resume and seconds is not None:
        raise click.UsageError("--for and --resume can't be used together")
    if not agent:
        raise click.UsageError("AGENT is empty")  # which every id begins with
    try:
        client = _client(admin, config, token_file, ca)
        known = {each["id"] for each in client.items("agents")}
        if resume:  # most banned agents are not connected
            known |= {each for ban in client.items("exclusions") for each in ban["agents"]}
        if not resume or any(each.startswith(agent) for each in known):
            agent = _one(agent, sorted(known), client.problems)
        if resume:
            answer = client.ask(agent_path(agent, "resume"), "POST")
            told = "bans lifted" if answer["was_kept_out"] else "no ban to lift"
        else:
            answer = client.ask(agent_path(agent, "drain"), "POST", **{"for": seconds})
            connections = answer["connections"]
            kept = answer["kept_out"]["seconds"]
            passed = "".join(f"; forwarded to server {each}" for each in answer.get("passed_on", ()))
            told = f"{counted(connections, 'connection')} drained{passed}; banned for {kept:g} s"
    except AdminProblem as problem:
        raise _failed(problem) from None
    click.echo(json.dumps(answer, indent=2) if as_json else f"{agent}: {told}")
    _end(client.problems)


@click.command()
@_admin_options
@click.option("--lift", metavar="ID", help="Lift the ban with this id.")
def exclusions(
    admin: str | None,
    config: str | None,
    token_file: str | None,
    ca: str | None,
    as_json: bool,
    lift: str | None,
) -> None:
    """
    List the bans of agents by operators, or lift one.

    ID is the id of a ban in the list, or the beginning of one. To lift a ban, a token with the role
    "operate" is required.

    The exit status is 3 if the result is incomplete, as a worker did not answer.

    \b
      reverseproxy exclusions --config server.json
      reverseproxy exclusions --config server.json --token-file operator.token --lift 5f1c09ae
    """
    from reverseproxy.command.remote import AdminProblem, exclusion_path
    from reverseproxy.command.tables import exclusions_table, printable

    if lift == "":
        raise click.UsageError("--lift is empty")
    try:
        client = _client(admin, config, token_file, ca)
        found = list(client.items("exclusions"))
        if lift is not None:
            key = _one(lift, [each["id"] for each in found], client.problems, "exclusion")
            answer = client.ask(exclusion_path(key), "DELETE")
    except AdminProblem as problem:
        raise _failed(problem) from None
    if lift is not None:
        told = f"{key}: ban of {' '.join(answer['target'])} lifted"
        click.echo(json.dumps(answer, indent=2) if as_json else printable(told))
    elif as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(exclusions_table(found)))
    else:
        click.echo("no bans", err=True)
    _end(client.problems)


def _one(begin: str, known: Sequence[str], lacks: Sequence[str], what: str = "agent") -> str:
    """
    Return the only agent whose id has a prefix.

    @param lacks: why the list of agents may be incomplete.
    @raise AdminProblem: if there is none, or more than one.
    """
    from reverseproxy.command.remote import AdminProblem

    found = [each for each in known if each.startswith(begin)]
    if begin in found:
        return begin
    if len(found) != 1:
        problem = f"{len(found) or 'no'} {what}s have an id that begins with {begin}"
        problem += f'; see "reverseproxy {what}s"'
        raise AdminProblem("\n".join([*lacks, problem]))
    return found[0]
