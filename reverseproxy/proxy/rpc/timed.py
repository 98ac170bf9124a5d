"""
How long an RPC request may take, and what happens when that is over.

What decides about it is in L{reverseproxy.proxy.http.deadlines}.
"""

from __future__ import annotations

__all__ = ["LARGE", "RpcTimed"]

from math import inf
from typing import TYPE_CHECKING, Final

from reverseproxy.config.durations import format_duration
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.deadlines import (
    LOOKS,
    Clock,
    ExchangeStage,
    ExchangeState,
    FrameWatch,
    TimeLimits,
)
from reverseproxy.proxy.rpc.sending import RpcSending
from reverseproxy.routing import ClusterRoute, timeouts
from reverseproxy.transport.backlog import NOTHING

if TYPE_CHECKING:
    from reverseproxy.proxy.rpc.client import RpcClient

LARGE: Final = 65536
"""Bytes of a request that may take long to be sent."""

TOO_LATE: Final = 504

_SHORTEST: Final = 0.001
"""Seconds until the next look, at the least."""


class RpcTimed(RpcSending):
    """
    The part of an exchange that looks at the time.

    @ivar deadline: what L{IRpcOwner.deadlines} has to remember; 0.0 for nothing.
    @ivar try_deadline: the same of an attempt.
    """

    __slots__ = ("_begun", "_route", "_watch", "deadline", "try_deadline")

    deadline: float
    try_deadline: float
    _begun: float  # when the route's time began: with the request, or when its filters were done with it
    _route: ClusterRoute | None
    _watch: FrameWatch | None  # once it has taken so long that somebody looks

    # what a subclass does

    def try_timed_out(self) -> None:
        """The time for one attempt is over."""
        raise NotImplementedError

    # what sets the times

    def _set_limits(self, route: ClusterRoute) -> None:
        """Begin to count the time that the request and its attempts may take."""
        downstream, frame = self.downstream, self.frame
        believed = downstream.believed
        times = timeouts(route, frame.header if believed else None, frame.timeout, believed)
        self._route, self._times = route, times
        total = times.total
        if self.received > LARGE and self._is_bound_by_route:
            total /= LOOKS  # to see when it is sent
        if total > 0:
            self._set_deadline(total)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.downstream.deadlines.add(self, seconds)

    def _set_try_deadline(self, seconds: float) -> None:
        self.try_deadline = self.downstream.try_deadlines.add(self, seconds)

    def _stop_try(self) -> None:
        """An attempt is over."""
        self.downstream.try_deadlines.discard(self, self.try_deadline)
        self.try_deadline = 0.0

    @property
    def _is_bound_by_route(self) -> bool:
        """Whether it is the route that says how long it may take, rather than the request itself."""
        times, route = self._times, self._route
        return route is not None and not times.total_asked and times.total == route.timeout

    def _limits(self, route: ClusterRoute) -> TimeLimits:
        settings = self.downstream.settings
        idle = settings.stream_idle if route.idle_timeout is None else route.idle_timeout
        to_the_end = route.timeout_to_end
        if to_the_end is None:
            to_the_end = settings.timeout_to_end
        return TimeLimits(route.timeout or inf, idle, to_the_end)

    # what there is to see

    def _watched(self) -> FrameWatch:
        if self._watch is None:
            self._watch = FrameWatch()
        return self._watch

    def _state(self, client: RpcClient | None) -> ExchangeState:
        """
        See how it goes.

        Not all protocols tell whose response a frame is before it is complete:
        then it may be ours, but the one behind it is not.
        """
        unsent, arriving = NOTHING, None
        if client is not None:
            unsent, arriving = client.outgoing.backlog(self._position), client.arriving(self._number)
        mine = self._watched().follows(arriving)
        host = self.host
        return ExchangeState(
            ExchangeStage.RESPONSE if mine else ExchangeStage.WAIT,
            self._begun,
            self._attempts,
            arriving,
            unsent.mark,
            unsent.size > 0,
            unsent.size > 0 and host is not None and host.is_reverse,
        )

    # the time is over

    def timed_out(self) -> None:
        """
        The time for the exchange is over, unless it begins later or something moves.

        What a frame or a header of it says is how long its client waits, whatever
        happens meanwhile.  What the route says is until the response begins.
        """
        self.deadline = 0.0
        reason, key = "the response did not come in time", "it is the request's own timeout"
        flag = ResponseFlag.UT
        route = self._route
        if route is not None and self._is_bound_by_route:
            limits = self._limits(route)
            now = self._clock.seconds()
            found = self._watched().look(now, limits, self._state(self._client))
            if isinstance(found, float):
                self._set_deadline(max(found - now, _SHORTEST))
                return
            if found is Clock.IDLE:
                reason = f"the host sent nothing of the response for {format_duration(limits.idle)}"
                key = "see stream_idle_timeout of the proxy filter, or idle_timeout of the route"
                flag = ResponseFlag.SI
            else:
                reason = f"the response did not begin within {format_duration(limits.begin)}"
                key = "see timeout of the route"
        self.fail(TOO_LATE, reason, flag, key)

    def _time_left(self, client: RpcClient, began: float) -> float:
        """
        Look how long an attempt may go on.

        @param began: when it has begun.
        @return: seconds; not more than 0 if its time is over.
        """
        now = self._clock.seconds()
        return self._watched().attempt_ends(now, self._times.attempt, began, self._state(client)) - now
