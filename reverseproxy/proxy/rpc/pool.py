"""
The connections of one host, for one RPC protocol.
"""

from __future__ import annotations

__all__ = ["CAPACITY", "RpcPool", "make_rpc_pool"]

from functools import partial
from typing import Any, Final, cast

from twisted.internet.defer import Deferred, fail
from twisted.internet.interfaces import IReactorTime
from twisted.python.failure import Failure
from zope.interface import implementer

from reverseproxy.cluster.endpoints import CallableFactory
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.errors import HostGone, QueueFull
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.proxy.rpc.heartbeats import Keepalive
from reverseproxy.wire.rpc.xprotocol import XProtocol

CAPACITY: Final = 65536
"""Requests that may be under way on one connection."""

LEAST_MAX_FRAME: Final = 65536
"""The largest frame in bytes that a host may send before anybody has asked it for more."""


@implementer(IHostPool)
class RpcPool:
    """
    The connections of one host, for one protocol.

    There is one, as in MOSN, or as many as the cluster's C{max_connections}
    says; requests take turns on them.  A reverse host has its own one only, and
    can carry many requests at once from now on.

    @ivar host: the host.
    @ivar max_frame: the largest frame in bytes that anybody who has sent
        requests takes.
    @ivar exclusive: whether the host has but one connection, which is the host.
    @ivar capacity: how many requests may be under way on one connection.
    @ivar heartbeats: whether the protocol has heartbeats.
    @ivar max_requests: requests after which a connection is closed; 0 for any
        number.
    @ivar idle_timeout: seconds without a request after which a connection is
        closed; L{None} for never.
    """

    def __init__(
        self,
        protocol: XProtocol,
        host: Host,
        clock: IReactorTime,
        idle_timeout: float | None = None,
    ) -> None:
        self.protocol = protocol
        self.max_frame = LEAST_MAX_FRAME
        self.host = host
        self.clock = clock
        self.exclusive = host.exclusive
        self.capacity = min(CAPACITY, protocol.max_id // 2)
        self.heartbeats = bool(protocol.heartbeat(1))
        self.idle_timeout = None if self.exclusive else idle_timeout or None
        self.keepalive = Keepalive()
        self.max_requests = 0
        self._size = 1
        cluster = host.cluster
        if cluster is not None:
            if not host.is_reverse:
                self.max_requests = cluster.config.requests_per_connection
            config = cluster.config.keepalive
            self.keepalive = Keepalive(config.interval, config.timeout)
            if self.exclusive:
                cluster.set_capacity(host, self.capacity)
            else:
                self._size = cluster.config.limits.max_connections or 1
        self._clients: list[RpcClient] = []  # those that take requests
        self._all: set[RpcClient] = set()
        self._turn = 0
        self._dialling = 0
        self._dials: set[Deferred[Any]] = set()
        self._waiting: dict[Deferred[RpcClient], None] = {}
        self._ended = False
        self._factory = CallableFactory(lambda: RpcClient(self))

    @property
    def connections(self) -> int:
        """How many connections there are."""
        return len(self._all)

    def take(self) -> RpcClient | None:
        """Choose a connection that has room, if there is one."""
        clients = self._clients
        count = len(clients)
        if not count:
            return None
        if count + self._dialling < self._size and not self.exclusive:
            self._dial()
        for _ in range(count):
            self._turn = turn = (self._turn + 1) % count
            client = clients[turn]
            if client.has_room:
                return client
        return None

    def connect(self) -> Deferred[RpcClient]:
        """Wait for a connection; all that wait share the next one that is made."""
        if not self._dialling and not self.host.may_connect():
            return fail(self._too_many())
        waiter: Deferred[RpcClient] = Deferred(self._cancelled)
        self._waiting[waiter] = None
        if not self._dialling:
            self._dial()
        return waiter

    def _too_many(self) -> QueueFull:
        return QueueFull(f"every connection to {self.host.address} has {self.capacity} requests under way")

    def _cancelled(self, waiter: Deferred[RpcClient]) -> None:
        self._waiting.pop(waiter, None)

    def _dial(self) -> None:
        self._dialling += 1
        self.host.connection_opened()
        dial = self.host.connect(self._factory)
        self._dials.add(dial)
        dial.addBoth(partial(self._dialled, dial))

    def _dialled(self, dial: Deferred[Any], result: Any) -> None:
        self._dialling -= 1
        self._dials.discard(dial)
        if isinstance(result, Failure):
            self.host.connection_closed()
            waiting, self._waiting = self._waiting, {}
            for waiter in waiting:
                waiter.errback(result)
            return
        client = cast(RpcClient, result)
        for waiter in list(self._waiting):
            if waiter in self._waiting:
                if not client.has_room and (client.exhausted or not client.closed):
                    break
                del self._waiting[waiter]
                waiter.callback(client)
        if self._waiting and not self._dialling:
            if self.exclusive or not self.host.may_connect():
                waiting, self._waiting = self._waiting, {}
                for waiter in waiting:
                    waiter.errback(self._too_many())
            else:
                self._dial()

    # called by clients

    def admit(self, max_frame: int) -> None:
        """Take frames of this size, if that is more than before."""
        if max_frame > self.max_frame:
            self.max_frame = max_frame
            for client in self._all:
                client.widen(max_frame)

    def add(self, client: RpcClient) -> None:
        """A connection is made."""
        self._all.add(client)
        self._clients.append(client)
        if self._ended:
            client.drain()

    def heard(self, success: bool) -> None:
        """
        The host has sent something on a connection on which it had not answered with success before.

        @param success: whether it has now.
        """
        cluster = self.host.cluster
        if cluster is not None:
            protocol_support = cluster.members.protocol_support
            (protocol_support.succeeded if success else protocol_support.note_answer)(
                self.host, self.protocol.name
            )

    def forget(self, client: RpcClient) -> None:
        """A connection takes no more requests, and so does not count any more."""
        if client in self._clients:
            self._clients.remove(client)
            self.host.connection_closed()

    def retire(self, client: RpcClient, reason: str) -> None:
        """The host wants no more requests on a connection; with it goes a reverse host."""
        self.forget(client)
        cluster = self.host.cluster
        if self.exclusive and cluster is not None:
            cluster.remove_host(self.host, reason)

    def remove(self, client: RpcClient) -> None:
        """A connection is lost, or not ours any more."""
        self.forget(client)
        self._all.discard(client)

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool}."""
        self._ended = True
        for client in list(self._all):
            client.drain()

    def close(self) -> None:
        """See L{IHostPool}; the exchanges under way fail."""
        self._ended = True
        waiting, self._waiting = self._waiting, {}
        for waiter in waiting:
            waiter.errback(HostGone(f"{self.host.address} is gone"))
        for dial in list(self._dials):
            dial.cancel()
        for client in list(self._all):
            client.abort("the host is gone")


def make_rpc_pool(
    key: str, protocol: XProtocol, host: Host, clock: IReactorTime, idle_timeout: float | None
) -> RpcPool:
    """
    Find the pool of a host, or make it.

    @param key: the same for all that share it; see L{reverseproxy.proxy.rpc.protocols.Dialect}.
    """
    pool = host.pools.get(key)
    if pool is None:
        pool = host.pools[key] = RpcPool(protocol, host, clock, idle_timeout)
    return cast(RpcPool, pool)
