"""
Flow control of what a connection of HTTP/2 receives (RFC 9113 5.2).

A peer may send as much of a body as the stream's window has.  The window is
opened again as the body is passed on, and grows where the round trip is long
(L{reverseproxy.wire.window}).  The window of a stream that is held
(L{Windows.hold}) is not opened again; the window of the connection is large
enough for those of all streams, so that it never stops others.

The round trip is measured by the acknowledgement of our first SETTINGS, and by
PING while much comes; see L{Growth.due}.  Peers that limit PINGs reset their
count when they send DATA, so that these do no harm.
"""

from __future__ import annotations

__all__ = ["PROBE", "Windows"]

from math import inf
from typing import Final

from reverseproxy.wire.http2.events import Http2Limits
from reverseproxy.wire.http2.frames import DEFAULT_WINDOW, ping, window_update
from reverseproxy.wire.http2.outbound import Http2Output, StreamState
from reverseproxy.wire.window import Growth, Reserve, Round

PROBE: Final = b"far?"
"""How the 8 bytes of PINGs that measure the round trip begin; a number follows."""


class Windows(Http2Output):
    """
    The part of a connection that keeps the windows of what it receives.

    @ivar held: bytes that have come on streams that are held, and were not passed on.
    """

    def __init__(self, limits: Http2Limits, reserve: Reserve | None) -> None:
        super().__init__()
        self.held = 0
        self._now = 0.0
        self._recv_window = limits.connection_window
        self._recv_credit = 0
        self._recv_threshold = limits.connection_threshold
        # Until the peer has applied our SETTINGS it uses the default.
        self._stream_window = max(limits.stream_window, DEFAULT_WINDOW)
        self._growth = Growth(
            limits.stream_window, limits.max_window, limits.receive_budget, reserve or Reserve()
        )
        self._first_window = limits.stream_window
        self._stream_threshold = self._growth.threshold(limits.stream_window)
        self._greeted_at = inf  # when our first SETTINGS went out
        self._probes = 0
        self._asked = 0  # PINGs that were not acknowledged
        self._probed_at = 0.0

    def greeted(self, now: float) -> None:
        """Note that our SETTINGS are sent: their acknowledgement gives the round trip."""
        if self._greeted_at > now:
            self._greeted_at = now

    def _consume(self, stream: StreamState | None, size: int) -> None:
        """Open windows again by bytes that were passed on, or dropped."""
        self._recv_credit += size
        if self._recv_credit >= self._recv_threshold:
            self._out.append(window_update(0, self._recv_credit))
            self._recv_window += self._recv_credit
            self._recv_credit = 0
        if stream is not None:
            stream.credit += size
            if stream.credit >= stream.threshold and stream.remote_open:
                self._grant(stream)

    def _grant(self, stream: StreamState) -> None:
        """Send WINDOW_UPDATE for what was passed on of a stream, and for a change of its window."""
        credit, stream.credit = stream.credit, 0
        now = self._now
        if stream.part is None:
            stream.part = Round(stream.since, stream.window)
        growth = self._growth
        more = growth.change(stream.id, stream.window, stream.part, credit, now)
        if more:
            stream.window += more
            stream.threshold = growth.threshold(stream.window)
            credit += more
        if growth.due(now):
            self._probe(now)
        self._out.append(window_update(stream.id, credit))
        stream.recv_window += credit

    def _settle(self) -> None:
        """
        Open windows again by all that has come, but for streams that are held.

        That is not done as soon as it comes: its receiver may only then decide to
        hold the stream.
        """
        fresh = self._fresh
        for stream in fresh:
            size = stream.unconsumed
            if size and not stream.held:
                stream.unconsumed = 0
                self._consume(stream, size)
        fresh.clear()

    def hold(self, number: int) -> None:
        """
        Stop opening the window of a stream, as its receiver is slow.

        What has come since the last call to C{take} counts as not passed on, too.
        """
        stream = self._streams.get(number)
        if stream is not None and not stream.held:
            stream.held = True
            self.held += stream.unconsumed

    def release(self, number: int, now: float = 0.0) -> None:
        """
        Open the window of a held stream again: all that came was passed on.

        @param now: the time in seconds.
        """
        stream = self._streams.get(number)
        if stream is not None and stream.held:
            stream.held = False
            self.held -= stream.unconsumed
            if now > self._now:
                self._now = now
            self._fresh.append(stream)

    def passed(self, number: int, left: int, now: float) -> None:
        """
        Note that some of what came on a held stream was passed on.

        WINDOW_UPDATE is sent at once, however little it is.

        @param left: bytes that were not passed on.
        @param now: the time in seconds.
        """
        stream = self._streams.get(number)
        if stream is None or not stream.held or stream.unconsumed <= left:
            return
        size = stream.unconsumed - left
        stream.unconsumed = left
        self.held -= size
        if now > self._now:
            self._now = now
        self._consume(stream, size)
        if stream.credit and stream.remote_open:
            self._grant(stream)

    def _let_go(self, stream: StreamState) -> None:
        """Drop what came on a stream that has ended and was not passed on."""
        if stream.held:
            self.held -= stream.unconsumed
        self._consume(None, stream.unconsumed)
        stream.unconsumed = 0

    @property
    def holding(self) -> dict[int, int]:
        """For each held stream that has any, how many bytes came and were not passed on."""
        return {
            stream.id: stream.unconsumed
            for stream in self._streams.values()
            if stream.held and stream.unconsumed
        }

    # the round trip

    def _probe(self, now: float) -> None:
        self._probes += 1
        self._probed_at = now
        self._asked += 1
        self._out.append(ping(self._probe_data()))

    def _probe_data(self) -> bytes:
        return PROBE + (self._probes & 0xFFFFFFFF).to_bytes(4, "big")

    def _is_probe(self, data: bytes) -> bool:
        """Return whether a PING was acknowledged that measures the round trip; only the last one counts."""
        if data[:4] != PROBE:
            return False
        if self._probes and data == self._probe_data():
            self._growth.measured(self._now - self._probed_at, self._now)
        return True

    def close_windows(self) -> None:
        """Give back what windows have grown by: the connection is over."""
        self._growth.close()
        self.held = 0
        self._fresh.clear()
        for stream in self._streams.values():
            stream.unconsumed = 0
