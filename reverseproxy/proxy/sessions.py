"""
The idle timeout of relayed sessions: those of C{tcp_proxy} and upgraded requests.

A session may be idle for long, but not for ever, as its peers may be gone without
having closed it.
"""

from __future__ import annotations

__all__ = ["SessionWatch"]

from collections.abc import Callable

from twisted.internet.interfaces import IReactorTime

from reverseproxy.net.lenient_timeouts import LenientTimeout
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.relay import RelayEnd
from reverseproxy.transport.backlog import Pace, backlog_of


class SessionWatch:
    """
    The idle timeout of one session.

    Data counts when it is received, and again when the other side receives it.
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
        @param idle: the timeout in seconds, less than infinity.
        @param expired: called once, when the timeout has passed.
        @param excused: returns whether the timeout is suspended, given whether data is
            buffered for the client, and for the host.
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
        """Cancel the timeout."""
        call, self._call = self._call, None
        if call is not None:
            call.cancel()
