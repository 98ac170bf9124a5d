"""
The access log: one line for each request or session.

The format is MOSN's C{log_format}: text with C{%variables%}, read in
C{mosn.io/mosn}: C{pkg/log/accesslog.go} (how a format is taken apart),
C{pkg/types/accesslog.go} (the default format), C{pkg/proxy/var.go},
C{pkg/stream/http/var.go} and C{pkg/types/variable.go} (the variables).  A
variable without a value, or one that we do not know, gives C{-}, as it does
there; unknown ones are also named in L{AccessLog.warnings}.

=====================================================  =========================
C{start_time}                                          local time, milliseconds
C{duration}                                            of the whole exchange, as
                                                       Go writes durations
C{request_received_duration}                           from the start until the
                                                       request went upstream
C{response_received_duration}                          from the start until the
                                                       response came
C{bytes_received}, C{bytes_sent}                       of bodies or sessions
C{protocol}                                            C{Http1}, C{bolt}, C{tcp}, ...
C{response_code}                                       0 where there is none
C{response_flag}, C{response_flags}                    C{true} if the proxy, not
                                                       the host, made the end
C{downstream_remote_address}                           the client
C{downstream_local_address}                            us, towards the client
C{upstream_host}                                       the chosen host
C{upstream_local_address}                              us, towards the host
C{upstream_cluster}                                    the chosen cluster
C{agent}                                               who has brought the host, as
                                                       proved: C{token:NAME},
                                                       C{certificate:SUBJECT} or
                                                       C{unproved}
C{agent_certificate}                                   the subject of its verified
                                                       certificate
C{agent_policy}                                        the policy that judged its
                                                       credential
C{agent_id}                                            tells agents' processes apart
C{agent_claim}                                         what it calls itself
                                                       (C{host_name}), not proved
C{upstream_transport_failure_reason}                   why the exchange failed
C{connection_id}, C{upstream_connection_id}            numbers of connections
C{worker}                                              the number of the worker
C{listener_name}                                       the listener
C{request_header_NAME}, C{Http1_request_header_NAME}   a request header
C{response_header_NAME}                                a response header
C{x-mosn-method}, C{Http1_request_method}, C{method}   the method
C{x-mosn-path}, C{Http1_request_path}, C{path}         the path
C{x-mosn-querystring}, C{Http1_request_arg}, C{query}  what follows the C{?}
C{Http1_request_uri}, C{uri}                           path and query
C{x-mosn-host}, C{authority}, C{host}                  the Host header
C{x-mosn-scheme}, C{Http1_request_scheme}, C{scheme}   C{http} or C{https}
C{x-mosn-rpc-service}, C{service}                      what an RPC request is for
C{x-mosn-rpc-method}, C{rpc_method}                    which operation it calls
=====================================================  =========================

The names without a prefix are ours.  The word C{json} as the whole format, ours
as well, gives one JSON object for each record.

Clients choose much of what is logged about them: in text, everything that is
not printable, quotes and backslashes become backslash sequences, so that a
record is always exactly one line and a quoted value ends at its quote.
"""

from __future__ import annotations

__all__ = ["DEFAULT_FORMAT", "MAX_PENDING", "AccessLog", "AccessRecord", "Formatter"]

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.interfaces import IDelayedCall, IReactorTime
from twisted.logger import Logger

from reverseproxy.clock import wall_time
from reverseproxy.config.durations import format_duration
from reverseproxy.errors import ConfigError, Problem
from reverseproxy.identity import AgentIdentity
from reverseproxy.logs import LogFile, Throttle, escape, format_time

log = Logger()

DEFAULT_FORMAT: Final = (
    "%start_time% %trace_id%  %connection_id% %upstream_connection_id%"
    " %request_received_duration% %response_received_duration% %bytes_sent%"
    " %bytes_received% %protocol% %response_code% %duration% %response_flag% %response_code%"
    " %upstream_local_address% %downstream_local_address% %downstream_remote_address% %upstream_host%"
)
"""What MOSN writes when C{log_format} is empty; it has no trace id here."""

MAX_PENDING: Final = 1 << 20
"""Characters of lines that may wait for the next write; later lines are lost."""

MAX_VALUE: Final = 4096
"""Characters of one value; longer ones are cut."""

RETRY_DELAY: Final = 0.1
"""Seconds until a pipe that was full is tried again."""

_NONE: Final = "-"

Lookup = Callable[[str], str | None]


