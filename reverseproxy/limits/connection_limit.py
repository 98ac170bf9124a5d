"""
A limit of unauthenticated connections, and which one to close for a new one.

Any client that reaches a port can use up a file descriptor with a silent connection.  So
unauthenticated connections are counted by a L{ConnectionLimit}: at the limit, the address with
most connections loses its oldest idle one.  A client with a single connection is served,
however many another client has.

This is pure: no sockets, no clock.  L{Descriptors} asks the system for its limits.
"""

from __future__ import annotations

__all__ = ["ConnectionLimit", "Descriptors", "IEvictable", "address_key"]

import resource
from collections.abc import Iterator
from contextlib import suppress
from ipaddress import AddressValueError, IPv6Address
from itertools import chain, islice
from typing import Final, Generic, Protocol, TypeVar

_LOOKS: Final = 64
"""How many connections of an address are searched for an idle one, so that the time is bounded."""

SHARE: Final = 4
"""An address with more than one in so many of all connections loses busy ones, too."""

_LEAST_RESERVE: Final = 32
_MOST_RESERVE: Final = 1024

MOST_DESCRIPTORS: Final = 1 << 20
"""The highest soft limit; the kernel's tables of descriptors take memory."""


def address_key(host: str) -> str:
    """
    Return the key by which a connection is counted: an IPv4 address, or a /64 network of IPv6.

    @param host: an IP address; any other text is returned as it is.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except AddressValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    # A client with one IPv6 address has a whole /64 network (RFC 6177).
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class IEvictable(Protocol):
    """A connection that is counted; it has to be hashable."""

    @property
    def expendable(self) -> bool:
        """Whether it is idle: it has no request without a response."""


_M = TypeVar("_M", bound=IEvictable)


class ConnectionLimit(Generic[_M]):
    """
    Counts connections by address, and chooses which one to close.

    All methods take constant time.

    @ivar most: the limit of all connections.
    @ivar most_per_address: the limit for one address; 0 for none.
    """

    def __init__(self, most: int, most_per_address: int = 0) -> None:
        self.most = most
        self.most_per_address = most_per_address
        self._size = 0
        self._by_address: dict[str, dict[_M, None]] = {}
        # addresses by their number of connections; index 0 stays empty
        self._by_count: list[dict[str, None]] = [{}]

    def __len__(self) -> int:
        """Return the number of connections."""
        return self._size

    def __iter__(self) -> Iterator[_M]:
        """Iterate over all connections by address, the oldest of each first."""
        return chain.from_iterable(self._by_address.values())

    def count(self, address: str) -> int:
        """Return the number of connections of an address."""
        return len(self._by_address.get(address, ()))

    def add(self, address: str, member: _M) -> None:
        """Add a connection, which must not be counted yet."""
        members = self._by_address.setdefault(address, {})
        self._move(address, len(members), len(members) + 1)
        members[member] = None
        self._size += 1

    def discard(self, address: str, member: _M) -> None:
        """Remove a connection; unknown ones are ignored."""
        members = self._by_address.get(address)
        if members is None or member not in members:
            return
        self._move(address, len(members), len(members) - 1)
        del members[member]
        self._size -= 1
        if not members:
            del self._by_address[address]

    def _move(self, address: str, before: int, after: int) -> None:
        self._by_count[before].pop(address, None)
        if after == len(self._by_count):
            self._by_count.append({})
        if after:
            self._by_count[after][address] = None
        while len(self._by_count) > 1 and not self._by_count[-1]:
            self._by_count.pop()

    def is_full(self, address: str) -> bool:
        """Whether a connection has to be closed before another one of an address is added."""
        return self._size >= self.most or self._is_full_of(address)

    def _is_full_of(self, address: str) -> bool:
        return bool(self.most_per_address) and self.count(address) >= self.most_per_address

    def victim(self, address: str) -> tuple[str, _M] | None:
        """
        Choose a connection to close for a new one of an address.

        @return: the address with most connections, and its oldest idle connection.  If none
            is idle, its newest one, if the address has more than its L{SHARE} and the new
            connection is of another address; else L{None}.
        """
        loser = address if self._is_full_of(address) else next(iter(self._by_count[-1]), "")
        members = self._by_address.get(loser, {})
        for member in islice(members, _LOOKS):
            if member.expendable:
                return loser, member
        if loser != address and len(members) * SHARE > self.most:
            return loser, next(reversed(members))
        return None


class Descriptors:
    """
    The limit of file descriptors, and the reserve that accepted connections must not use.

    @ivar limit: the soft limit.
    @ivar reserve: descriptors for connections to hosts and servers, for logs,
        name resolution and files.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserve = min(max(limit // 4, _LEAST_RESERVE), _MOST_RESERVE, limit)

    @property
    def for_strangers(self) -> int:
        """The limit of unauthenticated connections."""
        return max(self.limit - self.reserve, 1)

    def is_scarce(self, descriptor: int) -> bool:
        """
        Whether the reserve is in use.

        @param descriptor: a new one; the kernel assigns the lowest free number, so it shows
            how many are in use.
        """
        return descriptor >= self.limit - self.reserve

    def is_exhausted(self, descriptor: int) -> bool:
        """Whether only the last quarter of the reserve is left."""
        return descriptor >= self.limit - self.reserve // 4

    @staticmethod
    def raise_limit() -> None:
        """Raise the soft limit to the hard one, up to L{MOST_DESCRIPTORS}."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < most:
            with suppress(ValueError, OSError):  # the system may have another limit
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    @classmethod
    def current(cls) -> Descriptors:
        """Read the current limit of the process."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft)
