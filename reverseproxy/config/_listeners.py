"""Listeners, their filter chains and the filters."""

from __future__ import annotations

__all__ = [
    "UPSTREAM_PROTOCOLS",
    "UPSTREAM_UNUSED",
    "AccessLogConfig",
    "BoltOptions",
    "CidrConfig",
    "FilterChainConfig",
    "FilterConfig",
    "Http1Options",
    "Http2Options",
    "HttpOptions",
    "ListenerConfig",
    "ProtocolOptions",
    "ProxyConfig",
    "RpcOptions",
    "TcpProxyConfig",
    "TcpRouteConfig",
    "TunnelConfig",
]

from collections.abc import Mapping
from ipaddress import ip_address
from typing import Annotated, Any, ClassVar, Final, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)

from reverseproxy.config._agent_routes import AgentRoutesConfig
from reverseproxy.config._base import Model, TypedModel, key
from reverseproxy.config._filters import StreamFilterConfig
from reverseproxy.config._routers import RouterConfig
from reverseproxy.config._streams import longest_answer, longest_silence, most_growth, most_on_the_way
from reverseproxy.config._tls import TlsContextConfig
from reverseproxy.config._values import (
    Bool,
    Free,
    Int,
    Interval,
    Kind,
    Nanoseconds,
    Span,
    Text,
    UInt,
    between,
    describe,
    or_default,
    quote,
)
from reverseproxy.config.networks import EVERYBODY, IpRange
from reverseproxy.wire.proxy_protocol import PROXY_VERSIONS

_HEADER_SIZE: Final = 8192
_FRAME_SIZE: Final = 16 * 1024 * 1024

STREAM_IDLE: Final = 300.0
"""Seconds without a byte after which a request is broken off."""
_NOT_THE_ONE_MEANT: Final = (
    "connections would be served by this listener, not by the one with the address that they were made to"
)

UPSTREAM_PROTOCOLS: Final = ("Auto", "Http1", "Http2", "X", "bolt", "boltv2", "dubbo")
UPSTREAM_UNUSED: Final = "not acted on, as in MOSN; hosts are spoken to as the client speaks"


class HttpOptions(Model):
    """What is the same for every version of HTTP."""

    max_request_body_size: UInt = key(
        0, "The most bytes that the body of a request may have; 0 means any number.", protects=True
    )
    max_headers_count: Annotated[Int, between(1, 10_000)] = key(
        100,
        "The most fields that the head of a request may have, and its trailers. On connections of tunnel "
        "agents there may be 32 more, for what the server adds.",
        ours=True,
    )
    via: Text = key(
        "",
        "A name for this proxy that is added to the Via header; empty means that Via is left alone.",
        ours=True,
    )
    x_forwarded: Literal["off", "append", "replace"] = key(
        "off",
        'What to do with the headers X-Forwarded-For, -Proto and -Host: add nothing to what came ("off"), '
        'add to it ("append"), or set them anew ("replace"). Of a client that is not believed nothing has '
        "come; see trusted_proxies.",
        ours=True,
    )


class Http1Options(HttpOptions):
    """Limits and habits of HTTP/1."""

    max_header_size: Annotated[UInt, or_default(_HEADER_SIZE)] = key(
        _HEADER_SIZE,
        f"The most bytes that the head of a request may have; 0 means {_HEADER_SIZE}. On connections of "
        "tunnel agents there may be 16 KiB more, for what the server adds, and without this key 80 KiB in "
        "all, as the server may have taken it in HTTP/2.",
    )


