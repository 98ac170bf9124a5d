"""The settings of DNS clients, and how they are read from the configuration and from C{/etc/resolv.conf}."""

from __future__ import annotations

__all__ = ["RESOLV_CONF", "DnsSettings", "dns_settings", "parse_resolv_conf"]

from dataclasses import dataclass, replace
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Final

from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.errors import ConfigError
from reverseproxy.problems import PART, Problem

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig


RESOLV_CONF: Final = "/etc/resolv.conf"
"""The file with the system's name servers."""


_MAX_NDOTS: Final = 15


@dataclass(frozen=True, slots=True)
class DnsSettings:
    """
    Which name servers to query, and how.

    @ivar servers: addresses and ports, in the order in which they are queried.
    @ivar search: the search domains.
    @ivar ndots: names with fewer dots are looked for in the search domains first.
    @ivar timeout: seconds to wait for one answer.
    @ivar attempts: how often each server is queried.
    """

    servers: tuple[tuple[str, int], ...]
    search: tuple[str, ...] = ()
    ndots: int = 1
    timeout: float = 2.0
    attempts: int = 2

    def candidates(self, name: str) -> list[str]:
        """
        Return the names to query, in order.

        A name that ends with a dot is fully qualified.
        """
        if name.endswith("."):
            return [name[:-1]]
        longer = [f"{name}.{domain.strip('.')}" for domain in self.search]
        return [name, *longer] if name.count(".") >= self.ndots else [*longer, name]


def parse_resolv_conf(text: str, port: int = 53) -> DnsSettings:
    """
    Parse a file like C{/etc/resolv.conf}.

    Unknown or invalid lines are skipped, as by the system's resolver.

    @param port: the port of the servers in it.
    """
    settings = DnsSettings(())
    servers: list[tuple[str, int]] = []
    for line in text.splitlines():
        words = line.partition("#")[0].partition(";")[0].split()
        match words:
            case ["nameserver", address, *_]:
                if _is_ip(address):
                    servers.append((address, port))
            case ["search" | "domain", *domains]:
                settings = replace(settings, search=tuple(domains))
            case ["options", *options]:
                for option in options:
                    settings = _with_option(settings, option)
    return replace(settings, servers=tuple(servers))


def _with_option(settings: DnsSettings, option: str) -> DnsSettings:
    name, _, text = option.partition(":")
    if not (text.isascii() and text.isdecimal()):
        return settings
    number = int(text[:6])
    if name == "ndots":
        return replace(settings, ndots=min(number, _MAX_NDOTS))
    if name == "timeout":
        return replace(settings, timeout=float(max(1, number)))
    if name == "attempts":
        return replace(settings, attempts=max(1, number))
    return settings


def _is_ip(text: str) -> bool:
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def dns_settings(config: ClusterConfig) -> DnsSettings | None:
    """
    Return the name servers that a cluster is configured with.

    @return: L{None} for the system's resolver.
    @raise ConfigError: if there are none, or they can't be used; placed in the cluster.
    """
    given = config.dns_resolvers
    if given.servers:
        port = int(given.port or 53)
        place = PART / "dns_resolvers" / "servers"
        findings = Diagnostics()
        for number, server in enumerate(given.servers):
            if not _is_ip(server):
                findings.error(place / number, f"{server!r} is not an IP address")
        findings.raise_errors()
        return DnsSettings(
            tuple((server, port) for server in given.servers),
            given.search,
            min(given.ndots, _MAX_NDOTS),
            float(given.timeout),
            given.attempts,
        )
    if not (config.dns_resolver_file or config.respect_dns_ttl):
        return None
    path = config.dns_resolver_file or RESOLV_CONF
    place = PART / ("dns_resolver_file" if config.dns_resolver_file else "respect_dns_ttl")
    try:
        text = Path(path).read_text("utf-8", "replace")
    except OSError as error:
        problem = f"the name servers in {path!r} can't be read: {error.strerror}"
        raise ConfigError(Problem.at(place, problem)) from None
    settings = parse_resolv_conf(text, int(config.dns_resolver_port or 53))
    if not settings.servers:
        raise ConfigError(Problem.at(place, f"there is no name server in {path!r}"))
    return settings
