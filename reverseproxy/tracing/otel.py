"""
Tracing with OpenTelemetry's SDK.

Spans are created while requests are served, and exported in batches by a thread
of the SDK, from a bounded queue: if the receiver is slow or unreachable, spans
are dropped, and requests are not affected.

This module is imported only if the configuration enables tracing, as its
dependencies are an extra: C{pip install 'reverseproxy[tracing]'}.
"""

from __future__ import annotations

__all__ = ["QUEUE", "OtelTracing", "make_exporter"]

import logging
from collections.abc import Callable, Collection
from typing import Any, Final

from opentelemetry.context import Context, get_value, set_value
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, ConsoleSpanExporter, SpanExporter
from opentelemetry.sdk.trace.sampling import (
    Decision,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import (
    NonRecordingSpan,
    Span,
    SpanContext,
    SpanKind,
    Status,
    StatusCode,
    TraceFlags,
    TraceState,
    set_span_in_context,
)
from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger

from reverseproxy.config.models import TracingOptions
from reverseproxy.logs import Throttle
from reverseproxy.tracing.context import Lookup, TraceContext, extract, inject
from reverseproxy.tracing.interfaces import Attributes

log = Logger()

QUEUE: Final = 2048
"""The maximum number of spans that wait to be exported; further ones are dropped."""

BATCH: Final = 512
"""The maximum number of spans of a batch."""

DELAY: Final = 1.0
"""The maximum time in seconds before an incomplete batch is exported."""

PATIENCE: Final = 5.0
"""The timeout of the export of one batch, and of the remaining spans at the end, in seconds."""

COMPLAINTS: Final = 1 / 60
"""The maximum rate of log lines about failed exports, per second."""

_WANTED: Final = "reverseproxy-wanted"
_LOW_64: Final = (1 << 64) - 1


def make_exporter(options: TracingOptions) -> SpanExporter:
    """Return the exporter of spans for a configuration."""
    if options.report_method == "console":
        return ConsoleSpanExporter()
    return OTLPSpanExporter(endpoint=options.url, headers=dict(options.headers), timeout=PATIENCE)


class _Root(Sampler):
    """Samples traces that begin here: as the request's header fields demand, or by C{sample_rate}."""

    def __init__(self, rate: float) -> None:
        self._chance = TraceIdRatioBased(rate)

    def should_sample(
        self, parent_context: Context | None, trace_id: int, name: str, *args: Any, **more: Any
    ) -> SamplingResult:
        """See L{Sampler}."""
        wanted = get_value(_WANTED, parent_context)
        if wanted is None:
            return self._chance.should_sample(parent_context, trace_id, name, *args, **more)
        return SamplingResult(Decision.RECORD_AND_SAMPLE if wanted else Decision.DROP)

    def get_description(self) -> str:
        """See L{Sampler}."""
        return "as the request wants it"


class _Bridge(logging.Handler):
    """Forwards the SDK's warnings to this project's log, at a limited rate."""

    def __init__(self, clock: IReactorTime, call: Callable[..., object], where: str) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle(clock, COMPLAINTS)
        self._call = call
        self._where = where

    def emit(self, record: logging.LogRecord) -> None:
        """Forward a record; see L{logging.Handler}.  The SDK's threads call it."""
        self._call(self._say, record.getMessage())

    def _say(self, reason: str) -> None:
        if self._throttle.allow():
            log.warn(
                "traces can't be sent to {where}: {reason}{suppressed}",
                where=self._where,
                reason=reason,
                suppressed=self._throttle.suppressed,
            )


class OtelTracing:
    """Implement L{ITracing<reverseproxy.tracing.interfaces.ITracing>} with OpenTelemetry."""

    def __init__(
        self,
        options: TracingOptions,
        clock: Any,
        wall: Callable[[], float],
        exporter: Callable[[TracingOptions], SpanExporter] = make_exporter,
    ) -> None:
        """
        @param clock: the reactor.
        @param wall: returns the time in seconds since 1970.
        @param exporter: creates the exporter.
        """
        self._options = options
        self._clock = clock
        self._wall = wall
        self._exporter = exporter
        self._accept = options.accept
        self._formats = options.propagation
        self._bound = int(options.sample_rate * (_LOW_64 + 1))
        resource = Resource.create({**options.config_map, "service.name": options.service_name})
        self._provider = TracerProvider(
            ParentBased(_Root(options.sample_rate)), resource, shutdown_on_exit=False
        )
        self._tracer = self._provider.get_tracer("reverseproxy")
        self._bridge: _Bridge | None = None

    def start(self) -> None:
        """See L{ITracing<reverseproxy.tracing.interfaces.ITracing>}."""
        # Not earlier, as threads do not survive the fork of a process that becomes a daemon.
        options = self._options
        where = "standard output" if options.report_method == "console" else options.url
        self._bridge = _Bridge(self._clock, self._clock.callFromThread, where)
        logger = logging.getLogger("opentelemetry")
        logger.addHandler(self._bridge)
        logger.propagate = False
        self._provider.add_span_processor(
            BatchSpanProcessor(
                self._exporter(options),
                max_queue_size=QUEUE,
                max_export_batch_size=BATCH,
                schedule_delay_millis=DELAY * 1000,
                export_timeout_millis=PATIENCE * 1000,
            )
        )

    def stop(self) -> None:
        """See L{ITracing<reverseproxy.tracing.interfaces.ITracing>}."""
        self._provider.force_flush(int(PATIENCE * 1000))
        self._provider.shutdown()
        bridge, self._bridge = self._bridge, None
        if bridge is not None:
            logging.getLogger("opentelemetry").removeHandler(bridge)

    def begin(
        self, lookup: Lookup, believed: bool, started: float, now: float, name: str, attributes: Attributes
    ) -> OtelRequest:
        """See L{ITracing<reverseproxy.tracing.interfaces.ITracing>}."""
        context = Context()
        formats: Collection[str] = self._formats
        if self._accept == "all" or (believed and self._accept == "trusted"):
            incoming = extract(lookup)
            formats = {*formats, *incoming.formats}
            parent, wanted = incoming.context, incoming.wanted
            if parent is not None:
                context = set_span_in_context(NonRecordingSpan(self._parent(parent)), context)
            elif wanted is not None:
                context = set_value(_WANTED, wanted, context)
        offset = self._wall() - now
        span = self._tracer.start_span(
            name,
            context,
            SpanKind.SERVER,
            attributes,
            start_time=_nanoseconds(started + offset),
        )
        return OtelRequest(self._tracer, span, formats, offset)

    def _parent(self, context: TraceContext) -> SpanContext:
        sampled = context.sampled
        if sampled is None:
            sampled = (context.trace_id & _LOW_64) < self._bound
        return SpanContext(
            context.trace_id,
            context.span_id,
            True,
            TraceFlags(TraceFlags.SAMPLED if sampled else TraceFlags.DEFAULT),
            TraceState.from_header([context.state]) if context.state else TraceState(),
        )


def _nanoseconds(seconds: float) -> int:
    return int(seconds * 1_000_000_000)


class OtelRequest:
    """Implement L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>} with OpenTelemetry."""

    __slots__ = ("_attempt", "_attempts", "_context", "_formats", "_offset", "_span", "_tracer", "trace_id")

    def __init__(self, tracer: Any, span: Span, formats: Collection[str], offset: float) -> None:
        """
        @param formats: the formats of the header fields for hosts.
        @param offset: the difference between the time since 1970 and the reactor's clock, in seconds.
        """
        self._tracer = tracer
        self._span = span
        self._formats = formats
        self._offset = offset
        self._context = set_span_in_context(span, Context())
        self._attempt: Span | None = None
        self._attempts = 0
        self.trace_id = f"{span.get_span_context().trace_id:032x}"

    def _past(self, name: str, since: float, now: float) -> None:
        """Add a span about a period that is over."""
        if self._span.is_recording():
            begun = _nanoseconds(since + self._offset)
            span = self._tracer.start_span(name, self._context, SpanKind.INTERNAL, start_time=begun)
            span.end(_nanoseconds(now + self._offset))

    def waited(self, since: float, now: float) -> None:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        self._past("wait for a host", since, now)

    def dialled(self, since: float, now: float) -> None:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        self._past("connect", since, now)

    def attempt(self, now: float, tunnel: bool, attributes: Attributes) -> list[tuple[bytes, bytes]]:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        self.attempt_over(now)
        if self._attempts:
            attributes = {**attributes, "http.request.resend_count": self._attempts}
        self._attempts += 1
        span = self._attempt = self._tracer.start_span(
            "tunnel" if tunnel else "upstream",
            self._context,
            SpanKind.CLIENT,
            attributes,
            start_time=_nanoseconds(now + self._offset),
        )
        found = span.get_span_context()
        state = found.trace_state.to_header()
        context = TraceContext(found.trace_id, found.span_id, found.trace_flags.sampled, state)
        return inject(context, self._formats)

    def answered(self, status: int) -> None:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        span = self._attempt
        if span is not None and span.is_recording():
            span.set_attribute("http.response.status_code", status)
            if status >= 400:
                span.set_status(Status(StatusCode.ERROR))

    def attempt_over(self, now: float) -> None:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        span, self._attempt = self._attempt, None
        if span is not None:
            span.end(_nanoseconds(now + self._offset))

    def end(self, now: float, name: str, error: str, attributes: Attributes) -> None:
        """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""
        self.attempt_over(now)
        span = self._span
        if span.is_recording():
            span.update_name(name)
            span.set_attributes(attributes)
            if error:
                span.set_status(Status(StatusCode.ERROR, error))
            span.end(_nanoseconds(now + self._offset))
