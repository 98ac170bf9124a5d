"""
The whole configuration as frozen models.

Attribute names are MOSN's keys; durations are float seconds.  What a key means
is in its description, which the generated reference shows as well.
"""

from __future__ import annotations

__all__ = [
    "FleetConfig",
    "PeerCertificateConfig",
    "PeersConfig",
    "AccessLogConfig",
    "AdminAddressConfig",
    "AdminCertificateConfig",
    "AdminConfig",
    "BoltOptions",
    "CheckConfig",
    "CidrConfig",
    "CircuitBreakerConfig",
    "ClusterConfig",
    "AgentRoutesConfig",
    "ClusterManagerConfig",
    "ClusterWeightConfig",
    "Config",
    "CookieHashConfig",
    "DirectResponseConfig",
    "DnsResolversConfig",
    "DynamicServerListConfig",
    "EtcdConfig",
    "ExtendConfig",
    "FaultAbortConfig",
    "FaultConfig",
    "FaultDelayConfig",
    "FilterChainConfig",
    "FilterConfig",
    "FlowActionConfig",
    "FlowControlConfig",
    "FlowRuleConfig",
    "HashPolicyConfig",
    "HeaderHashConfig",
    "HeaderMatcherConfig",
    "HeaderRuleConfig",
    "HeaderToAddConfig",
    "HeaderToMetadataConfig",
    "HeaderValueConfig",
    "HealthCheckConfig",
    "HostConfig",
    "Http1Options",
    "Http2HostOptions",
    "Http2Options",
    "HttpCheckConfig",
    "IpAccessConfig",
    "IpListConfig",
    "KeepaliveConfig",
    "LabelConfig",
    "LbConfig",
    "ListenerConfig",
    "MatchConfig",
    "MirrorFilterConfig",
    "MirrorPolicyConfig",
    "OutlierDetectionConfig",
    "PatternConfig",
    "PayloadLimitConfig",
    "PerFilterConfig",
    "PipeConfig",
    "ProtocolOptions",
    "ProxyConfig",
    "ProxyProtocolConfig",
    "RedirectConfig",
    "RegexRewriteConfig",
    "RetryPolicyConfig",
    "RouteActionConfig",
    "RouteAllowanceConfig",
    "RouteRequestConfig",
    "RouterConfig",
    "RouterRuleConfig",
    "RpcOptions",
    "ServerConfig",
    "SlowStartConfig",
    "SocketAddressConfig",
    "SourceIpHashConfig",
    "StatusRangeConfig",
    "StreamFilterConfig",
    "SubsetConfig",
    "TcpProxyConfig",
    "TcpRouteConfig",
    "TlsContextConfig",
    "TracingConfig",
    "TracingOptions",
    "TunnelAgentConfig",
    "TunnelConfig",
    "VariableMatcherConfig",
    "VirtualHostConfig",
    "WeightedClusterConfig",
]

from collections.abc import Iterator, Mapping
from typing import Annotated, Any, Final

from pydantic import PlainValidator, PrivateAttr

from reverseproxy.config._admin import (
    AdminAddressConfig,
    AdminCertificateConfig,
    AdminConfig,
    PipeConfig,
    SocketAddressConfig,
)
from reverseproxy.config._agent_routes import AgentRoutesConfig, RouteAllowanceConfig, RouteRequestConfig
from reverseproxy.config._agents import DynamicServerListConfig, ExtendConfig, TunnelAgentConfig
from reverseproxy.config._balancing import LbConfig, SlowStartConfig, SubsetConfig
from reverseproxy.config._base import Model, key
from reverseproxy.config._clusters import (
    CircuitBreakerConfig,
    ClusterConfig,
    ClusterManagerConfig,
    DnsResolversConfig,
    HostConfig,
    Http2HostOptions,
    KeepaliveConfig,
)
from reverseproxy.config._etcd import EtcdConfig
from reverseproxy.config._filters import (
    FaultAbortConfig,
    FaultConfig,
    FaultDelayConfig,
    HeaderRuleConfig,
    HeaderToMetadataConfig,
    IpAccessConfig,
    IpListConfig,
    LabelConfig,
    MirrorFilterConfig,
    PayloadLimitConfig,
    PerFilterConfig,
    StreamFilterConfig,
)
from reverseproxy.config._fleet import FleetConfig, PeerCertificateConfig, PeersConfig
from reverseproxy.config._flow_control import FlowActionConfig, FlowControlConfig, FlowRuleConfig
from reverseproxy.config._headers import HeaderMatcherConfig, HeaderToAddConfig, HeaderValueConfig
from reverseproxy.config._health import (
    CheckConfig,
    HealthCheckConfig,
    HttpCheckConfig,
    OutlierDetectionConfig,
    StatusRangeConfig,
)
from reverseproxy.config._listeners import (
    AccessLogConfig,
    FilterChainConfig,
    FilterConfig,
    ListenerConfig,
    ProxyProtocolConfig,
)
from reverseproxy.config._matches import MatchConfig, VariableMatcherConfig
from reverseproxy.config._proxies import (
    BoltOptions,
    Http1Options,
    Http2Options,
    ProtocolOptions,
    ProxyConfig,
    RpcOptions,
)
from reverseproxy.config._route_actions import (
    ClusterWeightConfig,
    CookieHashConfig,
    DirectResponseConfig,
    HashPolicyConfig,
    HeaderHashConfig,
    MirrorPolicyConfig,
    PatternConfig,
    RedirectConfig,
    RegexRewriteConfig,
    RetryPolicyConfig,
    RouteActionConfig,
    SourceIpHashConfig,
    WeightedClusterConfig,
)
from reverseproxy.config._routers import RouterConfig, RouterRuleConfig, VirtualHostConfig
from reverseproxy.config._tcp_proxy import CidrConfig, TcpProxyConfig, TcpRouteConfig
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._tracing import TracingConfig, TracingOptions
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import Bool, Free, Int, Span, Text, ValueKind, between, describe
from reverseproxy.problems import DOCUMENT, Key, Place

