"""Top-level C{extends}; the tunnel agent is the one that is acted on."""

from __future__ import annotations

__all__ = ["DynamicServerListConfig", "ExtendConfig", "TunnelAgentConfig"]

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, ValidationInfo, field_validator

from reverseproxy.config._base import Address, Bool, Duration, Free, Int, Model, Text, UInt, key
from reverseproxy.config._tls import TlsContextConfig, enabled


def _retry_times(value: int) -> int:
    if value < -1:
        raise ValueError(f"{value} is no number of retries; write 0 or -1 for ever, or a number above 0")
    return value


class DynamicServerListConfig(Model):
    """Where an agent learns of servers at run time."""

    dynamic_server_lister: Text = key(
        "", "Name of a server lister, built in or of a plug-in; empty means none."
    )
    config: Mapping[str, Any] = key({}, "Options of the server lister.", ours=True)


class TunnelAgentConfig(Model):
    """
    Connections that an agent holds open to tunnel servers.

    @ivar connection_num: per server address.
    @ivar tls_context: L{None} for plaintext.
    """

    enable: Bool = key(False, "Whether this agent runs.")
    connection_num: UInt = key(0, "How many connections to hold to each server address; 0 means none at all.")
    cluster: Text = key("", "The cluster on the server that these connections join.")
    hosting_listener: Text = key(
        "", "The listener of this configuration that serves what comes through the connections."
    )
    server_list: tuple[Address, ...] = key(
        (), 'Tunnel servers, each "host:port". A name that has several addresses is several servers.'
    )
    dynamic_server_list_config: DynamicServerListConfig = key(
        DynamicServerListConfig(), "Where to learn of servers at run time."
    )
    connect_retry_times: Annotated[Int, AfterValidator(_retry_times)] = key(
        0, "How often to try again to connect; 0 and -1 mean for ever."
    )
    reconnect_base_duration: Duration = key(
        3.0, "The first wait before trying again; it doubles with each failure.", pointer=False
    )
    connect_timeout_duration: Duration = key(
        15.0, "How long dialling may take, and after it the server's answer.", pointer=False
    )
    credential_policy: Text = key(
        "", "Name of a credential policy, built in or of a plug-in; empty means no credential."
    )
    graceful_close_max_wait_duration: Duration = key(
        15.0, "How long requests under way may take when the agent stops.", pointer=False
    )
    tls_context: TlsContextConfig | None = key(None, "TLS towards the servers.")
    credential_config: Mapping[str, Any] = key(
        {}, "Options of the credential policy.", ours=True, secret=True
    )
    host_name: Text = key("", "A name for this agent that the server shows and logs.", ours=True)
    weight: UInt = key(
        10, "The share of requests that each connection asks for, 1 to 128.", ours=True, ge=1, le=128
    )
    reconnect_max_duration: Duration = key(60.0, "The longest wait before trying again.", ours=True)
    stable_duration: Duration = key(
        30.0, "A connection that lived this long makes the next wait start small again.", ours=True
    )
    dns_refresh_duration: Duration = key(
        30.0, "How often the names of server_list are resolved anew.", ours=True
    )
    announce: Bool = key(
        True,
        "Whether to tell the server more about this agent than MOSN's agents do, in a key that MOSN's servers "
        "ignore. If false, the first message is byte for byte as MOSN's.",
        ours=True,
    )
    metadata: Mapping[str, Text] = key({}, "Labels of this agent's hosts on the server.", ours=True)

    @field_validator("tls_context")
    @classmethod
    def _off_is_none(cls, value: TlsContextConfig | None) -> TlsContextConfig | None:
        return enabled(value)


class ExtendConfig(Model):
    """
    An extension.

    @ivar config: a L{TunnelAgentConfig} if C{type} is C{"tunnel_agent"}.
    """

    type: Text = key("", 'The kind of extension: "tunnel_agent"; others are ignored with a warning.')
    config: Free = key(None, "Options of the extension.")

    @field_validator("config", mode="plain")
    @classmethod
    def _by_type(cls, value: Any, info: ValidationInfo) -> Any:
        if info.data.get("type") != "tunnel_agent" or isinstance(value, TunnelAgentConfig):
            return value
        return TunnelAgentConfig.model_validate({} if value is None else value, context=info.context)
