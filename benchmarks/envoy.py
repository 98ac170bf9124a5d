"""
Envoy's reverse tunnels.
"""

from __future__ import annotations

__all__ = ["EnvoyPair"]

import http.client
from pathlib import Path
from typing import Any, Literal

from benchmarks.install import Tools
from benchmarks.measure import established
from benchmarks.processes import LOOPBACK, Peer, free_ports


class EnvoyPair(Peer):
    """
    Envoy's reverse tunnels: a responder that clients reach and an initiator that dials it.

    One worker each, everything else at its defaults.  The tunnel speaks HTTP/2,
    the only protocol that Envoy has for it; with C{tcp} the responder's
    tcp_proxy wraps each connection in a CONNECT stream and the initiator
    unwraps it.  Clients may speak either version of HTTP.
    """

    NODE = "initiator-node"

    def __init__(
        self,
        name: str,
        title: str,
        tools: Tools,
        backend: Peer,
        mode: Literal["http", "tcp"],
        connections: int = 1,
    ) -> None:
        super().__init__(name, title)
        if tools.envoy is None:
            raise ValueError("Envoy is not installed")
        self._program = tools.envoy
        self._backend = backend
        self._mode = mode
        self._connections = connections
        self._tunnel = 0
        self._admin = 0

    def start(self, directory: Path) -> None:
        """Start the responder, then the initiator."""
        self.front, self._tunnel, self._admin = free_ports(3)
        for role, config in (("responder", self._responder()), ("initiator", self._initiator())):
            self._run(
                directory,
                role,
                [
                    str(self._program),
                    *("--config-path", self._write(directory, role, config)),
                    *("--concurrency", "1", "--disable-hot-restart", "--log-level", "warning"),
                ],
            )
            self._wait_listening(self._tunnel)

    def settled(self) -> bool:
        """Whether the tunnel stands."""
        return established(self._tunnel) >= self._connections

    def evidence(self) -> str:
        """Read the responder's counters: the requests must have used the tunnel's cluster."""
        connection = http.client.HTTPConnection(LOOPBACK, self._admin, timeout=5)
        try:
            connection.request("GET", "/stats?filter=cluster.tunnel.upstream_rq_total|handshake.accepted")
            lines = connection.getresponse().read().decode().split("\n")
        finally:
            connection.close()
        return ", ".join(line for line in lines if line)

    def _responder(self) -> dict[str, Any]:
        front: dict[str, Any]
        if self._mode == "http":
            front = _envoy_http({"match": {"prefix": "/"}, "route": {"cluster": "tunnel"}})
        else:
            front = _envoy_filter(
                "envoy.filters.network.tcp_proxy",
                "envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy",
                stat_prefix="front",
                cluster="tunnel",
                tunneling_config={"hostname": "backend:80"},
            )
        accept = _envoy_filter(
            "envoy.filters.network.reverse_tunnel",
            "envoy.extensions.filters.network.reverse_tunnel.v3.ReverseTunnel",
        )
        options = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
        return {
            "node": {"id": "responder-node", "cluster": "responder-cluster"},
            "bootstrap_extensions": [
                _envoy_filter(
                    "envoy.bootstrap.reverse_tunnel.upstream_socket_interface",
                    "envoy.extensions.bootstrap.reverse_tunnel.upstream_socket_interface.v3"
                    ".UpstreamReverseConnectionSocketInterface",
                    stat_prefix="reverse",
                )
            ],
            "static_resources": {
                "listeners": [
                    _envoy_listener("tunnel", LOOPBACK, self._tunnel, accept),
                    _envoy_listener("front", LOOPBACK, self.front, front),
                ],
                "clusters": [
                    {
                        "name": "tunnel",
                        "connect_timeout": "10s",
                        "lb_policy": "CLUSTER_PROVIDED",
                        "cluster_type": _envoy_filter(
                            "envoy.clusters.reverse_connection",
                            "envoy.extensions.clusters.reverse_connection.v3.ReverseConnectionClusterConfig",
                            # one agent, so that no header has to be looked at to find it
                            host_id_format=self.NODE,
                        ),
                        "typed_extension_protocol_options": {
                            options: {
                                "@type": f"type.googleapis.com/{options}",
                                "explicit_http_config": {"http2_protocol_options": {}},
                            }
                        },
                    }
                ],
            },
            "admin": {"address": _envoy_address(LOOPBACK, self._admin)},
        }

    def _initiator(self) -> dict[str, Any]:
        if self._mode == "http":
            route: dict[str, Any] = {"match": {"prefix": "/"}, "route": {"cluster": "backend"}}
            extra: dict[str, Any] = {}
        else:
            connect = {"upgrade_type": "CONNECT", "connect_config": {}}
            route = {
                "match": {"connect_matcher": {}},
                "route": {"cluster": "backend", "upgrade_configs": [connect]},
            }
            extra = {
                "http2_protocol_options": {"allow_connect": True},
                "upgrade_configs": [{"upgrade_type": "CONNECT"}],
            }
        address = f"rc://{self.NODE}:initiator-cluster:tenant@responder:{self._connections}"
        listener = _envoy_listener("reverse", address, 0, _envoy_http(route, **extra))
        listener["address"]["socket_address"]["resolver_name"] = "envoy.resolvers.reverse_connection"
        # the handshake leaves nothing for a listener filter to look at
        listener["listener_filters_timeout"] = "0s"
        return {
            "node": {"id": self.NODE, "cluster": "initiator-cluster"},
            "bootstrap_extensions": [
                _envoy_filter(
                    "envoy.bootstrap.reverse_tunnel.downstream_socket_interface",
                    "envoy.extensions.bootstrap.reverse_tunnel.downstream_socket_interface.v3"
                    ".DownstreamReverseConnectionSocketInterface",
                    stat_prefix="reverse",
                )
            ],
            "static_resources": {
                "listeners": [listener],
                "clusters": [
                    _envoy_cluster("responder", self._tunnel),
                    _envoy_cluster("backend", self._backend.front),
                ],
            },
        }


def _envoy_filter(name: str, message: str, **config: Any) -> dict[str, Any]:
    return {"name": name, "typed_config": {"@type": f"type.googleapis.com/{message}", **config}}


def _envoy_address(address: str, port: int) -> dict[str, Any]:
    return {"socket_address": {"address": address, "port_value": port}}


def _envoy_listener(name: str, address: str, port: int, chain: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": name,
        "address": _envoy_address(address, port),
        "filter_chains": [{"filters": [chain]}],
    }


def _envoy_http(route: dict[str, Any], **extra: Any) -> dict[str, Any]:
    router = "envoy.extensions.filters.http.router.v3.Router"
    return _envoy_filter(
        "envoy.filters.network.http_connection_manager",
        "envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
        stat_prefix="http",
        route_config={"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [route]}]},
        http_filters=[_envoy_filter("envoy.filters.http.router", router)],
        **extra,
    )


def _envoy_cluster(name: str, port: int) -> dict[str, Any]:
    endpoint = {"endpoint": {"address": _envoy_address(LOOPBACK, port)}}
    return {
        "name": name,
        "type": "STATIC",
        "load_assignment": {"cluster_name": name, "endpoints": [{"lb_endpoints": [endpoint]}]},
    }
