"""
From bytes to frames and field blocks of HTTP/2, and limits for frames that carry no part of a message.
"""

from __future__ import annotations

__all__ = ["SELF_DEPENDENT", "FrameReader", "unpad"]

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from hpack.exceptions import HPACKError, OversizedHeaderListError

from reverseproxy.errors import Http2Error
from reverseproxy.wire.http.fields import Headers
from reverseproxy.wire.http2.events import (
    Budget,
    Event,
    Http2Limits,
)
from reverseproxy.wire.http2.frames import (
    DEFAULT_MAX_FRAME_SIZE,
    HEADER,
    HEADER_SIZE,
    PREFACE,
    ErrorCode,
    FrameFlag,
    FrameType,
    go_away,
)
from reverseproxy.wire.http2.hpack import FieldDecoder
from reverseproxy.wire.http2.windows import Windows
from reverseproxy.wire.window import Reserve

MAX_REPLIES: Final = 1000
"""Replies, such as acknowledgements, that may be queued for a peer that does not read."""

USUAL_FIELDS: Final = 256
"""Fields of a block that are not charged for beside its frames."""

FIELDS_PER_FRAME: Final = 64
"""Further fields that are charged for like one frame: each may be a single byte."""

UPDATES_PER_FRAME: Final = 16
"""WINDOW_UPDATE frames that a peer may send for each frame of a body that it gets."""

MAX_CONTINUATIONS: Final = 32
"""CONTINUATION frames of one field block, beyond those that its size needs."""

CONTROL_PER_SECOND: Final = 50.0
"""How many frames a second a peer may go on with once L{Http2Limits.max_control_frames} are used up."""

_UINT32: Final = Struct(">L")

_unpack_header = HEADER.unpack_from

SELF_DEPENDENT: Final = 0x100
"""An internal flag, beyond the 8 bits on the wire: the stream depends on itself (RFC 9113 5.3)."""


