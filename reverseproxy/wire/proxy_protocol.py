"""
PROXY protocol, versions 1 and 2: the header by which one proxy tells the next who the client is.

HAProxy's U{specification<https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt>}.
Headers are written here; those of clients are parsed by Twisted's parsers, see
L{reverseproxy.listener.proxy_protocol}.
"""

from __future__ import annotations

__all__ = ["PROXY_VERSIONS", "SIGNATURE", "encode_header"]

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Final

SIGNATURE: Final = b"\r\n\r\n\x00\r\nQUIT\n"
"""How a header of version 2 begins; one of version 1 begins with C{PROXY} and a blank."""

PROXY_VERSIONS: Final = ("v1", "v2")

_UNSPECIFIED: Final = SIGNATURE + b"\x21\x00\x00\x00"

_Ends = tuple[IPv4Address | IPv6Address, int, IPv4Address | IPv6Address, int]


def _ends(source: str, destination: str) -> _Ends | None:
    """Parse both addresses; L{None} if a header can't have them."""
    found = []
    for text in (source, destination):
        host, colon, port = text.rpartition(":")
        try:
            address = ip_address(host.strip("[]").partition("%")[0])
            number = int(port)
        except ValueError:
            return None
        mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
        if not colon or not 0 <= number <= 65535:
            return None
        found.append((address if mapped is None else mapped, number))
    (first, one), (second, other) = found
    return (first, one, second, other) if first.version == second.version else None


def encode_header(version: str, source: str, destination: str) -> bytes:
    """
    Return a header.

    @param version: one of L{PROXY_VERSIONS}.
    @param source: the client's address, as C{host:port}, C{[v6]:port} or C{unix:/path}.
    @param destination: the address that it has connected to.
    @return: a header without addresses (C{UNKNOWN}, C{AF_UNSPEC}) if these are no two IP addresses of one
        version.
    @raise ValueError: if there is no such version.
    """
    if version not in PROXY_VERSIONS:
        raise ValueError(f"there is no version {version} of PROXY protocol")
    ends = _ends(source, destination)
    if ends is None:
        return b"PROXY UNKNOWN\r\n" if version == "v1" else _UNSPECIFIED
    first, one, second, other = ends
    if version == "v1":
        return f"PROXY TCP{first.version} {first} {second} {one} {other}\r\n".encode("ascii")
    family = b"\x11" if first.version == 4 else b"\x21"
    addresses = first.packed + second.packed + struct.pack("!HH", one, other)
    return SIGNATURE + b"\x21" + family + struct.pack("!H", len(addresses)) + addresses
