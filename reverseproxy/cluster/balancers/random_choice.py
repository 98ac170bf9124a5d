"""The random load balancer, and random choices for others."""

from __future__ import annotations

__all__ = ["RandomBalancer"]

import random
from collections.abc import Callable

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext


@implementer(ILoadBalancer)
class RandomBalancer:
    """
    LB_RANDOM: every host that is not suspended is as likely as any other.

    All operations take O(1), a pick O(number of hosts tried).
    """

    def __init__(self, random: random.Random) -> None:
        self._random = random.random
        self._ready: list[IHost] = []
        self._index: dict[IHost, int] = {}
        """The index of each host in C{_ready}; -1 for a suspended one."""

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if host not in self._index:
            self._append(host)

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self.suspend(host)
        self._index.pop(host, None)

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        index = self._index.get(host, -1)
        if index >= 0:
            last = self._ready.pop()
            if last is not host:
                self._ready[index] = last
                self._index[last] = index
            self._index[host] = -1

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        if self._index.get(host) == -1:
            self._append(host)

    def _append(self, host: IHost) -> None:
        self._index[host] = len(self._ready)
        self._ready.append(host)

    def _swap(self, left: int, right: int) -> None:
        ready = self._ready
        ready[left], ready[right] = ready[right], ready[left]
        self._index[ready[left]] = left
        self._index[ready[right]] = right

    def _untried(self, context: PickContext | None) -> int:
        """
        Move tried hosts to the end.

        @return: the number of untried hosts, which are at the beginning.
        """
        count = len(self._ready)
        if context is not None:
            for host in context.tried:
                index = self._index.get(host, -1)
                if index >= 0:
                    count -= 1
                    self._swap(index, count)
        return count

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        count = self._untried(context)
        return self._ready[int(self._random() * count)] if count else None

    def fewest_active(self, context: PickContext | None, choices: int) -> IHost | None:
        """
        Pick the host with the fewest requests of some drawn at random.

        @param choices: the number of different hosts to draw.
        """
        ready = self._ready
        count = self._untried(context)
        best: IHost | None = None
        for drawn in range(min(choices, count)):
            # A partial shuffle: drawn hosts go to the front.
            self._swap(drawn, drawn + int(self._random() * (count - drawn)))
            host = ready[drawn]
            if best is None or host.active < best.active:
                best = host
        return best

    def cheapest(
        self, context: PickContext | None, choices: int, cost: Callable[[IHost], float]
    ) -> IHost | None:
        """
        Pick the host with the lowest cost of some drawn at random.

        @param choices: the number of different hosts to draw.
        @param cost: returns the cost of a host; called once for each that is drawn.
        """
        ready = self._ready
        count = self._untried(context)
        best: IHost | None = None
        lowest = 0.0
        for drawn in range(min(choices, count)):
            self._swap(drawn, drawn + int(self._random() * (count - drawn)))
            price = cost(ready[drawn])
            if best is None or price < lowest:
                best, lowest = ready[drawn], price
        return best
