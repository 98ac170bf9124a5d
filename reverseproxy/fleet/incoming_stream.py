"""Streams that other servers open on the links that they have dialled, until their first message."""

from __future__ import annotations

__all__ = ["IncomingStream", "SilentStreams"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.interfaces import IDelayedCall, IProtocol, IReactorTime
from twisted.internet.protocol import connectionDone
from twisted.python.failure import Failure

from reverseproxy.cluster.handover import Handover
from reverseproxy.errors import WireError
from reverseproxy.fleet.link_frames import LinkFrameReader
from reverseproxy.fleet.outgoing_link import HELLO_TIMEOUT

if TYPE_CHECKING:
    from reverseproxy.fleet.incoming_links import IncomingLink

EARLY_LIMIT: Final = 65536
"""
Bytes behind the first message that are buffered until a protocol takes the stream; above that, reading
pauses.
"""


class IncomingStream(Handover):
    """
    A stream that another server has opened, until its first message says what it is for.

    @ivar link: the link that carries it.
    """

    transport: Any

    def __init__(self, link: IncomingLink) -> None:
        super().__init__()
        self.link = link
        self._reader = LinkFrameReader()
        self._said = False
        self._ended = False

    def connectionMade(self) -> None:
        """Expect the first message, with a deadline."""
        self.link.silent.add(self)

    def dataReceived(self, data: bytes) -> None:
        """Parse the first message; buffer what follows until a protocol takes the stream."""
        self._reader.feed(data)
        if self._said:
            if self._reader.size > EARLY_LIMIT:
                self.transport.pauseProducing()
            return
        try:
            message = self._reader.next()
            if message is not None:
                self._said = True
                self.link.silent.remove(self)
                self.link.opened(self, message)
        except WireError as error:
            self.link.complain(str(error))
            self.transport.abortConnection()

    @property
    def kept(self) -> int:
        """How many bytes are buffered for the protocol that takes the stream."""
        return self._reader.size

    def readConnectionLost(self) -> None:
        """Pass the end of the peer's data on, or note it for the protocol that takes the stream."""
        if self.inner is None and self._said:
            self._ended = True
        else:
            super().readConnectionLost()

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Forget the stream's deadline, and tell its protocol."""
        self.link.silent.remove(self)
        super().connectionLost(reason)

    def give_to(self, protocol: IProtocol) -> None:
        """Hand the stream to a protocol, with all data behind the first message."""
        self.transport.resumeProducing()
        self.hand_over(protocol, self._reader.rest())
        if self._ended and not self.transport.disconnected:
            super().readConnectionLost()

    def refuse(self) -> None:
        """
        Close the stream, and tell the peer that nothing of it was passed on, so that it may retry
        elsewhere.
        """
        self.transport.disown()


class SilentStreams:
    """The streams of a link whose first message has not come, each with a deadline; one timer serves all."""

    def __init__(self, clock: IReactorTime, expired: Callable[[IncomingStream], object]) -> None:
        """
        @param expired: called with each stream that has been silent for L{HELLO_TIMEOUT}.
        """
        self._clock = clock
        self._expired = expired
        self._since: dict[IncomingStream, float] = {}
        self._timer: IDelayedCall | None = None

    def add(self, stream: IncomingStream) -> None:
        """Expect the first message of a stream."""
        self._since[stream] = self._clock.seconds()
        if self._timer is None:
            self._timer = self._clock.callLater(HELLO_TIMEOUT, self._expire)

    def remove(self, stream: IncomingStream) -> None:
        """Expect nothing any more of a stream: the message has come, or the stream has ended."""
        self._since.pop(stream, None)

    def _expire(self) -> None:
        self._timer = None
        now = self._clock.seconds()
        for stream, since in list(self._since.items()):
            if since + HELLO_TIMEOUT > now:
                self._timer = self._clock.callLater(since + HELLO_TIMEOUT - now, self._expire)
                break
            del self._since[stream]
            self._expired(stream)

    def stop(self) -> None:
        """Cancel the timer."""
        if self._timer is not None and self._timer.active():
            self._timer.cancel()
