"""
The log of requests that fail on our side: one line for each.

A line has the request, its result, the reason, and what an operator can do about it.
Any client can cause such lines, so their rate is limited for each listener.
"""

from __future__ import annotations

__all__ = ["LOG_BURST", "LOG_RATE", "Failed", "FailureLog"]

from typing import Any, Final, NamedTuple

from twisted.internet.interfaces import IReactorTime
from twisted.logger import Logger, LogLevel

from reverseproxy.logs import Throttle
from reverseproxy.proxy.flags import short_names, what_to_do

log = Logger()

LOG_RATE: Final = 5.0
"""Lines about failed requests to one listener, in each second."""

LOG_BURST: Final = 50
"""How many of them may come at once."""

MAX_SHOWN: Final = 200
"""Characters of a request's path, and of the id that it gives itself, that are shown."""


class Failed(NamedTuple):
    """
    A request that failed.

    @ivar request: method and path without its query, which may hold secrets; service
        and operation in RPC.
    @ivar peer: the client's address.
    @ivar status: the client's response as an HTTP status; 0 without one.
    @ivar reason: a sentence.
    @ivar flags: the reason as L{ResponseFlag}s.
    @ivar cluster: the route's cluster; empty without one.
    @ivar host: the last host that was tried; empty for none.
    @ivar remedy: advice for the operator; empty for that of the flags.
    @ivar number: an error number that the response has, too; empty for none.
    @ivar request_id: the C{X-Request-Id} of the request, if it has one.
    @ivar trace_id: its trace; empty for none.
    @ivar broken: whether a response had begun, and was reset.
    """

    request: str
    peer: str
    status: int
    reason: str
    flags: int
    cluster: str = ""
    host: str = ""
    remedy: str = ""
    number: str = ""
    request_id: str | None = None
    trace_id: str = ""
    broken: bool = False

    @property
    def whereabouts(self) -> str:
        """The names and ids of the request, in parentheses."""
        known = (
            ("cluster", self.cluster),
            ("host", self.host),
            ("error", self.number),
            ("request id", (self.request_id or "")[:MAX_SHOWN]),
            ("trace", self.trace_id),
        )
        text = ", ".join(f"{name} {value}" for name, value in known if value)
        return f" ({text})" if text else ""


class FailureLog:
    """The log of one listener's failed requests."""

    def __init__(self, listener: str, clock: IReactorTime) -> None:
        self._listener = listener
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)

    def note(self, failed: Failed, level: Any = LogLevel.warn) -> None:
        """
        Write a line, within the rate limit.

        @param level: one of L{LogLevel}.
        """
        throttle = self._throttle
        if not throttle.allow():
            return
        remedy = failed.remedy or what_to_do(failed.flags)
        log.emit(
            level,
            "{listener}: {request} of {peer} {outcome}: {reason}{remedy}{whereabouts}{suppressed}",
            listener=self._listener,
            request=failed.request[:MAX_SHOWN] or "a request",
            peer=failed.peer,
            outcome=f"gets {failed.status}" if failed.status and not failed.broken else "is broken off",
            status=failed.status,
            reason=failed.reason,
            flags=short_names(failed.flags),
            remedy=f"; {remedy}" if remedy else "",
            whereabouts=failed.whereabouts,
            cluster=failed.cluster,
            host=failed.host,
            error=failed.number,
            request_id=failed.request_id or "",
            trace_id=failed.trace_id,
            suppressed=throttle.suppressed,
        )
