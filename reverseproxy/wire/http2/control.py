"""
Control frames of HTTP/2, alike at both ends: SETTINGS, PING, GOAWAY, WINDOW_UPDATE, RST_STREAM and PRIORITY.

What one end alone does with messages is in L{reverseproxy.wire.http2.connection}.
"""

from __future__ import annotations

__all__ = ["MAX_SETTINGS", "STREAMS_PER_FRAME", "ControlReader"]

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http2.events import (
    PEER_SETTINGS,
    GoAway,
    Http2Limits,
    PingAck,
    StreamReset,
)
from reverseproxy.wire.http2.frames import (
    DEFAULT_MAX_FRAME_SIZE,
    DEFAULT_WINDOW,
    MAX_WINDOW,
    ErrorCode,
    FrameFlag,
    FrameType,
    Setting,
    frame,
    go_away,
    ping,
    settings,
    window_update,
)
from reverseproxy.wire.http2.message_reader import MessageReader
from reverseproxy.wire.window import Reserve

MAX_SETTINGS: Final = 64
"""Settings in one frame: an order of magnitude more than are defined."""

STREAMS_PER_FRAME: Final = 8
"""Streams whose windows are changed with as much work as an ordinary frame takes."""

_UINT32: Final = Struct(">L")

_PAIR: Final = Struct(">LL")

_SETTING: Final = Struct(">HL")

_DEBUG_BYTES: Final = 200
"""Bytes of a peer's text that are kept for the log."""

_SETTINGS_ACK: Final = frame(FrameType.SETTINGS, FrameFlag.ACK, 0)


