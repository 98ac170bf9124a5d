"""
Five log lines about a started process.

Its listeners and their purposes, which agents may join, what other machines can reach,
where there is TLS, and where the admin API is.  There is nothing secret in them.
"""

from __future__ import annotations

__all__ = ["startup_lines"]

from collections.abc import Iterable
from typing import Final

from reverseproxy.addresses import is_loopback
from reverseproxy.config._values import split_address
from reverseproxy.config.models import (
    Config,
    ListenerConfig,
    ProxyConfig,
    TcpProxyConfig,
    TlsContextConfig,
    TunnelAgentConfig,
    TunnelConfig,
)

MOST: Final = 8
"""The most items of a kind that are named; the others are counted."""


def startup_lines(config: Config, admin: str | None = None) -> list[str]:
    """
    Describe a running configuration: always five lines.

    The addresses of listeners are logged when they are bound.

    @param admin: the bound address of the admin API, if it is known: the configured port may be 0.
    """
    bound = [listener for listener in config.server.listeners if listener.bind_port]
    return [
        f"listening: {_some(f'{each.name} ({_purpose(each)})' for each in bound)}",
        f"joining: {_joins(bound, config)}",
        f"open to the network: {_some([*(_open(each) for each in bound if _is_far(each)), *_links(config)])}",
        f"TLS: {_tls(bound, config)}",
        f"admin: {_admin(config, admin)}",
    ]


def _some(entries: Iterable[str], none: str = "nothing") -> str:
    found = list(entries)
    more = len(found) - MOST
    return ", ".join(found[:MOST]) + (f" and {more} more" if more > 0 else "") or none


def _purpose(listener: ListenerConfig) -> str:
    """Return the purpose of a listener."""
    for entry in listener.filter_chain.filters:
        match entry.config:
            case ProxyConfig() as proxy:
                return ", ".join(proxy.protocols)
            case TcpProxyConfig():
                return "TCP"
            case TunnelConfig():
                return "agents"
    return "closes connections"


def _tunnels(bound: list[ListenerConfig]) -> Iterable[tuple[ListenerConfig, TunnelConfig]]:
    for listener in bound:
        for entry in listener.filter_chain.filters:
            if isinstance(entry.config, TunnelConfig):
                yield listener, entry.config


def _joins(bound: list[ListenerConfig], config: Config) -> str:
    """Describe which agents may join, and which servers this process's agents join."""
    parts = [f"{listener.name} accepts {_who(listener, tunnel)}" for listener, tunnel in _tunnels(bound)]
    parts += [_dials(agent) for agent in config.agents if agent.enable]
    return "; ".join(parts[:MOST]) or "none"


def _who(listener: ListenerConfig, tunnel: TunnelConfig) -> str:
    policies = [tunnel.credential_policy, *tunnel.cluster_credential_policies.values()]
    names = " or ".join(dict.fromkeys(policy for policy in policies if policy))
    demands = [f"a credential of policy {names}"] if names else []
    if _certificates(listener.filter_chain.tls_contexts):
        demands.append("a client certificate")
    return f"agents with {' and '.join(demands)}" if demands else "any agent that can connect"


def _dials(agent: TunnelAgentConfig) -> str:
    servers = list(agent.server_list)
    lister = agent.dynamic_server_list_config.dynamic_server_lister
    if lister:
        servers.append(f"those that {lister} lists")
    number = agent.connection_num
    some = f"{agent.server_count} of " if agent.server_count else ""
    return (
        f"cluster {agent.cluster} of {some}{_some(servers, 'no server')}, over {number} "
        f"{'connection' if number == 1 else 'connections'} each"
    )


def _certificates(contexts: tuple[TlsContextConfig, ...]) -> bool:
    return bool(contexts) and all(each.verify_client and each.require_client_cert for each in contexts)


def _links(config: Config) -> list[str]:
    """Describe the listener for other servers of the fleet, if other machines can reach it."""
    peers = None if config.fleet is None else config.fleet.peers
    if peers is None or not peers.address or is_loopback(split_address(peers.address)[0]):
        return []
    return [f"{peers.address} (servers of the fleet, TLS with certificates)"]


def _is_far(listener: ListenerConfig) -> bool:
    """Return whether other machines can reach a listener."""
    if listener.network == "unix" or listener.address.startswith("unix:"):
        return False
    try:
        host, _ = split_address(listener.address)
    except ValueError:
        return False
    return not is_loopback(host)


def _open(listener: ListenerConfig) -> str:
    contexts = listener.filter_chain.tls_contexts
    if not contexts:
        return f"{listener.name} in plaintext"
    if listener.inspector:
        return f"{listener.name} in plaintext, too"
    return f"{listener.name} {'with client certificates' if _certificates(contexts) else 'over TLS'}"


def _tls(bound: list[ListenerConfig], config: Config) -> str:
    """Describe which connections are encrypted."""
    secure = [each.name for each in bound if each.filter_chain.tls_contexts]
    parts = [f"at {_some(secure)}" if secure else "at no listener"]
    agents = [each for each in config.agents if each.enable]
    if agents:
        plain = sum(each.tls_context is None for each in agents)
        some = "not to servers" if plain == len(agents) else "to some servers"
        parts.append(some if plain else "to servers")
    clusters = config.cluster_manager.clusters
    hosts = [each.name for each in clusters if each.tls_context is not None and each.hosts]
    if hosts:
        parts.append(f"to hosts of {_some(hosts)}")
    return ", ".join(parts)


def _admin(config: Config, bound: str | None) -> str:
    admin = config.admin
    if admin is None or not admin.bound:
        return "none"
    return f"at {bound if bound is not None and admin.bound.endswith(':0') else admin.bound}"
