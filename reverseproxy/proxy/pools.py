"""
The connection pools of hosts, by the protocol that is spoken to them.

All exchanges of a protocol share the pool of a host, whatever listener they
come from.  So what a filter is told goes with its exchanges, and not into the
pool, which would have it from whoever happened to make it.

HTTP's protocols register how to make their pools, as an exchange finds out late
which one is spoken to the hosts; they are the same for the whole process.
"""

from __future__ import annotations

__all__ = ["IExchange", "IUpstreamPool", "is_pooled", "pool_of", "register_pool"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Protocol, cast

from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorTime

from reverseproxy.proxy.flags import Flag
from reverseproxy.wire.http1.requests import Event, ResponseHead

if TYPE_CHECKING:
    from reverseproxy.cluster.host import Host


class IExchange(Protocol):
    """What a connection to a host, or a stream on it, needs of the HTTP exchange that it serves."""

    def upstream_events(self, events: list[Event]) -> None:
        """A part of the response has come."""

    def upstream_response(self, head: ResponseHead, data: bytes) -> None:
        """
        All of the response has come, in HTTP/1.

        @param data: the head and the body, as they came.
        """

    def response_sink(self) -> Any:
        """
        Say where the body that is coming can be sent as it comes.

        @return: a transport, which is given nothing else until the body has
            come to its end, or the connection to the host is given up;
            L{None} if there is none.
        """

    @property
    def response_waiting(self) -> int:
        """How many bytes of what has come of the response wait for the client, at the most."""

    def response_passed(self, size: int) -> None:
        """Bytes of the body have been sent there."""

    def upstream_lost(
        self,
        reason: str,
        unsent: bool = False,
        code: int = 0,
        terminated: bool = False,
        flags: int = Flag.UC,
    ) -> None:
        """
        The connection is lost, and the response is not complete.

        @param unsent: whether the host has said that it did not act on the
            request, as HTTP/2 can.
        @param code: why, if the host has said that in an error code of HTTP/2.
        @param terminated: whether it was a connection of HTTP/2, with all that
            was under way on it.
        @param flags: the reason as codes; see L{reverseproxy.proxy.flags}.
        """

    def upstream_full(self, full: bool) -> None:
        """The host reads more slowly than the request comes, or has caught up."""


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


def pool_of(protocol: str, host: Host, clock: IReactorTime, idle_timeout: float | None) -> IUpstreamPool:
    """
    Find the pool of a host, or make it.

    @raise KeyError: if nobody has registered the protocol.
    """
    pool = host.pools.get(protocol)
    if pool is None:
        pool = host.pools[protocol] = cast("Any", _MAKERS[protocol](host, clock, idle_timeout))
    return cast(IUpstreamPool, pool)
