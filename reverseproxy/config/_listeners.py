"""Listeners, their filter chains and the filters."""

from __future__ import annotations

__all__ = ["AccessLogConfig", "FilterChainConfig", "FilterConfig", "ListenerConfig"]

from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    model_validator,
)

from reverseproxy.config._base import Model, TypedModel, key
from reverseproxy.config._filters import StreamFilterConfig
from reverseproxy.config._proxies import ProxyConfig
from reverseproxy.config._routers import RouterConfig
from reverseproxy.config._tcp_proxy import TcpProxyConfig
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import Bool, Free, Int, Span, Text, between, quote
from reverseproxy.config.networks import Believed

_NOT_THE_ONE_MEANT: Final = (
    "connections would be served by this listener, not by the one with the address that they were made to"
)


class FilterConfig(TypedModel):
    """
    A network filter.

    @ivar config: a model as C{config_by_type} has it for C{type}; L{None} for
        other types, which are skipped.
    """

    config_by_type: ClassVar = {
        "proxy": ProxyConfig,
        "tcp_proxy": TcpProxyConfig,
        "tunnel": TunnelConfig,
        "connection_manager": RouterConfig,
    }

    type: Text = key(
        "",
        "The kind of filter. connection_manager only defines a router.",
        required=True,
        choices=("proxy", "tcp_proxy", "tunnel", "connection_manager"),
        skipped={
            "fault_inject": "nothing is delayed",
            "grpc": "there are no servers of gRPC in this process",
            "udp_proxy": "there is no UDP",
        },
        strict=True,
    )
    config: ProxyConfig | TcpProxyConfig | TunnelConfig | RouterConfig | None = key(
        None, "Options of the filter, by its type.", validate_default=True
    )


class FilterChainConfig(Model):
    """What happens on each connection of a listener."""

    match: Text = key(
        "",
        "Which connections it is for.",
        acted=False,
        why="not acted on, as in MOSN: the one filter chain takes all connections",
    )
    tls_context: TlsContextConfig | None = key(
        None, "TLS towards clients; absent or empty means plaintext.", protects=True
    )
    tls_context_set: tuple[TlsContextConfig, ...] = key(
        (),
        "Instead of tls_context: several, among which the name that a client sends chooses.",
        protects=True,
    )
    filters: tuple[FilterConfig, ...] = key((), "Network filters.")

    @property
    def tls_contexts(self) -> tuple[TlsContextConfig, ...]:
        """The TLS contexts that are on; none for plaintext."""
        contexts = self.tls_context_set or (self.tls_context,)
        return tuple(context for context in contexts if context is not None and context.status)


class AccessLogConfig(Model):
    """A log of requests or connections."""

    log_path: Text = key(
        "",
        'The file, "stdout" or "stderr"; empty means <listener>_access.log in the working directory.',
    )
    log_format: Text = key(
        "",
        "The format of a line, in MOSN's syntax, or a word: text (for people), json, mosn (MOSN's default). "
        "Empty means MOSN's default with method, path, flags, agent and route behind it.",
    )


def _network(value: Any) -> Any:
    """Demand a kind of address, in any case."""
    if not isinstance(value, str):
        return value
    kind = value.lower() or "tcp"
    if kind not in ("tcp", "unix"):
        raise ValueError(f'{quote(value)} is not supported; choose "tcp" or "unix"')
    return kind


def _somebody(values: tuple[str, ...]) -> tuple[str, ...]:
    if not values:
        raise ValueError('is empty, so that no header would be accepted; write addresses, or "*"')
    return values


class ProxyProtocolConfig(Model):
    """Headers of PROXY protocol, version 1 or 2, by which load balancers say who the client is."""

    strict_keys = True

    trusted_proxies: Annotated[tuple[Believed, ...], AfterValidator(_somebody)] = key(
        (),
        "The addresses of load balancers, and ranges of them. Their connections have to begin with a header, "
        "and the client that it names counts as the one that has connected. Connections of others are taken "
        'as they are. Unix sockets are always trusted; "*" trusts every address.',
        required=True,
        ours=True,
    )


