"""The base class of a cluster's hosts."""

from __future__ import annotations

__all__ = ["MAX_WEIGHT", "Host", "IHostPool", "clamp_weight"]

from abc import ABC, abstractmethod
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IProtocol,
    IProtocolFactory,
)
from zope.interface import Interface, implementer

from reverseproxy.cluster.hosts.health import HostHealth
from reverseproxy.interfaces import IHost
from reverseproxy.metrics import UNCOUNTED

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import HostLoad
    from reverseproxy.cluster.health.outcome import Outcome
    from reverseproxy.cluster.hosts.health import Fault
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.cluster.protocol_support import ProtocolSupport
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.metrics import AgentFigures, Counters, Histogram

MAX_WEIGHT: Final = 128
"""The largest weight of a host; the smallest is 1 (docs/mosn.rst, section 5)."""


def clamp_weight(weight: int, most: int = MAX_WEIGHT) -> int:
    """Clamp a weight to the range from 1 to L{MAX_WEIGHT}, or to another maximum."""
    return max(1, min(most, weight))


class IHostPool(Interface):
    """A connection pool: the connections of one protocol to one host, kept in L{Host.pools}."""

    def drain() -> None:
        """
        Close idle connections now, and busy ones when their exchange ends.

        May be called more than once.
        """

    def close() -> None:
        """Close all connections now."""


class AgentAttributes:
    """
    The attributes of a host that depend on its agent, with their values for a host without one.

    They are no properties, as they are read for each request.
    """

    __slots__ = ()

    identity: AgentIdentity | None = None
    """The identity of its agent; L{None} for a host without one."""

    counters: Counters = UNCOUNTED
    """What counts its requests; see L{reverseproxy.metrics.counts.ICountedHost}."""

    tells: bool = False
    """Whether its agent reports requests not sent on; see L{reverseproxy.wire.http.unsent}."""

    announced: frozenset[str] | None = None
    """The only protocols that it speaks, if its agent has announced them; else L{None}."""

    same_agent: Collection[Host] = ()
    """
    The hosts of the same agent, including this one; empty if that is not known.

    A failure of one of them is likely to affect the others.
    """

    @property
    def figures(self) -> AgentFigures | None:
        """The request counters of its agent, if there is an admin API that shows them."""
        return self.counters.agent


