"""The events of a connection of HTTP/2, and its limits."""

from __future__ import annotations

__all__ = [
    "PEER_SETTINGS",
    "RESETS_PER_SECOND",
    "SHARED_RESETS",
    "SHARED_RESETS_PER_SECOND",
    "Budget",
    "Event",
    "GoAway",
    "Http2Limits",
    "PeerSettings",
    "PingAck",
    "StreamReset",
]

from dataclasses import dataclass
from typing import Final

from reverseproxy.errors import Http2Error, HttpError
from reverseproxy.wire.budget import Budget
from reverseproxy.wire.http.border import NOTHING
from reverseproxy.wire.http.fields import MAX_HEADERS
from reverseproxy.wire.http.message import End, Request, Response
from reverseproxy.wire.http2.frames import DEFAULT_MAX_FRAME_SIZE, DEFAULT_WINDOW, MAX_WINDOW, ErrorCode

_TOLD_AFTER: Final = 1024 * 1024
"""Bytes of bodies on all streams after which the connection's window is updated, at the latest."""


RESETS_PER_SECOND: Final = 20.0
"""How many resets a second a client may go on with."""

SHARED_RESETS: Final = 10_000
"""Resets in a burst on a connection that carries the requests of many clients; see L{Http2Limits}."""

SHARED_RESETS_PER_SECOND: Final = 1000.0
"""How many a second it may go on with."""


@dataclass(frozen=True, slots=True)
class Http2Limits:
    """
    The limits of what a peer may do.

    @ivar max_concurrent_streams: streams of the peer that may be open at once;
        further ones are refused.
    @ivar max_header_list_size: bytes of a head, as RFC 9113 counts them: names,
        values, and 32 for each field.
    @ivar max_fields: fields of a head, or of trailers.
    @ivar stream_window: bytes of the initial window of a stream.
    @ivar max_window: bytes that a stream's window may grow to, where the round trip is
        long and its reader fast; see L{Growth<reverseproxy.wire.window.Growth>}.
    @ivar receive_budget: bytes by which all windows of streams together may
        grow.
    @ivar max_resets: how many streams in a burst the peer may reset, or have reset
        by its mistakes.
    @ivar resets_per_second: how many it may go on with once these are used up.
    @ivar max_control_frames: how many frames in a burst may carry no part of a request; see
        C{CONTROL_PER_SECOND}.
    @ivar max_frame_size: bytes of a frame's payload.
    @ivar foreign: the marks of fields that the peer may not set, which its
        requests lose; see L{reverseproxy.wire.http.border}.
    """

    max_concurrent_streams: int = 100
    max_header_list_size: int = 65536
    max_fields: int = MAX_HEADERS
    stream_window: int = 262144
    max_window: int = 64 * 1024 * 1024
    receive_budget: int = 64 * 1024 * 1024
    max_resets: int = 200
    resets_per_second: float = RESETS_PER_SECOND
    max_control_frames: int = 1000
    max_frame_size: int = DEFAULT_MAX_FRAME_SIZE
    foreign: int = NOTHING

    @property
    def connection_window(self) -> int:
        """
        Bytes of the connection's window.

        It has room for full windows of all streams and for what was passed on
        without an update yet, so that slow streams never stop others.
        """
        return min(MAX_WINDOW, max(DEFAULT_WINDOW, self._all_windows + self.connection_threshold))

    @property
    def connection_threshold(self) -> int:
        """Bytes that have to be passed on before the connection's window is updated."""
        return min(_TOLD_AFTER, max(DEFAULT_WINDOW, self._all_windows) // 2)

    @property
    def _all_windows(self) -> int:
        return self.stream_window * self.max_concurrent_streams + self.receive_budget

    @property
    def hard_header_list_size(self) -> int:
        """
        Bytes of a head beyond which the connection ends.

        A field block has to be decoded even if it is refused, as it changes the
        state of the compression.
        """
        return max(4 * self.max_header_list_size, 65536)


class StreamReset:
    """
    A stream has ended early; nothing more comes for it.

    @ivar code: the error code that was sent or received.
    @ivar remote: whether the peer has reset it.
    @ivar processed: false if the peer has certainly not acted on the request.
    @ivar reason: a sentence for logs.
    """

    __slots__ = ("code", "processed", "reason", "remote")

    def __init__(self, code: int, remote: bool, processed: bool, reason: str) -> None:
        self.code = code
        self.remote = remote
        self.processed = processed
        self.reason = reason

    def __repr__(self) -> str:
        who = "peer" if self.remote else "us"
        return f"<StreamReset by {who}: {ErrorCode.name_of(self.code)}: {self.reason}>"


class GoAway:
    """
    The peer takes no more streams.

    @ivar last_stream: the highest stream that it may act on.
    @ivar code: why.
    @ivar debug: the peer's text.
    """

    __slots__ = ("code", "debug", "last_stream")

    def __init__(self, last_stream: int, code: int, debug: str) -> None:
        self.last_stream = last_stream
        self.code = code
        self.debug = debug

    def __repr__(self) -> str:
        return f"<GoAway {ErrorCode.name_of(self.code)} last={self.last_stream} {self.debug!r}>"


class PingAck:
    """
    The answer to a PING of ours.

    @ivar data: its 8 bytes.
    """

    __slots__ = ("data",)

    def __init__(self, data: bytes) -> None:
        self.data = data


class PeerSettings:
    """The peer has changed its settings."""


PEER_SETTINGS: Final = PeerSettings()

Event = (
    Request | Response | bytes | End | HttpError | StreamReset | GoAway | PingAck | PeerSettings | Http2Error
)
"""What C{feed} returns, with the number of the stream."""
