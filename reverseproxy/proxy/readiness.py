"""
Heartbeats on reverse connections before their first request.

The first request on a reverse connection decides about its protocol, so nothing can
be sent before.  But if all routes to a cluster are for one RPC protocol, it is known
beforehand: then each host that joins gets a pool at once, with heartbeats that show
whether its connection is alive.
"""

from __future__ import annotations

__all__ = ["Readiness", "destinations", "sole_dialects", "sole_protocols"]

from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Any

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.host import Host
from reverseproxy.cluster.manager import IClusterTask
from reverseproxy.config.models import (
    Config,
    ProxyConfig,
    RouteActionConfig,
    RouterConfig,
    RouterRuleConfig,
    TcpProxyConfig,
)
from reverseproxy.logs import loss
from reverseproxy.proxy.rpc.protocols import Dialect, dialect_of, key_of, xprotocol_names

log = Logger()


@implementer(IClusterTask)
class Readiness:
    """
    Makes pools for an RPC protocol on the reverse hosts of one cluster.

    @ivar dialect: the protocol.
    """

    def __init__(self, dialect: Dialect, clock: IReactorTime) -> None:
        # Most clusters have no RPC protocol.
        from reverseproxy.proxy.rpc.pool import rpc_pool_of

        self.dialect = dialect
        self._clock = clock
        self._pool_of = rpc_pool_of

    def start(self) -> None:
        """See L{IClusterTask}: there are no reverse hosts yet."""

    def stop(self) -> None:
        """See L{IClusterTask}."""

    def joined(self, host: Host) -> None:
        """See L{IClusterTask}; a host of another worker gets its pool there."""
        if host.is_reverse and not host.is_remote:
            idle_timeout = None if host.cluster is None else host.cluster.config.idle_timeout
            pool = self._pool_of(self.dialect.key, self.dialect.protocol, host, self._clock, idle_timeout)
            pool.connect().addErrback(self._failed, host)

    def left(self, host: Host) -> None:
        """See L{IClusterTask}."""

    def _failed(self, reason: Failure, host: Host) -> None:
        log.debug("{host} can't be prepared: {reason}", host=host.address, reason=loss(reason))


def sole_dialects(config: Config) -> dict[str, Dialect]:
    """
    Find the clusters all routes to which are for one RPC protocol with the same options.

    @return: the protocols, by the clusters' names.
    """
    rpc = xprotocol_names()
    named: dict[str, tuple[str, Mapping[str, Any]]] = {}
    for listener in config.server.listeners:
        for each in listener.filter_chain.filters:
            if isinstance(each.config, ProxyConfig):
                for name in rpc:
                    options = each.config.rpc_options(name)
                    named[key_of(name, options)] = name, options
    found: dict[str, Dialect] = {}
    for cluster, key in sole_protocols(config).items():
        if key in named:
            # Invalid options are reported when the filter is built.
            with suppress(ValueError):
                found[cluster] = dialect_of(*named[key])
    return found


def _key(config: ProxyConfig, protocol: str) -> str:
    return (
        protocol if protocol in ("Http1", "Http2", "Auto") else key_of(protocol, config.rpc_options(protocol))
    )


def sole_protocols(config: Config) -> dict[str, str]:
    """
    Find the clusters all routes to which are for one protocol.

    @return: the protocols by the clusters' names: as routes name them, for RPC
        L{Dialect.key}; C{"tcp"} for tcp_proxy.
    """
    found: defaultdict[str, set[str]] = defaultdict(set)
    routers = config.routers
    for listener in config.server.listeners:
        for each in listener.filter_chain.filters:
            if isinstance(each.config, TcpProxyConfig):
                for cluster in (each.config.cluster, *(route.cluster for route in each.config.routes)):
                    found[cluster].add("tcp")
            elif isinstance(each.config, ProxyConfig):
                _, router = routers.get(each.config.router_config_name, (None, None))
                protocols = {_key(each.config, protocol) for protocol in each.config.protocols}
                for rule in () if router is None else _rules(router):
                    for cluster, protocol in _destinations(rule):
                        found[cluster] |= {_key(each.config, protocol)} if protocol else protocols
    anywhere = found.pop("", set())
    return {
        cluster: next(iter(protocols))
        for cluster, protocols in found.items()
        if len(protocols) == 1 and not anywhere - protocols
    }


def destinations(config: Config, listener: str) -> set[str]:
    """
    Find the clusters that a listener's requests and sessions may go to.

    @return: their names; the empty one is among them if it may be any.
    """
    found: set[str] = set()
    for chain in (each.filter_chain for each in config.server.listeners if each.name == listener):
        for each in chain.filters:
            if isinstance(each.config, TcpProxyConfig):
                found |= {each.config.cluster} - {""} or {route.cluster for route in each.config.routes}
            elif isinstance(each.config, ProxyConfig):
                _, router = config.routers.get(each.config.router_config_name, ("", None))
                for rule in () if router is None else _rules(router):
                    found |= {cluster for cluster, _ in _destinations(rule, mirrors=False)}
    return found


def _rules(router: RouterConfig) -> Iterator[RouterRuleConfig]:
    for host in router.virtual_hosts:
        yield from host.routers


def _destinations(rule: RouterRuleConfig, mirrors: bool = True) -> Iterator[tuple[str, str]]:
    """
    Iterate over the clusters of a rule, with the protocols of their hosts.

    The cluster is empty if it may be any, the protocol if it is the client's.
    """
    route = rule.route
    if isinstance(route, RouteActionConfig):
        protocol = "" if route.upstream_protocol == "X" else route.upstream_protocol
        for weighted in route.weighted_clusters:
            yield weighted.cluster.name, protocol
        if not route.weighted_clusters:
            yield route.cluster_name, protocol
        if mirrors and rule.request_mirror_policies is not None:
            yield rule.request_mirror_policies.cluster, protocol
