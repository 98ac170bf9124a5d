"""Report an exchange: its spans, its variables, and its record for the access log."""

from __future__ import annotations

__all__ = ["begin_trace", "end_trace", "record", "variable"]

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

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
    """Begin the span of a request; return L{None} if there is none for it."""
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
    """End the span of an exchange, with its status and its sizes."""
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


def _duration(exchange: RouteFinding) -> str:
    return format_duration(exchange.clock.seconds() - exchange.started)


def _start_time(exchange: RouteFinding) -> str:
    return format_time(wall_time() - (exchange.clock.seconds() - exchange.started))


def _status(exchange: RouteFinding) -> str | None:
    return str(exchange.status) if exchange.status else None


def _flagged(exchange: RouteFinding) -> str:
    return "true" if exchange.flag else "false"


def _upstream_host(exchange: RouteFinding) -> str | None:
    host = exchange.host
    return None if host is None else host.hostname or host.address


_VARIABLES: Final[dict[str, Callable[[RouteFinding], str | None]]] = {
    "downstream_local_address": lambda exchange: exchange.downstream.info.local,
    "downstream_remote_address": lambda exchange: exchange.downstream.info.remote,
    "listener_name": lambda exchange: exchange.downstream.settings.listener,
    "x-mosn-path-original": lambda exchange: exchange.head.target.partition(b"?")[0].decode("ascii"),
    "start_time": _start_time,
    "duration": _duration,
    "process_time_duration": _duration,
    "request_received_duration": _duration,
    "request_finished_duration": _duration,
    "response_received_duration": _duration,
    "bytes_received": lambda exchange: str(exchange.received),
    "bytes_sent": lambda exchange: str(exchange.sent),
    "response_code": _status,
    "x-mosn-status": _status,
    "response_flag": _flagged,
    "response_flags": _flagged,
    "upstream_cluster": lambda exchange: None if exchange.cluster is None else exchange.cluster.name,
    "upstream_host": _upstream_host,
    "upstream_local_address": lambda exchange: (
        None if exchange.notes is None else exchange.notes.local_address or None
    ),
}


def variable(exchange: RouteFinding, name: str) -> str | None:
    """Return the present value of one of MOSN's variables; see L{RouteInput.variables}."""
    getter = _VARIABLES.get(name)
    if getter is not None:
        return getter(exchange)
    header = name.removeprefix("response_header_")
    response = exchange.response_head
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
