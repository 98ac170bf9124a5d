"""Clusters: hosts that can serve, and how to choose among them."""

from __future__ import annotations

__all__ = [
    "CLUSTER_TYPES",
    "LB_ACTED_ON",
    "LB_KNOWN",
    "CircuitBreakerConfig",
    "ClusterConfig",
    "ClusterManagerConfig",
    "HostConfig",
    "LbConfig",
]

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, ValidationInfo, field_validator

from reverseproxy.config._base import Address, Bool, Duration, Free, Model, Number, Text, UInt, key
from reverseproxy.config._tls import TlsContextConfig, enabled

CLUSTER_TYPES: Final = ("SIMPLE", "STATIC", "DYNAMIC", "EDS", "STRICT_DNS", "ORIGINAL_DST")
LB_ACTED_ON: Final = ("LB_RANDOM", "LB_ROUNDROBIN", "LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST")
LB_KNOWN: Final = (
    *LB_ACTED_ON,
    "LB_LEAST_CONNECTION",
    "LB_MAGLEV",
    "LB_REQUEST_ROUNDROBIN",
    "LB_PEAK_EWMA",
    "LB_ORIGINAL_DST",
)

_DEFAULT_PENDING: Final = 1024
_ALSO_UNUSED: Final = "MOSN does not act on it either"


def _lb_metadata(value: Any) -> Any:
    """Reach into C{{"filter_metadata": {"mosn.lb": {...}}}}, MOSN's wrapping of metadata."""
    if isinstance(value, dict) and set(value) == {"filter_metadata"}:
        value = value["filter_metadata"]
        if isinstance(value, dict) and set(value) <= {"mosn.lb"}:
            value = value.get("mosn.lb", {})
    return value


class HostConfig(Model):
    """A host to dial."""

    address: Address = key(..., 'Where it listens: "host:port", "[v6]:port" or "unix:/path".')
    hostname: Text = key("", "A name for humans.")
    weight: UInt = key(0, "Its share of requests, from 1 to 128; values outside are brought inside, 0 is 1.")
    metadata: Annotated[Mapping[str, Text], BeforeValidator(_lb_metadata)] = key(
        {}, 'Labels, as {"filter_metadata": {"mosn.lb": {"name": "value"}}}.'
    )
    tls_disable: Bool = key(False, "Whether to dial it in plaintext although its cluster uses TLS.")


class CircuitBreakerConfig(Model):
    """
    Limits of a cluster.

    @ivar max_pending_requests: how many requests may wait for a host.
    """

    max_connections: UInt = key(0, "The most connections to one host.", acted=False)
    max_pending_requests: UInt = key(
        0, f"How many requests may wait for a host that is free; 0 means {_DEFAULT_PENDING}."
    )
    max_requests: UInt = key(0, "How many requests may be under way at once; 0 means any number.")
    max_retries: UInt = key(0, "How many retries may be under way at once.", acted=False)


class LbConfig(Model):
    """Options of the load balancer."""

    choice_count: UInt = key(2, "LB_LEAST_REQUEST: how many hosts are compared, if all have the same weight.")
    active_request_bias: Number = key(
        1.0,
        "LB_LEAST_REQUEST: how much requests under way count against a host's weight; 0 means not at all.",
    )
    client_error_bias: Number = key(0.0, "LB_PEAK_EWMA: how much client errors count.", acted=False)
    server_error_bias: Number = key(0.0, "LB_PEAK_EWMA: how much server errors count.", acted=False)


