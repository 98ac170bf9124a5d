"""What the connections of one C{proxy} filter have in common, whatever protocol with requests they speak."""

from __future__ import annotations

__all__ = ["LOG_BURST", "LOG_RATE", "ProxySettings"]

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import random
from typing import Final

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.narrowed import IClusters
from reverseproxy.logs import Throttle
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.closing import STALL
from reverseproxy.proxy.filters import FilterChain
from reverseproxy.proxy.http.trust import NOBODY, Trust
from reverseproxy.routing import Router
from reverseproxy.tracing.interfaces import ITracing

LOG_RATE: Final = 10.0
"""Lines about the clients of one listener, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """
    See the module's text.

    @ivar listener: the listener's name, for logs.
    @ivar router: decides on each request.
    @ivar clusters: where routes lead to.
    @ivar filters: what each request goes through; L{None} for nothing.
    @ivar idle_timeout: seconds after which a connection is closed on which
        nothing is under way; L{None} for never.
    @ivar access_log: called with each exchange that has ended.
    @ivar tally: counts the exchanges; L{None} if nobody asks.
    @ivar tracing: makes spans of them; L{None} if they are not traced.
    @ivar abort_on_half_close: whether a client that sends no more is taken for one that is gone.
    @ivar random: numbers from 0 to 1, less than 1, that sampling goes by.
    @ivar stream_idle: seconds without a byte in which something should come, or be
        taken, after which a request is broken off, or its connection, if its route
        does not say; infinity for never.
    @ivar request_time: seconds for all of a request to come; infinity for any time.
    @ivar timeout_to_end: whether a route's timeout bounds the whole response, if
        the route does not say.
    @ivar protocols_differ: whether it is one of several protocols that clients may speak,
        so that each client chooses what hosts are spoken to in.
    @ivar trust: whom to believe what requests say of themselves.
    @ivar complaints: bounds the lines about clients that break the rules.
    """

    listener: str
    router: Router
    clusters: IClusters
    clock: IReactorTime
    filters: FilterChain | None = None
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

    def __post_init__(self) -> None:
        object.__setattr__(self, "complaints", Throttle(self.clock, LOG_RATE, LOG_BURST))
