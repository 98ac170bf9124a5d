"""
The load balancer of a worker: hosts whose connections it has go before others.

With several workers, each connection of an agent belongs to one worker, and the
others reach the agent through that one, which takes one more hop.  So each worker
prefers its own hosts, as far as that is fair to the hosts.

If all workers get equally many requests, and one has less than its share of the hosts,
these would get more requests than others.  So it gives them only as many of its requests
as they would get from a single worker, and the rest to hosts of the other workers, which
have more than their share and so free capacity.
"""

from __future__ import annotations

__all__ = ["LocalityBalancer"]

from collections.abc import Callable

from zope.interface import implementer

from reverseproxy.interfaces import IHost, ILoadBalancer, PickContext


@implementer(ILoadBalancer)
class LocalityBalancer:
    """
    Two load balancers: one for the hosts of this worker, one for all others.

    A pick takes as long as theirs.

    @ivar share: the fraction of requests that this worker's hosts get as long as they
        have free capacity; from 0 to 1.
    """

    def __init__(self, make: Callable[[], ILoadBalancer], random: Callable[[], float], workers: int) -> None:
        """
        @param make: makes each of the two.
        @param random: returns numbers from 0 to 1.
        @param workers: the number of workers.
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
        """Return whether requests pass through another worker, as plain connections move here instead."""
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
