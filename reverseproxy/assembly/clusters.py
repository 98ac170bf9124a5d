"""Build and change the clusters of a configuration."""

from __future__ import annotations

__all__ = ["ClusterBuilder", "ClusterParts", "checkers_of"]

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Final

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.addresses import host_of
from reverseproxy.assembly.world import World, tell_of_expiry
from reverseproxy.cluster.building import StaticHosts, add_hosts, host_maker, make_cluster
from reverseproxy.cluster.changing import ClusterChange, HostMaker
from reverseproxy.cluster.first_host import FirstHost
from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.health.stalls import Stalls
from reverseproxy.cluster.host import StaticHost
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import ClusterConfig, HealthCheckConfig, HostConfig, TlsContextConfig
from reverseproxy.problems import DOCUMENT, Place
from reverseproxy.proxy.readiness import Readiness
from reverseproxy.tls import ClientTls

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.protocols import Dialect

log = Logger()


@dataclass(frozen=True, slots=True)
class ClusterParts:
    """
    A cluster, and the configuration that it was built from.

    @ivar config: its configuration.
    @ivar static: its configured hosts.
    @ivar tls: the TLS to these hosts; L{None} for plaintext, and if there are none.
    """

    config: ClusterConfig
    cluster: Cluster
    static: StaticHosts
    tls: ClientTls | None = None


_MANAGER: Final = DOCUMENT / "cluster_manager"
_CLUSTERS: Final = _MANAGER / "clusters"


_RPC: Final = frozenset({"bolt", "boltv2", "dubbo"})


def checkers_of(
    config: ClusterConfig, clock: IReactorTime
) -> Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]]:
    """
    Return the factories of health checkers by RPC protocol.

    @return: empty for a cluster that is not checked by such a protocol, for which nothing of RPC
        is loaded.
    """
    if not config.health_check.enabled or config.health_check.protocol not in _RPC:
        return {}
    from reverseproxy.proxy.rpc.health import rpc_checkers

    return rpc_checkers(clock)


class ClusterBuilder:
    """Builds the clusters of one configuration, or changes those that are there."""

    def __init__(self, world: World, findings: Diagnostics, tunnels: bool) -> None:
        """
        @param tunnels: whether agents may bring hosts.
        """
        self._world = world
        self._findings = findings
        self._tunnels = tunnels
        self._shared: dict[int, tuple[TlsContextConfig, ClientTls]] = {}
        """By the C{id} of their configuration, which is kept so that its id is not reused."""

    def build(self, index: int, config: ClusterConfig) -> ClusterParts:
        """
        Build a cluster, with its hosts.

        @param index: its index in the document.
        """
        world = self._world
        path = _CLUSTERS / index
        cluster = make_cluster(
            config,
            world.reactor,
            world.random,
            checkers_of(config, world.reactor),
            world.workers,
            world.fleet_view,
        )
        if self._tunnels:
            cluster.add_task(Stalls(cluster, world.reactor))
            if not config.hosts:
                cluster.add_task(FirstHost(cluster, world.reactor, config.first_host_wait))
        hosts = self._hosts(config, path, None)
        fill = partial(add_hosts, cluster, hosts, world.reactor, world.random.random)
        static = self._findings.attempt(path, fill)
        return ClusterParts(config, cluster, static or StaticHosts(), self._tls_of(config, None))

    def change(
        self, index: int, config: ClusterConfig, old: ClusterParts
    ) -> tuple[ClusterParts, Callable[[], None]]:
        """
        Prepare a change of a cluster.

        @return: the cluster with its new configuration, and a function that applies the change.
        """
        world = self._world
        if self._tunnels and old.cluster.find_task(Stalls) is None:
            old.cluster.add_task(Stalls(old.cluster, world.reactor))
        if config == old.config:
            return old, lambda: None
        path = _CLUSTERS / index
        hosts = self._hosts(config, path, old)
        prepare = partial(
            ClusterChange,
            old.cluster,
            old.static,
            config,
            hosts,
            world.reactor,
            world.random,
            checkers_of(config, world.reactor),
            world.workers,
            world.fleet_view,
        )
        change = self._findings.attempt(path, prepare)
        parts = replace(old, config=config, tls=self._tls_of(config, old))
        return parts, (lambda: None) if change is None else change.commit

    def _tls_of(self, config: ClusterConfig, old: ClusterParts | None) -> ClientTls | None:
        context = config.tls_context
        if context is None:
            return None
        if old is not None and old.tls is not None and old.config.tls_context == context:
            return old.tls
        entry = self._shared.get(id(context))
        return None if entry is None else entry[1]

    def _hosts(self, config: ClusterConfig, path: Place, old: ClusterParts | None) -> list[HostMaker]:
        hosts = []
        for number, host in enumerate(config.hosts):
            make = self._findings.attempt(
                path / "hosts" / number, partial(self._host_maker, config, host, path, old)
            )
            if make is not None:
                hosts.append((host, make))
        return hosts

    def _host_maker(
        self, cluster: ClusterConfig, config: HostConfig, path: Place, old: ClusterParts | None
    ) -> Callable[[str], StaticHost]:
        tls = None
        if cluster.tls_context is not None and not config.tls_disable:
            owner = _MANAGER if cluster.cluster_manager_tls else path
            known = self._tls_of(cluster, old)
            if known is not None:
                tls = known.named(host_of(config.address))
            else:
                tls = self._client_tls(cluster.tls_context, host_of(config.address), owner / "tls_context")
        return host_maker(cluster, config, self._world.reactor, tls)

    def _client_tls(self, context: TlsContextConfig, name: str, path: Place) -> ClientTls:
        # The hosts of a cluster share one context: the system's authorities take a megabyte each time.
        tls = ClientTls(context, name, path)
        self._shared[id(context)] = context, tls
        tell_of_expiry(self._findings, tls)
        return tls

    def prepare(self, parts: ClusterParts, dialect: Dialect | None) -> None:
        """Start or stop heartbeats of an RPC protocol to hosts of agents before their first request."""
        cluster = parts.cluster
        old = cluster.find_task(Readiness)
        if (None if old is None else old.dialect.key) == (None if dialect is None else dialect.key):
            return
        if old is not None:
            cluster.remove_task(old)
        if dialect is not None:
            cluster.add_task(Readiness(dialect, self._world.reactor))

    def remove(self, parts: ClusterParts) -> None:
        """Drain a removed cluster; its waiting requests may still get a host until their timeout."""
        cluster = parts.cluster
        if cluster.waiting:
            self._world.reactor.callLater(parts.config.connect_timeout, cluster.drain)
        else:
            cluster.drain()
