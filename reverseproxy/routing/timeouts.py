"""
How long a request may take to be answered.

That is until the response begins, unless the route wants it to be the whole
response; what comes after that is bounded by how long nothing may move, which
is the route's and the filter's to say; see L{reverseproxy.proxy.http.deadlines}.

As in MOSN (C{pkg/proxy/util.go}), the route says so, then the request's headers
C{x-mosn-try-timeout} and C{x-mosn-global-timeout}, in milliseconds, then an RPC
frame's own timeout; each replaces what was before it.

They are honoured as MOSN does where one proxy tells another by them.  Strangers
could make their requests wait for longer than the route would let them: their
headers do not come here (L{reverseproxy.wire.http.border}), and what their frames say
counts only if it is less.

A time that a request asks for is its sender's choice: a host that has not
answered in it has done nothing wrong.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TIMEOUT",
    "GLOBAL_TIMEOUT_HEADER",
    "MAX_TIMEOUT",
    "TRY_TIMEOUT_HEADER",
    "Timeouts",
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
"""Seconds that a response may take to begin when nobody says anything, or 0 (C{GlobalTimeout} in MOSN)."""

MAX_TIMEOUT: Final = 2.0**31 / 1000
"""The longest time in seconds that a request can ask for; longer ones are taken as this."""

TRY_TIMEOUT_HEADER: Final = "x-mosn-try-timeout"
GLOBAL_TIMEOUT_HEADER: Final = "x-mosn-global-timeout"

_INTEGER: Final = re.compile(r"[+-]?0*[0-9]{1,19}")
_LIMIT: Final = 2**63
_GRPC_TIMEOUT: Final = re.compile(r"[0-9]{1,8}[HMSmun]")
_GRPC_UNITS: Final = {"H": 3600.0, "M": 60.0, "S": 1.0, "m": 1e-3, "u": 1e-6, "n": 1e-9}


class Timeouts(NamedTuple):
    """
    How long things may take, in seconds.

    @ivar total: from the end of the request until the response begins, however
        many attempts that takes; 0.0 for no limit.
    @ivar attempt: the same for one attempt; 0.0 for no limit but the other one.
    @ivar total_asked: whether it is the request that limits C{total}.
    @ivar attempt_asked: the same for C{attempt}.
    """

    total: float
    attempt: float
    total_asked: bool = False
    attempt_asked: bool = False

    @property
    def asked(self) -> bool:
        """Whether the request limits anything."""
        return self.total_asked or self.attempt_asked


def timeouts(
    route: ClusterRoute, headers: Lookup | None, frame_timeout: int | None = None, believed: bool = True
) -> Timeouts:
    """
    Say how long a request may take.

    A negative time is none, and a total of 0 is L{DEFAULT_TIMEOUT}.  The time of
    an attempt does not count if it is not shorter than the total.

    @param headers: looks up a header by its lower-case name; L{None} if the
        caller knows that the request has none of these headers.
    @param frame_timeout: milliseconds, from an RPC frame; L{None} or 0 if it
        does not say.
    @param believed: whether the frame may also make the time longer.
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


def patience(route: ClusterRoute, headers: Lookup, idle: float, believed: bool = True) -> float | None:
    """
    Say how long a response of HTTP may take to begin where nobody has said so.

    A call of gRPC, and a stream of events, may begin with its first message,
    whenever there is one: so it may take as long as the next one may.  A call of
    gRPC may also say itself how long its client waits.

    @param headers: looks up a header by its lower-case name.
    @param idle: seconds without a byte that are allowed, infinity for any.
    @param believed: whether C{grpc-timeout} may also make the time longer.
    @return: L{None} if somebody has: the route, or the request.
    """
    if route.timeout_said or _integer(headers(GLOBAL_TIMEOUT_HEADER)):
        return None
    if (headers("content-type") or "").startswith("application/grpc"):
        usual, deadline = max(DEFAULT_TIMEOUT, idle), _grpc_timeout(headers("grpc-timeout"))
        if deadline is None:
            return usual
        return deadline if believed else min(deadline, usual)
    if "text/event-stream" in (headers("accept") or "").lower():
        return max(DEFAULT_TIMEOUT, idle)
    return DEFAULT_TIMEOUT


def _grpc_timeout(text: str | None) -> float | None:
    """Read C{grpc-timeout}, which is up to eight digits and a unit; L{None} if it is none."""
    if text is None or not _GRPC_TIMEOUT.fullmatch(text):
        return None
    return min(int(text[:-1]) * _GRPC_UNITS[text[-1]], MAX_TIMEOUT)


def _seconds(milliseconds: int) -> float:
    return min(max(milliseconds, 0) / 1000, MAX_TIMEOUT)


def _integer(text: str | None) -> int | None:
    """Parse a number of 64 bits as Go does; L{None} if it is none, as if the header were not there."""
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LIMIT <= number < _LIMIT else None
