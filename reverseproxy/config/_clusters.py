"""Clusters: hosts that can serve, and how to choose among them."""

from __future__ import annotations

__all__ = [
    "CircuitBreakerConfig",
    "ClusterConfig",
    "ClusterManagerConfig",
    "HostConfig",
    "LbConfig",
]

from collections.abc import Mapping
from typing import Annotated, Final

from pydantic import AfterValidator, ValidationInfo, field_validator

from reverseproxy.config._base import Model, key
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._values import Address, Bool, Free, Number, Span, Text, UInt, or_default

_DEFAULT_PENDING: Final = 1024
_CONNECT_TIMEOUT: Final = 10.0


def _bias(value: float) -> float:
    if value < 0:
        raise ValueError(f"{value} is negative; write 0 or a number above it")
    return value


class HostConfig(Model):
    """A host to dial."""

    address: Address = key("", 'Where it listens: "host:port", "[v6]:port" or "unix:/path".', required=True)
    hostname: Text = key("", "A name for humans.")
    weight: UInt = key(0, "Its share of requests, from 1 to 128; a number outside is brought inside.")
    metadata: Mapping[str, Text] = key(
        {}, 'Labels, as {"filter_metadata": {"mosn.lb": {"name": "value"}}}. Values are texts.'
    )
    tls_disable: Bool = key(False, "Whether to dial it in plaintext although its cluster uses TLS.")


class CircuitBreakerConfig(Model):
    """Limits of a cluster."""

    max_connections: UInt = key(0, "The most connections to one host.", acted=False)
    max_pending_requests: UInt = key(
        0, f"How many requests may wait for a host that is free; 0 means {_DEFAULT_PENDING}."
    )
    max_requests: UInt = key(0, "How many requests may be under way at once; 0 means any number.")
    max_retries: UInt = key(0, "How many retries may be under way at once.", acted=False)


class LbConfig(Model):
    """Options of the load balancer."""

    choice_count: Annotated[UInt, or_default(2)] = key(
        2, "LB_LEAST_REQUEST: how many hosts are compared where all have the same weight; 0 means 2."
    )
    active_request_bias: Annotated[Number, AfterValidator(_bias)] = key(
        1.0,
        "LB_LEAST_REQUEST: how much requests under way count against a host's weight; 0 means not at all.",
    )
    client_error_bias: Number = key(0.0, "LB_PEAK_EWMA: how much client errors count.", acted=False)
    server_error_bias: Number = key(0.0, "LB_PEAK_EWMA: how much server errors count.", acted=False)


class ClusterConfig(Model):
    """
    A named group of hosts that can serve the same requests.

    Tunnel agents add hosts while the process runs; those given here stay beside
    them.

    @ivar tls_context: what to dial hosts with: its own context, or the cluster
        manager's if C{cluster_manager_tls} is set; L{None} for plaintext.
    """

    name: Text = key("", "The name that routes and tunnel agents refer to.", required=True)
    type: Text = key(
        "SIMPLE",
        "The kind of cluster. They are all the same here: the hosts given, and tunnel agents.",
        choices=("SIMPLE", "STATIC", "DYNAMIC", "EDS"),
        later=("STRICT_DNS", "ORIGINAL_DST"),
        fallback="SIMPLE",
    )
    sub_type: Text = key("", "A subordinate type.", acted=False, why="not acted on, as in MOSN")
    lb_type: Text = key(
        "LB_ROUNDROBIN",
        "How to choose a host.",
        choices=("LB_RANDOM", "LB_ROUNDROBIN", "LB_WEIGHTED_ROUNDROBIN", "LB_LEAST_REQUEST"),
        later=(
            "LB_LEAST_CONNECTION",
            "LB_MAGLEV",
            "LB_REQUEST_ROUNDROBIN",
            "LB_PEAK_EWMA",
            "LB_ORIGINAL_DST",
        ),
        fallback="LB_ROUNDROBIN",
    )
    max_request_per_conn: UInt = key(
        1024,
        "After how many requests to close a connection.",
        acted=False,
        why="not acted on, as in MOSN",
    )
    mark: UInt = key(0, "A mark to set on connections (SO_MARK).", acted=False)
    conn_buffer_limit_bytes: UInt = key(16384, "The size of connection buffers.", acted=False)
    circuit_breakers: tuple[CircuitBreakerConfig, ...] = key((), "Limits; only the first element counts.")
    health_check: Free = key(None, "Active health checks.", acted=False)
    spec: Free = key(None, "Subscriptions to service registries.", acted=False)
    lb_subset_config: Free = key(None, "Subsets of hosts by metadata.", acted=False)
    original_dst_lb_config: Free = key(None, "Options of LB_ORIGINAL_DST.", acted=False)
    cluster_manager_tls: Bool = key(
        False, "Whether to use the cluster manager's tls_context instead of the cluster's own."
    )
    tls_context: TlsContextConfig | None = key(
        None, "TLS towards the hosts given here. Connections of tunnel agents have their listener's."
    )
    hosts: tuple[HostConfig, ...] = key((), "Hosts to dial.")
    connect_timeout: Annotated[Span, or_default(_CONNECT_TIMEOUT)] = key(
        _CONNECT_TIMEOUT,
        "How long dialling a host may take, and how long a request waits for one; 0 means 10 s.",
    )
    idle_timeout: Span | None = key(
        None,
        "After how long without a request a pooled connection to a host is closed. Absent or 0 means never.",
    )
    keepalive: Free = key(None, "Heartbeats of RPC protocols: {interval, timeout}.", acted=False)
    lbconfig: LbConfig = key(LbConfig(), "Options of the load balancer.")
    dns_refresh_rate: Free = key(None, "How often STRICT_DNS resolves.", acted=False)
    respect_dns_ttl: Bool = key(False, "Whether STRICT_DNS keeps to the life time of answers.", acted=False)
    dns_lookup_family: Text = key("", "The addresses STRICT_DNS takes: V4_ONLY or V6_ONLY.", acted=False)
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
    cluster_pool_enable: Bool = key(
        False, "Whether each cluster has connection pools of its own.", acted=False
    )
    clusters: tuple[ClusterConfig, ...] = key((), "The clusters.")
    clusters_configs: Text = key(
        "",
        "Instead of clusters: a directory in which each *.json file holds one cluster.",
        directory_of="clusters",
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
