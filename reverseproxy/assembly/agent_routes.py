"""Build the routes that agents may bring, from C{agent_routes} of a tunnel filter."""

from __future__ import annotations

__all__ = ["build_agent_routes"]

from collections.abc import Callable, Mapping
from functools import partial

from reverseproxy.assembly.clusters import checkers_of
from reverseproxy.assembly.world import World
from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.health.checks import IHealthChecker
from reverseproxy.cluster.health.stalls import Stalls
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import AgentRoutesConfig, ClusterConfig, HealthCheckConfig
from reverseproxy.metrics import RequestTally
from reverseproxy.routing import Router
from reverseproxy.tunnel.server.agent_routes import AgentRoutes
from reverseproxy.tunnel.server.surface import RouteSurface, make_agent_routes


def build_agent_routes(
    world: World,
    listener: str,
    config: AgentRoutesConfig,
    router: Callable[[str], Router],
    template: ClusterConfig,
    tally: Callable[[str], RequestTally | None],
) -> AgentRoutes:
    """
    Build what grants agents the routes that they request.

    @param router: finds a router by its name.
    @param listener: the name of the tunnel listener.
    @param template: the configuration of the agents' clusters.
    """
    surface = RouteSurface(
        config,
        world.reactor,
        world.clusters,
        world.listeners,
        router(config.router) if config.router else None,
        partial(_make_cluster, world, checkers_of(template, world.reactor)),
        template,
        world.limiter,
        tally,
    )
    routes = make_agent_routes(config, surface, world.clusters, world.reactor)
    if world.worker is not None:
        routes.arbiter = world.worker.route_client
        routes.listener = listener
    elif world.fleet_resources.arbiter is not None:
        routes.arbiter = world.fleet_resources.arbiter
        routes.listener = listener
    return routes


def _make_cluster(
    world: World,
    checkers: Mapping[str, Callable[[HealthCheckConfig], IHealthChecker]],
    config: ClusterConfig,
) -> Cluster:
    cluster = make_cluster(config, world.reactor, world.random, checkers, world.workers, world.fleet_view)
    cluster.add_task(Stalls(cluster, world.reactor))
    if world.siblings is not None:
        world.siblings.share(cluster)
    world.watch(cluster)
    if world.fleet is not None:
        world.reactor.callLater(0, world.fleet.share, cluster)  # once it is added to the clusters
    return cluster