@dataclass(slots=True)
class AccessRecord:
    """
    What is known at the end of a request or session.

    Text that came as bytes is decoded as UTF-8 with C{surrogateescape}.  Empty
    text stands for "not known".

    @ivar protocol: C{"Http1"}, C{"bolt"}, C{"tcp"}, ...
    @ivar start: when it began, in seconds since the epoch; 0.0 for C{duration}
        before it is written.
    @ivar duration: seconds from then to the end.
    @ivar method: the request method.
    @ivar path: the path as the client sent it, without the query.
    @ivar query: what follows the C{?}.
    @ivar host: the Host header.
    @ivar scheme: C{"http"} or C{"https"}.
    @ivar service: what an RPC request is for.
    @ivar rpc_method: which operation of it the request calls.
    @ivar status: the status that was sent, in RPC in terms of HTTP; 0 for none.
    @ivar bytes_received: body or session bytes from the client.
    @ivar bytes_sent: body or session bytes to the client.
    @ivar remote: the client's address.
    @ivar local: our address towards the client.
    @ivar upstream_host: the host: its name if it has one, else its address.
    @ivar upstream_local: our address towards the host.
    @ivar cluster: the cluster of the route.
    @ivar agent: who has brought the host; L{None} if no agent has.
    @ivar flag: why the proxy itself ended or answered it, in a few words; empty
        when the host answered.
    @ivar request_received: seconds from the start until the request went
        upstream; L{None} if it did not.
    @ivar response_received: seconds from the start until the response began;
        L{None} if it did not.
    @ivar connection_id: the number of the client's connection; 0 for none.
    @ivar upstream_connection_id: the number of the connection to the host.
    @ivar request_headers: looks a request header up by its lower-case name.
    @ivar response_headers: the same for the response.
    """

    protocol: str
    start: float = 0.0
    duration: float = 0.0
    method: str = ""
    path: str = ""
    query: str = ""
    host: str = ""
    scheme: str = ""
    service: str = ""
    rpc_method: str = ""
    status: int = 0
    bytes_received: int = 0
    bytes_sent: int = 0
    remote: str = ""
    local: str = ""
    upstream_host: str = ""
    upstream_local: str = ""
    cluster: str = ""
    agent: AgentIdentity | None = None
    flag: str = ""
    request_received: float | None = None
    response_received: float | None = None
    connection_id: int = 0
    upstream_connection_id: int = 0
    request_headers: Lookup | None = None
    response_headers: Lookup | None = None


Formatter = Callable[[AccessRecord], str]
_Getter = Callable[[AccessRecord], str | int]


def _quoted(text: str) -> str:
    """Make a value safe for a text line; C{-} if it is empty."""
    if not text:
        return _NONE
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
    """Formats start times; the calendar part is made once a second."""

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
    return _quoted(f"{record.path}?{record.query}" if record.query else record.path)


def _of_agent(get: Callable[[AgentIdentity], str]) -> _Getter:
    """Say something of the agent that has brought the host."""

    def getter(record: AccessRecord) -> str:
        return _NONE if record.agent is None else _quoted(get(record.agent))

    return getter


_VARIABLES: Final[dict[str, _Getter]] = {
    "duration": lambda record: _duration(record.duration),
    "request_received_duration": lambda record: _duration(record.request_received),
    "response_received_duration": lambda record: _duration(record.response_received),
    "bytes_received": lambda record: record.bytes_received,
    "bytes_sent": lambda record: record.bytes_sent,
    "protocol": lambda record: _quoted(record.protocol),
    "response_code": lambda record: record.status,
    "response_flag": lambda record: "true" if record.flag else "false",
    "response_flags": lambda record: "true" if record.flag else "false",
    "downstream_remote_address": lambda record: _quoted(record.remote),
    "downstream_local_address": lambda record: _quoted(record.local),
    "upstream_host": lambda record: _quoted(record.upstream_host),
    "upstream_local_address": lambda record: _quoted(record.upstream_local),
    "upstream_cluster": lambda record: _quoted(record.cluster),
    "agent": _of_agent(lambda agent: agent.principal),
    "agent_certificate": _of_agent(lambda agent: "" if agent.certificate is None else str(agent.certificate)),
    "agent_policy": _of_agent(lambda agent: agent.policy),
    "agent_id": _of_agent(lambda agent: agent.agent_id),
    "agent_claim": _of_agent(lambda agent: agent.claim),
    "upstream_transport_failure_reason": lambda record: _quoted(record.flag),
    "connection_id": lambda record: record.connection_id or _NONE,
    "upstream_connection_id": lambda record: record.upstream_connection_id or _NONE,
    # MOSN knows it; we do no tracing.
    "trace_id": lambda record: _NONE,
    "method": lambda record: _quoted(record.method),
    "path": lambda record: _quoted(record.path),
    "query": lambda record: _quoted(record.query),
    "uri": _uri,
    "host": lambda record: _quoted(record.host),
    "scheme": lambda record: _quoted(record.scheme),
    "service": lambda record: _quoted(record.service),
    "rpc_method": lambda record: _quoted(record.rpc_method),
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
}


