"""Access logs and traces of requests that other servers forward to this one."""

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
    """Tracing for requests from one server, whose id every span gets as an attribute."""

    tracing: ITracing
    server: str

    def begin(
        self, lookup: Lookup, believed: bool, started: float, now: float, name: str, attributes: Attributes
    ) -> IRequestTrace:
        """See L{ITracing.begin}."""
        named = {**attributes, "reverseproxy.forwarded_by": self.server}
        return self.tracing.begin(lookup, believed, started, now, name, named)

    def start(self) -> None:
        """Do nothing: the owner of the wrapped tracing starts it; see L{ITracing.start}."""

    def stop(self) -> None:
        """Do nothing: the owner of the wrapped tracing stops it; see L{ITracing.stop}."""


@dataclass(frozen=True, slots=True)
class RequestObservers:
    """
    What observes forwarded requests and sessions.

    @ivar access_log: called with the record of each request or session when it ends; L{None} if nothing
        is logged.
    @ivar tracing: makes spans of requests; L{None} if requests are not traced.
    """

    access_log: AccessLog | None = None
    tracing: ITracing | None = None

    @property
    def wanted(self) -> bool:
        """Whether anything observes requests, so that they have to be parsed rather than relayed as bytes."""
        return self.access_log is not None or self.tracing is not None

    def log_of(self, server: str) -> AccessLog | None:
        """Return the access log for requests that a server forwards: each record gets the server's id."""
        return None if self.access_log is None else partial(_say_from, self.access_log, server)

    def tracing_of(self, server: str) -> ITracing | None:
        """Return the tracing for requests that a server forwards: each span gets the server's id."""
        return None if self.tracing is None else _TracingOf(self.tracing, server)


def _say_from(access_log: AccessLog, server: str, record: AccessRecord) -> None:
    record.forwarded_by = server
    lookup = record.request.headers
    # One stream carries requests of many clients: the forwarding server names each in this field.
    client = None if lookup is None else lookup("x-forwarded-for")
    if client:
        record.client = Client(client.rpartition(",")[2].strip(), record.client.local)
    access_log(record)
