"""
The monotonic clock of the reactor, and the wall clock.

Timers and measurements use the reactor's clock (L{IReactorTime.seconds}), which has to be
monotonic: the wall clock is set back by NTP, by hand, or when a virtual machine resumes, and
timers would fire that much later, including those that detect dead peers.  Twisted's
reactors use the wall clock, so L{use_monotonic_time} gives them a monotonic one.

L{wall_time} is for timestamps in logs and for the validity of certificates only; ruff's
C{banned-api} in C{pyproject.toml} enforces that.
"""

from __future__ import annotations

__all__ = ["use_monotonic_time", "wall_time"]

import time
from typing import Any

from twisted.internet.base import ReactorBase

_monotonic = time.monotonic

wall_time = time.time
"""Seconds since 1970, UTC; may jump forward and back while the process runs."""


def use_monotonic_time(reactor: Any) -> None:
    """
    Let a reactor use monotonic time from now on; pending calls keep their delays.

    It replaces C{seconds} of one reactor object, which all of Twisted's reactors call for the
    time; no class is changed.  On Linux the time of a suspended machine does not count.

    Code that takes C{reactor.seconds()} for the time of day, as the access log of
    L{twisted.web.http.HTTPFactory} does, gets seconds since the machine's start.

    @param reactor: the reactor of the process, running or not.  Reactors that are not
        derived from Twisted's L{ReactorBase}, such as L{twisted.internet.task.Clock}, stay
        as they are, and a second call has no effect.
    """
    if not isinstance(reactor, ReactorBase) or reactor.seconds is _monotonic:
        return
    offset = _monotonic() - reactor.seconds()
    for call in reactor.getDelayedCalls():
        # All calls shift by the same offset, so the reactor's heap stays valid.
        delayed: Any = call
        delayed.time += offset
        delayed.seconds = _monotonic
    reactor.seconds = _monotonic
