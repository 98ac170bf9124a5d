"""
Hosts: what a cluster's requests are given to.

A L{StaticHost} dials.  A L{ReverseHost} has one connection, dialled by an agent,
and leases it to one protocol at a time.  Nobody above needs to know which.
"""

from __future__ import annotations

__all__ = [
    "MAX_WEIGHT",
    "Fault",
    "HeldConnection",
    "Host",
    "IDetachable",
    "IHostPool",
    "MuxHost",
    "ReverseHost",
    "StaticHost",
    "clamp_weight",
]

import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping
from enum import IntFlag
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
    IStreamClientEndpoint,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import Interface, implementer

from reverseproxy.cluster.handover import Handover, IDetachable
from reverseproxy.errors import ConnectionUnavailable, HostGone
from reverseproxy.interfaces import IHost
from reverseproxy.logs import loss
from reverseproxy.mux.session import MuxSession, StreamRefused
from reverseproxy.patience import give_time
from reverseproxy.wire.mosn.marks import CARRIED, NOT_CARRIED

if TYPE_CHECKING:
    from reverseproxy.cluster.balancers.peak_ewma import HostLoad
    from reverseproxy.cluster.health.checks import HostCheck
    from reverseproxy.cluster.health.ejection import FailureRecord
    from reverseproxy.cluster.health.outcome import Outcome
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.cluster.tongues import Tongue
    from reverseproxy.config.models import HostConfig
    from reverseproxy.identity import AgentIdentity
    from reverseproxy.metrics import AgentFigures, Histogram

log = Logger()

MAX_WEIGHT: Final = 128
"""The largest weight of a host; the smallest is 1 (docs/mosn.rst 5)."""


WELL_PAUSE: Final = 0.25
"""Seconds between two changes of mind of an agent that are heard; the last one always is."""


def clamp_weight(weight: int) -> int:
    """Bring a weight into the range from 1 to L{MAX_WEIGHT}."""
    return max(1, min(MAX_WEIGHT, weight))


