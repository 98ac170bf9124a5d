"""Settings that all connections of one C{proxy} filter share, in every version of HTTP."""

from __future__ import annotations

__all__ = ["HEAD_TIMEOUT", "HttpSettings"]

from dataclasses import dataclass, field

from reverseproxy.config.models import Http1Options, Http2Options
from reverseproxy.interfaces import ConnectionInfo, IGate
from reverseproxy.logs import Throttle
from reverseproxy.proxy.http.deadlines import LOOKS
from reverseproxy.proxy.http.discretion import Discretion
from reverseproxy.proxy.settings import ProxySettings
from reverseproxy.transport.closing import LINGER

HEAD_TIMEOUT = 60.0
"""Seconds from the first byte of a request to the end of its head."""

MISS_RATE = 0.2
"""Lines about requests for hosts that there are not, in each second: strangers try many."""

MISS_BURST = 10
"""How many of them may come at once."""

STRIP_RATE = 1 / 3600
"""Lines about fields of requests that were dropped, in each second: a file that lacks a key is worth one."""


@dataclass(frozen=True, slots=True)
class HttpSettings(ProxySettings):
    """
    See the module's text.

    @ivar options: options of HTTP/1.
    @ivar http2: options of HTTP/2.
    @ivar observed: whether there are traces or an access log.
    @ivar head_timeout: seconds for the head of a request.
    @ivar linger: seconds that a closing connection may take once the client has
        read everything.
    @ivar session_idle: C{stream_idle} for sessions of upgraded requests; L{None} for
        no timeout.
    @ivar sni_check: C{"demands"}, C{"always"} or C{"never"}: which requests may not name another
        host than the TLS handshake of their connection.
    @ivar error_details: whether clients get the details of internal errors.
    @ivar look_period: seconds between two looks at a request.
    @ivar misses: limits the rate of log lines about requests that match no virtual host.
    @ivar discretion: decides how much of an error responses reveal.
    @ivar strips: limits the rate of log lines about fields that were dropped.
    """

    options: Http1Options = field(default_factory=Http1Options)
    http2: Http2Options = field(default_factory=Http2Options)
    head_timeout: float = HEAD_TIMEOUT
    linger: float = LINGER
    session_idle: float | None = None
    sni_check: str = "demands"
    error_details: bool = False
    look_period: float = field(init=False, compare=False)
    misses: Throttle = field(init=False, compare=False)
    strips: Throttle = field(init=False, compare=False)
    observed: bool = field(init=False, compare=False)
    discretion: Discretion = field(init=False, compare=False)

    def __post_init__(self) -> None:
        ProxySettings.__post_init__(self)
        object.__setattr__(self, "look_period", min(self.stream_idle / LOOKS, self.request_time))
        object.__setattr__(self, "misses", Throttle(self.clock, MISS_RATE, MISS_BURST))
        object.__setattr__(self, "strips", Throttle(self.clock, STRIP_RATE))
        observed = self.access_log is not None or self.tracing is not None
        object.__setattr__(self, "observed", observed)
        discretion = Discretion(self.listener, self.clock, self.random, self.error_details)
        object.__setattr__(self, "discretion", discretion)

    def gate_of(self, info: ConnectionInfo) -> IGate | None:
        """Return what decides whether requests may come over a connection; L{None} if all may."""
        gate = info.gate
        if gate is None or self.sni_check == "never":
            return None
        return gate if self.sni_check == "always" or gate.differs else None
