"""
Parse and format address strings.

Addresses of a configuration are validated by L{reverseproxy.config}, and not again here.
"""

from __future__ import annotations

__all__ = ["host_of", "is_ip", "is_loopback", "is_unix", "join_host_port", "split_host_port"]

from ipaddress import IPv6Address, ip_address


def is_unix(address: str) -> bool:
    """Say whether an address is that of a Unix socket, C{unix:/path}."""
    return address.startswith("unix:")


def split_host_port(address: str) -> tuple[str, int]:
    """
    Split C{host:port}, C{[v6]:port} or C{:port}.

    @return: the host, without brackets and possibly empty, and the port.
    @raise ValueError: if there is no port.
    """
    host, _, port = address.rpartition(":")
    return _without_brackets(host), int(port)


def host_of(address: str) -> str:
    """Return the host of C{host:port} or C{[v6]:port}, without brackets; empty for a Unix socket."""
    return "" if is_unix(address) else _without_brackets(address.rpartition(":")[0])


def join_host_port(host: str, port: int) -> str:
    """Format a host and a port, with IPv6 addresses in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _without_brackets(host: str) -> str:
    return host[1:-1] if host.startswith("[") and host.endswith("]") else host


def is_ip(text: str) -> bool:
    """Say whether a text is an IP address, without port and brackets."""
    try:
        ip_address(text)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Say whether an address can be reached from this machine only."""
    if address == "localhost":
        return True
    try:
        found = ip_address(address.strip("[]"))
    except ValueError:
        return False
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return bool((found if mapped is None else mapped).is_loopback)
