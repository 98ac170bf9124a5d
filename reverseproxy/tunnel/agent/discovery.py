"""
Addresses of tunnel servers, which are looked up again and again.

L{Discovery} merges the servers of the configuration with those that a lister names at run time, resolves
each name to all of its addresses, and reports the whole list whenever it changes. No error is fatal: the
last known addresses are kept until there are others.
"""

from __future__ import annotations

__all__ = [
    "Discovery",
    "Server",
    "Target",
    "parse_server",
]

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address as IPv6
from ipaddress import ip_address
from random import random as default_random

from twisted.internet.interfaces import IReactorPluggableNameResolver, IReactorTime, IResolutionReceiver
from twisted.logger import Logger

from reverseproxy.addresses import host_of, is_unix, join_host_port
from reverseproxy.interfaces import IServerLister
from reverseproxy.net.resolver import REFRESH, ReresolvingName

log = Logger()

MAX_SERVERS = 1024
"""Servers of the configuration, and of a lister, that are used at most."""

_QUOTE_LENGTH = 80


@dataclass(frozen=True, slots=True)
class Server:
    """
    A server as the configuration or a lister names it.

    @ivar name: the whole entry.
    @ivar host: a host name, or an IP address without brackets; empty for a Unix socket.
    @ivar port: its port; 0 for a Unix socket.
    @ivar address: the address, if the entry has one rather than a name.
    """

    name: str
    host: str
    port: int
    address: str | None


@dataclass(frozen=True, slots=True)
class Target:
    """
    One address of a tunnel server.

    @ivar server: the entry that it comes from, such as C{"tunnel.example:9443"}.
    @ivar address: where to connect: C{"10.0.0.1:9443"}, C{"[2001:db8::1]:9443"}, or C{"unix:/path"}.
    """

    server: str
    address: str

    @property
    def host(self) -> str:
        """
        The server's name without its port, which its TLS certificate has to match by default; empty for
        a Unix socket.
        """
        return host_of(self.server)


def _quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _QUOTE_LENGTH else text[:_QUOTE_LENGTH] + "..."


def parse_server(entry: object) -> Server:
    """
    Parse C{host:port}, C{ip:port}, C{[v6]:port} or C{unix:/path}.

    @raise ValueError: for anything else, with the reason.
    """
    if not isinstance(entry, str):
        raise ValueError(f"{_quote(entry)} is no server: expected a string such as host:port")
    if is_unix(entry):
        if entry == "unix:" or not entry.isprintable():
            raise ValueError(f"{_quote(entry)} is no server: expected unix:/path")
        return Server(entry, "", 0, entry)
    host, port_text = host_of(entry), entry.rpartition(":")[2]
    if not (port_text.isascii() and port_text.isdigit() and len(port_text) <= 5):
        raise ValueError(f"{_quote(entry)} is no server: expected host:port with a number for port")
    port = int(port_text)
    if not 1 <= port <= 65535:
        raise ValueError(f"{_quote(entry)} is no server: the port must be 1 to 65535")
    bracketed = entry.startswith("[")
    try:
        ip = ip_address(host)
    except ValueError:
        if ":" in host or bracketed:
            raise ValueError(f"{_quote(entry)} is no server: {_quote(host)} is no IPv6 address") from None
        _check_name(entry, host)
        return Server(entry, host, port, None)
    if isinstance(ip, IPv6) is not bracketed:
        raise ValueError(f"{_quote(entry)} is no server: write IPv6 as [address]:port, and others without []")
    return Server(entry, host, port, join_host_port(str(ip), port))


def _check_name(entry: str, host: str) -> None:
    """Raise L{ValueError} for a name that no resolver can look up; some of them would never answer."""
    try:
        encoded = host.encode("idna")
    except UnicodeError:
        encoded = b""
    if not 1 <= len(encoded) <= 253 or not host.isprintable() or any(c in host for c in " /\\@?#,;'\""):
        raise ValueError(f"{_quote(entry)} is no server: {_quote(host)} is no host name")


def _parse_servers(entries: Iterable[object], origin: str, cluster: str) -> dict[str, Server]:
    """Return the valid entries of a list, each once; log the others."""
    servers: dict[str, Server] = {}
    for entry in entries:
        try:
            server = parse_server(entry)
        except ValueError as error:
            log.error(
                "agent of cluster {cluster}: an entry of {origin} is skipped: {reason}",
                cluster=cluster,
                origin=origin,
                reason=str(error),
            )
            continue
        if server.name not in servers and len(servers) == MAX_SERVERS:
            log.error(
                "agent of cluster {cluster}: {origin} has more than {most} servers, the rest is skipped",
                cluster=cluster,
                origin=origin,
                most=MAX_SERVERS,
            )
            break
        servers[server.name] = server
    return servers


