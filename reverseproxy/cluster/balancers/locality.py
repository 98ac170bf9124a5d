"""
The load balancer of a worker: first the hosts whose connections it has itself.

With several workers, the connection of an agent is one worker's, and the others
reach the agent through that one, which costs a hop.  So each worker uses its
own hosts rather than others', as far as that is fair to the hosts.

If all workers get as many requests, and a worker has a smaller part of the
hosts, then these would get more than their part.  So of its requests it gives
them only as many as they would get if there was one worker, and the rest to
those of the others; who has a larger part has room for these.
"""

from __future__ import annotations

__all__ = ["NearestBalancer"]

from collections.abc import Callable

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext


@implementer(ILoadBalancer)
class NearestBalancer:
    """
    Two load balancers: one for the hosts of this worker, one for the others.

    A pick takes as long as theirs.

    @ivar share: the part of the requests that this worker's hosts are given as
        long as they have room; 1 for all of them.
    """

    def __init__(self, make: Callable[[], ILoadBalancer], random: Callable[[], float], workers: int) -> None:
        """
        @param make: makes each of the two.
        @param random: gives numbers from 0 to 1.
        @param workers: how many there are.
        """
        self.share = 1.0
        self._near = make()
        self._far = make()
        self._near_hosts: set[IHost] = set()
        self._far_hosts: set[IHost] = set()
        self._random = random
        self._workers = workers

    def add(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        (self._far_hosts if self._is_far(host) else self._near_hosts).add(host)
        self._side(host).add(host)
        self._count()

    def remove(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        (self._far_hosts if self._is_far(host) else self._near_hosts).discard(host)
        self._side(host).remove(host)
        self._count()

    def _count(self) -> None:
        near, far = len(self._near_hosts), len(self._far_hosts)
        self.share = min(1.0, self._workers * near / (near + far)) if far else 1.0

    def _side(self, host: IHost) -> ILoadBalancer:
        return self._far if self._is_far(host) else self._near

    @staticmethod
    def _is_far(host: IHost) -> bool:
        """Whether requests to a host pass through another worker; a plain connection comes here instead."""
        return host.is_remote and not host.exclusive

    def suspend(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._side(host).suspend(host)

    def resume(self, host: IHost) -> None:
        """See L{ILoadBalancer}."""
        self._side(host).resume(host)

    def pick(self, context: PickContext | None) -> IHost | None:
        """See L{ILoadBalancer}."""
        if not self._far_hosts:
            return self._near.pick(context)
        if self.share < 1.0 and self._random() >= self.share:
            return self._far.pick(context) or self._near.pick(context)
        return self._near.pick(context) or self._far.pick(context)
