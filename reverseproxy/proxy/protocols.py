"""
The protocols of a C{proxy} filter.

Each protocol that clients may have is a L{Candidate}; if there are several, a
L{Detector} chooses among them for each connection.
"""

from __future__ import annotations

__all__ = [
    "IDLE_TIMEOUT",
    "BuildProtocol",
    "ProxyPlan",
    "build_proxy",
    "with_idle_timeout",
]

from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from functools import partial
from math import inf
from typing import Any, Final

from twisted.internet.interfaces import IProtocol, IReactorTime

from reverseproxy.cluster.narrowed import IClusters
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import ProxyConfig
from reverseproxy.errors import ConfigError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.metrics import RequestTally
from reverseproxy.problems import PART, Problem
from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.detect import Candidate, Detector, DetectorSettings, detect_http1, detect_http2
from reverseproxy.proxy.filters import FilterChain
from reverseproxy.proxy.http import (
    http1_pool,  # noqa: F401  they register their pools
    http2_pool,  # noqa: F401  they register their pools
)
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.http.http2_server import Http2Proxy
from reverseproxy.proxy.http.settings import HttpSettings
from reverseproxy.proxy.http.trust import Trust
from reverseproxy.proxy.idle import session_idle
from reverseproxy.proxy.protocol_builder import ProtocolBuilder
from reverseproxy.proxy.rpc.protocols import dialect_of, xprotocol_names
from reverseproxy.routing import Router
from reverseproxy.tracing.interfaces import ITracing

BuildProtocol = Callable[[ConnectionInfo], IProtocol]
"""A filter, as its listener has it: builds the protocol of a connection."""

IDLE_TIMEOUT: Final = 90.0
"""Seconds after which an idle client connection is closed by default (docs/mosn.rst 3.4)."""


@dataclass(frozen=True, slots=True)
class ProxyPlan:
    """
    What all protocols of one C{proxy} filter share.

    @ivar listener: the listener's name, for logs.
    @ivar config: the filter's configuration.
    @ivar router: finds routes.
    @ivar clusters: the routes' clusters, by name.
    @ivar clock: the time.
    @ivar filters: the request filters; L{None} for none.
    @ivar idle_timeout: the listener's, in seconds; L{None} if it has none configured.
    @ivar access_log: called with the record of each request; L{None} for no log.
    @ivar tally: counts requests; L{None} without metrics.
    @ivar tracing: makes spans of requests; L{None} without tracing.
    @ivar random: returns numbers from 0 to 1, less than 1, for sampling.
    """

    listener: str
    config: ProxyConfig
    router: Router
    clusters: IClusters
    clock: IReactorTime
    filters: FilterChain | None
    idle_timeout: float | None
    access_log: Callable[[AccessRecord], None] | None
    random: Callable[[], float]
    tally: RequestTally | None = None
    tracing: ITracing | None = None


def with_idle_timeout(
    kind: str,
    settings: Any,
    protocol: Callable[[Any, ConnectionInfo], IProtocol],
    parts: Collection[Any] = (),
    own: Collection[str] = (),
) -> ProtocolBuilder:
    """
    Make a builder that gives client connections an idle timeout by default, and reverse ones none.

    Reverse connections are meant to be idle until there is a request; MOSN closes and
    redials them every 90 s (docs/mosn.rst 3.4).

    @param kind: see L{ProtocolBuilder}; the same for C{parts} and C{own}.
    @param settings: with an C{idle_timeout}; L{None} if the listener has none
        configured, 0 for never.
    """
    reverse = replace(settings, idle_timeout=settings.idle_timeout or None)
    timeout = IDLE_TIMEOUT if settings.idle_timeout is None else reverse.idle_timeout
    return ProtocolBuilder(kind, protocol, replace(settings, idle_timeout=timeout), reverse, parts, own)


