"""Checks of C{agent_routes} that concern several keys."""

from __future__ import annotations

__all__ = ["check_agent_routes"]

from collections.abc import Callable, Container, Iterator, Mapping

from reverseproxy.addresses import is_ip
from reverseproxy.config._agent_routes import AgentRoutesConfig
from reverseproxy.config._listeners import FilterChainConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._tree import Tree
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import quote
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import ClusterConfig, Config

Report = Callable[[str, str], None]
"""Adds an error, given a key of C{agent_routes}, or an empty text for the whole, and a message."""


def check_agent_routes(config: Config, tree: Tree, findings: Diagnostics, routers: Container[str]) -> None:
    """
    Check that routes of agents can be made.

    @param config: the models, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors.
    @param routers: the names of all routers.
    """
    clusters = {each.name: each for each in config.cluster_manager.clusters}
    for place, chain, tunnel in _tunnels(config):
        routes = tunnel.agent_routes
        if routes is None:
            continue

        def error(key: str, message: str, place: Location = place) -> None:
            findings.error(tree.locate((*place, "agent_routes", *([key] if key else []))), message)

        _check_names(routes, routers, clusters, error)
        if not is_ip(routes.tcp_address):
            error("tcp_address", f"{quote(routes.tcp_address)} is no IP address")
        _check_proofs(routes, tunnel, chain, error)


def _check_names(
    routes: AgentRoutesConfig, routers: Container[str], clusters: Mapping[str, ClusterConfig], error: Report
) -> None:
    """Check the names that the routes refer to."""
    if routes.router and routes.router not in routers:
        error("router", f"there is no router {quote(routes.router)}")
    if not routes.router and not routes.tcp_ports:
        error("", "agents can bring nothing: it takes router, or tcp_ports")
    if routes.zone and not routes.router:
        error("zone", "has no effect without router")
    template = routes.cluster_template
    if template and template not in clusters:
        error("cluster_template", f"there is no cluster {quote(template)}")
    elif template and clusters[template].hosts:
        error("cluster_template", f"the cluster {quote(template)} has hosts, which all agents would share")


def _check_proofs(
    routes: AgentRoutesConfig, tunnel: TunnelConfig, chain: FilterChainConfig, error: Report
) -> None:
    verified = any(each.verify_client for each in chain.tls_contexts)
    if routes.allow and not verified:
        error("allow", "no certificate would be verified: write tls_context with verify_client and ca_cert")
    if not verified and not (tunnel.validators or tunnel.credential_policy):
        error("", "no agent can prove who it is: it takes validators, or a tls_context with verify_client")


def _tunnels(config: Config) -> Iterator[tuple[Location, FilterChainConfig, TunnelConfig]]:
    for index, listener in enumerate(config.servers[0].listeners):
        for number, chain in enumerate(listener.filter_chains):
            for position, entry in enumerate(chain.filters):
                if isinstance(entry.config, TunnelConfig):
                    place = ("servers", 0, "listeners", index, "filter_chains", number, "filters", position)
                    yield (*place, "config"), chain, entry.config
