"""What is told of an RPC exchange: spans, variables, lines of logs."""

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
    """Look headers up in a frame; of those that can't be read there are none."""
    if frame is None:
        return None

    def header(name: str) -> str | None:
        try:
            return frame.header(name)
        except RpcHeaderError:
            return None

    return header


def begin_trace(tracing: ITracing, exchange: RpcRouteFinding) -> IRequestTrace | None:
    """Make spans of what becomes of a request."""
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
    """Say how it has ended."""
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
    """Find what a variable of MOSN's is at present; see L{RouteInput.variables}."""
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
    """Describe a request that fails on our side, for the log."""
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
    """Describe an exchange that has ended, for the access log."""
    frame, downstream = exchange.frame, exchange.downstream
    try:
        asked = RequestDetails(service=frame.service, operation=frame.method, headers=frame.header)
    except RpcHeaderError:
        asked = RequestDetails()
    headers = lookup(exchange.response)
    return access_record(exchange, downstream.protocol.name, downstream.info, asked, headers, exchange.now)
