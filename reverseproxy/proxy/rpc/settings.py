"""What the connections of one C{proxy} filter have in common that speak an RPC protocol."""

from __future__ import annotations

__all__ = ["RpcSettings"]

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import random
from typing import Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.logs import Throttle
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.failures import FailureLog
from reverseproxy.proxy.farewell import STALL
from reverseproxy.proxy.filters import FilterChain
from reverseproxy.proxy.http.trust import NOBODY, Trust
from reverseproxy.routing import Router
from reverseproxy.tracing.interfaces import ITracing
from reverseproxy.wire.rpc.xprotocol import MAX_FRAME, XProtocol

LOG_RATE: Final = 10.0
"""Lines about the clients of one listener, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""


@dataclass(frozen=True, slots=True)
class RpcSettings:
    """
    What all connections of one C{proxy} filter share.

    @ivar listener: the listener's name, for logs.
    @ivar protocol: what clients speak.
    @ivar router: decides on each request.
    @ivar clusters: where routes lead to.
    @ivar pool_key: see L{reverseproxy.proxy.rpc.protocols.Dialect.key}; if empty,
        the protocol's name.
    @ivar filters: what each request goes through; L{None} for nothing.
    @ivar max_frame: the largest request, and the largest response, in bytes.
    @ivar idle_timeout: seconds without a byte after which a connection is
        closed, if no request is under way; L{None} for never.
    @ivar access_log: called with each exchange that has ended.
    @ivar tally: counts the exchanges; L{None} if nobody asks.
    @ivar tracing: makes spans of them; L{None} if they are not traced.
    @ivar abort_on_half_close: whether a client that sends no more is taken for one that is gone.
    @ivar random: numbers from 0 to 1, less than 1, that sampling goes by.
    @ivar request_time: seconds for all of a frame to come; infinity for any time.
    @ivar stream_idle: seconds without a byte in which nothing of a frame has come,
        or a client has taken nothing of what waits for it, after which it is cut
        off; infinity for any time.
    @ivar protocols_differ: whether it is one of several protocols that clients may speak,
        so that each client chooses what hosts are spoken to in.
    @ivar timeout_to_end: whether a route's timeout bounds the whole response, if
        the route does not say.
    @ivar trust: whom to believe what requests say of themselves.
    @ivar complaints: bounds the lines about clients.
    @ivar failures: has lines about requests that fail on our side.
    """

    listener: str
    protocol: XProtocol
    router: Router
    clusters: ClusterManager
    clock: IReactorTime
    pool_key: str = ""
    filters: FilterChain | None = None
    max_frame: int = MAX_FRAME
    idle_timeout: float | None = None
    access_log: Callable[[AccessRecord], None] | None = None
    tally: RequestTally | None = None
    tracing: ITracing | None = None
    abort_on_half_close: bool = False
    random: Callable[[], float] = random
    stream_idle: float = STALL
    request_time: float = inf
    timeout_to_end: bool = False
    protocols_differ: bool = False
    trust: Trust = NOBODY
    complaints: Throttle = field(init=False, compare=False)
    failures: FailureLog = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "complaints", Throttle(self.clock, LOG_RATE, LOG_BURST))
        object.__setattr__(self, "failures", FailureLog(self.listener, self.clock))
