"""Routes of C{tcp_proxy}: from a connection's addresses to a cluster."""

from __future__ import annotations

__all__ = ["TcpRouter"]

from ipaddress import ip_address, ip_network
from typing import Any

from reverseproxy.addresses import host_of, is_unix
from reverseproxy.config.models import TcpProxyConfig
from reverseproxy.interfaces import ConnectionInfo


class TcpRouter:
    """
    Routes of connections to clusters (docs/mosn.rst 4.3).

    C{cluster} comes first; otherwise the first route all four lists of which match
    the connection, where an empty list matches none.
    """

    def __init__(self, config: TcpProxyConfig) -> None:
        self._cluster = config.cluster
        self._routes = [
            (
                route.cluster,
                [ip_network(f"{entry.address}/{entry.length}", strict=False) for entry in route.source_addrs],
                [
                    ip_network(f"{entry.address}/{entry.length}", strict=False)
                    for entry in route.destination_addrs
                ],
                route.source_port,
                route.destination_port,
            )
            for route in config.routes
        ]

    def cluster_for(self, info: ConnectionInfo) -> str | None:
        """Return the name of the cluster; L{None} if no route matches."""
        if self._cluster:
            return self._cluster
        for cluster, sources, destinations, source_ports, destination_ports in self._routes:
            if (
                _address_in(info.remote, sources)
                and _address_in(info.local, destinations)
                and _port_in(info.remote, source_ports)
                and _port_in(info.local, destination_ports)
            ):
                return cluster
        return None


def _address_in(address: str, networks: list[Any]) -> bool:
    if is_unix(address):
        return False
    host = ip_address(host_of(address))
    return any(host in network for network in networks)


def _port_in(address: str, ranges: Any) -> bool:
    port = int(address.rpartition(":")[2])
    return any(low <= port <= high for low, high in ranges)
