"""The command line: subcommands, their options, and what they print."""

from __future__ import annotations

__all__ = ["command", "main"]

import json
from pathlib import Path

import click
from click.shell_completion import get_completion_class

from reverseproxy import __version__
from reverseproxy.command.asking import agents, drain, exclusions, ready, status
from reverseproxy.command.instant_commands import expose, server
from reverseproxy.command.reload_command import reload
from reverseproxy.command.terminal import FILE, OrderedGroup, fail
from reverseproxy.command.token_commands import token
from reverseproxy.errors import ConfigError

_STATUS = """
\b
Exit status:
  0  success
  1  a problem, with a message on standard error
  2  an invalid command line
  3  an incomplete result (agents, drain, exclusions)
"""


def main() -> None:
    """Run the command, and end the process."""
    command(prog_name="reverseproxy")


@click.group(
    cls=OrderedGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=_STATUS,
)
@click.version_option(__version__, message="reverseproxy %(version)s")
def command() -> None:
    """
    Reverse tunnels, and HTTP, TCP and RPC proxying, with MOSN's configuration files.

    \b
    Try it out, without a file:
      reverseproxy run --quickstart
    Make a service reachable, without a file:
      reverseproxy server
      reverseproxy expose 3000 --as app1 --to HOST:9999 --token-file FILE --fingerprint ...
    Check a configuration, explain how it routes a request, and run it:
      reverseproxy check server.json
      reverseproxy explain server.json https://www.example.com/path
      reverseproxy run server.json
    Apply a changed configuration to the running process:
      reverseproxy reload server.json
    Look up a key of the configuration:
      reverseproxy reference connection_num
    """


@click.command()
@click.argument("file", type=FILE)
@click.option("--strict", is_flag=True, help="Treat warnings as errors.")
def check(file: str, strict: bool) -> None:
    """
    Check a configuration, and print what it would run.

    Certificates, tokens and plug-ins are checked too; nothing is bound or dialled.
    All problems are reported at once, each with its place in the document.
    """
    from reverseproxy.command.running import check_file

    check_file(file, strict)


