"""
The connections of one host, for one RPC protocol: many exchanges share them.
"""

from __future__ import annotations

__all__ = ["CAPACITY", "RpcPool", "rpc_pool_of"]

from functools import partial
from typing import Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.host import Host
from reverseproxy.proxy.connection_pool import SharedPool
from reverseproxy.proxy.pools import find_or_make_pool
from reverseproxy.proxy.rpc.client import RpcClient
from reverseproxy.wire.rpc.xprotocol import XProtocol

CAPACITY: Final = 65536
"""Requests that may be under way on one connection."""

LEAST_MAX_FRAME: Final = 65536
"""The largest frame in bytes that a host may send before an exchange has asked it for more."""


class RpcPool(SharedPool[RpcClient]):
    """
    The connections of one host, for one protocol.

    There is one, as in MOSN, or as many as the cluster's C{max_connections}, used
    in rotation.  A reverse host has only one, which carries many requests at once.

    @ivar protocol: the protocol.
    @ivar max_frame: the largest frame in bytes that a host may send: the most
        that any exchange has asked for.
    @ivar capacity: how many requests may be under way on one connection.
    @ivar heartbeats: whether the protocol has heartbeats.
    """

    def __init__(
        self, protocol: XProtocol, host: Host, clock: IReactorTime, idle_timeout: float | None = None
    ) -> None:
        super().__init__(protocol.name, host, clock, idle_timeout)
        self.protocol = protocol
        self.max_frame = LEAST_MAX_FRAME
        self.capacity = min(CAPACITY, protocol.max_id // 2)
        self.heartbeats = bool(protocol.heartbeat(1))
        self._size = 1 if self.exclusive else host.max_connections or 1
        if self.exclusive:
            self._set_capacity(self.capacity)

    def _build(self) -> RpcClient:
        return RpcClient(self)

    def take(self) -> RpcClient | None:
        """Return the least recently used connection that has room, if there is one."""
        clients = self._open
        if not clients:
            return None
        if len(clients) + len(self._dials) < self._size:
            self._dial_for_waiting()
        for client in clients:
            if client.has_room:
                if len(clients) > 1:
                    del clients[client]
                    clients[client] = None
                return client
        return None

    def admit(self, max_frame: int) -> None:
        """Accept frames of this size, if that is more than before."""
        if max_frame > self.max_frame:
            self.max_frame = max_frame
            for client in self._all:
                client.widen(max_frame)


def rpc_pool_of(
    key: str, protocol: XProtocol, host: Host, clock: IReactorTime, idle_timeout: float | None
) -> RpcPool:
    """
    Return the pool of a host; make it if there is none.

    @param key: the key of the pool; see L{reverseproxy.proxy.rpc.protocols.Dialect}.
    """
    return find_or_make_pool(key, partial(RpcPool, protocol), host, clock, idle_timeout)
