"""What is told of an exchange: spans, variables, and a line of the access log."""

from __future__ import annotations

__all__ = ["begin_trace", "end_trace", "record", "variable"]

from typing import TYPE_CHECKING

from reverseproxy.clock import wall_time
from reverseproxy.config.durations import format_duration
from reverseproxy.logs import format_time
from reverseproxy.proxy.access import AccessRecord, RequestDetails, access_record
from reverseproxy.proxy.flags import short_names

if TYPE_CHECKING:
    from reverseproxy.proxy.http.exchange import Exchange
    from reverseproxy.proxy.http.route_finding import RouteFinding
    from reverseproxy.tracing.interfaces import IRequestTrace, ITracing


def begin_trace(tracing: ITracing, exchange: RouteFinding) -> IRequestTrace | None:
    """Make spans of what becomes of a request."""
    downstream, head = exchange.downstream, exchange.head
    info = downstream.info
    method = head.method.decode("ascii", "replace")
    return tracing.begin(
        head.lookup,
        downstream.settings.trust.believes(info),
        exchange.started,
        exchange.clock.seconds(),
        method,
        {
            "http.request.method": method,
            "url.path": head.target.partition(b"?")[0].decode("ascii", "replace"),
            "url.scheme": "https" if info.secure else "http",
            "server.address": head.host.decode("ascii", "replace"),
            "client.address": info.remote_ip,
            "network.protocol.name": "http",
            "network.protocol.version": downstream.version,
            "reverseproxy.listener": downstream.settings.listener,
        },
    )


def end_trace(trace: IRequestTrace, exchange: RouteFinding) -> None:
    """Say how it has ended."""
    rule = exchange.rule
    flags = short_names(exchange.flags)
    error = exchange.flag if exchange.flags or exchange.status >= 500 else ""
    attributes: dict[str, str | int | float | bool] = {
        "reverseproxy.bytes_received": exchange.received,
        "reverseproxy.bytes_sent": exchange.sent,
    }
    name = exchange.head.method.decode("ascii", "replace")
    if exchange.status:
        attributes["http.response.status_code"] = exchange.status
    if rule is not None:
        attributes["http.route"] = rule.route
        name = f"{name} {rule.route}"
    if flags:
        attributes["reverseproxy.flags"] = flags
        attributes["error.type"] = flags
    if exchange.status >= 500:
        error = error or f"status {exchange.status}"
    trace.end(exchange.clock.seconds(), name, error, attributes)


def variable(exchange: RouteFinding, name: str) -> str | None:
    """Find what a variable of MOSN's is at present; see L{RouteInput.variables}."""
    downstream = exchange.downstream
    info = downstream.info
    response = exchange.response_head
    match name:
        case "downstream_local_address":
            return info.local
        case "downstream_remote_address":
            return info.remote
        case "listener_name":
            return downstream.settings.listener
        case "x-mosn-path-original":
            return exchange.head.target.partition(b"?")[0].decode("ascii")
        case "start_time":
            age = exchange.clock.seconds() - exchange.started
            return format_time(wall_time() - age)
        case (
            "duration"
            | "process_time_duration"
            | "request_received_duration"
            | "request_finished_duration"
            | "response_received_duration"
        ):
            return format_duration(exchange.clock.seconds() - exchange.started)
        case "bytes_received":
            return str(exchange.received)
        case "bytes_sent":
            return str(exchange.sent)
        case "response_code" | "x-mosn-status":
            return str(exchange.status) if exchange.status else None
        case "response_flag" | "response_flags":
            return "true" if exchange.flag else "false"
        case "upstream_cluster":
            return None if exchange.cluster is None else exchange.cluster.name
        case "upstream_host":
            return None if exchange.host is None else exchange.host.hostname or exchange.host.address
        case "upstream_local_address":
            return None if exchange.notes is None else exchange.notes.local_address or None
    header = name.removeprefix("response_header_")
    if header != name and response is not None:
        return response.lookup(header)
    return None


def record(exchange: Exchange) -> AccessRecord:
    """Describe an exchange that has ended, for the access log."""
    head, response, downstream = exchange.head, exchange.response_head, exchange.downstream
    path, _, query = head.target.decode("ascii", "replace").partition("?")
    request = RequestDetails(
        head.method.decode("ascii", "replace"),
        path,
        query,
        head.host.decode("ascii", "replace"),
        "https" if downstream.info.secure else "http",
        head.lookup,
    )
    headers = None if response is None else response.lookup
    return access_record(
        exchange, downstream.protocol, downstream.info, request, headers, exchange.clock.seconds()
    )
