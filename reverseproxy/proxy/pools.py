"""
The connection pools of hosts, by the protocol that is spoken to them.

All exchanges of a protocol share the pool of a host, whatever listener they
come from.  So what a filter is told goes with its exchanges, and not into the
pool, which would have it from whoever happened to make it.

HTTP's protocols register how to make their pools, as an exchange finds out late
which one is spoken to the hosts; they are the same for the whole process.
"""

from __future__ import annotations

__all__ = ["IUpstreamPool", "is_pooled", "make_pool", "pool_of", "register_pool"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host


class IUpstreamPool(Protocol):
    """
    What an exchange needs of a pool, besides what L{IHostPool} demands.

    What a pool gives serves one exchange: a connection, or a stream of a
    connection that serves many.
    """

    def take(self) -> Any:
        """Give what is there at once; L{None} if there is nothing."""

    def connect(self) -> Deferred[Any]:
        """Make a new connection, and give it, or a stream on it."""

    def drain(self) -> None:
        """See L{IHostPool.drain}."""

    def close(self) -> None:
        """See L{IHostPool.close}."""


MakePool = Callable[["Host", IReactorTime, float | None], IUpstreamPool]

_MAKERS: dict[str, MakePool] = {}


def register_pool(protocol: str, make: MakePool) -> None:
    """
    Say how pools of a protocol are made, once for the process.

    @param protocol: as routes name it, such as C{"Http1"}.
    @param make: given the host, the clock and the seconds after which an idle
        connection is closed, if it is.
    @raise ValueError: if somebody else has said so.
    """
    if _MAKERS.setdefault(protocol, make) is not make:
        raise ValueError(f"there are pools of {protocol} already")


def is_pooled(protocol: str) -> bool:
    """Whether hosts can be spoken to in a protocol by HTTP's exchanges."""
    return protocol in _MAKERS


def make_pool(protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> IUpstreamPool:
    """
    Make a pool of a host.

    @raise KeyError: if nobody has registered the protocol.
    """
    return _MAKERS[protocol](host, clock, idle_timeout)


def pool_of(protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> IUpstreamPool:
    """
    Find the pool of a host, or make it.

    @raise KeyError: if nobody has registered the protocol.
    """
    pool = host.pools.get(protocol)
    if pool is None:
        pool = host.pools[protocol] = cast("Any", make_pool(protocol, host, clock, idle_timeout))
    return cast(IUpstreamPool, pool)
