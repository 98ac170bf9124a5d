"""
MOSN's variables: values of a request and its exchange, by their names.

Most values are known from the request alone.  The rest comes from
L{RouteInput.variables}: values of the connection, and for headers of a response
also those of the exchange.

The names are those of C{pkg/types/variable.go}; the getters are in
C{pkg/proxy/var.go}, C{pkg/stream/http/var.go} and C{pkg/stream/http2/var.go}.
"""

from __future__ import annotations

__all__ = ["EXCHANGE_VARIABLES", "LATE_VARIABLES", "Getter", "find_variable"]

from collections.abc import Callable
from typing import Final
from urllib.parse import unquote_plus

from reverseproxy.routing.facts import RouteInput
from reverseproxy.routing.hashing import find_cookie

Getter = Callable[[RouteInput], str | None]
"""Returns a value; L{None} if the request has none."""

EXCHANGE_VARIABLES: Final = frozenset(
    {
        "downstream_local_address",
        "downstream_remote_address",
        "listener_name",
        "x-mosn-path-original",
        "x-mosn-rpc-method",
        "x-mosn-rpc-service",
    }
)
"""
Variables that L{RouteInput.variables} has at any time.

C{x-mosn-path-original} is the path as it came, without the query.
"""

LATE_VARIABLES: Final = frozenset(
    {
        "bytes_received",
        "bytes_sent",
        "duration",
        "process_time_duration",
        "request_finished_duration",
        "request_received_duration",
        "response_code",
        "response_flag",
        "response_flags",
        "response_received_duration",
        "start_time",
        "upstream_cluster",
        "upstream_host",
        "upstream_local_address",
        "x-mosn-status",
    }
)
"""Variables that it has besides for changes to headers; not all of them are known for those of a request."""

RESPONSE_HEADER: Final = "response_header_"
"""The prefix of variables that are headers of the response."""


def _method(facts: RouteInput) -> str | None:
    return facts.method or None


def _path(facts: RouteInput) -> str | None:
    return facts.path or None


def _query(facts: RouteInput) -> str | None:
    return facts.query or None


def _host(facts: RouteInput) -> str | None:
    return facts.host or None


def _scheme(facts: RouteInput) -> str | None:
    return facts.scheme or None


def _protocol(facts: RouteInput) -> str | None:
    return facts.protocol


def _asked(name: str) -> Getter:
    """Return a getter of a value of the exchange."""

    def get(facts: RouteInput) -> str | None:
        return None if facts.variables is None else facts.variables(name)

    return get


_original_path: Final = _asked("x-mosn-path-original")


def _uri(facts: RouteInput) -> str | None:
    path = _original_path(facts) or facts.path
    return f"{path}?{facts.query}" if facts.query else path or None


def _header(name: str) -> Getter:
    lower = name.lower()

    def get(facts: RouteInput) -> str | None:
        return facts.headers(lower)

    return get


def _cookie(name: str) -> Getter:
    def get(facts: RouteInput) -> str | None:
        return find_cookie(facts, name)

    return get


def _argument(name: str) -> Getter:
    """An argument of the query, the first of its name."""

    def get(facts: RouteInput) -> str | None:
        for pair in facts.query.split("&"):
            found, _, value = pair.partition("=")
            if unquote_plus(found, errors="surrogateescape") == name:
                return unquote_plus(value, errors="surrogateescape")
        return None

    return get


_COMMON: Final[dict[str, Getter]] = {
    "x-mosn-method": _method,
    "x-mosn-path": _path,
    "x-mosn-querystring": _query,
    "x-mosn-host": _host,
    "x-mosn-scheme": _scheme,
    "authority": _host,
    "protocol": _protocol,
}

# These are prefixed with the name of a protocol, and have a value for that one only.
_OF_PROTOCOL: Final[dict[str, Getter]] = {
    "request_method": _method,
    "request_path": _path,
    "request_path_original": _original_path,
    "request_arg": _query,
    "request_uri": _uri,
    "request_scheme": _scheme,
}

_PREFIXES: Final[dict[str, Callable[[str], Getter]]] = {
    "request_header_": _header,
    "request_arg_": _argument,
    "cookie_": _cookie,
}

_PROTOCOLS: Final = ("Http1", "Http2")


def _prefixed(name: str, prefix: str) -> Getter | None:
    if not name.startswith(prefix) or name == prefix:
        return None
    return _PREFIXES[prefix](name[len(prefix) :])


def _guarded(protocol: str, getter: Getter) -> Getter:
    def get(facts: RouteInput) -> str | None:
        return getter(facts) if facts.protocol == protocol else None

    return get


def find_variable(name: str, late: bool = False) -> Getter | None:
    """
    Return the getter of a variable.

    @param late: whether it is for a change to headers, rather than for a rule.
    @return: L{None} if there is no such variable, or not yet.
    """
    getter = _COMMON.get(name) or _prefixed(name, "request_header_")
    if getter is not None:
        return getter
    if name in EXCHANGE_VARIABLES or (
        late and (name in LATE_VARIABLES or (name.startswith(RESPONSE_HEADER) and name != RESPONSE_HEADER))
    ):
        return _asked(name)
    for protocol in _PROTOCOLS:
        rest = name.removeprefix(f"{protocol}_")
        if rest != name:
            getter = _OF_PROTOCOL.get(rest)
            for prefix in _PREFIXES:
                getter = getter or _prefixed(rest, prefix)
            return None if getter is None else _guarded(protocol, getter)
    return None
