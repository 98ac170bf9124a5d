"""Clusters: hosts that can serve, and how to choose among them."""

from __future__ import annotations

__all__ = [
    "CircuitBreakerConfig",
    "ClusterConfig",
    "ClusterManagerConfig",
    "DnsResolversConfig",
    "HostConfig",
    "Http2HostOptions",
    "KeepaliveConfig",
]

from collections.abc import Mapping
from typing import Annotated, Any, Final, Literal

from pydantic import AfterValidator, ValidationInfo, field_validator, model_validator

from reverseproxy.config._balancing import LbConfig, SlowStartConfig, SubsetConfig
from reverseproxy.config._base import Model, key
from reverseproxy.config._health import HealthCheckConfig, OutlierDetectionConfig
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._values import Address, Bool, Free, Int, Span, Text, UInt, between, or_default, quote
from reverseproxy.wire.proxy_protocol import PROXY_VERSIONS

DNS_KEYS: Final = (
    "dns_refresh_rate",
    "respect_dns_ttl",
    "dns_lookup_family",
    "dns_resolvers",
    "dns_resolver_file",
    "dns_resolver_port",
)
"""The keys of a cluster that say how names of its hosts are resolved."""

_DEFAULT_PENDING: Final = 1024

_CONNECT_TIMEOUT: Final = 10.0


def _port(text: str) -> str:
    if text and not (text.isascii() and text.isdecimal() and 0 < int(text) <= 65535):
        raise ValueError(
            f'{quote(text)} is not a port; write a number from 1 to 65535 as a text, such as "53"'
        )
    return text


PortText = Annotated[Text, AfterValidator(_port)]


class HostConfig(Model):
    """A host to dial."""

    address: Address = key(
        "",
        'Where it listens: "host:port", "[v6]:port", "unix:/path" or "/path". In a cluster of type '
        "STRICT_DNS the port may be left out, and is 80 then.",
        required=True,
    )
    hostname: Text = key("", "A name for humans.")
    weight: UInt = key(0, "Its share of requests, from 1 to 128; a number outside is brought inside.")
    metadata: Mapping[str, Text] = key(
        {}, 'Labels, as {"filter_metadata": {"mosn.lb": {"name": "value"}}}. Values are texts.'
    )
    tls_disable: Bool = key(False, "Whether to dial it in plaintext although its cluster uses TLS.")


class CircuitBreakerConfig(Model):
    """Limits of a cluster."""

    max_connections: UInt = key(
        0,
        "The most connections to one host that is dialled, and the most sessions of tcp_proxy in the whole "
        "cluster; 0 means any number. Where each request takes a connection, requests beyond it wait.",
    )
    max_pending_requests: UInt = key(
        0, f"How many requests may wait for a host that is free; 0 means {_DEFAULT_PENDING}."
    )
    max_requests: UInt = key(0, "How many requests may be under way at once; 0 means any number.")
    max_retries: UInt = key(0, "How many retries may be under way at once; 0 means any number.")


class KeepaliveConfig(Model):
    """Heartbeats: PING in HTTP/2, and what RPC protocols have."""

    interval: Span = key(0.0, "The time between two of them on every connection; 0 means none.")
    timeout: Annotated[Span, or_default(1.0)] = key(1.0, "The time for an answer; 0 means 1 s.")


class Http2HostOptions(Model):
    """How much may be on its way from a host that is spoken to in HTTP/2."""

    initial_window_size: Annotated[Int, between(1024, 64 * 1024 * 1024)] = key(
        262144,
        "How many bytes of an answer a host may send that are not passed on yet, to begin with. A window "
        "grows while an answer that comes from far away is passed on as fast as it comes.",
        ours=True,
    )
    max_window_size: Annotated[Int, between(1024, 2**30)] = key(
        2**26, "To how many bytes a window may grow; initial_window_size, if that is more.", ours=True
    )
    max_window_growth: Annotated[Int, between(0, 2**30)] = key(
        2**26,
        "By how many bytes the windows of all requests of one connection may grow together; 0 means that "
        "they stay as they are.",
        ours=True,
    )