class ListenerConfig(Model):
    """
    Something that takes connections: at an address, or from a tunnel agent.

    @ivar name: never empty: the address if the document has no name.
    @ivar connection_idle_timeout: L{None} if absent; 0 for never.
    """

    address: Text = key(
        "",
        'Where to listen: "host:port", "[v6]:port" or ":port"; or a path if network is unix.',
        required=True,
    )
    name: Text = key("", "Its name, for logs and for tunnel agents; the address if absent.")
    type: Text = key("", 'For humans: "ingress" or "egress".')
    bind_port: Bool = key(
        False, "Whether to listen at the address. If false, connections come from tunnel agents only."
    )
    open_when_ready: Bool = key(
        False,
        "Whether clients are accepted only once each required cluster has a healthy host. Until then their "
        "connections are refused, so that they can try another server. A port that is taken over from "
        "another process, or comes from systemd, is open from the beginning.",
        ours=True,
    )
    reuseport: Bool = key(False, "Whether other processes may listen at the same address (SO_REUSEPORT).")
    network: Annotated[Literal["tcp", "unix"], BeforeValidator(_network)] = key(
        "tcp", 'The kind of address: "tcp" or "unix", in any case.'
    )
    use_original_dst: Text = key(
        "",
        'Transparent proxying: "tproxy" or "redirect".',
        acted=False,
        protects=True,
        why=f"there is no transparent proxying: {_NOT_THE_ONE_MEANT}",
    )
    access_logs: tuple[AccessLogConfig, ...] = key((), "Access logs.")
    proxy_protocol: ProxyProtocolConfig | None = key(
        None,
        "Whether load balancers in front of this listener say who the client is. It is for clients and for "
        "tunnel agents alike, and comes before TLS.",
        ours=True,
        protects=True,
    )
    listener_filters: Free = key(
        None,
        "Filters of accepted sockets.",
        acted=False,
        protects=True,
        why=f"there are no filters of accepted sockets, of which MOSN has original_dst: {_NOT_THE_ONE_MEANT}",
    )
    filter_chains: tuple[FilterChainConfig, ...] = key(
        (), "What happens on each connection: exactly one chain."
    )
    stream_filters: tuple[StreamFilterConfig, ...] = key(
        (),
        "Filters of requests, for proxy filters. Other filters have no requests, so that what protects can't "
        "stand beside them.",
        protects=True,
    )
    inspector: Bool = key(
        False, "Whether to take plaintext as well where TLS is on; the first byte tells them apart."
    )
    connection_idle_timeout: Span | None = key(
        None,
        "After how long a connection is closed on which nothing is under way: no request, and no response "
        "that is still being taken. 0 means never; absent 90 s, but never for connections of tunnel agents. "
        "If it is given, it also is the time in which tcp_proxy and upgraded requests must carry something, "
        "where there is no other for them.",
    )
    max_connections: Annotated[Int, between(0, 2**31 - 1)] = key(
        0,
        "The maximum number of connections in each process, without those of agents that have joined. For a "
        "further one, the oldest idle connection of the address with most connections is closed; if there "
        "is none, the new one is closed. 0 means as many as the process has descriptors for, which is the "
        "limit of all listeners together in any case.",
        ours=True,
    )
    max_connections_per_address: Annotated[Int, between(0, 2**31 - 1)] = key(
        0,
        "How many of these may come from one IPv4 address, or one /64 network of IPv6. 0 means any number: "
        "many clients may share an address.",
        ours=True,
    )
    default_read_buffer_size: Int = key(
        0,
        "The size of read buffers.",
        acted=False,
        quiet=True,
        why="not acted on: all connections are read into the same buffer",
    )

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("name") in (None, "") and isinstance(data.get("address"), str):
            return {**data, "name": data["address"]}
        return data

    @property
    def filter_chain(self) -> FilterChainConfig:
        """The one filter chain."""
        return self.filter_chains[0]
