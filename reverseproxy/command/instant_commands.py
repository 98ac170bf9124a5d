"""The subcommands C{server} and C{expose}, which need no configuration file."""

from __future__ import annotations

__all__ = ["expose", "server"]

from pathlib import Path
from typing import TYPE_CHECKING

import click

from reverseproxy.command.terminal import fail

if TYPE_CHECKING:
    from reverseproxy.command.instant import Bring


@click.command()
@click.option(
    "--http",
    multiple=True,
    metavar="NAME[=DOMAIN,...]",
    help="A web service and its domains; without any, it takes all requests that no other service takes.",
)
@click.option(
    "--tcp", multiple=True, metavar="NAME=[HOST:]PORT", help="A TCP service, and the address for its clients."
)
@click.option(
    "--listen", default="0.0.0.0:9999", show_default=True, metavar="HOST:PORT", help="Address for agents."
)
@click.option(
    "--http-listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Address for clients of web services.",
)
@click.option(
    "--zone",
    default="localhost",
    show_default=True,
    metavar="DOMAIN",
    help="Domain whose subdomains agents get for their web services.",
)
@click.option(
    "--ports", metavar="[HOST:]PORT-PORT", help="Ports, and their address, for TCP services of agents."
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the files of this command.",
)
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

    At its first start it makes a certificate and a token, and prints the command to run beside a
    service. Agents authenticate with the token, and verify the server by the fingerprint of its
    certificate. They register their services: a web service gets a subdomain of --zone, a TCP
    service one of --ports. A service that is named with --http or --tcp gets a token of its own.
    Only clients on this machine are accepted, unless --http-listen or a HOST opens the server.

    \b
      reverseproxy server
      reverseproxy server --zone tunnels.example.com --http-listen 0.0.0.0:80 --ports 0.0.0.0:2200-2299
      reverseproxy server --http app1=a.example.com --tcp ssh=2222
    """
    from reverseproxy.command.errors import InstantProblem
    from reverseproxy.command.instant import PublishedService
    from reverseproxy.command.running import serve
    from reverseproxy.command.state_directory import state_directory

    try:
        services = [*map(PublishedService.http, http), *map(PublishedService.tcp, tcp)]
        _check_address("--listen", listen)
        _check_address("--http-listen", http_listen)
        for each in services:
            if each.address:
                _check_address("--tcp", each.address)
        serve(state or state_directory(), listen, http_listen, services, _bring(zone, ports))
    except InstantProblem as problem:
        fail(str(problem))


def _check_address(option: str, text: str, dialled: bool = False) -> None:
    """
    Require an address.

    @param dialled: whether it must have a host and a port other than 0.
    """
    from reverseproxy.config._values import split_address

    try:
        host, port = split_address(text)
    except ValueError as error:
        raise click.UsageError(f"{option}: {error}") from None
    if dialled and not (host and port):
        raise click.UsageError(f"{option} {text}: write HOST:PORT")


def _bring(zone: str, ports: str | None) -> Bring:
    """What agents may bring, of what the command line says."""
    from reverseproxy.command.instant import Bring
    from reverseproxy.identity.allowance import clean_domain, parse_ports

    host, _, numbers = (ports or "").rpartition(":")
    try:
        zone = clean_domain(zone)
        if ports is not None:
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
        _check_address("TARGET", f"127.0.0.1:{text}", dialled=True)
        return f"127.0.0.1:{text}", ""
    path = Path(text)
    if path.is_dir():
        if tcp:
            raise click.UsageError(
                f"TARGET {text} is a directory, which can only be served by HTTP: omit --tcp"
            )
        return "", str(path.absolute())
    if text.startswith(("/", "./", "../", "unix:")):
        path = Path(text.removeprefix("unix:"))
        if not path.exists() or path.is_dir():
            raise click.UsageError(f"TARGET {text} is neither a socket nor a directory")
        return f"unix:{path.absolute()}", ""
    if ":" not in text:
        raise click.UsageError(
            f"TARGET {text}: write PORT, HOST:PORT, or the path of a socket or a directory"
        )
    _check_address("TARGET", text, dialled=True)
    return text, ""


@click.command()
@click.argument("target")
@click.option("--to", required=True, metavar="HOST:PORT", help="Address of the tunnel server.")
@click.option("--as", "name", required=True, metavar="NAME", help="Name of the service at the server.")
@click.option(
    "--token-file",
    required=True,
    type=click.Path(exists=True, dir_okay=False),
    help="File with the token.",
)
@click.option(
    "--fingerprint",
    metavar="SHA256",
    help="Fingerprint of the server's certificate, which the server prints; only for the first start.",
)
@click.option(
    "--ca", metavar="FILE|system", help="Authority of the server's certificate, instead of its fingerprint."
)
@click.option(
    "--domain", "domains", multiple=True, help="Domain of the service, instead of NAME in the server's zone."
)
@click.option("--tcp", is_flag=True, help="Expose a TCP service, instead of HTTP.")
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    help="With --tcp: port for clients at the server; default: a free one.",
)
@click.option(
    "--state",
    type=click.Path(file_okay=False, path_type=Path),
    help="Directory for the files of this command.",
)
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
    files are served. The server prints this command at its first start. On a terminal, a status
    line shows connections, requests and their durations, and the log goes to a file.

    \b
      reverseproxy expose 3000 --as app1 --to tunnels.example.com:9999 --token-file app1.token \\
        --fingerprint sha256:...
    """
    from reverseproxy.command import running
    from reverseproxy.command.errors import InstantProblem
    from reverseproxy.command.instant import ExposedService
    from reverseproxy.command.state_directory import state_directory

    if fingerprint is not None and ca is not None:
        raise click.UsageError("--fingerprint and --ca can't be used together")
    if tcp and domains:
        raise click.UsageError("--domain can't be used with --tcp")
    if port is not None and not tcp:
        raise click.UsageError("--port requires --tcp; a web service is found by --domain or --as")
    target, files = _target(target, tcp)
    _check_address("--to", to, dialled=True)
    try:
        running.expose(
            ExposedService(name, target, to, token_file, tcp, domains, port or 0),
            state or state_directory(),
            fingerprint,
            ca,
            files,
        )
    except InstantProblem as problem:
        fail(str(problem))
