"""The subcommand C{token}, and its own subcommands."""

from __future__ import annotations

__all__ = ["token"]

import click

from reverseproxy.command.terminal import FILE, OrderedGroup, fail


@click.group(cls=OrderedGroup)
def token() -> None:
    """
    Make, list and revoke tokens of agents.

    An agent authenticates with a token. FILE is the token file of the server, which "file" of the
    validator "static" names. The server reloads it when it changes: connections of an agent with
    a revoked token are closed within five seconds.
    """


@token.command("add")
@click.argument("file", type=FILE)
@click.argument("agent")
@click.option("--cluster", "clusters", multiple=True, help="Cluster that the agent may join; default: any.")
@click.option("--max-weight", type=click.IntRange(1, 128), help="Maximum weight that the agent may have.")
@click.option(
    "--domain",
    "domains",
    multiple=True,
    help="Domain that the agent may register (agent_routes), or *.DOMAIN for all its subdomains.",
)
@click.option(
    "--port", "ports", multiple=True, metavar="PORT[-PORT]", help="Ports that the agent may register."
)
@click.option(
    "--another", is_flag=True, help="Add a token to those of the agent, to rotate them without downtime."
)
@click.option("--output", type=FILE, help="Write the token to this file instead of printing it.")
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
    Make a token for AGENT, and print it, only this once.

    FILE is made if it does not exist; only its owner can read it.
    """
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        secret = TokenFile(file).add(agent, clusters, max_weight, another, output, domains, ports)
    except TokenProblem as problem:
        fail(str(problem))
    click.echo(f"added a token for {agent} to {file}", err=True)
    if output is None:
        click.echo(secret)
    else:
        click.echo(f"the token is in {output}: copy this file to the agent", err=True)


@token.command("list")
@click.argument("file", type=FILE)
def token_list(file: str) -> None:
    """List the agents with tokens, fingerprints of the tokens, and what they allow."""
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        lines = TokenFile(file).describe()
    except TokenProblem as problem:
        fail(str(problem))
    click.echo("\n".join(lines) or "there are no tokens")


@token.command("revoke")
@click.argument("file", type=FILE)
@click.argument("agent")
@click.option("--fingerprint", metavar="HEX", help='Only the token with this fingerprint, see "token list".')
def token_revoke(file: str, agent: str, fingerprint: str | None) -> None:
    """Remove the tokens of AGENT from the file."""
    from reverseproxy.command.tokens import TokenFile, TokenProblem

    try:
        count = TokenFile(file).revoke(agent, fingerprint)
    except TokenProblem as problem:
        fail(str(problem))
    click.echo(f"{count} token{'s' * (count != 1)} of {agent} revoked", err=True)