class ClusterConfig(Model):
    """
    A named group of hosts that can serve the same requests.

    Tunnel agents add hosts at run time; static ones stay beside them.

    @ivar tls_context: what to dial hosts with: its own context, or the cluster
        manager's if C{cluster_manager_tls} is set; L{None} for plaintext.
    """

    name: Text = key(..., "The name that routes and tunnel agents refer to.")
    type: Text = key(
        "SIMPLE", "SIMPLE, STATIC, DYNAMIC and EDS are all the same: the hosts given here, and tunnel agents."
    )
    sub_type: Text = key("", "A subordinate type.", acted=False, why=_ALSO_UNUSED)
    lb_type: Text = key("LB_ROUNDROBIN", f"How to choose a host: {', '.join(LB_ACTED_ON)}.")
    max_request_per_conn: UInt = key(
        1024,
        "After how many requests to close a connection.",
        acted=False,
        why="MOSN does not enforce it either",
    )
    mark: UInt = key(0, "A mark to set on connections (SO_MARK).", acted=False)
    conn_buffer_limit_bytes: UInt = key(16384, "The size of connection buffers.", acted=False)
    circuit_breakers: tuple[CircuitBreakerConfig, ...] = key((), "Limits; only the first element counts.")
    health_check: Free = key(None, "Active health checks.", acted=False)
    spec: Free = key(None, "Subscriptions to service registries.", acted=False)
    lb_subset_config: Free = key(None, "Subsets of hosts by metadata.", acted=False)
    original_dst_lb_config: Free = key(None, "Options of LB_ORIGINAL_DST.", acted=False)
    cluster_manager_tls: Bool = key(False, "Whether to use the cluster manager's tls_context.")
    tls_context: TlsContextConfig | None = key(None, "TLS towards the hosts. Not applied to tunnel agents.")
    hosts: tuple[HostConfig, ...] = key((), "Hosts to dial.")
    connect_timeout: Duration = key(10.0, "How long dialling a host may take.")
    idle_timeout: Duration | None = key(
        None, "After how long without a request a pooled connection to a host is closed; absent means never."
    )
    keepalive: Free = key(None, "Heartbeats of RPC protocols.", acted=False)
    lbconfig: LbConfig = key(LbConfig(), "Options of the load balancer.")
    dns_refresh_rate: Free = key(None, "How often STRICT_DNS resolves.", acted=False)
    respect_dns_ttl: Bool = key(False, "Whether STRICT_DNS keeps to the life time of answers.", acted=False)
    dns_lookup_family: Text = key("", "Which addresses STRICT_DNS takes: V4_ONLY, V6_ONLY.", acted=False)
    dns_resolvers: Free = key(None, "Name servers for STRICT_DNS.", acted=False)
    dns_resolver_file: Text = key("", "A resolv.conf for STRICT_DNS.", acted=False)
    dns_resolver_port: Text = key("", "The port of name servers for STRICT_DNS.", acted=False)
    slow_start: Free = key(None, "Let new hosts warm up.", acted=False)
    cluster_pool_enable: Bool = key(
        False, "Whether this cluster has connection pools of its own.", acted=False
    )

    @field_validator("tls_context")
    @classmethod
    def _off_is_none(cls, value: TlsContextConfig | None) -> TlsContextConfig | None:
        return enabled(value)

    @property
    def limits(self) -> CircuitBreakerConfig:
        """The circuit breaker that counts: the first one, or one without limits."""
        return self.circuit_breakers[0] if self.circuit_breakers else CircuitBreakerConfig()

    @property
    def max_pending_requests(self) -> int:
        """How many requests may wait for a free host; never unlimited."""
        return self.limits.max_pending_requests or _DEFAULT_PENDING

    @property
    def max_requests(self) -> int:
        """How many requests may be under way at once; 0 for any number."""
        return self.limits.max_requests


class ClusterManagerConfig(Model):
    """
    All clusters.

    @ivar clusters: those of the document, or of the directory that
        C{clusters_configs} names.
    """

    tls_context: TlsContextConfig | None = key(None, "TLS for clusters that set cluster_manager_tls.")
    cluster_pool_enable: Bool = key(False, "Whether each cluster has its own connection pools.", acted=False)
    clusters: tuple[ClusterConfig, ...] = key((), "The clusters.")
    clusters_configs: Text = key(
        "", "Instead of clusters: a directory in which each *.json file holds one cluster."
    )

    @field_validator("tls_context")
    @classmethod
    def _off_is_none(cls, value: TlsContextConfig | None) -> TlsContextConfig | None:
        return enabled(value)

    @field_validator("clusters")
    @classmethod
    def _share_tls(
        cls, clusters: tuple[ClusterConfig, ...], info: ValidationInfo
    ) -> tuple[ClusterConfig, ...]:
        shared = info.data.get("tls_context")
        return tuple(
            cluster.model_copy(update={"tls_context": shared}) if cluster.cluster_manager_tls else cluster
            for cluster in clusters
        )