@implementer(IHost)
class Host(AgentAttributes, ABC):
    """
    One host of a cluster.

    Only the cluster changes C{active}, C{healthy}, C{health}, C{healthy_since} and
    C{cluster}.  The state of a host's health and load is kept in the host, and is
    forgotten with it.

    @ivar address: the address string, unique in its cluster.
    @ivar hostname: a name for humans; may be empty.
    @ivar weight: 1 to L{max_weight}.
    @ivar metadata: labels, which subsets select hosts by.
    @ivar healthy: whether it may be picked.
    @ivar health: why not, if it may not; L{set_fault} updates both.
    @ivar healthy_since: when it joined, or became healthy after that, in the
        clock's seconds.
    @ivar active: requests or sessions in progress on it.
    @ivar picked: the number of requests and sessions that it has been given.
    @ivar capacity: the most requests or sessions at once; L{None} for any number.
    @ivar connections: connections to it that are open, or being made.
    @ivar max_connections: the most of these; 0 for any number.
    @ivar load: the response times and error rates for LB_PEAK_EWMA.
    @ivar pools: its connection pools, by the protocol's name.
    @ivar sends_proxy_header: whether connections to it begin with a header of PROXY protocol, so that
        each is for one client.
    @ivar committed_protocol: the protocol that its only connection has been used for, if that
        is known from another process; else empty.
    @ivar closed: whether it can't be used any more.
    @ivar retired: whether it has left its cluster, and only finishes its requests in
        progress.
    @ivar cluster: the cluster that it is a member of now; L{None} for none.
    @ivar protocol_support: which protocols it speaks, if it is known not to speak all; see
        L{reverseproxy.cluster.protocol_support}.
    @cvar is_reverse: whether an agent has dialled its connection, and so is likely to dial
        again soon after that is lost.
    @cvar exclusive: whether this kind of host has a single connection, which it leases to one
        protocol at a time, and leaves its cluster when that is lost.
    @cvar server: the id of the fleet's server that the agent is connected to; empty for this one.
    @cvar max_weight: the largest weight of this kind of host.
    @ivar reserved: whether it gets no requests for now, such as while another worker has
        its connection; changed by the cluster only.
    """

    sends_proxy_header = False

    __slots__ = (
        "active",
        "address",
        "capacity",
        "closed",
        "cluster",
        "committed_protocol",
        "connections",
        "health",
        "healthy",
        "healthy_since",
        "hostname",
        "load",
        "max_connections",
        "metadata",
        "picked",
        "pools",
        "protocol_support",
        "reserved",
        "retired",
        "weight",
    )

    is_reverse = False
    exclusive = False
    server = ""
    max_weight = MAX_WEIGHT

    def __init__(
        self,
        address: str,
        hostname: str = "",
        weight: int = 1,
        metadata: Mapping[str, str] | None = None,
        capacity: int | None = None,
    ) -> None:
        self.address = address
        self.hostname = hostname
        self.weight = clamp_weight(weight, self.max_weight)
        self.metadata: Mapping[str, str] = {} if metadata is None else metadata
        self.capacity = capacity
        self.healthy = True
        self.health = HostHealth()
        self.healthy_since = 0.0
        self.active = 0
        self.picked = 0
        self.connections = 0
        self.max_connections = 0
        self.load: HostLoad | None = None
        self.pools: dict[str, IHostPool] = {}
        self.committed_protocol = ""
        self.closed = False
        self.retired = False
        self.reserved = False
        self.cluster: Cluster | None = None
        self.protocol_support: ProtocolSupport | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address} {self.state}>"

    def set_fault(self, fault: Fault, present: bool) -> None:
        """
        Set or clear a reason why the host may not be picked.

        Members of a cluster are changed by L{Cluster.set_health}, which calls this.
        """
        health = self.health
        health.faults = health.faults | fault if present else health.faults & ~fault
        self.healthy = not health.faults

    @property
    def is_remote(self) -> bool:
        """Whether another worker, or another server, has its connection."""
        return False

    @property
    def single_use(self) -> bool:
        """Whether a connection to it carries one request only, as it might be closed just before another."""
        return False

    def on_behalf(self, client: str) -> None:
        """
        Name the client of the next connection, if that is for one client; called right before L{connect}.

        @param client: the client's address.
        """

    def judge(self, outcome: Outcome) -> None:
        """Forward an outcome to the server that tracks this host; see L{Cluster.report}."""

    @property
    def state(self) -> str:
        """One word for logs: closed, retired, unhealthy, busy or idle."""
        if self.closed:
            return "closed"
        if self.retired:
            return "retired"
        if not self.healthy:
            return "unhealthy"
        return "busy" if self.active else "idle"

    @property
    def rtt(self) -> float | None:
        """The round-trip time in seconds, if it is measured without requests; else L{None}."""
        return None

    @property
    def transport(self) -> Any:
        """The single connection to the host; L{None} if it has none, or several."""
        return None

    def measure(self, times: Histogram) -> None:
        """Record round-trip times from now on, if they are measured without requests."""

    @property
    def unanswered(self) -> float:
        """For how many seconds a ping to the host has not been answered; 0 if none is pending."""
        return 0.0

    def can_send_proxy_header(self) -> bool:
        """Return whether L{connect_for} can be called."""
        return False

    def connect_for(self, header: bytes, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect as L{connect} does, for one client.

        @param header: the PROXY protocol header, which begins the connection before TLS.
        """
        raise NotImplementedError

    @abstractmethod
    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect a protocol, like L{IStreamClientEndpoint}.

        @return: fails with L{HostGone} if the host can't be used any more.
        """

    def connect_check(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect a protocol for a health check.

        @return: as for L{connect}.
        """
        return self.connect(factory)

    def may_connect(self) -> bool:
        """
        Return whether C{max_connections} allows another connection.

        Pools call this before they connect.
        """
        return not self.max_connections or self.connections < self.max_connections

    def connection_opened(self) -> None:
        """Count a connection that a pool begins to make."""
        self.connections += 1

    def connection_closed(self) -> None:
        """
        Count a connection that is lost, is being closed or could not be made.

        Called once for each L{connection_opened}.
        """
        self.connections -= 1

    def note_wait(self, waits: bool) -> None:
        """Take note that sent bytes stay unacknowledged, or that all have been acknowledged."""

    def usable(self) -> bool:
        """Return whether the host is neither closed nor retired, nor about to be."""
        return not self.closed and not self.retired

    def renew(self) -> None:
        """Use new connections for further requests, as settings have changed; drain the old ones."""
        pools, self.pools = self.pools, {}
        for pool in pools.values():
            pool.drain()

    def retire(self) -> None:
        """
        Finish requests in progress, and then close.

        Called when the host has left its cluster, and again whenever it has become idle
        after that.
        """
        self.retired = True
        for pool in list(self.pools.values()):
            pool.drain()

    def close(self, reason: str) -> None:
        """
        Close all connections now; requests in progress fail.

        @param reason: why, for logs.
        """
        if not self.closed:
            self.closed = True
            self._close_pools()

    def _close_pools(self) -> None:
        pools, self.pools = self.pools, {}
        for pool in pools.values():
            pool.close()
