"""
Which clients a C{proxy} filter trusts to set C{X-Forwarded-...} and C{x-mosn-...} fields.

Trusted clients also set the timeout of RPC frames.  Trusted are connections that
agents of this project dialled, as the tunnel server at their other end checks
what it forwards; Unix sockets, which the file system protects; and the addresses
of C{trusted_proxies}.
"""

from __future__ import annotations

__all__ = ["NOBODY", "Trust"]

from collections.abc import Iterable
from typing import Final

from reverseproxy.addresses import is_unix
from reverseproxy.config.networks import EVERYBODY, networks_of
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.filters.ip_access import AddressSet, parse_address
from reverseproxy.wire.http.border import ANY, LOOKALIKE, NOTHING


class Trust:
    """Decides once for each connection."""

    def __init__(self, proxies: Iterable[str] = ()) -> None:
        """
        @param proxies: IP addresses and ranges of them; L{EVERYBODY} for all.
        """
        proxies = tuple(proxies)
        self._everybody = EVERYBODY in proxies
        self._proxies = AddressSet(networks_of(text for text in proxies if text != EVERYBODY))

    def believes(self, info: ConnectionInfo) -> bool:
        """Whether the fields of a connection's requests are trusted."""
        if self._everybody or info.reverse or is_unix(info.remote):
            return True
        address = parse_address(info.remote)
        return address is not None and address in self._proxies

    def foreign(self, info: ConnectionInfo) -> int:
        """
        Return which fields of a connection's requests are dropped.

        Fields that only look like one of them are dropped from every client: a proxy
        that replaces C{X-Forwarded-For} lets C{X_Forwarded_For} pass.  Where
        all clients are trusted, these are left alone, too.

        @return: marks as L{reverseproxy.wire.http.border} has them.
        """
        if self._everybody:
            return NOTHING
        return LOOKALIKE if self.believes(info) else ANY


NOBODY: Final = Trust()
"""Trusts only tunnel connections and Unix sockets."""
