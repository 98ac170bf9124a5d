"""
Clusters: who is a member, who is free, and who waits.

A request takes a host with L{Cluster.acquire}, which never waits; if all hosts
that could serve it are busy, it may queue with L{Cluster.wait}.  Either way it
gives the host back with L{Cluster.release}.

A host that can take no further request is suspended in the balancer, so that a
pick only ever sees hosts with room.

How it went is told with L{Cluster.report}: some balancers go by it, and hosts
that fail are left out for a while.
"""

from __future__ import annotations

__all__ = [
    "LOG_BURST",
    "LOG_RATE",
    "SPARED_WAIT",
    "Cluster",
    "ClusterManager",
    "IClusterTask",
    "Labels",
    "Want",
]

import sys
from collections import OrderedDict, deque
from collections.abc import Callable, Collection, Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeVar

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger
from zope.interface import Interface

from reverseproxy.cluster.balancers.subsets import Population, SubsetBalancer
from reverseproxy.cluster.health.ejection import Ejector
from reverseproxy.cluster.health.gateways import Gateways
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.health.trouble import Trouble
from reverseproxy.cluster.health.wellness import Wellness
from reverseproxy.cluster.host import Fault, Host, clamp_weight
from reverseproxy.cluster.tongues import Tongues
from reverseproxy.errors import ClusterUnknown, NoHealthyHost, NoHostCame, PickFailed, QueueFull, QueueTimeout
from reverseproxy.interfaces import ILoadBalancer, PickContext
from reverseproxy.logs import Throttle, counted, shorten
from reverseproxy.metrics import Histogram

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
    from reverseproxy.config.models import ClusterConfig

log = Logger()

_T = TypeVar("_T")

MAX_SPARED: Final = 64
"""How many hosts of an agent a request leaves out because another one of them has failed it."""

SPARED_WAIT: Final = 1.0
"""Seconds that a request may wait for others' hosts, before it makes do with those that it leaves out."""

LOG_RATE: Final = 10.0
"""Lines about hosts of one cluster that fail requests, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""

MOST_WANTS: Final = 256
"""Requests that wait of which L{Cluster.wants} knows what they could do with, at the most."""

_OF_CONNECTS: Final = frozenset({Outcome.CONNECTED, Outcome.UNREACHABLE})

TIMER_GRAIN: Final = 0.01
"""Seconds by which a waiting request may overrun its time, so that one timer serves all."""


class IClusterTask(Interface):
    """Something that runs beside a cluster, such as its health checks."""

    def start() -> None:
        """Begin; the cluster may have hosts already."""

    def stop() -> None:
        """End; nothing is changed any more."""

    def joined(host: Host) -> None:  # noqa: N805
        """A host has joined; told whether the task runs or not."""

    def left(host: Host) -> None:  # noqa: N805
        """A host has left; told whether the task runs or not."""


class _Waiter:
    """A request that waits for a host."""

    __slots__ = ("context", "deadline", "since")

    def __init__(self, context: PickContext | None, since: float, deadline: float) -> None:
        self.context = context
        self.since = since
        self.deadline = deadline


Labels = tuple[tuple[str, str], ...]
"""What requests demand of a host's metadata, in an order."""


class Want(NamedTuple):
    """
    Requests that wait for hosts.

    @ivar labels: what they demand of a host's metadata.
    @ivar number: how many they are.
    @ivar since: when the oldest of them began to wait.
    """

    labels: Labels
    number: int
    since: float


