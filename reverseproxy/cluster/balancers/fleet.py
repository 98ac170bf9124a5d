"""
Load balancers of a server that belongs to a fleet: own hosts first, as far as that is fair.

A host whose agent is connected to another server costs a hop.  What is decided here,
given nothing but hosts and a random number:

1. If this server has as large a part of a cluster's weight as it has of the fleet, or a
   larger one, its requests go to its own hosts.  With a smaller part it keeps for them
   only what they would get if one server had all requests, and forwards the rest.
   (With 4 servers and a tenth of the weight here: four tenths.)
2. What is forwarded goes to those servers that have a larger part than of the fleet, as
   much as that is larger: the hosts of the others are busy enough with what comes there.
   So agents get what their weights say when all servers get as many requests.
3. Others' hosts are used whenever no own one is left: all are busy, unhealthy, have been
   tried, or there is none.
4. An own host that has L{SATURATED} requests under way is passed over for another
   server's that has less than half as many.

An agent that is connected to several servers has a host at each of them, and is
reached where it is nearest.

Where a key decides (LB_MAGLEV), nearness must not, as all servers have to agree: the
key chooses an agent, among those of all servers alike, and only then is one of its
hosts chosen: one of ours, if there is one.  The same where requests begin with the first
host (LB_REQUEST_ROUNDROBIN): who has joined first is not known of others' agents, so
they are in the order of their names.
"""

from __future__ import annotations

__all__ = ["SATURATED", "AgentOrder", "AgentRing", "FleetBalancer", "FleetView", "own_share", "surpluses"]

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Final

from zope.interface import implementer

from reverseproxy.cluster.balancers.consistent import HashRing, points_of
from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

SATURATED: Final = 64
"""Requests under way on one of this server's hosts, from which on others' may be better."""


MOST_TRIED: Final = 64
"""Agents that are looked for behind each other on the ring: more that can't be used are none to look for."""


@dataclass(frozen=True, slots=True)
class FleetView:
    """
    What balancers have to know of a fleet.

    @ivar servers: counts the servers, this one included.
    @ivar name_of: names the agent of a host, the same on all servers; given a member of a cluster, of
        which it may know more than balancers do.
    @ivar reaches: whether a server's hosts can be used: if not, they are about to be removed, which takes
        a while where they are thousands.
    """

    servers: Callable[[], int]
    name_of: Callable[[Any], str]
    reaches: Callable[[str], bool] = lambda server: True


def own_share(servers: int, own: int, total: int) -> float:
    """
    Say which part of its requests a server may give to its own hosts.

    @param servers: how many there are.
    @param own: the weight of its own hosts.
    @param total: the weight of all hosts.
    @return: from 0 to 1.
    """
    return 1.0 if own >= total else min(1.0, servers * own / total)


def surpluses(servers: int, weights: Mapping[str, int], total: int) -> dict[str, float]:
    """
    Say to which servers others may forward, and how much in relation to each other.

    @param servers: how many there are.
    @param weights: the weights of their hosts, by server; this one's may be among them.
    @param total: the weight of all hosts.
    """
    even = total / servers
    return {server: weight - even for server, weight in weights.items() if weight > even}


class _Others:
    """
    The hosts of the other servers: first a server is chosen, and then one of its hosts.

    @ivar weights: of the hosts of each.
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
        """Find the load balancer that has a host."""
        found = self._balancers.get(host.server)
        if found is None:
            found = self._balancers[host.server] = self._make()
        return found

    def count(self, server: str, weight: int) -> None:
        """Take note of a host that has come or, with a negative weight, has gone."""
        left = self.weights.get(server, 0) + weight
        if left:
            self.weights[server] = left
        else:
            self.weights.pop(server, None)
            self._balancers.pop(server, None)
        self._known = None

    def _first(self, servers: int, total: int) -> str | None:
        """Choose by what servers have in surplus; L{None} if none has."""
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
        # Any other, by weight: the heaviest of some random numbers (Efraimidis and Spirakis).
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
    Load balancers for the hosts of this server, and for those of each other one.

    A pick takes as long as theirs, and longer only by the number of servers.
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
        @param near: chooses among the hosts of this server.
        @param make_far: makes what chooses among those of another one.
        @param random: gives numbers from 0 to 1.
        @param servers: how many there are.
        @param weigh: the weight of a host, as far as the load balancer goes by such.
        @param reaches: see L{FleetView}.
        """
        self._near = near
        self._far = _Others(make_far, random, reaches)
        self._random = random
        self._servers = servers
        self._weigh = weigh
        self._weights: dict[IHost, int] = {}  # as they were added, and as they are taken away
        self._own = self._others = 0

    @property
    def share(self) -> float:
        """The part of the requests that this server's hosts are given as long as they have room."""
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


