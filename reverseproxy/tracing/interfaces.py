"""The interfaces between requests and tracing, which need no library for tracing."""

from __future__ import annotations

__all__ = ["IRequestTrace", "ITracing"]

from collections.abc import Mapping
from typing import Protocol

from reverseproxy.tracing.context import Lookup

Attributes = Mapping[str, str | int | float | bool]


class IRequestTrace(Protocol):
    """
    The spans of one request in this process.

    Times are those of the reactor's clock, in seconds.

    @ivar trace_id: the id of the trace, as 32 hexadecimal digits.
    """

    trace_id: str

    def waited(self, since: float, now: float) -> None:
        """Record that the request has waited for a host."""

    def dialled(self, since: float, now: float) -> None:
        """Record that a connection to a host was established for the request, or failed."""

    def attempt(self, now: float, tunnel: bool, attributes: Attributes) -> list[tuple[bytes, bytes]]:
        """
        Begin the span of an attempt to send the request to a host.

        @param tunnel: whether the host is an agent's connection.
        @return: the header fields that replace all fields about traces in the request to
            the host.
        """

    def answered(self, status: int) -> None:
        """Record the status of the host's response."""

    def attempt_over(self, now: float) -> None:
        """End the span of the attempt, if there is one."""

    def end(self, now: float, name: str, error: str, attributes: Attributes) -> None:
        """
        End the span of the request; later calls have no effect.

        @param name: the final name of the span.
        @param error: why the request has failed; empty if it has not.
        """


class ITracing(Protocol):
    """Creates the spans of requests, and exports them."""

    def begin(
        self, lookup: Lookup, believed: bool, started: float, now: float, name: str, attributes: Attributes
    ) -> IRequestTrace:
        """
        Begin the span of a request.

        @param lookup: returns a header field by its lower-case name.
        @param believed: whether the client is trusted, so that its trace may be continued.
        @param started: when the request began.
        """

    def start(self) -> None:
        """Begin to export spans."""

    def stop(self) -> None:
        """Export the remaining spans, within a few seconds, and stop.  This blocks: call it in a thread."""