class Cluster:
    """
    Hosts that can serve the same requests.

    @ivar name: the cluster's name.
    @ivar config: its configuration.
    @ivar hosts: its members by address, for reading only.
    @ivar ejector: leaves members out that fail.
    @ivar gateways: leaves members out whose agents answer for services that are gone.
    @ivar wellness: leaves members out whose agents can't reach their service.
    @ivar on_connect: called with how it went to connect to a member.
    @ivar retries: retries under way.
    @ivar retried: how many there have ever been.
    @ivar waits: how long requests waited that had to wait.
    @ivar active: requests or sessions under way on all members, and on hosts
        that left while they had some.
    @ivar joined: how many hosts have ever joined.
    @ivar left: how many hosts have ever left.
    @ivar on_wait: called when a request has begun to wait.
    @ivar on_free: asked about each host that becomes free and carries one request at
        a time: whether it is wanted elsewhere, and has been reserved for that.
    @ivar on_idle: called with each host that is reserved and has nothing under way any
        more.
    @ivar on_change: called with C{"join"}, C{"leave"}, C{"health"} or C{"move"} (from worker
        to worker), the host, and why.
    @ivar tongues: what protocols its members speak.
    @ivar on_health: called with each host that has become healthy, or is not any more.
    @ivar complaints: bounds the lines about hosts that fail requests.
    @ivar trouble: which hosts can't be reached.
    @ivar watches_answers: whether answers are to be reported, rather than
        connects only; see L{report}.
    @ivar first_host_until: until when, in the clock's seconds, requests may wait
        for the first host of all; see L{reverseproxy.cluster.first_host}.
    """

    first_host_until = 0.0
    on_wait: Callable[[], object] | None = None
    on_free: Callable[[Host], bool] | None = None
    on_idle: Callable[[Host], object] | None = None
    on_connect: Callable[[Host, Outcome], object] | None = None
    on_change: Callable[[str, Host, str], object] | None = None
    on_health: Callable[[Host], object] | None = None

    def __init__(
        self,
        config: ClusterConfig,
        balancer: ILoadBalancer,
        clock: IReactorTime,
        meter: EwmaTracker | None = None,
    ) -> None:
        """
        @param meter: what the balancer goes by, if it goes by how quickly hosts
            answer.
        """
        self.name = config.name
        self.hosts: dict[str, Host] = {}
        self.active = 0
        self.joined = 0
        self.left = 0
        self.retries = self.retried = 0
        self.waits = Histogram()
        self._clock = clock
        self._tasks: list[IClusterTask] = []
        self._running = False
        self._waiters: OrderedDict[Deferred[Host], _Waiter] = OrderedDict()
        self._most_tried = 0  # by any of those who wait, or did
        self._timer: IDelayedCall | None = None
        self._free: deque[Host] = deque()
        self._serving = False
        self._ended = ""
        self.complaints = Throttle(clock, LOG_RATE, LOG_BURST)
        self.trouble = Trouble(config.name, clock.seconds)
        self.ejector = Ejector(self, config.outlier_detection, clock)
        self.wellness = Wellness(self, clock)
        self.tongues = Tongues(clock.seconds)
        self._install(balancer, meter)
        self.watches_answers = False
        self.gateways = Gateways(self)
        self._configure(config)

    def _install(self, balancer: ILoadBalancer, meter: EwmaTracker | None) -> None:
        """Let a balancer choose from now on."""
        self._balancer = balancer
        self._subsets = balancer if isinstance(balancer, SubsetBalancer) else None
        self._meter = meter
        # Bound once: acquire and release run for every request.
        self._pick: Callable[[PickContext | None], Any] = balancer.pick
        self._suspend: Callable[[Any], None] = balancer.suspend
        self._resume: Callable[[Any], None] = balancer.resume
        self._everyone = Population() if self._subsets is None else self._subsets.everyone

    def _configure(self, config: ClusterConfig) -> None:
        self.config = config
        self._max_requests = config.max_requests or sys.maxsize
        self._max_waiting = config.max_pending_requests
        self._max_retries = config.limits.max_retries or sys.maxsize
        self._max_connections = config.limits.max_connections
        self.ejector.configure(config.outlier_detection)
        watches = self._meter is not None or self.ejector.watches_answers
        self.gateways.configure(config.outlier_detection.consecutive_gateway_errors, watches)

    def change(
        self,
        config: ClusterConfig,
        balancer: ILoadBalancer | None = None,
        meter: EwmaTracker | None = None,
    ) -> None:
        """
        Go on with another configuration.

        Members, those who wait, and what has been counted stay.

        @param balancer: without hosts; L{None} to keep the one that there is, and its meter.
        """
        if balancer is not None:
            returns_until = self._everyone.returns_until
            self._install(balancer, meter)
            self._everyone.returns_until = max(returns_until, self._everyone.returns_until)
            for host in self.hosts.values():
                balancer.add(host)
                if host.healthy:
                    self._count_health(host)
                if not self._has_room(host):
                    self._suspend(host)
        self._configure(config)
        for host in list(self.hosts.values()):
            host.max_connections = self._max_connections
            if self._waiters and self._has_room(host):
                self._suspend(host)
                self._offer(host)
        if self.ejector.ejected:
            self.ejector.settle()

    def __repr__(self) -> str:
        return f"<Cluster {self.name}: {len(self.hosts)} hosts, {self.active} active, {self.waiting} waiting>"

    @property
    def waiting(self) -> int:
        """How many requests wait for a host."""
        return len(self._waiters)

    @property
    def healthy(self) -> int:
        """How many members are healthy."""
        return self._everyone.healthy

    @property
    def subsets(self) -> SubsetBalancer | None:
        """The subsets, if there are any."""
        return self._subsets

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
        free = context is None or (context.only is None and context.among is None)
        host = self._pick(context) if free else self._choose(context)
        if host is None:
            if self._could_serve(context):
                return None
            raise self._no_host()
        self._take(host)
        return host

    def _choose(self, context: PickContext | None) -> Host | None:
        """Pick, unless it is settled which host it is to be."""
        only = None if context is None else context.only
        host: Host | None
        if only is None:
            among = None if context is None else context.among
            host = self._pick(context) if among is None else self._least(among, context)
        else:
            host = self.hosts.get(only.address)
            if host is None or host is not only or not self._has_room(host) or not host.usable():
                return None
        return host

    def _least(self, among: Collection[Any], context: PickContext | None) -> Host | None:
        """Pick the one with the least to do, of a few; one that is here rather than one that is not."""
        tried = () if context is None else context.tried
        ready = [
            host
            for host in among
            if host.cluster is self and host not in tried and self._has_room(host) and host.usable()
        ]
        return min(ready, key=lambda host: (host.active, host.relayed)) if ready else None

    def _take(self, host: Host) -> None:
        self.active += 1
        host.picked += 1
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
            if host.reserved:
                if not active and self.on_idle is not None:
                    self.on_idle(host)
            elif capacity is not None and host.usable() and active + 1 == capacity and host.healthy:
                if self.on_free is not None and self.on_free(host):
                    pass
                elif self._waiters:
                    self._offer(host)
                else:
                    self._resume(host)
        elif host.retired and not active:
            host.retire()
        if self._waiters and self._max_requests != sys.maxsize:
            self._admit()

    def borrow(self, host: Host) -> bool:
        """
        Take a certain host, although it may be unhealthy.

        @return: whether it was taken, to be given back with L{release}; it is
            not if it has no room, or is no member.
        """
        capacity = host.capacity
        if (
            host.cluster is not self
            or host.reserved
            or not host.usable()
            or (capacity is not None and host.active >= capacity)
        ):
            return False
        self._take(host)
        return True

    def reserve(self, host: Host) -> None:
        """
        Give a host no further request, until L{unreserve}.

        Requests may still hope for it, as for one that is busy.
        """
        if not host.reserved:
            had_room = self._has_room(host)
            host.reserved = True
            if had_room:
                self._suspend(host)

    def unreserve(self, host: Host) -> None:
        """Give a host requests again."""
        if host.reserved:
            host.reserved = False
            if self._has_room(host):
                self._offer(host)

    def shun(self, host: Host, context: PickContext) -> None:
        """
        Pick a host no more for a request that it has failed.

        Nor those of the same agent (L{Host.same_agent}), as long as others have some:
        when an agent is gone, one of its connections is the first to show it.
        If it comes to nothing, L{PickContext.lift} takes that back.
        """
        context.tried.add(host)
        same_agent = host.same_agent
        if same_agent and self.healthy > len(same_agent):
            context.spare(islice(same_agent, MAX_SPARED))

    def _could_serve(self, context: PickContext | None) -> bool:
        """Whether a request may hope for a host: a busy one, or one that is expected back."""
        if context is not None and context.among is not None:
            members = (host for host in context.among if host not in context.tried)
            return any(host.healthy and host.cluster is self for host in members)  # type: ignore[attr-defined]
        if self.first_host_until and self._clock.seconds() < self.first_host_until:
            return True
        subsets = self._subsets
        population = self._everyone if subsets is None else subsets.select(context)
        if population is None:
            return False
        if context is not None and context.only is not None:
            only = self.hosts.get(context.only.address)
            return only is not None and only is context.only and only.healthy
        return self._untried(population, context) > 0 or self._clock.seconds() < population.returns_until

    def _untried(self, population: Population, context: PickContext | None) -> int:
        """How many healthy hosts there are that have not failed a request."""
        subsets = self._subsets
        healthy = population.healthy
        if context is not None:
            for host in context.tried:
                if host.healthy and self.hosts.get(host.address) is host:
                    healthy -= subsets is None or population in subsets.subsets_of(host)
        return healthy

    def has_others(self, context: PickContext) -> bool:
        """
        Whether there are hosts for a request that have not failed it.

        Busy ones count, and one that is expected: connections that a session uses up
        leave, and agents dial others.  That one is waited for for a moment only.
        """
        population = self._everyone if self._subsets is None else self._subsets.select(context)
        if population is None:
            return False
        if self._untried(population, context) > 0:
            return True
        context.hurried = self._clock.seconds() < population.returns_until
        return context.hurried

    def disown(self, host: Host, context: PickContext) -> None:
        """
        Pick a host no more for a request that its agent has not sent on.

        Nor others of the same agent, which would do no better.
        """
        context.tried.add(host)
        context.tried.update(islice(host.same_agent, MAX_SPARED))

    def _no_host(self) -> NoHealthyHost:
        if self._ended:
            return NoHealthyHost(f"cluster {self.name} is {self._ended}")
        if not self.hosts:
            return NoHealthyHost(f"cluster {self.name} has no host")
        left = "none of which is left for it" if self.healthy else "none of which is healthy"
        return NoHealthyHost(f"cluster {self.name} has {counted(len(self.hosts), 'host')}, {left}")

    # limits

    def may_open(self) -> bool:
        """
        Say whether another session may begin, by C{max_connections}.

        For protocols each of whose sessions takes a connection for itself: there
        the whole cluster's are counted, as MOSN's tcp_proxy does.
        """
        return not self._max_connections or self.active < self._max_connections

    def set_capacity(self, host: Host, capacity: int | None) -> None:
        """
        Say how many requests a host can carry at once from now on.

        For what is learnt of a host by its protocol.  Where that needs a
        connection for each request, it is C{max_connections}: requests beyond
        it wait for their turn then.  Hosts that are not members are changed,
        too.

        @param capacity: L{None} for any number.
        """
        before, host.capacity = host.capacity, capacity
        if host.cluster is not self or not host.healthy or host.reserved:
            return
        had_room = before is None or host.active < before
        if self._has_room(host) and not had_room:
            self._offer(host)
        elif had_room and not self._has_room(host):
            self._suspend(host)

    def try_retry(self) -> bool:
        """
        Ask to send a request again, by C{max_retries}.

        @return: whether it may be; if so, L{end_retry} must be called when that
            attempt is over.
        """
        if self.retries >= self._max_retries:
            return False
        self.retries += 1
        self.retried += 1
        return True

    def end_retry(self) -> None:
        """
        A retry is over.

        @raise ValueError: if there is none.
        """
        if not self.retries:
            raise ValueError(f"a retry of cluster {self.name} ended more often than it began")
        self.retries -= 1

    # how it went

    def report(self, host: Host, outcome: Outcome, seconds: float = 0.0) -> None:
        """
        Tell how it went with a host.

        Connects are always to be reported, answers if L{watches_answers}.
        Hosts that are not members are ignored.

        @param seconds: for an answer, the time that it took to come.
        """
        if host.cluster is not self:
            return
        if self._meter is not None:
            self._meter.note(host, outcome, seconds)
        if host.server:
            host.judge(outcome)
        else:
            self.ejector.note(host, outcome)
        if outcome is Outcome.CONNECTED and self.trouble.hosts:
            self.trouble.reached(host)
        if self.on_connect is not None and outcome in _OF_CONNECTS:
            self.on_connect(host, outcome)

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
        if not self._waiters:
            self._most_tried = 0
        if context is not None:
            # Of a few hosts, the last one may leave while there are many others.
            few = context.among is not None
            self._most_tried = sys.maxsize if few else max(self._most_tried, len(context.tried))
        now = self._clock.seconds()
        deadline = now + timeout
        waiter: Deferred[Host] = Deferred(self._cancelled)
        self._waiters[waiter] = _Waiter(context, now, deadline)
        self._set_timer(deadline)
        if self.on_wait is not None:
            self.on_wait()
        return waiter

    def wants(self) -> list[Want]:
        """
        Say which hosts the requests that wait could do with.

        Those that wait for a certain host, or only because the cluster has as many
        requests as it may have, have no use for another one.
        """
        found: dict[Labels, Want] = {}
        if self.active >= self._max_requests:
            return []
        for entry in islice(self._waiters.values(), MOST_WANTS):
            context = entry.context
            labels: Labels = ()
            if context is not None:
                if context.only is not None:
                    continue
                if self._subsets is not None and context.metadata:
                    labels = tuple(sorted(context.metadata.items()))
            known = found.get(labels)
            found[labels] = (
                Want(labels, 1, entry.since) if known is None else known._replace(number=known.number + 1)
            )
        return list(found.values())

    def would_take(self, host: Host, labels: Labels) -> bool:
        """Whether a host would do for requests that wait elsewhere, given what they demand."""
        subsets = self._subsets
        return subsets is None or subsets.accepts(host, PickContext(metadata=dict(labels)))

    def _cancelled(self, waiter: Deferred[Host]) -> None:
        self._stop_waiting(waiter)

    def _stop_waiting(self, waiter: Deferred[Host]) -> bool:
        """Let one wait no longer; whether it has waited."""
        entry = self._waiters.pop(waiter, None)
        if entry is None:
            return False
        self.waits.note(self._clock.seconds() - entry.since)
        return True

    def _timeout(self) -> QueueTimeout:
        if not self.hosts:
            return NoHostCame(f"cluster {self.name} has no host, and none came in time")
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
            if self._stop_waiting(waiter):
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
        return (
            host.cluster is self
            and host.healthy
            and not host.reserved
            and (capacity is None or host.active < capacity)
        )

    def _next_waiter(self, host: Host) -> Deferred[Host] | None:
        subsets = self._subsets
        for waiter, entry in self._waiters.items():
            if (entry.context is None or _suits(host, entry.context)) and (
                subsets is None or subsets.accepts(host, entry.context)
            ):
                return waiter
        return None

    def _hand(self, waiter: Deferred[Host], host: Host) -> None:
        self._stop_waiting(waiter)
        self._take(host)
        waiter.callback(host)

    def _admit(self) -> None:
        """Let in one that waits only because the cluster had as many requests as it may have."""
        for waiter, entry in self._waiters.items():
            if self.active >= self._max_requests:
                return
            host = self._choose(entry.context)
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
        host.healthy_since = self._clock.seconds()
        host.max_connections = self._max_connections
        self.hosts[host.address] = host
        self.joined += 1
        self._balancer.add(host)
        if host.healthy:
            self._count_health(host)
        elif not host.faults:
            host.faults = Fault.ORDERED
        # Those of the configuration come with it, and those of another server are told of there.
        write = log.info if host.is_reverse and not host.server else log.debug
        write(
            "cluster {cluster}: host {host}{who} joined with weight {weight}, {hosts} now",
            cluster=self.name,
            host=host.address,
            hosts=counted(len(self.hosts), "host"),
            count=len(self.hosts),
            weight=host.weight,
            **_told_of(host),
        )
        self.wellness.joined(host)
        self.tongues.joined(host)
        if self.on_change is not None:
            self.on_change("join", host, "")
        for task in self._tasks:
            task.joined(host)
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
        healthy = self._forget(host, reason)
        if not host.closed:
            host.retire()
        self._settle(healthy)

    def replace_host(self, old: Host, new: Host, reason: str) -> None:
        """
        Let a host take the place of another one, perhaps at the same address.

        The old one finishes what it has under way; those who wait, wait for the new one.

        @raise ValueError: if the old one is no member.
        """
        if old.cluster is not self:
            raise ValueError(f"{old.address} is no member of cluster {self.name}")
        if Fault.CHECK in old.faults:
            new.healthy, new.faults = False, Fault.CHECK
        self._forget(old, reason)
        self.add_host(new)
        if not old.closed:
            old.retire()
        self._settle(0)

    def _forget(self, host: Host, reason: str) -> int:
        """
        Take a host out.

        @return: as for L{_count_health}.
        """
        del self.hosts[host.address]
        host.cluster = None
        self.left += 1
        healthy = self._count_health(host, -1) if host.healthy else sys.maxsize
        if host.is_reverse and not self._ended:
            self.expect(self.config.connect_timeout, host)
        self._balancer.remove(host)
        self.ejector.forget(host)
        self.wellness.forget(host)
        self.gateways.forget(host)
        self.trouble.forget(host)
        for task in self._tasks:
            task.left(host)
        # Those of the configuration come with it, and those of another server are told of there.
        write = log.info if host.is_reverse and not host.server else log.debug
        write(
            "cluster {cluster}: host {host}{who} left, {hosts} now: {reason}",
            cluster=self.name,
            host=host.address,
            hosts=counted(len(self.hosts), "host"),
            count=len(self.hosts),
            reason=reason,
            **_told_of(host),
        )
        if self.on_change is not None:
            self.on_change("leave", host, reason)
        return healthy

    def _count_health(self, host: Host, change: int = 1) -> int:
        """
        Count a host that is healthy now, or is not any more.

        @return: how many healthy hosts there are now of those that could serve
            the same requests; with subsets, where there are the fewest.
        """
        if self._subsets is None:
            self._everyone.healthy += change
            return self._everyone.healthy
        fewest = sys.maxsize
        for subset in self._subsets.subsets_of(host):
            subset.healthy += change
            fewest = min(fewest, subset.healthy)
        return fewest

    def weigh(self, host: Host, weight: int) -> None:
        """
        Change the weight of a host.

        Hosts that are not members are ignored.

        @param weight: brought into the range that weights have.
        """
        if host.cluster is not self:
            return
        if host.healthy:
            self._count_health(host, -1)
        self._balancer.remove(host)
        host.weight = clamp_weight(weight)
        self._balancer.add(host)
        if host.healthy:
            self._count_health(host)
        if not self._has_room(host):
            self._suspend(host)

    def expect(self, seconds: float, like: Host | None = None) -> None:
        """
        Let requests wait, although there may be no host, because one will come.

        @param seconds: for how long, from now on.
        @param like: the host that it will be like, if that is known.
        """
        until = self._clock.seconds() + seconds
        populations: Iterable[Population] = (self._everyone,)
        if self._subsets is not None and like is not None:
            populations = self._subsets.subsets_of(like)
        for population in populations:
            population.returns_until = max(population.returns_until, until)

    def set_health(self, host: Host, healthy: bool, reason: str = "", fault: Fault = Fault.ORDERED) -> None:
        """
        Say whether a host may be picked.

        Hosts that are not members are ignored.

        @param fault: what is wrong with it, or is not any more; it is healthy
            when nothing is.
        """
        if host.cluster is not self:
            return
        host.faults = host.faults & ~fault if healthy else host.faults | fault
        if host.healthy is (not host.faults):
            if healthy and host.faults and not self._ended:
                # Left out for nothing but failures now: it may be the only one there is.
                self.ejector.settle()
            return
        host.healthy = not host.faults
        log.info(
            "cluster {cluster}: host {host} is {state}{reason}",
            cluster=self.name,
            host=host.address,
            state="healthy" if healthy else "unhealthy",
            reason=reason and f": {reason}",
        )
        if self.on_change is not None:
            self.on_change("health", host, reason)
        if self.on_health is not None:
            self.on_health(host)
        if not healthy:
            left = self._count_health(host, -1)
            self._suspend(host)
            self._settle(left)
            return
        host.healthy_since = self._clock.seconds()
        self._count_health(host)
        if self._has_room(host):
            self._offer(host)
        self.wellness.settle()

    def forget_checks(self) -> None:
        """What health checks have found does not count any more, as there are none."""
        for host in list(self.hosts.values()):
            if Fault.CHECK in host.faults:
                self.set_health(host, True, "there are no health checks any more", Fault.CHECK)

    def _settle(self, healthy: int) -> None:
        """
        See to those who wait, after a host has left or become unhealthy.

        @param healthy: how many hosts there still are, as L{_count_health} has
            it: as long as nobody has tried so many, nobody has lost hope.
        """
        if not self._ended:
            self.wellness.settle()
            if self.ejector.ejected:
                self.ejector.settle()
        if not self._waiters or healthy > self._most_tried:
            return
        hopeless = [waiter for waiter, entry in self._waiters.items() if not self._could_serve(entry.context)]
        for waiter in hopeless:
            if self._stop_waiting(waiter):
                waiter.errback(self._no_host())
        if self._subsets is not None:
            self._fall_back()

    def _fall_back(self) -> None:
        """Give hosts to those whose subset has none any more, but who may have others."""
        for waiter, entry in list(self._waiters.items()):
            if waiter in self._waiters and self.active < self._max_requests:
                host = self._choose(entry.context)
                if host is not None:
                    self._hand(waiter, host)

    # background work

    def add_task(self, task: IClusterTask) -> None:
        """Take in something that runs beside the cluster, from L{start} to L{stop}."""
        self._tasks.append(task)
        if self._running:
            task.start()

    def find_task(self, kind: type[_T]) -> _T | None:
        """Find what runs beside the cluster and is of a kind; L{None} if there is nothing."""
        return next((task for task in self._tasks if isinstance(task, kind)), None)

    def remove_task(self, task: IClusterTask) -> None:
        """
        Let something run no more.

        @raise ValueError: if it is not known.
        """
        self._tasks.remove(task)
        if self._running:
            task.stop()

    def start(self) -> None:
        """Begin what runs beside the cluster."""
        if not self._running and not self._ended:
            self._running = True
            for task in self._tasks:
                task.start()

    def stop(self) -> None:
        """End it."""
        if self._running:
            self._running = False
            for task in self._tasks:
                task.stop()

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
        self.stop()
        self._everyone.returns_until = 0.0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            waiter = next(iter(self._waiters))
            self._stop_waiting(waiter)
            waiter.errback(self._no_host())


