"""Spans, variables and log records of RPC exchanges."""

from __future__ import annotations

__all__ = ["begin_trace", "end_trace", "failed", "record", "variable"]

from collections.abc import Callable
from typing import TYPE_CHECKING

from reverseproxy.errors import RpcHeaderError
from reverseproxy.proxy.access import AccessRecord, RequestDetails, access_record
from reverseproxy.proxy.failures import Failed
from reverseproxy.proxy.flags import short_names

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.exchange import RpcExchange
    from reverseproxy.proxy.rpc.route_finding import RpcRouteFinding
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing
    from reverseproxy.wire.rpc.xprotocol import Frame


def lookup(frame: Frame | None) -> Callable[[str], str | None] | None:
    """Return a function that looks up a frame's headers; headers that can't be read are absent."""
    if frame is None:
        return None

    def header(name: str) -> str | None:
        try:
            return frame.header(name)
        except RpcHeaderError:
            return None

    return header


def begin_trace(tracing: ITracing, exchange: RpcRouteFinding) -> IRequestTrace | None:
    """Begin the spans of a request, if it is sampled."""
    downstream, header = exchange.downstream, lookup(exchange.frame)
    assert header is not None
    name = downstream.protocol.name
    return tracing.begin(
        header,
        downstream.believed,
        exchange.started,
        exchange.now,
        name,
        {
            "rpc.system": name,
            "client.address": downstream.info.remote_ip,
            "reverseproxy.listener": downstream.settings.listener,
        },
    )


def end_trace(trace: IRequestTrace, exchange: RpcExchange) -> None:
    """End the spans of a request."""
    rule, frame = exchange.rule, exchange.frame
    attributes: dict[str, str | int | float | bool] = {"reverseproxy.bytes_sent": exchange.sent}
    name = exchange.downstream.protocol.name
    try:
        if frame.service:
            attributes["rpc.service"] = name = frame.service
        if frame.method:
            attributes["rpc.method"] = frame.method
            name = f"{name}/{frame.method}"
    except RpcHeaderError:
        pass
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    if rule is not None:
        attributes["http.route"] = rule.route
    if exchange.flags:
        attributes["reverseproxy.flags"] = attributes["error.type"] = short_names(exchange.flags)
    error = exchange.flag or (f"status {exchange.status}" if exchange.status >= 500 else "")
    trace.end(exchange.now, name, error, attributes)


def variable(exchange: RpcRouteFinding, name: str) -> str | None:
    """Return the value of a variable of MOSN's; see L{RouteInput.variables}."""
    downstream = exchange.downstream
    match name:
        case "x-mosn-rpc-service":
            return exchange.frame.service or None
        case "x-mosn-rpc-method":
            return exchange.frame.method or None
        case "downstream_local_address":
            return downstream.info.local
        case "downstream_remote_address":
            return downstream.info.remote
        case "listener_name":
            return downstream.settings.listener
        case "upstream_cluster":
            return None if exchange.cluster is None else exchange.cluster.name
        case "upstream_host":
            return None if exchange.host is None else exchange.host.address
        case "upstream_local_address":
            return None if exchange.notes is None else exchange.notes.local_address or None
    return None


def failed(exchange: RpcExchange, status: int, reason: str, remedy: str) -> Failed:
    """Return the log's record of a request that fails on our side."""
    downstream, host, cluster = exchange.downstream, exchange.host, exchange.cluster
    return Failed(
        f"{downstream.protocol.name} {exchange.name or 'request'}",
        downstream.info.remote,
        status,
        reason,
        exchange.flags,
        "" if cluster is None else cluster.name,
        "" if host is None else host.address,
        remedy,
        request_id=str(exchange.id),
        trace_id=exchange.trace_id,
    )


def record(exchange: RpcExchange) -> AccessRecord:
    """Return the access log's record of an exchange that has ended."""
    frame, downstream = exchange.frame, exchange.downstream
    try:
        asked = RequestDetails(service=frame.service, operation=frame.method, headers=frame.header)
    except RpcHeaderError:
        asked = RequestDetails()
    headers = lookup(exchange.response)
    return access_record(exchange, downstream.protocol.name, downstream.info, asked, headers, exchange.now)
