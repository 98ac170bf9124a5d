"""
Check everything that a configuration needs, and suggest a remedy for each fault.

Connections are closed as soon as they are made, or their TLS handshake is complete: no agent
joins, and no service gets a request.
"""

from __future__ import annotations

__all__ = ["Examination", "examine"]

import socket
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from random import SystemRandom
from typing import Any, Final, NoReturn

from twisted.internet import error as errors
from twisted.internet.defer import Deferred, DeferredSemaphore, gatherResults
from twisted.internet.endpoints import TCP4ClientEndpoint, TCP6ClientEndpoint, UNIXClientEndpoint
from twisted.internet.interfaces import IStreamClientEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.threads import deferToThreadPool

from reverseproxy.addresses import host_of, is_unix, split_host_port
from reverseproxy.app import ReverseProxy
from reverseproxy.assembly.examination import examine as examine_further
from reverseproxy.command.system_checks import FAIL, OK, WARN, Finding, clock, descriptors, port, versions
from reverseproxy.config.loader import Loaded, load
from reverseproxy.config.models import Config, TlsContextConfig
from reverseproxy.errors import CertificateRejected, ConfigError, TlsFailed
from reverseproxy.tls import ClientTls, client_endpoint

TIMEOUT: Final = 5.0
"""Seconds that a connection, with its handshake, may take."""

_AT_ONCE: Final = 20
"""How many connections are tried at the same time."""

Resolve = Callable[[str], "Deferred[list[str]]"]
"""Finds the IP addresses of a name; fails with L{OSError}."""


@dataclass(frozen=True, slots=True)
class _Target:
    """
    An address that the configuration dials.

    @ivar what: its name in messages.
    @ivar address: C{host:port}, or C{unix:/path}.
    @ivar tls: L{None} for plaintext.
    @ivar absent: the remedy if nothing listens there.
    """

    what: str
    address: str
    tls: TlsContextConfig | None
    absent: str


def examine(file: str, reactor: Any, tell: Callable[[Finding], None]) -> Deferred[bool]:
    """
    Run all checks.

    @param tell: called with each finding at once.
    @return: fires with whether there are no failures, only warnings at most.
    """
    return Deferred.fromCoroutine(Examination(file, reactor, tell).run())


