"""
Clusters: who is a member, who is free, and who waits.

A request takes a host with L{Cluster.acquire}, which never waits; if all hosts
that could serve it are busy, it may queue with L{Cluster.wait}.  Either way it
gives the host back with L{Cluster.release}.

A host that can take no further request is suspended in the balancer, so that a
pick only ever sees hosts with room.
"""

from __future__ import annotations

__all__ = ["Cluster", "ClusterManager"]

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.cluster.host import Host
from reverseproxy.errors import ClusterUnknown, NoHealthyHost, PickFailed, QueueFull, QueueTimeout
from reverseproxy.interfaces import ILoadBalancer, PickContext

if TYPE_CHECKING:
    from reverseproxy.config.models import ClusterConfig

log = Logger()

TIMER_GRAIN: Final = 0.01
"""Seconds by which a waiting request may overrun its time, so that one timer serves all."""


class _Waiter:
    """A request that waits for a host."""

    __slots__ = ("context", "deadline")

    def __init__(self, context: PickContext | None, deadline: float) -> None:
        self.context = context
        self.deadline = deadline


class Cluster:
    """
    Hosts that can serve the same requests.

    @ivar name: the cluster's name.
    @ivar config: its configuration.
    @ivar hosts: its members by address, for reading only.
    @ivar active: requests or sessions under way on all members, and on hosts
        that left while they had some.
    @ivar joined: how many hosts have ever joined.
    @ivar left: how many hosts have ever left.
    """

    def __init__(self, config: ClusterConfig, balancer: ILoadBalancer, clock: IReactorTime) -> None:
        self.name = config.name
        self.config = config
        self.hosts: dict[str, Host] = {}
        self.active = 0
        self.joined = 0
        self.left = 0
        self._balancer = balancer
        # Bound once: acquire and release run for every request.
        self._pick: Callable[[PickContext | None], Any] = balancer.pick
        self._suspend: Callable[[Any], None] = balancer.suspend
        self._resume: Callable[[Any], None] = balancer.resume
        self._clock = clock
        self._max_requests = config.max_requests or sys.maxsize
        self._max_waiting = config.max_pending_requests
        self._healthy = 0
        self._return_until = 0.0
        self._waiters: OrderedDict[Deferred[Host], _Waiter] = OrderedDict()
        self._timer: IDelayedCall | None = None
        self._free: deque[Host] = deque()
        self._serving = False
        self._ended = ""

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {len(self.hosts)} hosts, {self.active} active, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many requests wait for a host."""
        return len(self._waiters)

    # taking and giving back hosts

    def acquire(self, context: PickContext | None = None) -> Host | None:
        """
        Take a host for a request, if one is free.

        @return: the host, to be given back with L{release}; L{None} if all
            hosts that could serve the request are busy, or expected back.
        @raise NoHealthyHost: if no host could serve the request.
        @raise QueueFull: if the cluster has as many requests as it may have.
        """
        if self.active >= self._max_requests:
            raise QueueFull(f"cluster {self.name} has its {self._max_requests} requests under way")
        host: Host | None = self._pick(context)
        if host is None:
            if self._could_serve(context):
                return None
            raise self._no_host()
        self._take(host)
        return host

    def _take(self, host: Host) -> None:
        self.active += 1
        host.active = active = host.active + 1
        capacity = host.capacity
        if capacity is not None and active >= capacity:
            self._suspend(host)

    def release(self, host: Host) -> None:
        """
        Give back a host that L{acquire} or L{wait} gave.

        @raise ValueError: if it is not taken.
        """
        active = host.active - 1
        if active < 0:
            raise ValueError(f"{host.address} is released more often than acquired")
        host.active = active
        self.active -= 1
        capacity = host.capacity
        if host.cluster is self:
            if capacity is not None and host.usable() and active + 1 == capacity and host.healthy:
                if self._waiters:
                    self._offer(host)
                else:
                    self._resume(host)
        elif host.retired and not active:
            host.retire()
        if self._waiters and self._max_requests != sys.maxsize:
            self._admit()

    def _could_serve(self, context: PickContext | None) -> bool:
        """Whether a request may hope for a host: a busy one, or one that is expected back."""
        healthy = self._healthy
        if context is not None:
            for host in context.tried:
                if host.healthy and self.hosts.get(host.address) is host:
                    healthy -= 1
        return healthy > 0 or self._clock.seconds() < self._return_until

    def _no_host(self) -> NoHealthyHost:
        if self._ended:
            return NoHealthyHost(f"cluster {self.name} is {self._ended}")
        if not self.hosts:
            return NoHealthyHost(f"cluster {self.name} has no host")
        return NoHealthyHost(f"none of the {len(self.hosts)} hosts of cluster {self.name} could serve")

    # waiting

    def wait(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """
        Take a host for a request as soon as one is free, first come, first served.

        @param timeout: seconds to wait at the most.
        @return: the host, to be given back with L{release}.  May be cancelled.
            Fails with L{QueueFull}, L{QueueTimeout} or L{NoHealthyHost}.
        """
        try:
            host = self.acquire(context)
        except PickFailed as error:
            return fail(error)
        if host is not None:
            return succeed(host)
        if len(self._waiters) >= self._max_waiting:
            return fail(QueueFull(f"{self._max_waiting} requests wait for cluster {self.name} already"))
        if timeout <= 0:
            return fail(self._timeout())
        deadline = self._clock.seconds() + timeout
        waiter: Deferred[Host] = Deferred(self._cancelled)
        self._waiters[waiter] = _Waiter(context, deadline)
        self._set_timer(deadline)
        return waiter

    def _cancelled(self, waiter: Deferred[Host]) -> None:
        self._waiters.pop(waiter, None)

    def _timeout(self) -> QueueTimeout:
        return QueueTimeout(f"no host of cluster {self.name} became free in time")

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
        late = [waiter for waiter, entry in self._waiters.items() if entry.deadline <= now]
        for waiter in late:
            # Unless it was cancelled, or given a host, by what failed before it.
            if self._waiters.pop(waiter, None) is not None:
                waiter.errback(self._timeout())
        if self._waiters:
            self._set_timer(min(entry.deadline for entry in self._waiters.values()))

    def _offer(self, host: Host) -> None:
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
        while self._has_room(host):
            waiter = self._next_waiter(host) if self.active < self._max_requests else None
            if waiter is None:
                self._resume(host)
                return
            self._hand(waiter, host)

    def _has_room(self, host: Host) -> bool:
        capacity = host.capacity
        return host.cluster is self and host.healthy and (capacity is None or host.active < capacity)

    def _next_waiter(self, host: Host) -> Deferred[Host] | None:
        for waiter, entry in self._waiters.items():
            if entry.context is None or host not in entry.context.tried:
                return waiter
        return None

    def _hand(self, waiter: Deferred[Host], host: Host) -> None:
        del self._waiters[waiter]
        self._take(host)
        waiter.callback(host)

    def _admit(self) -> None:
        """Let in one that waits only because the cluster had as many requests as it may have."""
        for waiter, entry in self._waiters.items():
            if self.active >= self._max_requests:
                return
            host: Host | None = self._pick(entry.context)
            if host is not None:
                self._hand(waiter, host)
                return

    # membership

    def add_host(self, host: Host) -> None:
        """
        Take in a host.

        A member with the same address is replaced, and closed.

        @raise ValueError: if the host is a member of a cluster.
        """
        if host.cluster is not None:
            raise ValueError(f"{host.address} is a member of cluster {host.cluster.name} already")
        if self._ended:
            host.close(f"cluster {self.name} is {self._ended}")
            return
        old = self.hosts.get(host.address)
        if old is not None:
            reason = "replaced by a new connection from the same address"
            self._forget(old, reason)
            old.close(reason)
        host.cluster = self
        self.hosts[host.address] = host
        self.joined += 1
        self._balancer.add(host)
        if host.healthy:
            self._healthy += 1
        log.info(
            "cluster {cluster}: host {host} {hostname} joined with weight {weight}, {count} hosts now",
            cluster=self.name,
            host=host.address,
            hostname=host.hostname,
            weight=host.weight,
            count=len(self.hosts),
        )
        if not self._has_room(host):
            self._suspend(host)
        elif self._waiters:
            self._suspend(host)
            self._offer(host)

    def remove_host(self, host: Host, reason: str = "removed") -> None:
        """
        Let a host go.

        It gets no further request; what it has under way is finished.  Hosts
        that are not members are ignored.
        """
        if host.cluster is not self:
            return
        self._forget(host, reason)
        if not host.closed:
            host.retire()
        self._fail_hopeless()

    def _forget(self, host: Host, reason: str) -> None:
        del self.hosts[host.address]
        host.cluster = None
        self.left += 1
        self._balancer.remove(host)
        if host.healthy:
            self._healthy -= 1
        if host.returns and not self._ended:
            self._return_until = self._clock.seconds() + self.config.connect_timeout
        log.info(
            "cluster {cluster}: host {host} {hostname} left, {count} hosts now: {reason}",
            cluster=self.name,
            host=host.address,
            hostname=host.hostname,
            count=len(self.hosts),
            reason=reason,
        )

    def set_health(self, host: Host, healthy: bool, reason: str = "") -> None:
        """
        Say whether a host may be picked.

        Hosts that are not members are ignored.
        """
        if host.healthy == healthy or host.cluster is not self:
            return
        host.healthy = healthy
        log.info(
            "cluster {cluster}: host {host} is {state}{reason}",
            cluster=self.name,
            host=host.address,
            state="healthy" if healthy else "unhealthy",
            reason=reason and f": {reason}",
        )
        if not healthy:
            self._healthy -= 1
            self._suspend(host)
            self._fail_hopeless()
            return
        self._healthy += 1
        if self._has_room(host):
            self._offer(host)

    def _fail_hopeless(self) -> None:
        """Fail those that wait for a host that can't come any more."""
        hopeless = [waiter for waiter, entry in self._waiters.items() if not self._could_serve(entry.context)]
        for waiter in hopeless:
            if self._waiters.pop(waiter, None) is not None:
                waiter.errback(self._no_host())

    # ending

    def drain(self) -> None:
        """
        Take no new request, and let go of all hosts.

        Those who wait fail.  Idle connections are closed now, busy ones when
        their exchange ends.
        """
        self._end("draining")
        for host in list(self.hosts.values()):
            self.remove_host(host, "the cluster is draining")

    def close(self, reason: str) -> None:
        """Close all hosts, and what is under way on them; those who wait fail."""
        self._end(f"closed: {reason}")
        for host in list(self.hosts.values()):
            self._forget(host, reason)
            host.close(reason)

    def _end(self, how: str) -> None:
        self._ended = how
        self._return_until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter, _ = self._waiters.popitem(last=False)
            waiter.errback(self._no_host())


