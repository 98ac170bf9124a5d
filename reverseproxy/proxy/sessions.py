"""
Sessions of bytes: two connections that were joined, and whether they still carry anything.

What C{tcp_proxy} joins is one, and so is what an upgraded request has become.
A session may be quiet for long, but not for ever, as nobody may be there any
more who could end it.
"""

from __future__ import annotations

__all__ = ["SessionWatch"]

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.http.deadlines import LOOKS, Pace
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.transport.backlog import backlog_of


class SessionWatch:
    """
    Finds out when a session has carried nothing for too long.

    A byte counts when it comes, and again when the other side takes it.
    """

    __slots__ = ("_call", "_clock", "_ends", "_excused", "_expired", "_pace", "_period")

    def __init__(
        self,
        clock: IReactorTime,
        ends: tuple[RelayEnd, RelayEnd],
        idle: float,
        expired: Callable[[], object],
        excused: Callable[[bool, bool], bool],
    ) -> None:
        """
        @param ends: the client's and the host's.
        @param idle: seconds, less than infinity.
        @param expired: called once, when that is over.
        @param excused: asked, while nothing moves, whether that is somebody
            else's to judge; given whether something waits for the client, and
            for the host.
        """
        self._clock = clock
        self._ends = ends
        self._expired = expired
        self._excused = excused
        self._pace = Pace()
        self._period = idle / LOOKS
        self._call: LenientTimeout | None = LenientTimeout(clock, self._period, self._look)

    def _look(self) -> None:
        self._call = None
        client, host = self._ends
        waits = backlog_of(client.transport), backlog_of(host.transport)
        seen = (client.received, host.received, waits[0].mark, waits[1].mark)
        excused = self._excused(waits[0].size > 0, waits[1].size > 0)
        if self._pace.look(seen, excused) >= LOOKS:
            self._expired()
        else:
            self._call = LenientTimeout(self._clock, self._period, self._look)

    def stop(self) -> None:
        """Look no more."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
