"""
C{ip_access}: allow or deny clients by IP address.

As MOSN's C{pkg/filter/stream/ipaccess}, but stricter: in MOSN, an address that
can't be parsed bypasses all lists, and one in another notation than the list's,
such as C{::ffff:10.0.0.1}, does not match.
"""

from __future__ import annotations

__all__ = ["IpAccess"]

from collections.abc import Iterable, Iterator
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address
from typing import Final

from reverseproxy.config.models import IpAccessConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, LocalReply, Step
from reverseproxy.proxy.flags import ResponseFlag

_REMEMBERED: Final = 1024
"""Addresses for which it is remembered whether they may."""

_REFUSED: Final = LocalReply(403, "refused by ip_access", b"access denied\n", ResponseFlag.UAEX)


class AddressSet:
    """
    A set of IP addresses and networks.

    A look-up costs as much as there are different lengths of prefixes.
    """

    def __init__(self, networks: Iterable[IPv4Network | IPv6Network]) -> None:
        # version -> bits behind the prefix -> prefixes
        self._prefixes: dict[int, dict[int, set[int]]] = {4: {}, 6: {}}
        for network in networks:
            rest = network.max_prefixlen - network.prefixlen
            prefixes = self._prefixes[network.version].setdefault(rest, set())
            prefixes.add(int(network.network_address) >> rest)

    def __contains__(self, address: IPv4Address | IPv6Address) -> bool:
        number = int(address)
        return any(number >> rest in found for rest, found in self._prefixes[address.version].items())


class IpAccess:
    """Allows or denies clients by IP address."""

    before_route = True

    def __init__(self, config: IpAccessConfig) -> None:
        self._header = config.header
        self._lists = [(each.action == "allow", AddressSet(each.networks)) for each in config.ips]
        self._default = config.default_action == "allow"
        self._allows = lru_cache(_REMEMBERED)(self._decide)

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        claimed = request.facts.headers(self._header) if self._header else None
        if not (self._allows(claimed, True) if claimed else self._allows(request.info.remote, False)):
            yield _REFUSED

    def _decide(self, text: str, claimed: bool) -> bool:
        """
        Return whether an address is allowed.

        @param claimed: whether the address is from a header.  A client of a Unix socket has no
            address, and so is in no list; but a header without one may be an attempt
            to evade them.
        """
        address = parse_address(text)
        if address is None:
            return self._default and not claimed
        for allows, addresses in self._lists:
            if address in addresses:
                return allows
        return self._default


def parse_address(text: str) -> IPv4Address | IPv6Address | None:
    """
    Parse an IP address, with or without a port.

    @return: the address, as IPv4 if that is what it stands for; L{None} if it is
        none.
    """
    host = text
    if text[:1] == "[":
        host, closing, port = text[1:].partition("]")
        if not closing or not (port == "" or _is_port(port)):
            return None
    elif text.count(":") == 1:
        host, _, port = text.partition(":")
        if not _is_port(f":{port}"):
            return None
    try:
        address = ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, IPv6Address) else None
    return address if mapped is None else mapped


def _is_port(text: str) -> bool:
    return text[:1] == ":" and text[1:].isascii() and text[1:].isdecimal()