class FrameReader(Windows):
    """
    The part of a connection that reads frames.

    @ivar closed: whether the connection has failed or was closed: nothing more is read; send
        what L{take} returns, and close the transport.
    @ivar established: whether the peer's first SETTINGS have come.
    """

    _client = False
    _silent = False  # nothing was sent yet, nor will be before the peer's SETTINGS have come

    def __init__(self, limits: Http2Limits, reserve: Reserve | None = None) -> None:
        super().__init__(limits, reserve)
        self.closed = False
        self.established = False
        self._limits = limits
        self._buffer = b""
        self._preface = b"" if self._client else PREFACE
        self._block: list[bytes] = []  # of a field block that is not complete
        self._block_stream = 0
        self._block_flags = 0
        self._block_size = 0
        self._continuations = 0
        self._decoder = FieldDecoder(limits.hard_header_list_size)
        self._reset_budget = Budget(limits.max_resets, limits.resets_per_second)
        self._control_budget = Budget(limits.max_control_frames, CONTROL_PER_SECOND)
        self._update_budget = Budget(
            limits.max_control_frames * UPDATES_PER_FRAME, CONTROL_PER_SECOND * UPDATES_PER_FRAME
        )
        self._events: list[tuple[int, Event]] = []
        self._handlers = self._frame_handlers()

    # what a subclass does

    def _frame_handlers(self) -> Sequence[Callable[[int, int, bytes], None]]:
        """Return the handlers of frames, by type: each takes flags, a stream's number, and the payload."""
        raise NotImplementedError

    def _begin(self) -> None:
        """Send our SETTINGS."""
        raise NotImplementedError

    def _on_fields(self, flags: int, number: int, fields: Headers) -> None:
        """Handle the fields of a complete field block."""
        raise NotImplementedError

    def _last_stream(self) -> int:
        raise NotImplementedError

    # bytes

    @property
    def unfinished(self) -> int:
        """Bytes of an incomplete frame or field block."""
        return len(self._buffer) + (self._block_size if self._block else 0)

    def feed(self, data: bytes, now: float = 0.0) -> list[tuple[int, Event]]:
        """
        Take bytes.

        @param now: the time in seconds, for what is limited by time.
        @return: what they complete, with the number of its stream.
        """
        if self.closed:
            return []
        if self._fresh:
            self._settle()
        self._now = now
        if self._greeted_at > now:
            self._greeted_at = now  # a server that waits for its client's greeting answers now
        events: list[tuple[int, Event]] = []
        self._events = events
        try:
            if self._buffer:
                data = self._buffer + data
                self._buffer = b""
            if self._preface:
                data = self._read_preface(data)
            self._read_frames(data)
        except Http2Error as error:
            self._fail(error)
        return events

    def _fail(self, error: Http2Error) -> None:
        if self._silent:
            self._begin()
        self._events.append((0, error))
        self._out.append(go_away(self._last_stream(), error.code, str(error).encode("ascii", "replace")))
        self._close()

    def _close(self) -> None:
        self.closed = True
        self._buffer = b""
        self._block.clear()
        self._streams.clear()
        self._ready.clear()
        self.close_windows()

    def let_go(self) -> None:
        """Drop an incomplete frame or field block: no more bytes will come."""
        self._buffer = b""
        self._block.clear()

    def _read_preface(self, data: bytes) -> bytes:
        preface = self._preface
        have = min(len(data), len(preface))
        if data[:have] != preface[:have]:
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, f"a client of HTTP/2 does not begin with {data[:24]!r}"
            )
        self._preface = preface[have:]
        return data[have:]

    def _read_frames(self, data: bytes) -> None:
        offset = 0
        end = len(data)
        handlers = self._handlers
        max_frame_size = self._limits.max_frame_size
        while end - offset >= HEADER_SIZE:
            high, low, kind, flags, stream = _unpack_header(data, offset)
            size = (high << 8) | low
            if not self.established:
                self._check_first(data, offset, kind, flags)
            if size > max_frame_size:
                raise Http2Error(
                    ErrorCode.FRAME_SIZE_ERROR, f"a frame of {size} bytes is larger than {max_frame_size}"
                )
            body = offset + HEADER_SIZE
            if end - body < size:
                break
            offset = body + size
            stream &= 0x7FFFFFFF
            if self._block and (kind != FrameType.CONTINUATION or stream != self._block_stream):
                raise Http2Error(ErrorCode.PROTOCOL_ERROR, "a field block was interrupted by another frame")
            if kind < 10:
                handlers[kind](flags, stream, data[body:offset])
            else:
                self._spend_control("frames of unknown kinds")
        if offset < end:
            self._buffer = data[offset:] if offset else data

    def _check_first(self, data: bytes, offset: int, kind: int, flags: int) -> None:
        """
        Demand SETTINGS as the first frame; anything else is most likely another protocol.

        It may be an acknowledgement of ours, although the peer's own should come
        first (RFC 9113 3.4): MOSN reads in one thread and writes in another.  Go's
        library accepts that, too.
        """
        if kind != FrameType.SETTINGS:
            first = data[offset : offset + 24]
            raise Http2Error(
                ErrorCode.PROTOCOL_ERROR, f"the first frame is not SETTINGS; the peer sent {first!r}"
            )

    # budgets for frames that carry no part of a message

    def _sent_frame(self) -> None:
        # A peer may answer each frame of a body with frames of its own.
        self._control_budget.earn()
        self._update_budget.earn(UPDATES_PER_FRAME)

    def _spend_update(self) -> None:
        if not self._update_budget.spend(self._now):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many WINDOW_UPDATE frames")

    def _spend_control(self, what: str, cost: float = 1) -> None:
        if not self._control_budget.spend(self._now, cost):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, f"too many {what}")

    def _spend_reset(self) -> None:
        if not self._reset_budget.spend(self._now):
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many streams were broken off")

    def _reply(self, data: bytes) -> None:
        """Queue a frame in reply to one of the peer's; see L{MAX_REPLIES}."""
        self._replies += 1
        if self._replies > MAX_REPLIES:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM, f"{MAX_REPLIES} replies wait for a peer that takes none"
            )
        self._out.append(data)

    # HEADERS and CONTINUATION

    def _on_headers(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "HEADERS on stream 0")
        if flags & FrameFlag.PADDED:
            payload = unpad(payload)
        if flags & FrameFlag.PRIORITY:
            if len(payload) < 5:
                raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "HEADERS too short for its priority")
            depends_on_itself = _UINT32.unpack_from(payload)[0] & 0x7FFFFFFF == number
            payload = payload[5:]
            if depends_on_itself:
                flags |= SELF_DEPENDENT
        if flags & FrameFlag.END_HEADERS:
            self._on_block(flags, number, payload)
            return
        self._block.append(payload)
        self._block_stream = number
        self._block_flags = flags
        self._block_size = len(payload)
        self._continuations = 0
        self._check_block()

    def _on_continuation(self, flags: int, number: int, payload: bytes) -> None:
        if not self._block:
            raise Http2Error(ErrorCode.PROTOCOL_ERROR, "CONTINUATION without a field block")
        self._block.append(payload)
        self._block_size += len(payload)
        self._continuations += 1
        self._check_block()
        if flags & FrameFlag.END_HEADERS:
            block = b"".join(self._block)
            self._block.clear()
            self._on_block(self._block_flags, number, block)

    def _check_block(self) -> None:
        if self._block_size > self._limits.hard_header_list_size:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a field block larger than {self._limits.hard_header_list_size} bytes",
            )
        if self._continuations > MAX_CONTINUATIONS + self._block_size // DEFAULT_MAX_FRAME_SIZE:
            raise Http2Error(ErrorCode.ENHANCE_YOUR_CALM, "too many CONTINUATION frames")

    def _on_block(self, flags: int, number: int, block: bytes) -> None:
        """Decode a complete field block, in any case, as it may change the decoder's table."""
        try:
            fields = self._decoder.decode(block)
        except OversizedHeaderListError:
            raise Http2Error(
                ErrorCode.ENHANCE_YOUR_CALM,
                f"a field block of more than {self._limits.hard_header_list_size} bytes when decoded",
            ) from None
        except (HPACKError, UnicodeError, IndexError) as error:
            # The library shows buffers by their addresses, which are not for peers to know.
            reason = str(error).partition(" from <")[0][:80]
            raise Http2Error(
                ErrorCode.COMPRESSION_ERROR, f"a field block can't be decoded: {reason}"
            ) from None
        if len(fields) > USUAL_FIELDS:
            self._spend_control("fields", (len(fields) - USUAL_FIELDS) / FIELDS_PER_FRAME)
        self._on_fields(flags, number, fields)


def unpad(payload: bytes) -> bytes:
    """Return a payload without its padding (RFC 9113 6.1)."""
    if not payload:
        raise Http2Error(ErrorCode.FRAME_SIZE_ERROR, "a padded frame without the length of its padding")
    if payload[0] >= len(payload):
        raise Http2Error(ErrorCode.PROTOCOL_ERROR, "more padding than the frame has bytes")
    return payload[1 : len(payload) - payload[0]]