class Fault(IntFlag):
    """Why a host is not healthy; it may be for several reasons at once."""

    ORDERED = 1
    """Someone said so."""

    CHECK = 2
    """It fails its health checks."""

    EJECTED = 4
    """It has failed too many requests, or connects, in a row."""

    SERVICE = 8
    """Its agent can't reach its service; see L{reverseproxy.cluster.health.wellness}."""


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

    C{active}, C{healthy}, C{faults}, C{healthy_since} and C{cluster} are the
    cluster's to change.  All that is known of a host's health and load is kept
    with the host, and is gone with it.

    @ivar address: the address string, unique in its cluster.
    @ivar hostname: a name for humans; may be empty.
    @ivar weight: 1 to 128.
    @ivar metadata: labels.
    @ivar healthy: whether it may be picked.
    @ivar faults: why not, if it may not.
    @ivar healthy_since: when it joined, or became healthy after that, in the
        clock's seconds.
    @ivar active: requests or sessions under way on it.
    @ivar picked: how many there have been since it is there.
    @ivar capacity: how many of them it can carry at once; L{None}: any number.
    @ivar connections: connections to it that are open, or being made.
    @ivar max_connections: how many of them there may be; 0 for any number.
    @ivar load: what LB_PEAK_EWMA knows of it.
    @ivar record: how often it has failed in a row, if at all.
    @ivar check: its active health check.
    @ivar pools: the connection pools of protocols, by the protocol's name.
    @ivar introduces: whether connections to it begin with a header of PROXY protocol, so that
        each is for one client.
    @ivar committed_protocol: the protocol that its connection is committed to, if it has but
        one and that is known otherwise than by C{pools}; else empty.
    @ivar closed: whether it can't be used any more.
    @ivar retired: whether it has left its cluster, and only finishes what it
        has begun.
    @ivar cluster: the cluster that it is a member of now.
    @ivar identity: who has brought it; L{None} for a host that no agent has.
    @ivar figures: counts the requests that go to its agent, if anybody may ask.
    @ivar tells: whether its agent says which requests it has not sent on; see
        L{reverseproxy.wire.http.unsent}.
    @ivar announced: the protocols that it speaks, and no others, if its agent has said so.
    @ivar tongue: what protocols it speaks, if it is known not to speak all; see
        L{reverseproxy.cluster.tongues}.
    @ivar well: whether its agent can reach its service, by all that it has said.
    @ivar same_agent: hosts of the same agent, itself among them, where that is known:
        what ends one of them may well end the others.
    @cvar is_reverse: whether this kind of host tends to come back by itself soon
        after it is gone.
    @cvar exclusive: whether this kind of host has but one connection, which it
        leases to one protocol at a time, and is gone with.
    @cvar server: the id of the server of the fleet that has its agent; empty for this one.
    @ivar reserved: whether it is given no request for now, such as while another
        worker has its connection; the cluster's to change.
    """

    introduces = False

    __slots__ = (
        "active",
        "address",
        "announced",
        "capacity",
        "check",
        "closed",
        "cluster",
        "committed_protocol",
        "connections",
        "faults",
        "figures",
        "healthy",
        "healthy_since",
        "hostname",
        "identity",
        "load",
        "max_connections",
        "metadata",
        "picked",
        "pools",
        "record",
        "reserved",
        "retired",
        "same_agent",
        "tells",
        "tongue",
        "weight",
        "well",
    )

    is_reverse = False
    exclusive = False
    server = ""

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
        self.weight = clamp_weight(weight)
        self.metadata: Mapping[str, str] = {} if metadata is None else metadata
        self.capacity = capacity
        self.healthy = True
        self.faults = Fault(0)
        self.healthy_since = 0.0
        self.active = 0
        self.picked = 0
        self.connections = 0
        self.max_connections = 0
        self.load: HostLoad | None = None
        self.record: FailureRecord | None = None
        self.check: HostCheck | None = None
        self.pools: dict[str, IHostPool] = {}
        self.committed_protocol = ""
        self.closed = False
        self.retired = False
        self.reserved = False
        self.cluster: Cluster | None = None
        self.identity: AgentIdentity | None = None
        self.figures: AgentFigures | None = None
        self.tells = False
        self.well = True
        self.announced: frozenset[str] | None = None
        self.tongue: Tongue | None = None
        self.same_agent: Collection[Host] = ()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.address} {self.state}>"

    @property
    def relayed(self) -> bool:
        """Whether another worker, or another server, has its connection."""
        return False

    def on_behalf(self, client: str, trace: str) -> None:  # noqa: B027 - most hosts need not know
        """
        Say who the next connection is made for, right before L{connect}.

        @param client: the address of who has sent the request, or has the session.
        @param trace: the id of its trace; empty without one.
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

    def can_introduce(self) -> bool:
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