def _told_of(host: Host) -> dict[str, str]:
    """Fields of a line of the log that say whose host this is: what is proved, and what is claimed."""
    identity = host.identity
    if identity is None:
        name = shorten(host.hostname)
        return {"who": f" ({name})" if name else "", "hostname": name}
    return {
        "who": f" of {identity}",
        "identity": identity.principal,
        "agent_id": identity.agent_id,
        "claimed_host_name": shorten(identity.claim),
    }


def _suits(host: Host, context: PickContext) -> bool:
    """Whether a request may be given to a host that has become free."""
    return (
        host not in context.tried
        and (context.only is None or context.only is host)
        and (context.among is None or host in context.among)
    )


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

    def remove(self, name: str) -> Cluster:
        """
        Take a cluster out, which goes on with what it has.

        @raise ClusterUnknown: if there is none of this name.
        """
        cluster = self.get(name)
        del self._clusters[name]
        return cluster

    def get(self, name: str) -> Cluster:
        """
        Find a cluster.

        @raise ClusterUnknown: if there is none of this name.
        """
        try:
            return self._clusters[name]
        except KeyError:
            raise ClusterUnknown(f"there is no cluster {name!r}") from None

    def start(self) -> None:
        """Begin what runs beside the clusters; see L{Cluster.start}."""
        for cluster in self:
            cluster.start()

    def stop(self) -> None:
        """End it; see L{Cluster.stop}."""
        for cluster in self:
            cluster.stop()

    def drain(self) -> None:
        """Drain all clusters; see L{Cluster.drain}."""
        for cluster in self:
            cluster.drain()

    def close(self, reason: str) -> None:
        """Close all clusters; see L{Cluster.close}."""
        for cluster in self:
            cluster.close(reason)
