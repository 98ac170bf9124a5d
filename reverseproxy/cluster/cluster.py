"""
One cluster: its members, which of them have free capacity, and the queue of requests.

A request takes a host with L{Cluster.acquire}, which never waits; if all hosts
that could serve it are busy, it may queue with L{Cluster.wait}.  Either way it
gives the host back with L{Cluster.release}.

A host at its capacity is suspended in the load balancer, so that a pick only ever
sees hosts with free capacity.

The outcome of each request or connect is reported with L{Cluster.report}: some load
balancers weigh hosts by it, and outlier detection ejects hosts that fail.
"""

from __future__ import annotations

__all__ = ["LOG_BURST", "LOG_RATE", "DEPRIORITIZED_WAIT", "Cluster"]

import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.balancers.subsets import SubsetBalancer
from reverseproxy.cluster.eligibility import Eligibility
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.hooks import Hooks
from reverseproxy.cluster.host import Fault, Host
from reverseproxy.cluster.limits import Limits
from reverseproxy.cluster.membership import Members
from reverseproxy.cluster.queue import Labels, QueuedDemand, WaitQueue
from reverseproxy.cluster.tasks import IClusterTask
from reverseproxy.errors import PickFailed, QueueFull
from reverseproxy.interfaces import ILoadBalancer, PickContext
from reverseproxy.logs import Throttle

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
    from reverseproxy.cluster.health.ejection import Ejector
    from reverseproxy.cluster.health.service_health import ServiceHealth
    from reverseproxy.config.models import ClusterConfig

_T = TypeVar("_T")

DEPRIORITIZED_WAIT: Final = 1.0
"""Seconds that a request may wait for another host before it uses one that it deprioritizes."""

LOG_RATE: Final = 10.0
"""Log lines per second about hosts of one cluster that fail requests."""

LOG_BURST: Final = 50
"""The burst of such log lines that is allowed."""

_OF_CONNECTS: Final = frozenset({Outcome.CONNECTED, Outcome.UNREACHABLE})


