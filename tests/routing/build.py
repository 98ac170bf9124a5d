"""Requests and routers for tests."""

from __future__ import annotations

__all__ = ["by_domain", "cluster", "config", "facts", "router", "rule", "rules", "virtual_host"]

from collections.abc import Sequence
from typing import Any

from reverseproxy.config.models import (
    HeaderMatcherConfig,
    MatchConfig,
    RouteActionConfig,
    RouterConfig,
    RouterRuleConfig,
    VirtualHostConfig,
)
from reverseproxy.routing import ClusterRoute, RouteInput, Router, RouteResult


def facts(
    path: str = "/",
    host: str = "example.com",
    method: str = "GET",
    query: str = "",
    scheme: str = "http",
    **headers: str,
) -> RouteInput:
    """A request; header names are written with underscores."""
    table = {name.replace("_", "-"): value for name, value in headers.items()}
    return RouteInput(method, path, query, host, table.get, scheme)


def rule(cluster: str = "c", *, headers: Sequence[dict[str, Any]] = (), **match: str) -> RouterRuleConfig:
    """A rule that leads to a cluster."""
    return RouterRuleConfig(
        match=MatchConfig(headers=tuple(HeaderMatcherConfig(**header) for header in headers), **match),
        route=RouteActionConfig(cluster_name=cluster),
    )


def virtual_host(domains: Sequence[str], *rules: RouterRuleConfig, name: str = "v") -> VirtualHostConfig:
    """A virtual host."""
    return VirtualHostConfig(name=name, domains=tuple(domains), routers=rules)


def config(*hosts: VirtualHostConfig) -> RouterConfig:
    """A router's configuration."""
    return RouterConfig(router_config_name="r", virtual_hosts=hosts)


def router(*hosts: VirtualHostConfig) -> Router:
    """A router of virtual hosts."""
    return Router(config(*hosts))


def rules(*rules: RouterRuleConfig) -> Router:
    """A router with the default virtual host alone."""
    return router(virtual_host(["*"], *rules))


def by_domain(*domains: str) -> Router:
    """A router in which each domain leads to the cluster of its own name."""
    return router(*(virtual_host([domain], rule(domain, prefix="/")) for domain in domains))


def cluster(result: RouteResult | None) -> str | None:
    """The cluster of a result."""
    if result is None:
        return None
    assert isinstance(result, ClusterRoute), result
    return result.cluster_name
