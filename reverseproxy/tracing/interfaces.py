"""What requests see of tracing: nothing of it is here where there is none."""

from __future__ import annotations

__all__ = ["IRequestTrace", "ITracing"]

from collections.abc import Mapping
from typing import Protocol

from reverseproxy.tracing.context import Lookup

Attributes = Mapping[str, str | int | float | bool]


class IRequestTrace(Protocol):
    """
    The spans of one request, on its way through this process.

    Times are those of the reactor's clock, in seconds.

    @ivar trace_id: which trace they are of, in 32 digits.
    """

    trace_id: str

    def waited(self, since: float, now: float) -> None:
        """Say that it has waited for a host."""

    def dialled(self, since: float, now: float) -> None:
        """Say that a connection to a host was made for it, or was tried in vain."""

    def attempt(self, now: float, tunnel: bool, attributes: Attributes) -> list[tuple[bytes, bytes]]:
        """
        Begin an attempt: the request is sent to a host.

        @param tunnel: whether an agent's connection takes it there.
        @return: the header fields that the host is to get, in place of all others that
            speak of traces.
        """

    def answered(self, status: int) -> None:
        """Say with which status the host has answered the attempt."""

    def attempt_over(self, now: float) -> None:
        """End the attempt, if one is under way."""

    def end(self, now: float, name: str, error: str, attributes: Attributes) -> None:
        """
        End the request; what comes behind that does not count.

        @param name: what to call it, now that more is known.
        @param error: why it has failed; empty if it has not.
        """


class ITracing(Protocol):
    """Makes traces."""

    def begin(
        self, lookup: Lookup, believed: bool, started: float, now: float, name: str, attributes: Attributes
    ) -> IRequestTrace:
        """
        Begin a request.

        @param lookup: finds its header fields by lower-case names.
        @param believed: whether it comes from somebody whose word counts.
        @param started: when it came.
        """

    def start(self) -> None:
        """Begin to send spans."""

    def stop(self) -> None:
        """Send what is left, in a few seconds at the most, and end.  This waits: it is for a thread."""
