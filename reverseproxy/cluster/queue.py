"""
The queue of requests that wait for a host of a cluster.

First come, first served, among the requests that the host is eligible for.
"""

from __future__ import annotations

__all__ = ["MAX_QUEUED_DEMAND", "TIMER_GRAIN", "Labels", "WaitQueue", "QueuedDemand"]

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Final, NamedTuple

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.host import Host
from reverseproxy.errors import NoHealthyHost, NoHostCame, QueueTimeout
from reverseproxy.interfaces import PickContext
from reverseproxy.metrics import Histogram

if TYPE_CHECKING:
    from reverseproxy.cluster.cluster import Cluster

MAX_QUEUED_DEMAND: Final = 256
"""The most waiting requests that L{Cluster.queued_demand} looks at."""

TIMER_GRAIN: Final = 0.01
"""Seconds by which a waiting request may exceed its timeout, so that one timer serves all."""


class _Waiter:
    """A request that waits for a host."""

    __slots__ = ("context", "deadline", "since")

    def __init__(self, context: PickContext | None, since: float, deadline: float) -> None:
        self.context = context
        self.since = since
        self.deadline = deadline


Labels = tuple[tuple[str, str], ...]
"""The metadata that a request demands of a host, sorted by key."""


class QueuedDemand(NamedTuple):
    """
    Waiting requests with the same demands.

    @ivar labels: the metadata that they demand of a host.
    @ivar number: the number of requests.
    @ivar since: when the oldest of them began to wait, in the clock's seconds.
    """

    labels: Labels
    number: int
    since: float