def _request_header(name: str) -> _Getter:
    def get(record: AccessRecord) -> str:
        lookup = record.request_headers
        return _NONE if lookup is None else _quoted(lookup(name) or "")

    return get


def _response_header(name: str) -> _Getter:
    def get(record: AccessRecord) -> str:
        lookup = record.response_headers
        return _NONE if lookup is None else _quoted(lookup(name) or "")

    return get


_PREFIXES: Final[dict[str, Callable[[str], _Getter]]] = {
    "request_header_": _request_header,
    "Http1_request_header_": _request_header,
    "response_header_": _response_header,
}


def _getter(variable: str) -> _Getter | None:
    """The function for a variable; L{None} if it is not known."""
    if variable == "start_time":
        return _LocalTime()
    known = _VARIABLES.get(_ALIASES.get(variable, variable))
    if known is not None:
        return known
    for prefix, make in _PREFIXES.items():
        if variable.startswith(prefix) and len(variable) > len(prefix):
            return make(variable[len(prefix) :].lower())
    return None


def _split_format(fmt: str) -> list[str]:
    """
    Take a format apart: text and variable names in turn, text first.

    A percent sign behind a backslash is text, and so is the backslash, as in
    MOSN.

    @raise ValueError: for an empty or unfinished variable.
    """
    parts = [""]
    for i, piece in enumerate(fmt.split("%")):
        if not i:
            parts[0] = piece
        elif parts[-1].endswith("\\"):
            parts[-1] += "%" + piece
        else:
            parts.append(piece)
    if len(parts) % 2 == 0:
        raise ValueError(f'the variable "%{parts[-1][:40]}" has no "%" at its end')
    if not all(parts[1::2]):
        raise ValueError('"%%" is a variable without a name; for a percent sign write "\\%"')
    return parts


def _text_formatter(fmt: str, listener: str, worker: int = 0) -> tuple[Formatter, list[str]]:
    """
    Compile a format.

    @return: the function that makes a line, and the unknown variables.
    @raise ValueError: if it is not a format.
    """
    template = ""
    getters: list[_Getter] = []
    unknown: list[str] = []
    for i, part in enumerate(_split_format(fmt.rstrip("\r\n"))):
        if i % 2:
            text = _NONE
            if part == "listener_name":
                text = _quoted(listener)
            elif part == "worker":
                text = str(worker or _NONE)
            elif (getter := _getter(part)) is not None:
                getters.append(getter)
                template += "%s"
                continue
            else:
                unknown.append(part)
        else:
            # A format can't make more than one line of a record either.
            text = "\t".join(escape(piece) for piece in part.split("\t"))
        template += text.replace("%", "%%")
    template += "\n"

    def render(record: AccessRecord) -> str:
        return template % tuple([getter(record) for getter in getters])

    return render, unknown


def _clean(text: str) -> str:
    """Make text fit for any JSON reader, which takes no lone surrogates."""
    if len(text) > MAX_VALUE:
        text = text[:MAX_VALUE] + "..."
    return text if text.isprintable() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_formatter(listener: str, worker: int = 0) -> Formatter:
    """Make the function that makes a JSON line."""

    def render(record: AccessRecord) -> str:
        headers, agent = record.request_headers, record.agent
        values: dict[str, Any] = {
            "time": format_time(record.start),
            "listener": listener,
            "protocol": record.protocol,
            "remote": record.remote,
            "local": record.local,
            "method": record.method,
            "scheme": record.scheme,
            "service": record.service,
            "rpc_method": record.rpc_method,
            "host": record.host,
            "path": record.path,
            "query": record.query,
            "status": record.status,
            "duration": round(record.duration, 6),
            "request_received": record.request_received,
            "response_received": record.response_received,
            "bytes_received": record.bytes_received,
            "bytes_sent": record.bytes_sent,
            "cluster": record.cluster,
            "upstream_host": record.upstream_host,
            "agent": None if agent is None else agent.principal,
            "agent_id": None if agent is None else agent.agent_id,
            "agent_claim": None if agent is None else agent.claim,
            "upstream_local": record.upstream_local,
            "flag": record.flag,
            "connection_id": record.connection_id or None,
            "upstream_connection_id": record.upstream_connection_id or None,
            "worker": worker or None,
        }
        if headers is not None:
            values["user_agent"] = headers("user-agent")
        # What is not known is left out; a status or a byte count of 0 is known.
        known = {
            name: _clean(value) if isinstance(value, str) else value
            for name, value in values.items()
            if value not in ("", None)
        }
        return json.dumps(known) + "\n"

    return render


