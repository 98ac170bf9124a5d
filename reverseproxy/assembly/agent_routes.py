"""From C{agent_routes} of a tunnel filter to what gives agents the routes that they ask for."""

from __future__ import annotations

__all__ = ["build_agent_routes"]

from collections.abc import Callable
from functools import partial

from reverseproxy.assembly.world import World
from reverseproxy.cluster.building import make_cluster
from reverseproxy.cluster.health.stalls import Stalls
from reverseproxy.cluster.manager import Cluster
from reverseproxy.config.models import AgentRoutesConfig, ClusterConfig
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.rpc.health import rpc_checkers
from reverseproxy.routing import Router
from reverseproxy.tunnel.server.brought import AgentRoutes
from reverseproxy.tunnel.server.surface import RouteSurface, make_agent_routes


def build_agent_routes(
    world: World,
    config: AgentRoutesConfig,
    router: Callable[[str], Router],
    template: ClusterConfig,
    tally: Callable[[str], RequestTally | None],
) -> AgentRoutes:
    """
    Make it.

    @param router: finds a router by its name.
    @param template: what the clusters of agents are like.
    @raise ValueError: if there are workers, of which each would have its own.
    """
    if world.workers > 1:
        raise ValueError("agent_routes takes one process: leave out --workers")
    surface = RouteSurface(
        config,
        world.reactor,
        world.clusters,
        world.listeners,
        router(config.router) if config.router else None,
        partial(_make_cluster, world),
        template,
        world.limiter,
        tally,
    )
    return make_agent_routes(config, surface, world.clusters, world.reactor)


def _make_cluster(world: World, config: ClusterConfig) -> Cluster:
    cluster = make_cluster(config, world.reactor, world.random, rpc_checkers(world.reactor))
    cluster.add_task(Stalls(cluster, world.reactor))
    world.watch(cluster)
    return cluster
