"""Listeners, their filter chains and the filters."""

from __future__ import annotations

__all__ = [
    "FILTER_CONFIGS",
    "AccessLogConfig",
    "FilterChainConfig",
    "FilterConfig",
    "Http1Options",
    "ListenerConfig",
    "ProtocolOptions",
    "ProxyConfig",
    "TcpProxyConfig",
    "TcpRouteConfig",
    "TunnelConfig",
]

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, BeforeValidator, ValidationInfo, field_validator, model_validator

from reverseproxy.config._base import (
    Bool,
    Duration,
    Free,
    Int,
    Model,
    Nanoseconds,
    Text,
    UInt,
    key,
    split_address,
)
from reverseproxy.config._routers import RouterConfig
from reverseproxy.config._tls import TlsContextConfig


class Http1Options(Model):
    """
    Limits and habits of HTTP/1 on a listener.

    @ivar max_request_body_size: 0 for any size.
    """

    max_header_size: UInt = key(8192, "The most bytes that the head of a request may have.")
    max_request_body_size: UInt = key(
        0, "The most bytes that the body of a request may have; 0 means any number."
    )
    via: Text = key(
        "",
        "A name for this proxy that is added to the Via header; empty means that Via is left alone.",
        ours=True,
    )
    x_forwarded: Literal["off", "append", "replace"] = key(
        "off",
        "What to do with the X-Forwarded-For, -Proto and -Host headers: leave them alone (off), add to what came "
        "(append), or set them anew (replace).",
        ours=True,
    )


class ProtocolOptions(Model):
    """Options by protocol; with a single protocol its options may also stand here directly."""

    http1: Http1Options = key(Http1Options(), "Options of HTTP/1.", name="Http1")
    http2: Free = key(None, "Options of HTTP/2.", name="Http2", acted=False)
    bolt: Free = key(None, "Options of bolt.", acted=False)
    sub_protocol: Text = key("", 'The protocols that "X" as downstream_protocol stands for.')


class ProxyConfig(Model):
    """
    Requests: parse them, route them, forward them.

    @ivar router_config_name: a L{RouterConfig} of the same configuration.
    """

    name: Text = key("", "A name for humans.")
    downstream_protocol: Text = key(..., 'What clients speak: "Http1".')
    upstream_protocol: Text = key(
        "",
        "What hosts speak.",
        acted=False,
        why="MOSN does not act on it either; hosts are spoken to as the client speaks",
        harmless=("Http1",),
    )
    router_config_name: Text = key("", "The router that decides on each request.")
    router_handler_name: Text = key("", "An extension that makes routes.", acted=False)
    fallback_for_unknown_protocol: Bool = key(
        False, "Whether the next filter takes what this one can't read.", acted=False
    )
    validate_clusters: Free = key(
        None, "Whether clusters must exist.", acted=False, why="MOSN does not act on it either"
    )
    concurrency_num: Int = key(0, "How many requests run at once.", acted=False)
    extend_config: ProtocolOptions = key(ProtocolOptions(), "Options by protocol.")

    @property
    def http1(self) -> Http1Options:
        """The options of HTTP/1."""
        return self.extend_config.http1


class TcpRouteConfig(Model):
    """A cluster for some connections; empty lists match none."""

    cluster: Text = key("", "The cluster.")
    source_addrs: Free = key(
        None, "Where connections come from: [{Address, Length}].", name="SourceAddrs", acted=False
    )
    destination_addrs: Free = key(
        None, "Where connections go to: [{Address, Length}].", name="DestinationAddrs", acted=False
    )
    source_port: Text = key("", 'Ports, such as "80,1000-2000".', name="SourcePort", acted=False)
    destination_port: Text = key("", "Ports, in the same way.", name="DestinationPort", acted=False)


class TcpProxyConfig(Model):
    """Bytes: forward connections as they are."""

    stat_prefix: Text = key("", "A name for metrics.", acted=False)
    cluster: Text = key("", "The cluster that connections go to.")
    idle_timeout: Nanoseconds | None = key(
        None,
        "After how long without a byte in either direction a connection is closed: whole nanoseconds as in MOSN, "
        'or a duration such as "5m", which is ours. Absent or 0 means never.',
    )
    max_connect_attempts: UInt = key(
        0,
        "How many hosts to try.",
        acted=False,
        why="MOSN does not act on it either; up to 3 hosts are tried",
    )
    routes: tuple[TcpRouteConfig, ...] = key(
        (), "Clusters by address, for connections if cluster is empty.", acted=False
    )


