"""
Who waits for a host of a cluster, and who gets one that has become free.

First come, first served, among those whom the host would do for.
"""

from __future__ import annotations

__all__ = ["MAX_QUEUED_DEMAND", "TIMER_GRAIN", "Labels", "WaitQueue", "QueuedDemand"]

import sys
from collections import OrderedDict, deque
from collections.abc import Callable
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
"""Requests that wait of which L{Cluster.queued_demand} knows what they could do with, at the most."""

TIMER_GRAIN: Final = 0.01
"""Seconds by which a waiting request may overrun its time, so that one timer serves all."""


class _Waiter:
    """A request that waits for a host."""

    __slots__ = ("context", "deadline", "since")

    def __init__(self, context: PickContext | None, since: float, deadline: float) -> None:
        self.context = context
        self.since = since
        self.deadline = deadline


Labels = tuple[tuple[str, str], ...]
"""What requests demand of a host's metadata, in an order."""


class QueuedDemand(NamedTuple):
    """
    Requests that wait for hosts.

    @ivar labels: what they demand of a host's metadata.
    @ivar number: how many they are.
    @ivar since: when the oldest of them began to wait.
    """

    labels: Labels
    number: int
    since: float


class WaitQueue:
    """
    The requests that wait for a host of one cluster.

    @ivar waiters: they, in the order in which they came.
    @ivar waits: how long those have waited who do no more.
    @ivar most_tried: how many hosts any of them has tried at the most.
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
        Let a request wait.

        @param timeout: seconds, at the most.
        """
        if not self.waiters:
            self.most_tried = 0
        if context is not None:
            # Of a few hosts, the last one may leave while there are many others.
            few = context.among is not None
            self.most_tried = sys.maxsize if few else max(self.most_tried, len(context.tried))
        now = self._clock.seconds()
        deadline = now + timeout
        waiter: Deferred[Host] = Deferred(self._cancelled)
        self.waiters[waiter] = _Waiter(context, now, deadline)
        self._set_timer(deadline)
        return waiter

    def queued_demand(self) -> list[QueuedDemand]:
        """
        Say which hosts the requests that wait could do with.

        Those that wait for a certain host, or only because the cluster has as many
        requests as it may have, have no use for another one.
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
        """Let one wait no longer; whether it has waited."""
        entry = self.waiters.pop(waiter, None)
        if entry is None:
            return False
        self.waits.note(self._clock.seconds() - entry.since)
        return True

    def _set_timer(self, deadline: float) -> None:
        # Left to run when nobody waits any more: the next one to wait needs it.
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
            # Unless it was cancelled, or given a host, by what failed before it.
            if self._stop_waiting(waiter):
                waiter.errback(self.timed_out())
        if self.waiters:
            self._set_timer(min(entry.deadline for entry in self.waiters.values()))

    def timed_out(self) -> QueueTimeout:
        """Say why somebody has waited in vain."""
        name = self._cluster.name
        if not self._cluster.hosts:
            return NoHostCame(f"cluster {name} has no host, and none came in time")
        return QueueTimeout(f"no host of cluster {name} became free in time")

    # who gets a host

    def offer(self, host: Host) -> None:
        """
        Give a host with room to those who wait, or else to the balancer.

        The host is suspended in the balancer.  Whoever gets a host may release
        it at once, or release others: these are offered when it has returned,
        rather than recursively.
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
        """Let in one that waits only because the cluster had as many requests as it may have."""
        cluster = self._cluster
        for waiter, entry in self.waiters.items():
            if cluster.full:
                return
            host = cluster.choose(entry.context)
            if host is not None:
                self._hand(waiter, host)
                return

    def fall_back(self) -> None:
        """Give hosts to those whose subset has none any more, but who may have others."""
        cluster = self._cluster
        for waiter, entry in list(self.waiters.items()):
            if waiter in self.waiters and not cluster.full:
                host = cluster.choose(entry.context)
                if host is not None:
                    self._hand(waiter, host)

    def fail_unservable(self, healthy: int) -> None:
        """
        Let those fail that have nothing to wait for, after a host has left or become unhealthy.

        @param healthy: how many there still are for the same requests, where there are the
            fewest: as long as nobody has tried so many, nobody has lost hope.
        """
        if not self.waiters or healthy > self.most_tried:
            return
        eligibility = self._cluster.eligibility
        hopeless = [
            waiter for waiter, entry in self.waiters.items() if not eligibility.could_serve(entry.context)
        ]
        for waiter in hopeless:
            if self._stop_waiting(waiter):
                waiter.errback(eligibility.no_host())
        if self._cluster.subsets is not None:
            self.fall_back()

    def end(self, why: Callable[[], NoHealthyHost]) -> None:
        """Let all of them fail."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self.waiters:
            waiter = next(iter(self.waiters))
            self._stop_waiting(waiter)
            waiter.errback(why())


def _suits(host: Host, context: PickContext) -> bool:
    """Whether a request may be given to a host that has become free."""
    return (
        host not in context.tried
        and (context.only is None or context.only is host)
        and (context.among is None or host in context.among)
    )