class ControlReader(MessageReader):
    """
    The part of a connection that reads and writes control frames.

    @ivar going: whether the peer has sent GOAWAY, and takes no further streams from us.
    @ivar acknowledged: whether the peer has acknowledged our SETTINGS.
    @ivar peer_max_streams: how many streams of ours the peer takes at once;
        L{None} for any number.
    @ivar peer_max_header_list_size: bytes of a head that the peer takes;
        L{None} for any number.
    @ivar peer_connect_protocol: whether the peer takes extended CONNECT.
    @ivar peer_upgrades: whether the peer is of this project, and takes upgrades with all that
        they have in HTTP/1; see L{reverseproxy.wire.http2.upgrades}.
    """

    _mosn = False  # the peer may be MOSN; see reverseproxy.wire.http2.mosn

    def __init__(self, limits: Http2Limits, reserve: Reserve | None = None) -> None:
        super().__init__(limits, reserve)
        self.going = False
        self.acknowledged = False
        self.peer_max_streams: int | None = None
        self.peer_max_header_list_size: int | None = None
        self.peer_connect_protocol = False
        self.peer_upgrades = False
        self._max_streams = limits.max_concurrent_streams
        if not self._silent:
            self._begin()

    def _frame_handlers(self) -> Sequence[Callable[[int, int, bytes], None]]:
        return (
            self._on_data,
            self._on_headers,
            self._on_priority,
            self._on_rst_stream,
            self._on_settings,
            self._on_push_promise,
            self._on_ping,
            self._on_goaway,
            self._on_window_update,
            self._on_continuation,
        )

    def _begin(self) -> None:
        self._silent = False
        limits = self._limits
        values = [
            (Setting.INITIAL_WINDOW_SIZE, limits.stream_window),
            (Setting.MAX_HEADER_LIST_SIZE, limits.max_header_list_size),
        ]
        if limits.max_frame_size != DEFAULT_MAX_FRAME_SIZE:
            values.append((Setting.MAX_FRAME_SIZE, limits.max_frame_size))
        self._out.append(settings(self._own_settings() + values))
        if limits.connection_window > DEFAULT_WINDOW:
            self._out.append(window_update(0, limits.connection_window - DEFAULT_WINDOW))

    def _own_settings(self) -> list[tuple[Setting, int]]:
        raise NotImplementedError

    # streams

    def _on_priority(self, flags: int, number: int, payload: bytes) -> None:
        # Priorities of this kind are deprecated (RFC 9113 5.3.2): checked, and ignored.
        if not number:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PRIORITY on stream 0")
        self._spend_control("PRIORITY frames")
        if len(payload) != 5:
            code, reason = ErrorCode.FRAME_SIZE_ERROR, f"PRIORITY of {len(payload)} bytes"
        elif _UINT32.unpack_from(payload)[0] & 0x7FFFFFFF == number:
            code, reason = ErrorCode.PROTOCOL_ERROR, "a stream depends on itself"
        else:
            return
        if number not in self._streams:
            raise Http2Error(code, reason)  # a stream that is not open can't be reset
        self._stream_error(number, code, reason)

    def _on_rst_stream(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"RST_STREAM of {len(payload)} bytes")
        if number not in self._streams:
            self._spend_for_closed(number, "RST_STREAM")
            return
        code: int = _UINT32.unpack(payload)[0]
        self._on_peer_reset(number, code)

    def _spend_for_closed(self, number: int, kind: str) -> None:
        """Charge for a frame without effect, as its stream is over, unless it came before the peer knew."""
        if self._is_idle(number):
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"{kind} on stream {number}, which is not open")
        if not self._resets.expects(number):
            self._spend_control(f"{kind} frames")

    def _on_peer_reset(self, number: int, code: int) -> None:
        self._drop(number)
        self._events.append(
            (
                number,
                StreamReset(
                    code,
                    True,
                    code != ErrorCode.REFUSED_STREAM,
                    f"the stream was reset: {ErrorCode.name_of(code)}",
                ),
            )
        )

    def _on_push_promise(self, flags: int, number: int, payload: bytes) -> None:
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "PUSH_PROMISE, which nobody has asked for")

    # the connection

    def _on_ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"PING on stream {number}")
        if len(payload) != 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"PING of {len(payload)} bytes")
        if flags & FrameFlag.ACK:
            if self._asked:
                self._asked -= 1
            else:
                self._spend_control("answers to no PING")
            if not self._is_probe(payload):
                self._events.append((0, PingAck(payload)))
            return
        self._spend_control("PING frames")
        self._reply(ping(payload, ack=True))

    def _on_goaway(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"GOAWAY on stream {number}")
        if len(payload) < 8:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"GOAWAY of {len(payload)} bytes")
        self._spend_control("GOAWAY frames")
        last, code = _PAIR.unpack_from(payload)
        debug = payload[8 : 8 + _DEBUG_BYTES].decode("utf-8", "backslashreplace")
        self.going = True
        self._events.append((0, GoAway(last & 0x7FFFFFFF, code, debug)))
        self._on_going(last & 0x7FFFFFFF, code)

    def _on_going(self, last: int, code: int) -> None:
        """Reset the streams of ours that the peer will not process."""

    def _on_window_update(self, flags: int, number: int, payload: bytes) -> None:
        if len(payload) != 4:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"WINDOW_UPDATE of {len(payload)} bytes")
        increment: int = _UINT32.unpack(payload)[0] & 0x7FFFFFFF
        if not number:
            if not self._streams:
                self._spend_control("WINDOW_UPDATE frames")
            self._spend_update()
            if not increment:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
            self._send_window += increment
            if self._send_window > MAX_WINDOW:
                raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, "the connection's window is too large")
            return
        stream = self._streams.get(number)
        if stream is None:
            self._spend_for_closed(number, "WINDOW_UPDATE")
            return
        self._spend_update()
        if not increment:
            self._stream_error(number, ErrorCode.PROTOCOL_ERROR, "WINDOW_UPDATE by 0")
        elif stream.send_window + increment > MAX_WINDOW:
            self._stream_error(number, ErrorCode.FLOW_CONTROL_ERROR, "the stream's window is too large")
        else:
            stream.send_window += increment
            self._queue(stream)

    # the peer's settings

    def _on_settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"SETTINGS on stream {number}")
        if flags & FrameFlag.ACK:
            self._on_settings_ack(payload)
            return
        if len(payload) % 6:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, f"SETTINGS of {len(payload)} bytes")
        if len(payload) > 6 * MAX_SETTINGS:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"more than {MAX_SETTINGS} SETTINGS in a frame")
        changes = list(_SETTING.iter_unpack(payload))
        if self.established:
            # A new window changes every stream.
            touched = (
                len(self._streams) if any(key == Setting.INITIAL_WINDOW_SIZE for key, _ in changes) else 0
            )
            self._spend_control("SETTINGS frames", 1 + touched / STREAMS_PER_FRAME)
        elif self._silent:
            self._begin()
        self.established = True
        window = None
        for key, value in changes:
            if key == Setting.INITIAL_WINDOW_SIZE:
                window = _checked_window(value)
            else:
                self._apply(key, value)
        if window is not None:
            # Of several, the last one counts (RFC 9113 6.5.3), and only that costs work.
            self._apply_window(window)
        self._reply(_SETTINGS_ACK)
        self._events.append((0, PEER_SETTINGS))

    def _on_settings_ack(self, payload: bytes) -> None:
        if payload:
            raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "an acknowledgement of SETTINGS with a payload")
        if self.acknowledged:
            self._spend_control("acknowledgements of SETTINGS")
        else:
            self._growth.measured(self._now - self._greeted_at, self._now)
        self.acknowledged = True

    def _apply(self, key: int, value: int) -> None:
        """Apply one of the peer's settings; unknown ones are ignored (RFC 9113 6.5.2)."""
        if key == Setting.HEADER_TABLE_SIZE:
            # The encoder may use a smaller table than the peer allows.
            self._encoder.set_max_size(value)
        elif key == Setting.ENABLE_PUSH:
            if value > 1 or (value and self._client):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"ENABLE_PUSH can't be {value}")
        elif key == Setting.MAX_CONCURRENT_STREAMS:
            self.peer_max_streams = value
        elif key == Setting.MAX_FRAME_SIZE:
            if not DEFAULT_MAX_FRAME_SIZE <= value <= 0xFFFFFF:
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"MAX_FRAME_SIZE can't be {value}")
            # Larger frames would delay other streams.
            self._peer_max_frame = min(value, DEFAULT_MAX_FRAME_SIZE)
        elif key == Setting.MAX_HEADER_LIST_SIZE:
            self.peer_max_header_list_size = value
        elif key == Setting.ENABLE_CONNECT_PROTOCOL:
            if value > 1 or (not value and self.peer_connect_protocol):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, f"ENABLE_CONNECT_PROTOCOL can't be {value}")
            self.peer_connect_protocol = bool(value)
        elif key == Setting.UPGRADES:
            self._on_peer_upgrades(value)

    def _on_peer_upgrades(self, value: int) -> None:
        """Note that the peer is of this project; that can't be taken back."""
        self.peer_upgrades = self.peer_upgrades or value == 1

    # sending

    def ping(self, data: bytes) -> None:
        """Send PING with 8 bytes; the peer's answer is a L{PingAck} with the same."""
        if not self.closed:
            self._asked += 1
            self._out.append(ping(data))

    def close(self, code: ErrorCode, reason: str = "") -> None:
        """Send GOAWAY, and forget all streams: the connection ends now."""
        if not self.closed:
            if self._silent:
                self._begin()
            self._out.append(go_away(self._last_stream(), code, reason.encode("ascii", "replace")))
            self._close()


def _checked_window(value: int) -> int:
    if value > MAX_WINDOW:
        raise Http2Error(ErrorCode.FLOW_CONTROL_ERROR, f"INITIAL_WINDOW_SIZE can't be {value}")
    return value
