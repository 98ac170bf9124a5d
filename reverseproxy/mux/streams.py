"""The streams of a session, by number, and those that are closed at this end only."""

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
from reverseproxy.transport.halves import Half
from reverseproxy.transport.memory import HeldBytes
from reverseproxy.wire.yamux.events import Reset
from reverseproxy.wire.yamux.session import Mux

# Under the name by which readers of the log know these lines.
log = Logger(namespace="reverseproxy.mux.session")


class StreamRefused(ConnectionLost):
    """A stream was refused by a peer that has certainly not processed any of it."""


class Carrier(Protocol):
    """
    What streams need of their session.

    @ivar transport: the connection's.
    """

    transport: Any

    def getPeer(self) -> IAddress:
        """Return the peer's address."""

    def getHost(self) -> IAddress:
        """Return the address of this end."""


class SessionStreams:
    """
    The streams of a session that have a protocol.

    @ivar carrier: the session.
    @ivar mux: the state machine of the protocol (yamux).
    @ivar turn: sends what streams have written.
    @ivar budget: bounds what streams buffer.
    @ivar by_number: the streams that have a protocol.
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
        @param seconds: returns the clock's time.
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

    # called by the session

    def open(self, protocol: IProtocol, factory: IProtocolFactory) -> MuxStream:
        """
        Open a stream for a protocol, without connecting that yet.

        @param factory: its C{doStop} is called when the stream is lost.
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
        Note how much was sent, as the peer has acknowledged nothing for a while.

        @param waits: whether the peer still acknowledges nothing.
        """
        if not self.lost:
            self._unsent.note(self.carrier.transport, waits)

    def unwanted(self, number: int) -> None:
        """Reset a stream that is closed at this end, as data has arrived for it."""
        self._orphans.ended(number)
        self.mux.reset(number)

    def ended(self, number: int) -> None:
        """Handle the end of the peer's half of a stream."""
        stream = self.by_number.get(number)
        if stream is not None:
            stream.end()
        else:
            self._orphans.ended(number)
            self.turn.schedule()

    def was_reset(self, event: Reset) -> None:
        """Handle the reset of a stream."""
        stream = self.by_number.get(event.stream)
        if stream is None:
            self._orphans.ended(event.stream)
        elif self.forget(stream):
            stream.lost(Failure(_reason(event)))
        self.turn.schedule()

    def clear_orphans(self, now: float) -> None:
        """Reset streams whose peer has not ended its half in time."""
        for number in self._orphans.expire(now):
            self.mux.reset(number)
            self.turn.schedule()

    def lose(self, reason: Failure) -> None:
        """Close all streams except complete ones that are still being read, as the connection is lost."""
        for stream in list(self.by_number.values()):
            if not stream.complete and self.forget(stream):
                if self._unsent.includes(stream.number):
                    stream.lost(Failure(StreamRefused("the connection was lost before it had left")))
                else:
                    stream.lost(reason)

    # called by streams

    def lose_later(self, stream: MuxStream, reason: Failure) -> None:
        """Call C{lost} of a removed stream at the end of the turn."""
        stream.sending = Half.CLOSED
        self.turn.call(lambda: stream.lost(reason))

    def forget(self, stream: MuxStream) -> bool:
        """
        Remove a stream.

        @return: whether it was there.
        """
        self.turn.forget(stream)
        return self.by_number.pop(stream.number, None) is not None

    def abandon(self, number: int) -> None:
        """Wait for the peer to end its half of a stream that is closed at this end."""
        self._orphans.add(number, self._seconds())

    def consumed(self, number: int, size: int) -> None:
        """Give the peer credit for bytes of a stream that were delivered."""
        if size and not self.lost:
            self.mux.consumed(number, size, self._seconds())
            self.turn.schedule()


def _reason(event: Reset) -> ConnectionLost:
    if event.refused:
        return StreamRefused("the peer took no more streams")
    if event.remote:
        return ConnectionLost("the stream was reset by the peer")
    return ConnectionLost("the stream held too much that its protocol did not read")