def _with_port(host: Any) -> Any:
    """Give a host of a STRICT_DNS cluster the port that MOSN assumes, if it has none."""
    address = host.get("address") if isinstance(host, dict) else None
    if not isinstance(address, str) or not address or address.startswith(("unix:", "/")):
        return host
    bare = address.endswith("]") if address.startswith("[") else ":" not in address
    return {**host, "address": f"{address}:80"} if bare else host


class DnsResolversConfig(Model):
    """Name servers to ask instead of the system's resolver."""

    servers: tuple[Text, ...] = key(
        (), "IP addresses of the name servers, in the order in which to ask them."
    )
    search: tuple[Text, ...] = key((), "Domains to look for names in.")
    port: PortText = key("53", "The port of the name servers.")
    ndots: UInt = key(1, "Names with fewer dots are looked for in the search domains first.")
    timeout: Annotated[UInt, or_default(2)] = key(2, "Seconds until a server is asked again; 0 means 2.")
    attempts: Annotated[UInt, or_default(2)] = key(2, "How often each server is asked; 0 means 2.")


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
        "The kind of cluster. STRICT_DNS makes hosts of all addresses that the names of the hosts given "
        "have; the others are all the same here: the hosts given. Tunnel agents may join any.",
        choices=("SIMPLE", "STATIC", "DYNAMIC", "EDS", "STRICT_DNS"),
        later={"ORIGINAL_DST": "there is no transparent proxying"},
        fallback="SIMPLE",
    )
    sub_type: Text = key(
        "",
        "A subordinate type.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN, where nothing looks at it",
    )
    lb_type: Text = key(
        "LB_ROUNDROBIN",
        "How to choose a host.",
        choices=(
            "LB_RANDOM",
            "LB_ROUNDROBIN",
            "LB_WEIGHTED_ROUNDROBIN",
            "LB_LEAST_REQUEST",
            "LB_LEAST_CONNECTION",
            "LB_PEAK_EWMA",
            "LB_MAGLEV",
            "LB_REQUEST_ROUNDROBIN",
        ),
        later={"LB_ORIGINAL_DST": "there is no transparent proxying"},
        fallback="LB_ROUNDROBIN",
    )
    max_request_per_conn: UInt = key(
        1024,
        "After how many requests to close a connection to a host that is dialled; 0, and an absent key, mean "
        "never.",
    )
    mark: UInt = key(
        0,
        "A mark to set on connections (SO_MARK).",
        acted=False,
        why="not acted on: to mark connections takes a privilege that this process gives up",
    )
    conn_buffer_limit_bytes: UInt = key(
        16384,
        "The size of connection buffers.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN; what waits for a peer is bounded for each request",
    )
    circuit_breakers: tuple[CircuitBreakerConfig, ...] = key((), "Limits; only the first element counts.")
    health_check: HealthCheckConfig = key(HealthCheckConfig(), "Active health checks.")
    outlier_detection: OutlierDetectionConfig = key(
        OutlierDetectionConfig(), "When hosts that fail requests are left out for a while.", ours=True
    )
    spec: Free = key(
        None,
        "Subscriptions to service registries.",
        acted=False,
        why="not acted on: there are no service registries; give hosts, or let agents join",
    )
    lb_subset_config: SubsetConfig = key(SubsetConfig(), "Subsets of hosts by metadata.")
    original_dst_lb_config: Free = key(
        None,
        "Options of LB_ORIGINAL_DST.",
        acted=False,
        why="not acted on, as LB_ORIGINAL_DST is not: there is no transparent proxying",
    )
    cluster_manager_tls: Bool = key(
        False, "Whether to use the cluster manager's tls_context instead of the cluster's own."
    )
    tls_context: TlsContextConfig | None = key(
        None,
        "TLS towards the hosts given here. Connections of tunnel agents have their listener's.",
        protects=True,
    )
    hosts: tuple[HostConfig, ...] = key((), "Hosts to dial.")
    proxy_protocol: Literal["", "v1", "v2"] = key(
        "",
        "The version of the PROXY protocol header with which each connection to the hosts given here begins, "
        "before TLS, so that they know who the client is. No two clients share a connection then. Hosts that "
        "tunnel agents bring get none. Empty means none.",
        choices=PROXY_VERSIONS,
        ours=True,
    )
    connect_timeout: Annotated[Span, or_default(_CONNECT_TIMEOUT)] = key(
        _CONNECT_TIMEOUT,
        "How long dialling a host may take, and how long a request waits for one; 0 means 10 s.",
    )
    required: Bool = key(
        False, "Whether /readyz of the admin API waits until the cluster has a healthy host.", ours=True
    )
    first_host_wait: Span = key(
        30.0,
        "Without hosts, where a listener takes tunnels: how long after the start requests wait for the first "
        "agent to join, each for connect_timeout at the most, as they do for one that was lost. 0s to answer "
        "them at once.",
        ours=True,
    )
    idle_timeout: Span | None = key(
        None,
        "After how long without a request a pooled connection to a host is closed. Absent or 0 means never.",
    )
    max_response_header_size: Annotated[Int, between(1024, 16 * 1024 * 1024)] = key(
        65536,
        "The most bytes that the head of a host's response may have; in HTTP/2 of names, of values, and 32 "
        "for each field. Agents have 16 KiB more, for what they add.",
        ours=True,
    )
    max_response_headers_count: Annotated[Int, between(1, 10_000)] = key(
        100,
        "The most fields that the head of a host's response may have, and its trailers. Agents have 32 more.",
        ours=True,
    )
    keepalive: KeepaliveConfig = key(
        KeepaliveConfig(), "Asking hosts whether they are alive, where one connection carries many requests."
    )
    http2_windows: Http2HostOptions = key(
        Http2HostOptions(), "Windows of HTTP/2 towards the hosts.", ours=True
    )
    lbconfig: LbConfig = key(LbConfig(), "Options of the load balancer.")
    dns_refresh_rate: Annotated[Span, or_default(5.0)] = key(
        5.0, "STRICT_DNS: the time between two lookups of a name; 0 means 5 s."
    )
    respect_dns_ttl: Bool = key(
        False,
        "STRICT_DNS: whether to look a name up again when its addresses expire instead. Name servers are "
        "then asked directly, because the system's resolver does not tell.",
    )
    dns_lookup_family: Text = key(
        "V4_ONLY", "STRICT_DNS: the addresses to take.", choices=("V4_ONLY", "V6_ONLY"), fallback="V4_ONLY"
    )
    dns_resolvers: DnsResolversConfig = key(
        DnsResolversConfig(), "STRICT_DNS: name servers to ask instead of the system's resolver."
    )
    dns_resolver_file: Text = key(
        "", "STRICT_DNS: a file like /etc/resolv.conf with such name servers; dns_resolvers goes first."
    )
    dns_resolver_port: PortText = key("", "STRICT_DNS: the port of name servers in a file; empty means 53.")
    slow_start: SlowStartConfig = key(SlowStartConfig(), "How new hosts warm up.")
    cluster_pool_enable: Bool = key(
        False, "Whether this cluster has connection pools of its own. Here that is always so."
    )

    @model_validator(mode="before")
    @classmethod
    def _default_port(cls, data: Any) -> Any:
        if not isinstance(data, dict) or data.get("type") != "STRICT_DNS":
            return data
        hosts = data.get("hosts")
        return {**data, "hosts": [_with_port(h) for h in hosts]} if isinstance(hosts, list | tuple) else data

    @field_validator("tls_context")
    @classmethod
    def _off_is_none(cls, value: TlsContextConfig | None) -> TlsContextConfig | None:
        return enabled(value)

    @property
    def requests_per_connection(self) -> int:
        """
        After how many requests to close a connection; 0 for never.

        MOSN says 1,024 and does nothing of the kind, so only a number that the
        document gives counts.
        """
        return self.max_request_per_conn if "max_request_per_conn" in self.model_fields_set else 0

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
        False, "Whether each cluster has connection pools of its own. Here that is always so."
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
