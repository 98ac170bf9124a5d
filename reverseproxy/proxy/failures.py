"""
The lines of a log about requests that fail on our side: one for each.

A line says which request that is, what becomes of it and why, and what an
operator may do about it.  Anybody who can reach a listener can cause such lines,
so that there is a bound for each listener.
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

    @ivar request: what it is: method and path without its query, which may hold
        secrets; service and operation in RPC.
    @ivar peer: the client's address.
    @ivar status: what the client gets, in terms of HTTP; 0 for nothing.
    @ivar reason: a sentence.
    @ivar flags: the same as L{ResponseFlag}.
    @ivar cluster: where it was to go; empty if that is not known.
    @ivar host: the last host that was taken for it; empty for none.
    @ivar remedy: what to do; empty for what the flags say.
    @ivar number: what the client may quote to whoever reads the log; empty for
        none.
    @ivar request_id: what the request calls itself (C{X-Request-Id}), if it does.
    @ivar trace_id: its trace, if there is one.
    @ivar broken: whether it gets something else, as an answer had begun, which is
        broken off.
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
        """All that tells it from others, in parentheses."""
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
    """Writes the lines for one listener."""

    def __init__(self, listener: str, clock: IReactorTime) -> None:
        self._listener = listener
        self._throttle = Throttle(clock, LOG_RATE, LOG_BURST)

    def note(self, failed: Failed, level: Any = LogLevel.warn) -> None:
        """
        Write a line, if there is room for it.

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
