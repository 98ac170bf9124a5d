"""Format Twisted's addresses for logs, labels and messages."""

from __future__ import annotations

__all__ = ["format_address", "own_address"]

import os
from ipaddress import IPv6Address as IPv6
from typing import Any

from twisted.internet.address import IPv4Address, IPv6Address, UNIXAddress
from twisted.internet.interfaces import IAddress


def format_address(address: IAddress) -> str:
    """Format an address as MOSN does: C{10.0.0.7:80}, C{[::1]:80}, C{unix:/path}."""
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    if isinstance(address, IPv6Address):
        # As Go does, write a client that came over IPv4 to a socket for both as IPv4.
        mapped = IPv6(address.host).ipv4_mapped
        return f"{mapped}:{address.port}" if mapped else f"[{address.host}]:{address.port}"
    if isinstance(address, UNIXAddress):
        name = address.name
        return f"unix:{os.fsdecode(name) if name is not None else ''}"
    return str(address)


def own_address(transport: Any) -> str:
    """
    Return our own address on a connection, for logs.

    @return: empty for anything but TCP.
    """
    address = transport.getHost()
    if isinstance(address, IPv4Address):
        return f"{address.host}:{address.port}"
    return f"[{address.host}]:{address.port}" if isinstance(address, IPv6Address) else ""