class Examination:
    """One run of all checks; see L{examine}."""

    def __init__(
        self, file: str, reactor: Any, tell: Callable[[Finding], None], resolve: Resolve | None = None
    ) -> None:
        """
        @param resolve: resolves a name; L{None} for the system's resolver.
        """
        self._file = file
        self._reactor = reactor
        self._tell = tell
        self._resolve = resolve or self._ask_system
        self._well = True

    async def run(self) -> bool:
        """Run all checks; return whether there are no failures."""
        self._all(versions())
        self._all(descriptors())
        self._all(clock())
        loaded = self._load()
        if loaded is None:
            return self._well
        for listener in loaded.config.server.listeners:
            self._all(port(listener))
        tokens = DeferredSemaphore(_AT_ONCE)
        dialled = [tokens.run(self._reach, target) for target in _targets(loaded.config)]
        await gatherResults(dialled, consumeErrors=True)
        return self._well

    def _found(self, finding: Finding) -> None:
        self._well = self._well and finding.level != FAIL
        self._tell(finding)

    def _all(self, findings: Iterable[Finding]) -> None:
        for finding in findings:
            self._found(finding)

    def _load(self) -> Loaded | None:
        """Load the configuration, and build it without running it."""
        try:
            loaded = load(self._file)
            built = ReverseProxy(loaded.config, self._reactor, SystemRandom(), self._file, dry=True)
        except ConfigError as found:
            error = examine_further(found, self._reactor, SystemRandom(), strict=True)
            for problem in error.problems:
                self._found(Finding(FAIL, "configuration", str(problem)))
            for warning in error.warnings:
                self._found(Finding(WARN, "configuration", str(warning)))
            remedy = "correct what is told above; reverseproxy reference KEY has more on a key"
            self._found(Finding(FAIL, "configuration", f"{self._file} can't be used", remedy))
            return None
        for problem in built.missing:
            self._found(Finding(FAIL, "credential", str(problem), "put it there: reverseproxy token add"))
        for warning in (*loaded.warnings, *built.warnings):
            self._found(Finding(WARN, "configuration", str(warning)))
        self._found(Finding(OK, "configuration", f"{self._file} can be used"))
        return loaded

    def _ask_system(self, name: str) -> Deferred[list[str]]:
        def look() -> list[str]:
            found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
            return list(dict.fromkeys(str(entry[4][0]) for entry in found))

        return deferToThreadPool(self._reactor, self._reactor.getThreadPool(), look)

    async def _reach(self, target: _Target) -> None:
        """Resolve a target, and dial each address."""
        if is_unix(target.address):
            unix = UNIXClientEndpoint(self._reactor, target.address.removeprefix("unix:"))
            self._found(await self._dial(target, unix, target.address))
            return
        name, number = split_host_port(target.address)
        try:
            addresses = await self._resolve(name)
        except OSError as error:
            remedy = "correct the name, or what /etc/resolv.conf and /etc/hosts say"
            detail = f"the name {name} has no address: {error.strerror or error}"
            self._found(Finding(FAIL, target.what, detail, remedy))
            return
        findings = []
        for address in addresses:
            kind = TCP6ClientEndpoint if ":" in address else TCP4ClientEndpoint
            endpoint: IStreamClientEndpoint = kind(self._reactor, address, number, timeout=TIMEOUT)
            shown = target.address if address == name else f"{target.address} ({address})"
            findings.append(await self._dial(target, endpoint, shown))
        some = any(finding.level == OK for finding in findings)
        for finding in findings:
            # Where another address of the name works, it is not as bad.
            self._found(replace(finding, level=WARN) if some and finding.level == FAIL else finding)

    async def _dial(self, target: _Target, endpoint: IStreamClientEndpoint, shown: str) -> Finding:
        """Dial one address, and report the result."""
        begun = self._reactor.seconds()
        done = "reached"
        if target.tls is not None:
            endpoint = client_endpoint(endpoint, ClientTls(target.tls, host_of(target.address)))
            done = "reached, and its certificate is good"
            if target.tls.insecure_skip:
                done = "reached, and its certificate is not looked at"
        attempt: Deferred[Any] = endpoint.connect(Factory.forProtocol(Protocol))
        attempt.addTimeout(TIMEOUT, self._reactor, _late)
        try:
            protocol = await attempt
        except Exception as error:
            detail, remedy = _explain(error, target)
            return Finding(FAIL, target.what, f"{shown} {detail}", remedy)
        protocol.transport.abortConnection()
        took = (self._reactor.seconds() - begun) * 1000
        return Finding(OK, target.what, f"{shown} {done} in {took:.0f} ms")


def _late(*_: object) -> NoReturn:
    raise errors.TimeoutError


def _explain(error: Exception, target: _Target) -> tuple[str, str]:
    """Explain why an address can't be reached, with a remedy."""
    match error:
        case CertificateRejected():
            remedy = "let ca_cert name the authority, and server_name a name that is in the certificate"
            return f"shows a certificate that is refused: {error}", remedy
        case TlsFailed():
            return f"can't agree on TLS: {error}", "see whether it speaks TLS at all, and wants a certificate"
        case errors.ConnectionRefusedError():
            return "refuses connections", target.absent
        case errors.TimeoutError():
            return (
                f"does not answer within {TIMEOUT:g} s",
                "see whether a firewall is between, and drops packets",
            )
        case errors.ConnectError():
            return f"can't be reached: {error}", "see whether there is a route to it"
    return f"can't be reached: {error}", target.absent


def _targets(config: Config) -> Iterator[_Target]:
    """Return the addresses that a configuration dials, without duplicates."""
    seen: set[tuple[str, int]] = set()
    make = partial(_Target, absent="start the tunnel server, or correct the address in server_list")
    for agent in config.agents:
        if not agent.enable:
            continue
        for server in agent.server_list:
            if (server, id(agent.tls_context)) not in seen:
                seen.add((server, id(agent.tls_context)))
                yield make(f"tunnel server of cluster {agent.cluster}", server, agent.tls_context)
    make = partial(_Target, absent="start the service, or correct the address in hosts")
    for cluster in config.cluster_manager.clusters:
        for host in cluster.hosts:
            tls = None if host.tls_disable else cluster.tls_context
            yield make(f"host of cluster {cluster.name}", host.address, tls)
    etcd = None if config.fleet is None else config.fleet.etcd
    if etcd is not None:
        make = partial(_Target, absent="start etcd, or correct the address in fleet.etcd.endpoints")
        for endpoint in etcd.endpoints:
            yield make("etcd of the fleet", endpoint, etcd.tls)
