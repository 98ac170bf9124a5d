"""
Import the parts of the program that a configuration needs, before it is built.

Assembly imports them where it meets them.  In a running process that would take some turns of the
reactor as long as a tenth of a second, so a reload imports them in the thread that reads the configuration.
"""

from __future__ import annotations

__all__ = ["import_parts", "parts_of"]

from collections.abc import Iterator
from importlib import import_module
from typing import Final

from reverseproxy.config.models import ClusterConfig, Config, ProxyConfig, TunnelAgentConfig, TunnelConfig

_RPC: Final = {
    "bolt": "reverseproxy.wire.rpc.bolt",
    "boltv2": "reverseproxy.wire.rpc.bolt",
    "dubbo": "reverseproxy.wire.rpc.dubbo",
}
"""The modules of RPC protocols; those of plug-ins are imported as plug-ins."""


def parts_of(config: Config) -> Iterator[str]:
    """Iterate over the names of the modules, which import all others that the configuration needs."""
    if config.admin is not None and config.admin.bound:
        yield "reverseproxy.admin.service"
    if any(isinstance(each.config, TunnelAgentConfig) and each.config.enable for each in config.extends):
        yield "reverseproxy.assembly.agents"
    for listener in config.server.listeners:
        for each in listener.filter_chain.filters:
            if isinstance(each.config, ProxyConfig):
                yield from _of_proxy(each.config)
            elif isinstance(each.config, TunnelConfig):
                yield "reverseproxy.tunnel.server.filter"
                if each.config.agent_routes is not None:
                    yield "reverseproxy.assembly.agent_routes"
    for cluster in config.cluster_manager.clusters:
        yield from _of_cluster(cluster)


def _of_proxy(proxy: ProxyConfig) -> Iterator[str]:
    yield "reverseproxy.proxy.protocols"
    rpc = set(proxy.protocols) - {"Http1", "Http2"}
    if rpc:
        yield "reverseproxy.proxy.rpc.server"
    for name in _RPC if "Auto" in rpc else rpc & _RPC.keys():
        yield _RPC[name]


def _of_cluster(cluster: ClusterConfig) -> Iterator[str]:
    if cluster.type == "STRICT_DNS":
        yield "reverseproxy.cluster.names.dns"
        yield "reverseproxy.cluster.names.strict_dns"
    if cluster.health_check.enabled:
        if cluster.health_check.protocol == "Http1":
            yield "reverseproxy.cluster.health.http_probes"
        elif cluster.health_check.protocol in _RPC:
            yield "reverseproxy.proxy.rpc.health"
            yield _RPC[cluster.health_check.protocol]


def import_parts(config: Config) -> None:
    """
    Import what a configuration needs; in any thread.

    @raise ImportError: if that fails, for instance because another version is being installed.
    """
    for name in parts_of(config):
        import_module(name)
