"""
Load balancers of a fleet that put agents, rather than hosts, in an order that all servers share.

LB_MAGLEV and LB_REQUEST_ROUNDROBIN decide with which host a request begins, so all servers
have to agree, and may not prefer their own hosts.  An agent that is connected to several
servers has a host at each of them.  So the key, or the order, chooses an agent, and then one
of its hosts is chosen: one of this server, if there is one.
"""

from __future__ import annotations

__all__ = ["AgentOrder", "AgentRing"]

from bisect import bisect_left, bisect_right, insort
from collections.abc import Callable
from typing import Any, Final

from zope.interface import implementer

from reverseproxy.cluster.balancers.consistent import HashRing, points_of
from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext

MOST_TRIED: Final = 64
"""The most agents that are tried one after the other for one request, before any host is taken."""


class _RingAgent:
    """
    An agent on the ring.

    @ivar name: its name, the same on all servers.
    @ivar points: its points on the ring.
    @ivar members: its hosts.
    @ivar ready: those of its hosts that are not suspended.
    """

    __slots__ = ("members", "name", "points", "ready")

    def __init__(self, name: str, points: list[int]) -> None:
        self.name = name
        self.points = points
        self.members: set[IHost] = set()
        self.ready: dict[IHost, None] = {}

    def choose(self, without: set[IHost], reaches: Callable[[str], bool]) -> IHost | None:
        """Choose its host with the fewest requests; hosts of this server go before others."""
        found = [
            host for host in self.ready if host not in without and (not host.server or reaches(host.server))
        ]
        return min(found, key=lambda host: (bool(host.server), host.active)) if found else None


@implementer(ILoadBalancer)
class AgentRing:
    """
    LB_MAGLEV in a fleet: requests with the same hash key go to the same agent on all servers.

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
        @param turns: picks hosts for requests without a key, and while most hosts can't be reached.
        @param name_of: see L{FleetView<reverseproxy.cluster.balancers.fleet.FleetView>}.
        @param reaches: likewise.
        """
        self._turns = turns
        self._name_of = name_of
        self._reaches = reaches
        self._ring: Any = HashRing()  # of agents instead of hosts
        self._agents: dict[str, _RingAgent] = {}
        self._names: dict[IHost, str] = {}

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._names:
            return
        name = self._names[host] = self._name_of(host)
        agent = self._agents.get(name)
        if agent is None:
            agent = self._agents[name] = _RingAgent(name, self._points_of(name))
        agent.members.add(host)
        self._turns.add(host)
        self._let_in(agent, host)

    def _points_of(self, name: str) -> list[int]:
        return points_of(name)

    def _let_in(self, agent: _RingAgent, host: IHost) -> None:
        agent.ready[host] = None
        if agent not in self._ring:
            self._ring.add(agent, agent.points)

    def _leave_out(self, agent: _RingAgent, host: IHost) -> None:
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

    def _find(self, key: bytes, context: PickContext, without: set[_RingAgent]) -> IHost | None:
        while (agent := self._ring.find(key, without)) is not None:
            host: IHost | None = agent.choose(context.tried, self._reaches)
            if host is not None:
                return host
            without.add(agent)
            if len(without) > MOST_TRIED:
                return self._turns.pick(context)
        return None


class _Order:
    """Agents ordered by name, with the interface of the ring of an L{AgentRing}."""

    def __init__(self) -> None:
        self._names: list[bytes] = []
        self._agents: dict[bytes, _RingAgent] = {}

    def __contains__(self, agent: _RingAgent) -> bool:
        return agent.name.encode() in self._agents

    def add(self, agent: _RingAgent, points: list[int]) -> None:
        """Add an agent that is not in it."""
        name = agent.name.encode()
        self._agents[name] = agent
        insort(self._names, name)

    def remove(self, agent: _RingAgent) -> None:
        """Remove an agent; unknown ones are ignored."""
        name = agent.name.encode()
        if self._agents.pop(name, None) is not None:
            del self._names[bisect_left(self._names, name)]

    def find(self, key: bytes, without: set[_RingAgent]) -> _RingAgent | None:
        """Find the first agent after a name, starting over at the end, except for given ones."""
        names = self._names
        start = bisect_right(names, key)
        for index in range(start, start + len(names)):
            agent = self._agents[names[index % len(names)]]
            if agent not in without:
                return agent
        return None


class AgentOrder(AgentRing):
    """
    LB_REQUEST_ROUNDROBIN in a fleet: requests begin with the same agent on all servers.

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
        @param turns: picks hosts while most can't be reached.
        @param name_of: see L{FleetView<reverseproxy.cluster.balancers.fleet.FleetView>}.
        @param reaches: likewise.
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
