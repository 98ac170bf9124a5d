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
  0  all is well
  1  there is a problem, which is told on standard error
  2  the command line can't be understood
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
    Reverse tunnels and HTTP, TCP and RPC proxying with MOSN's configuration files.

    \b
    Try it out, without a file:
      reverseproxy run --quickstart
    Make a service reachable, without a file:
      reverseproxy server
      reverseproxy expose 8080 --as app1 --to HOST:9999 --token-file FILE --fingerprint ...
    Check a configuration, see what it does with a request, and run it:
      reverseproxy check server.json
      reverseproxy explain server.json https://www.example.com/path
      reverseproxy run server.json
    Go on with what is new in it:
      reverseproxy reload server.json
    Look a key up:
      reverseproxy reference connection_num
    """


@click.command()
@click.argument("file", type=FILE)
@click.option("--strict", is_flag=True, help="Take a warning for an error.")
def check(file: str, strict: bool) -> None:
    """
    Check a configuration, and print what it would run.

    Certificates, tokens and plug-ins are looked at too; nothing is bound or dialled.
    All problems are told at once, each with its place in the document.
    """
    from reverseproxy.command.running import check_file

    check_file(file, strict)


@click.command()
@click.argument("file", type=FILE, required=False)
@click.option("--quickstart", is_flag=True, help="No file: a tunnel server, an agent and a service in one.")
@click.option("--workers", metavar="N|auto", help="How many processes share the work.")
@click.option("--log-format", type=click.Choice(["text", "json"]), help="How to write the log.")
@click.option("--log-level", metavar="LEVEL", help="Overrides default_log_level of the file.")
@click.option("--transport", type=click.Choice(["fast", "stock"]), help="Our connections, or Twisted's own.")
@click.option(
    "--takeover", metavar="PATH", help="Take the place of the process that was started with this path."
)
def run(file: str | None, quickstart: bool, **options: str | None) -> None:
    """
    Run a configuration in the foreground, until Ctrl-C.

    It is what "twistd -n reverseproxy --config FILE" does; twistd can put it into the
    background, and change its user.
    """
    if (file is None) != quickstart:
        raise click.UsageError("name a configuration, or try --quickstart")
    from reverseproxy.command.running import run_file

    run_file(file, {name: value for name, value in options.items() if value is not None})


@click.command()
@click.argument("file", type=FILE)
@click.argument("url")
@click.option("--method", "-X", default="GET", show_default=True, help="The method of the request.")
@click.option("--header", "-H", "headers", multiple=True, metavar="'NAME: VALUE'", help="A field of it.")
@click.option("--listener", metavar="NAME", help="Only this listener; else those with the port of the URL.")
def explain(file: str, url: str, method: str, headers: tuple[str, ...], listener: str | None) -> None:
    """
    Tell who would take a request: listener, virtual host and rule.

    Nothing is sent: the answer is found in the configuration alone. Where no listener has
    the port of the URL, all are looked at. The status is 1 if nothing takes the request.

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
    Look for what is in the way, each fault with a remedy.

    Versions, descriptors and the clock; the configuration, its certificates and credentials;
    whether its ports are free; and names, reachability and TLS of each tunnel server and host
    that it dials. No agent joins, and no service gets a request.
    """
    from reverseproxy.command.running import examine_file

    examine_file(file)


@click.command()
@click.argument("key", required=False)
def reference(key: str | None) -> None:
    """
    Print what is known of a key, or of all keys.

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
    It works for JSON and for YAML. Name it at the top of a file:
      reverseproxy schema > reverseproxy.schema.json
      {"$schema": "./reverseproxy.schema.json", "servers": ...}
    """
    from reverseproxy.config.schema import make_schema

    click.echo(json.dumps(make_schema(), indent=2))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False))
@click.option("--server", is_flag=True, help="Print the configuration of the server, not the agent's.")
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
    Make configurations of a client file of frp.

    What frp's client says of the server is the server's own matter here: one file becomes
    two, the agent's and, with --server, the server's. Both ends have to be changed, as the
    tunnels are not frp's. What can't be converted is a warning on standard error.

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
    Print what makes a shell complete this command.

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
