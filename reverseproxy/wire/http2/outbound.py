"""
The sending half of a connection of HTTP/2.

Bodies are kept by stream until the peer's windows and the caller have room for
them, and are sent in turns, one frame of each stream.
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
"""In place of the length of a body: the head of the final response has not come."""

TURN: Final = 65536
"""Bytes of bodies that one L{Http2Output.take} returns, if it is not told otherwise."""


class StreamState:
    """
    The state of one stream.

    @ivar remote_open: whether the peer may send more of its message.
    @ivar local_open: whether we may send more of ours.
    @ivar head_request: whether its request has the method HEAD.
    @ivar left: bytes of the peer's body still to come; -1 if it gave no length, and L{NO_HEAD}
        as long as the head of its final message has not come.
    @ivar held: whether the window is not opened again; see C{Windows.hold}.
    @ivar unconsumed: bytes that have come and were not passed on.
    @ivar credit: bytes that were passed on and are in no WINDOW_UPDATE yet.
    @ivar window: the size of the receive window in bytes, which may grow.
    @ivar threshold: bytes of credit from which on WINDOW_UPDATE is sent.
    @ivar since: when the stream was opened, or a little before.
    @ivar part: how much was passed on since a certain time, once there was a WINDOW_UPDATE.
    @ivar recv_window: bytes that the peer may send now.
    @ivar send_window: bytes that we may send now.
    @ivar pending: parts of our body that wait to be sent; C{pending_size} bytes.
    @ivar trailers: the trailers behind them, once our message is complete; may be empty.
    @ivar tunnel: whether it carries another protocol, whose two directions end on their own.
    @ivar ready: whether it waits for its turn to send.
    @ivar full: whether more than L{STREAM_BUFFER} is pending, and the caller should pause.
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
    The part of a connection that sends.

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
        self._fresh: list[StreamState] = []  # with bytes that came since the last call to take

    def _settle(self) -> None:
        """Note that all that has come was passed on."""
        raise NotImplementedError

    def _local_end(self, stream: StreamState) -> None:
        """Note that all of our message on a stream is sent."""
        raise NotImplementedError

    def _sent_frame(self) -> None:
        """Note that a frame of a body is sent."""
        raise NotImplementedError

    def take(self, limit: int = TURN) -> bytes:
        """
        Return the bytes to send now.

        Call it again until it returns nothing, or the transport is full.  All that
        C{feed} has returned counts as passed on from now on.

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
        """End our message on a stream, with its trailers if it is not C{done}."""
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
        """Return a stream if we may send on it; it may have been reset meanwhile."""
        stream = self._streams.get(number)
        if stream is None or not stream.local_open or stream.trailers is not None:
            return None
        return stream

    def send_head(self, number: int, fields: Headers, ended: bool) -> None:
        """
        Send the head of a response.

        Like every method that sends on a stream, it does nothing if the stream has ended.

        @param ended: whether the response has neither body nor trailers.
        """
        stream = self._sendable(number)
        if stream is not None:
            self._out.append(self._encode(number, fields, ended))
            if ended:
                stream.trailers = []
                self._local_end(stream)

    def send_data(self, number: int, data: bytes) -> None:
        """Send a part of a body, as soon as windows and turns allow."""
        stream = self._sendable(number)
        if stream is not None and data:
            stream.pending.append(data)
            stream.pending_size += len(data)
            if stream.pending_size > STREAM_BUFFER:
                stream.full = True
            self._queue(stream)

    def send_end(self, number: int, trailers: Headers) -> None:
        """End a message, behind what is pending."""
        stream = self._sendable(number)
        if stream is not None:
            stream.trailers = trailers
            if not stream.pending_size:
                if not trailers:
                    self._out.append(frame(FrameType.DATA, FrameFlag.END_STREAM, number))
                self._send_end(stream, not trailers)

    def queued(self) -> int:
        """Return how many bytes wait for the next call to C{take}: all frames but those of bodies."""
        out = self._out
        if len(out) > 1:
            out[:] = [b"".join(out)]
        return len(out[0]) if out else 0

    def is_full(self, number: int) -> bool:
        """Return whether a stream has enough pending; it is in L{drained} when it wants more."""
        stream = self._streams.get(number)
        return stream is not None and stream.full

    def unsent(self, number: int) -> int:
        """Return how many bytes are pending on a stream; 0 if it has ended."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.pending_size

    def has_ended(self, number: int) -> bool:
        """Return whether the peer has sent all of its message on a stream."""
        stream = self._streams.get(number)
        return stream is None or not stream.remote_open

    def credit(self, number: int) -> int:
        """Return the send window of a stream in bytes; 0 if it has ended."""
        stream = self._streams.get(number)
        return 0 if stream is None else stream.send_window

    def is_open(self, number: int) -> bool:
        """Return whether a stream is open in at least one direction."""
        return number in self._streams

    def _apply_window(self, value: int) -> None:
        delta = value - self._peer_stream_window
        self._peer_stream_window = value
        for stream in self._streams.values():
            stream.send_window += delta
            if stream.send_window > MAX_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "a stream's window is too large")
            self._queue(stream)
