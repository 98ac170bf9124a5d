"""The settings that all connections of one C{tcp_proxy} filter share."""

from __future__ import annotations

__all__ = ["TcpProxySettings"]

from collections.abc import Callable
from dataclasses import dataclass, field

from twisted.internet.interfaces import IReactorTime

from reverseproxy.cluster.manager import LOG_BURST, LOG_RATE, ClusterManager
from reverseproxy.logs import Throttle
from reverseproxy.metrics import RequestTally
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.tcp.router import TcpRouter
from reverseproxy.tracing.interfaces import ITracing
from reverseproxy.transport.closing import STALL


@dataclass(frozen=True, slots=True)
class TcpProxySettings:
    """
    The settings of one C{tcp_proxy} filter.

    @ivar listener: the listener's name, for logs.
    @ivar router: finds the cluster of a connection.
    @ivar clusters: the clusters, by name.
    @ivar clock: the time.
    @ivar session_idle: seconds without a byte in either direction after which
        a session is closed; L{None} for never.
    @ivar access_log: called with the record of each session; L{None} for no log.
    @ivar tally: counts sessions; L{None} without metrics.
    @ivar stall: seconds within which a peer must receive some of the remaining data
        when a session has ended.
    @ivar proxy_protocol: the version of the PROXY header that is sent to hosts; empty for none.
    @ivar tracing: makes spans of sessions; L{None} without tracing.
    @ivar complaints: limits the rate of log lines about failed sessions.
    """

    listener: str
    router: TcpRouter
    clusters: ClusterManager
    clock: IReactorTime
    session_idle: float | None = None
    access_log: Callable[[AccessRecord], None] | None = None
    tally: RequestTally | None = None
    stall: float = STALL
    proxy_protocol: str = ""
    tracing: ITracing | None = None
    complaints: Throttle = field(init=False, compare=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "complaints", Throttle(self.clock, LOG_RATE, LOG_BURST))