class Discovery:
    """
    Follows the addresses of an agent's tunnel servers.

    The servers of the configuration always count; those of a lister count as long as its latest list has
    them.

    @ivar targets: the last reported list.
    @ivar clock: the reactor, or a clock.
    @ivar names: the reactor, whose resolver is asked for the addresses of names.
    @ivar refresh: seconds between two lookups of a name.
    @ivar random: returns numbers from 0 to 1.
    """

    def __init__(
        self,
        servers: Iterable[str],
        update: Callable[[Sequence[Target]], None],
        clock: IReactorTime,
        names: IReactorPluggableNameResolver,
        *,
        lister: IServerLister | None = None,
        refresh: float = REFRESH,
        random: Callable[[], float] = default_random,
        cluster: str = "",
    ) -> None:
        """
        @param servers: the servers of the configuration, as L{parse_server} takes them.
        @param update: called with the complete list whenever it has changed.
        @param clock: the reactor, or a clock.
        @param names: the reactor, whose resolver is asked for the addresses of names.
        @param lister: names further servers at run time.
        @param refresh: seconds between two lookups of a name that has addresses; 0 to look it up only
            until it has.
        @param random: returns numbers from 0 to 1, which spread the lookups of many agents.
        @param cluster: the agent's cluster, for logs.
        """
        self.targets: tuple[Target, ...] = ()
        self.clock = clock
        self.names = names
        self.refresh = refresh
        self.random = random
        self._cluster = cluster
        self._update = update
        self._entries = tuple(servers)
        self._lister = lister
        self._listed_last: tuple[str, ...] | None = None
        self._static: dict[str, Server] = {}
        self._dynamic: dict[str, Server] = {}
        self._names: dict[str, ReresolvingName] = {}
        self._running = False
        self._holding = False

    def start(self) -> None:
        """Start; addresses that need no lookup are reported before this returns."""
        if self._running:
            return
        self._running = True
        self._static = _parse_servers(self._entries, "server_list", self._cluster)
        self._follow()
        # The callback for the first addresses may have stopped this.
        if self._running and self._lister is not None:
            try:
                self._lister.start(self._listed)
            except Exception:
                log.failure("agent of cluster {cluster}: the server lister failed", cluster=self._cluster)

    def relist(self, servers: Iterable[str], refresh: float) -> None:
        """
        Use other servers of the configuration; known addresses of names that stay are kept.

        @param refresh: as for a new one.
        """
        self._entries = tuple(servers)
        self.refresh = refresh
        for name in self._names.values():
            name.refresh = refresh
        if self._running:
            self._static = _parse_servers(self._entries, "server_list", self._cluster)
            self._follow()

    def stop(self) -> None:
        """Stop, and forget all addresses, without a report."""
        if not self._running:
            return
        self._running = False
        self.targets = ()
        self._dynamic = {}
        self._listed_last = None
        for name in self._names.values():
            name.stop()
        self._names.clear()
        if self._lister is not None:
            try:
                self._lister.stop()
            except Exception:
                log.failure(
                    "agent of cluster {cluster}: the server lister failed to stop", cluster=self._cluster
                )

    def _listed(self, entries: Sequence[str]) -> None:
        """Take a complete list from the lister."""
        if not self._running:
            return
        # The characters of a string would be taken for entries.
        if isinstance(entries, (str, bytes)) or not isinstance(entries, Iterable):
            log.error("agent of cluster {cluster}: the server lister gave no list", cluster=self._cluster)
            return
        entries = tuple(entries)
        if entries == self._listed_last:
            return
        self._listed_last = entries
        self._dynamic = _parse_servers(entries, "the server lister", self._cluster)
        self._follow()

    def _follow(self) -> None:
        """Look up exactly the names that are listed now."""
        wanted = {
            server.host
            for server in (*self._static.values(), *self._dynamic.values())
            if server.address is None
        }
        # A single report for all names that the resolver answers at once.
        self._holding = True
        for host in [host for host in self._names if host not in wanted]:
            self._names.pop(host).stop()
        for host in sorted(wanted - self._names.keys()):
            name = self._names[host] = ReresolvingName(
                host, self._resolve, self.clock, self.changed, self.refresh, self.random
            )
            name.look_up()
        self._holding = False
        self.changed()

    def _resolve(self, receiver: IResolutionReceiver, host: str) -> None:
        # IPv4 and IPv6; the port comes from the entry.
        self.names.nameResolver.resolveHostName(receiver, host)

    def changed(self) -> None:
        """Report the list if it has changed."""
        if self._holding:
            return
        # An address counts once, for the first server that has it.
        found: dict[str, Target] = {}
        for server in (*self._static.values(), *self._dynamic.values()):
            if server.address is not None:
                addresses = [server.address]
            else:
                addresses = [join_host_port(ip, server.port) for ip in self._names[server.host].addresses]
            for address in addresses:
                found.setdefault(address, Target(server.name, address))
        targets = tuple(found.values())
        if set(targets) == set(self.targets):
            return
        self.targets = targets
        try:
            self._update(targets)
        except Exception:
            log.failure("agent of cluster {cluster}: taking in new servers failed", cluster=self._cluster)
