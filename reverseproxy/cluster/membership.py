"""Who belongs to a cluster, and who of them is healthy."""

from __future__ import annotations

__all__ = ["Members"]

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.balancers.subsets import Population, SubsetBalancer
from reverseproxy.cluster.health.ejection import Ejector
from reverseproxy.cluster.health.gateways import Gateways
from reverseproxy.cluster.health.outcome import Outcome
from reverseproxy.cluster.health.service_health import ServiceHealth
from reverseproxy.cluster.health.unreachable import UnreachableHosts
from reverseproxy.cluster.host import Fault, Host, clamp_weight
from reverseproxy.cluster.membership_log import log_health, log_joined, log_left
from reverseproxy.cluster.protocol_support import ProtocolSupportTable
from reverseproxy.cluster.tasks import Tasks
from reverseproxy.interfaces import ILoadBalancer, PickContext

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import EwmaTracker
    from reverseproxy.cluster.cluster import Cluster
    from reverseproxy.cluster.queue import Labels
    from reverseproxy.config.models import ClusterConfig


class Members:
    """
    The hosts of one cluster, its load balancer, and what tracks the hosts' health.

    @ivar hosts: the members by address.
    @ivar joined: the number of hosts that have ever joined.
    @ivar left: the number of hosts that have ever left.
    @ivar ended: how the cluster has ended, for messages; empty as long as it has not.
    @ivar balancer: the load balancer, which chooses among hosts with free capacity.
    @ivar subsets: the balancer, if there are subsets; else L{None}.
    @ivar tracker: what the balancer goes by, if it goes by how quickly hosts answer.
    @ivar everyone: the number of healthy members, and until when one is expected to join.
    @ivar tasks: the background tasks.
    @ivar ejector: outlier detection, which ejects members that fail.
    @ivar gateways: ejects hosts of agents that answer with gateway errors.
    @ivar service_health: marks members unhealthy whose agents can't reach their service.
    @ivar unreachable: the members that can't be connected to.
    @ivar protocol_support: the protocols that members speak.
    """

    balancer: ILoadBalancer
    subsets: SubsetBalancer | None
    tracker: EwmaTracker | None
    everyone: Population

    def __init__(self, cluster: Cluster, config: ClusterConfig, clock: IReactorTime) -> None:
        self.hosts: dict[str, Host] = {}
        self.joined = 0
        self.left = 0
        self.ended = ""
        self.tasks = Tasks()
        self._cluster = cluster
        self._clock = clock
        self.config = config
        self.unreachable = UnreachableHosts(config.name, clock.seconds)
        self.ejector = Ejector(cluster, config.outlier_detection, clock)
        self.service_health = ServiceHealth(cluster, clock)
        self.protocol_support = ProtocolSupportTable(clock.seconds)
        self.gateways = Gateways(cluster)

    def install(self, balancer: ILoadBalancer, tracker: EwmaTracker | None) -> None:
        """Use a load balancer from now on."""
        self.balancer = balancer
        self.tracker = tracker
        self.subsets = balancer if isinstance(balancer, SubsetBalancer) else None
        self.everyone = Population() if self.subsets is None else self.subsets.everyone

    def reinstall(self, balancer: ILoadBalancer, tracker: EwmaTracker | None) -> None:
        """Replace the load balancer by a new one, to which the members are added."""
        returns_until = self.everyone.returns_until
        self.install(balancer, tracker)
        self.everyone.returns_until = max(returns_until, self.everyone.returns_until)
        for host in self.hosts.values():
            balancer.add(host)
            if host.healthy:
                self.count_health(host)
            if not self._cluster.has_room(host):
                balancer.suspend(host)

    def configure(self, config: ClusterConfig) -> None:
        """Apply another configuration."""
        self.config = config
        self.ejector.configure(config.outlier_detection)
        watches = self.tracker is not None or self.ejector.watches_answers
        self.gateways.configure(config.outlier_detection.consecutive_gateway_errors, watches)

    def settle(self) -> None:
        """Update all members, and serve waiting requests, after the configuration has changed."""
        cluster = self._cluster
        for host in list(self.hosts.values()):
            host.max_connections = cluster.limits.max_connections
            if cluster.waiting and cluster.has_room(host):
                self.balancer.suspend(host)
                cluster.queue.offer(host)
        if self.ejector.ejected:
            self.ejector.settle()

    def note(self, host: Host, outcome: Outcome, seconds: float) -> None:
        """Take in the outcome of a request to a member, or of a connect."""
        if self.tracker is not None:
            self.tracker.note(host, outcome, seconds)
        if host.server:
            host.judge(outcome)
        else:
            self.ejector.note(host, outcome)
        if outcome is Outcome.CONNECTED and self.unreachable.hosts:
            self.unreachable.reached(host)

    def add(self, host: Host) -> None:
        """
        Add a host.

        A member with the same address is replaced, and closed.

        @raise ValueError: if the host is a member of a cluster.
        """
        if host.cluster is not None:
            raise ValueError(f"{host.address} is a member of cluster {host.cluster.name} already")
        if self.ended:
            host.close(f"cluster {self._cluster.name} is {self.ended}")
            return
        old = self.hosts.get(host.address)
        if old is not None:
            reason = "replaced by a new connection from the same address"
            self.forget(old, reason)
            old.close(reason)
        host.cluster = self._cluster
        host.healthy_since = self._clock.seconds()
        host.max_connections = self._cluster.limits.max_connections
        self.hosts[host.address] = host
        self.joined += 1
        self.balancer.add(host)
        if host.healthy:
            self.count_health(host)
        elif not host.health.faults:
            host.set_fault(Fault.ORDERED, True)
        log_joined(self._cluster, host)
        self.service_health.joined(host)
        self.protocol_support.joined(host)
        if self._cluster.on_change is not None:
            self._cluster.on_change("join", host, "")
        for task in self.tasks:
            task.joined(host)
        if not self._cluster.has_room(host):
            self.balancer.suspend(host)
        elif self._cluster.waiting:
            self.balancer.suspend(host)
            self._cluster.queue.offer(host)

    def remove(self, host: Host, reason: str = "removed") -> None:
        """
        Remove a host.

        It gets no further request; its requests in progress are finished.  Hosts that are
        not members are ignored.
        """
        if host.cluster is not self._cluster:
            return
        healthy = self.forget(host, reason)
        if not host.closed:
            host.retire()
        self._settle(healthy)

    def replace(self, old: Host, new: Host, reason: str) -> None:
        """
        Replace a host by another one, perhaps at the same address.

        The old one finishes its requests in progress; waiting requests wait for the new one.

        @raise ValueError: if the old one is not a member.
        """
        if old.cluster is not self._cluster:
            raise ValueError(f"{old.address} is no member of cluster {self._cluster.name}")
        if Fault.CHECK in old.health.faults:
            new.set_fault(Fault.CHECK, True)
        self.forget(old, reason)
        self.add(new)
        if not old.closed:
            old.retire()
        self._settle(0)

    def forget(self, host: Host, reason: str) -> int:
        """
        Remove a host from the cluster without closing it.

        @return: as for L{count_health}; C{sys.maxsize} if the host was not healthy.
        """
        del self.hosts[host.address]
        host.cluster = None
        self.left += 1
        healthy = self.count_health(host, -1) if host.healthy else sys.maxsize
        if host.is_reverse and not self.ended:
            self.expect(self.config.connect_timeout, host)
        self.balancer.remove(host)
        self.ejector.forget(host)
        self.service_health.forget(host)
        self.gateways.forget(host)
        self.unreachable.forget(host)
        for task in self.tasks:
            task.left(host)
        log_left(self._cluster, host, reason)
        if self._cluster.on_change is not None:
            self._cluster.on_change("leave", host, reason)
        return healthy

    def count_health(self, host: Host, change: int = 1) -> int:
        """
        Count a host that has become healthy (C{change} 1) or unhealthy (-1).

        @return: the number of healthy hosts that could serve the same requests; of several
            subsets, that of the smallest.
        """
        if self.subsets is None:
            self.everyone.healthy += change
            return self.everyone.healthy
        fewest = sys.maxsize
        for subset in self.subsets.subsets_of(host):
            subset.healthy += change
            fewest = min(fewest, subset.healthy)
        return fewest

    def weigh(self, host: Host, weight: int) -> None:
        """
        Change the weight of a host.

        Hosts that are not members are ignored.

        @param weight: clamped to the range of weights.
        """
        weight = clamp_weight(weight, host.max_weight)
        if host.cluster is not self._cluster or host.weight == weight:
            return
        if host.healthy:
            self.count_health(host, -1)
        self.balancer.remove(host)
        host.weight = weight
        self.balancer.add(host)
        if host.healthy:
            self.count_health(host)
        if not self._cluster.has_room(host):
            self.balancer.suspend(host)
        if self._cluster.on_weight is not None:
            self._cluster.on_weight(host)

    def set_capacity(self, host: Host, capacity: int | None) -> None:
        """
        Set how many requests a host can carry at once.

        Connection pools call this when they learn it from the protocol: for one that
        needs a connection for each request, it is C{max_connections}, and further requests
        wait in the queue.  Hosts that are not members are changed, too.

        @param capacity: L{None} for any number.
        """
        before, host.capacity = host.capacity, capacity
        if host.cluster is not self._cluster or not host.healthy or host.reserved:
            return
        had_room = before is None or host.active < before
        if self._cluster.has_room(host) and not had_room:
            self._cluster.queue.offer(host)
        elif had_room and not self._cluster.has_room(host):
            self.balancer.suspend(host)

    def reserve(self, host: Host) -> None:
        """
        Give a host no further request until L{unreserve}.

        Requests may wait for it, as for a busy one.
        """
        if not host.reserved:
            had_room = self._cluster.has_room(host)
            host.reserved = True
            if had_room:
                self.balancer.suspend(host)

    def unreserve(self, host: Host) -> None:
        """End a reservation: give the host requests again."""
        if host.reserved:
            host.reserved = False
            if self._cluster.has_room(host):
                self._cluster.queue.offer(host)

    def would_take(self, host: Host, labels: Labels) -> bool:
        """Return whether a host is in the subset of requests that wait in another worker."""
        subsets = self.subsets
        return subsets is None or subsets.accepts(host, PickContext(metadata=dict(labels)))

    def expect(self, seconds: float, like: Host | None = None) -> None:
        """
        Expect a host to join, so that requests wait even if there is no healthy host.

        @param seconds: for how long from now.
        @param like: a host with the same metadata, if that is known.
        """
        until = self._clock.seconds() + seconds
        populations: Iterable[Population] = (self.everyone,)
        if self.subsets is not None and like is not None:
            populations = self.subsets.subsets_of(like)
        for population in populations:
            population.returns_until = max(population.returns_until, until)

    def set_health(self, host: Host, healthy: bool, reason: str = "", fault: Fault = Fault.ORDERED) -> None:
        """
        Set or clear one of the reasons why a host may not be picked.

        Hosts that are not members are ignored.

        @param healthy: whether the reason is cleared.
        @param fault: the reason; a host is healthy when none is set.
        """
        if host.cluster is not self._cluster:
            return
        was_healthy = host.healthy
        host.set_fault(fault, not healthy)
        if not healthy:
            host.health.why = reason
        if host.healthy is was_healthy:
            if healthy and Fault.EJECTED in host.health.faults and not self.ended:
                # Only ejected now: it may be the only host.
                self.ejector.settle()
            return
        log_health(self._cluster, host, reason)
        if self._cluster.on_change is not None:
            self._cluster.on_change("health", host, reason)
        if self._cluster.on_health is not None:
            self._cluster.on_health(host)
        if not healthy:
            left = self.count_health(host, -1)
            self.balancer.suspend(host)
            self._settle(left)
            return
        host.healthy_since = self._clock.seconds()
        self.count_health(host)
        if self._cluster.has_room(host):
            self._cluster.queue.offer(host)
        self.service_health.settle()

    def forget_checks(self) -> None:
        """Clear the results of health checks, as there are none any more."""
        for host in list(self.hosts.values()):
            if Fault.CHECK in host.health.faults:
                self.set_health(host, True, "there are no health checks any more", Fault.CHECK)

    def _settle(self, healthy: int) -> None:
        """
        Update ejections and waiting requests after a host has left or become unhealthy.

        @param healthy: the number of healthy hosts, as L{count_health} returns it.
        """
        if not self.ended:
            self.service_health.settle()
            if self.ejector.ejected:
                self.ejector.settle()
        self._cluster.queue.fail_unservable(healthy)
