"""Configurations for the scenario tests, in the shape of MOSN's own samples."""

from __future__ import annotations

__all__ = ["EXAMPLES", "agent", "example", "http_filter", "quick_agent", "server", "tcp_filter"]

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"


def http_filter(router: str, **more: Any) -> dict[str, Any]:
    """A C{proxy} filter for HTTP/1."""
    return {
        "type": "proxy",
        "config": {"downstream_protocol": "Http1", "router_config_name": router, **more},
    }


def tcp_filter(cluster: str, **more: Any) -> dict[str, Any]:
    """A C{tcp_proxy} filter."""
    return {"type": "tcp_proxy", "config": {"cluster": cluster, **more}}


def _router(name: str, *rules: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "router_config_name": name,
        "virtual_hosts": [{"name": f"{name}_host", "domains": ["*"], "routers": list(rules)}],
    }


def server(
    *,
    client: str = "127.0.0.1:0",
    tunnel: str = "127.0.0.1:0",
    kind: str = "http",
    client_listener: Mapping[str, Any] | None = None,
    client_filter: Mapping[str, Any] | None = None,
    client_tls: Mapping[str, Any] | None = None,
    tunnel_config: Mapping[str, Any] | None = None,
    tunnel_listener: Mapping[str, Any] | None = None,
    tls: Mapping[str, Any] | None = None,
    cluster: Mapping[str, Any] | None = None,
    graceful_timeout: str = "15s",
) -> dict[str, Any]:
    """A tunnel server: C{clientListener} before C{clientCluster}, and C{tunnelListener}."""
    tunnel_filter: dict[str, Any] = {"type": "tunnel"}
    if tunnel_config is not None:
        tunnel_filter["config"] = dict(tunnel_config)
    proxy = http_filter("client_router") if kind == "http" else tcp_filter("clientCluster")
    return {
        "servers": [
            {
                "default_log_level": "DEBUG",
                "graceful_timeout": graceful_timeout,
                "routers": [
                    _router(
                        "client_router",
                        {"match": {"prefix": "/"}, "route": {"cluster_name": "clientCluster"}},
                    )
                ],
                "listeners": [
                    {
                        "name": "clientListener",
                        "address": client,
                        "bind_port": True,
                        "filter_chains": [
                            {"tls_context": dict(client_tls or {}), "filters": [client_filter or proxy]}
                        ],
                        **(client_listener or {}),
                    },
                    {
                        "name": "tunnelListener",
                        "address": tunnel,
                        "bind_port": True,
                        "connection_idle_timeout": 0,
                        "filter_chains": [{"tls_context": dict(tls or {}), "filters": [tunnel_filter]}],
                        **(tunnel_listener or {}),
                    },
                ],
            }
        ],
        "cluster_manager": {
            "clusters": [
                {
                    "name": "clientCluster",
                    "type": "SIMPLE",
                    "lb_type": "LB_RANDOM",
                    **(cluster or {}),
                }
            ]
        },
    }


def agent(
    servers: Sequence[str],
    backend: str = "",
    *,
    kind: str = "http",
    connections: int = 1,
    tls: Mapping[str, Any] | None = None,
    hosting: Mapping[str, Any] | None = None,
    backend_tls: Mapping[str, Any] | None = None,
    answer: str = "answered by the agent",
    **tunnel: Any,
) -> dict[str, Any]:
    """
    An agent whose hosting listener leads to C{backend}.

    @param backend: C{host:port}; if empty, the agent answers requests itself.
    @param tunnel: further keys of the C{tunnel_agent} entry.
    """
    if backend:
        rule: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster_name": "serverCluster"}}
    else:
        rule = {"match": {"prefix": "/"}, "direct_response": {"status": 200, "body": answer}}
    proxy = http_filter("server_router") if kind == "http" else tcp_filter("serverCluster")
    entry: dict[str, Any] = {
        "enable": True,
        "hosting_listener": "serverListener",
        "server_list": list(servers),
        "cluster": "clientCluster",
        "connection_num": connections,
        "reconnect_base_duration": "100ms",
        **tunnel,
    }
    if tls is not None:
        entry["tls_context"] = dict(tls)
    return {
        "servers": [
            {
                "default_log_level": "DEBUG",
                "routers": [_router("server_router", rule)],
                "listeners": [
                    {
                        "name": "serverListener",
                        "address": "127.0.0.1:2046",
                        "bind_port": False,
                        "filter_chains": [{"filters": [proxy]}],
                        **(hosting or {}),
                    }
                ],
            }
        ],
        "extends": [{"type": "tunnel_agent", "config": entry}],
        "cluster_manager": {
            "clusters": [
                {
                    "name": "serverCluster",
                    "type": "SIMPLE",
                    "lb_type": "LB_RANDOM",
                    "hosts": [{"address": backend}] if backend else [],
                    **({"tls_context": dict(backend_tls)} if backend_tls else {}),
                }
            ]
        },
    }


def quick_agent(port: int, backend: str = "", **more: Any) -> dict[str, Any]:
    """An agent of a tunnel server on this machine."""
    return agent([f"127.0.0.1:{port}"], backend, **more)


def example(name: str, ports: Mapping[str, int], files: Mapping[str, str] | None = None) -> dict[str, Any]:
    """
    One of the examples, with other ports and files.

    @param ports: from C{host:port} in the example to the port to use instead.
    @param files: from other strings in it to what to put in their place.
    """
    text = (EXAMPLES / name).read_text()
    for address, port in ports.items():
        assert address in text, f"{name} does not contain {address}"
        text = text.replace(address, f"{address.rpartition(':')[0]}:{port}")
    for before, after in (files or {}).items():
        assert before in text, f"{name} does not contain {before}"
        text = text.replace(before, after)
    document: dict[str, Any] = yaml.safe_load(text) if name.endswith(".yaml") else json.loads(text)
    return document
