"""IP addresses and networks in configurations."""

from __future__ import annotations

__all__ = ["EVERYBODY", "Believed", "IpRange", "networks_of", "unmapped"]

from collections.abc import Iterable
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Annotated, Final

from pydantic import AfterValidator, ValidatorFunctionWrapHandler, WrapValidator

from reverseproxy.config._values import Text, ValueKind, quote

EVERYBODY: Final = "*"
"""In C{trusted_proxies}: all addresses."""


def _ip_range(text: str) -> str:
    try:
        ip_network(text, strict=False)
    except ValueError:
        raise ValueError(
            f"{quote(text)} is neither an IP address nor a range of them; "
            'write one such as "10.0.0.1" or "10.0.0.0/8"'
        ) from None
    return text


IpRange = Annotated[Text, AfterValidator(_ip_range)]


def _not_everybody(text: str, check: ValidatorFunctionWrapHandler) -> str:
    return text if text == EVERYBODY else str(check(text))


Believed = Annotated[IpRange, WrapValidator(_not_everybody), ValueKind("text")]
"""The addresses of a trusted proxy: a network, or L{EVERYBODY}."""


def networks_of(ranges: Iterable[str]) -> tuple[IPv4Network | IPv6Network, ...]:
    """Parse networks; IPv4-mapped IPv6 addresses become IPv4."""
    return tuple(_unmapped(ip_network(text, strict=False)) for text in ranges)


def unmapped(host: str) -> IPv4Address | IPv6Address:
    """
    Parse an address; an IPv4-mapped IPv6 address becomes IPv4.

    @raise ValueError: if it is not an address.
    """
    address = ip_address(host.partition("%")[0])
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _unmapped(network: IPv4Network | IPv6Network) -> IPv4Network | IPv6Network:
    if isinstance(network, IPv6Network) and network.prefixlen >= 96:
        mapped = network.network_address.ipv4_mapped
        if mapped is not None:
            return IPv4Network((mapped, network.prefixlen - 96))
    return network
