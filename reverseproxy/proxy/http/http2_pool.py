"""
The connections to one host that speaks HTTP/2, and calls on them.
"""

from __future__ import annotations

__all__ = ["MAX_STREAMS", "POOL", "Http2Pool"]

from dataclasses import replace
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail, succeed
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.cluster.message_limits import response_limits
from reverseproxy.errors import ConnectionUnavailable, HostGone, ProtocolRefused, QueueFull
from reverseproxy.proxy.http.http2_call import Http2Call
from reverseproxy.proxy.http.http2_client import Http2Client
from reverseproxy.proxy.http.http2_pings import HttpKeepalive
from reverseproxy.proxy.pools import register_pool
from reverseproxy.wire.http2.events import Http2Limits

POOL: Final = "Http2"
"""The name of our pools in L{Host.pools}."""

MAX_STREAMS: Final = 1000
"""Requests that may be under way on one connection, if the host allows that many."""

LIMITS: Final = Http2Limits(max_concurrent_streams=MAX_STREAMS, max_control_frames=10_000)
"""
What hosts may do.

They were chosen by the configuration or have proved who they are, so that the
bounds are wider than those for clients; but for each stream they are the same.
A cluster's configuration says how large windows are.
"""


def _limits_of(host: Host) -> Http2Limits:
    """What a host may do."""
    size, fields = response_limits(host)
    if host.is_reverse:
        size += 32 * fields  # which an agent that has it in HTTP/1 does not count
    limits = replace(LIMITS, max_header_list_size=size, max_fields=fields)
    if host.cluster is None:
        return limits
    windows = host.cluster.config.http2_windows
    return replace(
        limits,
        stream_window=windows.initial_window_size,
        max_window=max(windows.initial_window_size, windows.max_window_size),
        receive_budget=windows.max_window_growth,
    )