class _Agent:
    """
    An agent on the ring.

    @ivar name: what it is called.
    @ivar points: where it is.
    @ivar members: its hosts.
    @ivar ready: those of them that could take a request.
    """

    __slots__ = ("members", "name", "points", "ready")

    def __init__(self, name: str, points: list[int]) -> None:
        self.name = name
        self.points = points
        self.members: set[IHost] = set()
        self.ready: dict[IHost, None] = {}

    def choose(self, without: set[IHost], reaches: Callable[[str], bool]) -> IHost | None:
        """Choose one of its hosts: one of ours, if there is one, and the one with the least to do."""
        found = [
            host for host in self.ready if host not in without and (not host.server or reaches(host.server))
        ]
        return min(found, key=lambda host: (bool(host.server), host.active)) if found else None


@implementer(ILoadBalancer)
class AgentRing:
    """
    LB_MAGLEV in a fleet: requests with the same hash key go to the same agent, whichever server has it.

    As L{MaglevBalancer<reverseproxy.cluster.balancers.consistent.MaglevBalancer>}, but with
    agents on the ring, each of which may have several hosts.
    """

    def __init__(
        self,
        turns: ILoadBalancer,
        name_of: Callable[[IHost], str],
        reaches: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """
        @param turns: gives hosts to requests without a key, and while most hosts can't be reached.
        @param name_of: see L{FleetView}; C{reaches}: likewise.
        """
        self._turns = turns
        self._name_of = name_of
        self._reaches = reaches
        self._ring: Any = HashRing()  # of agents, where it has hosts otherwise
        self._agents: dict[str, _Agent] = {}
        self._names: dict[IHost, str] = {}

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._names:
            return
        name = self._names[host] = self._name_of(host)
        agent = self._agents.get(name)
        if agent is None:
            agent = self._agents[name] = _Agent(name, self._points_of(name))
        agent.members.add(host)
        self._turns.add(host)
        self._let_in(agent, host)

    def _points_of(self, name: str) -> list[int]:
        return points_of(name)

    def _let_in(self, agent: _Agent, host: IHost) -> None:
        agent.ready[host] = None
        if agent not in self._ring:
            self._ring.add(agent, agent.points)

    def _leave_out(self, agent: _Agent, host: IHost) -> None:
        agent.ready.pop(host, None)
        if not agent.ready:
            self._ring.remove(agent)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        name = self._names.pop(host, None)
        if name is None:
            return
        agent = self._agents[name]
        agent.members.discard(host)
        self._leave_out(agent, host)
        if not agent.members:
            del self._agents[name]
        self._turns.remove(host)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        name = self._names.get(host)
        if name is not None:
            self._leave_out(self._agents[name], host)
            self._turns.suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        name = self._names.get(host)
        if name is not None:
            self._let_in(self._agents[name], host)
            self._turns.resume(host)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if context is None or context.hash_key is None:
            return self._turns.pick(context)
        found = None
        if context.last is not None:
            last = self._agents.get(self._names.get(context.last, ""))
            found = self._find(context.hash_key, context, set() if last is None else {last})
        if found is None:
            found = self._find(context.hash_key, context, set())
        context.last = found
        return found

    def _find(self, key: bytes, context: PickContext, without: set[_Agent]) -> IHost | None:
        while (agent := self._ring.find(key, without)) is not None:
            host: IHost | None = agent.choose(context.tried, self._reaches)
            if host is not None:
                return host
            without.add(agent)
            if len(without) > MOST_TRIED:
                return self._turns.pick(context)
        return None


class _Order:
    """Agents in the order of their names, as an L{AgentRing} has them on a ring."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._agents: dict[bytes, _Agent] = {}

    def __contains__(self, agent: _Agent) -> bool:
        return agent.name.encode() in self._agents

    def add(self, agent: _Agent, points: list[int]) -> None:
        """Put one in, which is not in."""
        name = agent.name.encode()
        self._agents[name] = agent
        insort(self._names, name)

    def remove(self, agent: _Agent) -> None:
        """Take one out; one that is not in is ignored."""
        name = agent.name.encode()
        if self._agents.pop(name, None) is not None:
            del self._names[bisect_left(self._names, name)]

    def find(self, key: bytes, without: set[_Agent]) -> _Agent | None:
        """Find the first one behind a name, or from the first one on if there is none."""
        names = self._names
        start = bisect_right(names, key)
        for index in range(start, start + len(names)):
            agent = self._agents[names[index % len(names)]]
            if agent not in without:
                return agent
        return None


class AgentOrder(AgentRing):
    """
    LB_REQUEST_ROUNDROBIN in a fleet: requests begin with the same agent, whichever server has it.

    As L{RequestRoundRobinBalancer<reverseproxy.cluster.balancers.round_robin.RequestRoundRobinBalancer>},
    but with agents in the order of their names.
    """

    def __init__(
        self,
        turns: ILoadBalancer,
        name_of: Callable[[IHost], str],
        reaches: Callable[[str], bool] = lambda server: True,
    ) -> None:
        """
        @param turns: gives hosts while most can't be reached.
        @param name_of: see L{FleetView}; C{reaches}: likewise.
        """
        super().__init__(turns, name_of, reaches)
        self._ring = _Order()

    def _points_of(self, name: str) -> list[int]:
        return []

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        context = context or PickContext()
        last = "" if context.last is None else self._names.get(context.last, "")
        found = context.last = self._find(last.encode(), context, set())
        return found
