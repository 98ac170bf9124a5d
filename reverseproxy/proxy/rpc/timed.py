"""
Timeouts of RPC requests and their attempts.

The rules are in L{reverseproxy.proxy.http.deadlines}.
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
"""The size in bytes from which on sending a request may take long."""

TOO_LATE: Final = 504

_SHORTEST: Final = 0.001
"""Seconds until the next look, at the least."""


class RpcTimed(RpcSending):
    """
    The layer of an exchange that has its timeouts.

    @ivar deadline: the key of its deadline in C{IRpcOwner.deadlines}; 0.0 without one.
    @ivar try_deadline: the same for its attempt.
    """

    __slots__ = ("_begun", "_route", "_watch", "deadline", "try_deadline")

    deadline: float
    try_deadline: float
    _begun: float  # when the route's timeout began: with the request, or after the filters
    _route: ClusterRoute | None
    _watch: FrameWatch | None  # since the first check of a timeout

    # what a subclass does

    def try_timed_out(self) -> None:
        """Handle that an attempt's timeout has passed."""
        raise NotImplementedError

    # setting timeouts

    def _set_limits(self, route: ClusterRoute) -> None:
        """Set the timeouts of the request and its attempts."""
        downstream, frame = self.downstream, self.frame
        believed = downstream.believed
        times = timeouts(route, frame.header if believed else None, frame.timeout, believed)
        self._route, self._times = route, times
        total = times.total
        if self.received > LARGE and self._is_bound_by_route:
            total /= LOOKS  # to check whether it has been sent
        if total > 0:
            self._set_deadline(total)

    def _set_deadline(self, seconds: float) -> None:
        self.deadline = self.downstream.deadlines.add(self, seconds)

    def _set_try_deadline(self, seconds: float) -> None:
        self.try_deadline = self.downstream.try_deadlines.add(self, seconds)

    def _stop_try(self) -> None:
        """Cancel the deadline of an attempt."""
        self.downstream.try_deadlines.discard(self, self.try_deadline)
        self.try_deadline = 0.0

    @property
    def _is_bound_by_route(self) -> bool:
        """Whether the timeout is the route's, rather than the request's own."""
        times, route = self._times, self._route
        return route is not None and not times.total_asked and times.total == route.timeout

    def _limits(self, route: ClusterRoute) -> TimeLimits:
        settings = self.downstream.settings
        idle = settings.stream_idle if route.stream_idle is None else route.stream_idle
        to_the_end = route.timeout_to_end
        if to_the_end is None:
            to_the_end = settings.timeout_to_end
        return TimeLimits(route.timeout or inf, idle, to_the_end)

    # progress

    def _watched(self) -> FrameWatch:
        if self._watch is None:
            self._watch = FrameWatch()
        return self._watch

    def _state(self, client: RpcClient | None) -> ExchangeState:
        """
        Return the progress of the exchange.

        Not all protocols tell whose response a frame is before it is complete:
        then it may be this exchange's, but the next one is not.
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

    # timeouts that have passed

    def timed_out(self) -> None:
        """
        Fail the exchange, unless its timeout begins later or it makes progress.

        A timeout in a frame or in a header of it is how long the client waits,
        whatever happens meanwhile.  The route's is for the response to begin.
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
        Return how long an attempt may still take.

        @param began: when it began.
        @return: seconds; 0 or less if its timeout has passed.
        """
        now = self._clock.seconds()
        return self._watched().attempt_ends(now, self._times.attempt, began, self._state(client)) - now
