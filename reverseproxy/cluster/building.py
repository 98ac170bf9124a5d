"""Build clusters, their hosts and their background tasks from the configuration."""

from __future__ import annotations

__all__ = [
    "OF_CONNECTIONS",
    "StaticHosts",
    "add_hosts",
    "host_kind",
    "host_maker",
    "is_named",
    "make_cluster",
    "make_names",
]

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver

from reverseproxy.addresses import host_of, is_unix, join_host_port
from reverseproxy.cluster.balancers.factory import make_balancer, make_tracker
from reverseproxy.cluster.balancers.fleet import FleetView
from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.cluster.health.checks import HealthMonitor, IHealthChecker
from reverseproxy.cluster.health.probes import CHECKERS, make_checker
from reverseproxy.cluster.host import Host, StaticHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.tls import ClientTls
from reverseproxy.wire.proxy_protocol import encode_header

if TYPE_CHECKING:
    from reverseproxy.cluster.names.strict_dns import StrictDns
    from reverseproxy.config.models import ClusterConfig, HealthCheckConfig, HostConfig


OF_CONNECTIONS: Final = (
    "tls_context",
    "connect_timeout",
    "idle_timeout",
    "max_response_header_size",
    "max_response_headers_count",
    "keepalive",
    "http2_windows",
    "requests_per_connection",
    "proxy_protocol",
)
"""Keys of a cluster that connections to its hosts depend on: a changed value replaces the connections."""


def make_cluster(
    config: ClusterConfig,
    reactor: Any,
    random: Random,
    checkers: Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]] = CHECKERS,
    workers: int = 1,
    fleet: FleetView | None = None,
) -> Cluster:
    """
    Make a cluster without hosts.

    @param checkers: makes health checkers by protocol.
    @param workers: how many workers share its agents.
    @param fleet: the fleet that this server belongs to; L{None} for none.
    """
    tracker = make_tracker(config, reactor)
    cluster = Cluster(
        config, make_balancer(config, random, reactor, tracker, workers, fleet), reactor, tracker
    )
    check = config.health_check
    if check.enabled:
        checker = make_checker(check, checkers)
        cluster.add_task(HealthMonitor(cluster, check, checker, reactor, random.random))
    return cluster


def host_maker(
    cluster: ClusterConfig, config: HostConfig, reactor: Any, tls: ClientTls | None = None
) -> Callable[[str], StaticHost]:
    """
    Return a function that makes one of the hosts in a cluster's configuration.

    @param tls: what to dial it with.
    @return: given an address of the host, returns the host.
    """
    timeout = cluster.connect_timeout
    version = cluster.proxy_protocol
    nobody = encode_header(version, "", "") if version else b""
    dial = partial(make_endpoint, allow_fall_back=True, preface=nobody)
    check = cluster.health_check
    http = check.check_config.http_check_config if check.enabled and check.protocol == "Http1" else None

    def make(address: str) -> StaticHost:
        check_endpoint = None
        if http is not None and http.port and not is_unix(address):
            other = join_host_port(host_of(address), http.port)
            check_endpoint = dial(reactor, other, timeout, tls if http.scheme == "https" else None)
        return StaticHost(
            config,
            dial(reactor, address, timeout, tls),
            reactor,
            timeout,
            address=address,
            check_endpoint=check_endpoint,
            introduce=lambda header: make_endpoint(
                reactor, address, timeout, tls, allow_fall_back=True, preface=header
            ),
            sends_proxy_header=bool(version),
        )

    return make


class StaticHosts:
    """
    The hosts in a cluster's configuration.

    @ivar hosts: by address, each with its L{host_kind}; hosts given by name are not among them.
    @ivar names: resolves the hosts given by name; L{None} if there are none.
    """

    def __init__(self) -> None:
        self.hosts: dict[str, tuple[object, Host]] = {}
        self.names: StrictDns | None = None


def add_hosts(
    cluster: Cluster,
    hosts: Iterable[tuple[HostConfig, Callable[[str], StaticHost]]],
    reactor: Any,
    random: Callable[[], float],
) -> StaticHosts:
    """
    Add the configured hosts to a cluster: now, or when their names are resolved.

    @param hosts: each with its L{host_maker}.
    @param random: numbers from 0 to 1, for the jitter between lookups.
    @raise ConfigError: if names are to be resolved, and there is no name server.
    """
    static = StaticHosts()
    named = []
    for config, make in hosts:
        if is_named(cluster.config, config):
            named.append((config, make))
        else:
            host = make(config.address)
            static.hosts[config.address] = host_kind(cluster.config, config), host
            cluster.add_host(host)
    if named:
        static.names = make_names(cluster, cluster.config, named, reactor, random)
        cluster.add_task(static.names)
    return static


def host_kind(cluster: ClusterConfig, host: HostConfig) -> tuple[object, ...]:
    """Return everything in the configuration that a host and its connections depend on, for comparison."""
    check = cluster.health_check
    http = check.check_config.http_check_config if check.enabled and check.protocol == "Http1" else None
    port = None if http is None else (http.port, http.scheme)
    values = [getattr(cluster, name) for name in OF_CONNECTIONS]
    return (host, cluster.limits.max_connections, port, *values)


def is_named(cluster: ClusterConfig, host: HostConfig) -> bool:
    """Return whether a host of a cluster is given by a name that is to be resolved."""
    name = host_of(host.address)
    return cluster.type == "STRICT_DNS" and not (
        is_unix(host.address) or isIPAddress(name) or isIPv6Address(name)
    )


def make_names(
    cluster: Cluster,
    config: ClusterConfig,
    hosts: Iterable[tuple[HostConfig, Callable[[str], StaticHost]]],
    reactor: Any,
    random: Callable[[], float],
) -> StrictDns:
    """
    Make the resolver of the names among a cluster's hosts.

    @param config: the cluster's configuration from now on.
    @param hosts: see L{add_hosts}; all of them given by name.
    @raise ConfigError: if there is no name server.
    """
    # Twisted's DNS is large, and few clusters need it.
    from reverseproxy.cluster.names.dns import DnsClient
    from reverseproxy.cluster.names.dns_settings import dns_settings
    from reverseproxy.cluster.names.strict_dns import NamedHosts, StrictDns

    named = []
    for host, make in hosts:
        name, _, port = host.address.rpartition(":")
        named.append(NamedHosts(name, int(port), make, host_kind(config, host)))
    settings = dns_settings(config)
    kind = IPv6Address if config.dns_lookup_family == "V6_ONLY" else IPv4Address
    if settings is not None:
        client = DnsClient(settings, reactor)
        resolve = partial(_look_up, lambda: client, kind)
        return StrictDns(cluster, named, resolve, reactor, random, client.stop)
    resolve = partial(_look_up, lambda: reactor.nameResolver, kind)
    return StrictDns(cluster, named, resolve, reactor, random)


def _look_up(
    resolver: Callable[[], IHostnameResolver],
    kind: type[IPv4Address | IPv6Address],
    receiver: IResolutionReceiver,
    name: str,
) -> None:
    resolver().resolveHostName(receiver, name, addressTypes=[kind])