def _common(plan: ProxyPlan) -> dict[str, Any]:
    """Return the settings that all protocols have."""
    return {
        "listener": plan.listener,
        "router": plan.router,
        "clusters": plan.clusters,
        "clock": plan.clock,
        "filters": plan.filters,
        "idle_timeout": plan.idle_timeout,
        "access_log": plan.access_log,
        "tally": plan.tally,
        "tracing": plan.tracing,
        "abort_on_half_close": plan.config.abort_on_half_close,
        "random": plan.random,
        "stream_idle": plan.config.stream_idle_timeout or inf,
        "request_time": plan.config.request_timeout or inf,
        "timeout_to_end": plan.config.timeout_includes_response,
        "protocols_differ": plan.config.detects,
        "trust": Trust(plan.config.trusted_proxies),
    }


def _http(plan: ProxyPlan) -> HttpSettings:
    return HttpSettings(
        **_common(plan),
        options=plan.config.http1,
        http2=plan.config.http2,
        session_idle=session_idle(plan.config.upgrade_idle_timeout, plan.idle_timeout),
        sni_check=plan.config.sni_check,
        error_details=plan.config.error_details,
    )


def _http1(plan: ProxyPlan) -> Candidate:
    return Candidate("Http1", detect_http1, with_idle_timeout("Http1", _http(plan), Http1Proxy))


def _http2(plan: ProxyPlan) -> Candidate:
    return Candidate("Http2", detect_http2, with_idle_timeout("Http2", _http(plan), Http2Proxy))


_HTTP: Final[dict[str, Callable[[ProxyPlan], Candidate]]] = {"Http2": _http2, "Http1": _http1}
"""The versions of HTTP, in the order in which C{Auto} tries them."""


def _rpc(plan: ProxyPlan, name: str) -> Candidate:
    # Most listeners have no RPC protocol.
    from reverseproxy.proxy.rpc.server import RpcProxy
    from reverseproxy.proxy.rpc.settings import RpcSettings

    dialect = dialect_of(name, plan.config.rpc_options(name))
    protocol = dialect.protocol
    settings = RpcSettings(
        **_common(plan),
        protocol=protocol,
        pool_key=dialect.key,
        max_frame=dialect.max_frame,
    )
    return Candidate(name, protocol.detect, with_idle_timeout(dialect.key, settings, RpcProxy))


def _candidate(plan: ProxyPlan, name: str) -> Candidate:
    if name in _HTTP:
        return _HTTP[name](plan)
    try:
        return _rpc(plan, name)
    except ValueError as error:
        place = PART / "config"
        if name in plan.config.extend_config.xprotocols:
            place = place / "extend_config" / "xprotocols" / name
        elif plan.config.downstream_protocol == "X":
            place = place / "extend_config" / "sub_protocol"
        else:
            place /= "downstream_protocol"
        raise ConfigError(Problem.at(place, str(error))) from error


def build_proxy(plan: ProxyPlan, fallback: BuildProtocol | None = None) -> BuildProtocol:
    """
    Make the builder of a listener's protocols.

    @param fallback: builds the protocol of connections of an unknown protocol.
    @raise ConfigError: with each protocol that is unknown.
    """
    names = plan.config.protocols
    if "Auto" in names:
        names = (*_HTTP, *xprotocol_names())
    findings = Diagnostics()
    found = [findings.attempt(PART, partial(_candidate, plan, name)) for name in names]
    findings.raise_errors()
    candidates = [candidate for candidate in found if candidate is not None]
    if not plan.config.detects:
        return candidates[0].build
    settings = DetectorSettings(
        listener=plan.listener,
        candidates=candidates,
        clock=plan.clock,
        idle_timeout=plan.idle_timeout,
        fallback=fallback if plan.config.falls_back else None,
    )
    parts = [candidate.build for candidate in candidates]
    if settings.fallback is not None:
        parts.append(settings.fallback)
    return with_idle_timeout("detected", settings, Detector, parts, ("candidates", "fallback"))
