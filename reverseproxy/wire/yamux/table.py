"""The streams of a connection, and what all of them together hold."""

from __future__ import annotations

__all__ = ["StreamTable"]

from operator import attrgetter

from reverseproxy.wire.window import Growth, Reserve
from reverseproxy.wire.yamux.abuse import Abuse
from reverseproxy.wire.yamux.events import MuxLimits
from reverseproxy.wire.yamux.ids import StreamIds
from reverseproxy.wire.yamux.late import ResetStreams
from reverseproxy.wire.yamux.stream import YamuxStream

_held = attrgetter("held")


class StreamTable:
    """
    The streams of one connection.

    @ivar limits: what the peer may do.
    @ivar now: the time in seconds, as of the last read.
    @ivar streams: those that are open in a direction, or have ended with bytes that are not consumed,
        by number.
    @ivar held: bytes that came on all of them together and were not consumed.
    @ivar growth: how large their windows may become.
    @ivar ids: which numbers were used.
    @ivar resets: those that we have reset.
    @ivar abuse: the peer's budgets for frames that carry nothing.
    """

    __slots__ = ("_threshold", "abuse", "growth", "held", "ids", "limits", "now", "resets", "streams")

    def __init__(self, client: bool, limits: MuxLimits, reserve: Reserve) -> None:
        """
        @param client: whether our streams have odd numbers.
        @param reserve: what windows may grow by, together with those of other connections.
        """
        self.limits = limits
        self.now = 0.0
        self.streams: dict[int, YamuxStream] = {}
        self.held = 0
        self.growth = Growth(limits.window, limits.max_window, limits.receive_budget, reserve)
        self.ids = StreamIds(client)
        self.resets = ResetStreams()
        self.abuse = Abuse(limits.max_resets)
        self._threshold = self.growth.threshold(limits.window)

    def add(self, number: int, flags: int) -> YamuxStream:
        """
        Add a stream with the initial windows.

        @param flags: what the first frame that we send on it has to carry.
        """
        limits = self.limits
        stream = YamuxStream(number, limits.first, limits.window, self._threshold, flags, self.now)
        self.streams[number] = stream
        return stream

    def finish(self, stream: YamuxStream) -> None:
        """Forget a stream if it is complete."""
        if not (stream.local_open or stream.remote_open or stream.held):
            self._forget(stream)
            if self.abuse.resets:
                self.abuse.earn_stream()

    def drop(self, stream: YamuxStream) -> None:
        """Forget a stream that was reset or refused."""
        stream.local_open = stream.remote_open = False
        stream.recv_window = stream.send_window = -1
        self.held -= stream.held
        self._forget(stream)

    def _forget(self, stream: YamuxStream) -> None:
        del self.streams[stream.id]
        if stream.part is not None:
            self.growth.forget(stream.id, stream.window)

    def fullest(self) -> YamuxStream:
        """Return the stream of which most is held."""
        return max(self.streams.values(), key=_held)

    def clear(self) -> None:
        """Forget all: the connection is over."""
        self.streams.clear()
        self.resets.clear()
        self.held = 0
        self.growth.close()