class ClusterManager:
    """All clusters, by name."""

    def __init__(self, clusters: Iterable[Cluster] = ()) -> None:
        self._clusters: dict[str, Cluster] = {}
        for cluster in clusters:
            self.add(cluster)

    def __iter__(self) -> Iterator[Cluster]:
        return iter(self._clusters.values())

    def __len__(self) -> int:
        return len(self._clusters)

    def __contains__(self, name: object) -> bool:
        return name in self._clusters

    def add(self, cluster: Cluster) -> None:
        """
        Take in a cluster.

        @raise ValueError: if there is one of this name.
        """
        if cluster.name in self._clusters:
            raise ValueError(f"there is a cluster {cluster.name} already")
        self._clusters[cluster.name] = cluster

    def get(self, name: str) -> Cluster:
        """
        Find a cluster.

        @raise ClusterUnknown: if there is none of this name.
        """
        try:
            return self._clusters[name]
        except KeyError:
            raise ClusterUnknown(f"there is no cluster {name!r}") from None

    def drain(self) -> None:
        """Drain all clusters; see L{Cluster.drain}."""
        for cluster in self:
            cluster.drain()

    def close(self, reason: str) -> None:
        """Close all clusters; see L{Cluster.close}."""
        for cluster in self:
            cluster.close(reason)
