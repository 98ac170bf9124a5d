"""Clusters, virtual hosts and listeners for routes of agents, created while the process runs."""

from __future__ import annotations

__all__ = ["RouteSurface", "make_agent_routes"]

from collections.abc import Callable, MutableMapping
from functools import partial
from typing import Any

from reverseproxy.addresses import join_host_port
from reverseproxy.cluster.manager import Cluster, ClusterManager
from reverseproxy.config.models import (
    AgentRoutesConfig,
    ClusterConfig,
    FilterChainConfig,
    FilterConfig,
    ListenerConfig,
    MatchConfig,
    RouteActionConfig,
    RouterRuleConfig,
    TcpProxyConfig,
    VirtualHostConfig,
)
from reverseproxy.identity.allowance import Allowance
from reverseproxy.listener import Listen, Listener, ListenerFailed
from reverseproxy.listener.connection_limiter import ConnectionLimiter
from reverseproxy.metrics import RequestTally
from reverseproxy.process.inherited_sockets import name_of_port
from reverseproxy.proxy.idle import session_idle
from reverseproxy.proxy.tcp.router import TcpRouter
from reverseproxy.proxy.tcp.sessions import TcpProxy
from reverseproxy.proxy.tcp.settings import TcpProxySettings
from reverseproxy.routing import Router
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.claims import Claims, Rules


class RouteSurface:
    """
    An L{IRouteSurface<reverseproxy.tunnel.server.route_interfaces.IRouteSurface>} on the process's clusters
    and listeners.
    """

    def __init__(
        self,
        config: AgentRoutesConfig,
        reactor: Any,
        clusters: ClusterManager,
        listeners: MutableMapping[str, Listener],
        router: Router | None,
        make_cluster: Callable[[ClusterConfig], Cluster],
        template: ClusterConfig,
        limiter: ConnectionLimiter,
        tally: Callable[[str], RequestTally | None],
    ) -> None:
        """
        @param clusters: all clusters of the process.
        @param listeners: all its listeners, by name.
        @param router: the router that gets domains; L{None} for none.
        @param make_cluster: makes a cluster with its health checks and so on.
        @param template: the configuration of clusters.
        @param limiter: limits connections.
        @param tally: returns the counters for a listener's sessions; L{None} if they are not counted.
        """
        self._config = config
        self._reactor = reactor
        self._clusters = clusters
        self._listeners = listeners
        self._router = router
        self._make_cluster = make_cluster
        self._template = template
        self._limiter = limiter
        self._tally = tally
        self._hosts: dict[str, tuple[Router, VirtualHostConfig]] = {}

    def take_over(self, newer: RouteSurface) -> None:
        """Use the settings of another one from now on."""
        self._config = newer._config
        self._template = newer._template
        if newer._router is not None:
            self._router = newer._router

    def add_cluster(self, name: str) -> None:
        """See L{IRouteSurface}."""
        if name in self._clusters:
            raise ValueError(f"there is a cluster {name} already")
        cluster = self._make_cluster(self._template.model_copy(update={"name": name}))
        self._clusters.add(cluster)
        cluster.start()

    def remove_cluster(self, name: str) -> None:
        """See L{IRouteSurface}."""
        self._clusters.remove(name).close("its agent has not come back")

    def expect_host(self, name: str, seconds: float) -> None:
        """See L{IRouteSurface}."""
        self._clusters.get(name).expect(seconds)

    def has_domain(self, domain: str) -> bool:
        """Return whether the configuration has a virtual host for a domain."""
        return self._router is not None and domain not in self._hosts and self._router.has_domain(domain)

    def add_domain(self, domain: str, cluster: str) -> None:
        """See L{IRouteSurface}."""
        assert self._router is not None
        rule = RouterRuleConfig(match=MatchConfig(prefix="/"), route=RouteActionConfig(cluster_name=cluster))
        # For any port, as clients may use any.
        host = VirtualHostConfig(
            name=f"agent of {cluster}: {domain}", domains=(f"{domain}:*",), routers=(rule,)
        )
        self._router.add_host(host)
        self._hosts[domain] = self._router, host

    def remove_domain(self, domain: str) -> None:
        """See L{IRouteSurface}."""
        router, host = self._hosts.pop(domain)
        router.remove_host(host)

    def address_of(self, port: int) -> str:
        """See L{IRouteSurface}."""
        return join_host_port(self._config.tcp_address, port)

    def open_port(self, port: int, cluster: str, listen: Listen | None = None) -> None:
        """See L{IRouteSurface}."""
        tcp = TcpProxyConfig(cluster=cluster)
        chain = FilterChainConfig(filters=(FilterConfig(type="tcp_proxy", config=tcp),))
        config = ListenerConfig(
            name=name_of_port(port),
            address=self.address_of(port),
            bind_port=True,
            filter_chains=(chain,),
        )
        if config.name in self._listeners:
            raise ValueError(f"the port {port} is still in use by sessions that go on")
        settings = TcpProxySettings(
            listener=config.name,
            router=TcpRouter(tcp),
            clusters=self._clusters,
            clock=self._reactor,
            session_idle=session_idle(tcp.idle_timeout, config.connection_idle_timeout),
            tally=self._tally(config.name),
        )
        listener = Listener(config, partial(TcpProxy, settings), self._reactor, None, listen, self._limiter)
        try:
            listener.startService()
        except ListenerFailed as error:
            raise ValueError(str(error)) from None
        self._listeners[config.name] = listener

    def close_port(self, port: int) -> None:
        """See L{IRouteSurface}."""
        name = name_of_port(port)
        listener = self._listeners[name]
        # Open sessions continue on the hosts that they have.
        listener.stopService().addCallback(lambda _: self._listeners.pop(name, None))


def make_agent_routes(
    config: AgentRoutesConfig, surface: RouteSurface, clusters: ClusterManager, clock: Any
) -> AgentRoutes:
    """Make a listener's L{AgentRoutes} from its configuration."""
    rules = Rules(
        zone=config.zone,
        url=config.url,
        http=bool(config.router),
        ports=Allowance.of((), config.tcp_ports),
        grace=config.grace,
        most=config.max_clusters,
        most_of_one=config.max_routes_per_identity,
    )
    claims = Claims(rules, clusters.__contains__, surface.has_domain)
    allowed = [(each.certificate, each.allowance) for each in config.allow]
    return AgentRoutes(claims, surface, clock, allowed, config.router)
