"""The server lister C{srv}, which looks up SRV records in DNS (RFC 2782)."""

from __future__ import annotations

__all__ = ["SrvListerPlugin"]

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from twisted.logger import Logger
from twisted.names import dns
from zope.interface import implementer

from reverseproxy.addresses import is_ip, join_host_port, split_host_port
from reverseproxy.cluster.names.dns import DnsClient, NotResolved
from reverseproxy.cluster.names.dns_settings import DnsSettings, parse_resolv_conf
from reverseproxy.config._values import describe
from reverseproxy.interfaces import IServerLister, IServerListerPlugin
from reverseproxy.tunnel.agent.polling import PollingLister
from reverseproxy.tunnel.plugin_options import Options

log = Logger()

INTERVAL = 30.0
"""Seconds between two lookups, by default."""

MAX_RECORDS = 1024
"""Records of one response that are considered."""

RESOLV_CONF = "/etc/resolv.conf"

_KEYS = ("name", "interval", "resolvers")


class SrvLister(PollingLister):
    """Looks up SRV records; a response without servers counts as a failure."""

    def __init__(self, name: str, interval: float, settings: DnsSettings, cluster: str, reactor: Any) -> None:
        super().__init__(interval, reactor)
        self._name = name
        self._client = DnsClient(settings, reactor)
        self._cluster = cluster

    def stop(self) -> None:
        """Stop; see L{IServerLister.stop}."""
        super().stop()
        self._client.stop()

    def failed(self, error: Exception) -> None:
        """Log the error; see L{PollingLister.failed}."""
        log.error(
            "agent of cluster {cluster}: no servers of {name}, known ones stay in use: {reason}",
            cluster=self._cluster,
            name=self._name,
            reason=str(error) or type(error).__name__,
        )

    async def fetch(self) -> Sequence[Any]:
        """Look the name up; see L{PollingLister.fetch}."""
        servers = _servers(await self._client.records(self._name, dns.SRV))
        if not servers:
            raise NotResolved("it has no servers")
        return servers


def _servers(records: Sequence[Any]) -> list[str]:
    """
    Return the servers with the best priority, in a stable order.

    Weights are ignored: agents spread over servers by themselves.
    """
    payloads = [record.payload for record in records[:MAX_RECORDS]]
    there = [each for each in payloads if str(each.target) not in ("", ".") and each.port]
    best = min((each.priority for each in there), default=0)
    return sorted({join_host_port(str(each.target), each.port) for each in there if each.priority == best})


@implementer(IServerListerPlugin)
class SrvListerPlugin:
    """
    The targets of SRV records with the best priority: C{config} has C{name}, such as
    C{_tunnel._tcp.example.com}, and optionally C{interval}, the seconds between two lookups, and
    C{resolvers}, the addresses of name servers to ask instead of those in /etc/resolv.conf.
    """

    name: ClassVar[str] = "srv"

    def build(self, cluster: str, config: Mapping[str, Any], reactor: Any) -> IServerLister:
        """
        Make a lister.

        @raise OptionsError: if C{config} is invalid.
        """
        options = Options(config, _KEYS)
        name = config.get("name")
        if not isinstance(name, str) or not name.isprintable() or not 0 < len(name.removesuffix(".")) <= 253:
            options.error("name", f"must be one such as _tunnel._tcp.example.com, not {describe(name)}")
        interval = options.seconds("interval", INTERVAL, 1)
        settings = _settings(options)
        options.raise_errors()
        return SrvLister(str(name), interval, settings, cluster, reactor)


def _settings(options: Options) -> DnsSettings:
    """Return the settings of the resolver; an error is added to the options if there is no name server."""
    resolvers = options.values.get("resolvers")
    if resolvers is None:
        try:
            settings = parse_resolv_conf(Path(RESOLV_CONF).read_text("utf-8", "replace"))
        except OSError as error:
            options.error(
                "resolvers",
                f"missing key, and {RESOLV_CONF} can't be read: {error.strerror}; write resolvers",
            )
            return DnsSettings(())
        if not settings.servers:
            problem = f"missing key, and there is no name server in {RESOLV_CONF}; write resolvers"
            options.error("resolvers", problem)
        return settings
    if not isinstance(resolvers, list) or not resolvers:
        problem = f'must be a list such as ["10.0.0.53"], not {describe(resolvers)}'
        options.error("resolvers", problem)
        return DnsSettings(())
    servers = [_resolver(text) for text in resolvers]
    for number, server in enumerate(servers):
        if server is None:
            place = options.place / "resolvers" / number
            wrong = describe(resolvers[number])
            options.findings.error(place, f'{wrong} is no address of a name server; write "10.0.0.53"')
    return DnsSettings(tuple(filter(None, servers)))


def _resolver(text: Any) -> tuple[str, int] | None:
    """Parse an IP address with an optional port, 53 by default; return L{None} for anything else."""
    if isinstance(text, str):
        if is_ip(text):
            return text, 53
        try:
            host, port = split_host_port(text)
        except ValueError:
            host, port = "", 0
        if is_ip(host.strip("[]")) and 0 < port < 65536:
            return host.strip("[]"), port
    return None
