"""Load balancers that prefer the hosts with the least load."""

from __future__ import annotations

__all__ = [
    "LeastConnectionBalancer",
    "LeastRequestBalancer",
    "PeakEwmaBalancer",
    "connection_load",
    "request_load",
]

import random
from collections.abc import Callable
from operator import attrgetter

from zope.interface import implementer

from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
from reverseproxy.cluster.balancers.random_choice import RandomBalancer
from reverseproxy.cluster.balancers.round_robin import (
    LoadScaledRoundRobinBalancer,
    ScaledWeightedRoundRobinBalancer,
)
from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext


class _RandomOrWeighted:
    """
    Random choice if all weights are equal, otherwise weighted round robin.

    Every host is in both balancers at any time, so that nothing is rebuilt when a host with
    another weight is added or removed.
    """

    def __init__(self, random: random.Random, choices: int, turns: ILoadBalancer) -> None:
        """
        @param choices: hosts drawn at random; at least one.
        @param turns: the balancer for unequal weights.
        """
        self._choices = max(1, choices)
        self._drawn = RandomBalancer(random)
        self._turns = turns
        self._weights: dict[IHost, int] = {}
        self._counts: dict[int, int] = {}
        """The number of hosts of each weight."""

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host in self._weights:
            return
        weight = self._weights[host] = max(1, host.weight)
        self._counts[weight] = self._counts.get(weight, 0) + 1
        self._drawn.add(host)
        self._turns.add(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        weight = self._weights.pop(host, None)
        if weight is None:
            return
        self._counts[weight] -= 1
        if not self._counts[weight]:
            del self._counts[weight]
        self._drawn.remove(host)
        self._turns.remove(host)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._drawn.suspend(host)
        self._turns.suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._drawn.resume(host)
        self._turns.resume(host)


@implementer(ILoadBalancer)
class LeastRequestBalancer(_RandomOrWeighted):
    """
    LB_LEAST_REQUEST: prefers hosts with fewer requests in progress.

    If all weights are equal: the least busy of C{choices} hosts drawn at random.  Else
    weighted round robin, where a host's weight is divided by C{(active + 1) ** bias} at
    each turn.
    """

    def __init__(self, random: random.Random, choices: int = 2, bias: float = 1.0) -> None:
        """
        @param choices: hosts drawn at random; at least one.
        @param bias: the exponent of requests in progress; 0 to ignore them.
        """
        super().__init__(random, choices, LoadScaledRoundRobinBalancer(max(0.0, bias)))

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if len(self._counts) > 1:
            return self._turns.pick(context)
        return self._drawn.fewest_active(context, self._choices)


def request_load(bias: float) -> Callable[[IHost], float]:
    """
    Return the factor of requests in progress on the time to a host's next turn.

    @return: returns C{(active + 1) ** bias} for a host.
    """
    exponent = max(0.0, bias)

    def load(host: IHost) -> float:
        scale: float = (host.active + 1) ** exponent
        return scale

    return load


def connection_load(bias: float) -> Callable[[IHost], float]:
    """
    Return the factor of connections on the time to a host's next turn.

    @return: returns C{(connections + 1) ** bias} for a host.
    """
    exponent = max(0.0, bias)

    def load(host: IHost) -> float:
        scale: float = (host.connections + 1) ** exponent
        return scale

    return load


@implementer(ILoadBalancer)
class LeastConnectionBalancer(_RandomOrWeighted):
    """
    LB_LEAST_CONNECTION: prefers hosts with fewer connections.

    Like L{LeastRequestBalancer}, with connections instead of requests.  A reverse host
    always has one connection, so the choice among these is random.
    """

    def __init__(self, random: random.Random, choices: int = 2, bias: float = 1.0) -> None:
        """
        @param choices: hosts drawn at random; at least one.
        @param bias: the exponent of connections; 0 to ignore them.
        """
        super().__init__(random, choices, ScaledWeightedRoundRobinBalancer(connection_load(bias)))
        self._cost: Callable[[IHost], float] = attrgetter("connections")

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if len(self._counts) > 1:
            return self._turns.pick(context)
        return self._drawn.cheapest(context, self._choices, self._cost)


@implementer(ILoadBalancer)
class PeakEwmaBalancer(_RandomOrWeighted):
    """
    LB_PEAK_EWMA: prefers hosts with short response times, few requests in progress and few errors.

    If all weights are equal: the one with the lowest score of C{choices} hosts drawn at
    random.  Else weighted round robin, where a host's weight is divided by its score at
    each turn.  See L{EwmaTracker.score} and L{EwmaTracker.scale}.
    """

    def __init__(self, random: random.Random, tracker: EwmaTracker, choices: int = 2) -> None:
        """
        @param tracker: computes the scores; L{Cluster.report} passes outcomes to it.
        @param choices: hosts drawn at random; at least one.
        """
        super().__init__(random, choices, ScaledWeightedRoundRobinBalancer(tracker.scale))
        self._cost = tracker.score

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if len(self._counts) > 1:
            return self._turns.pick(context)
        return self._drawn.cheapest(context, self._choices, self._cost)
