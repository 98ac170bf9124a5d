"""The tcp_proxy filter: connections forwarded as they are."""

from __future__ import annotations

__all__ = ["CidrConfig", "TcpProxyConfig", "TcpRouteConfig"]

from ipaddress import ip_address
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    model_validator,
)

from reverseproxy.config._base import Model, key
from reverseproxy.config._values import Nanoseconds, Text, UInt, ValueKind, describe, quote
from reverseproxy.wire.proxy_protocol import PROXY_VERSIONS


def _ip_address(text: str) -> str:
    try:
        ip_address(text)
    except ValueError:
        raise ValueError(f"{quote(text)} is not an IP address") from None
    return text


def _port_ranges(value: Any) -> Any:
    """Parse C{"80,1000-2000"}; in Python code, pairs of numbers are accepted, too."""
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


Ports = Annotated[tuple[tuple[int, int], ...], BeforeValidator(_port_ranges), ValueKind("text")]
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