@implementer(IHostPool)
class Http2Pool:
    """
    The connections of one host.

    @ivar host: the host.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar idle_timeout: seconds without a request after which a connection is
        closed; L{None} for never.
    @ivar keepalive: when to ask whether the host is alive.
    @ivar limits: what the host may do.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar dial: makes a connection, given a factory.
    """

    def __init__(self, host: Host, clock: IReactorTime, idle_timeout: float | None = None) -> None:
        self.host = host
        self.limits = _limits_of(host)
        self.clock = clock
        self.exclusive = host.exclusive
        self.idle_timeout = None if self.exclusive else idle_timeout or None
        self.keepalive = HttpKeepalive()
        self.max_requests = 0
        cluster = host.cluster
        if cluster is not None:
            if not host.is_reverse:
                self.max_requests = cluster.config.requests_per_connection
            keepalive = cluster.config.keepalive
            self.keepalive = HttpKeepalive(keepalive.interval, keepalive.timeout)
        self._clients: list[Http2Client] = []  # that take requests, as far as they have room
        self._leaving: set[Http2Client] = set()  # that have carried as many as they may
        self._waiting: dict[Deferred[Http2Call], None] = {}
        self._dialling = False
        self._dial: Deferred[Any] | None = None
        self._ended = host.retired or host.closed
        self._factory = CallableFactory(lambda: Http2Client(self))
        self.dial = host.connect
        self._set_capacity(MAX_STREAMS)

    @property
    def busy(self) -> bool:
        """Whether a request is under way, or waits for a connection."""
        return self._dialling or any(client.active for client in self._clients)

    @property
    def connections(self) -> int:
        """How many connections there are that take requests."""
        return len(self._clients)

    def take(self) -> Http2Call | None:
        """Make a call on a connection that has room, if there is one."""
        for client in self._clients:
            if client.has_room:
                return client.reserve()
        return None

    def connect(self) -> Deferred[Http2Call]:
        """Make a connection, and a call on it; all that wait share the next one that is made."""
        if self.exclusive:
            call = self.take()
            if call is not None:
                return succeed(call)
            if self._clients or self._dialling:
                return fail(QueueFull(f"{self.host.address} has no room for another request"))
        for client in self._clients:
            if client.has_room and not client.reused:
                return succeed(client.reserve())  # it is new
        if not self._dialling and not self.host.may_connect():
            return fail(self._too_many())
        waiter: Deferred[Http2Call] = Deferred(self._cancelled)
        self._waiting[waiter] = None
        if not self._dialling:
            self._begin_dial()
        return waiter

    def _too_many(self) -> QueueFull:
        return QueueFull(f"every connection to {self.host.address} has as many requests as it takes")

    def _cancelled(self, waiter: Deferred[Http2Call]) -> None:
        self._waiting.pop(waiter, None)

    def _begin_dial(self) -> None:
        self._dialling = True
        self.host.connection_opened()
        dial = self._dial = self.dial(self._factory)
        dial.addBoth(self._dialled)

    def _dialled(self, result: Any) -> None:
        self._dialling = False
        self._dial = None
        if isinstance(result, Failure):
            self.host.connection_closed()
            self._fail_waiting(result)
            return
        client = cast(Http2Client, result)
        if client.ending:
            other = client.other_protocol
            error = ConnectionUnavailable("the connection was lost at once")
            if other:
                error = ProtocolRefused(f"the host wants to speak {other}")
            self._fail_waiting(Failure(error))
            return
        for waiter in list(self._waiting):
            if not client.has_room:
                break
            if self._waiting.pop(waiter, self) is None:
                waiter.callback(client.reserve())
        if self._waiting and not self._dialling:
            if self.host.may_connect():
                self._begin_dial()
            else:
                self._fail_waiting(Failure(self._too_many()))

    def _fail_waiting(self, reason: Failure) -> None:
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.errback(reason)

    def _set_capacity(self, streams: int) -> None:
        """
        Let requests wait that the host's connections have no room for.

        @param streams: how many there may be on one connection.
        """
        cluster = self.host.cluster
        connections = 1 if self.exclusive else self.host.max_connections
        if self.host.introduces:
            streams = 1  # as others can't use what one client has not
        if connections and cluster is not None:
            cluster.set_capacity(self.host, connections * streams)

    # called by clients

    def add(self, client: Http2Client) -> None:
        """A connection is made."""
        self._clients.append(client)
        if self._ended:
            client.drain()

    def settings_came(self, client: Http2Client) -> None:
        """A host has said how many requests it takes at once."""
        cluster = self.host.cluster
        if cluster is not None:
            cluster.members.protocol_support.note_answer(self.host, POOL)
        wanted = client.http2.peer_max_streams
        self._set_capacity(MAX_STREAMS if wanted is None else max(1, min(wanted, MAX_STREAMS)))

    def served(self) -> None:
        """The host has answered on a connection with success for the first time."""
        cluster = self.host.cluster
        if cluster is not None:
            cluster.members.protocol_support.succeeded(self.host, POOL)

    def retire(self, client: Http2Client, reason: str) -> None:
        """A connection takes no more requests; with it goes a reverse host."""
        cluster = self.host.cluster
        if self.exclusive and cluster is not None:
            cluster.remove_host(self.host, reason)

    def leave(self, client: Http2Client) -> None:
        """A connection takes no more requests, and so does not count any more."""
        self.remove(client)
        self._leaving.add(client)

    def remove(self, client: Http2Client) -> None:
        """A connection is lost, is being closed, or not ours any more."""
        self._leaving.discard(client)
        if client in self._clients:
            self._clients.remove(client)
            self.host.connection_closed()

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._ended = True
        for client in list(self._clients):
            client.drain()

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail."""
        self._ended = True
        self._fail_waiting(Failure(HostGone(f"{self.host.address} is gone")))
        if self._dial is not None:
            self._dial.cancel()
        for client in [*self._clients, *self._leaving]:
            client.drop("the host is gone")


register_pool(POOL, Http2Pool)
