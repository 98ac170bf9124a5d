"""
From bytes to frames: whole headers, and as much of the data behind them as has come.

Only an incomplete header is buffered: data is returned at once, in as many pieces as
it comes in.
"""

from __future__ import annotations

__all__ = ["FrameRules", "YamuxFrameReader", "violation"]

from collections.abc import Mapping
from typing import Final, Protocol

from reverseproxy.errors import MuxError
from reverseproxy.wire.yamux.events import Data, Event, GoAwayCode
from reverseproxy.wire.yamux.frames import FIN, HEADER_SIZE, unpack
from reverseproxy.wire.yamux.stream import YamuxStream

_QUOTED: Final = 24
"""Bytes that an error quotes."""


class FrameRules(Protocol):
    """What frames mean, except plain data within its window, which the reader handles itself."""

    def on_data(
        self, number: int, flags: int, length: int, stream: YamuxStream | None, events: list[Event]
    ) -> YamuxStream | None:
        """
        Handle a frame of data that has flags, an unknown stream, no data, or more than the window.

        @return: the stream of the data, which was counted; L{None} to drop it.
        @raise MuxError: if the peer broke the rules.
        """

    def on_control(self, kind: int, flags: int, number: int, length: int, events: list[Event]) -> None:
        """
        Handle a frame without data.

        @raise MuxError: if the peer broke the rules.
        """

    def on_end(self, stream: YamuxStream, events: list[Event]) -> None:
        """Handle FIN, once all data before it has come."""


class YamuxFrameReader:
    """Reads the frames of one connection."""

    __slots__ = ("_flags", "_highest", "_left", "_rest", "_rules", "_stream", "_streams")

    def __init__(self, streams: Mapping[int, YamuxStream], rules: FrameRules, highest: int) -> None:
        """
        @param streams: the streams of the connection, by number, as they are at any time.
        @param highest: the highest type of frames that both ends know.
        """
        self._streams = streams
        self._rules = rules
        self._highest = highest
        self._rest = b""  # an incomplete header
        self._left = 0  # bytes to come of an incomplete frame of data
        self._stream: YamuxStream | None = None  # the stream of that, or None to drop it
        self._flags = 0

    def read(self, data: bytes, events: list[Event]) -> int:
        """
        Take bytes.

        @param events: the events are appended to this.
        @return: how many bytes came on streams; the caller has to count them as held.
        @raise MuxError: if the peer broke the rules; quotes what it sent.
        """
        offset = self._continue(data, events) if self._left else 0
        if self._rest:
            data = self._rest + data
            self._rest = b""
        end = len(data)
        get = self._streams.get
        append = events.append
        received = 0
        try:
            while offset + HEADER_SIZE <= end:
                kind, flags, number, length = unpack(data, offset)
                if not kind:
                    stream = get(number)
                    if flags or stream is None or not 0 < length <= stream.recv_window:
                        stream = self._rules.on_data(number, flags, length, stream, events)
                    else:
                        stream.recv_window -= length
                        stream.held += length
                        received += length
                    offset += HEADER_SIZE
                    stop = offset + length
                    if stop <= end:
                        if stream is not None:
                            if length:
                                append(Data(number, data[offset:stop]))
                            if flags & FIN:
                                self._rules.on_end(stream, events)
                        offset = stop
                    else:
                        if stream is not None and offset < end:
                            append(Data(number, data[offset:]))
                        self._left = stop - end
                        self._stream = stream
                        self._flags = flags
                        return received
                else:
                    self._rules.on_control(kind, flags, number, length, events)
                    offset += HEADER_SIZE
        except MuxError as error:
            raise violation(str(error), data, offset, error.code) from None
        if offset < end:
            self._keep(data[offset:])
        return received

    def _continue(self, data: bytes, events: list[Event]) -> int:
        """Take bytes of an incomplete frame of data; return how many these were."""
        size = len(data)
        left = self._left
        stream = self._stream
        if stream is not None and not stream.remote_open:
            stream = self._stream = None  # it was reset meanwhile
        if size < left:
            self._left = left - size
            if stream is not None and size:
                events.append(Data(stream.id, data))
            return size
        self._left = 0
        if stream is not None:
            events.append(Data(stream.id, data[:left]))
            if self._flags & FIN:
                self._rules.on_end(stream, events)
            self._stream = None
        return left

    def _keep(self, rest: bytes) -> None:
        """Keep an incomplete header; refuse what can't become one."""
        if rest[0] or (len(rest) > 1 and rest[1] > self._highest):
            raise violation("expected version 0 and a type from 0 to 3", rest, 0, GoAwayCode.PROTOCOL_ERROR)
        self._rest = rest


def violation(expected: str, data: bytes, offset: int, code: int) -> MuxError:
    """Return an error that quotes what the peer sent."""
    return MuxError(f"{expected}; the peer sent {data[offset : offset + _QUOTED]!r}", code)
