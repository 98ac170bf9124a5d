"""What the connections of one C{proxy} filter have in common, whatever version of HTTP they speak."""

from __future__ import annotations

__all__ = ["HEAD_TIMEOUT", "LOG_BURST", "LOG_RATE", "HttpSettings"]

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import random

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import Http1Options, Http2Options
from reverseproxy.interfaces import ConnectionInfo, IGate
from reverseproxy.logs import Throttle
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.farewell import STALL
from reverseproxy.proxy.filters import FilterChain
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.discretion import Discretion
from reverseproxy.proxy.http.trust import NOBODY, Trust
from reverseproxy.proxy.relay import LINGER
from reverseproxy.routing import Router
from reverseproxy.tracing.interfaces import ITracing

HEAD_TIMEOUT = 60.0
"""Seconds from the first byte of a request to the end of its head."""

LOG_RATE = 10.0
"""Lines about bad requests to one listener, in each second."""

LOG_BURST = 50
"""How many of them may come at once."""

MISS_RATE = 0.2
"""Lines about requests for hosts that there are not, in each second: strangers try many."""

MISS_BURST = 10
"""How many of them may come at once."""

STRIP_RATE = 1 / 3600
"""Lines about fields of requests that were dropped, in each second: a file that lacks a key is worth one."""


@dataclass(frozen=True, slots=True)
class HttpSettings:
    """
    What all connections of one C{proxy} filter share.

    @ivar listener: the listener's name, for logs.
    @ivar router: decides on each request.
    @ivar clusters: where routes lead to.
    @ivar options: limits and habits of HTTP/1.
    @ivar http2: limits and habits of HTTP/2.
    @ivar filters: what each request goes through; L{None} for nothing.
    @ivar idle_timeout: seconds without a request after which a connection is
        closed; L{None} for never.
    @ivar access_log: called with each exchange that has ended.
    @ivar tally: counts the exchanges; L{None} if nobody asks.
    @ivar tracing: makes spans of them; L{None} if they are not traced.
    @ivar observed: whether exchanges that have ended are told of one by one.
    @ivar abort_on_half_close: whether a client that sends no more is taken for one that is gone.
    @ivar head_timeout: seconds for the head of a request to come.
    @ivar linger: seconds that a closing connection may take once the client has
        taken everything.
    @ivar stream_idle: seconds without a byte in either direction after which a
        request is broken off, if its route does not say; infinity for never.
    @ivar session_idle: the same for what an upgraded request carries; L{None} for
        never.
    @ivar request_time: seconds for all of a request to come; infinity for any time.
    @ivar protocols_differ: whether it is one of several protocols that clients may speak,
        so that each client chooses what hosts are spoken to in.
    @ivar timeout_to_end: whether a route's timeout bounds the whole response, if
        the route does not say.
    @ivar random: numbers from 0 to 1, less than 1, that sampling goes by.
    @ivar trust: whom to believe what requests say of themselves.
    @ivar sni_check: C{"demands"}, C{"always"} or C{"never"}: which requests may not name another
        host than the handshake of their connection.
    @ivar error_details: whether clients are told what goes wrong behind us.
    @ivar complaints: bounds the lines about bad requests.
    @ivar look_period: seconds from one look at a request to the next.
    @ivar misses: bounds the lines about requests that no virtual host takes.
    @ivar discretion: decides what clients are told of errors.
    @ivar strips: bounds the lines about fields that were dropped.
    """

    listener: str
    router: Router
    clusters: ClusterManager
    clock: IReactorTime
    options: Http1Options = field(default_factory=Http1Options)
    http2: Http2Options = field(default_factory=Http2Options)
    filters: FilterChain | None = None
    idle_timeout: float | None = None
    access_log: Callable[[AccessRecord], None] | None = None
    tally: RequestTally | None = None
    tracing: ITracing | None = None
    abort_on_half_close: bool = False
    head_timeout: float = HEAD_TIMEOUT
    linger: float = LINGER
    random: Callable[[], float] = random
    stream_idle: float = STALL
    request_time: float = inf
    session_idle: float | None = None
    timeout_to_end: bool = False
    protocols_differ: bool = False
    trust: Trust = NOBODY
    sni_check: str = "demands"
    error_details: bool = False
    complaints: Throttle = field(init=False, compare=False)
    look_period: float = field(init=False, compare=False)
    misses: Throttle = field(init=False, compare=False)
    strips: Throttle = field(init=False, compare=False)
    observed: bool = field(init=False, compare=False)
    discretion: Discretion = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "look_period", min(self.stream_idle / LOOKS, self.request_time))
        object.__setattr__(self, "complaints", Throttle(self.clock, LOG_RATE, LOG_BURST))
        object.__setattr__(self, "misses", Throttle(self.clock, MISS_RATE, MISS_BURST))
        object.__setattr__(self, "strips", Throttle(self.clock, STRIP_RATE))
        observed = self.access_log is not None or self.tracing is not None
        object.__setattr__(self, "observed", observed)
        discretion = Discretion(self.listener, self.clock, self.random, self.error_details)
        object.__setattr__(self, "discretion", discretion)

    def gate_of(self, info: ConnectionInfo) -> IGate | None:
        """Find what decides whether requests may come over a connection; L{None} if all may."""
        gate = info.gate
        if gate is None or self.sni_check == "never":
            return None
        return gate if self.sni_check == "always" or gate.differs else None
