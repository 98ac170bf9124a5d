"""
Consistent hashing, the load balancer of LB_MAGLEV: equal keys go to the same host.

MOSN fills a table of 65,537 entries whenever a host is added or removed.  With
thousands of agents, some of which always come and go, that would take most of the
process's time.  A hash ring gives the same, and changes only where a host is added or
removed:

    Each host has L{POINTS} points on a ring of 2**64 places.  A key has
    L{PROBES} places on it, and goes to the host of that point which follows one
    of them most closely (multi-probe consistent hashing).

Its properties: the host of a key depends only on the set of hosts, not on their order
or history, so that several proxies agree; all hosts get about equally many keys (the
busiest some 15 % above the mean); and when a host is added or removed, only its own keys
move.  The table has the last property only approximately.

A busy or unhealthy host is removed from the ring.  Its keys are spread over the
other hosts, rather than all going to the next one, and return with it.
"""

from __future__ import annotations

__all__ = ["POINTS", "PROBES", "HashRing", "MaglevBalancer", "points_of"]

from bisect import bisect_left
from collections.abc import Collection
from hashlib import blake2b
from typing import Final

from zope.interface import implementer

from reverseproxy.cluster.balancers.round_robin import RoundRobinBalancer
from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

POINTS: Final = 8
"""Points of each host on the ring."""

PROBES: Final = 12
"""Places of each key on the ring."""

_BITS: Final = 64
_MASK: Final = 2**_BITS - 1
_CROWDED: Final = 16
"""The average number of points in an arc above which the ring is cut into more arcs."""

_SPLIT: Final = 2
"""Bits by which the number of arcs changes at a time."""


def points_of(address: str) -> list[int]:
    """Return the points of a host on the ring."""
    digest = blake2b(address.encode("utf-8", "surrogateescape"), digest_size=8 * POINTS).digest()
    return [int.from_bytes(digest[start : start + 8], "big") for start in range(0, 8 * POINTS, 8)]


class HashRing:
    """
    Hosts on a ring.

    The ring is cut into arcs of equal length, each with a short sorted list.
    As the points are spread evenly, so are the arcs' lists: adding, removing
    and finding take O(1) on average, whatever the number of hosts.
    """

    def __init__(self) -> None:
        self._hosts: dict[IHost, list[int]] = {}
        self._split(0)

    def __len__(self) -> int:
        return len(self._hosts)

    def __contains__(self, host: object) -> bool:
        return host in self._hosts

    def _split(self, bits: int) -> None:
        """Cut the ring into C{2 ** bits} arcs."""
        self._shift = _BITS - bits
        # The sorted points of each arc, and in parallel the hosts that they belong to.
        self._arcs: list[tuple[list[int], list[IHost]]] = [([], []) for _ in range(1 << bits)]
        for host, points in self._hosts.items():
            self._insert(host, points)

    def _insert(self, host: IHost, points: list[int]) -> None:
        for point in points:
            places, owners = self._arcs[point >> self._shift]
            index = bisect_left(places, point)
            places.insert(index, point)
            owners.insert(index, host)

    def add(self, host: IHost, points: list[int]) -> None:
        """Add a host that is not on the ring."""
        self._hosts[host] = points
        arcs = len(self._arcs)
        if len(self._hosts) * POINTS > arcs * _CROWDED:
            self._split(_BITS - self._shift + _SPLIT)
        else:
            self._insert(host, points)

    def remove(self, host: IHost) -> None:
        """Remove a host; unknown ones are ignored."""
        points = self._hosts.pop(host, None)
        if points is None:
            return
        arcs = len(self._arcs)
        if arcs > 1 and len(self._hosts) * POINTS < arcs // 2:
            self._split(_BITS - self._shift - _SPLIT)
            return
        for point in points:
            places, owners = self._arcs[point >> self._shift]
            index = bisect_left(places, point)
            while owners[index] is not host:  # another host may have the same point
                index += 1
            del places[index], owners[index]

    def find(self, key: bytes, without: Collection[IHost] = ()) -> IHost | None:
        """
        Find the host that a key belongs to.

        @param without: hosts to skip.
        @return: L{None} if there is no other host.
        """
        if len(self._hosts) <= sum(host in self._hosts for host in without):
            return None
        digest = blake2b(key, digest_size=16).digest()
        place = int.from_bytes(digest[:8], "big")
        stride = int.from_bytes(digest[8:], "big") | 1
        arcs, shift = self._arcs, self._shift
        closest = _MASK + 1
        found: IHost | None = None
        for _ in range(PROBES):
            arc = place >> shift
            places, owners = arcs[arc]
            index = bisect_left(places, place)
            while True:
                if index == len(places):
                    arc += 1
                    places, owners = arcs[arc % len(arcs)]
                    index = 0
                elif owners[index] in without:
                    index += 1
                else:
                    break
            distance = (places[index] - place) & _MASK
            if distance < closest:
                closest = distance
                found = owners[index]
            place = (place + stride) & _MASK
        return found


@implementer(ILoadBalancer)
class MaglevBalancer:
    """
    LB_MAGLEV: requests with the same hash key go to the same host.

    Weights are ignored, as in MOSN.  A retry goes to another host, if there is one, and so
    on between these two; hosts in C{tried} are skipped.  Requests without a key are
    balanced by round robin; MOSN refuses them.

    Operations take O(1), whatever the number of hosts, except for round robin, which
    takes O(log n).
    """

    def __init__(self) -> None:
        self._ring = HashRing()
        self._turns = RoundRobinBalancer()
        self._points: dict[IHost, list[int]] = {}

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host not in self._points:
            points = self._points[host] = points_of(host.address)
            self._ring.add(host, points)
            self._turns.add(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._points.pop(host, None)
        self._ring.remove(host)
        self._turns.remove(host)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._ring.remove(host)
        self._turns.suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        points = self._points.get(host)
        if points is not None and host not in self._ring:
            self._ring.add(host, points)
            self._turns.resume(host)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if context is None or context.hash_key is None:
            return self._turns.pick(context)
        last, key = context.last, context.hash_key
        found = None
        if last is not None:
            found = self._ring.find(key, {last, *context.tried})
        if found is None:
            found = self._ring.find(key, context.tried)
        context.last = found
        return found
