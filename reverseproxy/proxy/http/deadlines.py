"""
Timeouts of an exchange: which of them applies, and whether it has expired.

An exchange is in one of three stages, each with a timeout of its own:

    REQUEST   the request is being received and forwarded
    WAIT      it is complete; the response has not begun
    RESPONSE  the response has begun

REQUEST and RESPONSE may last as long as data moves.  Whether it does is found
out by regular looks, L{LOOKS} in each idle timeout, which compare counters of
bytes with those of the last look: so a byte costs nothing, and a process that
was suspended does not mistake that for silence of its peers.

WAIT has a timeout as a whole, from the end of the request on.  That is when the
host has received it, as far as is known, which may be long after the client
sent it.

This module knows nothing of HTTP, connections or timers.
"""

from __future__ import annotations

__all__ = [
    "LOOKS",
    "Clock",
    "ExchangeStage",
    "ExchangeState",
    "FrameWatch",
    "ProgressWatch",
    "TimeLimits",
]

from collections.abc import Hashable
from enum import Enum, auto
from math import inf
from typing import Final, NamedTuple

from reverseproxy.transport.backlog import Pace

LOOKS: Final = 4
"""Looks without a byte after which the idle timeout has expired: up to a quarter later than configured."""

_RESPITE: Final = 0.05
"""Seconds between two looks at a request that the host is still taking; clients choose timeouts."""


class Clock(Enum):
    """The timeouts that can expire."""

    BEGIN = auto()
    """The timeout for the response to begin."""

    IDLE = auto()
    """The idle timeout, in both directions."""

    REQUEST = auto()
    """The timeout for the whole request, where there is one."""

    END = auto()
    """The timeout for the whole response, where there is one."""


class ExchangeStage(Enum):
    """How far an exchange has come; see the module's text."""

    REQUEST = auto()
    WAIT = auto()
    RESPONSE = auto()


class TimeLimits(NamedTuple):
    """
    The timeouts of an exchange, in seconds; infinity for none.

    @ivar begin: from the end of the request to the begin of the response.
    @ivar idle: without a byte in either direction.
    @ivar to_the_end: whether C{begin} includes the whole response.
    @ivar due: when the request must be complete, by the clock.
    """

    begin: float
    idle: float
    to_the_end: bool = False
    due: float = inf

    @property
    def period(self) -> float:
        """Seconds between two looks while data may move."""
        return self.idle / LOOKS


class ExchangeState(NamedTuple):
    """
    The progress of an exchange at one moment.

    @ivar stage: its stage.
    @ivar asked_at: when the request was complete; infinity if it is not.
    @ivar attempt: the number of the attempt.
    @ivar moved: counters of both directions, which differ from the last look's if
        any data has moved.
    @ivar taken: the same for data to the host only.
    @ivar unsettled: whether a part of the request is still buffered for the host,
        or the host has sent an interim response.
    @ivar excused: whether it waits for something with timeouts of its own: a queue,
        or a peer behind a tunnel.
    @ivar blocked: whether the rest of the request waits for us, or for the host.
    """

    stage: ExchangeStage
    asked_at: float
    attempt: int
    moved: Hashable
    taken: Hashable
    unsettled: bool
    excused: bool
    blocked: bool = False


class ProgressWatch:
    """
    Watches the progress of one exchange.

    @ivar interims: how many interim responses the host has sent; the owner counts
        them.
    """

    __slots__ = ("_attempt", "_pace", "_settled_at", "_taken", "interims")

    def __init__(self) -> None:
        self.interims = 0
        self._pace = Pace()
        self._attempt = 0
        self._taken: Hashable = None
        self._settled_at = 0.0

    def look(self, now: float, limits: TimeLimits, state: ExchangeState) -> float | Clock:
        """
        Check whether a timeout has expired.

        @return: the timeout, or when to look again; infinity for never.
        """
        if state.stage is ExchangeStage.WAIT:
            return self._wait(now, limits, state)
        if self._pace.look(state.moved, state.excused) >= LOOKS:
            return Clock.IDLE
        again = now + limits.period
        if state.stage is ExchangeStage.REQUEST and limits.due < inf:
            if limits.due > now:
                return min(again, limits.due)
            return again if state.blocked else Clock.REQUEST
        if limits.to_the_end and state.stage is ExchangeStage.RESPONSE and state.asked_at < inf:
            end = state.asked_at + limits.begin
            if end <= now:
                return Clock.END
            again = min(again, end)
        return again

    def attempt_ends(self, now: float, seconds: float, began: float, state: ExchangeState) -> float:
        """
        Return when the timeout of an attempt expires; the time that it takes to send the request does not
        count.

        @param seconds: how long an attempt may take.
        @param began: when it has begun.
        @return: in the past if it is over.
        """
        if state.stage is not ExchangeStage.WAIT:
            return now + seconds
        self._follow(now, state)
        return max(state.asked_at, began, self._settled_at) + seconds

    def _wait(self, now: float, limits: TimeLimits, state: ExchangeState) -> float | Clock:
        if not limits.to_the_end:
            self._follow(now, state)
        end = max(state.asked_at, self._settled_at) + limits.begin
        if end <= now:
            return Clock.END if limits.to_the_end else Clock.BEGIN
        again = min(end, now + limits.period)
        if state.unsettled:
            again = max(min(again, now + limits.begin / LOOKS), now + _RESPITE)
        return again

    def _follow(self, now: float, state: ExchangeState) -> None:
        """Note whether the host has taken a part of the request since the last look."""
        if state.attempt != self._attempt:
            # Another connection, of which nothing is known yet.
            self._attempt = state.attempt
            self._taken = None
        moved = state.unsettled if self._taken is None else state.taken != self._taken
        self._taken = state.taken
        if moved or (state.unsettled and state.excused):
            self._settled_at = now


class FrameWatch(ProgressWatch):
    """
    Watches an exchange whose response is one frame on a connection that carries others too.

    @ivar arriving: which frame was coming at the last look, and how much of it
        had come.
    """

    __slots__ = ("arriving",)

    def __init__(self) -> None:
        super().__init__()
        self.arriving: tuple[int, int] | None = None

    def follows(self, arriving: tuple[int, int] | None) -> bool:
        """Return whether the frame that is arriving may be the one of the last look, or the first."""
        before, self.arriving = self.arriving, arriving
        return arriving is not None and (before is None or before[0] == arriving[0])
