"""
How many connections strangers may hold, and which of them has to go for another one.

A process has so many descriptors, and anybody who reaches one of its ports can
use one up with a connection that says nothing.  So connections of strangers are
a L{ConnectionLimit}: when it is too large, the address that holds most of it gives up the
oldest of its connections of which nothing is lost.  Whoever comes with one
connection is served, however many somebody else holds.

This is pure: no sockets, no clock.  L{Descriptors} is the machine's side of it.
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
"""How many connections of one address are looked at for one that can go, so that a look is cheap."""

SHARE: Final = 4
"""Nobody keeps more than one in so many of all connections from others, busy or not."""

_LEAST_RESERVE: Final = 32
_MOST_RESERVE: Final = 1024

MOST_DESCRIPTORS: Final = 1 << 20
"""What a soft limit is raised to at the most; tables of descriptors take memory."""


def address_key(host: str) -> str:
    """
    Say whom a connection is counted with: an IPv4 address, or a network of IPv6.

    @param host: an IP address; anything else stands for itself.
    """
    if ":" not in host:
        return host
    try:
        address = IPv6Address(host.partition("%")[0])
    except AddressValueError:
        return host
    if address.ipv4_mapped is not None:
        return str(address.ipv4_mapped)
    # Whoever has one address of IPv6 has the 64 bits behind the network's as well (RFC 6177).
    return f"{IPv6Address(int(address) >> 64 << 64)}/64"


class IEvictable(Protocol):
    """A connection in a crowd; it has to be hashable."""

    @property
    def expendable(self) -> bool:
        """Whether nothing is lost with it: it has asked for nothing that is not answered."""


_M = TypeVar("_M", bound=IEvictable)


class ConnectionLimit(Generic[_M]):
    """
    Connections by address, and who has most.

    All methods take constant time.

    @ivar most: how many there may be.
    @ivar most_per_address: how many of one address; 0 for any number.
    """

    def __init__(self, most: int, most_per_address: int = 0) -> None:
        self.most = most
        self.most_per_address = most_per_address
        self._size = 0
        self._by_address: dict[str, dict[_M, None]] = {}
        # addresses by how many connections they have: number 0 is nobody
        self._by_count: list[dict[str, None]] = [{}]

    def __len__(self) -> int:
        """How many connections there are."""
        return self._size

    def __iter__(self) -> Iterator[_M]:
        """All connections, by address, and those of one address oldest first."""
        return chain.from_iterable(self._by_address.values())

    def count(self, address: str) -> int:
        """How many connections an address has."""
        return len(self._by_address.get(address, ()))

    def add(self, address: str, member: _M) -> None:
        """Take in a connection, which must not be in it."""
        members = self._by_address.setdefault(address, {})
        self._move(address, len(members), len(members) + 1)
        members[member] = None
        self._size += 1

    def discard(self, address: str, member: _M) -> None:
        """Take a connection out; harmless if it is not there."""
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
        """Whether there is no place for another connection of an address unless one goes."""
        return self._size >= self.most or self._is_full_of(address)

    def _is_full_of(self, address: str) -> bool:
        return bool(self.most_per_address) and self.count(address) >= self.most_per_address

    def victim(self, address: str) -> tuple[str, _M] | None:
        """
        Choose who makes room for a connection of an address.

        @return: the oldest expendable connection of the address that has most, and
            that address.  If what was looked at has something under way, it is the
            newest one, should that address have more than its L{SHARE} and another
            one want a place; else L{None}.
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
    How many descriptors the process may have, and how many of them are for itself.

    @ivar limit: the soft limit.
    @ivar reserve: those that accepted connections are not to use: for
        connections to hosts and servers, for logs, names and files.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.reserve = min(max(limit // 4, _LEAST_RESERVE), _MOST_RESERVE, limit)

    @property
    def for_strangers(self) -> int:
        """How many connections may be held that nobody vouches for."""
        return max(self.limit - self.reserve, 1)

    def is_scarce(self, descriptor: int) -> bool:
        """
        Whether so many are in use that the reserve is being used up.

        The kernel gives the lowest number that is free, so that a new
        descriptor's tells of all of them.
        """
        return descriptor >= self.limit - self.reserve

    def is_exhausted(self, descriptor: int) -> bool:
        """The same, for the last quarter of the reserve."""
        return descriptor >= self.limit - self.reserve // 4

    @staticmethod
    def raise_limit() -> None:
        """Raise the soft limit to the hard one, as far as that is sensible."""
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        most = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
        if soft != resource.RLIM_INFINITY and soft < most:
            with suppress(ValueError, OSError):  # systems have bounds of their own
                resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))

    @classmethod
    def current(cls) -> Descriptors:
        """Look how many there may be."""
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        return cls(MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft)