class WaitQueue:
    """
    The requests that wait for a host of one cluster.

    @ivar waiters: the requests in order of arrival.
    @ivar waits: the waiting times of requests that have left the queue.
    @ivar most_tried: the most hosts that any of the waiting requests has tried.
    """

    def __init__(self, cluster: Cluster, clock: IReactorTime) -> None:
        self.waiters: OrderedDict[Deferred[Host], _Waiter] = OrderedDict()
        self.waits = Histogram()
        self.most_tried = 0
        self._cluster = cluster
        self._clock = clock
        self._timer: IDelayedCall | None = None
        self._free: deque[Host] = deque()
        self._serving = False

    def add(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """
        Add a request to the queue.

        @param timeout: seconds to wait at the most.
        """
        if not self.waiters:
            self.most_tried = 0
        if context is not None:
            # Restricted to a few hosts, it may lose the last of them while the cluster has many.
            few = context.among is not None or context.only is not None
            self.most_tried = sys.maxsize if few else max(self.most_tried, len(context.tried))
        now = self._clock.seconds()
        deadline = now + timeout
        waiter: Deferred[Host] = Deferred(self._cancelled)
        self.waiters[waiter] = _Waiter(context, now, deadline)
        self._set_timer(deadline)
        return waiter

    def queued_demand(self) -> list[QueuedDemand]:
        """
        Return what the waiting requests demand of hosts.

        Requests that wait for one particular host, or only because the cluster has
        C{max_requests} in progress, are left out: another host would not help them.
        """
        found: dict[Labels, QueuedDemand] = {}
        if self._cluster.full:
            return []
        for entry in islice(self.waiters.values(), MAX_QUEUED_DEMAND):
            context = entry.context
            labels: Labels = ()
            if context is not None:
                if context.only is not None:
                    continue
                if self._cluster.subsets is not None and context.metadata:
                    labels = tuple(sorted(context.metadata.items()))
            known = found.get(labels)
            found[labels] = (
                QueuedDemand(labels, 1, entry.since)
                if known is None
                else known._replace(number=known.number + 1)
            )
        return list(found.values())

    def _cancelled(self, waiter: Deferred[Host]) -> None:
        self._stop_waiting(waiter)

    def _stop_waiting(self, waiter: Deferred[Host]) -> bool:
        """Remove a request from the queue, and return whether it was there."""
        entry = self.waiters.pop(waiter, None)
        if entry is None:
            return False
        self.waits.note(self._clock.seconds() - entry.since)
        return True

    def _set_timer(self, deadline: float) -> None:
        # It keeps running when the queue gets empty: the next request needs it.
        delay = max(deadline - self._clock.seconds(), TIMER_GRAIN)
        if self._timer is None:
            self._timer = self._clock.callLater(delay, self._expire)
        elif self._timer.getTime() > deadline:
            self._timer.reset(delay)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        late = [waiter for waiter, entry in self.waiters.items() if entry.deadline <= now]
        for waiter in late:
            # Unless the failure of another request has cancelled it, or given it a host.
            if self._stop_waiting(waiter):
                waiter.errback(self.timed_out())
        if self.waiters:
            self._set_timer(min(entry.deadline for entry in self.waiters.values()))

    def timed_out(self) -> QueueTimeout:
        """Return the error for a request that has waited in vain."""
        name = self._cluster.name
        if not self._cluster.hosts:
            return NoHostCame(f"cluster {name} has no host, and none came in time")
        return QueueTimeout(f"no host of cluster {name} became free in time")

    # giving hosts to requests

    def offer(self, host: Host) -> None:
        """
        Give a host with free capacity to waiting requests, or else resume it in the balancer.

        The host is suspended in the balancer.  The callback of a request may release hosts
        at once: these are offered when it has returned, rather than recursively.
        """
        self._free.append(host)
        if self._serving:
            return
        self._serving = True
        try:
            while self._free:
                self._serve(self._free.popleft())
        finally:
            self._serving = False

    def _serve(self, host: Host) -> None:
        cluster = self._cluster
        while cluster.has_room(host):
            waiter = None if cluster.full else self._next_waiter(host)
            if waiter is None:
                cluster.resume(host)
                return
            self._hand(waiter, host)

    def _next_waiter(self, host: Host) -> Deferred[Host] | None:
        subsets = self._cluster.subsets
        for waiter, entry in self.waiters.items():
            if (entry.context is None or _suits(host, entry.context)) and (
                subsets is None or subsets.accepts(host, entry.context)
            ):
                return waiter
        return None

    def _hand(self, waiter: Deferred[Host], host: Host) -> None:
        self._stop_waiting(waiter)
        self._cluster.take(host)
        waiter.callback(host)

    def admit(self) -> None:
        """Give a host to one request that waits only because of C{max_requests}."""
        cluster = self._cluster
        if cluster.full:
            return
        for waiter, entry in self._still_waiting():
            host = cluster.choose(entry.context)
            if host is not None:
                self._hand(waiter, host)
                return

    def _still_waiting(self) -> Iterator[tuple[Deferred[Host], _Waiter]]:
        """
        Iterate over the requests, any of which may leave the queue meanwhile.

        A host that turns out to be unusable leaves the cluster, and requests that wait for it may fail.
        """
        first = next(iter(self.waiters), None)
        if first is None:
            return
        yield first, self.waiters[first]
        # Copied only if they are needed: usually the first request gets the host.
        for waiter, entry in list(self.waiters.items()):
            if waiter is not first and waiter in self.waiters:
                yield waiter, entry

    def exempt(self) -> None:
        """Leave what has taken a host out of C{max_requests}, until L{include} is called."""
        self._cluster.active -= 1
        if self.waiters:
            self.admit()

    def include(self) -> None:
        """Count again what L{exempt} has left out, before its host is released."""
        self._cluster.active += 1

    def fall_back(self) -> None:
        """Give hosts to requests whose subset is empty now, but that may fall back to others."""
        cluster = self._cluster
        for waiter, entry in self._still_waiting():
            if not cluster.full:
                host = cluster.choose(entry.context)
                if host is not None:
                    self._hand(waiter, host)

    def fail_unservable(self, healthy: int) -> None:
        """
        Fail the requests that no host can serve any more, after one has left or become unhealthy.

        @param healthy: the number of healthy hosts left in the smallest subset that is
            concerned; as long as no request has tried as many, none has to be looked at.
        """
        if not self.waiters or healthy > self.most_tried:
            return
        eligibility = self._cluster.eligibility
        unservable = [
            waiter for waiter, entry in self.waiters.items() if not eligibility.could_serve(entry.context)
        ]
        for waiter in unservable:
            if self._stop_waiting(waiter):
                waiter.errback(eligibility.no_host())
        if self._cluster.subsets is not None:
            self.fall_back()

    def end(self, why: Callable[[], NoHealthyHost]) -> None:
        """Fail all requests."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.waiters:
            waiter = next(iter(self.waiters))
            self._stop_waiting(waiter)
            waiter.errback(why())


def _suits(host: Host, context: PickContext) -> bool:
    """Return whether a request may be given to a host that has become free."""
    return (
        host not in context.tried
        and (context.only is None or context.only is host)
        and (context.among is None or host in context.among)
    )
