"""
Turn two HTTP/1 connections into a relay, after an upgrade was accepted.

Both connections stop speaking HTTP then, and all of their events go to a
L{RelayEnd}.
"""

from __future__ import annotations

__all__ = ["Switchable", "switch"]

from collections.abc import Callable
from typing import Any

from twisted.internet.interfaces import IHalfCloseableProtocol, IReactorTime
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.handover import Rebindable
from reverseproxy.proxy.http.interfaces import IUpgraded
from reverseproxy.proxy.relay import RelayEnd, couple
from reverseproxy.wire.http.websocket import FrameTracker


@implementer(IHalfCloseableProtocol)
class Switchable(Rebindable):
    """
    A protocol that can turn into a relay of bytes.

    @ivar relay: handles the connection since then.
    """

    transport: Any
    relay: RelayEnd | None = None

    def http_read_closed(self) -> None:
        """The peer sends no more, and the connection is still HTTP."""
        raise NotImplementedError

    def http_lost(self, reason: Failure) -> None:
        """The connection is lost, be it still HTTP or not."""
        raise NotImplementedError

    def readConnectionLost(self) -> None:
        """The peer sends no more."""
        if self.relay is None:
            self.http_read_closed()
        else:
            self.relay.readConnectionLost()

    def writeConnectionLost(self) -> None:
        """Our direction of the connection is closed, as we wanted."""
        if self.relay is not None:
            self.relay.writeConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The connection is lost."""
        if self.relay is not None:
            self.relay.connectionLost(reason)
        self.http_lost(reason)

    def become_relay(self, clock: IReactorTime, early: bytes) -> RelayEnd:
        """
        Give the connection to a L{RelayEnd}.

        @param early: what was received for it.
        """
        self.transport.unregisterProducer()
        relay = self.relay = RelayEnd(clock)
        Protocol.makeConnection(relay, self.transport)
        if early:
            relay.dataReceived(early)
        return relay


def switch(
    left: Switchable,
    early_left: bytes,
    right: IUpgraded,
    early_right: bytes,
    clock: IReactorTime,
    on_close: tuple[Callable[[Failure], None], Callable[[Failure], None]],
    websocket: bool = False,
) -> None:
    """
    Join two connections that spoke HTTP.

    @param early_left: what was received from the left that is not HTTP any more.
    @param on_close: called with the reason when the left and when the right
        connection is lost.
    @param websocket: whether it is a WebSocket, of which the left one is the client.
    """
    ends = (left.become_relay(clock, early_left), right.become_relay(clock, early_right))
    for end, call in zip(ends, on_close, strict=True):
        end.on_close = call
    if websocket:
        ends[1].frames = FrameTracker()
    couple(*ends)
    left.rebind(ends[0].dataReceived)
    right.rebind(ends[1].dataReceived)