LOG_LEVELS: Final = ("TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL")


def _processor(value: Any) -> Any:
    """Require a number, a text with a number, or C{"auto"}."""
    if value == "auto" or (isinstance(value, int) and not isinstance(value, bool)):
        return value
    if isinstance(value, str) and value.isascii() and value.isdecimal():
        return int(value)
    raise ValueError(f'{describe(value)} is not a number of processors; write a number or "auto"')


Processor = Annotated[int | str, PlainValidator(_processor), ValueKind("number or text")]


class ServerConfig(Model):
    """The one server of a configuration."""

    mosn_server_name: Text = key("", "A name for humans.")
    default_log_path: Text = key("", 'The log: a file, or "stdout"; empty means standard output.')
    default_log_level: Text = key(
        "INFO", "The log level, in any case.", choices=LOG_LEVELS, any_case=True, fallback="INFO"
    )
    max_log_size_per_hour: Annotated[Int, between(0, 2**63 - 1)] = key(
        1_000_000,
        "The maximum number of bytes of log lines of INFO and above in an hour, of all processes together. "
        "Further lines are suppressed, and counted in the log. 0 means any number.",
        ours=True,
    )
    max_unfinished_size: Annotated[Int, between(0, 2**53)] = key(
        32 * 1024 * 1024,
        "The maximum number of bytes that each process buffers of clients' incomplete messages, of requests "
        "that wait for a host or its response, and of RPC responses that clients do not read. Beyond it, of "
        "the address with most of them the connection with most is closed. For agents, tunnel servers and "
        "hosts it is four times as much. 0 means any number.",
        ours=True,
    )
    tls_handshake_share: Annotated[Int, between(1, 100)] = key(
        50,
        "The maximum share of the time of each process for clients' TLS handshakes, in percent. Further "
        "handshakes are queued, and served round robin by address.",
        ours=True,
    )
    global_log_roller: Free = key(
        None,
        "When to rotate logs.",
        acted=False,
        why="not acted on: logs are rotated from outside; SIGUSR1 reopens them",
    )
    use_netpoll_mode: Bool = key(
        False,
        "Which event loop MOSN uses.",
        acted=False,
        quiet=True,
        why="not acted on: it is about event loops of Go, and there is one of Twisted's",
    )
    graceful_timeout: Span = key(
        30.0, "How long requests under way may take when the process stops.", nullable=False
    )
    processor: Processor = key(
        1, 'How many worker processes share the work: a number, or "auto" for one for each core.'
    )
    listeners: tuple[ListenerConfig, ...] = key((), "The listeners.")
    routers: tuple[RouterConfig, ...] = key((), "The routers.")


