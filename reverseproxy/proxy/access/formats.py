"""
Compile a C{log_format} to a function that formats records.

The format is MOSN's: text with C{%variables%}, parsed as in
C{pkg/log/accesslog.go} of C{mosn.io/mosn}.  A few words are predefined formats of
this project: L{WORDS}, and C{json} for one JSON object for each record.
"""

from __future__ import annotations

__all__ = ["DEFAULT_FORMAT", "MOSN_FORMAT", "TEXT_FORMAT", "WORDS", "Formatter", "formatter_of"]

import json
from collections.abc import Callable
from typing import Any, Final

from reverseproxy.logs import escape, format_time
from reverseproxy.proxy.access.record import AccessRecord
from reverseproxy.proxy.access.variables import MAX_VALUE, NONE, Getter, getter_of, quoted
from reverseproxy.proxy.flags import short_names
from reverseproxy.tracing.context import trace_id_of

MOSN_FORMAT: Final = (
    "%start_time% %trace_id%  %connection_id% %upstream_connection_id%"
    " %request_received_duration% %response_received_duration% %bytes_sent%"
    " %bytes_received% %protocol% %response_code% %duration% %response_flag% %response_code%"
    " %upstream_local_address% %downstream_local_address% %downstream_remote_address% %upstream_host%"
)
"""What MOSN writes when C{log_format} is empty (C{pkg/types/accesslog.go})."""

DEFAULT_FORMAT: Final = f'{MOSN_FORMAT} "%request%" %flags% %agent% %route_name%'
"""
What we write then: MOSN's line, whose readers go by places in it, and behind it what it lacks.
"""

TEXT_FORMAT: Final = (
    '%time% %downstream_remote_address% "%request%" %response_code% %flags% %duration%'
    " %bytes_received% %bytes_sent% %agent% %upstream_host% %upstream_cluster% %route_name% %trace_id%"
)
"""What is written for people: one thing once."""

WORDS: Final = {"": DEFAULT_FORMAT, "mosn": MOSN_FORMAT, "text": TEXT_FORMAT}
"""Words that are formats by themselves."""

Formatter = Callable[[AccessRecord], str]


def _split_format(fmt: str) -> list[str]:
    """
    Split a format into text and variable names in turn, text first.

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
    getters: list[Getter] = []
    unknown: list[str] = []
    for i, part in enumerate(_split_format(fmt.rstrip("\r\n"))):
        if i % 2:
            text = NONE
            if part == "listener_name":
                text = quoted(listener)
            elif part == "worker":
                text = str(worker or NONE)
            elif (getter := getter_of(part)) is not None:
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
    """Replace lone surrogates, which no JSON reader takes."""
    if len(text) > MAX_VALUE:
        text = text[:MAX_VALUE] + "..."
    return text if text.isprintable() else text.encode("utf-8", "backslashreplace").decode("utf-8")


def _json_formatter(listener: str, worker: int = 0) -> Formatter:
    """Return a function that formats records as JSON."""

    def render(record: AccessRecord) -> str:
        request, upstream, times, rule, client = (
            record.request,
            record.upstream,
            record.times,
            record.rule,
            record.client,
        )
        headers, agent = request.headers, upstream.agent
        values: dict[str, Any] = {
            "time": format_time(record.start),
            "listener": listener,
            "protocol": record.protocol,
            "remote": client.remote,
            "local": client.local,
            "method": request.method,
            "scheme": request.scheme,
            "service": request.service,
            "rpc_method": request.operation,
            "host": request.host,
            "path": request.path,
            "query": request.query,
            "status": record.status,
            "duration": round(record.duration, 6),
            "request_received": times.sent,
            "response_received": times.answered,
            "bytes_received": record.bytes_received,
            "bytes_sent": record.bytes_sent,
            "cluster": upstream.cluster,
            "upstream_host": upstream.host,
            "upstream_server": upstream.server,
            "forwarded_by": record.forwarded_by,
            "agent": None if agent is None else agent.principal,
            "agent_id": None if agent is None else agent.agent_id,
            "agent_claim": None if agent is None else agent.claim,
            "upstream_local": upstream.local,
            "flag": record.flag,
            "flags": short_names(record.flags),
            "route": rule.route,
            "virtual_host": rule.virtual_host,
            "attempts": upstream.attempts or None,
            "host_wait": round(times.waited, 6) or None,
            "connect": round(times.dialled, 6) or None,
            "trace_id": record.trace_id or trace_id_of(headers),
            "connection_id": record.client.number or None,
            "upstream_connection_id": record.upstream.connection or None,
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


def formatter_of(fmt: str, listener: str, worker: int = 0) -> tuple[Formatter, list[str]]:
    """
    Compile a format.

    @param fmt: the format, or one of the words.
    @return: the function that makes a line, and the variables that are not known.
    @raise ValueError: if it is not a format.
    """
    if fmt == "json":
        return _json_formatter(listener, worker), []
    return _text_formatter(WORDS.get(fmt, fmt), listener, worker)
