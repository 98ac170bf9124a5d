"""The streams of a session that have a protocol, and those that are left behind."""

from __future__ import annotations

__all__ = ["SessionStreams", "StreamRefused"]

from collections.abc import Callable
from typing import Any, Protocol

from twisted.internet.error import ConnectionLost
from twisted.internet.interfaces import IAddress, IProtocol, IProtocolFactory
from twisted.logger import Logger
from twisted.python.failure import Failure

from reverseproxy.mux.orphans import Orphans
from reverseproxy.mux.stream import MuxStream
from reverseproxy.mux.turn import TurnEnd
from reverseproxy.mux.unsent import UnsentStreams
from reverseproxy.transport.memory import HeldBytes
from reverseproxy.wire.yamux.events import Reset
from reverseproxy.wire.yamux.session import Mux

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.mux.session")


class StreamRefused(ConnectionLost):
    """A stream was refused by a peer that has certainly not looked at what came on it."""


class Carrier(Protocol):
    """
    The connection below.

    @ivar transport: its own.
    """

    transport: Any

    def getPeer(self) -> IAddress:
        """Its peer's address."""

    def getHost(self) -> IAddress:
        """Our address."""


class SessionStreams:
    """
    Which protocol has which stream, until one of the two ends is not interested any more.

    @ivar carrier: the connection below.
    @ivar mux: the streams' frames.
    @ivar turn: sends what streams have written.
    @ivar budget: bounds what streams hold.
    @ivar by_number: those that have a protocol.
    @ivar lost: whether the connection is lost.
    """

    __slots__ = (
        "_accept",
        "_orphans",
        "_seconds",
        "_unsent",
        "budget",
        "by_number",
        "carrier",
        "lost",
        "mux",
        "turn",
    )

    def __init__(
        self,
        carrier: Carrier,
        mux: Mux,
        turn: TurnEnd,
        budget: HeldBytes,
        seconds: Callable[[], float],
        accept: Callable[[], IProtocol | None] | None = None,
    ) -> None:
        """
        @param seconds: the time.
        @param accept: makes the protocol of a stream that the peer opens; L{None}, or that it returns
            L{None}, refuses the stream.
        """
        self.carrier = carrier
        self.mux = mux
        self.turn = turn
        self.budget = budget
        self.by_number: dict[int, MuxStream] = {}
        self.lost = False
        self._accept = accept
        self._seconds = seconds
        self._orphans = Orphans()
        self._unsent = UnsentStreams()

    # those of the session

    def open(self, protocol: IProtocol, factory: IProtocolFactory) -> MuxStream:
        """
        Open a stream for a protocol, which is not told yet.

        @param factory: is told when the stream is lost.
        @raise NoMoreStreams: if there can't be any more.
        """
        number = self.mux.open()
        self._unsent.opened(number)
        stream = self.by_number[number] = MuxStream(self, number, protocol, factory)
        return stream

    def accept(self, number: int) -> bool:
        """
        Make and connect a protocol for a stream that the peer has opened.

        @return: whether there is one; if not, the stream is refused.
        """
        protocol = None
        if self._accept is not None:
            try:
                protocol = self._accept()
            except Exception:
                log.failure("{session}: no protocol for a stream", session=self.carrier)
        if protocol is None:
            self.mux.refuse(number)
            return False
        stream = self.by_number[number] = MuxStream(self, number, protocol)
        try:
            protocol.makeConnection(stream)
        except Exception:
            stream.failed()
        return True

    def note_wait(self, waits: bool) -> None:
        """
        Remember how far the connection has got, as the peer has acknowledged nothing for a while.

        @param waits: whether that is still so.
        """
        if not self.lost:
            self._unsent.note(self.carrier.transport, waits)

    def unwanted(self, number: int) -> None:
        """Data came for a stream that we have closed: as TCP has it, the peer is told that nobody listens."""
        self._orphans.ended(number)
        self.mux.reset(number)

    def ended(self, number: int) -> None:
        """The peer has sent everything."""
        stream = self.by_number.get(number)
        if stream is not None:
            stream.end()
        else:
            self._orphans.ended(number)
            self.turn.schedule()

    def was_reset(self, event: Reset) -> None:
        """A stream was broken off."""
        stream = self.by_number.get(event.stream)
        if stream is None:
            self._orphans.ended(event.stream)
        elif self.forget(stream):
            stream.lost(Failure(_reason(event)))
        self.turn.schedule()

    def clear_orphans(self, now: float) -> None:
        """Break off streams whose peer has not ended its half for too long."""
        for number in self._orphans.expire(now):
            self.mux.reset(number)
            self.turn.schedule()

    def lose(self, reason: Failure) -> None:
        """End all but those that have everything, and only have to be read: the connection is lost."""
        for stream in list(self.by_number.values()):
            if not stream.complete and self.forget(stream):
                if self._unsent.includes(stream.number):
                    stream.lost(Failure(StreamRefused("the connection was lost before it had left")))
                else:
                    stream.lost(reason)

    # called by streams

    def lose_later(self, stream: MuxStream, reason: Failure) -> None:
        """Tell a stream that is forgotten of its end, but not now."""
        stream.shut = True
        self.turn.call(lambda: stream.lost(reason))

    def forget(self, stream: MuxStream) -> bool:
        """
        Let a stream hear of nothing any more.

        @return: whether it has heard of things until now.
        """
        self.turn.forget(stream)
        return self.by_number.pop(stream.number, None) is not None

    def abandon(self, number: int) -> None:
        """Wait for the end of a stream that nobody listens to, for a while."""
        self._orphans.add(number, self._seconds())

    def consumed(self, number: int, size: int) -> None:
        """A stream has taken what it had to hold; the peer may send more."""
        if size and not self.lost:
            self.mux.consumed(number, size, self._seconds())
            self.turn.schedule()


def _reason(event: Reset) -> ConnectionLost:
    if event.refused:
        return StreamRefused("the peer took no more streams")
    if event.remote:
        return ConnectionLost("the stream was reset by the peer")
    return ConnectionLost("the stream held too much that its protocol did not read")
