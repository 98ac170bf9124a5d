"""
The load balancer of a server in a fleet: its own hosts first, as far as that is fair.

A request to a host whose agent is connected to another server takes one more hop.  The
rules, which depend on nothing but the hosts and a random number:

1. A server whose hosts have at least its share of a cluster's weight (the total, divided
   by the number of servers) gives all requests to its own hosts.  With less weight it
   gives them only what they would get if one server had all requests, and forwards the
   rest.  (With 4 servers and a tenth of the weight here: four tenths.)
2. Forwarded requests go to servers with more than their share, in proportion to the
   surplus: the hosts of the other servers are busy with the requests that arrive there.
   So agents get requests in proportion to their weights if all servers get equally many.
3. Hosts of other servers are used whenever no own host is left: all are busy, unhealthy
   or have been tried, or there is none.
4. An own host with L{SATURATED} requests in progress is skipped for another server's host
   with less than half as many.

An agent that is connected to several servers has a host at each of them, and is used
through this server if it can be.  LB_MAGLEV and LB_REQUEST_ROUNDROBIN can't prefer own
hosts, see L{reverseproxy.cluster.balancers.agent_ring}.
"""

from __future__ import annotations

__all__ = ["SATURATED", "FleetBalancer", "FleetView", "own_share", "surpluses"]

from bisect import bisect_right
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

SATURATED: Final = 64
"""Requests in progress on a host of this server from which on other servers' hosts are considered."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """
    What load balancers need to know of a fleet.

    @ivar servers: returns the number of servers, this one included.
    @ivar name_of: returns the name of a host's agent, which is the same on all servers; given a member
        of a cluster.
    @ivar reaches: returns whether a server's hosts can be used: if not, they are about to be removed,
        which takes a while for thousands.
    """

    servers: Callable[[], int]
    name_of: Callable[[Any], str]
    reaches: Callable[[str], bool] = lambda server: True


def own_share(servers: int, own: int, total: int) -> float:
    """
    Return the fraction of its requests that a server may give to its own hosts.

    @param servers: the number of servers.
    @param own: the weight of its own hosts.
    @param total: the weight of all hosts.
    @return: from 0 to 1.
    """
    return 1.0 if own >= total else min(1.0, servers * own / total)


def surpluses(servers: int, weights: Mapping[str, int], total: int) -> dict[str, float]:
    """
    Return the servers that requests may be forwarded to, with their relative shares.

    @param servers: the number of servers.
    @param weights: the weight of all hosts of each server; this one's may be among them.
    @param total: the weight of all hosts.
    """
    even = total / servers
    return {server: weight - even for server, weight in weights.items() if weight > even}


class _Others:
    """
    The hosts of the other servers: a pick chooses a server first, and then one of its hosts.

    @ivar weights: the weight of all hosts of each server.
    """

    def __init__(
        self,
        make: Callable[[], ILoadBalancer],
        random: Callable[[], float],
        reaches: Callable[[str], bool],
    ) -> None:
        self._make = make
        self._random = random
        self._reaches = reaches
        self._balancers: dict[str, ILoadBalancer] = {}
        self.weights: dict[str, int] = {}
        self._known: tuple[int, int] | None = None
        self._choice: tuple[list[str], list[float]] = [], []

    def of(self, host: IHost) -> ILoadBalancer:
        """Return the load balancer for the server of a host."""
        found = self._balancers.get(host.server)
        if found is None:
            found = self._balancers[host.server] = self._make()
        return found

    def count(self, server: str, weight: int) -> None:
        """Count the weight of a host that was added or, if negative, removed."""
        left = self.weights.get(server, 0) + weight
        if left:
            self.weights[server] = left
        else:
            self.weights.pop(server, None)
            self._balancers.pop(server, None)
        self._known = None

    def _first(self, servers: int, total: int) -> str | None:
        """Choose a server by its surplus; L{None} if none has one."""
        if self._known != (servers, total):
            self._known = servers, total
            found = surpluses(servers, self.weights, total)
            self._choice = list(found), list(accumulate(found.values()))
        names, sums = self._choice
        if not names:
            return None
        return names[min(bisect_right(sums, self._random() * sums[-1]), len(names) - 1)]

    def pick(self, context: PickContext | None, servers: int, total: int) -> IHost | None:
        """See L{ILoadBalancer}."""
        first = self._first(servers, total)
        if (
            first is not None
            and self._reaches(first)
            and (host := self._balancers[first].pick(context)) is not None
        ):
            return host
        # Any server, in random order by weight (Efraimidis and Spirakis).
        rest = sorted(
            (self._random() ** (1 / weight), server)
            for server, weight in self.weights.items()
            if server != first and self._reaches(server)
        )
        for _, server in reversed(rest):
            host = self._balancers[server].pick(context)
            if host is not None:
                return host
        return None


@implementer(ILoadBalancer)
class FleetBalancer:
    """
    Two levels of load balancers: for the hosts of this server, and for those of each other.

    A pick takes as long as theirs, plus a time in proportion to the number of servers.
    """

    def __init__(
        self,
        near: ILoadBalancer,
        make_far: Callable[[], ILoadBalancer],
        random: Callable[[], float],
        servers: Callable[[], int],
        weigh: Callable[[IHost], int],
        reaches: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """
        @param near: the load balancer for the hosts of this server.
        @param make_far: makes one for the hosts of another server.
        @param random: returns numbers from 0 to 1.
        @param servers: returns the number of servers.
        @param weigh: returns the weight of a host, as far as the load balancers use weights.
        @param reaches: see L{FleetView}.
        """
        self._near = near
        self._far = _Others(make_far, random, reaches)
        self._random = random
        self._servers = servers
        self._weigh = weigh
        self._weights: dict[IHost, int] = {}  # as added, for their removal
        self._own = self._others = 0

    @property
    def share(self) -> float:
        """The fraction of requests that this server's hosts get as long as they have free capacity."""
        return own_share(self._servers(), self._own, self._own + self._others)

    def _side(self, host: IHost) -> ILoadBalancer:
        return self._far.of(host) if host.server else self._near

    def _count(self, host: IHost, weight: int) -> None:
        if host.server:
            self._others += weight
            self._far.count(host.server, weight)
        else:
            self._own += weight

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host not in self._weights:
            weight = self._weights[host] = self._weigh(host)
            self._count(host, weight)
        self._side(host).add(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        weight = self._weights.pop(host, None)
        if weight is not None:
            self._side(host).remove(host)
            self._count(host, -weight)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._weights:
            self._side(host).suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._weights:
            self._side(host).resume(host)

    def _pick_far(self, context: PickContext | None) -> IHost | None:
        return self._far.pick(context, self._servers(), self._own + self._others)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if not self._others:
            return self._near.pick(context)
        share = self.share
        if share < 1.0 and self._random() >= share:
            return self._pick_far(context) or self._near.pick(context)
        host = self._near.pick(context)
        if host is None:
            return self._pick_far(context)
        if host.active >= SATURATED:
            other = self._pick_far(context)
            if other is not None and 2 * other.active < host.active:
                return other
        return host
