"""
The C{%variables%} of formats of access logs.

MOSN's are those of C{pkg/proxy/var.go}, C{pkg/stream/http/var.go} and
C{pkg/types/variable.go} in C{mosn.io/mosn}; C{docs/access-logs.rst} has all of
them.  A variable without a value gives C{-}, as it does there.

Clients choose much of what is logged about them: everything that is not
printable, quotes and backslashes become backslash sequences, so that a record is
always exactly one line and a quoted value ends at its quote.
"""

from __future__ import annotations

__all__ = ["MAX_VALUE", "NONE", "Getter", "getter_of", "quoted"]

import time
from collections.abc import Callable
from typing import Final

from reverseproxy.config.durations import format_duration
from reverseproxy.identity import AgentIdentity
from reverseproxy.logs import escape, format_time
from reverseproxy.proxy.access.record import AccessRecord
from reverseproxy.proxy.flags import long_names, short_names
from reverseproxy.routing import RouteInput
from reverseproxy.routing.variables import find_variable
from reverseproxy.tracing.context import trace_id_of

MAX_VALUE: Final = 4096
"""Characters of one value; longer ones are cut."""

NONE: Final = "-"
"""What stands for no value."""

Getter = Callable[[AccessRecord], str | int]
"""Finds the value of a variable, fit for a line."""


def quoted(text: str) -> str:
    """Make a value safe for a text line; C{-} if it is empty."""
    if not text:
        return NONE
    if len(text) > MAX_VALUE:
        text = text[:MAX_VALUE] + "..."
    if "\\" in text:
        text = text.replace("\\", "\\\\")
    if '"' in text:
        text = text.replace('"', '\\"')
    return escape(text)


def _duration(seconds: float | None) -> str:
    """Write a duration as Go does; to the microsecond where milliseconds count."""
    if seconds is None:
        # Go's zero value, which is what MOSN writes for "did not happen".
        return "0s"
    if 0.001 <= seconds < 0.9999:
        return f"{seconds * 1000:.6g}ms"
    return format_duration(seconds).replace("us", "\u00b5s")


class _LocalTime:
    """Formats start times; the calendar part is cached for each second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def __call__(self, record: AccessRecord) -> str:
        """C{2006/01/02 15:04:05.000} in local time."""
        milliseconds = int(record.start * 1000)
        second, fraction = divmod(milliseconds, 1000)
        if second != self._second:
            self._second = second
            self._text = time.strftime("%Y/%m/%d %H:%M:%S", time.localtime(second))
        return f"{self._text}.{fraction:03d}"


def _uri(record: AccessRecord) -> str:
    path, query = record.request.path, record.request.query
    return quoted(f"{path}?{query}" if query else path)


def _request(record: AccessRecord) -> str:
    """Return the method and target of a request; in RPC its service and operation."""
    request = record.request
    if request.method:
        return f"{quoted(request.method)} {_uri(record)}"
    if request.service:
        return quoted(f"{request.service}.{request.operation}" if request.operation else request.service)
    return NONE


def _own_time(record: AccessRecord) -> float:
    """Return the seconds that were not the host's, as MOSN counts them."""
    sent, answered = record.times.sent, record.times.answered
    if answered is None:
        return sent or 0.0
    return (sent or 0.0) + record.duration - answered


def _of_agent(get: Callable[[AgentIdentity], str]) -> Getter:
    """Return something about the agent that brought the host."""

    def getter(record: AccessRecord) -> str:
        agent = record.upstream.agent
        return NONE if agent is None else quoted(get(agent))

    return getter


