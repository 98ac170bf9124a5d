"""Hosts whose connection is leased to one protocol at a time."""

from __future__ import annotations

__all__ = ["LeasableConnection", "ReverseHost"]

import sys
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.internet.protocol import connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.cluster.hosts.agents import HeldHost
from reverseproxy.errors import HostGone
from reverseproxy.logs import loss
from reverseproxy.mux.session import StreamRefused
from reverseproxy.wire.mosn.marks import CARRIED, NOT_CARRIED

if TYPE_CHECKING:
    pass

# Keep the namespace that these log lines had before they moved here.
log = Logger(namespace="reverseproxy.cluster.host")

_UNCARRIED: Final = "its agent has passed nothing on"


class LeasableConnection(Handover):
    """
    The protocol that has a L{ReverseHost}'s connection between leases.

    It buffers what arrives before the first lease, as a service may speak first, and
    closes the connection if something arrives between leases.
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
        """Pass reads to a callback, except for the mark that they may begin with."""
        if self.looks:
            self._receive = receive
            receive = self._look_for_mark
        super().rebind(receive)

    def _look_for_mark(self, data: bytes) -> None:
        """Read the mark, by which the agent says whether it has sent the request on."""
        receive, self._receive = self._receive, None
        if receive is not None and data.startswith(CARRIED):
            self.looks = False
            self.rebind(receive)
            if len(data) > 1:
                receive(data[1:])
        else:
            # Not closed: the inner protocol has to learn the reason from the loss of the connection.
            self._not_carried = data.startswith(NOT_CARRIED)
            self._host._leave(_UNCARRIED if self._not_carried else "its agent has not said what it sends")
            self.transport.abortConnection()

    def dataReceived(self, data: bytes) -> None:
        """Buffer what arrives before the first lease; close the connection if it arrives after that."""
        if self.looks and not self._early and not data.startswith(CARRIED):
            self._look_for_mark(data)
            return
        if self._used:
            # No request is pending: the next one must not take this for its response.
            self._host.close("data came while the connection was idle")
            return
        self._early.append(data)
        self._early_size += len(data)
        if self._early_size > self._max_early and not self._paused:
            self._paused = True
            self.transport.pauseProducing()

    def lease(self, inner: IProtocol) -> None:
        """Hand the connection over to C{inner}, with the buffered bytes."""
        if self._paused:
            # Before the handover, as the inner protocol may pause it itself.
            self._paused = False
            self._max_early = sys.maxsize
            self.transport.resumeProducing()
            if self._host.closed:
                raise HostGone(f"{self._host.address} is gone")
        self._used = True
        early, self._early, self._early_size = self._early, [], 0
        self.hand_over(inner, b"".join(early))

    def readConnectionLost(self) -> None:
        """Handle the agent's half-close: it may still receive the request in progress."""
        self._host._leave("the agent closed its side")
        if self.inner is None:
            self._host.close("the agent closed its side")
        else:
            super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forward the loss of the connection, and close the host."""
        # In this order, so that a request that releases the host does not get it for its retry.
        self._host._lost(reason)
        super().connectionLost(Failure(StreamRefused(_UNCARRIED)) if self._not_carried else reason)
        self._early.clear()
        self._host._close_pools()


class ReverseHost(HeldHost):
    """
    A host that leases its agent's connection to one protocol at a time.

    It is made when the agent has been accepted; L{attach} then takes the connection
    over.  After that the host can be added to a cluster.

    With several workers the connection may move to another process and back: L{depart}
    and L{arrive}.

    @ivar away: whether another worker has the connection, or is being given it.
    @ivar fetch: requests the connection from another worker when the host is to be
        connected; its Deferred fires after L{arrive}.  L{None} if hosts that are away are
        not to be picked.
    """

    __slots__ = (
        "_clock",
        "_close_deadline",
        "_close_timeout",
        "_factory",
        "_held",
        "_transport",
        "away",
        "fetch",
    )

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
        @param on_gone: see L{AgentHost}.
        @param max_early_bytes: bytes that are buffered before the first lease; when there are
            more, reading is paused until then.
        @param close_timeout: seconds that the peer may take to agree to a close
            before the connection is aborted.
        """
        super().__init__(on_gone, address, hostname, weight, metadata, capacity)
        self.connections = 1
        self.away = False
        self.fetch: Callable[[ReverseHost], Deferred[None]] | None = None
        self._transport = transport
        self._clock = clock
        self._close_timeout = close_timeout
        self._close_deadline: IDelayedCall | None = None
        self._factory: IProtocolFactory | None = None
        self._held = LeasableConnection(self, max_early_bytes)

    @property
    def is_remote(self) -> bool:
        """Whether another worker has the connection."""
        return self.away

    @property
    def state(self) -> str:
        """As L{Host.state}; "leased" if an idle protocol has the connection, "away" if another worker has."""
        state = super().state
        if self.away and state == "idle":
            return "away"
        return "leased" if state == "idle" and self._held.inner is not None else state

    @property
    def transport(self) -> Any:
        """The connection; L{None} if another worker has it."""
        return self._transport

    def expect_mark(self) -> None:
        """Expect a mark at the beginning of what the agent sends; see L{reverseproxy.wire.mosn.marks}."""
        self._held.looks = True

    @property
    def marked(self) -> bool:
        """Whether a mark is expected that has not been read yet."""
        return self._held.looks

    @property
    def used(self) -> bool:
        """Whether it has ever been leased."""
        return self._held._used

    @property
    def receiver(self) -> LeasableConnection:
        """See L{HeldHost.receiver}."""
        return self._held

    # moving between workers

    @property
    def holder(self) -> Handover | None:
        """The handover that the host has its connection from."""
        return self._held._handover

    @property
    def early(self) -> bytes:
        """The bytes that have arrived before the first lease."""
        return b"".join(self._held._early)

    def depart(self, on_gone: Callable[[ReverseHost, str], object]) -> None:
        """
        Give the connection up, which another worker has from now on.

        It must not be leased; see L{take_back}.

        @param on_gone: replaces the callback that was given before.
        """
        self.away = True
        self.same_agent = ()
        self._on_gone = on_gone
        self._transport = None
        self._held = LeasableConnection(self, self._held._max_early)

    def arrive(
        self,
        owner: Handover,
        on_gone: Callable[[ReverseHost, str], object],
        surplus: bytes = b"",
        used: bool = False,
        marked: bool = False,
    ) -> None:
        """
        Take a connection that has moved here, if the host has none.

        @param owner: the protocol that has it.
        @param on_gone: as for a new host.
        @param surplus: bytes that have arrived before the first lease.
        @param used: whether it has been leased, so that nothing may arrive before the next lease.
        @param marked: see L{marked}.
        @raise ConnectionUnavailable: if the connection is lost already.
        """
        self.away = False
        self._transport = owner.transport
        self._on_gone = on_gone
        self._held = LeasableConnection(self, self._held._max_early)
        self._held._used = used
        self._held.looks = marked
        self.attach(owner, surplus)

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Lease the connection to a protocol, until it is lost.

        A protocol that has it already, but is idle and L{IDetachable}, is detached.

        @return: fires at once, unless another worker has the connection; fails with
            L{HostGone} if the host can't be used any more, or is in use.
        """
        held = self._held
        if self.away and self.fetch is not None and not self.closed:
            return self.fetch(self).addCallback(lambda _: self.connect(factory))
        if self.closed or self._left or held.transport is None:
            return fail(HostGone(f"{self.address} is gone"))
        if held.inner is not None and not self._take_back():
            return fail(HostGone(f"{self.address} is in use"))
        if self.closed or self._left:  # the last protocol has left the connection unusable
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
        """Return true: the single connection may always be leased."""
        return True

    def connection_opened(self) -> None:
        """Do nothing: the single connection is leased, not opened."""

    def connection_closed(self) -> None:
        """Do nothing: the lease has ended, and the connection stays, or the host is closed with it."""

    def take_back(self) -> bool:
        """
        Take the connection back from an idle protocol.

        @return: whether no protocol has it now.
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
        """Return whether the connection can carry another request, and is not being closed."""
        if getattr(self._transport, "disconnecting", False):
            self._leave("its connection is being closed")
            return False
        return not self.closed and not self.retired

    def retire(self) -> None:
        """
        Close the connection at once if it is idle.

        An agent that drains waits for this, which shows that no request is on its way.
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

    def _lost(self, reason: Failure) -> None:
        self.closed = True
        if self._close_deadline is not None and self._close_deadline.active():
            self._close_deadline.cancel()
        self._leave(f"connection lost: {loss(reason)}")
        self._end_lease()
