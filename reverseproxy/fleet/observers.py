"""Access logs and traces of what other servers forward."""

from __future__ import annotations

__all__ = ["RequestObservers"]

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from reverseproxy.proxy.access import AccessRecord
from reverseproxy.proxy.access.record import Client
from reverseproxy.tracing.context import Lookup
from reverseproxy.tracing.interfaces import Attributes, IRequestTrace, ITracing

AccessLog = Callable[[AccessRecord], None]


@dataclass(frozen=True, slots=True)
class _TracingOf:
    """Traces of what one server forwards, which their spans name."""

    tracing: ITracing
    server: str

    def begin(
        self, lookup: Lookup, believed: bool, started: float, now: float, name: str, attributes: Attributes
    ) -> IRequestTrace:
        """See L{ITracing.begin}."""
        named = {**attributes, "reverseproxy.forwarded_by": self.server}
        return self.tracing.begin(lookup, believed, started, now, name, named)

    def start(self) -> None:
        """See L{ITracing.start}: who has made it does that."""

    def stop(self) -> None:
        """See L{ITracing.stop}: who has made it does that."""


@dataclass(frozen=True, slots=True)
class RequestObservers:
    """
    Who wants to know of what is forwarded.

    @ivar access_log: called at the end of each request or session; L{None} for nobody.
    @ivar tracing: makes spans of requests; L{None} if they are not traced.
    """

    access_log: AccessLog | None = None
    tracing: ITracing | None = None

    @property
    def wanted(self) -> bool:
        """Whether requests have to be told from each other, rather than passed on as bytes."""
        return self.access_log is not None or self.tracing is not None

    def log_of(self, server: str) -> AccessLog | None:
        """What writes lines about requests that a server has forwarded, with its name."""
        return None if self.access_log is None else partial(_say_from, self.access_log, server)

    def tracing_of(self, server: str) -> ITracing | None:
        """What makes spans of them, with its name."""
        return None if self.tracing is None else _TracingOf(self.tracing, server)


def _say_from(access_log: AccessLog, server: str, record: AccessRecord) -> None:
    record.forwarded_by = server
    lookup = record.asked.headers
    # One stream carries requests of many clients: the server that forwards says whose each is.
    client = None if lookup is None else lookup("x-forwarded-for")
    if client:
        record.client = Client(client.rpartition(",")[2].strip(), record.client.local)
    access_log(record)
