"""Top-level C{extends}, of which the tunnel agent is acted on."""

from __future__ import annotations

__all__ = ["DynamicServerListConfig", "ExtendConfig", "TunnelAgentConfig"]

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, field_validator

from reverseproxy.config._agent_routes import RouteRequestConfig
from reverseproxy.config._base import Model, TypedModel, key
from reverseproxy.config._streams import longest_answer, longest_silence, most_growth, most_on_the_way
from reverseproxy.config._tls import TlsContextConfig, enabled
from reverseproxy.config._values import (
    Bool,
    HostPort,
    Int,
    Interval,
    Span,
    Text,
    between,
    or_default,
)

_RECONNECT: Final = 3.0
_CONNECT_TIMEOUT: Final = 15.0
_GRACEFUL_WAIT: Final = 30.0
_MOST_CONNECTIONS: Final = 65536


def _retry_times(value: int) -> int:
    if value < -1:
        raise ValueError(f"{value} is not a number of retries; write 0 or -1 for ever, or a number above 0")
    return value


def _connection_num(value: int) -> int:
    if value < 0:
        raise ValueError(f"{value} is not a number of connections; write 1 or more")
    if value > _MOST_CONNECTIONS:
        raise ValueError(f"{value} is more than {_MOST_CONNECTIONS} connections to each address of a server")
    return value


class DynamicServerListConfig(Model):
    """Where an agent learns of servers while it runs."""

    dynamic_server_lister: Text = key(
        "",
        "Name of a server lister, built in or of a plug-in; empty means none.",
        spellings=("DynamicServerLister",),
    )
    config: Mapping[str, Any] = key({}, "Options of the server lister.", ours=True)


