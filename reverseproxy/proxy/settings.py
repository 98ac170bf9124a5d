"""The settings that all connections of one C{proxy} filter share, whatever their protocol."""

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
from reverseproxy.proxy.filters import FilterChain
from reverseproxy.proxy.http.trust import NOBODY, Trust
from reverseproxy.routing import Router
from reverseproxy.tracing.interfaces import ITracing
from reverseproxy.transport.closing import STALL

LOG_RATE: Final = 10.0
"""Log lines about the clients of one listener, per second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""


@dataclass(frozen=True, slots=True)
class ProxySettings:
    """
    The settings of one C{proxy} filter.

    @ivar listener: the listener's name, for logs.
    @ivar router: finds routes.
    @ivar clusters: the routes' clusters, by name.
    @ivar clock: the time.
    @ivar filters: the request filters; L{None} for none.
    @ivar idle_timeout: seconds after which a connection without requests under way
        is closed; L{None} for never.
    @ivar access_log: called with the record of each exchange; L{None} for no log.
    @ivar tally: counts exchanges; L{None} without metrics.
    @ivar tracing: makes spans of exchanges; L{None} without tracing.
    @ivar abort_on_half_close: whether requests are cancelled when the client closes its half.
    @ivar random: returns numbers from 0 to 1, less than 1, for sampling.
    @ivar stream_idle: seconds without progress in either direction after which a
        request is reset, or its connection closed, if its route has no timeout for
        that; infinity for never.
    @ivar request_time: seconds for a request to be received; infinity for any time.
    @ivar timeout_to_end: whether a route's timeout is for the whole response, if the
        route does not say.
    @ivar protocols_differ: whether the filter has several protocols, so that each client
        decides about the protocol of its hosts.
    @ivar trust: the clients whose forwarding headers are trusted.
    @ivar complaints: limits the rate of log lines about clients.
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