class Http2Options(HttpOptions):
    """Limits and habits of HTTP/2."""

    http2_use_stream: Bool = key(
        False,
        "Whether bodies are passed on as they come. They always are.",
        acted=False,
        quiet=True,
        why="not acted on; bodies are always passed on as they come, as MOSN does if this is true",
        harmless=(True,),
    )
    max_request_body_size: UInt = key(
        0, "The most bytes that the body of a request may have; 0 means any number.", ours=True, protects=True
    )
    max_concurrent_streams: Annotated[Int, between(1, 10_000)] = key(
        100, "How many requests of one connection may be under way; further ones are refused.", ours=True
    )
    max_header_list_size: Annotated[Int, between(1024, 1024 * 1024)] = key(
        65536,
        "The most bytes that the head of a request may have: of names, of values, and 32 for each field. On "
        "connections of tunnel agents there may be some 20 KiB more, for what the server adds.",
        ours=True,
    )
    initial_window_size: Annotated[Int, between(1024, 64 * 1024 * 1024)] = key(
        262144,
        "How many bytes of a request's body a client may send that are not passed on yet, to begin with. A "
        "window grows while a body that comes from far away is passed on as fast as it comes.",
        ours=True,
    )
    max_window_size: Annotated[Int, between(1024, 2**30)] = key(
        2**26,
        "To how many bytes a window may grow; initial_window_size, if that is more. What a client sends in "
        "a round trip has to fit in three quarters of it: 48 MiB are 250 MB/s over 200 ms.",
        ours=True,
    )
    max_window_growth: Annotated[Int, between(0, 2**30)] = key(
        2**26,
        "By how many bytes the windows of all requests of one connection may grow together; 0 means that "
        "they stay as they are.",
        ours=True,
    )
    max_resets: Annotated[Int, between(10, 1_000_000)] = key(
        200,
        "How many requests of one connection may be broken off in a row, by the client or for its "
        "mistakes. 20 more are allowed every second, and one for each that is completed; a client beyond "
        "that loses its connection.",
        ours=True,
    )
    max_control_frames: Annotated[Int, between(10, 10_000_000)] = key(
        1000,
        "How many frames that serve no request (such as PING, SETTINGS and PRIORITY) a client may send in "
        "a row. 50 more are allowed every second, and some for each frame that does; a client beyond that "
        "loses its connection.",
        ours=True,
    )


class RpcOptions(Model):
    """Limits of RPC protocols."""

    max_frame_size: Annotated[Int, between(1024, 2**30)] = key(
        _FRAME_SIZE,
        "The most bytes that a request or a response may have. On connections of tunnel agents there may be "
        "16 KiB more, for what the other end adds.",
        ours=True,
    )


class BoltOptions(RpcOptions):
    """Limits and habits of bolt and boltv2."""

    enable_bolt_goaway: Bool = key(
        False,
        "Whether to tell clients that the process is stopping, so that they send further requests elsewhere. "
        "Clients must know what that means.",
    )


class ProtocolOptions(Model):
    """
    Options by protocol.

    With a single protocol its options may also stand here directly.
    """

    http1: Http1Options = key(Http1Options(), "Options of HTTP/1.", name="Http1")
    http2: Http2Options = key(Http2Options(), "Options of HTTP/2.", name="Http2")
    bolt: BoltOptions = key(BoltOptions(), "Options of bolt and boltv2.")
    dubbo: RpcOptions = key(RpcOptions(), "Options of dubbo.")
    xprotocols: Mapping[str, Mapping[str, Any]] = key(
        {},
        "Options of plug-ins' protocols, by the protocol's name; max_frame_size is known to all of them.",
        ours=True,
    )
    sub_protocol: Text = key("", 'The protocols that "X" as downstream_protocol stands for, with commas.')


def _not_everybody(text: str, check: ValidatorFunctionWrapHandler) -> str:
    return text if text == EVERYBODY else str(check(text))


Believed = Annotated[IpRange, WrapValidator(_not_everybody), Kind("text")]


