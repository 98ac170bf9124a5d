"""
Receive windows: when the peer is given credit, and how much.

Their sizes are decided by L{Growth<reverseproxy.wire.window.Growth>}.
"""

from __future__ import annotations

__all__ = ["ReceiveWindows"]

from reverseproxy.wire.window import TELL_EVERY, Round
from reverseproxy.wire.yamux.outbound import YamuxOutput
from reverseproxy.wire.yamux.stream import YamuxStream
from reverseproxy.wire.yamux.table import StreamTable


class ReceiveWindows:
    """Gives the peer credit for what was consumed of one connection's streams."""

    __slots__ = ("_first", "_output", "_streams", "_table")

    def __init__(self, table: StreamTable, output: YamuxOutput) -> None:
        self._table = table
        self._output = output
        self._streams = table.streams
        self._first = table.limits.window

    def consumed(self, number: int, size: int, now: float) -> None:
        """
        Report bytes that were consumed, for which the peer may send others.

        Every byte of every L{Data<reverseproxy.wire.yamux.events.Data>} has to be reported at some time, also
        if it was thrown away, and also when the stream has
        L{Ended<reverseproxy.wire.yamux.events.Ended>}; unless the stream is reset.

        @param number: the stream; nothing happens if there is none any more.
        @param size: bytes.
        @param now: the time in seconds.
        @raise ValueError: if there are not so many bytes to report.
        """
        stream = self._streams.get(number)
        if stream is None:
            return
        held = stream.held - size
        if held < 0:
            raise ValueError(f"{size} bytes of stream {number} can't be consumed, there are {stream.held}")
        stream.held = held
        self._table.held -= size
        if stream.recv_window < 0:
            self._table.finish(stream)
            return
        credit = stream.credit + size
        if credit < stream.threshold:
            if now - stream.since < TELL_EVERY:
                stream.credit = credit
                return
            if stream.window > self._first:  # else it is too little to judge the round trip by
                credit += self._resize(stream, credit, now)
        else:
            credit += self._resize(stream, credit, now)
        stream.since = now
        stream.credit = 0
        stream.recv_window += credit
        self._output.grant(stream, credit)

    def _resize(self, stream: YamuxStream, credit: int, now: float) -> int:
        """
        Change a stream's window by how fast its bytes are consumed.

        @return: by how many bytes; if negative, for how many of the credit's bytes the peer is given none,
            which are never all.
        """
        part = stream.part
        if part is None:
            part = stream.part = Round(stream.since, stream.window)
        growth = self._table.growth
        more = growth.change(stream.id, stream.window, part, credit, now)
        if more:
            stream.window += more
            stream.threshold = growth.threshold(stream.window)
        return more