class TunnelConfig(Model):
    """
    Take connections that tunnel agents dial, and make them hosts of clusters.

    All keys are ours: MOSN's tunnel filter has none.
    """

    credential_policy: Text = key(
        "", "The credential policy demanded of every agent of this listener; empty means none.", ours=True
    )
    cluster_credential_policies: Mapping[str, Text] = key(
        {}, "The credential policy demanded of agents that join a cluster, by cluster.", ours=True
    )
    validators: Mapping[str, Mapping[str, Any]] = key(
        {}, "Options of the validators, by credential policy.", ours=True, secret=True
    )
    handshake_timeout: Duration = key(15.0, "How long the handshake may take once it has begun.", ours=True)
    publish_delay: Duration = key(
        0.02,
        "How long after the handshake a connection is first used, because MOSN's agents can't take the answer and "
        "a request at once.",
        ours=True,
    )
    max_pending_connections: UInt = key(
        4096, "How many connections may be held that have not joined a cluster.", ours=True, ge=1
    )


FILTER_CONFIGS: Final[Mapping[str, type[Model]]] = {
    "proxy": ProxyConfig,
    "tcp_proxy": TcpProxyConfig,
    "tunnel": TunnelConfig,
    "connection_manager": RouterConfig,
}
"""The model of each network filter's configuration, by the filter's type."""


class FilterConfig(Model):
    """
    A network filter.

    @ivar config: a model as L{FILTER_CONFIGS} has it for C{type}; L{None} for
        other types, which are skipped.
    """

    type: Text = key(
        "", f"The kind of filter: {', '.join(FILTER_CONFIGS)}; others are skipped with a warning."
    )
    config: ProxyConfig | TcpProxyConfig | TunnelConfig | RouterConfig | None = key(
        None, "Options of the filter.", validate_default=True
    )

    @field_validator("config", mode="plain")
    @classmethod
    def _by_type(cls, value: Any, info: ValidationInfo) -> Any:
        model = FILTER_CONFIGS.get(info.data.get("type", ""))
        if model is None or isinstance(value, model):
            return value if model is not None else None
        return model.model_validate({} if value is None else value, context=info.context)


class FilterChainConfig(Model):
    """What happens on each connection of a listener."""

    match: Text = key("", "Which connections it is for.", acted=False)
    tls_context: TlsContextConfig | None = key(None, "TLS towards clients; absent or empty means plaintext.")
    tls_context_set: tuple[TlsContextConfig, ...] = key(
        (), "Instead of tls_context: several, of which each client's server name chooses one."
    )
    filters: tuple[FilterConfig, ...] = key((), "Network filters.")

    @property
    def tls_contexts(self) -> tuple[TlsContextConfig, ...]:
        """The TLS contexts that are on; none for plaintext."""
        contexts = self.tls_context_set or (self.tls_context,)
        return tuple(context for context in contexts if context is not None and context.status)


class AccessLogConfig(Model):
    """A log of requests or connections."""

    log_path: Text = key("", "The file, or stdout; empty means <listener>_access.log in the log directory.")
    log_format: Text = key("", "The format; empty means MOSN's default.")


def _lower(value: Any) -> Any:
    return value.lower() if isinstance(value, str) else value


def _listen_address(text: str) -> str:
    """Demand an address to listen at; the host may be empty, the port 0."""
    if text and not text.startswith(("unix:", "/", "@")):
        split_address(text)
    return text


class ListenerConfig(Model):
    """
    Something that takes connections: at an address, or from a tunnel agent.

    @ivar name: never empty: the address if the document names it not.
    @ivar connection_idle_timeout: L{None} if absent; 0 for never.
    """

    address: Annotated[Text, AfterValidator(_listen_address)] = key(
        ..., 'Where to listen: "host:port", "[v6]:port", ":port", or a path if network is unix.'
    )
    name: Text = key("", "Its name, for logs and for tunnel agents; the address if absent.")
    type: Text = key("", 'For humans: "ingress" or "egress".')
    bind_port: Bool = key(
        False, "Whether to listen at the address. If false, the listener is served by tunnel agents only."
    )
    reuseport: Bool = key(False, "Whether several processes may listen at the same address (SO_REUSEPORT).")
    network: Annotated[Literal["tcp", "unix"], BeforeValidator(_lower)] = key(
        "tcp", "The kind of address: tcp or unix, in any case."
    )
    use_original_dst: Text = key("", "Transparent proxying: tproxy or redirect.", acted=False)
    access_logs: tuple[AccessLogConfig, ...] = key((), "Access logs.")
    listener_filters: Free = key(None, "Filters of accepted sockets.", acted=False)
    filter_chains: tuple[FilterChainConfig, ...] = key(
        (), "What happens on each connection: exactly one chain."
    )
    stream_filters: Free = key(None, "Filters of requests.", acted=False)
    inspector: Bool = key(
        False, "Whether to take plaintext too where TLS is on; the first byte tells them apart."
    )
    connection_idle_timeout: Duration | None = key(
        None, "After how long without a byte a connection is closed; 0 means never, absent 90 s."
    )
    default_read_buffer_size: Int = key(0, "The size of read buffers.", acted=False)

    @model_validator(mode="before")
    @classmethod
    def _default_name(cls, data: Any) -> Any:
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("address"), str):
            return {**data, "name": data["address"]}
        return data

    @property
    def filter_chain(self) -> FilterChainConfig:
        """The one filter chain."""
        return self.filter_chains[0]
