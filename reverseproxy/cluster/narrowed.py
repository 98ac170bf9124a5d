"""
What a request needs of a cluster, and clusters of which only some hosts will do.

A request finds its cluster by the name that its route has (L{IClusters}).  What
another worker or another server sends on to an agent has no such choice: it is
for this agent, whatever else the cluster has.  A L{NarrowedCluster} gives it the
cluster with fewer hosts, so that limits, queue and health are the cluster's.
"""

from __future__ import annotations

__all__ = ["ICluster", "IClusters", "NarrowedCluster", "SingleCluster"]

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from twisted.internet.defer import Deferred

    from reverseproxy.cluster.cluster import Cluster
    from reverseproxy.cluster.health.outcome import Outcome
    from reverseproxy.cluster.health.service_health import ServiceHealth
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.membership import Members
    from reverseproxy.config.models import ClusterConfig
    from reverseproxy.interfaces import PickContext


class ICluster(Protocol):
    """What a request needs of a cluster; see L{reverseproxy.cluster.cluster.Cluster}."""

    @property
    def name(self) -> str:
        """The cluster's name."""

    @property
    def config(self) -> ClusterConfig:
        """Its configuration."""

    @property
    def members(self) -> Members:
        """All that concerns its hosts."""

    @property
    def service_health(self) -> ServiceHealth:
        """Leaves members out whose agents can't reach their service."""

    @property
    def watches_answers(self) -> bool:
        """Whether answers are to be reported, rather than connects only."""

    def acquire(self, context: PickContext | None = None) -> Host | None:
        """Take a host, if one is free."""

    def wait(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """Take a host as soon as one is free."""

    def release(self, host: Host) -> None:
        """Give a host back."""

    def report(self, host: Host, outcome: Outcome, seconds: float = 0.0) -> None:
        """Tell how it went with a host."""

    def has_others(self, context: PickContext) -> bool:
        """Whether there are hosts that have not been tried."""

    def exclude_agent(self, host: Host, context: PickContext) -> None:
        """Try no other host of the same agent."""

    def exclude_unsent(self, host: Host, context: PickContext) -> None:
        """Try no other host that can't send the request on, either."""

    def try_retry(self) -> bool:
        """Begin a retry, if the cluster may have another one."""

    def end_retry(self) -> None:
        """End a retry."""


class IClusters(Protocol):
    """Clusters by name; see L{reverseproxy.cluster.manager.ClusterManager}."""

    def get(self, name: str) -> ICluster:
        """
        Find a cluster.

        @raise ClusterUnknown: if there is none of this name.
        """


class NarrowedCluster(ABC):
    """A cluster of which only some hosts will do; a subclass says which."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.name = cluster.name
        self.members = cluster.members
        self.service_health = cluster.service_health
        self.release = cluster.release
        self.report = cluster.report
        self.exclude_agent = cluster.exclude_agent
        self.exclude_unsent = cluster.exclude_unsent
        self.try_retry = cluster.try_retry
        self.end_retry = cluster.end_retry

    @abstractmethod
    def narrow(self, context: PickContext | None) -> PickContext:
        """
        Say which hosts will do.

        @param context: what the request demands.
        @raise PickFailed: if there are none.
        """

    @abstractmethod
    def has_others(self, context: PickContext) -> bool:
        """See L{ICluster.has_others}."""

    @property
    def config(self) -> ClusterConfig:
        """See L{ICluster.config}."""
        return self._cluster.config

    @property
    def watches_answers(self) -> bool:
        """See L{ICluster.watches_answers}."""
        return self._cluster.watches_answers

    def acquire(self, context: PickContext | None = None) -> Host | None:
        """See L{ICluster.acquire}."""
        return self._cluster.acquire(self.narrow(context))

    def wait(self, context: PickContext | None, timeout: float) -> Deferred[Host]:
        """See L{ICluster.wait}."""
        return self._cluster.wait(self.narrow(context), timeout)


class SingleCluster:
    """One cluster, under any name."""

    def __init__(self, find: Callable[[], ICluster]) -> None:
        """
        @param find: finds it; may raise L{ClusterUnknown}.
        """
        self._find = find

    def get(self, name: str) -> ICluster:
        """See L{IClusters.get}."""
        return self._find()
