"""
How long a request may take.

As in MOSN (C{pkg/proxy/util.go}), the route says so, then the request's headers
C{x-mosn-try-timeout} and C{x-mosn-global-timeout}, in milliseconds, then an RPC
frame's own timeout; each replaces what was before it.

Any client can set these headers, and so make its requests wait for longer than
the route would let them, or without a limit.  They are honoured as MOSN does,
where one proxy tells another by them.  Who does not trust the clients of a
listener must have them removed before they reach it.
"""

from __future__ import annotations

__all__ = [
    "DEFAULT_TIMEOUT",
    "GLOBAL_TIMEOUT_HEADER",
    "MAX_TIMEOUT",
    "TRY_TIMEOUT_HEADER",
    "Timeouts",
    "timeouts",
]

import re
from typing import TYPE_CHECKING, Final, NamedTuple

from reverseproxy.routing.facts import Lookup

if TYPE_CHECKING:
    from reverseproxy.routing.results import ClusterRoute

DEFAULT_TIMEOUT: Final = 60.0
"""Seconds that a request may take when nobody says anything, or 0 (C{GlobalTimeout} in MOSN)."""

MAX_TIMEOUT: Final = 2.0**31 / 1000
"""The longest time in seconds that a request can ask for; longer ones are taken as this."""

TRY_TIMEOUT_HEADER: Final = "x-mosn-try-timeout"
GLOBAL_TIMEOUT_HEADER: Final = "x-mosn-global-timeout"

_INTEGER: Final = re.compile(r"[+-]?0*[0-9]{1,19}")
_LIMIT: Final = 2**63


class Timeouts(NamedTuple):
    """
    How long things may take, in seconds.

    @ivar total: the whole exchange; 0.0 for no limit.
    @ivar attempt: one attempt; 0.0 for no limit but the other one.
    """

    total: float
    attempt: float


def timeouts(route: ClusterRoute, headers: Lookup | None, frame_timeout: int | None = None) -> Timeouts:
    """
    Say how long a request may take.

    A negative time is none, and a total of 0 is L{DEFAULT_TIMEOUT}.  The time of
    an attempt does not count if it is not shorter than the total.

    @param headers: looks up a header by its lower-case name; L{None} if the
        caller knows that the request has none of these headers.
    @param frame_timeout: milliseconds, from an RPC frame; L{None} or 0 if it
        does not say.
    """
    total, attempt = route.timeout, route.retry.try_timeout
    if headers is not None:
        milliseconds = _integer(headers(TRY_TIMEOUT_HEADER))
        if milliseconds is not None:
            attempt = _seconds(milliseconds)
        milliseconds = _integer(headers(GLOBAL_TIMEOUT_HEADER))
        if milliseconds is not None:
            total = _seconds(milliseconds) if milliseconds else DEFAULT_TIMEOUT
    if frame_timeout:
        total = _seconds(frame_timeout)
    if 0.0 < total <= attempt:
        attempt = 0.0
    return Timeouts(total, attempt)


def _seconds(milliseconds: int) -> float:
    return min(max(milliseconds, 0) / 1000, MAX_TIMEOUT)


def _integer(text: str | None) -> int | None:
    """Parse a number of 64 bits as Go does; L{None} if it is none, as if the header were not there."""
    if text is None or not _INTEGER.fullmatch(text):
        return None
    number = int(text)
    return number if -_LIMIT <= number < _LIMIT else None
