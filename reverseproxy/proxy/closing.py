"""
Connections that are closing, and peers that have not taken everything yet.

A connection that is closed has something to send, perhaps, and then waits for
its peer to close too.  Neither may last for ever.  But a peer that takes what
is left for it, however slowly, must get all of it: the end of a download is
often what waits in this process and its kernel when everything else about it is
over, and to abort a connection destroys that.
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
"""Seconds that a peer has to close a connection, once it has taken everything."""

STALL: Final = 300.0
"""Seconds in which a peer must take something of what is left for it."""


FRESH: Final = 2.0
"""A client that has connected, or asked for something, so few seconds ago may be about to ask for more."""

QUIET: Final = 1.0
"""
Seconds that such a client has for that, where its connection is not needed any more.

Else a request that is on its way when the connection is closed would fail for no
reason that its client knows of.
"""


def note_loss(complaints: Throttle, listener: str, peer: str, reason: str) -> None:
    """
    Log that a peer has not got everything.

    @param complaints: bounds the lines.
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
    """What a protocol has under way, in a word or two; see L{IEndable}."""
    endable = IEndable(protocol, None)
    return str(endable.doing) if endable is not None else "connection"


def end_session(protocol: Any, reason: str) -> None:
    """End what a protocol has under way, whatever it is; see L{IEndable}."""
    if IEndable.providedBy(protocol):
        protocol.end(reason)
    elif protocol is not None:
        protocol.transport.loseConnection()


class CloseLimits(NamedTuple):
    """
    How a connection may end.

    @ivar linger: seconds that its peer has once it has taken everything.
    @ivar stall: seconds in which it must take something; infinity for any time.
    @ivar excused: whether it does not matter how long that takes, as the peer
        is a proxy that decides for whoever is behind it.
    @ivar told: called with the reason if something is lost.
    """

    linger: float = LINGER
    stall: float = STALL
    excused: bool = False
    told: Callable[[str], object] | None = None


class UnreceivedBytes:
    """
    What is left for the peer of a connection that is closing.

    @ivar left: bytes, at the last look.
    @ivar period: seconds from one look to the next.
    """

    __slots__ = ("_close_limits", "_looks", "_pace", "_transport", "left", "period")

    def __init__(self, close_limits: CloseLimits, transport: Any) -> None:
        """
        Have the first look.

        @param transport: of the connection.
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
        See how it goes, after another L{period}.

        @return: seconds until the next look; 0.0 if the connection is to end now.
        """
        waits = backlog_of(self._transport)
        before, self.left = self.left, waits.size
        if not waits.size:
            # It may want to answer to what it has taken just now.
            return self.period if before else 0.0
        if self._pace.look(waits.mark) < self._looks:
            return self.period
        if self._close_limits.told is not None:
            self._close_limits.told(
                f"it has taken nothing of the last {waits.size} bytes for {self._close_limits.stall:g} s"
            )
        return 0.0


class DelayedClose:
    """Aborts a connection that is closing, when it is time."""

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
        """The connection is lost."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