class TunnelAgentConfig(Model):
    """
    Connections that an agent holds open to tunnel servers.

    Keys may have the names of MOSN's Go fields too, and durations those of its
    first version, which counted milliseconds.

    @ivar connection_num: per server address.
    @ivar tls_context: L{None} for plaintext.
    """

    enable: Bool = key(False, "Whether this agent runs; unless it is true, the rest is ignored.")
    connection_num: Annotated[Int, AfterValidator(_connection_num)] = key(
        0,
        "How many connections to hold to each address of a server; 0 means none at all.",
        spellings=("ConnectionNum", "ConnectionNumPerAddress", "connection_num_per_address"),
    )
    cluster: Text = key("", "The cluster on the server that these connections join.")
    hosting_listener: Text = key(
        "",
        "The listener of this configuration that serves what comes through the connections.",
        spellings=("HostingListener",),
    )
    server_list: tuple[HostPort, ...] = key(
        (),
        'Tunnel servers, each "host:port". A name that has several addresses counts as several servers.',
        spellings=("ServerList", "StaticServerList", "static_server_list"),
    )
    dynamic_server_list_config: DynamicServerListConfig = key(
        DynamicServerListConfig(),
        "Where to learn of servers while the agent runs.",
        spellings=("DynamicServerListConfig",),
    )
    connect_retry_times: Annotated[Int, AfterValidator(_retry_times)] = key(
        0, "How often to try again to connect; 0 and -1 mean for ever.", spellings=("ConnectRetryTimes",)
    )
    reconnect_base_duration: Annotated[Span, or_default(_RECONNECT)] = key(
        _RECONNECT,
        "The first wait before trying again; it doubles with each failure. 0 means 3 s.",
        spellings=("ReconnectBaseDuration",),
        milliseconds=("reconnect_base_duration_ms", "ReconnectBaseDurationMs"),
        nullable=False,
    )
    connect_timeout_duration: Annotated[Span, or_default(_CONNECT_TIMEOUT)] = key(
        _CONNECT_TIMEOUT,
        "How long dialling may take, and after it the server's answer. 0 means 15 s.",
        spellings=("ConnectTimeoutDuration",),
        milliseconds=("connect_timeout_duration_ms", "ConnectTimeoutDurationMs"),
        nullable=False,
    )
    credential_policy: Text = key(
        "",
        "Name of a credential policy, built in or of a plug-in; empty means no credential.",
        spellings=("CredentialPolicy",),
        protects=True,
    )
    graceful_close_max_wait_duration: Annotated[Span, or_default(_GRACEFUL_WAIT)] = key(
        _GRACEFUL_WAIT,
        "How long requests under way may take when the agent stops. 0 means 30 s.",
        spellings=("GracefulCloseMaxWaitDuration",),
        milliseconds=("graceful_close_max_wait_duration_ms", "GracefulCloseMaxWaitDurationMs"),
        nullable=False,
    )
    tls_context: TlsContextConfig | None = key(
        None, "TLS towards the servers.", spellings=("TLSContext",), protects=True
    )
    credential_config: Mapping[str, Any] = key(
        {}, "Options of the credential policy.", ours=True, secret=True
    )
    host_name: Text = key(
        "",
        "What this agent calls itself. Servers show it as a claim, beside who it has proved to be.",
        ours=True,
    )
    weight: Annotated[Int, between(1, 128)] = key(
        10, "The share of requests that each connection asks for, from 1 to 128.", ours=True
    )
    reconnect_max_duration: Interval = key(
        60.0,
        "The longest wait before trying again. If it is not given, that for a server that can't be"
        " reached is 10 s, and 4 s more for each further one of connection_num, but not more. A longer"
        " reconnect_base_duration takes its place.",
        ours=True,
    )
    stable_duration: Span = key(
        30.0, "A connection that lived this long makes the waits begin small again.", ours=True
    )
    dns_refresh_duration: Interval = key(
        30.0, "How often the names in server_list are resolved anew.", ours=True
    )
    server_count: Annotated[Int, between(0, 1024)] = key(
        0,
        "With how many addresses of servers to have connections at a time; 0 means all of them. They are "
        "chosen so that many agents spread evenly over the servers; while one of them leaves or does not "
        "answer, the next one is dialled as well.",
        ours=True,
    )
    dead_peer_timeout: Interval = key(
        5.0, "How soon a connection ends whose server does not answer any more.", ours=True
    )
    announce: Bool = key(
        True,
        "Whether to tell the server more about this agent than MOSN's agents do, under a key that MOSN's "
        "servers ignore. If false, the first message is byte for byte MOSN's.",
        ours=True,
    )
    mux: Bool = key(
        True,
        "Whether each connection carries many requests and sessions at once, if the server can do that too. "
        "It takes announce.",
        ours=True,
    )
    mux_ping_interval: Interval = longest_silence("server")
    mux_ping_timeout: Interval = longest_answer("server")
    mux_max_window: Annotated[Int, between(2**18, 2**30)] = most_on_the_way("agent")
    mux_max_window_growth: Annotated[Int, between(0, 2**30)] = most_growth()
    service_check_interval: Span = key(
        1.0,
        "How often the service behind the hosting listener is connected to when there is no other way to "
        "know whether it can be reached, so that servers can be told. 0 means not before a request has found "
        "that it can't. It takes announce.",
        ours=True,
    )
    routes: RouteRequestConfig = key(
        RouteRequestConfig(),
        "Domains and a port that the server is asked for, where it lets agents bring them. The cluster need "
        "not be in the server's configuration then. It takes announce.",
        ours=True,
    )
    metadata: Mapping[str, Text] = key({}, "Labels for this agent's hosts on the server.", ours=True)

    @field_validator("tls_context")
    @classmethod
    def _off_is_none(cls, value: TlsContextConfig | None) -> TlsContextConfig | None:
        return enabled(value)


class ExtendConfig(TypedModel):
    """
    An extension.

    @ivar config: a model as C{config_by_type} has it for C{type}; L{None} for
        other types, which are ignored.
    """

    config_by_type: ClassVar = {"tunnel_agent": TunnelAgentConfig}

    type: Text = key(
        "",
        "The kind of extension. Other kinds are ignored with a warning.",
        required=True,
        choices=("tunnel_agent",),
    )
    config: TunnelAgentConfig | None = key(
        None, "Options of the extension, by its type.", validate_default=True
    )
