"""
Read timeouts of an RPC client's connection, between frames and in the middle of one.

Between frames it is the idle timeout, which does not run while a request is under
way, or while reading is paused on our side.  In the middle of a frame, more data must
come within the stream idle timeout, and the whole frame within the request timeout.
"""

from __future__ import annotations

__all__ = ["ExpiredTimeout", "ReadTimeouts"]

from enum import Enum, auto
from math import inf
from typing import TYPE_CHECKING, Any

from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.transport.closing import CloseLimits, UnreceivedBytes

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.settings import RpcSettings


class ExpiredTimeout(Enum):
    """A timeout of a client's connection."""

    IDLE = auto()
    """The connection is idle."""

    IDLE_UNREAD = auto()
    """The connection is idle, and the client has not read its last responses."""

    STREAM_IDLE = auto()
    """No more data of a frame has come."""

    REQUEST = auto()
    """Not all of a frame has come."""


class ReadTimeouts:
    """
    The read timeouts of one connection.

    @ivar heard_at: when something was received the last time, in the clock's seconds.
    """

    __slots__ = ("_began_at", "_last", "_settings", "heard_at")

    def __init__(self, settings: RpcSettings) -> None:
        self.heard_at = 0.0
        self._settings = settings
        self._began_at: float | None = None  # when the first bytes came of a frame that is not complete
        self._last: UnreceivedBytes | None = None  # of what was written when nothing is under way

    def in_frame(self, now: float, another: bool) -> float:
        """
        Note that something was received that ends in the middle of a frame.

        @param another: whether it is another frame than at the last call.
        @return: when to look, at the latest.
        """
        if another or self._began_at is None:
            self._began_at = now
        return min(self.heard_at + self._settings.stream_idle, self._began_at + self._settings.request_time)

    def between_frames(self) -> None:
        """Note that something was received that ends with a frame."""
        self._began_at = None

    def excuse(self, now: float) -> None:
        """Restart the timeouts, as reading was paused on our side until now."""
        self.heard_at = now
        if self._began_at is not None:
            self._began_at = now

    def look(
        self, now: float, waits: bool, reading: bool, close_limits: CloseLimits, transport: Any
    ) -> float | ExpiredTimeout:
        """
        Check the timeouts.

        @param waits: whether a request is under way.
        @param reading: whether the connection is read, or paused.
        @param close_limits: how the connection may be closed.
        @param transport: the connection's.
        @return: seconds until the next look, infinity for none; or the timeout that has passed.
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
                return ExpiredTimeout.REQUEST
            return (
                ExpiredTimeout.STREAM_IDLE
                if left <= 0
                else min(left, max(due, settings.request_time / LOOKS))
            )
        if left <= 0:
            left = self._still_taking(timeout, close_limits, transport)
        if left > 0:
            return left
        return (
            ExpiredTimeout.IDLE_UNREAD if self._last is not None and self._last.left else ExpiredTimeout.IDLE
        )

    def _still_taking(self, timeout: float, close_limits: CloseLimits, transport: Any) -> float:
        """
        Check whether an idle client still receives its last responses.

        @return: seconds until the next look; 0.0 if it does not.
        """
        last = self._last = self._last or UnreceivedBytes(close_limits, transport)
        again = last.look()
        if last.left:
            return again
        self._last = None
        return timeout if again else 0.0
