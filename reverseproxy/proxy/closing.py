"""
Closing connections whose peers have not received everything yet.

A connection that is being closed may have data to send, and then waits for its peer
to close, too.  Both take a bounded time.  But a peer that receives the remaining data,
however slowly, must get all of it: the end of a download is often still in the buffers
of this process and its kernel when the request is over, and aborting the connection
would discard that.
"""

from __future__ import annotations

__all__ = [
    "FRESH",
    "LINGER",
    "QUIET",
    "STALL",
    "DelayedClose",
    "UnreceivedBytes",
    "CloseLimits",
    "doing",
    "end_session",
    "note_loss",
]

from collections.abc import Callable
from math import ceil, inf
from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.interfaces import IEndable
from reverseproxy.logs import Throttle
from reverseproxy.proxy.http.deadlines import Pace
from reverseproxy.transport.backlog import backlog_of

log = Logger()

LINGER: Final = 5.0
"""Seconds that a peer has to close a connection, once it has received everything."""

STALL: Final = 300.0
"""Seconds within which a peer must receive some of the remaining data."""


FRESH: Final = 2.0
"""Seconds after a client has connected, or sent a request, in which it is likely to send another one."""

QUIET: Final = 1.0
"""
Seconds that a draining connection waits for a request of such a client.

Otherwise a request that is on its way when the connection is closed would fail, and
its client would not know why.
"""


def note_loss(complaints: Throttle, listener: str, peer: str, reason: str) -> None:
    """
    Log that a peer has not received everything.

    @param complaints: limits the rate of lines.
    """
    if complaints.allow():
        log.info(
            "{listener}: what is left for {peer} is dropped: {reason}; see stream_idle_timeout of the proxy"
            " filter{suppressed}",
            listener=listener,
            peer=peer,
            reason=reason,
            suppressed=complaints.suppressed,
        )


def doing(protocol: Any) -> str:
    """Return what a protocol has under way, in a word or two; see L{IEndable}."""
    endable = IEndable(protocol, None)
    return str(endable.doing) if endable is not None else "connection"


def end_session(protocol: Any, reason: str) -> None:
    """End what a protocol has under way, see L{IEndable}; close the connection if it can't."""
    if IEndable.providedBy(protocol):
        protocol.end(reason)
    elif protocol is not None:
        protocol.transport.loseConnection()


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
    The remaining data of a connection that is being closed.

    @ivar left: the number of bytes, at the last check.
    @ivar period: seconds between checks.
    """

    __slots__ = ("_close_limits", "_looks", "_pace", "_transport", "left", "period")

    def __init__(self, close_limits: CloseLimits, transport: Any) -> None:
        """
        Make the first check.

        @param transport: the connection's.
        """
        self.period = min(close_limits.linger, close_limits.stall)
        self._close_limits = close_limits
        self._transport = transport
        self._pace = Pace()
        self._looks = (
            inf
            if close_limits.excused or close_limits.stall == inf
            else ceil(close_limits.stall / self.period)
        )
        waits = backlog_of(transport)
        self.left = waits.size
        self._pace.look(waits.mark)

    def look(self) -> float:
        """
        Check again, after another L{period}.

        @return: seconds until the next check; 0.0 if the connection is to be aborted now.
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
    """Aborts a connection that is being closed when L{CloseLimits} are exceeded."""

    __slots__ = ("_call", "_clock", "_last", "_transport")

    def __init__(self, clock: IReactorTime, transport: Any, close_limits: CloseLimits) -> None:
        self._clock = clock
        self._transport = transport
        self._last = UnreceivedBytes(close_limits, transport)
        self._call: IDelayedCall | None = clock.callLater(self._last.period, self._look)

    def _look(self) -> None:
        self._call = None
        again = self._last.look()
        if again:
            self._call = self._clock.callLater(again, self._look)
        else:
            self._transport.abortConnection()

    def stop(self) -> None:
        """Cancel the timer, as the connection is lost."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
