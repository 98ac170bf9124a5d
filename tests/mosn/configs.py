"""One configuration for all situations of one end."""

from __future__ import annotations

__all__ = ["agent_config", "listener_of", "server_config", "tunnel_of"]

from collections.abc import Mapping
from typing import Any

from tests.certs import Certificates
from tests.mosn.cells import CONNECTIONS, PROTOCOLS, SPARE, TLS

BACK_OFF = "1h"
"""
So long that an agent that waits where it should dial fails its test.

Any time up to that is as likely as another, and no situation may take a hundredth of it.
"""

SHORT_BACK_OFF = "100ms"
"""For those that have to wait."""


def tunnel_of(tls: str) -> str:
    return f"tunnel-{tls}"


def listener_of(cluster: str) -> str:
    return f"client-{cluster}"


def _filter(protocol: str, cluster: str) -> dict[str, Any]:
    if protocol == "tcp":
        return {"type": "tcp_proxy", "config": {"cluster": cluster}}
    return {
        "type": "proxy",
        "config": {
            "downstream_protocol": protocol,
            "upstream_protocol": protocol,
            "router_config_name": cluster,
        },
    }


def _router(protocol: str, cluster: str) -> dict[str, Any]:
    match: dict[str, Any] = {"prefix": "/"}
    if not protocol.startswith("Http"):
        match = {"headers": [{"name": "service", "value": ".*"}]}
    rule = {"match": match, "route": {"cluster_name": cluster}}
    return {
        "router_config_name": cluster,
        "virtual_hosts": [{"name": cluster, "domains": ["*"], "routers": [rule]}],
    }


def _server(listeners: list[Any], routers: list[Any], clusters: list[Any], **more: Any) -> dict[str, Any]:
    server = {
        "default_log_level": "INFO",
        "max_log_size_per_hour": 0,  # it is by lines that scenes know what has happened
        "listeners": listeners,
        "routers": routers,
    }
    return {"servers": [server], "cluster_manager": {"clusters": clusters}, **more}


def server_config(certificates: Certificates, mode: str) -> dict[str, Any]:
    """
    A tunnel server with a listener and a cluster for each situation.

    @param mode: with workers, the log is to say when each of them knows a host.
    """
    listeners, routers, clusters = [], [], []
    for tls in TLS:
        context: dict[str, Any] = {}
        if tls != "plain":
            demanded = tls == "mtls"
            context = {
                "status": True,
                "ca_cert": certificates.ca,
                **certificates.server.options,
                "verify_client": demanded,
                "require_client_cert": demanded,
            }
        chain = {"tls_context": context, "filters": [{"type": "tunnel"}]}
        listeners.append(
            {
                "name": tunnel_of(tls),
                "address": "127.0.0.1:0",
                "bind_port": True,
                "connection_idle_timeout": 0,
                "filter_chains": [chain],
            }
        )
    for protocol in PROTOCOLS:
        for cluster in (f"{protocol}-{tls}-{count}" for tls in TLS for count in CONNECTIONS):
            listeners.append(
                {
                    "name": listener_of(cluster),
                    "address": "127.0.0.1:0",
                    "bind_port": True,
                    "filter_chains": [{"filters": [_filter(protocol, cluster)]}],
                }
            )
            if protocol != "tcp":
                routers.append(_router(protocol, cluster))
            clusters.append(
                {
                    "name": cluster,
                    "type": "SIMPLE",
                    "lb_type": "LB_ROUNDROBIN",
                    "connect_timeout": "1h",  # many clients wait for their turn on one connection
                }
            )
    document = _server(listeners, routers, clusters)
    if mode == "workers":
        document["servers"][0]["default_log_level"] = "DEBUG"
    return document


def agent_config(
    certificates: Certificates, servers: Mapping[str, int], services: Mapping[str, int]
) -> dict[str, Any]:
    """
    An agent with an entry for each situation.

    @param servers: ports of the tunnel server, by how TLS is used.
    @param services: ports of the services, by their protocols.
    """
    listeners, routers, clusters, extends = [], [], [], []
    for protocol, port in services.items():
        listeners.append(
            {
                "name": protocol,
                "address": "127.0.0.1:2046",
                "bind_port": False,
                "filter_chains": [{"filters": [_filter(protocol, protocol)]}],
            }
        )
        if protocol != "tcp":
            routers.append(_router(protocol, protocol))
        clusters.append(
            {
                "name": protocol,
                "type": "SIMPLE",
                "lb_type": "LB_RANDOM",
                "hosts": [{"address": f"127.0.0.1:{port}"}],
            }
        )
        for tls in TLS:
            context = {"status": tls != "plain", "ca_cert": certificates.ca, "server_name": "127.0.0.1"}
            if tls == "mtls":
                context |= certificates.client.options
            for count in (*CONNECTIONS, SPARE):
                entry = {
                    "enable": True,
                    "hosting_listener": protocol,
                    "server_list": [f"127.0.0.1:{servers[tls]}"],
                    "cluster": f"{protocol}-{tls}-{count}",
                    "connection_num": count,
                    "reconnect_base_duration": SHORT_BACK_OFF if count == SPARE else BACK_OFF,
                    # the fake answers when a test begins
                    "connect_timeout_duration": "1h",
                    "tls_context": context,
                }
                extends.append({"type": "tunnel_agent", "config": entry})
    return _server(listeners, routers, clusters, extends=extends)
