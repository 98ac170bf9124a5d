"""What every host of a cluster is."""

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

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import HostLoad
    from reverseproxy.cluster.health.outcome import Outcome
    from reverseproxy.cluster.hosts.health import Fault
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.cluster.protocol_support import ProtocolSupport
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.metrics import AgentFigures, Histogram

MAX_WEIGHT: Final = 128
"""The largest weight of a host; the smallest is 1 (docs/mosn.rst 5)."""


def clamp_weight(weight: int, most: int = MAX_WEIGHT) -> int:
    """Bring a weight into the range from 1 to L{MAX_WEIGHT}, or to another maximum."""
    return max(1, min(most, weight))


class IHostPool(Interface):
    """Connections of one protocol to one host, kept in L{Host.pools}."""

    def drain() -> None:
        """
        Close idle connections now, and busy ones when their exchange ends.

        May be called more than once.
        """

    def close() -> None:
        """Close all connections now."""


@implementer(IHost)
class Host(ABC):
    """
    One host of a cluster.

    C{active}, C{healthy}, C{health}, C{healthy_since} and C{cluster} are the
    cluster's to change.  All that is known of a host's health and load is kept
    with the host, and is gone with it.

    @ivar address: the address string, unique in its cluster.
    @ivar hostname: a name for humans; may be empty.
    @ivar weight: 1 to 128.
    @ivar metadata: labels.
    @ivar healthy: whether it may be picked.
    @ivar health: why not, if it may not; L{set_fault} keeps both together.
    @ivar healthy_since: when it joined, or became healthy after that, in the
        clock's seconds.
    @ivar active: requests or sessions under way on it.
    @ivar picked: how many there have been since it is there.
    @ivar capacity: how many of them it can carry at once; L{None}: any number.
    @ivar connections: connections to it that are open, or being made.
    @ivar max_connections: how many of them there may be; 0 for any number.
    @ivar load: what LB_PEAK_EWMA knows of it.
    @ivar pools: the connection pools of protocols, by the protocol's name.
    @ivar sends_proxy_header: whether connections to it begin with a header of PROXY protocol, so that
        each is for one client.
    @ivar committed_protocol: the protocol that its connection is committed to, if it has but
        one and that is known otherwise than by C{pools}; else empty.
    @ivar closed: whether it can't be used any more.
    @ivar retired: whether it has left its cluster, and only finishes what it
        has begun.
    @ivar cluster: the cluster that it is a member of now.
    @ivar protocol_support: what protocols it speaks, if it is known not to speak all; see
        L{reverseproxy.cluster.protocol_support}.
    @cvar is_reverse: whether this kind of host tends to come back by itself soon
        after it is gone.
    @cvar exclusive: whether this kind of host has but one connection, which it
        leases to one protocol at a time, and is gone with.
    @cvar server: the id of the server of the fleet that has its agent; empty for this one.
    @ivar reserved: whether it is given no request for now, such as while another
        worker has its connection; the cluster's to change.
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
        Note that there is a reason why the host may not be picked, or is not any more.

        The cluster has to be told of it; see L{Cluster.set_health}.
        """
        health = self.health
        health.faults = health.faults | fault if present else health.faults & ~fault
        self.healthy = not health.faults

    # what agents say of themselves, for hosts that have one; see L{AgentHost}

    @property
    def identity(self) -> AgentIdentity | None:
        """Who has brought it; L{None} for a host that no agent has."""
        return None

    @property
    def figures(self) -> AgentFigures | None:
        """What counts the requests that go to its agent, if anybody may ask."""
        return None

    @property
    def tells(self) -> bool:
        """Whether its agent says which requests it has not sent on; see L{reverseproxy.wire.http.unsent}."""
        return False

    @property
    def announced(self) -> frozenset[str] | None:
        """The protocols that it speaks, and no others, if its agent has said so."""
        return None

    @property
    def same_agent(self) -> Collection[Host]:
        """
        Hosts of the same agent, itself among them, where that is known.

        What ends one of them may well end the others.
        """
        return ()

    @property
    def is_remote(self) -> bool:
        """Whether another worker, or another server, has its connection."""
        return False

    @property
    def single_use(self) -> bool:
        """Whether a connection to it is for one request only, as it might be closed just before another."""
        return False

    def on_behalf(self, client: str) -> None:  # noqa: B027 - most hosts need not know
        """
        Say who the next connection is made for, if it is for one client alone, right before L{connect}.

        @param client: the address of who has the session.
        """

    def judge(self, outcome: Outcome) -> None:  # noqa: B027 - for hosts of other servers
        """Tell whoever judges the host how it went, if that is not its cluster; see L{Cluster.report}."""

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
        """Seconds to the host and back, if that is known without a request."""
        return None

    @property
    def transport(self) -> Any:
        """The one connection to the host; L{None} if there is no such one."""
        return None

    def measure(self, times: Histogram) -> None:  # noqa: B027 - most hosts have nothing to measure
        """Count from now on how long it takes to the host and back, where that is known without a request."""

    @property
    def unanswered(self) -> float:
        """For how many seconds the host has not answered a question whether it is there."""
        return 0.0

    def can_send_proxy_header(self) -> bool:
        """Whether L{connect_for} can be called."""
        return False

    def connect_for(self, header: bytes, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        As L{connect}, for one client.

        @param header: begins the connection, before TLS.
        """
        raise NotImplementedError

    @abstractmethod
    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect a protocol, as L{IStreamClientEndpoint} has it.

        @return: fails with L{HostGone} if the host can't be used any more.
        """

    def connect_check(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Connect a protocol that checks the host's health by its own protocol.

        @return: as for L{connect}.
        """
        return self.connect(factory)

    def may_connect(self) -> bool:
        """
        Say whether another connection may be made, by the cluster's C{max_connections}.

        Pools ask before they connect.
        """
        return not self.max_connections or self.connections < self.max_connections

    def connection_opened(self) -> None:
        """A pool begins to make a connection."""
        self.connections += 1

    def connection_closed(self) -> None:
        """
        A connection is lost, is being closed or could not be made.

        Called once for each L{connection_opened}.
        """
        self.connections -= 1

    def note_wait(self, waits: bool) -> None:  # noqa: B027
        """Something that was sent to it has not been acknowledged for a moment, or all has been."""

    def usable(self) -> bool:
        """Look whether the host can take another request."""
        return not self.closed and not self.retired

    def renew(self) -> None:
        """Begin new connections for further requests, as their settings have changed; finish the old ones."""
        pools, self.pools = self.pools, {}
        for pool in pools.values():
            pool.drain()

    def retire(self) -> None:
        """
        Finish what is under way, and then close.

        Called when the host has left its cluster, and once more whenever it has
        become idle after that.
        """
        self.retired = True
        for pool in list(self.pools.values()):
            pool.drain()

    def close(self, reason: str) -> None:
        """
        Close all connections now; what is under way fails.

        @param reason: why, for logs.
        """
        if not self.closed:
            self.closed = True
            self._close_pools()

    def _close_pools(self) -> None:
        pools, self.pools = self.pools, {}
        for pool in pools.values():
            pool.close()
