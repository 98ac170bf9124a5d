"""Parts of configurations that commands write."""

from __future__ import annotations

__all__ = ["http", "listener", "router", "tcp"]

from typing import Any


def listener(name: str, address: str, chain: dict[str, Any]) -> dict[str, Any]:
    """
    A listener that is bound.

    @param chain: its only filter chain.
    """
    return {"name": name, "address": address, "bind_port": True, "filter_chains": [chain]}


def tcp(cluster: str) -> dict[str, Any]:
    """A network filter that relays bytes to a cluster."""
    return {"type": "tcp_proxy", "config": {"cluster": cluster}}


def http(name: str) -> dict[str, Any]:
    """A network filter that forwards HTTP as the router of a name says."""
    config = {"downstream_protocol": "Http1", "upstream_protocol": "Http1", "router_config_name": name}
    return {"type": "proxy", "config": config}


def router(name: str, hosts: list[dict[str, Any]]) -> dict[str, Any]:
    """A router with virtual hosts."""
    return {"router_config_name": name, "virtual_hosts": hosts}
