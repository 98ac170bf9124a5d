"""The events of a multiplexed connection, and its limits."""

from __future__ import annotations

__all__ = [
    "INITIAL_WINDOW",
    "MAX_WINDOW",
    "MIN_WINDOW",
    "SMALL_WINDOW",
    "Credit",
    "Data",
    "Ended",
    "Event",
    "GoAwayCode",
    "GoneAway",
    "Leaving",
    "MuxLimits",
    "Opened",
    "Pong",
    "Reset",
    "Well",
]

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

INITIAL_WINDOW: Final = 262144
"""Bytes that either end may send on a new stream before it is given more; set by yamux."""

SMALL_WINDOW: Final = 65536
"""The same for two ends that have agreed on less, so that many slow readers hold little."""

MIN_WINDOW: Final = 4096
"""The least that two ends may agree on."""

MAX_WINDOW: Final = 2**31
"""Bytes of credit that a stream may have at once, in our reading of yamux, which names no bound."""


class GoAwayCode(IntEnum):
    """Why an end of a connection takes no more streams."""

    NORMAL = 0
    """It is about to leave; streams that are open go on."""
    PROTOCOL_ERROR = 1
    """The other end broke the rules; the connection is over."""
    INTERNAL_ERROR = 2
    """It can't go on for a reason of its own; the connection is over."""


@dataclass(frozen=True, slots=True)
class MuxLimits:
    """
    The limits of what a peer may do, and of how we send.

    @ivar first: bytes of credit that either end has on a new stream.  yamux says
        L{INITIAL_WINDOW}; both ends have to have agreed on anything else.
    @ivar window: bytes of a stream's receive window, to begin with; not less than
        C{first}.
    @ivar max_window: bytes that it may grow to, where the round trip is long and the
        reader fast; see L{Growth<reverseproxy.wire.window.Growth>}.
    @ivar max_streams: streams that may be open at once, of both ends together.
    @ivar max_frame: bytes of data in a frame that we send.
    @ivar accept_backlog: streams that the peer has opened and that we have not
        acknowledged yet; further ones are refused.
    @ivar receive_budget: bytes by which the windows of all streams together may
        grow.
    @ivar max_held: bytes that may have come on all streams together and not been
        consumed, beyond which the stream with most of them is reset.  It only bounds
        memory, as slow readers break no rule: the initial windows of all streams
        should fit in it.
    @ivar max_pending_control: frames without data that may wait for a peer that does
        not read, besides two for each of C{max_streams}.
    @ivar max_resets: how many streams in a burst a peer may open and reset before they
        are complete; see
        L{RESETS_PER_SECOND<reverseproxy.wire.yamux.abuse.RESETS_PER_SECOND>}.  Further
        streams are refused.
    @ivar tells: whether both ends have agreed on C{tells} (docs/wire-protocol.rst); see L{Well}.
    @ivar moves: whether both ends have agreed on C{moves}; see L{Leaving}.
    """

    first: int = INITIAL_WINDOW
    window: int = INITIAL_WINDOW
    max_window: int = 64 * 1024 * 1024
    max_streams: int = 16384
    max_frame: int = 32768
    accept_backlog: int = 4096
    receive_budget: int = 64 * 1024 * 1024
    max_held: int = 1024 * 1024 * 1024
    max_pending_control: int = 1000
    max_resets: int = 10_000
    tells: bool = False
    moves: bool = False

    def __post_init__(self) -> None:
        """
        Check what yamux itself demands.

        @raise ValueError: if a window or a frame can't have its size.
        """
        if not MIN_WINDOW <= self.first <= self.window <= self.max_window <= MAX_WINDOW:
            raise ValueError(
                f"expected {MIN_WINDOW} <= first <= window <= max_window <= {MAX_WINDOW},"
                f" not {self.first}, {self.window} and {self.max_window}"
            )
        if self.max_frame < 1:
            raise ValueError(f"a frame can't have {self.max_frame} bytes of data")


class _StreamEvent:
    """
    An event of one stream.

    @ivar stream: its number.
    """

    __slots__ = ("stream",)

    def __init__(self, stream: int) -> None:
        self.stream = stream

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.stream}>"


class Opened(_StreamEvent):
    """The peer has opened a stream."""

    __slots__ = ()


class Data:
    """
    Bytes came on a stream; each of them has to be reported with C{consumed} at some time.

    @ivar stream: its number.
    @ivar data: all or a part of one frame's data.
    """

    __slots__ = ("data", "stream")

    def __init__(self, stream: int, data: bytes) -> None:
        self.stream = stream
        self.data = data

    def __repr__(self) -> str:
        return f"<Data {self.stream}: {len(self.data)} bytes>"


class Ended(_StreamEvent):
    """The peer has ended its direction of a stream; we may still send."""

    __slots__ = ()


class Reset(_StreamEvent):
    """
    A stream was reset; nothing more comes on it, and nothing more can be sent.

    @ivar remote: whether the peer has reset it; if not, it was over a limit of ours.
    @ivar refused: whether the peer certainly has not looked at the stream, or has passed
        nothing of it on, so that its request or session may be tried elsewhere.
    """

    __slots__ = ("refused", "remote")

    def __init__(self, stream: int, remote: bool, refused: bool) -> None:
        self.stream = stream
        self.remote = remote
        self.refused = refused

    def __repr__(self) -> str:
        return f"<Reset {self.stream}{' by peer' * self.remote}{', refused' * self.refused}>"


class Credit(_StreamEvent):
    """The peer gives credit for a stream that had none left, and on which no bytes are pending."""

    __slots__ = ()


class Pong:
    """
    The answer to a ping of ours.

    @ivar token: what the ping carried.
    """

    __slots__ = ("token",)

    def __init__(self, token: int) -> None:
        self.token = token

    def __repr__(self) -> str:
        return f"<Pong {self.token}>"


class GoneAway:
    """
    The peer takes no more streams.

    @ivar code: a L{GoAwayCode}, or another number that the peer sent.  The connection
        is over if it is not C{NORMAL}.
    """

    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        self.code = code

    def __repr__(self) -> str:
        return f"<GoneAway {self.code}>"


class Well:
    """
    The peer says whether it can reach its service.

    @ivar well: whether it can.
    """

    __slots__ = ("well",)

    def __init__(self, well: bool) -> None:
        self.well = well

    def __repr__(self) -> str:
        return f"<Well {self.well}>"


class Leaving:
    """
    The peer, a server, is about to leave: dial another connection.

    @ivar after: after how many milliseconds.
    """

    __slots__ = ("after",)

    def __init__(self, after: int) -> None:
        self.after = after

    def __repr__(self) -> str:
        return f"<Leaving {self.after}>"


Event = Opened | Data | Ended | Reset | Credit | Pong | GoneAway | Well | Leaving
"""What C{feed} returns."""
