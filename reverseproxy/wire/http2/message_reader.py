"""
From frames of HTTP/2 to messages: streams with their bodies and trailers, and how they end.
"""

from __future__ import annotations

__all__ = ["MessageReader"]

from typing import Final

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http.message import END, End
from reverseproxy.wire.http2.events import (
    Http2Limits,
    StreamReset,
)
from reverseproxy.wire.http2.fields import (
    Malformed,
    list_size,
    parse_trailers,
)
from reverseproxy.wire.http2.frame_reader import SELF_DEPENDENT, FrameReader, unpad
from reverseproxy.wire.http2.frames import (
    ErrorCode,
    FrameFlag,
    rst_stream,
)
from reverseproxy.wire.http2.late import ResetStreams
from reverseproxy.wire.http2.outbound import NO_HEAD, StreamState
from reverseproxy.wire.window import Reserve

REMEMBERED_RESETS: Final = 256
"""How many streams that we reset are remembered, as the peer may have sent more for them."""

RESETS_OF_CLIENTS: Final = 4096
"""The same for a host's connection, on which many clients may cancel their requests at once."""


class MessageReader(FrameReader):
    """The part of a connection that receives messages on streams."""

    def __init__(self, limits: Http2Limits, reserve: Reserve | None = None) -> None:
        super().__init__(limits, reserve)
        self._resets = ResetStreams(RESETS_OF_CLIENTS if self._client else REMEMBERED_RESETS)

    # what a subclass does

    def _is_idle(self, number: int) -> bool:
        """Whether a stream has never been opened."""
        raise NotImplementedError

    def _check_new(self, number: int) -> None:
        """Refuse a stream that the peer may not open."""
        raise NotImplementedError

    def _on_new_stream(self, number: int, fields: Headers, ended: bool) -> None:
        raise NotImplementedError

    def _on_response(self, stream: StreamState, fields: Headers, ended: bool) -> None:
        raise NotImplementedError

    # bodies

    @property
    def streams(self) -> int:
        """How many streams are open, in at least one direction."""
        return len(self._streams)

    def _on_data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        if size > self._recv_window:
            raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "more data than the connection's window has")
        self._recv_window -= size
        stream = self._streams.get(number)
        if stream is None or not stream.remote_open:
            self._consume(None, size)
            self._on_closed(number, stream, "DATA", size)
            return
        if size > stream.recv_window:
            self._consume(None, size)
            self._stream_error(number, ErrorCode.FLOW_CONTROL_ERROR, "more data than the stream's window has")
            return
        stream.recv_window -= size
        data = payload
        if flags & FrameFlag.PADDED:
            data = unpad(payload)
        count = len(data)
        ended = flags & FrameFlag.END_STREAM
        wrong = _count_body(stream, count, bool(ended))
        if wrong:
            self._consume(None, size)
            self._stream_error(number, ErrorCode.PROTOCOL_ERROR, wrong)
            return
        if size > count:
            self._consume(stream, size - count)
        stream.unconsumed += count
        if stream.held:
            self.held += count
        else:
            self._fresh.append(stream)
        if count:
            self._events.append((number, data))
            self._control_budget.earn()
        elif not ended:
            self._spend_control("empty DATA frames")
        if ended:
            self._remote_end(stream)
            self._events.append((number, END))

    # field blocks

    def _on_fields(self, flags: int, number: int, fields: Headers) -> None:
        ended = bool(flags & FrameFlag.END_STREAM)
        stream = self._streams.get(number)
        if flags & SELF_DEPENDENT:
            if stream is None:
                self._check_new(number)
            self._stream_error(number, ErrorCode.PROTOCOL_ERROR, "a stream depends on itself")
        elif stream is None:
            self._on_new_stream(number, fields, ended)
        elif not stream.remote_open:
            self._on_closed(number, stream, "HEADERS")
        elif stream.left == NO_HEAD:
            self._on_response(stream, fields, ended)
        else:
            self._on_trailers(stream, fields, ended)

    def _on_trailers(self, stream: StreamState, fields: Headers, ended: bool) -> None:
        if not ended:
            self._stream_error(stream.id, ErrorCode.PROTOCOL_ERROR, "HEADERS in the middle of a message")
            return
        if stream.left > 0:
            self._stream_error(stream.id, ErrorCode.PROTOCOL_ERROR, "less data than content-length says")
            return
        if list_size(fields) > self._limits.max_header_list_size:
            self._stream_error(stream.id, ErrorCode.ENHANCE_YOUR_CALM, "trailers too large")
            return
        try:
            trailers = parse_trailers(fields, self._limits.max_fields, self._client)
        except Malformed as error:
            self._stream_error(stream.id, ErrorCode.PROTOCOL_ERROR, str(error))
            return
        self._remote_end(stream)
        self._events.append((stream.id, End(trailers) if trailers else END))

    # streams that end

    def _on_closed(self, number: int, stream: StreamState | None, kind: str, size: int = 0) -> None:
        """
        Handle a frame on a stream that is over, or that the peer has ended.

        @param size: bytes of DATA.
        """
        if stream is not None:
            self._stream_error(number, ErrorCode.STREAM_CLOSED, f"{kind} behind the end of the message")
        elif self._is_idle(number):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{kind} on stream {number}, which is not open")
        elif number in self._resets:
            self._drop_late(number, size)
        else:
            self._spend_reset()
            self._reply(rst_stream(number, ErrorCode.STREAM_CLOSED))

    def _drop_late(self, number: int, size: int = 0) -> None:
        """
        Drop a frame on a stream that was reset, and charge for it if the peer must have known that.

        @param size: bytes of DATA.
        """
        if not self._resets.expects(number, size):
            self._spend_control("frames on streams that were reset")

    def _stream_error(self, number: int, code: ErrorCode, reason: str, processed: bool = True) -> None:
        """Reset a stream whose rules the peer has broken."""
        self._events.append((number, StreamReset(code, False, processed, reason)))
        self._spend_reset()
        self._reply(rst_stream(number, code))
        self._remember_reset(number)
        self._drop(number)

    def _remember_reset(self, number: int) -> None:
        """Remember a stream that is reset, before it is dropped."""
        stream = self._streams.get(number)
        self._resets.remember(number, self._stream_window if stream is None else stream.recv_window)

    def _drop(self, number: int) -> None:
        """Forget a stream, with all that waits to be sent on it."""
        stream = self._streams.pop(number, None)
        if stream is None:
            return
        stream.remote_open = stream.local_open = False
        stream.pending.clear()
        stream.pending_size = 0
        if stream.unconsumed:
            self._let_go(stream)
        if stream.part is not None:
            self._growth.forget(number, stream.window)

    def _remote_end(self, stream: StreamState) -> None:
        stream.remote_open = False
        if not stream.local_open:
            self._complete(stream)

    def _local_end(self, stream: StreamState) -> None:
        stream.local_open = False
        if not stream.remote_open:
            self._complete(stream)

    def _complete(self, stream: StreamState) -> None:
        """Forget a stream whose two messages are complete."""
        self._reset_budget.earn()
        self._control_budget.earn()
        self._drop(stream.id)

    def reset(self, number: int, code: int) -> None:
        """Reset a stream, if it has not ended."""
        if number in self._streams:
            self._out.append(rst_stream(number, code))
            self._remember_reset(number)
            self._drop(number)


def _count_body(stream: StreamState, size: int, ended: bool) -> str:
    """
    Count bytes of a body against its C{content-length}.

    @param ended: whether these are the last ones.
    @return: what is wrong with them; empty if nothing is.
    """
    left = stream.left
    if left < 0:
        return "data before the head of a response" if left == NO_HEAD else ""
    stream.left = left = left - size
    if left < 0 or (ended and left):
        return "the body has another length than content-length says"
    return ""