class AccessLog:
    """
    One access log of one listener.

    Lines are collected and written once per turn of the reactor.  A write never
    raises: what can't be written, or does not fit in the bounded buffer, is
    counted in L{lost} and reported in the log now and then.

    @ivar path: the file, C{"stdout"} or C{"stderr"}.
    @ivar warnings: variables that are not known; the caller logs them.
    @ivar lost: lines that were not written since the start.
    """

    def __init__(
        self,
        path: str,
        fmt: str,
        clock: IReactorTime,
        listener: str = "",
        dry: bool = False,
        worker: int = 0,
        wall: Callable[[], float] = wall_time,
    ) -> None:
        """
        Open the log.

        @param path: C{"stdout"}, C{"stderr"}, or a file; empty for
            C{<listener>_access.log} in the current directory.
        @param fmt: the format; empty for L{DEFAULT_FORMAT}; C{"json"} for JSON.
        @param clock: the reactor: schedules writes.
        @param listener: the listener's name.
        @param dry: only look whether it could be opened.
        @param worker: the number of this worker, from 1; 0 for a process that is none.
        @param wall: seconds since 1970: tells the time of records that do not.
        @raise ConfigError: if the file can't be opened or the format is none.
        """
        self.path = path or f"{listener.replace('/', '_')}_access.log"
        self.warnings: tuple[Problem, ...] = ()
        self.lost = 0
        if fmt == "json":
            self._format = _json_formatter(listener, worker)
        else:
            try:
                self._format, unknown = _text_formatter(fmt or DEFAULT_FORMAT, listener, worker)
            except ValueError as error:
                raise ConfigError(Problem("", "log_format", f"{fmt!r}: {error}")) from None
            self.warnings = tuple(
                Problem("", "log_format", f'the variable "%{name}%" is not known and gives "-"')
                for name in unknown
            )
        self._clock = clock
        self._wall = wall
        self._file = LogFile(self.path, "log_path", dry)
        self._lines: list[str] = []
        self._size = 0
        self._call: IDelayedCall | None = None
        self._throttle = Throttle(clock, 1 / 60)
        self._reported = 0
        self._closed = False

    def write(self, record: AccessRecord) -> None:
        """Log one request or session; it is written in the next turn of the reactor."""
        if self._closed or self._size >= MAX_PENDING:
            self.lost += 1
            return
        if not record.start:
            record.start = self._wall() - record.duration
        line = self._format(record)
        self._lines.append(line)
        self._size += len(line)
        if self._call is None:
            self._call = self._clock.callLater(0, self._run)

    def _run(self) -> None:
        """The scheduled write."""
        self._call = None
        self.flush()
        if self._file.backlog:
            self._call = self._clock.callLater(RETRY_DELAY, self._run)

    def flush(self) -> None:
        """Write now what is pending."""
        data = "".join(self._lines).encode("utf-8", "backslashreplace")
        self._lines.clear()
        self._size = 0
        self._file.write(data)
        self.lost, self._file.lost = self.lost + self._file.lost, 0
        if self.lost > self._reported and self._throttle.allow():
            log.error(
                "{lost} lines of the access log {path} could not be written: {reason}",
                lost=self.lost - self._reported,
                path=self.path,
                reason=self._file.reason or "too many at once",
            )
            self._reported = self.lost

    def reopen(self) -> None:
        """
        Write what is pending, then open the path anew, for log rotation.

        @raise ConfigError: if it can't be opened; the old file stays in use.
        """
        if not self._closed:
            self.flush()
            self._file.reopen()

    def close(self) -> None:
        """Write what is pending and close the file; later records are lost."""
        if self._closed:
            return
        self._closed = True
        if self._call is not None:
            self._call.cancel()
            self._call = None
        self.flush()
        self._file.close()
