"""The command line: subcommands, their options, and what they print."""

from __future__ import annotations

__all__ = ["command", "main"]

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click
from click.shell_completion import get_completion_class

from reverseproxy import __version__
from reverseproxy.command.asking import agents, drain, ready, status
from reverseproxy.errors import ConfigError

if TYPE_CHECKING:
    from reverseproxy.command.instant import Bring

FILE = click.Path(dir_okay=False)
"""A configuration; that it can't be read is told as every problem of one is."""

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


def _fail(message: str) -> NoReturn:
    """End with status 1."""
    click.echo(message, err=True)
    raise SystemExit(1)


class _Group(click.Group):
    """Subcommands in the order in which people need them."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """As they were added."""
        return list(self.commands)


@click.group(
    cls=_Group,
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


@command.command()
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


@command.command()
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


@command.command()
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
        config = load(file).config
        endpoint = AdminEndpoint.parse(admin, ca) if admin else endpoint_of(config.admin, ca)
        token = token_file.read_text("utf-8").strip() if token_file is not None else ""
        if pidfile is not None:
            report = reload_by_signal(pidfile, endpoint, token)
        elif endpoint is None:
            _fail(f"{file} has no admin API to ask: write --admin URL or --pidfile FILE")
        else:
            report = reload_by_admin(endpoint, token)
    except (ConfigError, AdminProblem, ReloadFailed, OSError) as error:
        _fail(f"{error}\nnot reloaded")
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
        _fail("\n".join([*problems, f"not reloaded: generation {report['generation']} stays in use"]))
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


@command.command()
@click.option(
    "--http",
    multiple=True,
    metavar="NAME[=DOMAIN,...]",
    help="A web service; of all domains if none is said.",
)
@click.option(
    "--tcp", multiple=True, metavar="NAME=[HOST:]PORT", help="A TCP service, and where its clients connect."
)
@click.option(
    "--listen", default="0.0.0.0:9999", show_default=True, metavar="HOST:PORT", help="Where agents connect."
)
@click.option(
    "--http-listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Where clients of web services connect.",
)
@click.option(
    "--zone",
    default="localhost",
    show_default=True,
    metavar="DOMAIN",
    help="Of which agents have subdomains for their web services.",
)
@click.option(
    "--ports", metavar="[HOST:]PORT-PORT", help="For TCP services of agents, and where to open them."
)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Where to keep what is made.")
def server(
    http: tuple[str, ...],
    tcp: tuple[str, ...],
    listen: str,
    http_listen: str,
    zone: str,
    ports: str | None,
    state: Path | None,
) -> None:
    """
    Run a tunnel server without writing a file.

    At the first start, a certificate and a token are made, and what to type beside a service is
    printed. Agents need both: only who has a token may serve, and they know the server by the
    fingerprint of the certificate. They bring their services with them: a web service gets a
    subdomain of --zone, a TCP service one of --ports. Services that are named here get a token
    each, which is for nothing else. Clients are let in from this machine alone, unless
    --http-listen or a HOST say otherwise.

    \b
      reverseproxy server
      reverseproxy server --zone tunnels.example.com --http-listen 0.0.0.0:80 --ports 0.0.0.0:2200-2299
      reverseproxy server --http app1=a.example.com --tcp ssh=2222
    """
    from reverseproxy.command.instant import InstantProblem, PublishedService, state_directory
    from reverseproxy.command.running import serve

    try:
        services = [*map(PublishedService.http, http), *map(PublishedService.tcp, tcp)]
        serve(state or state_directory(), listen, http_listen, services, _bring(zone, ports))
    except InstantProblem as problem:
        _fail(str(problem))


def _bring(zone: str, ports: str | None) -> Bring:
    """What agents may bring, of what the command line says."""
    from reverseproxy.command.instant import Bring
    from reverseproxy.identity.allowance import clean_domain, parse_ports

    host, _, numbers = (ports or "").rpartition(":")
    try:
        zone = clean_domain(zone)
        if numbers:
            parse_ports(numbers)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    return Bring(zone, numbers, host.strip("[]") or "127.0.0.1")


def _target(text: str, tcp: bool) -> tuple[str, str]:
    """
    See what is to be exposed.

    @return: an address, and the directory, if it is one.
    """
    if text.isdecimal():
        if not 1 <= int(text) <= 65535:
            raise click.UsageError(f"TARGET {text}: a port is 1 to 65535")
        return f"127.0.0.1:{text}", ""
    path = Path(text)
    if path.is_dir():
        if tcp:
            raise click.UsageError(f"TARGET {text} is a directory, which takes HTTP: leave out --tcp")
        return "", str(path.absolute())
    if text.startswith(("/", "./", "../", "unix:")):
        path = Path(text.removeprefix("unix:"))
        if not path.exists() or path.is_dir():
            raise click.UsageError(f"TARGET {text}: there is neither a socket nor a directory")
        return f"unix:{path.absolute()}", ""
    host, colon, number = text.rpartition(":")
    if not colon or not host or not number.isdecimal():
        raise click.UsageError(
            f"TARGET {text}: write PORT, HOST:PORT, or the path of a socket or a directory"
        )
    return text, ""


@command.command()
@click.argument("target")
@click.option("--to", required=True, metavar="HOST:PORT", help="The tunnel server.")
@click.option("--as", "name", required=True, metavar="NAME", help="The service, as the server calls it.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="The file with its token.",
)
@click.option(
    "--fingerprint",
    metavar="SHA256",
    help="That of the certificate, as the server prints it; once is enough.",
)
@click.option("--ca", metavar="FILE|system", help="Instead: who has to have signed the certificate.")
@click.option(
    "--domain", "domains", multiple=True, help="A domain for it, rather than NAME in the server's zone."
)
@click.option("--tcp", is_flag=True, help="Not HTTP: relay whatever bytes come.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="With --tcp: the server's port for clients; any that is free if none is said.",
)
@click.option("--state", type=click.Path(file_okay=False, path_type=Path), help="Where to keep what is made.")
def expose(
    target: str,
    to: str,
    name: str,
    token_file: str,
    fingerprint: str | None,
    ca: str | None,
    domains: tuple[str, ...],
    tcp: bool,
    port: int | None,
    state: Path | None,
) -> None:
    """
    Make a service reachable, without writing a file.

    TARGET is a port of this machine, HOST:PORT, the path of a Unix socket, or a directory, whose
    files are served. The server has printed the whole line at its first start. On a terminal, the
    last line shows connections, requests and how long they take, and the log goes to a file.

    \b
      reverseproxy expose 8080 --as app1 --to tunnels.example.com:9999 --token-file app1.token \\
        --fingerprint sha256:...
    """
    from reverseproxy.command import running
    from reverseproxy.command.instant import ExposedService, InstantProblem, state_directory

    if fingerprint is not None and ca is not None:
        raise click.UsageError("--fingerprint and --ca are two ways to know the server: say one")
    if tcp and domains:
        raise click.UsageError("--domain is for HTTP, and --tcp is something else")
    if port is not None and not tcp:
        raise click.UsageError("--port is for --tcp; HTTP goes by --domain, or by --as")
    target, files = _target(target, tcp)
    if ":" not in to or not to.rpartition(":")[2].isdecimal():
        raise click.UsageError(f"--to {to}: write HOST:PORT")
    try:
        running.expose(
            ExposedService(name, target, to, token_file, tcp, domains, port or 0),
            state or state_directory(),
            fingerprint,
            ca,
            files,
        )
    except InstantProblem as problem:
        _fail(str(problem))


@command.command()
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
        _fail(str(error))
    click.echo("\n".join(lines))
    raise SystemExit(0 if taken else 1)


@command.command()
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


@command.command()
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
        _fail(f"there is no key {key}{hint}")
    click.echo("\n\n".join(found))


@command.command()
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


@command.group(cls=_Group)
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
        _fail(str(problem))
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
        _fail(str(problem))
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
        _fail(str(problem))
    click.echo(f"{count} token{'s' * (count != 1)} of {agent} revoked", err=True)


@command.command()
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
        _fail(f"{file} can't be read as text")
    try:
        converted = convert_frp(text, file, http_port, subdomain_host)
    except FrpProblem as problem:
        _fail(str(problem))
    click.echo("".join(f"warning: {warning}\n" for warning in converted.warnings), err=True, nl=False)
    click.echo(json.dumps(converted.server if server else converted.agent, indent=2, ensure_ascii=False))


@command.command()
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


for _each in (status, ready, agents, drain):
    command.add_command(_each)
