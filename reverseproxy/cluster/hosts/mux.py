"""Hosts whose connection carries multiplexed streams."""

from __future__ import annotations

__all__ = ["WELL_PAUSE", "MuxHost"]

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import (
    IDelayedCall,
    IProtocol,
    IProtocolFactory,
    IReactorTime,
)
from twisted.python.failure import Failure

from reverseproxy.cluster.hosts.agents import HeldHost
from reverseproxy.errors import HostGone
from reverseproxy.logs import loss
from reverseproxy.mux.session import MuxSession

if TYPE_CHECKING:
    from reverseproxy.metrics import Histogram

WELL_PAUSE: Final = 0.25
"""The least seconds between two health reports of an agent that are acted on; the last always is."""


class MuxHost(HeldHost):
    """
    A reverse host whose connection carries many streams.

    To its cluster it is like a static host, but connecting takes no time: each
    connection is a stream.  It leaves its cluster when the connection is lost, or when
    the agent announces that it accepts no more streams.
    """

    __slots__ = ("_session", "_settling")

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
        @param on_gone: see L{AgentHost}.
        """
        super().__init__(on_gone, address, hostname, weight, metadata)
        self._session = session
        self._settling: IDelayedCall | None = None
        session.on_going = self._going
        session.on_lost = self._lost

    @property
    def receiver(self) -> MuxSession:
        """See L{HeldHost.receiver}."""
        return self._session

    @property
    def rtt(self) -> float | None:
        """The round-trip time of the last ping in seconds; L{None} if none has been answered."""
        return self._session.rtt

    def measure(self, times: Histogram) -> None:
        """Record the round-trip times of pings from now on."""
        self._session.on_rtt = times.note

    @property
    def transport(self) -> Any:
        """The connection that carries the streams."""
        return self._session.transport

    @property
    def unanswered(self) -> float:
        """For how many seconds a ping has not been answered; 0 if none is pending."""
        return self._session.unanswered

    @property
    def streams(self) -> int:
        """The number of open streams."""
        return self._session.streams

    def connect(self, factory: IProtocolFactory) -> Deferred[IProtocol]:
        """
        Open a stream.

        @return: fires at once; fails with L{HostGone} if the host can't be used any more,
            or with L{ConnectionUnavailable} if the limit of streams is reached.
        """
        if not self._session.usable:
            return fail(HostGone(f"{self.address} is gone"))
        return self._session.open(factory)

    def note_wait(self, waits: bool) -> None:
        """See L{Host.note_wait}."""
        self._session.note_wait(waits)

    def usable(self) -> bool:
        """Return whether another stream can be opened."""
        return not self.closed and not self.retired and self._session.usable

    def listen(self, told: Callable[[MuxHost, bool], object], clock: IReactorTime) -> None:
        """
        Listen to the agent's reports whether it can reach its service.

        @param told: called with this host, and whether the service can be reached; at most
            once in L{WELL_PAUSE}, however many reports arrive.
        """
        self.tells = True

        def tell() -> None:
            self._settling = None
            if heard[0] is not self.health.service_up:
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
        Announce to the agent that this server is about to stop; further streams may be opened.

        @param seconds: after which it is to dial another connection.
        @return: whether the agent understands that.
        """
        return not self.closed and self._session.tell_leaving(seconds)

    def retire(self) -> None:
        """Open no more streams, and close the connection when the open ones have ended."""
        super().retire()
        self._session.go_away()

    def close(self, reason: str) -> None:
        """Close the connection; requests in progress fail."""
        if self.closed:
            return
        self.closed = True
        self._leave(reason)
        self._close_pools()
        self._session.close(reason)

    def _going(self) -> None:
        """Leave the cluster, as the agent accepts no more streams."""
        self._leave("the agent leaves")
        if not self.closed:
            self.retire()

    def _lost(self, reason: Failure) -> None:
        """Close the host, as its connection is lost; called before the streams get their connectionLost."""
        self.closed = True
        settling, self._settling = self._settling, None
        if settling is not None:
            settling.cancel()
        self._leave(f"connection lost: {loss(reason)}")
