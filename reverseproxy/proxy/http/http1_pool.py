"""
The connections to one host that speaks HTTP/1, and which of them are idle.
"""

from __future__ import annotations

__all__ = ["BUSY_PERIOD", "MAX_IDLE", "POOL", "Http1Pool"]

from typing import cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import (
    IDelayedCall,
    IReactorTime,
)
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.proxy.http.http1_client import Http1Client
from reverseproxy.proxy.pools import register_pool

POOL = "Http1"
"""The name of our pools in L{Host.pools}."""

MAX_IDLE = 256
"""Idle connections that are kept for one host, whatever is going on."""

MOST_IDLE = 8192
"""Idle connections that are kept for one host, if so many were busy at once a moment ago."""

BUSY_PERIOD = 10.0
"""Seconds that such a moment lasts, or up to twice as long."""


@implementer(IHostPool)
class Http1Pool:
    """
    The connections of one host.

    @ivar host: the host.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar dial: makes a connection, given a factory.
    """

    def __init__(
        self, host: Host, clock: IReactorTime, idle_timeout: float | None = None, max_idle: int = MAX_IDLE
    ) -> None:
        """
        @param idle_timeout: seconds after which an idle connection is closed;
            L{None} or 0 for never.  Reverse connections are not closed for
            that, as an idle one is what a tunnel is for.
        """
        self.host = host
        self.clock = clock
        self.exclusive = host.exclusive
        self.max_requests = 0
        cluster = host.cluster
        if host.single_use:
            self.max_requests = 1
        elif cluster is not None and not self.exclusive:
            self.max_requests = cluster.config.requests_per_connection
            if host.max_connections:
                # Each request takes a connection: those beyond wait, or go elsewhere.
                cluster.set_capacity(host, host.max_connections)
        self._idle_timeout = None if self.exclusive else idle_timeout or None
        self._max_idle = max_idle
        self._clients: set[Http1Client] = set()
        self._idle: dict[Http1Client, None] = {}  # as an ordered set: the last one was used last
        self._busiest = 0  # how many were busy at once in this period, if more than max_idle
        self._busiest_before = 0  # and in the one before
        self._trimming: IDelayedCall | None = None
        self._draining = host.retired or host.closed
        self._timer: IDelayedCall | None = None
        self._factory = CallableFactory(lambda: Http1Client(self))
        self.dial = host.connect

    @property
    def busy(self) -> bool:
        """Whether a connection is in use."""
        return len(self._clients) > len(self._idle)

    @property
    def idle(self) -> int:
        """How many connections wait for a request."""
        return len(self._idle)

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._clients)

    def take(self) -> Http1Client | None:
        """Take the idle connection that was used last, if there is one."""
        return self._idle.popitem()[0] if self._idle else None

    def connect(self) -> Deferred[Http1Client]:
        """Make a new connection; it is not idle, but the caller's."""
        host = self.host
        while self._idle and not host.may_connect():
            next(iter(self._idle)).close("makes room for a new one")
        host.connection_opened()
        connected = self.dial(self._factory).addErrback(self._not_connected)
        return cast("Deferred[Http1Client]", connected)

    def _not_connected(self, reason: Failure) -> Failure:
        self.host.connection_closed()
        return reason

    # called by clients

    def heard(self, success: bool) -> None:
        """
        The host has answered on a connection on which it had not answered with success before.

        @param success: whether it has now.
        """
        cluster = self.host.cluster
        if cluster is not None:
            protocol_support = cluster.members.protocol_support
            (protocol_support.succeeded if success else protocol_support.note_answer)(self.host, POOL)

    def add(self, client: Http1Client) -> None:
        """A connection is made."""
        self._clients.add(client)

    def put(self, client: Http1Client) -> None:
        """Keep an idle connection, or close it."""
        if self._draining or (len(self._idle) >= self._max_idle and not self._keeps_many()):
            client.close("not needed any more")
            return
        self._idle[client] = None
        if self._idle_timeout is not None:
            client.idle_since = self.clock.seconds()
            if self._timer is None:
                self._timer = self.clock.callLater(self._idle_timeout, self._expire, self._idle_timeout)

    def _keeps_many(self) -> bool:
        """
        Look whether more idle connections are to be kept than always.

        Where that many requests come at once, they will again: to make a
        connection for each of them, and close it, costs more than the requests.
        """
        # Those that are idle by now may have been busy, too.
        busy = len(self._clients) - len(self._idle) + self._max_idle
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

    def forget_idle(self, client: Http1Client) -> None:
        """An idle connection is about to close."""
        self._idle.pop(client, None)

    def uncount(self, client: Http1Client) -> None:
        """A connection is lost, is closing, or not ours any more: it is no longer in the way of others."""
        if client.counted:
            client.counted = False
            self.host.connection_closed()

    def remove(self, client: Http1Client) -> None:
        """A connection is lost, or not ours any more."""
        self._clients.discard(client)
        if not self._clients:
            if self._timer is not None:
                self._timer.cancel()
                self._timer = None
            if self._trimming is not None:
                self._trimming.cancel()
                self._trimming = None

    def _expire(self, timeout: float) -> None:
        self._timer = None
        now = self.clock.seconds()
        # In the order of idle_since: the last one in is the first one out.
        for client in list(self._idle):
            left = client.idle_since + timeout - now
            if left > 0:
                self._timer = self.clock.callLater(left, self._expire, timeout)
                return
            client.close("idle timeout")

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._draining = True
        for client in list(self._idle):
            client.close("drained")

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail."""
        self._draining = True
        for client in list(self._clients):
            client.drop()


register_pool(POOL, Http1Pool)