def _workers(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """Require a number of workers."""
    from reverseproxy.workers.counts import parse_workers

    try:
        if value is not None:
            parse_workers(value)
    except ValueError as error:
        raise click.BadParameter(str(error)) from None
    return value


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option(
    "--quickstart", is_flag=True, help="Run a tunnel server, an agent and a service, without a file."
)
@click.option(
    "--workers",
    metavar="N|auto",
    callback=_workers,
    help="Number of worker processes; auto: one for each core.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="Format of the log.")
@click.option(
    "--log-level",
    metavar="LEVEL",
    type=click.Choice(["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"], case_sensitive=False),
    help="Level of the log, instead of default_log_level: TRACE, DEBUG, INFO, WARN, ERROR, FATAL.",
)
@click.option(
    "--transport",
    type=click.Choice(["fast", "stock"]),
    help="Transport of connections: this project's, or Twisted's.",
)
@click.option(
    "--takeover", metavar="PATH", help="Take over from the process that was started with the same path."
)
def run(file: str | None, quickstart: bool, **options: str | None) -> None:
    """
    Run a configuration in the foreground, until Ctrl-C.

    It does the same as "twistd -n reverseproxy --config FILE"; twistd can also run it in the
    background, and change its user.
    """
    if (file is None) != quickstart:
        raise click.UsageError("name a configuration file, or use --quickstart")
    from reverseproxy.command.running import run_file

    run_file(file, {name: value for name, value in options.items() if value is not None})


@click.command()
@click.argument("file", type=FILE)
@click.argument("url")
@click.option("--method", "-X", default="GET", show_default=True, help="Method of the request.")
@click.option(
    "--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="Header field of the request."
)
@click.option(
    "--listener", metavar="NAME", help="Only this listener, instead of those with the port of the URL."
)
def explain(file: str, url: str, method: str, headers: tuple[str, ...], listener: str | None) -> None:
    """
    Explain which listener, virtual host and rule take a request.

    Nothing is sent: only the configuration is used. If no listener has the port of the URL, all
    listeners are considered. The exit status is 1 if no rule takes the request.

    \b
    Examples:
      reverseproxy explain server.json http://www.example.com:2045/a?b=c
      reverseproxy explain server.json http://a.example/ -X POST -H 'x-env: test'
    """
    from reverseproxy.command.explaining import BadRequest, explain_request

    try:
        lines, taken = explain_request(file, url, method, headers, listener)
    except BadRequest as error:
        raise click.UsageError(str(error)) from None
    except ConfigError as error:
        fail(str(error))
    click.echo("\n".join(lines))
    raise SystemExit(0 if taken else 1)


@click.command()
@click.argument("file", type=FILE)
def doctor(file: str) -> None:
    """
    Find what prevents a configuration from working, with remedies.

    It checks versions, file descriptors and the clock; the configuration, its certificates and
    credentials; whether its addresses are free; and names, reachability and TLS of each tunnel
    server and host. No agent joins, and no service gets a request.
    """
    from reverseproxy.command.running import examine_file

    examine_file(file)


@click.command()
@click.argument("key", required=False)
def reference(key: str | None) -> None:
    """
    Print the reference of all keys, or of one.

    \b
    KEY is a key, an object, or both:
      reverseproxy reference connection_num
      reverseproxy reference tunnel_agent
      reverseproxy reference listeners.address
    """
    from reverseproxy.config.lookup import everything, look_up

    if key is None:
        click.echo_via_pager(everything())
        return
    found, near = look_up(key)
    if not found:
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        fail(f"there is no key {key}{hint}")
    click.echo("\n\n".join(found))


@click.command()
def schema() -> None:
    """
    Print a JSON Schema of configurations, for editors.

    \b
    It is for JSON and YAML. Name it at the top of a file:
      reverseproxy schema > reverseproxy.schema.json
      {"$schema": "./reverseproxy.schema.json", "servers": ...}
    """
    from reverseproxy.config.schema import make_schema

    click.echo(json.dumps(make_schema(), indent=2))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--server", is_flag=True, help="Print the server's configuration instead of the agent's.")
@click.option(
    "--http-port",
    type=click.IntRange(1, 65535),
    default=80,
    show_default=True,
    help="vhostHTTPPort of frp's server.",
)
@click.option("--subdomain-host", default="", metavar="DOMAIN", help="subDomainHost of frp's server.")
def convert(file: str, server: bool, http_port: int, subdomain_host: str) -> None:
    """
    Convert a client file of frp.

    One file becomes two configurations: the agent's and, with --server, the server's. Both ends
    have to be replaced, as the tunnels are not frp's. Keys that can't be converted cause warnings
    on standard error.

    \b
      reverseproxy convert frpc.toml > agent.json
      reverseproxy convert frpc.toml --server > server.json
    """
    from reverseproxy.command.frp import FrpProblem, convert_frp

    try:
        text = Path(file).read_text("utf-8-sig")
    except (OSError, ValueError):
        fail(f"{file} can't be read as text")
    try:
        converted = convert_frp(text, file, http_port, subdomain_host)
    except FrpProblem as problem:
        fail(str(problem))
    click.echo("".join(f"warning: {warning}\n" for warning in converted.warnings), err=True, nl=False)
    click.echo(json.dumps(converted.server if server else converted.agent, indent=2, ensure_ascii=False))


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """
    Print the completion script for a shell.

    \b
      bash:  reverseproxy completion bash > ~/.local/share/bash-completion/completions/reverseproxy
      zsh:   reverseproxy completion zsh > a directory of $fpath, as _reverseproxy
      fish:  reverseproxy completion fish > ~/.config/fish/completions/reverseproxy.fish
    """
    kind = get_completion_class(shell)
    assert kind is not None
    click.echo(kind(command, {}, "reverseproxy", "_REVERSEPROXY_COMPLETE").source())


for _each in (
    check,
    run,
    reload,
    server,
    expose,
    explain,
    doctor,
    reference,
    schema,
    token,
    convert,
    completion,
    status,
    ready,
    agents,
    drain,
    exclusions,
):
    command.add_command(_each)
