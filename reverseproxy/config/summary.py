"""Summarize a configuration for people."""

from __future__ import annotations

__all__ = ["summarize"]

from collections.abc import Iterable

from reverseproxy.config._values import quote
from reverseproxy.config.models import (
    ClusterConfig,
    Config,
    FilterConfig,
    FleetConfig,
    HostConfig,
    ListenerConfig,
    ProxyConfig,
    RouterConfig,
    TcpProxyConfig,
    TlsContextConfig,
    TunnelAgentConfig,
    TunnelConfig,
)


def summarize(config: Config) -> str:
    """
    Describe a configuration: listeners, routers, clusters and tunnel agents.

    Nothing secret is in it.
    """
    manager, server = config.cluster_manager, config.server
    return "\n".join(
        [
            *_section("listeners", (_listener(listener, config) for listener in server.listeners)),
            *_section("routers", (_router(router) for _, router in config.routers.values())),
            *_section("clusters", (_cluster(cluster) for cluster in manager.clusters)),
            *_section("tunnel agents", (_agent(agent) for agent in config.agents)),
            *([] if config.fleet is None else _section("fleet", [_fleet(config.fleet)])),
        ]
    )


def _section(title: str, entries: Iterable[str]) -> list[str]:
    lines = [f"  {entry}" for entry in entries]
    return [f"{title}:", *lines] if lines else [f"{title}: none"]


def _listener(listener: ListenerConfig, config: Config) -> str:
    if listener.bind_port:
        where = f"at {listener.address}"
    else:
        agents = sum(agent.enable and agent.hosting_listener == listener.name for agent in config.agents)
        where = f"not bound, fed by {_count(agents, 'tunnel agent')}"
    chain = listener.filter_chain
    tls = "plaintext" if not chain.tls_contexts else _server_tls(chain.tls_contexts)
    if chain.tls_contexts and listener.inspector:
        tls += " or plaintext"
    filters = [entry for entry in map(_filter, chain.filters) if entry]
    return f"{listener.name}: {where}, {tls}; {', '.join(filters) or 'closes connections'}"


def _server_tls(contexts: tuple[TlsContextConfig, ...]) -> str:
    demands = {context.verify_client and context.require_client_cert for context in contexts}
    return "TLS with client certificates" if demands == {True} else "TLS"


def _filter(entry: FilterConfig) -> str:
    match entry.config:
        case ProxyConfig() as proxy:
            router = proxy.router_config_name
            return f"{', '.join(proxy.protocols)} by {f'router {router}' if router else 'no router'}"
        case TcpProxyConfig() as tcp:
            clusters = [tcp.cluster] if tcp.cluster else [route.cluster for route in tcp.routes]
            return f"TCP to {_names('cluster', clusters)}"
        case TunnelConfig() as tunnel:
            policies = [tunnel.credential_policy, *tunnel.cluster_credential_policies.values()]
            names = [policy for policy in dict.fromkeys(policies) if policy]
            return f"tunnel with {_names('credential policy', names)}" if names else "tunnel"
    return ""


def _names(what: str, names: list[str]) -> str:
    return f"{what} {' or '.join(dict.fromkeys(names))}"


def _router(router: RouterConfig) -> str:
    hosts = [
        f"{', '.join(host.domains) or 'no domain'} ({_count(len(host.routers), 'rule')})"
        for host in router.virtual_hosts
    ]
    return f"{router.router_config_name}: {'; '.join(hosts) or 'answers every request with 404'}"


def _cluster(cluster: ClusterConfig) -> str:
    hosts = ", ".join(_host(host, cluster) for host in cluster.hosts) or "hosts of tunnel agents only"
    tls = ", TLS" if cluster.tls_context is not None and cluster.hosts else ""
    return f"{cluster.name}: {cluster.lb_type}{tls}; {hosts}"


def _host(host: HostConfig, cluster: ClusterConfig) -> str:
    facts = []
    if host.weight:
        facts.append(f"weight {min(host.weight, 128)}")
    if host.tls_disable and cluster.tls_context is not None:
        facts.append("plaintext")
    return f"{host.address} ({', '.join(facts)})" if facts else host.address


def _agent(agent: TunnelAgentConfig) -> str:
    if not agent.enable:
        return f"cluster {quote(agent.cluster)}: not enabled"
    servers = list(agent.server_list)
    lister = agent.dynamic_server_list_config.dynamic_server_lister
    if lister:
        servers.append(f"those that {lister} lists")
    some = f"{agent.server_count} of " if agent.server_count else ""
    tls = "plaintext" if agent.tls_context is None else "TLS"
    credential = f", credential policy {agent.credential_policy}" if agent.credential_policy else ""
    return (
        f"cluster {agent.cluster} on {some}{', '.join(servers) or 'no server'}: "
        f"{_count(agent.connection_num, 'connection')} to each address, {tls}{credential}; "
        f"served by listener {agent.hosting_listener}"
    )


def _fleet(fleet: FleetConfig) -> str:
    peers, etcd = fleet.peers, fleet.etcd
    links = "no links"
    if peers is not None:
        secure = "plaintext" if peers.tls is None else "TLS with certificates"
        links = f"links at {peers.address}, {secure}"
    directory = "no etcd" if etcd is None else f"etcd at {', '.join(etcd.endpoints)}"
    return f"{fleet.server_id}: {links}; {directory}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"