class ProxyConfig(Model):
    """
    Requests: parsed, routed, forwarded.

    @ivar router_config_name: the name of a L{RouterConfig}.
    """

    name: Text = key("", "A name for humans.")
    downstream_protocol: Text = key(
        "",
        "What clients speak: a protocol, or several with commas, which are told apart by the first "
        'bytes of a connection; "Auto" for all that there are; "X" for those in sub_protocol.',
        required=True,
    )
    upstream_protocol: Text = key(
        "",
        "What hosts speak.",
        acted=False,
        why=UPSTREAM_UNUSED,
        harmless=UPSTREAM_PROTOCOLS,
    )
    router_config_name: Text = key(
        "", "The router that decides on each request; without one, every request is answered with 404."
    )
    router_handler_name: Text = key(
        "",
        "An extension that makes routes.",
        acted=False,
        protects=True,
        why="there are no extensions that make routes: they would be those of router_config_name",
    )
    fallback_for_unknown_protocol: Bool = key(
        False,
        'With "Auto" or several protocols: whether connections that speak none of them go to the next filter '
        "instead of being closed.",
    )
    validate_clusters: Free = key(
        None,
        "Whether clusters must exist.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN: clusters that there are not are warned of",
    )
    concurrency_num: Int = key(
        0,
        "How many requests run at once.",
        acted=False,
        quiet=True,
        why="not acted on: requests take no threads that could be too many",
    )
    trusted_proxies: tuple[Believed, ...] = key(
        (),
        "The addresses of clients, and ranges of them, that are proxies of one's own. What they say of their "
        "requests is believed: X-Forwarded-..., X-Real-IP and Forwarded, x-mosn-... and times in RPC frames. "
        "Requests of others go on without these fields, and their frames can make a time shorter only. Unix "
        'sockets and the connections of tunnel agents are believed anyhow; "*" is everybody, as in MOSN.',
        ours=True,
        protects=True,
    )
    sni_check: Literal["demands", "always", "never"] = key(
        "demands",
        "Which requests over TLS are answered with 421 as they name another host than the handshake of their "
        'connection: those for which a certificate would have been demanded that was not ("demands"), all '
        '("always"), or none ("never", as in MOSN).',
        ours=True,
        protects=True,
    )
    error_details: Bool = key(
        False,
        "Whether answers say what went wrong behind this listener, with names of clusters, hosts and their "
        "number: for development. If not, they have a number, and the line of the log with that number says "
        "it. Clients are always told what is wrong with their requests.",
        ours=True,
    )
    abort_on_half_close: Bool = key(
        False,
        "Whether a client that closes its sending side is taken for one that is gone, so that its requests "
        "are broken off. If not, what it has asked for is answered.",
        ours=True,
    )
    stream_idle_timeout: Span = key(
        STREAM_IDLE,
        "After how long without a byte in either direction a request that is under way is broken off, "
        "unless its route says otherwise; 0 means never. A byte counts when the other side has taken it, so "
        "that a client that is slow is never broken off, but one that stands still is.",
        ours=True,
    )
    request_timeout: Span = key(
        0.0,
        "How long it may take until all of a request has come, with its body, if no response has begun "
        "before; 0 means any time, as long as something comes now and then. It bounds what clients can "
        "hold open with a byte now and then, and any upload over a slow line as well. What waits because "
        "the host does not take it is not held against the client.",
        ours=True,
    )
    upgrade_idle_timeout: Span | None = key(
        None,
        "The same as stream_idle_timeout for what upgraded requests carry, such as WebSockets. Absent: "
        "connection_idle_timeout of the listener if that is given, else 1h.",
        ours=True,
    )
    timeout_includes_response: Bool = key(
        False,
        "Whether the timeout of a route bounds the whole response, up to its end, as in MOSN, unless the "
        "route says otherwise. If not, it bounds the time until the response begins.",
        ours=True,
    )
    extend_config: ProtocolOptions = key(ProtocolOptions(), "Options by protocol.")

    @property
    def protocols(self) -> tuple[str, ...]:
        """What clients may speak, with the names behind C{"X"} in its place; C{"Auto"} stays as it is."""
        text = self.downstream_protocol
        if text == "X":
            text = self.extend_config.sub_protocol
        return tuple(dict.fromkeys(name for name in text.split(",") if name))

    @property
    def detects(self) -> bool:
        """Whether the first bytes of a connection decide on its protocol."""
        return len(self.protocols) > 1 or "Auto" in self.protocols

    @property
    def falls_back(self) -> bool:
        """Whether connections that speak something else go to the next filter."""
        return self.fallback_for_unknown_protocol and self.detects

    def rpc_options(self, protocol: str) -> Mapping[str, Any]:
        """The options of an RPC protocol, C{max_frame_size} included."""
        options = self.extend_config
        known: RpcOptions = options.dubbo if protocol == "dubbo" else RpcOptions()
        if protocol in ("bolt", "boltv2"):
            known = options.bolt
        return {**known.model_dump(), **options.xprotocols.get(protocol, {})}

    @property
    def http1(self) -> Http1Options:
        """The options of HTTP/1."""
        return self.extend_config.http1

    @property
    def http2(self) -> Http2Options:
        """The options of HTTP/2."""
        return self.extend_config.http2