_VARIABLES: Final[dict[str, Getter]] = {
    "duration": lambda record: _duration(record.duration),
    "request_finished_duration": lambda record: _duration(record.duration),
    "process_time_duration": lambda record: _duration(_own_time(record)),
    "host_wait_duration": lambda record: _duration(record.times.waited),
    "connect_duration": lambda record: _duration(record.times.dialled),
    "request_received_duration": lambda record: _duration(record.times.sent),
    "response_received_duration": lambda record: _duration(record.times.answered),
    "bytes_received": lambda record: record.bytes_received,
    "bytes_sent": lambda record: record.bytes_sent,
    "protocol": lambda record: quoted(record.protocol),
    "response_code": lambda record: record.status,
    "response_flag": lambda record: "true" if record.flag else "false",
    "response_flags": lambda record: "true" if record.flag else "false",
    "flags": lambda record: short_names(record.flags) or NONE,
    "flags_long": lambda record: long_names(record.flags) or NONE,
    "reason": lambda record: quoted(record.flag),
    "route_name": lambda record: quoted(record.rule.route),
    "virtual_host": lambda record: quoted(record.rule.virtual_host),
    "attempts": lambda record: record.upstream.attempts,
    "downstream_remote_address": lambda record: quoted(record.client.remote),
    "downstream_local_address": lambda record: quoted(record.client.local),
    "upstream_host": lambda record: quoted(record.upstream.host),
    "upstream_server": lambda record: quoted(record.upstream.server),
    "forwarded_by": lambda record: quoted(record.forwarded_by),
    "upstream_local_address": lambda record: quoted(record.upstream.local),
    "upstream_cluster": lambda record: quoted(record.upstream.cluster),
    "agent": _of_agent(lambda agent: agent.principal),
    "agent_certificate": _of_agent(lambda agent: "" if agent.certificate is None else str(agent.certificate)),
    "agent_policy": _of_agent(lambda agent: agent.policy),
    "agent_id": _of_agent(lambda agent: agent.agent_id),
    "agent_claim": _of_agent(lambda agent: agent.claim),
    "upstream_transport_failure_reason": lambda record: quoted(record.flag),
    "connection_id": lambda record: record.client.number or NONE,
    "upstream_connection_id": lambda record: record.upstream.connection or NONE,
    "trace_id": lambda record: record.trace_id or quoted(trace_id_of(record.request.headers)),
    "method": lambda record: quoted(record.request.method),
    "path": lambda record: quoted(record.request.path),
    "query": lambda record: quoted(record.request.query),
    "uri": _uri,
    "request": _request,
    "time": lambda record: format_time(record.start),
    "host": lambda record: quoted(record.request.host),
    "scheme": lambda record: quoted(record.request.scheme),
    "service": lambda record: quoted(record.request.service),
    "rpc_method": lambda record: quoted(record.request.operation),
}
_ALIASES: Final = {
    "x-mosn-method": "method",
    "Http1_request_method": "method",
    "http_request_method": "method",
    "x-mosn-path": "path",
    "x-mosn-path-original": "path",
    "Http1_request_path": "path",
    "Http1_request_path_original": "path",
    "x-mosn-querystring": "query",
    "Http1_request_arg": "query",
    "Http1_request_uri": "uri",
    "x-mosn-host": "host",
    "authority": "host",
    "x-mosn-scheme": "scheme",
    "Http1_request_scheme": "scheme",
    "x-mosn-rpc-service": "service",
    "x-mosn-rpc-method": "rpc_method",
    "x-mosn-status": "response_code",
    "route": "route_name",
}


def _response_header(name: str) -> Getter:
    def get(record: AccessRecord) -> str:
        lookup = record.response_headers
        return NONE if lookup is None else quoted(lookup(name) or "")

    return get


def _no_headers(name: str) -> None:
    """The lookup of headers of what has none."""


def _by_facts(find: Callable[[RouteInput], str | None]) -> Getter:
    """Return a variable that rules of routes can match, too."""

    def get(record: AccessRecord) -> str:
        request = record.request
        headers = request.headers or _no_headers
        facts = RouteInput(
            request.method,
            request.path,
            request.query,
            request.host,
            headers,
            request.scheme,
            record.protocol,
        )
        return quoted(find(facts) or "")

    return get


_RESPONSE_HEADER: Final = "response_header_"

_ANY_PROTOCOL: Final = "Http1_request_header_"
"""What stands for C{request_header_} here, whatever the protocol is."""


def getter_of(variable: str) -> Getter | None:
    """Return the function for a variable; L{None} if the variable is not known."""
    if variable == "start_time":
        return _LocalTime()
    known = _VARIABLES.get(_ALIASES.get(variable, variable))
    if known is not None:
        return known
    if variable.startswith(_RESPONSE_HEADER) and variable != _RESPONSE_HEADER:
        return _response_header(variable[len(_RESPONSE_HEADER) :].lower())
    if variable.startswith(_ANY_PROTOCOL):
        variable = variable.removeprefix("Http1_")
    found = find_variable(variable)
    return None if found is None else _by_facts(found)
