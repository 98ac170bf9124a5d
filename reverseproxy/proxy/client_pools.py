"""
Connection pools for hosts that get a PROXY protocol header.

Such a connection belongs to one client, as the host takes all requests on it for that
client's.  So there is a pool for each header, that is, for each pair of addresses; a
client that keeps its connection reuses its own connection to the host, if its next
request comes soon.
"""

from __future__ import annotations

__all__ = ["IDLE", "MOST", "ClientPools", "client_pool_of", "header_of"]

from collections import OrderedDict
from functools import partial
from ipaddress import ip_address
from typing import Any, Final, cast

from twisted.internet.interfaces import IReactorTime
from zope.interface import implementer

from reverseproxy.addresses import host_of, join_host_port, split_host_port
from reverseproxy.cluster.host import Host, IHostPool
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.pools import IUpstreamPool, find_or_make_pool, make_pool
from reverseproxy.wire.proxy_protocol import encode_header

IDLE: Final = 5.0
"""Seconds after which an idle connection is closed; the cluster's C{idle_timeout}, if that is less."""

MOST: Final = 4096
"""Clients whose pools are kept for one host, if these are not in use."""

_LOOKS: Final = 8
"""Pools that may be dropped for each new client: many that are in use cost no more than a few."""

_ANY: Final = {4: "0.0.0.0", 6: "::"}  # noqa: S104 - in a header, for an unknown address


def header_of(version: str, info: ConnectionInfo, forwarded: str | None = None) -> bytes:
    """
    Return the header that names the client of a connection.

    @param version: of the protocol: C{v1} or C{v2}.
    @param info: the connection.
    @param forwarded: C{X-Forwarded-For} of the request, if it is trusted: the client
        is the first address in it, with an unknown port.
    """
    source, destination = info.remote, info.local
    if forwarded:
        first = forwarded.split(",", 1)[0].strip()
        try:
            client = ip_address(first.strip("[]"))
        except ValueError:
            pass
        else:
            source = join_host_port(str(client), 0)
            destination = _of_the_same_kind(destination, client.version)
    return encode_header(version, source, destination)


def _of_the_same_kind(address: str, version: int) -> str:
    """Return our own address, or the unspecified one if it is of another version than the client's."""
    try:
        if ip_address(host_of(address)).version == version:
            return address
        port = split_host_port(address)[1]
    except ValueError:
        port = 0
    return join_host_port(_ANY[version], port)


@implementer(IHostPool)
class ClientPools:
    """The pools of one host and protocol, by header."""

    def __init__(self, protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> None:
        self._protocol = protocol
        self._host = host
        self._clock = clock
        self._idle_timeout = min(idle_timeout or IDLE, IDLE)
        self._pools: OrderedDict[bytes, Any] = OrderedDict()  # the most recently used one is the last

    def __len__(self) -> int:
        return len(self._pools)

    def of(self, header: bytes) -> IUpstreamPool:
        """Return the pool of a client; make it if there is none."""
        host = self._host
        pool: Any = self._pools.get(header)
        if pool is None:
            pool = make_pool(self._protocol, host, self._clock, self._idle_timeout)
            self._pools[header] = pool
            pool.dial = partial(host.connect_for, header)
            self._trim()
        else:
            self._pools.move_to_end(header)
        if not host.may_connect():
            self._make_room(header)
        return cast(IUpstreamPool, pool)

    def _trim(self) -> None:
        """
        Drop pools without connections, and the least recently used ones beyond L{MOST}.

        One that is in use, or dials, stays in any case: its requests are to end when the host is closed.
        """
        pools = self._pools
        for _ in range(min(len(pools) - 1, _LOOKS)):  # the last pool is about to be used
            header, pool = next(iter(pools.items()))
            if pool.connections or pool.busy:
                if len(pools) <= MOST:
                    return
                if pool.busy:
                    pools.move_to_end(header)
                    continue
            del pools[header]
            pool.drain()

    def _make_room(self, header: bytes) -> None:
        """Close idle connections of other clients, until another connection may be made."""
        for other, pool in list(self._pools.items()):
            if self._host.may_connect():
                return
            if other != header:
                pool.make_room()

    # IHostPool

    def drain(self) -> None:
        """See L{IHostPool.drain}."""
        for pool in list(self._pools.values()):
            pool.drain()

    def close(self) -> None:
        """See L{IHostPool.close}."""
        pools, self._pools = self._pools, OrderedDict()
        for pool in pools.values():
            pool.close()


def client_pool_of(
    protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None, header: bytes
) -> IUpstreamPool:
    """Return the pool of a host for one client; make it if there is none."""
    key = f"{protocol} by client"
    pools = find_or_make_pool(key, partial(ClientPools, protocol), host, clock, idle_timeout)
    return pools.of(header)