class Cluster(Hooks):
    """
    Hosts that can serve the same requests.

    @ivar name: the cluster's name.
    @ivar hosts: its members by address, for reading only.
    @ivar members: adds and removes members, and tracks their health.
    @ivar queue: the requests that wait for a host.
    @ivar eligibility: which hosts a request may still be given.
    @ivar limits: circuit breakers: the limits of requests, connections and retries.
    @ivar active: requests or sessions in progress on all members, and on removed
        hosts that have not finished theirs, except those that are exempt.
    @ivar complaints: throttles log lines about hosts that fail requests.
    @ivar watches_answers: whether the outcomes of responses are to be reported, too,
        rather than those of connects only; see L{report}.
    @ivar first_host_until: until when, in the clock's seconds, requests may wait
        for the cluster's first host; see L{reverseproxy.cluster.first_host}.
    """

    first_host_until = 0.0

    def __init__(
        self,
        config: ClusterConfig,
        balancer: ILoadBalancer,
        clock: IReactorTime,
        tracker: EwmaTracker | None = None,
    ) -> None:
        """
        @param tracker: the response times that the balancer weighs hosts by, if it does.
        """
        self.name = config.name
        self.active = 0
        self.limits = Limits(config.name)
        self.complaints = Throttle(clock, LOG_RATE, LOG_BURST)
        self.members = members = Members(self, config, clock)
        self.hosts = members.hosts
        self.queue = WaitQueue(self, clock)
        self.eligibility = Eligibility(self, members, clock.seconds)
        self._waiters = self.queue.waiters
        members.install(balancer, tracker)
        self._bind()
        self.watches_answers = False
        self._configure(config)

    def _bind(self) -> None:
        # Look the methods up once: acquire and release run for every request.
        members, balancer = self.members, self.members.balancer
        self._subsets = members.subsets
        self._everyone = members.everyone
        self._pick: Callable[[PickContext | None], Any] = balancer.pick
        self._suspend: Callable[[Any], None] = balancer.suspend
        self.resume: Callable[[Any], None] = balancer.resume

    def _configure(self, config: ClusterConfig) -> None:
        self.limits.configure(config)
        self._max_requests = self.limits.max_requests
        self.members.configure(config)

    def change(
        self,
        config: ClusterConfig,
        balancer: ILoadBalancer | None = None,
        tracker: EwmaTracker | None = None,
    ) -> None:
        """
        Apply another configuration.

        Members, waiting requests and counters stay.

        @param balancer: a new one, without hosts; L{None} to keep the present one and its tracker.
        """
        if balancer is not None:
            self.members.reinstall(balancer, tracker)
            self._bind()
        self._configure(config)
        self.members.settle()

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {len(self.hosts)} hosts, {self.active} active, {self.waiting} waiting>"

    @property
    def config(self) -> ClusterConfig:
        """The configuration."""
        return self.members.config

    @property
    def waiting(self) -> int:
        """The number of requests that wait for a host."""
        return len(self._waiters)

    @property
    def healthy(self) -> int:
        """The number of healthy members."""
        return self._everyone.healthy

    @property
    def subsets(self) -> SubsetBalancer | None:
        """The subset load balancer; L{None} without subsets."""
        return self._subsets

    @property
    def ejector(self) -> Ejector:
        """Outlier detection, which ejects members that fail."""
        return self.members.ejector

    @property
    def service_health(self) -> ServiceHealth:
        """Marks members unhealthy whose agents can't reach their service."""
        return self.members.service_health

    @property
    def joined(self) -> int:
        """The number of hosts that have ever joined."""
        return self.members.joined

    @property
    def left(self) -> int:
        """The number of hosts that have ever left."""
        return self.members.left

    @property
    def retries(self) -> int:
        """The number of retries in progress."""
        return self.limits.retries

    # acquiring and releasing hosts

    def acquire(self, context: PickContext | None = None) -> Host | None:
        """
        Take a host for a request, if one has free capacity.

        @return: the host, to be given back with L{release}; L{None} if all hosts that
            could serve the request are busy, or expected to join.
        @raise NoHealthyHost: if no host could serve the request.
        @raise QueueFull: if the cluster has C{max_requests} requests in progress.
        """
        if self.active >= self._max_requests:
            raise QueueFull(f"cluster {self.name} has its {self._max_requests} requests under way")
        free = context is None or (context.only is None and context.among is None)
        host = self._pick(context) if free else self.choose(context)
        if host is None:
            if self.eligibility.could_serve(context):
                return None
            raise self.eligibility.no_host()
        self.take(host)
        return host

    def choose(self, context: PickContext | None) -> Host | None:
        """Pick a host with free capacity, among those that the context restricts the choice to."""
        only = None if context is None else context.only
        if only is None:
            among = None if context is None else context.among
            if among is not None:
                return self.eligibility.least(among, context)
            host: Host | None = self._pick(context)
            return host
        host = self.hosts.get(only.address)
        ready = host is not None and host is only and self.has_room(host) and host.usable()
        return host if ready else None

    def take(self, host: Host) -> None:
        """Count one more request on a host with free capacity."""
        self.active += 1
        host.picked += 1
        host.active = active = host.active + 1
        capacity = host.capacity
        if capacity is not None and active >= capacity:
            self._suspend(host)

    def release(self, host: Host) -> None:
        """
        Give back a host that L{acquire} or L{wait} has returned.

        @raise ValueError: if it is not taken.
        """
        active = host.active - 1
        if active < 0:
            raise ValueError(f"{host.address} is released more often than acquired")
        host.active = active
        self.active -= 1
        capacity = host.capacity
        if host.cluster is self:
            if host.reserved:
                if not active and self.on_idle is not None:
                    self.on_idle(host)
            elif capacity is not None and host.usable() and active + 1 == capacity and host.healthy:
                if self.on_free is not None and self.on_free(host):
                    pass
                elif self._waiters:
                    self.queue.offer(host)
                else:
                    self.resume(host)
        elif host.retired and not active:
            host.retire()
        if self._waiters and self._max_requests != sys.maxsize:
            self.queue.admit()

    def acquire_for_check(self, host: Host) -> bool:
        """
        Acquire a certain host for a health check, even if it is unhealthy.

        @return: whether it was acquired, to be released with L{release}; false if it has
            no free capacity, or is not a member.
        """
        capacity = host.capacity
        if (
            host.cluster is not self
            or host.reserved
            or not host.usable()
            or (capacity is not None and host.active >= capacity)
        ):
            return False
        self.take(host)
        return True

    def reserve(self, host: Host) -> None:
        """See L{Members.reserve}."""
        self.members.reserve(host)

    def unreserve(self, host: Host) -> None:
        """See L{Members.unreserve}."""
        self.members.unreserve(host)

    def has_room(self, host: Host) -> bool:
        """Return whether a member is healthy, not reserved, and below its capacity."""
        capacity = host.capacity
        return (
            host.cluster is self
            and host.healthy
            and not host.reserved
            and (capacity is None or host.active < capacity)
        )

    @property
    def full(self) -> bool:
        """Whether C{max_requests} requests are in progress."""
        return self.active >= self._max_requests

    # further attempts

    def exclude_agent(self, host: Host, context: PickContext) -> None:
        """See L{Eligibility.exclude_agent}."""
        self.eligibility.exclude_agent(host, context)

    def has_others(self, context: PickContext) -> bool:
        """See L{Eligibility.has_others}."""
        return self.eligibility.has_others(context)

    def exclude_unsent(self, host: Host, context: PickContext) -> None:
        """See L{Eligibility.exclude_unsent}."""
        self.eligibility.exclude_unsent(host, context)

    # limits

    def may_open(self) -> bool:
        """See L{Limits.may_open}."""
        return self.limits.may_open(self.active)

    def set_capacity(self, host: Host, capacity: int | None) -> None:
        """See L{Members.set_capacity}."""
        self.members.set_capacity(host, capacity)

    def try_retry(self) -> bool:
        """See L{Limits.try_retry}."""
        return self.limits.try_retry()

    def end_retry(self) -> None:
        """See L{Limits.end_retry}."""
        self.limits.end_retry()

    # outcomes

    def report(self, host: Host, outcome: Outcome, seconds: float = 0.0) -> None:
        """
        Report the outcome of a connect or a request.

        Connects are always to be reported, responses if C{watches_answers}.
        Hosts that are not members are ignored.

        @param seconds: the response time, for a response.
        """
        if host.cluster is not self:
            return
        self.members.note(host, outcome, seconds)
        if self.on_connect is not None and outcome in _OF_CONNECTS:
            self.on_connect(host, outcome)

    # waiting

    def wait(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """
        Take a host for a request as soon as one has free capacity: first come, first served.

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
        if len(self._waiters) >= self.limits.max_waiting:
            return fail(QueueFull(f"{self.limits.max_waiting} requests wait for cluster {self.name} already"))
        if timeout <= 0:
            return fail(self.queue.timed_out())
        waiter = self.queue.add(context, timeout)
        if self.on_wait is not None:
            self.on_wait()
        return waiter

    def queued_demand(self) -> list[QueuedDemand]:
        """See L{WaitQueue.queued_demand}."""
        return self.queue.queued_demand()

    def would_take(self, host: Host, labels: Labels) -> bool:
        """See L{Members.would_take}."""
        return self.members.would_take(host, labels)

    # membership

    def add_host(self, host: Host) -> None:
        """See L{Members.add}."""
        self.members.add(host)

    def remove_host(self, host: Host, reason: str = "removed") -> None:
        """See L{Members.remove}."""
        self.members.remove(host, reason)

    def replace_host(self, old: Host, new: Host, reason: str) -> None:
        """See L{Members.replace}."""
        self.members.replace(old, new, reason)

    def weigh(self, host: Host, weight: int) -> None:
        """See L{Members.weigh}."""
        self.members.weigh(host, weight)

    def expect(self, seconds: float, like: Host | None = None) -> None:
        """See L{Members.expect}."""
        self.members.expect(seconds, like)

    def set_health(self, host: Host, healthy: bool, reason: str = "", fault: Fault = Fault.ORDERED) -> None:
        """See L{Members.set_health}."""
        self.members.set_health(host, healthy, reason, fault)

    def forget_checks(self) -> None:
        """See L{Members.forget_checks}."""
        self.members.forget_checks()

    # background work

    def add_task(self, task: IClusterTask) -> None:
        """See L{Tasks.add}."""
        self.members.tasks.add(task)

    def find_task(self, kind: type[_T]) -> _T | None:
        """See L{Tasks.find}."""
        return self.members.tasks.find(kind)

    def remove_task(self, task: IClusterTask) -> None:
        """See L{Tasks.remove}."""
        self.members.tasks.remove(task)

    def start(self) -> None:
        """Start the background tasks."""
        if not self.members.ended:
            self.members.tasks.start()

    def stop(self) -> None:
        """Stop them."""
        self.members.tasks.stop()

    # ending

    def drain(self) -> None:
        """
        Accept no new request, and remove all hosts.

        Waiting requests fail.  Idle connections are closed now, busy ones when their
        exchange ends.
        """
        self._end("draining")
        for host in list(self.hosts.values()):
            self.remove_host(host, "the cluster is draining")

    def close(self, reason: str) -> None:
        """Close all hosts and their connections; waiting requests fail."""
        self._end(f"closed: {reason}")
        for host in list(self.hosts.values()):
            self.members.forget(host, reason)
            host.close(reason)

    def _end(self, how: str) -> None:
        self.members.ended = how
        self.stop()
        self._everyone.returns_until = 0.0
        self.queue.end(self.eligibility.no_host)
