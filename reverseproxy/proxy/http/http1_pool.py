"""
The connections to one host that speaks HTTP/1: an exchange has one for itself.
"""

from __future__ import annotations

__all__ = ["BUSY_PERIOD", "MAX_IDLE", "POOL", "Http1Pool"]

from typing import Final

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IDelayedCall, IReactorTime

from reverseproxy.cluster.host import Host
from reverseproxy.proxy.connection_pool import ConnectionPool
from reverseproxy.proxy.http.http1_client import Http1Client
from reverseproxy.proxy.pools import register_pool

POOL: Final = "Http1"
"""The name of our pools in L{Host.pools}."""

MAX_IDLE = 256
"""Idle connections that are kept for one host in any case."""

MOST_IDLE = 8192
"""Idle connections that are kept for one host, if so many were busy at once a moment ago."""

BUSY_PERIOD = 10.0
"""Seconds that such a moment lasts, or up to twice as long."""


class Http1Pool(ConnectionPool[Http1Client]):
    """
    The connections of one host.

    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    """

    def __init__(
        self, host: Host, clock: IReactorTime, idle_timeout: float | None = None, max_idle: int = MAX_IDLE
    ) -> None:
        """
        @param idle_timeout: see L{ConnectionPool}.
        @param max_idle: how many idle connections are kept in any case.
        """
        super().__init__(POOL, host, clock, idle_timeout)
        self.max_requests = 1 if host.single_use else self.settings.max_requests
        self._max_idle = max_idle
        self._busiest = 0  # how many were busy at once in this period, if more than max_idle
        self._busiest_before = 0  # and in the one before
        self._trimming: IDelayedCall | None = None
        if not (self.exclusive or host.single_use):
            self._set_capacity(1)

    def _build(self) -> Http1Client:
        return Http1Client(self)

    def take(self) -> Http1Client | None:
        """Take the idle connection that was used last, if there is one."""
        return self._idle.popitem()[0] if self._idle else None

    def connect(self) -> Deferred[Http1Client]:
        """Make a new connection; it is not idle, but the caller's."""
        self.make_room()
        return self._dial()

    # called by clients

    def put(self, client: Http1Client) -> None:
        """Keep an idle connection, or close it."""
        if self._draining or (len(self._idle) >= self._max_idle and not self._keeps_many()):
            client.close("not needed any more")
            return
        self.mark_idle(client)

    def _keeps_many(self) -> bool:
        """
        Look whether more idle connections are to be kept than always.

        Where that many requests come at once, they will again: to make a
        connection for each of them, and close it, costs more than the requests.
        """
        # Those that are idle by now may have been busy, too.
        busy = len(self._open) - len(self._idle) + self._max_idle
        self._busiest = max(self._busiest, min(busy, MOST_IDLE))
        if self._trimming is None:
            self._trimming = self.clock.callLater(BUSY_PERIOD, self._trim)
        return len(self._idle) < max(self._busiest, self._busiest_before)

    def _trim(self) -> None:
        """Close the idle connections that were not needed in the last period."""
        self._trimming = None
        keep = max(self._busiest, self._max_idle)
        self._busiest_before, self._busiest = self._busiest, 0
        idle = list(self._idle)
        for client in idle[: max(0, len(idle) - keep)]:
            client.close("not needed any more")
        if len(self._idle) > self._max_idle:
            self._trimming = self.clock.callLater(BUSY_PERIOD, self._trim)

    def remove(self, connection: Http1Client) -> None:
        """A connection is lost, or not ours any more."""
        super().remove(connection)
        if not self._all and self._trimming is not None:
            self._trimming.cancel()
            self._trimming = None


register_pool(POOL, Http1Pool)
