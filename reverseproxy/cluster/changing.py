"""
Apply a new configuration to a cluster while it serves requests.

Reverse hosts stay, and so do configured hosts that have not changed: with their
connections, their health and their counters.  New hosts are made before anything
is changed, so that the change itself can't fail.
"""

from __future__ import annotations

__all__ = ["ClusterChange", "HostMaker"]

from collections.abc import Callable, Iterable, Mapping
from random import Random
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.cluster.balancers.factory import make_balancer, make_tracker
from reverseproxy.cluster.balancers.fleet import FleetView
from reverseproxy.cluster.building import OF_CONNECTIONS, StaticHosts, host_kind, is_named, make_names
from reverseproxy.cluster.health.checks import HealthMonitor, IHealthChecker
from reverseproxy.cluster.health.probes import CHECKERS, make_checker
from reverseproxy.cluster.host import Host, StaticHost
from reverseproxy.config._clusters import DNS_KEYS

if TYPE_CHECKING:
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.cluster.names.strict_dns import StrictDns
    from reverseproxy.config.models import ClusterConfig, HealthCheckConfig, HostConfig

HostMaker = tuple["HostConfig", Callable[[str], StaticHost]]
"""A configured host, and a function that makes it, given an address of it."""

_OF_BALANCERS: Final = ("lb_type", "lbconfig", "lb_subset_config", "slow_start")

_OF_NAMES: Final = ("type", *DNS_KEYS)

REASON: Final = "it is not in the configuration any more"
_OTHER: Final = "it has another configuration"


def _differs(names: Iterable[str], old: ClusterConfig, new: ClusterConfig) -> bool:
    return any(getattr(old, name) != getattr(new, name) for name in names)


def _kinds_of_names(config: ClusterConfig) -> list[object]:
    return [host_kind(config, host) for host in config.hosts if is_named(config, host)]


class ClusterChange:
    """A prepared change of one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        static: StaticHosts,
        config: ClusterConfig,
        hosts: Iterable[HostMaker],
        reactor: Any,
        random: Random,
        checkers: Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]] = CHECKERS,
        workers: int = 1,
        fleet: FleetView | None = None,
    ) -> None:
        """
        Prepare the change; nothing changes yet.

        @param static: the hosts of the present configuration.
        @param hosts: the hosts of the new one.
        @raise ConfigError: if names are to be resolved, and there is no name server.
        """
        old = cluster.config
        self._cluster = cluster
        self._static = static
        self._config = config
        self._balancer = self._tracker = None
        if _differs(_OF_BALANCERS, old, config):
            self._tracker = make_tracker(config, reactor)
            self._balancer = make_balancer(config, random, reactor, self._tracker, workers, fleet)
        self._monitor: HealthMonitor | None = None
        self._checks_differ = old.health_check != config.health_check
        if self._checks_differ and config.health_check.enabled:
            checker = make_checker(config.health_check, checkers)
            self._monitor = HealthMonitor(cluster, config.health_check, checker, reactor, random.random)
        self._new: dict[str, tuple[object, Host]] = {}
        self._names: StrictDns | None = None
        named = []
        for host, make in hosts:
            if is_named(config, host):
                named.append((host, make))
                continue
            kind = host_kind(config, host)
            known = static.hosts.get(host.address)
            if known is not None and known[0] == kind and known[1].cluster is cluster:
                self._new[host.address] = known
            else:
                self._new[host.address] = kind, make(host.address)
        self._names_differ = _differs(_OF_NAMES, old, config) or _kinds_of_names(old) != _kinds_of_names(
            config
        )
        if self._names_differ and named:
            self._names = make_names(cluster, config, named, reactor, random.random)
        self._renew = _differs(OF_CONNECTIONS, old, config) or (
            old.limits.max_connections != config.limits.max_connections
        )

    def commit(self) -> None:
        """Apply the change, in one step."""
        cluster = self._cluster
        if self._checks_differ:
            monitor = cluster.find_task(HealthMonitor)
            if monitor is not None:
                cluster.remove_task(monitor)
        cluster.change(self._config, self._balancer, self._tracker)
        self._change_hosts()
        if self._names_differ:
            self._change_names()
        elif self._static.names is not None:
            self._static.names.settle()
        if self._checks_differ:
            if self._monitor is not None:
                cluster.add_task(self._monitor)
            else:
                cluster.forget_checks()
        if self._renew:
            for host in cluster.hosts.values():
                if host.is_reverse and not host.exclusive:
                    host.renew()

    def _change_hosts(self) -> None:
        cluster, static = self._cluster, self._static
        before, static.hosts = static.hosts, self._new
        # Add before removing, so that the cluster is never without hosts.
        for address, (_, host) in self._new.items():
            if host.cluster is cluster:
                continue
            old = cluster.hosts.get(address)  # may be one of a name
            if old is not None:
                cluster.replace_host(old, host, _OTHER)
            else:
                cluster.add_host(host)
        for address, (_, host) in before.items():
            if address not in self._new:
                cluster.remove_host(host, REASON)

    def _change_names(self) -> None:
        cluster, static = self._cluster, self._static
        old, static.names = static.names, self._names
        if old is not None:
            cluster.remove_task(old)
            if self._names is None:
                old.withdraw(REASON)
            else:
                self._names.take_over(old)
        if self._names is not None:
            cluster.add_task(self._names)