class StaticHost(Host):
    """A host that is dialled."""

    __slots__ = ("_check_endpoint", "_clock", "_connect_timeout", "_endpoint", "_introduce", "introduces")

    def __init__(
        self,
        config: HostConfig,
        endpoint: IStreamClientEndpoint,
        clock: IReactorTime,
        connect_timeout: float = 10.0,
        *,
        address: str = "",
        check_endpoint: IStreamClientEndpoint | None = None,
        introduce: Callable[[bytes], IStreamClientEndpoint] | None = None,
        introduces: bool = False,
    ) -> None:
        """
        @param endpoint: dials the host, with TLS if it is to be used.
        @param connect_timeout: seconds for a connection to be made, TLS
            included.
        @param address: one address of the host, if the configuration has a name
            that may have several.
        @param check_endpoint: dials the host for its health checks, if these go
            to another port.
        @param introduce: makes what dials the host, and begins with certain bytes.
        @param introduces: see L{Host}; then C{endpoint} names no client.
        """
        super().__init__(address or config.address, config.hostname, config.weight, config.metadata)
        self._endpoint = endpoint
        self._check_endpoint = endpoint if check_endpoint is None else check_endpoint
        self._clock = clock
        self._connect_timeout = connect_timeout
        self._introduce = introduce
        self.introduces = introduces

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Dial.

        @return: fails with L{ConnectionUnavailable} at the deadline, with
            L{HostGone} if the host was closed, or with the endpoint's error.
        """
        return self._dial(self._endpoint, factory)

    def connect_for(self, header: bytes, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """See L{Host.connect_for}."""
        assert self._introduce is not None
        return self._dial(self._introduce(header), factory)

    def can_introduce(self) -> bool:
        """See L{Host.can_introduce}."""
        return self._introduce is not None

    def connect_check(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """Dial the port for health checks; otherwise as L{connect}."""
        return self._dial(self._check_endpoint, factory)

    def _dial(self, endpoint: IStreamClientEndpoint, factory: IProtocolFactory) -> Deferred[IProtocol]:
        if self.closed:
            return fail(HostGone(f"{self.address} is closed"))
        dial: Deferred[IProtocol] = endpoint.connect(factory)
        return give_time(dial, self._connect_timeout, self._clock, self._too_late)

    def _too_late(self, result: IProtocol | Failure, timeout: float) -> IProtocol | Failure:
        raise ConnectionUnavailable(f"{self.address} was not connected within {timeout:g} s")


_UNCARRIED: Final = "its agent has passed nothing on"


class HeldConnection(Handover):
    """
    A L{ReverseHost}'s hold on its connection.

    Between leases it keeps what arrives, as a server may speak first, and waits
    for the connection to be lost.
    """

    _receive: Callable[[bytes], None] | None = None  # behind the mark, if one is expected
    _not_carried = False

    def __init__(self, host: ReverseHost, max_early_bytes: int) -> None:
        super().__init__()
        self._host = host
        self._max_early = max_early_bytes
        self._early: list[bytes] = []
        self._early_size = 0
        self._paused = False
        self._used = False

    def rebind(self, receive: Callable[[bytes], None]) -> None:
        """Give reads to whoever has the connection, but for the mark that may be at their beginning."""
        if self.looks:
            self._receive = receive
            receive = self._look_for_mark
        super().rebind(receive)

    def _look_for_mark(self, data: bytes) -> None:
        """See what the agent says of what was sent to it."""
        receive, self._receive = self._receive, None
        if receive is not None and data.startswith(CARRIED):
            self.looks = False
            self.rebind(receive)
            if len(data) > 1:
                receive(data[1:])
        else:
            # Not closed: whoever has the connection has to hear why from its loss.
            self._not_carried = data.startswith(NOT_CARRIED)
            self._host._leave(_UNCARRIED if self._not_carried else "its agent has not said what it sends")
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Keep what arrives before the first lease."""
        if self.looks and not self._early and not data.startswith(CARRIED):
            self._look_for_mark(data)
            return
        if self._used:
            # Nobody asked for this: the next user must not take it for an answer of his.
            self._host.close("data came while the connection was idle")
            return
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size > self._max_early and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def lease(self, inner: IProtocol) -> None:
        """Give the connection to C{inner}, with what has arrived for it."""
        if self._paused:
            # Before it is handed over, as its new user may want to pause it himself.
            self._paused = False
            self._max_early = sys.maxsize
            self.transport.resumeProducing()
            if self._host.closed:
                raise HostGone(f"{self._host.address} is gone")
        self._used = True
        early, self._early, self._early_size = self._early, [], 0
        self.hand_over(inner, b"".join(early))

    def readConnectionLost(self) -> None:
        """The agent sends no more: it may still receive what is under way."""
        self._host._leave("the agent closed its side")
        if self.inner is None:
            self._host.close("the agent closed its side")
        else:
            super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost, and with it the host."""
        # In this order, so that a user who releases the host does not get it to try again.
        self._host._lost(reason)
        super().connectionLost(Failure(StreamRefused(_UNCARRIED)) if self._not_carried else reason)
        self._early.clear()
        self._host._close_pools()


class ReverseHost(Host):
    """
    A host that an agent has brought: it leases the connection that it holds.

    Make one when the agent has been accepted, and L{attach} it, with which it
    takes the connection over.  From then on the host belongs to its cluster.

    With several workers the connection may move to another process, and come
    back: L{depart} and L{arrive}.

    @ivar away: whether another worker has the connection, or is being given it.
    @ivar fetch: asks for the connection when the host is to be connected, if it
        is away; fires when L{arrive} was called.  L{None} where nobody may pick
        a host that is away.
    """

    __slots__ = (
        "_clock",
        "_close_deadline",
        "_close_timeout",
        "_factory",
        "_held",
        "_left",
        "_on_gone",
        "_transport",
        "away",
        "fetch",
    )

    is_reverse = True
    exclusive = True

    def __init__(
        self,
        address: str,
        hostname: str,
        weight: int,
        metadata: Mapping[str, str] | None,
        transport: Any,
        on_gone: Callable[[ReverseHost, str], object],
        max_early_bytes: int = 65536,
        *,
        clock: IReactorTime,
        close_timeout: float = 5.0,
        capacity: int | None = 1,
    ) -> None:
        """
        @param transport: the connection.
        @param on_gone: called once with this host and a reason, as soon as it
            can take no further request, such as L{Cluster.remove_host}.
        @param max_early_bytes: bytes that are kept before the first lease; when
            there are more, reading is paused until then.
        @param close_timeout: seconds that the peer may take to agree to a close
            before the connection is aborted.
        """
        super().__init__(address, hostname, weight, metadata, capacity)
        self.connections = 1
        self.away = False
        self.fetch: Callable[[ReverseHost], Deferred[None]] | None = None
        self._transport = transport
        self._on_gone = on_gone
        self._clock = clock
        self._close_timeout = close_timeout
        self._close_deadline: IDelayedCall | None = None
        self._factory: IProtocolFactory | None = None
        self._left = False
        self._held = HeldConnection(self, max_early_bytes)

    @property
    def relayed(self) -> bool:
        """Whether another worker has the connection."""
        return self.away

    @property
    def state(self) -> str:
        """As for any host; leased, if an idle protocol has the connection; away, if another worker has."""
        state = super().state
        if self.away and state == "idle":
            return "away"
        return "leased" if state == "idle" and self._held.inner is not None else state

    @property
    def transport(self) -> Any:
        """The connection, if it is here."""
        return self._transport

    def expect_mark(self) -> None:
        """The agent begins what it sends with a mark; see L{reverseproxy.wire.mosn.marks}."""
        self._held.looks = True

    @property
    def marked(self) -> bool:
        """Whether what the agent sends begins with a mark that has not been taken yet."""
        return self._held.looks

    @property
    def used(self) -> bool:
        """Whether it has ever been leased."""
        return self._held._used

    def attach(self, owner: Handover, surplus: bytes = b"") -> None:
        """
        Take the connection over from the protocol that has it.

        @param surplus: bytes that were received already, for the first lease.
        """
        owner.hand_over(self._held, surplus)

    # from worker to worker

    @property
    def holder(self) -> Handover | None:
        """The protocol that the host has its connection from."""
        return self._held._handover

    @property
    def early(self) -> bytes:
        """What has come before the first lease."""
        return b"".join(self._held._early)

    def depart(self, on_gone: Callable[[ReverseHost, str], object]) -> None:
        """
        Let go of the connection, which somebody else has from now on.

        Nobody may have it: see L{take_back}.

        @param on_gone: takes the place of the one that was given before.
        """
        self.away = True
        self.same_agent = ()
        self._on_gone = on_gone
        self._transport = None
        self._held = HeldConnection(self, self._held._max_early)

    def arrive(
        self,
        owner: Handover,
        on_gone: Callable[[ReverseHost, str], object],
        surplus: bytes = b"",
        used: bool = False,
        marked: bool = False,
    ) -> None:
        """
        Take the connection, if the host has none.

        @param owner: the protocol that has it.
        @param on_gone: as for a new host.
        @param surplus: bytes that have come before the first lease.
        @param used: whether there was one, so that nothing may come before the next.
        @param marked: see L{marked}.
        @raise ConnectionRefusedByPeer: if the connection is lost already.
        """
        self.away = False
        self._transport = owner.transport
        self._on_gone = on_gone
        self._held = HeldConnection(self, self._held._max_early)
        self._held._used = used
        self._held.looks = marked
        self.attach(owner, surplus)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Lease the connection to a protocol, until it is lost.

        A protocol that has it already, but is idle and L{IDetachable}, is made
        to give it up.

        @return: fires at once, unless another worker has the connection; fails
            with L{HostGone} if the host can't be used any more, or is in use.
        """
        held = self._held
        if self.away and self.fetch is not None and not self.closed:
            return self.fetch(self).addCallback(lambda _: self.connect(factory))
        if self.closed or self._left or held.transport is None:
            return fail(HostGone(f"{self.address} is gone"))
        if held.inner is not None and not self._take_back():
            return fail(HostGone(f"{self.address} is in use"))
        if self.closed or self._left:  # its last protocol could not be followed by another one
            return fail(HostGone(f"{self.address} is gone"))
        try:
            factory.doStart()
            protocol = factory.buildProtocol(self._transport.getPeer())
            if protocol is None:
                factory.doStop()
                return fail(HostGone(f"no protocol wants {self.address}"))
            self._factory = factory
            held.lease(protocol)
        except HostGone as error:
            self.close(str(error))
            return fail(error)
        except Exception as error:
            log.failure("{host}: protocol failed when it was connected", host=self.address)
            self.close(f"protocol failed: {error}")
            return fail(error)
        return succeed(protocol)

    def may_connect(self) -> bool:
        """The one connection that there is may always be leased."""
        return True

    def connection_opened(self) -> None:
        """The one connection that there is has been leased."""

    def connection_closed(self) -> None:
        """The lease is over; the connection is still there, or the host is gone with it."""

    def take_back(self) -> bool:
        """
        Take the connection back from a protocol that is idle.

        @return: whether nobody has it now.
        """
        return self._held.inner is None or self._take_back()

    def _take_back(self) -> bool:
        if not self._held.take_back():
            return False
        self._end_lease()
        return True

    def _end_lease(self) -> None:
        factory, self._factory = self._factory, None
        if factory is not None:
            factory.doStop()

    def usable(self) -> bool:
        """Look whether the connection can take another request, or is being closed."""
        if getattr(self._transport, "disconnecting", False):
            self._leave("its connection is being closed")
            return False
        return not self.closed and not self.retired

    def retire(self) -> None:
        """
        Close the connection, if it is idle, at once.

        An agent that drains waits for this: it knows then that no request is on
        its way to it.
        """
        super().retire()
        if self.closed or self.active:
            return
        if self.take_back():
            self.close("retired")

    def close(self, reason: str) -> None:
        """Close the connection: at once if a protocol is busy with it."""
        if self.closed:
            return
        idle = self.take_back()
        self.closed = True
        self._leave(reason)
        self._close_pools()
        if self.away:
            return
        if idle:
            self._transport.loseConnection()
            if not self._held._lost:
                self._close_deadline = self._clock.callLater(
                    self._close_timeout, self._transport.abortConnection
                )
        else:
            self._transport.abortConnection()

    def _leave(self, reason: str) -> None:
        if not self._left:
            self._left = True
            self._on_gone(self, reason)

    def _lost(self, reason: Failure) -> None:
        self.closed = True
        if self._close_deadline is not None and self._close_deadline.active():
            self._close_deadline.cancel()
        self._leave(f"connection lost: {loss(reason)}")
        self._end_lease()