class Config(Model):
    """A whole configuration."""

    servers: tuple[ServerConfig, ...] = key((), "The server: exactly one.")
    cluster_manager: ClusterManagerConfig = key(ClusterManagerConfig(), "The clusters.")
    disable_upgrade: Bool = key(False, "Hot upgrade does not exist here, so this is always so.")
    close_graceful: Bool = key(
        False, "An old name of disable_upgrade. Hot upgrade does not exist here, so this is always so."
    )
    extends: tuple[ExtendConfig, ...] = key((), "Extensions: tunnel agents.")
    inherit_old_mosnconfig: Bool = key(
        False,
        "Take over the configuration of an old process.",
        acted=False,
        why="not acted on: there is no hot upgrade, so that a process has its own file alone",
    )
    fleet: FleetConfig | None = key(
        None, "Several servers, each of which reaches the agents of all of them.", ours=True
    )
    tracing: TracingConfig | None = key(
        None, "Distributed tracing. Without it, header fields of traces are passed on as they come."
    )
    metrics: Free = key(
        None,
        "Where metrics go.",
        acted=False,
        why="not acted on: metrics are where admin listens, at /metrics",
    )
    dynamic_resources: Free = key(
        None,
        "An xDS server to take configuration from.",
        spellings=("dynamicResources",),
        acted=False,
        why="not acted on: there is no xDS; the document is all of the configuration",
    )
    static_resources: Free = key(
        None,
        "What xDS needs from the start.",
        spellings=("staticResources",),
        acted=False,
        why="not acted on: there is no xDS; the document is all of the configuration",
    )
    node: Free = key(
        None,
        "How to present this process to an xDS server.",
        acted=False,
        why="not acted on: there is no xDS; the document is all of the configuration",
    )
    admin: AdminConfig | None = key(None, "The admin API: probes, metrics, and what one may ask and change.")
    pprof: Free = key(
        None,
        "Profiling over HTTP: {debug, port_value, endpoint}.",
        acted=False,
        why="not acted on: it is about profiles of Go; profilers of Python's attach from outside",
    )
    pid: Text = key(
        "",
        "A file to write the process id to.",
        acted=False,
        why="not acted on: twistd writes that file, where its option --pidfile says",
    )
    uds_dir: Text = key(
        "",
        "A directory for the sockets of hot upgrades.",
        acted=False,
        why="not acted on: there is no hot upgrade, so that a process has its own file alone",
    )
    plugin: Free = key(
        None, "MOSN plug-ins.", acted=False, why="not acted on: plug-ins are found as Twisted finds them"
    )
    third_part_codec: Free = key(
        None,
        "Third-party codecs.",
        acted=False,
        why="not acted on: protocols are added as plug-ins of Twisted",
    )
    wasm_global_plugins: Free = key(
        None,
        "WebAssembly plug-ins.",
        acted=False,
        why="not acted on: there is no WebAssembly, nor a filter that would run it",
    )

    _elsewhere: dict[tuple[Key, ...], Place] = PrivateAttr(default_factory=dict)

    @property
    def elsewhere(self) -> dict[tuple[Key, ...], Place]:
        """The places of values that the document has in files of their own."""
        return self._elsewhere

    @property
    def listening(self) -> tuple[ListenerConfig, ...]:
        """All listeners: those of the server, and the one for other servers of a fleet."""
        peers = None if self.fleet is None else self.fleet.peers
        return self.server.listeners if peers is None else (*self.server.listeners, peers.listener)

    @property
    def server(self) -> ServerConfig:
        """The one server."""
        return self.servers[0]

    @property
    def routers(self) -> Mapping[str, tuple[Place, RouterConfig]]:
        """
        The routers in use, by name, each with its place in the document.

        Of several with the same name the last is used, as in MOSN; the server's own routers come
        after those of C{connection_manager} filters.  Routers without a name are left out, as no
        filter can refer to them.
        """
        own, managed = (
            {
                router.router_config_name: (place, router)
                for place, router in routers
                if router.router_config_name
            }
            for routers in (self._own_routers(), self._managed_routers())
        )
        return {**own, **{name: entry for name, entry in managed.items() if name not in own}}

    def _own_routers(self) -> Iterator[tuple[Place, RouterConfig]]:
        for index, router in enumerate(self.server.routers):
            yield DOCUMENT / "servers" / 0 / "routers" / index, router

    def _managed_routers(self) -> Iterator[tuple[Place, RouterConfig]]:
        listeners = DOCUMENT / "servers" / 0 / "listeners"
        for index, listener in enumerate(self.server.listeners):
            filters = listeners / index / "filter_chains" / 0 / "filters"
            for number, each in enumerate(listener.filter_chain.filters):
                if isinstance(each.config, RouterConfig):
                    yield filters / number / "config", each.config

    @property
    def agents(self) -> tuple[TunnelAgentConfig, ...]:
        """All tunnel agents, whether enabled or not."""
        return tuple(
            extension.config for extension in self.extends if isinstance(extension.config, TunnelAgentConfig)
        )
