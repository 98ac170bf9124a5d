"""
The sending half of a connection of HTTP/2.

Bodies are kept by stream until the peer's windows and the caller have room for
them, and go out in turns, one frame of each stream.
"""

from __future__ import annotations

__all__ = ["NO_HEAD", "RESUME_BELOW", "STREAM_BUFFER", "TURN", "Http2Output", "StreamState"]

from collections import deque
from typing import Final

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http2.frames import (
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW,
    HEADER,
    MAX_WINDOW,
    ErrorCode,
    FrameFlag,
    FrameType,
    frame,
    header_block,
)
from reverseproxy.wire.http2.hpack import FieldEncoder
from reverseproxy.wire.window import Round

STREAM_BUFFER: Final = 65536
"""Bytes of a body kept for one stream beyond which L{Http2Output.is_full} asks for a pause."""

RESUME_BELOW: Final = 16384
"""Bytes kept for a stream that was full, below which it wants more."""

NO_HEAD: Final = -2
"""In place of the length of a body: the head has not come that would say it."""

TURN: Final = 65536
"""Bytes of bodies that one L{Http2Output.take} returns, if it is not told otherwise."""


class StreamState:
    """
    One stream.

    @ivar remote_open: whether the peer may send more of its message.
    @ivar local_open: whether we may.
    @ivar left: bytes of the peer's body still to come; -1 if it gave no length, and L{NO_HEAD}
        as long as the head of its final message has not come.
    @ivar held: whether the window stays closed.
    @ivar unconsumed: bytes that have come while it was.
    @ivar credit: bytes passed on that the peer has not been told of.
    @ivar window: bytes that the peer may send beyond what was passed on.
    @ivar threshold: how much credit the peer is told of.
    @ivar since: when the stream was opened, or a little before.
    @ivar part: what was passed on since a certain time, once the peer was told of any.
    @ivar pending: what we have to send.
    @ivar trailers: what follows that, if it is all.
    @ivar tunnel: whether it carries another protocol, with ends of its own.
    @ivar ready: whether it waits for its turn to send.
    @ivar full: whether the caller should pause.
    """

    __slots__ = (
        "credit",
        "full",
        "head_request",
        "held",
        "id",
        "left",
        "local_open",
        "part",
        "pending",
        "pending_size",
        "ready",
        "recv_window",
        "remote_open",
        "send_window",
        "since",
        "threshold",
        "trailers",
        "tunnel",
        "unconsumed",
        "window",
    )

    def __init__(
        self,
        number: int,
        recv_window: int,
        send_window: int,
        window: int,
        threshold: int,
        now: float,
    ) -> None:
        self.id = number
        self.remote_open = True
        self.local_open = True
        self.head_request = False
        self.left = NO_HEAD
        self.held = False
        self.unconsumed = 0
        self.credit = 0
        self.window = window
        self.threshold = threshold
        self.since = now
        self.part: Round | None = None
        self.recv_window = recv_window
        self.send_window = send_window
        self.pending: deque[bytes | memoryview] = deque()
        self.pending_size = 0
        self.trailers: Headers | None = None
        self.tunnel = False
        self.ready = False
        self.full = False


