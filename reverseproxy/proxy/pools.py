"""
The connection pools of hosts, by protocol.

All exchanges of a protocol share the pool of a host, whatever their listener.  So
settings of a filter belong to its exchanges, and not to the pool.

The versions of HTTP register factories of their pools, as the route of an exchange
says which one its hosts have.
"""

from __future__ import annotations

__all__ = ["IUpstreamPool", "find_or_make_pool", "is_pooled", "make_pool", "pool_of", "register_pool"]

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host


class IUpstreamPool(Protocol):
    """
    The part of a pool that an exchange uses.

    An exchange gets a connection, or a place on a connection that is shared.
    """

    def take(self) -> Any:
        """Return a connection that is there; L{None} if there is none."""

    def connect(self) -> Deferred[Any]:
        """Make a new connection, or wait for one that is being made."""

    def drain(self) -> None:
        """See L{IHostPool.drain}."""

    def close(self) -> None:
        """See L{IHostPool.close}."""


_Pool = TypeVar("_Pool")

MakePool = Callable[["Host", IReactorTime, float | None], IUpstreamPool]

_MAKERS: dict[str, MakePool] = {}


def register_pool(protocol: str, make: MakePool) -> None:
    """
    Register the factory of a protocol's pools, once in the process.

    @param protocol: its name in routes, such as C{"Http1"}.
    @param make: makes a pool, given the host, the clock and the idle timeout in
        seconds.
    @raise ValueError: if there is another one for this protocol.
    """
    if _MAKERS.setdefault(protocol, make) is not make:
        raise ValueError(f"there are pools of {protocol} already")


def is_pooled(protocol: str) -> bool:
    """Return whether there are pools of this protocol for HTTP's exchanges."""
    return protocol in _MAKERS


def make_pool(protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> IUpstreamPool:
    """
    Make a pool of a host.

    @raise KeyError: if the protocol is not registered.
    """
    return _MAKERS[protocol](host, clock, idle_timeout)


def pool_of(protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> IUpstreamPool:
    """
    Return the pool of a host for HTTP's exchanges; make it if there is none.

    @raise KeyError: if the protocol is not registered.
    """
    return find_or_make_pool(protocol, partial(make_pool, protocol), host, clock, idle_timeout)


def find_or_make_pool(
    key: str,
    make: Callable[[Host, IReactorTime, float | None], _Pool],
    host: Host,
    clock: IReactorTime,
    idle_timeout: float | None,
) -> _Pool:
    """
    Return the pool that a host has under a key; make it if there is none.

    @param make: makes it, given the host, the clock and the idle timeout in seconds.
    """
    pool: Any = host.pools.get(key)
    if pool is None:
        pool = host.pools[key] = cast(Any, make(host, clock, idle_timeout))
    return cast(_Pool, pool)
