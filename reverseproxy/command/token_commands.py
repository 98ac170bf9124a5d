"""The subcommand C{token}, and its own subcommands."""

from __future__ import annotations

__all__ = ["token"]

import click

from reverseproxy.command.terminal import FILE, OrderedGroup, fail


@click.group(cls=OrderedGroup)
def token() -> None:
    """
    Make, list and revoke tokens of agents.

    By a token an agent proves who it is. FILE is the server's, which "file" of the validator
    "static" names. The server reads it anew when it changes: a revoked token is refused at
    the agent's next connection.
    """


@token.command("add")
@click.argument("file", type=FILE)
@click.argument("agent")
@click.option(
    "--cluster", "clusters", multiple=True, help="A cluster that it may join; if none is said, any."
)
@click.option("--max-weight", type=click.IntRange(1, 128), help="The largest weight it may ask for.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    help="A domain that it may bring, or *.DOMAIN for all below, see agent_routes.",
)
@click.option("--port", "ports", multiple=True, metavar="PORT[-PORT]", help="Ports that it may bring.")
@click.option("--another", is_flag=True, help="Beside those that it has, to change them without a gap.")
@click.option(
    "--output", type=FILE, help="Write the token to this file, for the agent, instead of printing it."
)
def token_add(
    file: str,
    agent: str,
    clusters: tuple[str, ...],
    max_weight: int | None,
    domains: tuple[str, ...],
    ports: tuple[str, ...],
    another: bool,
    output: str | None,
) -> None:
    """
    Make a token for AGENT, and print it: this once, as it can't be seen in a list.

    FILE is made if there is none, to be read by its owner alone.
    """
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        secret = TokenFile(file).add(agent, clusters, max_weight, another, output, domains, ports)
    except TokenProblem as problem:
        fail(str(problem))
    click.echo(f"a token for {agent} is good now, as {file} says", err=True)
    if output is None:
        click.echo(secret)
    else:
        click.echo(f"it is in {output}: take that to the agent", err=True)


@token.command("list")
@click.argument("file", type=FILE)
def token_list(file: str) -> None:
    """Print whose tokens there are, and what they allow; not the tokens."""
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        lines = TokenFile(file).describe()
    except TokenProblem as problem:
        fail(str(problem))
    click.echo("\n".join(lines) or "there are no tokens")


@token.command("revoke")
@click.argument("file", type=FILE)
@click.argument("agent")
@click.option("--fingerprint", metavar="HEX", help="Only the token that has this one in the list.")
def token_revoke(file: str, agent: str, fingerprint: str | None) -> None:
    """Take the tokens of AGENT out of the file."""
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        count = TokenFile(file).revoke(agent, fingerprint)
    except TokenProblem as problem:
        fail(str(problem))
    click.echo(f"{count} token{'s' * (count != 1)} of {agent} revoked", err=True)