class Http2Output:
    """
    What is to be sent, and when.

    @ivar drained: streams that were full and want more; the caller empties it.
    """

    def __init__(self) -> None:
        self.drained: list[int] = []
        self._streams: dict[int, StreamState] = {}
        self._out: list[bytes | memoryview] = []
        self._replies = 0
        self._encoder = FieldEncoder()
        self._send_window = DEFAULT_WINDOW
        self._peer_stream_window = DEFAULT_WINDOW
        self._peer_max_frame = DEFAULT_MAX_FRAME_SIZE
        self._ready: deque[StreamState] = deque()
        self._fresh: list[StreamState] = []  # for which something came that is about to be passed on

    def _settle(self) -> None:
        """What has come was passed on."""
        raise NotImplementedError

    def _local_end(self, stream: StreamState) -> None:
        """All of a message is sent."""
        raise NotImplementedError

    def _sent_frame(self) -> None:
        """A frame of a body is sent."""
        raise NotImplementedError

    def take(self, limit: int = TURN) -> bytes:
        """
        Take what is to be sent now.

        Call it again until it returns nothing, or the transport is full.  What has
        come counts as passed on now.

        @param limit: bytes of bodies, roughly; 0 for none.
        """
        if self._fresh:
            self._settle()
        if self._ready and limit > 0:
            self._send_bodies(limit)
        out = self._out
        if not out:
            return b""
        self._out = []
        self._replies = 0
        return b"".join(out)

    def _send_bodies(self, limit: int) -> None:
        """Send one frame of each stream that can, in turns."""
        ready = self._ready
        while ready and limit > 0 and self._send_window > 0:
            stream = ready.popleft()
            size = min(stream.send_window, self._send_window, self._peer_max_frame)
            if size <= 0 or not stream.pending_size:
                stream.ready = False  # reset, or its window was closed by SETTINGS
                continue
            sent = self._send_frame(stream, size)
            limit -= sent
            self._send_window -= sent
            stream.send_window -= sent
            self._sent_frame()
            if stream.pending_size and stream.send_window > 0:
                ready.append(stream)
            else:
                stream.ready = False

    def _send_frame(self, stream: StreamState, size: int) -> int:
        """Send up to some bytes of a stream as one frame; return how many."""
        pending = stream.pending
        pieces: list[bytes | memoryview] = []
        left = size
        while pending and left:
            piece = pending.popleft()
            if len(piece) > left:
                view = memoryview(piece)
                pending.appendleft(view[left:])
                piece = view[:left]
            pieces.append(piece)
            left -= len(piece)
        sent = size - left
        stream.pending_size -= sent
        last = not pending and stream.trailers is not None
        bare = last and not stream.trailers
        self._out.append(
            HEADER.pack(
                sent >> 8, sent & 0xFF, FrameType.DATA, FrameFlag.END_STREAM if bare else 0, stream.id
            )
        )
        self._out += pieces
        if stream.full and stream.pending_size < RESUME_BELOW:
            stream.full = False
            self.drained.append(stream.id)
        if last:
            self._send_end(stream, bare)
        return sent

    def _send_end(self, stream: StreamState, done: bool) -> None:
        """All of a message is sent, but for its trailers if it is not C{done}."""
        if not done:
            assert stream.trailers is not None
            self._out.append(self._encode(stream.id, stream.trailers, True))
        self._local_end(stream)

    def _queue(self, stream: StreamState) -> None:
        if stream.pending_size and not stream.ready and stream.send_window > 0:
            stream.ready = True
            self._ready.append(stream)

    def _encode(self, number: int, fields: Headers, ended: bool) -> bytes:
        return header_block(number, self._encoder.encode(fields), ended, self._peer_max_frame)

    def _sendable(self, number: int) -> StreamState | None:
        """Find a stream that we may send on; it may have been reset meanwhile."""
        stream = self._streams.get(number)
        if stream is None or not stream.local_open or stream.trailers is not None:
            return None
        return stream

    def send_head(self, number: int, fields: Headers, ended: bool) -> None:
        """
        Send the head of a response.

        Like all that sends on a stream, it does nothing if the stream has ended.

        @param ended: whether that is all of it.
        """
        stream = self._sendable(number)
        if stream is not None:
            self._out.append(self._encode(number, fields, ended))
            if ended:
                stream.trailers = []
                self._local_end(stream)

    def send_data(self, number: int, data: bytes) -> None:
        """Send a part of a body, as soon as it may be sent."""
        stream = self._sendable(number)
        if stream is not None and data:
            stream.pending.append(data)
            stream.pending_size += len(data)
            if stream.pending_size > STREAM_BUFFER:
                stream.full = True
            self._queue(stream)

    def send_end(self, number: int, trailers: Headers) -> None:
        """End a message behind what was sent."""
        stream = self._sendable(number)
        if stream is not None:
            stream.trailers = trailers
            if not stream.pending_size:
                if not trailers:
                    self._out.append(frame(FrameType.DATA, FrameFlag.END_STREAM, number))
                self._send_end(stream, not trailers)

    def is_full(self, number: int) -> bool:
        """Whether a stream has enough to send; it is in L{drained} when it wants more."""
        stream = self._streams.get(number)
        return stream is not None and stream.full

    def unsent(self, number: int) -> int:
        """How many bytes of a body wait to be sent on a stream; 0 if it has ended."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.pending_size

    def has_ended(self, number: int) -> bool:
        """Whether the peer has sent all of its message on a stream."""
        stream = self._streams.get(number)
        return stream is None or not stream.remote_open

    def credit(self, number: int) -> int:
        """How many bytes of a body the peer lets us send on a stream now; 0 if it has ended."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.send_window

    def is_open(self, number: int) -> bool:
        """Whether a stream has not ended in both directions."""
        return number in self._streams

    def _apply_window(self, value: int) -> None:
        delta = value - self._peer_stream_window
        self._peer_stream_window = value
        for stream in self._streams.values():
            stream.send_window += delta
            if stream.send_window > MAX_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
            self._queue(stream)
