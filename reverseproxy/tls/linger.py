"""The wait of a closing connection for its peer to close, too."""

from __future__ import annotations

__all__ = ["CLOSE_TIMEOUT", "STALL", "Linger"]

from collections.abc import Callable
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.transport.backlog import backlog_of

CLOSE_TIMEOUT: Final = 5.0
"""
Seconds that a client has to close, once it has received everything.

A connection that is closed while the client still sends is reset, and the
client may lose the end of what was sent to it.  What is read is dropped.
"""

STALL: Final = 60.0
"""Seconds within which a client must receive some of the remaining data."""


class Linger:
    """
    Waits for the peer of a closing connection to close, too.

    A peer that goes on receiving, however slowly, has its time behind that.
    """

    __slots__ = ("_call", "_clock", "_mark", "_over", "_stalled", "_transport", "_unreceived")

    def __init__(self, clock: IReactorTime, transport: Any, over: Callable[[], object]) -> None:
        """
        @param transport: the connection's.
        @param over: called when the peer has had its time, unless L{stop} is called before.
        """
        self._clock = clock
        self._transport = transport
        self._over = over
        self._unreceived = False  # at the last look there was something that the peer had not received
        self._mark = backlog_of(transport).mark
        self._stalled = 0.0  # seconds for which it has received nothing
        self._call: IDelayedCall | None = None
        self._wait()

    def _wait(self) -> None:
        self._call = self._clock.callLater(CLOSE_TIMEOUT, self._look)

    def _look(self) -> None:
        """Check what the peer has received, and whether its time is over."""
        self._call = None
        waits = backlog_of(self._transport)
        before, self._unreceived = self._unreceived, waits.size > 0
        self._stalled = self._stalled + CLOSE_TIMEOUT if waits.mark == self._mark else 0.0
        self._mark = waits.mark
        if (self._unreceived and self._stalled < STALL) or (before and not self._unreceived):
            self._wait()
        else:
            self._over()

    def stop(self) -> None:
        """Cancel the timer."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
        # The references make cycles.
        self._transport = None
        self._over = _nothing


def _nothing() -> None:
    """Do nothing."""
