"""
How long the client of an RPC protocol may say nothing, between frames and in the midst of one.

Between frames that is how long a connection may be idle, which does not count
while a request is under way, or while it is us who do not read.  In a frame, some
of it must come now and then, and all of it in some time.
"""

from __future__ import annotations

__all__ = ["Overdue", "Silence"]

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Any

from reverseproxy.proxy.closing import CloseLimits, UnreceivedBytes
from reverseproxy.proxy.http.deadlines import LOOKS

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.settings import RpcSettings


class Overdue(Enum):
    """What a client has not done in time."""

    ASK = auto()
    """Anything: the connection is idle."""

    TAKE = auto()
    """Taken the answers that it has got, although it has asked for nothing more for long."""

    GO_ON = auto()
    """Sent more of a frame that it has begun."""

    FINISH = auto()
    """Sent all of a frame that it has begun."""


class Silence:
    """
    What is known of one client's silence.

    @ivar heard_at: when something has come the last time, by the clock.
    """

    __slots__ = ("_began_at", "_last", "_settings", "heard_at")

    def __init__(self, settings: RpcSettings) -> None:
        self.heard_at = 0.0
        self._settings = settings
        self._began_at: float | None = None  # when the first of a frame came that is not complete
        self._last: UnreceivedBytes | None = None  # of what was written when nothing is under way

    def in_frame(self, now: float, another: bool) -> float:
        """
        Something has come, the last of it a part of a frame.

        @param another: whether it is another frame than the one before.
        @return: when to look, at the latest.
        """
        if another or self._began_at is None:
            self._began_at = now
        return min(self.heard_at + self._settings.stream_idle, self._began_at + self._settings.request_time)

    def between_frames(self) -> None:
        """Something has come, the last of it the end of a frame."""
        self._began_at = None

    def excuse(self, now: float) -> None:
        """It was us who did not read, until now."""
        self.heard_at = now
        if self._began_at is not None:
            self._began_at = now

    def look(
        self, now: float, waits: bool, reading: bool, close_limits: CloseLimits, transport: Any
    ) -> float | Overdue:
        """
        See how it goes.

        @param waits: whether the client waits for something.
        @param reading: whether what it sends is read.
        @param close_limits: how its connection may end.
        @param transport: has what it has not taken.
        @return: seconds until the next look, infinity for none; or what is over.
        """
        settings, began_at = self._settings, self._began_at
        timeout = settings.idle_timeout if began_at is None else settings.stream_idle
        if timeout is None:
            return inf
        left = self.heard_at + timeout - now
        if waits or not reading:
            left = max(left, timeout)
        if began_at is not None:
            due = began_at + settings.request_time - now
            if due <= 0 and reading:
                return Overdue.FINISH
            return Overdue.GO_ON if left <= 0 else min(left, max(due, settings.request_time / LOOKS))
        if left <= 0:
            left = self._still_taking(timeout, close_limits, transport)
        if left > 0:
            return left
        return Overdue.TAKE if self._last is not None and self._last.left else Overdue.ASK

    def _still_taking(self, timeout: float, close_limits: CloseLimits, transport: Any) -> float:
        """
        Look whether the client still takes what it was answered, while nothing is under way.

        @return: seconds until the next look; 0.0 if there is no reason for one.
        """
        last = self._last
        if last is None:
            last = self._last = UnreceivedBytes(close_limits, transport)
            again = last.period if last.left else 0.0
        else:
            again = last.look()
        if not last.left:
            self._last = None
        return timeout if again and not last.left else again
