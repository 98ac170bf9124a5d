"""
Traces by OpenTelemetry's SDK.

Spans are made while requests are served, and sent in batches by a thread of the
SDK, from a queue that drops what is too much: a receiver that is slow, or gone,
costs spans, and no request.

This module is imported only where the configuration enables tracing, as what it
stands on is an extra: C{pip install 'reverseproxy[tracing]'}.
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
"""Spans that wait to be sent, at the most; later ones are dropped."""

BATCH: Final = 512
"""Spans that are sent at once, at the most."""

DELAY: Final = 1.0
"""Seconds that a span waits for others."""

PATIENCE: Final = 5.0
"""Seconds for one batch, and for what is left at the end."""

COMPLAINTS: Final = 1 / 60
"""Lines a second about spans that can't be sent."""

_WANTED: Final = "reverseproxy-wanted"
_LOW_64: Final = (1 << 64) - 1


def make_exporter(options: TracingOptions) -> SpanExporter:
    """Make what sends spans."""
    if options.report_method == "console":
        return ConsoleSpanExporter()
    return OTLPSpanExporter(endpoint=options.url, headers=dict(options.headers), timeout=PATIENCE)


class _Root(Sampler):
    """Decides about traces that begin here: as the request wants it, or by chance."""

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
    """Brings what the SDK has to say into our log, now and then."""

    def __init__(self, clock: IReactorTime, call: Callable[..., object], where: str) -> None:
        super().__init__(logging.WARNING)
        self._throttle = Throttle(clock, COMPLAINTS)
        self._call = call
        self._where = where

    def emit(self, record: logging.LogRecord) -> None:
        """See L{logging.Handler}; this is called in the SDK's threads."""
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
    """See L{ITracing<reverseproxy.tracing.interfaces.ITracing>}."""

    def __init__(
        self,
        options: TracingOptions,
        clock: Any,
        wall: Callable[[], float],
        exporter: Callable[[TracingOptions], SpanExporter] = make_exporter,
    ) -> None:
        """
        @param clock: the reactor: tells the time, and takes calls of other threads.
        @param wall: seconds since 1970.
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
        # Not before: a process that becomes a daemon loses its threads.
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
    """See L{IRequestTrace<reverseproxy.tracing.interfaces.IRequestTrace>}."""

    __slots__ = ("_attempt", "_attempts", "_context", "_formats", "_offset", "_span", "_tracer", "trace_id")

    def __init__(self, tracer: Any, span: Span, formats: Collection[str], offset: float) -> None:
        """
        @param offset: what to add to times of the reactor's clock.
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
        """Make a span of what is over."""
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
