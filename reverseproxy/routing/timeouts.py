"""
The time limits of a request.

They bound the time until the response begins, or, if the route says so, the whole
response.  Behind that, the idle timeouts of route and filter apply; see
L{reverseproxy.proxy.http.deadlines}.

As in MOSN (C{pkg/proxy/util.go}), the route has timeouts, then the request's headers
C{x-mosn-try-timeout} and C{x-mosn-global-timeout}, in milliseconds, then an RPC
frame's own timeout; each replaces those before.

Headers and frames are honoured as in MOSN if a trusted proxy has set them.  Other
clients could make their requests wait for longer than the route allows: their
headers are dropped before (L{reverseproxy.wire.http.border}), and the timeouts of
their frames count only if they are shorter.

A host that exceeds a timeout that the request has set is not considered faulty: the
sender may have chosen it too short.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TIMEOUT",
    "GLOBAL_TIMEOUT_HEADER",
    "MAX_TIMEOUT",
    "TRY_TIMEOUT_HEADER",
    "Timeouts",
    "grpc_timeout",
    "patience",
    "timeouts",
]

import re
from math import inf
from typing import TYPE_CHECKING, Final, NamedTuple

from reverseproxy.routing.facts import Lookup

if TYPE_CHECKING:
    from reverseproxy.routing.results import ClusterRoute

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds until a response has to begin if no timeout is set, or 0 is (C{GlobalTimeout} in MOSN)."""

MAX_TIMEOUT: Final = 2.0**31 / 1000
"""The longest timeout in seconds that a request can set; longer ones count as this."""

TRY_TIMEOUT_HEADER: Final = "x-mosn-try-timeout"
GLOBAL_TIMEOUT_HEADER: Final = "x-mosn-global-timeout"

_INTEGER: Final = re.compile(r"[+-]?0*[0-9]{1,19}")
_LIMIT: Final = 2**63
_GRPC_TIMEOUT: Final = re.compile(r"[0-9]{1,8}[HMSmun]")
_GRPC_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Timeouts(NamedTuple):
    """
    The time limits of one request, in seconds.

    @ivar total: from the end of the request until the response begins, however
        many attempts that takes; 0.0 for no limit.
    @ivar attempt: the same for one attempt; 0.0 for no limit but the other one.
    @ivar total_asked: whether the request has set C{total}, and not the route.
    @ivar attempt_asked: the same for C{attempt}.
    """

    total: float
    attempt: float
    total_asked: bool = False
    attempt_asked: bool = False

    @property
    def asked(self) -> bool:
        """Whether the request has set either of them."""
        return self.total_asked or self.attempt_asked


def timeouts(
    route: ClusterRoute, headers: Lookup | None, frame_timeout: int | None = None, believed: bool = True
) -> Timeouts:
    """
    Decide on the time limits of a request.

    A negative timeout is none, and a total of 0 is L{DEFAULT_TIMEOUT}.  The limit of
    an attempt does not count if it is not shorter than the total.

    @param headers: looks up a header by its lower-case name; L{None} if the
        caller knows that the request has none of these headers.
    @param frame_timeout: the timeout of an RPC frame in milliseconds; L{None} or 0 if it
        has none.
    @param believed: whether the frame may also make the limit longer.
    """
    total, attempt = route.timeout, route.retry.try_timeout
    total_asked = attempt_asked = False
    if headers is not None:
        milliseconds = _integer(headers(TRY_TIMEOUT_HEADER))
        if milliseconds is not None:
            attempt = _seconds(milliseconds)
            attempt_asked = attempt > 0.0
        milliseconds = _integer(headers(GLOBAL_TIMEOUT_HEADER))
        if milliseconds is not None:
            total = _seconds(milliseconds) if milliseconds else DEFAULT_TIMEOUT
            total_asked = bool(milliseconds) and total > 0.0
    if frame_timeout:
        asked = _seconds(frame_timeout)
        if believed or 0.0 < asked < (total or inf):
            total, total_asked = asked, asked > 0.0
    if 0.0 < total <= attempt:
        attempt, attempt_asked = 0.0, False
    return Timeouts(total, attempt, total_asked, attempt_asked)


def patience(
    route: ClusterRoute, headers: Lookup, idle: float, believed: bool = True, large: bool = False
) -> float | None:
    """
    Decide how long an HTTP response may take to begin if neither route nor request has a timeout.

    The response to a call of gRPC, and a stream of server-sent events, may begin only
    with the first message: so the idle timeout applies, too.  So it does for a large
    request, of which kernels, and proxies behind us, may hold the end for long.  A call of
    gRPC may also have a deadline of its own.

    @param headers: looks up a header by its lower-case name.
    @param idle: the idle timeout in seconds, infinity for none.
    @param believed: whether C{grpc-timeout} may also make the limit longer.
    @param large: whether the request is large.
    @return: seconds; L{None} if the route or the request has a timeout.
    """
    if route.timeout_said or _integer(headers(GLOBAL_TIMEOUT_HEADER)):
        return None
    longer = max(DEFAULT_TIMEOUT, idle)
    if (headers("content-type") or "").startswith("application/grpc"):
        deadline = grpc_timeout(headers("grpc-timeout"))
        if deadline is None:
            return longer
        return deadline if believed else min(deadline, longer)
    if large or "text/event-stream" in (headers("accept") or "").lower():
        return longer
    return DEFAULT_TIMEOUT


def grpc_timeout(text: str | None) -> float | None:
    """Parse C{grpc-timeout}, up to eight digits and a unit, into seconds; L{None} if it is malformed."""
    if text is None or not _GRPC_TIMEOUT.fullmatch(text):
        return None
    return min(int(text[:-1]) * _GRPC_UNITS[text[-1]], MAX_TIMEOUT)


def _seconds(milliseconds: int) -> float:
    return min(max(milliseconds, 0) / 1000, MAX_TIMEOUT)


def _integer(text: str | None) -> int | None:
    """Parse an integer of 64 bits as Go does; L{None} if it is malformed, as if the header were missing."""
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LIMIT <= number < _LIMIT else None
