"""Which hosts of a cluster a request may be given, now or after waiting, and which it excludes."""

from __future__ import annotations

__all__ = ["MAX_DEPRIORITIZED", "Eligibility"]

from collections.abc import Callable, Collection, Iterable
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

from reverseproxy.cluster.balancers.subsets import Population
from reverseproxy.cluster.host import Host
from reverseproxy.errors import NoHealthyHost
from reverseproxy.interfaces import PickContext
from reverseproxy.logs import counted

if TYPE_CHECKING:
    from reverseproxy.cluster.cluster import Cluster
    from reverseproxy.cluster.membership import Members

MAX_DEPRIORITIZED: Final = 64
"""The most hosts of one agent that a request excludes or deprioritizes after one of them has failed it."""


class Eligibility:
    """Decides which hosts of one cluster a request may still be given."""

    def __init__(self, cluster: Cluster, members: Members, seconds: Callable[[], float]) -> None:
        self._cluster = cluster
        self._members = members
        self._seconds = seconds

    def exclude_agent(self, host: Host, context: PickContext) -> None:
        """
        Exclude a host from further picks for a request that it has failed.

        Deprioritize the hosts of the same agent (L{Host.same_agent}) if there are healthy hosts
        of others: when an agent is lost, one of its connections shows it first.
        L{PickContext.readmit} takes that back if no other host is found.
        """
        context.tried.add(host)
        same_agent = host.same_agent
        if same_agent and self._cluster.healthy > len(same_agent):
            context.deprioritize(islice(same_agent, MAX_DEPRIORITIZED))

    def could_serve(self, context: PickContext | None) -> bool:
        """Return whether waiting makes sense: an eligible host is busy, or is expected to join."""
        if context is not None and context.among is not None:
            members: Iterable[Any] = (host for host in context.among if host not in context.tried)
            return any(host.healthy and host.cluster is self._cluster for host in members)
        if self._cluster.first_host_until and self._seconds() < self._cluster.first_host_until:
            return True
        subsets = self._members.subsets
        population = self._members.everyone if subsets is None else subsets.select(context)
        if population is None:
            return False
        if context is not None and context.only is not None:
            only = self._members.hosts.get(context.only.address)
            return only is not None and only is context.only and only.healthy
        return self._untried(population, context) > 0 or self._seconds() < population.returns_until

    def _untried(self, population: Population, context: PickContext | None) -> int:
        """Return the number of healthy hosts that have not failed the request."""
        subsets = self._members.subsets
        healthy = population.healthy
        if context is not None:
            for host in context.tried:
                if host.healthy and self._members.hosts.get(host.address) is host:
                    healthy -= subsets is None or population in subsets.subsets_of(host)
        return healthy

    def has_others(self, context: PickContext) -> bool:
        """
        Return whether there are hosts that have not failed the request.

        Busy hosts count.  So does a host that is expected to join, as agents replace
        connections that a session has used up; C{hurried} of the context is set then, so that
        the request waits for a short time only.
        """
        members = self._members
        population = members.everyone if members.subsets is None else members.subsets.select(context)
        if population is None:
            return False
        if self._untried(population, context) > 0:
            return True
        context.hurried = self._seconds() < population.returns_until
        return context.hurried

    def exclude_unsent(self, host: Host, context: PickContext) -> None:
        """
        Exclude a host and all others of its agent, which has reported that it has not sent the request on.
        """
        context.tried.add(host)
        context.tried.update(islice(host.same_agent, MAX_DEPRIORITIZED))

    def no_host(self) -> NoHealthyHost:
        """Return the error for a request that no host can serve."""
        if self._members.ended:
            return NoHealthyHost(f"cluster {self._cluster.name} is {self._members.ended}")
        if not self._members.hosts:
            return NoHealthyHost(f"cluster {self._cluster.name} has no host")
        left = "none of which is left for it" if self._cluster.healthy else "none of which is healthy"
        hosts = counted(len(self._members.hosts), "host")
        return NoHealthyHost(f"cluster {self._cluster.name} has {hosts}, {left}")

    def least(self, among: Collection[Any], context: PickContext | None) -> Host | None:
        """Pick the host with the fewest requests among the given ones; of equals, one that is not remote."""
        tried = () if context is None else context.tried
        cluster = self._cluster
        ready = [
            host
            for host in among
            if host.cluster is cluster and host not in tried and cluster.has_room(host) and host.usable()
        ]
        return min(ready, key=lambda host: (host.active, host.is_remote)) if ready else None
