"""From the configuration of a cluster to a cluster with all that runs beside it."""

from __future__ import annotations

__all__ = ["add_hosts", "host_maker", "make_cluster"]

from collections.abc import Callable, Iterable, Mapping
from functools import partial
from random import Random
from typing import TYPE_CHECKING, Any

from twisted.internet.abstract import isIPAddress, isIPv6Address
from twisted.internet.address import IPv4Address, IPv6Address
from twisted.internet.interfaces import IHostnameResolver, IResolutionReceiver

from reverseproxy.addresses import host_of, is_unix, join_host_port
from reverseproxy.cluster.balancers.weighted import make_balancer, make_meter
from reverseproxy.cluster.endpoints import make_endpoint
from reverseproxy.cluster.health.checks import HealthMonitor, IHealthChecker
from reverseproxy.cluster.health.probes import CHECKERS, make_checker
from reverseproxy.cluster.host import StaticHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.cluster.names.dns import DnsClient, dns_settings
from reverseproxy.cluster.names.strict_dns import NamedHosts, StrictDns
from reverseproxy.tls import ClientTls

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig, HealthCheckConfig, HostConfig


def make_cluster(
    config: ClusterConfig,
    reactor: Any,
    random: Random,
    checkers: Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]] = CHECKERS,
    workers: int = 1,
) -> Cluster:
    """
    Make a cluster without hosts.

    @param checkers: makes health checkers by protocol.
    @param workers: how many workers share its agents.
    """
    meter = make_meter(config, reactor)
    cluster = Cluster(config, make_balancer(config, random, reactor, meter, workers), reactor, meter)
    check = config.health_check
    if check.enabled:
        checker = make_checker(check, checkers)
        cluster.add_task(HealthMonitor(cluster, check, checker, reactor, random.random))
    return cluster


def host_maker(
    cluster: ClusterConfig, config: HostConfig, reactor: Any, tls: ClientTls | None = None
) -> Callable[[str], StaticHost]:
    """
    Get ready to make one of the hosts that a cluster's configuration gives.

    @param tls: what to dial it with.
    @return: makes the host, given an address of it.
    """
    timeout = cluster.connect_timeout
    dial = partial(make_endpoint, allow_fall_back=True)
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
        )

    return make


def add_hosts(
    cluster: Cluster,
    hosts: Iterable[tuple[HostConfig, Callable[[str], StaticHost]]],
    reactor: Any,
    random: Callable[[], float],
) -> None:
    """
    Give a cluster the hosts that its configuration gives: now, or when their names are looked up.

    @param hosts: with what makes them, see L{host_maker}.
    @param random: numbers from 0 to 1, which spread lookups.
    @raise ValueError: if there are names to look up, and nobody to ask.
    """
    named: list[NamedHosts] = []
    for config, make in hosts:
        name, _, port = config.address.rpartition(":")
        if cluster.config.type == "STRICT_DNS" and _is_name(config.address):
            named.append(NamedHosts(name, int(port), make))
        else:
            cluster.add_host(make(config.address))
    if named:
        cluster.add_task(_strict_dns(cluster, named, reactor, random))


def _is_name(address: str) -> bool:
    host = host_of(address)
    return not (is_unix(address) or isIPAddress(host) or isIPv6Address(host))


def _strict_dns(
    cluster: Cluster, named: list[NamedHosts], reactor: Any, random: Callable[[], float]
) -> StrictDns:
    settings = dns_settings(cluster.config)
    kind = IPv6Address if cluster.config.dns_lookup_family == "V6_ONLY" else IPv4Address
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
