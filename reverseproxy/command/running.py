"""Check and run configurations, as C{twistd reverseproxy} does."""

from __future__ import annotations

__all__ = ["check_file", "examine_file", "expose", "run_file", "serve"]

import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import click
from twisted.internet.task import react
from twisted.scripts import twistd

from reverseproxy.command.certificates import SERVER_NAME, fetch_certificate, fingerprint_of, same_fingerprint
from reverseproxy.command.doctor import examine
from reverseproxy.command.errors import InstantProblem
from reverseproxy.command.exposing import Exposing
from reverseproxy.command.instant import Bring, ExposedService, PublishedService, server_configuration
from reverseproxy.command.state_directory import StateDirectory
from reverseproxy.command.system_checks import Finding
from reverseproxy.services.single import on_start
from reverseproxy.tap import Options


def check_file(file: str, strict: bool) -> NoReturn:
    """Check a configuration, print the result, and end the process."""
    options = Options()
    options.parseOptions(["--check", *["--strict"] * strict, "--config", file])
    raise AssertionError("a check ends the process")


def examine_file(file: str) -> NoReturn:
    """Run the checks of C{doctor}, print the findings, and end the process."""

    def tell(finding: Finding) -> None:
        click.echo(str(finding))

    def end(well: bool) -> None:
        raise SystemExit(0 if well else 1)

    react(lambda reactor: examine(file, reactor, tell).addCallback(end))
    raise AssertionError("react ends the process")


def run_file(file: str | None, options: Mapping[str, str]) -> None:
    """
    Run a configuration in the foreground.

    @param file: L{None} for the quickstart.
    @param options: further options of C{twistd reverseproxy}, with underscores.
    """
    what = ["--quickstart"] if file is None else ["--config", file]
    for name, value in options.items():
        what += [f"--{name.replace('_', '-')}", value]
    # There may be several in one directory, and none is a daemon: no file with a process id.
    sys.argv[1:] = ["--nodaemon", "--pidfile=", "reverseproxy", *what]
    twistd.run()


def serve(
    directory: Path, listen: str, http_listen: str, services: Sequence[PublishedService], bring: Bring
) -> None:
    """
    Run a tunnel server for given services, and for those that agents bring.

    @raise InstantProblem: if it can't be set up.
    """
    state = StateDirectory(directory)
    document = server_configuration(state, listen, http_listen, services, bring)
    fingerprint = fingerprint_of(state.certificate())
    made = state.new_tokens(services)
    file = state.keep("server", document)
    port = listen.rpartition(":")[2]
    for service in services:
        where = service.address or f"http://{http_listen}/"
        names = "" if service.domains in ((), ("*",)) else f" with the Host {' or '.join(service.domains)}"
        click.echo(f"{service.name}: clients go to {where}{names}")
        if service.name in made:
            click.echo(
                f"  its token, which is not shown again: {made[service.name]}\n"
                f"  Put it into a file {service.name}.token beside the service, and there run\n"
                f"  reverseproxy expose PORT --as {service.name} --to THIS-HOST:{port} --token-file "
                f"{service.name}.token --fingerprint {fingerprint}{' --tcp' * bool(service.address)}"
            )
    first = None if services else state.first_token(bring.zone, bring.ports)
    if first is not None:
        where = bring.configuration(http_listen)["url"]
        click.echo(
            f"A token, which is not shown again: {first}\n"
            "Put it into a file first.token beside a service, and there run\n"
            f"  reverseproxy expose PORT --as NAME --to THIS-HOST:{port} --token-file first.token "
            f"--fingerprint {fingerprint}\n"
            f"Clients will go to {where.format(domain=f'NAME.{bring.zone}')}"
        )
    click.echo(
        f"More tokens: reverseproxy token add {state.tokens} AGENT --domain '*.{bring.zone}'"
        f"{f' --port {bring.ports}' * bool(bring.ports)}"
    )
    click.echo(f"certificate: {fingerprint}\nconfiguration: {file}\n")
    run_file(file, {})


def expose(
    service: ExposedService, directory: Path, fingerprint: str | None, ca: str | None, files: str = ""
) -> None:
    """
    Run an agent for a service.

    @param fingerprint: the fingerprint of the server's certificate; L{None} if it was
        pinned before.
    @param ca: a file of authorities instead, or C{"system"}.
    @param files: the directory to serve; empty for another service.
    @raise InstantProblem: if it can't be set up.
    """
    state = StateDirectory(directory)
    exposing = Exposing(service.name, state.directory, service.tcp, files)
    service = replace(
        service,
        admin=exposing.socket("admin"),
        target=f"unix:{exposing.socket('files')}" if files else service.target,
        log=str(state.directory / f"{service.name}-agent.log") if exposing.live else "stdout",
    )
    if ca is not None:
        document = service.configuration("" if ca == "system" else os.path.abspath(ca), "")
    else:
        document = service.configuration(_pin(state, service, fingerprint), SERVER_NAME)
    file = state.keep(f"{service.name}-agent", document)
    click.echo(f"{files or service.target} is exposed as {service.name} at {service.server}")
    click.echo(f"configuration: {file}{f', log: {service.log}' * exposing.live}\n")
    on_start.append(exposing.begin)
    run_file(file, {})


def _pin(state: StateDirectory, service: ExposedService, fingerprint: str | None) -> str:
    """Return the file of the pinned certificate, and pin it if it is new."""
    before = state.pinned(service.name)
    if before is not None and (fingerprint is None or same_fingerprint(before[1], fingerprint)):
        return before[0]
    shown = fetch_certificate(service.server)
    if fingerprint is None:
        raise InstantProblem(
            f"nobody has said yet which certificate {service.server} has. It shows {fingerprint_of(shown)}: "
            "if that is what the server has printed, say it with --fingerprint. Of a certificate that an "
            "authority has signed, say the authority with --ca FILE or --ca system"
        )
    if not same_fingerprint(shown, fingerprint):
        raise InstantProblem(
            f"{service.server} shows {fingerprint_of(shown)}, which is not the certificate with that "
            "fingerprint: either it has a new one, or somebody is in between"
        )
    return state.pin(service.name, shown)