class MuxHost(Host):
    """
    A host that an agent has brought, whose connection carries many streams.

    To its cluster it is like one that is dialled, where dialling takes no time:
    each connection is a stream.  What comes first, the end of the connection or
    that the agent wants no more streams, takes it out of its cluster.
    """

    __slots__ = ("_left", "_on_gone", "_session", "_settling")

    is_reverse = True

    def __init__(
        self,
        address: str,
        hostname: str,
        weight: int,
        metadata: Mapping[str, str] | None,
        session: MuxSession,
        on_gone: Callable[[MuxHost, str], object],
    ) -> None:
        """
        @param session: the connection.
        @param on_gone: called once with this host and a reason, as soon as it
            can take no further request, such as L{Cluster.remove_host}.
        """
        super().__init__(address, hostname, weight, metadata)
        self._session = session
        self._on_gone = on_gone
        self._left = False
        self._settling: IDelayedCall | None = None
        session.on_going = self._going
        session.on_lost = self._lost

    @property
    def rtt(self) -> float | None:
        """Seconds that the last ping took, if one has been answered."""
        return self._session.rtt

    def measure(self, times: Histogram) -> None:
        """Count how long pings take from now on."""
        self._session.on_rtt = times.note

    @property
    def transport(self) -> Any:
        """The connection that carries the streams."""
        return self._session.transport

    @property
    def unanswered(self) -> float:
        """For how many seconds a ping has not been answered."""
        return self._session.unanswered

    @property
    def streams(self) -> int:
        """How many streams the connection carries now."""
        return self._session.streams

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @return: fires at once; fails with L{HostGone} if the host can't be used
            any more, or with L{ConnectionUnavailable} if it has as many
            streams as it may have.
        """
        if not self._session.usable:
            return fail(HostGone(f"{self.address} is gone"))
        return self._session.open(factory)

    def note_wait(self, waits: bool) -> None:
        """See L{Host.note_wait}."""
        self._session.note_wait(waits)

    def usable(self) -> bool:
        """Look whether the connection can carry another stream."""
        return not self.closed and not self.retired and self._session.usable

    def listen(self, told: Callable[[MuxHost, bool], object], clock: IReactorTime) -> None:
        """
        Hear what the agent says of its service.

        @param told: called with this host, and whether the service can be
            reached; not more often than once in L{WELL_PAUSE}, whatever comes.
        """
        self.tells = True

        def tell() -> None:
            self._settling = None
            if heard[0] is not self.well:
                self._settling = clock.callLater(WELL_PAUSE, tell)
                told(self, heard[0])

        def hear(well: bool) -> None:
            heard[0] = well
            if self._settling is None:
                tell()

        heard = [True]
        self._session.on_well = hear

    def tell_leaving(self, seconds: float) -> bool:
        """
        Tell the agent that we are about to leave; requests may be sent to it on.

        @param seconds: after which it is to dial another connection.
        @return: whether it understands that.
        """
        return not self.closed and self._session.tell_leaving(seconds)

    def retire(self) -> None:
        """Open no more streams, and close the connection when those that are open have ended."""
        super().retire()
        self._session.go_away()

    def close(self, reason: str) -> None:
        """Close the connection; what is under way fails."""
        if self.closed:
            return
        self.closed = True
        self._leave(reason)
        self._close_pools()
        self._session.close(reason)

    def _leave(self, reason: str) -> None:
        if not self._left:
            self._left = True
            self._on_gone(self, reason)

    def _going(self) -> None:
        """The agent wants no more streams."""
        self._leave("the agent leaves")
        if not self.closed:
            self.retire()

    def _lost(self, reason: Failure) -> None:
        """The connection is lost, and with it the host; the streams are told after this."""
        self.closed = True
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
        self._leave(f"connection lost: {loss(reason)}")
