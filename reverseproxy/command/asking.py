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
"""The status if something was said or done, but a worker has not answered, or a server was not told."""


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
        click.option("--json", "as_json", is_flag=True, help="Print what the admin API has said."),
        click.option(
            "--ca", type=click.Path(exists=True, dir_okay=False), help="Who has signed its certificate."
        ),
        click.option(
            "--token-file",
            type=click.Path(dir_okay=False),
            help="The file with a token for it.",
        ),
        click.option("--config", type=click.Path(dir_okay=False), help="Its configuration, if it runs here."),
        click.option("--admin", metavar="ADDRESS", help="Its admin API: HOST:PORT, a URL, or a Unix socket."),
    ):
        function = option(function)
    return function


def _client(admin: str | None, config: str | None, token_file: str | None, ca: str | None) -> AdminClient:
    from reverseproxy.command.remote import AdminClient, find_admin

    if (admin is None) == (config is None):
        raise click.UsageError("say where the process is: --admin ADDRESS, or --config FILE")
    return AdminClient.with_token_file(find_admin(admin, config, ca), token_file)


@click.command()
@_admin_options
def status(
    admin: str | None, config: str | None, token_file: str | None, ca: str | None, as_json: bool
) -> None:
    """
    Tell how a process is that runs.

    Its listeners, clusters, and the tunnel servers that it is connected to. The status is 1 if it can't be
    asked, if it is draining, or if there is something that it can't do now, such as a listener that is
    not bound, or a tunnel server without a connection.

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
        lines = [*status_lines(summary, **lists), *(f"not well: {reason}" for reason in reasons)]
        click.echo("\n".join(lines))
    raise SystemExit(1 if reasons else 0)


@click.command()
@_admin_options
def ready(
    admin: str | None, config: str | None, token_file: str | None, ca: str | None, as_json: bool
) -> None:
    """
    Tell whether a process can do its work: for containers.

    The status is 0 if it can, else 1, with the reasons, as far as the caller may know them. It is what
    /readyz of the admin API says, for which no token is needed.

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
@click.option("--cluster", help="Only those that serve this cluster.")
@click.option("--identity", help="Only those of this identity, such as token:NAME.")
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

    The status is 3 if the list lacks those of a worker that has not answered.

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
@click.option("--for", "seconds", type=click.FloatRange(1), help="Seconds to keep it out; else an hour.")
@click.option("--resume", is_flag=True, help="Let it in again instead.")
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
    Let an agent go, and keep it out for a while.

    What is under way is finished. The status is 3 if that was done, but not everywhere: a worker has not
    answered, or another server of the fleet was not told.

    AGENT is its id in the list of "agents", or how that begins. It takes the role "operate".

    \b
      reverseproxy drain 0d1c8e6b --config server.json --token-file operator.token --for 600
      reverseproxy drain 0d1c8e6b --config server.json --token-file operator.token --resume
    """
    from reverseproxy.command.remote import AdminProblem, agent_path

    if resume and seconds is not None:
        raise click.UsageError("--for is for how long to keep it out, and --resume lets it in")
    try:
        client = _client(admin, config, token_file, ca)
        if resume:
            answer = client.ask(agent_path(agent, "resume"), "POST")
            told = "may come back" if answer["was_kept_out"] else "was not kept out"
        else:
            agent = _one(agent, [each["id"] for each in client.items("agents")], client.problems)
            answer = client.ask(agent_path(agent, "drain"), "POST", **{"for": seconds})
            connections = answer["connections"]
            kept = answer["kept_out"]["seconds"]
            passed = "".join(f"; passed on to server {each}" for each in answer.get("passed_on", ()))
            told = (
                f"{connections} connection{'s' * (connections != 1)} let go{passed}; kept out for {kept:g} s"
            )
    except AdminProblem as problem:
        raise _failed(problem) from None
    click.echo(json.dumps(answer, indent=2) if as_json else f"{agent}: {told}")
    _end(client.problems)


@click.command()
@_admin_options
@click.option("--lift", metavar="ID", help="Let in again what this one of the list keeps out.")
def exclusions(
    admin: str | None,
    config: str | None,
    token_file: str | None,
    ca: str | None,
    as_json: bool,
    lift: str | None,
) -> None:
    """
    List the agents that operators keep out, or let one in.

    The list says for how long they are kept out, and why.

    The status is 3 if a worker has not answered, or does not know of it.

    ID is the id of an entry of the list, or how that begins. To lift one takes the role "operate".

    \b
      reverseproxy exclusions --config server.json
      reverseproxy exclusions --config server.json --token-file operator.token --lift 5f1c09ae
    """
    from reverseproxy.command.remote import AdminProblem, exclusion_path
    from reverseproxy.command.tables import exclusions_table, printable

    try:
        client = _client(admin, config, token_file, ca)
        found = list(client.items("exclusions"))
        if lift is not None:
            key = _one(lift, [each["id"] for each in found], client.problems, "exclusion")
            answer = client.ask(exclusion_path(key), "DELETE")
    except AdminProblem as problem:
        raise _failed(problem) from None
    if lift is not None:
        told = f"{key}: {' '.join(answer['target'])} may come back"
        click.echo(json.dumps(answer, indent=2) if as_json else printable(told))
    elif as_json:
        click.echo(json.dumps(found, indent=2))
    elif found:
        click.echo("\n".join(exclusions_table(found)))
    else:
        click.echo("nobody is kept out", err=True)
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
