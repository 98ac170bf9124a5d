"""
Trace contexts in header fields; pure.

There are three formats: C{traceparent} and C{tracestate} (U{W3C Trace
Context<https://www.w3.org/TR/trace-context/>}), the single field C{b3}, and the
fields C{X-B3-...} (U{both of Zipkin's B3
<https://github.com/openzipkin/b3-propagation>}).  Malformed fields are ignored,
so that a new trace begins.
"""

from __future__ import annotations

__all__ = ["FORMATS", "TRACE_FIELDS", "PropagatedContext", "TraceContext", "extract", "inject", "trace_id_of"]

import re
from collections.abc import Callable, Collection
from typing import Final, NamedTuple

FORMATS: Final = ("w3c", "b3", "b3multi")
"""The formats, in the order of precedence."""

TRACE_FIELDS: Final = frozenset(
    {
        b"traceparent",
        b"tracestate",
        b"b3",
        b"x-b3-traceid",
        b"x-b3-spanid",
        b"x-b3-parentspanid",
        b"x-b3-sampled",
        b"x-b3-flags",
    }
)
"""The header fields of all formats, in lower case."""

MAX_STATE: Final = 512
"""The maximum length of C{tracestate}; W3C requires no more (3.3.1.5)."""

MAX_MEMBERS: Final = 32
"""The maximum number of entries of C{tracestate} (3.3.1.1)."""

_traceparent = re.compile(
    r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII
).fullmatch
_b3 = re.compile(
    r"([0-9a-f]{32}|[0-9a-f]{16})-([0-9a-f]{16})(?:-([01d])(?:-[0-9a-f]{16})?)?", re.ASCII
).fullmatch
_trace_id = re.compile(r"[0-9a-f]{32}|[0-9a-f]{16}", re.ASCII).fullmatch
_span_id = re.compile(r"[0-9a-f]{16}", re.ASCII).fullmatch
_member = re.compile(
    r"[a-z0-9][a-z0-9_\-*/@]{0,255}=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{1,256}", re.ASCII
).fullmatch

_DECISIONS: Final = {"0": False, "1": True, "d": True, "true": True, "false": False}

Lookup = Callable[[str], str | None]


class TraceContext(NamedTuple):
    """
    A span, as far as it is propagated to spans that follow it.

    @ivar trace_id: of 128 bits, not 0.
    @ivar span_id: of 64 bits, not 0.
    @ivar sampled: whether the trace is recorded; L{None} if the next hop may decide.
    @ivar state: the C{tracestate}.
    """

    trace_id: int
    span_id: int
    sampled: bool | None
    state: str = ""


class PropagatedContext(NamedTuple):
    """
    What the header fields of a request say about its trace.

    @ivar context: the span that sent it; L{None} if it belongs to no trace.
    @ivar wanted: without a trace, whether one is to be recorded; L{None} if the fields do not say.
    @ivar formats: the formats of these fields.
    """

    context: TraceContext | None = None
    wanted: bool | None = None
    formats: tuple[str, ...] = ()


def _w3c(lookup: Lookup) -> TraceContext | None:
    text = lookup("traceparent")
    match = None if text is None else _traceparent(text.strip(" \t"))
    if match is None:
        return None
    version, trace_id, span_id, flags, rest = match.groups()
    if version == "ff" or (version == "00" and rest):
        return None
    numbers = int(trace_id, 16), int(span_id, 16)
    if not all(numbers):
        return None
    return TraceContext(*numbers, bool(int(flags, 16) & 1), _state(lookup("tracestate")))


def _state(text: str | None) -> str:
    """Parse C{tracestate}; all of it is dropped if an entry is malformed, as W3C requires (4.3)."""
    if text is None:
        return ""
    members = [member for part in text.split(",") if (member := part.strip(" \t"))]
    if len(members) > MAX_MEMBERS or not all(map(_member, members)):
        return ""
    while len(state := ",".join(members)) > MAX_STATE:
        members.pop()
    return state


def _single(text: str) -> TraceContext | None:
    match = _b3(text)
    if match is None:
        return None
    trace_id, span_id, decision = match.groups()
    return _context(trace_id, span_id, _DECISIONS.get(decision))


def _context(trace_id: str, span_id: str, sampled: bool | None) -> TraceContext | None:
    numbers = int(trace_id, 16), int(span_id, 16)
    return TraceContext(*numbers, sampled) if all(numbers) else None


def _multi(lookup: Lookup) -> PropagatedContext:
    trace_id, span_id = lookup("x-b3-traceid"), lookup("x-b3-spanid")
    sampled = _DECISIONS.get((lookup("x-b3-sampled") or "").lower())
    if lookup("x-b3-flags") == "1":  # debug
        sampled = True
    context = None
    if trace_id is not None and span_id is not None:
        trace_id, span_id = trace_id.lower(), span_id.lower()
        if _trace_id(trace_id) and _span_id(span_id):
            context = _context(trace_id, span_id, sampled)
    found = context is not None or sampled is not None
    return PropagatedContext(context, sampled, ("b3multi",) if found else ())


def extract(lookup: Lookup) -> PropagatedContext:
    """
    Parse the trace context of a request.

    C{traceparent} precedes C{b3}, and that precedes C{X-B3-...}.

    @param lookup: returns a header field by its lower-case name; several fields of one name are
        joined with commas, so that two fields C{traceparent} are malformed.
    """
    context = _w3c(lookup)
    wanted: bool | None = None
    formats = [] if context is None else ["w3c"]
    text = lookup("b3")
    if text is not None:
        text = text.strip(" \t").lower()
        single = _single(text)
        decision = _DECISIONS.get(text) if len(text) == 1 else None
        if single is not None or decision is not None:
            formats.append("b3")
        context = context or single
        wanted = decision
    multi = _multi(lookup)
    if wanted is None:
        wanted = multi.wanted
    return PropagatedContext(context or multi.context, wanted, (*formats, *multi.formats))


def inject(context: TraceContext, formats: Collection[str]) -> list[tuple[bytes, bytes]]:
    """
    Return the header fields of a trace context.

    @param context: the parent of the receiver's span.
    @param formats: some of L{FORMATS}.
    """
    fields: list[tuple[bytes, bytes]] = []
    trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
    sampled = bool(context.sampled)
    if "w3c" in formats:
        fields.append((b"traceparent", f"00-{trace_id}-{span_id}-{sampled:02x}".encode("ascii")))
        if context.state:
            fields.append((b"tracestate", context.state.encode("ascii", "replace")))
    if "b3" in formats:
        fields.append((b"b3", f"{trace_id}-{span_id}-{sampled:d}".encode("ascii")))
    if "b3multi" in formats:
        fields += [
            (b"x-b3-traceid", trace_id.encode("ascii")),
            (b"x-b3-spanid", span_id.encode("ascii")),
            (b"x-b3-sampled", b"%d" % sampled),
        ]
    return fields


def trace_id_of(lookup: Lookup | None) -> str:
    """Return the id of the trace in a request's header fields, as 32 hexadecimal digits; empty if none."""
    context = None if lookup is None else extract(lookup).context
    return "" if context is None else f"{context.trace_id:032x}"
