"""
Two clocks: one that measures, and one for what people read.

Whatever waits or measures asks a reactor (L{IReactorTime.seconds}), and that
has to be monotonic: a wall clock is set back by NTP, by hand, or when a virtual
machine resumes, and timers that wait for it wait that much longer, those that
find dead peers among them.  Twisted's reactors measure wall time, so that
L{use_monotonic_time} gives them another clock.

L{wall_time} is for stamps in logs and for the validity of certificates, and for
nothing else; ruff's C{banned-api} in C{pyproject.toml} keeps it so.
"""

from __future__ import annotations

__all__ = ["use_monotonic_time", "wall_time"]

import time
from typing import Any

from twisted.internet.base import ReactorBase

_monotonic = time.monotonic

wall_time = time.time
"""Seconds since 1970, UTC; may be set forward and back while the process runs."""


def use_monotonic_time(reactor: Any) -> None:
    """
    Let a reactor measure monotonic time from now on; what it has been told to call keeps its delays.

    C{seconds} of one reactor object is replaced, which each of Twisted's reactors asks whenever it
    needs the time; no class is changed.  On Linux the time of a suspended machine does not count.

    Whoever takes C{reactor.seconds()} for the time of day, as the access log of
    L{twisted.web.http.HTTPFactory} does, gets seconds since the machine's start.

    @param reactor: the reactor that a process runs, running or not.  Nothing happens
        to what is not made of Twisted's L{ReactorBase}, such as
        L{twisted.internet.task.Clock}, or has been told before.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is _monotonic:
        return
    offset = _monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        # Same order as before, so that the reactor's heap of calls stays one.
        delayed: Any = call
        delayed.time += offset
        delayed.seconds = _monotonic
    reactor.seconds = _monotonic
