"""
Closing connections whose peers have not received everything yet.

A connection that is being closed may have data to send, and then waits for its peer
to close, too.  Both take a bounded time.  But a peer that receives the remaining data,
however slowly, must get all of it: the end of a download is often still in the buffers
of this process and its kernel when the request is over, and aborting the connection
would discard that.
"""

from __future__ import annotations

__all__ = ["LINGER", "STALL", "CloseLimits", "DelayedClose", "UnreceivedBytes"]

from collections.abc import Callable
from math import ceil, inf
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.transport.backlog import Pace, backlog_of

LINGER: Final = 5.0
"""Seconds that a peer has to close a connection, once it has received everything."""

STALL: Final = 300.0
"""Seconds within which a peer must receive some of the remaining data."""


class CloseLimits(NamedTuple):
    """
    How long closing a connection may take.

    @ivar linger: seconds that the peer has to close, once it has received everything.
    @ivar stall: seconds within which it must receive some data; infinity for any time.
    @ivar excused: whether C{stall} does not apply, as the peer is a proxy with
        timeouts of its own for the peers behind it.
    @ivar told: called with the reason if data is lost.
    """

    linger: float = LINGER
    stall: float = STALL
    excused: bool = False
    told: Callable[[str], object] | None = None


class UnreceivedBytes:
    """
    What the peer of a connection has not received, checked again and again.

    @ivar left: the number of bytes, at the last check.
    @ivar period: seconds between checks.
    """

    __slots__ = ("_close_limits", "_looks", "_pace", "_transport", "left", "period")

    def __init__(self, close_limits: CloseLimits, transport: Any) -> None:
        """
        @param transport: the connection's.
        """
        self.left = 0
        self.period = min(close_limits.linger, close_limits.stall)
        self._close_limits = close_limits
        self._transport = transport
        self._pace = Pace()
        self._looks = (
            inf
            if close_limits.excused or close_limits.stall == inf
            else ceil(close_limits.stall / self.period)
        )

    def look(self) -> float:
        """
        Check for the first time, or another L{period} after the last one.

        @return: seconds until the next check; 0.0 if the connection is to be closed now:
            the peer has had everything since the last check, or stands still.
        """
        waits = backlog_of(self._transport)
        before, self.left = self.left, waits.size
        if not waits.size:
            # It may be about to respond to what it has just received.
            return self.period if before else 0.0
        if self._pace.look(waits.mark) < self._looks:
            return self.period
        if self._close_limits.told is not None:
            self._close_limits.told(
                f"it has taken nothing of the last {waits.size} bytes for {self._close_limits.stall:g} s"
            )
        return 0.0


class DelayedClose:
    """Gives up a connection that is being closed when L{CloseLimits} are exceeded."""

    __slots__ = ("_call", "_clock")

    def __init__(
        self,
        clock: IReactorTime,
        transport: Any,
        close_limits: CloseLimits,
        give_up: Callable[[], object] | None = None,
        counts_present: bool = True,
    ) -> None:
        """
        @param transport: the connection's.
        @param give_up: called when the limits are exceeded; L{None} to abort the connection.
        @param counts_present: whether a peer that has received by the first check what it has
            not received now gets C{linger} from that check on, and not from now on.
        """
        self._clock = clock
        self._call: IDelayedCall | None = None
        unreceived = UnreceivedBytes(close_limits, transport)
        unreceived.look()
        if not counts_present:
            unreceived.left = 0
        # They are arguments of the timer, and go with it: kept here, they would make cycles.
        self._wait(unreceived.period, unreceived, give_up or transport.abortConnection)

    def _wait(self, seconds: float, unreceived: UnreceivedBytes, give_up: Callable[[], object]) -> None:
        self._call = self._clock.callLater(seconds, self._look, unreceived, give_up)

    def _look(self, unreceived: UnreceivedBytes, give_up: Callable[[], object]) -> None:
        self._call = None
        again = unreceived.look()
        if again:
            self._wait(again, unreceived, give_up)
        else:
            give_up()

    def stop(self) -> None:
        """Cancel the timer, as the connection is lost."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