def _ip_address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address") from None
    return text


def _port_ranges(value: Any) -> Any:
    """Read C{"80,1000-2000"}; in Python code pairs of numbers do as well."""
    if isinstance(value, tuple):
        return value
    if not isinstance(value, str):
        raise ValueError(f'{describe(value)} is not a list of ports; write a text such as "80,1000-2000"')
    ranges = []
    for part in value.split(",") if value.strip() else ():
        low, dash, high = part.strip().partition("-")
        high = high if dash else low
        if not (low.isdecimal() and high.isdecimal() and int(low) <= int(high) <= 65535):
            raise ValueError(f'{quote(value)} is not a list of ports; write a text such as "80,1000-2000"')
        ranges.append((int(low), int(high)))
    return tuple(ranges)


Ports = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_port_ranges), Kind("text")]
"""Ranges of ports, both ends included."""


class CidrConfig(Model):
    """A range of IP addresses."""

    address: Annotated[Text, AfterValidator(_ip_address)] = key(
        "", "An address in the range.", name="Address", required=True
    )
    length: UInt = key(0, "How many leading bits all addresses of the range share.", name="Length")

    @model_validator(mode="after")
    def _length_fits(self) -> CidrConfig:
        if self.address and self.length > ip_address(self.address).max_prefixlen:
            raise ValueError(f"{self.length} is more bits than {self.address} has")
        return self


class TcpRouteConfig(Model):
    """
    A cluster for some connections.

    A connection must be in all four lists; an empty list has none in it.
    """

    cluster: Text = key("", "The cluster that connections go to.", required=True)
    source_addrs: tuple[CidrConfig, ...] = key((), "Where connections come from.", name="SourceAddrs")
    destination_addrs: tuple[CidrConfig, ...] = key(
        (), "The addresses of ours that they come to.", name="DestinationAddrs"
    )
    source_port: Ports = key((), 'The ports they come from, such as "80,1000-2000".', name="SourcePort")
    destination_port: Ports = key((), "The ports of ours that they come to.", name="DestinationPort")


class TcpProxyConfig(Model):
    """Bytes: connections forwarded as they are."""

    stat_prefix: Text = key(
        "",
        "A name for metrics.",
        acted=False,
        quiet=True,
        why="not acted on: there are no metrics that could have the name",
    )
    cluster: Text = key("", "The cluster that all connections go to; if it is set, routes do not count.")
    idle_timeout: Nanoseconds | None = key(
        None,
        "After how long without a byte in either direction a connection is closed: a whole number of "
        'nanoseconds as in MOSN, or a Go duration such as "5m", which MOSN does not take. 0 means never. '
        "Absent: connection_idle_timeout of the listener if that is given, else 1h.",
    )
    max_connect_attempts: UInt = key(
        0,
        "How many hosts to try.",
        acted=False,
        quiet=True,
        why="not acted on, as in MOSN; up to 3 hosts are tried",
    )
    routes: tuple[TcpRouteConfig, ...] = key((), "Clusters by addresses and ports; the first match decides.")
    proxy_protocol: Literal["", "v1", "v2"] = key(
        "",
        "The version of the PROXY protocol header with which each session to a host begins, so that the "
        "service knows who the client is; through a tunnel, the service behind the agent. Empty means none.",
        choices=PROXY_VERSIONS,
        ours=True,
    )


class TunnelConfig(Model):
    """
    Connections that tunnel agents dial, made hosts of clusters.

    All keys are ours: MOSN's tunnel filter has none.
    """

    strict_keys = True

    credential_policy: Text = key(
        "", "The credential policy demanded of every agent on this listener; empty means none.", ours=True
    )
    cluster_credential_policies: Mapping[str, Text] = key(
        {}, "The credential policy demanded of agents that join a cluster, by the cluster's name.", ours=True
    )
    validators: Mapping[str, Mapping[str, Any]] = key(
        {}, "Options of the validators, by the name of the credential policy.", ours=True, secret=True
    )
    handshake_timeout: Interval = key(
        15.0, "How long an agent may take for its first message once that has begun.", ours=True
    )
    publish_delay: Span = key(
        0.02,
        "How long after the handshake a connection is first used, because MOSN's agents can't take the "
        "answer and a request at once.",
        ours=True,
    )
    max_pending_connections: Annotated[Int, between(1, 2**31 - 1)] = key(
        4096, "How many connections may be held that have not joined a cluster.", ours=True
    )
    max_joins_per_second: Annotated[Int, between(0, 1_000_000)] = key(
        1000,
        "How many connections may join in a second, in each process, so that requests are served while all "
        "agents come back at once. Those of this project are told when to come back, others wait for their "
        "turn. 0 means any number.",
        ours=True,
    )
    max_hosts_per_agent: Annotated[Int, between(0, 2**31 - 1)] = key(
        4096,
        "How many connections one agent may have in each process. Agents are told apart by what they have "
        "proved, or by their addresses, and by what they call themselves; those that call themselves nothing "
        "are not. 0 means any number.",
        ours=True,
    )
    max_hosts_per_credential: Annotated[Int, between(0, 2**31 - 1)] = key(
        16384,
        "The same for all agents with one name of a credential, or one certificate. 0 means any number.",
        ours=True,
    )
    max_hosts_per_address: Annotated[Int, between(0, 2**31 - 1)] = key(
        16384,
        "The same for all agents at one IPv4 address, or in one /64 network of IPv6, which may be one router "
        "with many behind it. 0 means any number. None of these three is more than three quarters of what "
        "the process has descriptors for.",
        ours=True,
    )
    dead_peer_timeout: Interval = key(
        5.0, "How soon a connection ends whose agent does not answer any more.", ours=True
    )
    mux: Bool = key(
        True,
        "Whether one connection of an agent carries many requests and sessions at once, if the agent can do "
        "that too. MOSN's agents can't; each of their connections carries one at a time.",
        ours=True,
    )
    mux_ping_interval: Interval = longest_silence("agent")
    mux_ping_timeout: Interval = longest_answer("agent")
    mux_max_window: Annotated[Int, between(2**18, 2**30)] = most_on_the_way("server")
    mux_max_window_growth: Annotated[Int, between(0, 2**30)] = most_growth()
    agent_routes: AgentRoutesConfig | None = key(
        None, "Whether, and which, agents may bring routes with them. If absent, they may not.", ours=True
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
        raise ValueError('is empty, so that nobody would be believed; write addresses, or "*"')
    return values


class ProxyProtocolConfig(Model):
    """Headers of PROXY protocol, version 1 or 2, by which load balancers say who the client is."""

    strict_keys = True

    trusted_proxies: Annotated[tuple[Believed, ...], AfterValidator(_somebody)] = key(
        (),
        "The addresses of load balancers, and ranges of them. Their connections have to begin with a header, "
        "and the client that it names counts as the one that has connected. Connections of others are taken "
        'as they are. Unix sockets are trusted anyhow; "*" is everybody.',
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
        False, "Whether to listen at the address. If false, tunnel agents alone feed the listener."
    )
    open_when_ready: Bool = key(
        False,
        "Whether clients are let in only once each cluster that is required has a healthy host. Until then "
        "they are refused, so that who knows of other servers goes there. A port that somebody listens at "
        "when the process starts, as the process before it or systemd, is open from the beginning.",
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
        "How many connections of strangers the listener holds in each process; agents that have joined are "
        "no strangers. For one more, the address that has most of them gives up its oldest one that has "
        "nothing under way; if there is none, the new one is closed. 0 means as many as the process has "
        "descriptors for, which holds for all listeners together in any case.",
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
        if isinstance(data, dict) and not data.get("name") and isinstance(data.get("address"), str):
            return {**data, "name": data["address"]}
        return data

    @property
    def filter_chain(self) -> FilterChainConfig:
        """The one filter chain."""
        return self.filter_chains[0]
