"""
Apply the timeouts of an exchange.

L{reverseproxy.proxy.http.deadlines} decides whether one has expired.
"""

from __future__ import annotations

__all__ = ["Timed"]

from math import inf

from twisted.internet.interfaces import IReactorTime

from reverseproxy.config.durations import format_duration
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.proxy.http.deadlines import (
    LOOKS,
    Clock,
    ExchangeStage,
    ExchangeState,
    ProgressWatch,
    TimeLimits,
)
from reverseproxy.proxy.http.ending import STALLED
from reverseproxy.proxy.http.interfaces import IUpstream
from reverseproxy.proxy.http.sending import ACTIVE, DONE, REQUEST_BUFFER, WAITING, Sending
from reverseproxy.routing import ClusterRoute, grpc_timeout, patience
from reverseproxy.transport.backlog import NOTHING


class Timed(Sending):
    """
    The part of an exchange that checks its timeouts.

    @ivar sent: bytes of the response body so far.
    """

    __slots__ = ("_begun", "_watch", "sent")

    sent: int
    _begun: float  # when the route's time began: with the request, or when its filters were done with it
    _watch: ProgressWatch | None  # once its timeouts were checked

    @property
    def clock(self) -> IReactorTime:
        """The clock of all timeouts."""
        return self._clock

    @property
    def stream_idle(self) -> float | None:
        """Seconds without a byte that the route allows; L{None} if it does not say."""
        return None if self._route is None else self._route.stream_idle

    @property
    def _idle(self) -> float:
        """Seconds without a byte that are allowed."""
        idle = self.stream_idle
        return self.downstream.settings.stream_idle if idle is None else idle

    def _watched(self) -> ProgressWatch:
        if self._watch is None:
            self._watch = ProgressWatch()
        return self._watch

    def _limits(self, route: ClusterRoute) -> TimeLimits:
        idle = self._idle
        downstream = self.downstream
        believed = downstream.settings.trust.believes(downstream.info)
        large = self.received > REQUEST_BUFFER
        begin = patience(route, self.head.lookup, idle, believed, large)
        if begin is None:
            begin = self._times.total or inf
        to_the_end = route.timeout_to_end
        if to_the_end is None:
            to_the_end = downstream.settings.timeout_to_end
        return TimeLimits(begin, idle, to_the_end, self._begun + downstream.settings.request_time)

    def _look_for_response(self) -> None:
        route = self._route
        if route is not None and self._phase in (WAITING, ACTIVE) and not self.status:
            self.downstream.set_look(self._asked_at + min(self._until_look(route), self._look_period(route)))

    def _until_look(self, route: ClusterRoute) -> float:
        """Return the seconds after which to see whether a request with a body is sent, and answered."""
        timeout = self._times.total or inf
        deadline = b"" if route.timeout_said else self.head.deadline
        if deadline:
            asked = grpc_timeout(deadline.decode("utf-8", "replace"))
            timeout = timeout if asked is None else min(timeout, asked)
        return timeout / LOOKS

    def _look_period(self, route: ClusterRoute) -> float:
        """Return the seconds between two looks at a request."""
        settings = self.downstream.settings
        if route.stream_idle is None:
            return settings.look_period
        return min(route.stream_idle / LOOKS, settings.request_time)

    def _state(self, client: IUpstream | None) -> ExchangeState:
        downstream, host = self.downstream, self.host
        waits = downstream.backlog()
        # What has no body is as good as sent.
        unsent = client.backlog() if client is not None and self.received else NOTHING
        is_reverse = host is not None and host.is_reverse
        interims = self._watched().interims
        stage, asked_at = ExchangeStage.RESPONSE, inf
        if self.request_complete:
            asked_at = self._asked_at or self._begun
        if not self.status:
            stage = ExchangeStage.WAIT if self.request_complete else ExchangeStage.REQUEST
            if self.head.awaits_continue and not (self.received or interims):
                stage, asked_at = ExchangeStage.WAIT, self._begun
        return ExchangeState(
            stage,
            asked_at,
            self._attempts,
            (self.received, self.sent, interims, self._attempts, waits.mark, unsent.mark),
            (interims, unsent.mark),
            interims > 0 or unsent.size > 0,
            (stage is ExchangeStage.REQUEST and self._phase == WAITING)
            or (is_reverse and (self._full or unsent.size > 0))
            or (downstream.info.reverse and (downstream.full or waits.size > 0)),
            self._phase == WAITING or self._full or unsent.size > 0,
        )

    def look(self, now: float) -> float:
        """
        Check the timeouts, and end the exchange if one has expired.

        @return: when to look again; infinity for never.
        """
        route = self._route
        if self._phase == DONE or route is None:
            return inf
        limits, state = self._limits(route), self._state(self._client)
        found = self._watched().look(now, limits, state)
        if isinstance(found, float):
            return found
        self._time_is_over(found, state, limits)
        return inf

    def _time_is_over(self, clock: Clock, state: ExchangeState, limits: TimeLimits) -> None:
        status, flag = 504, ResponseFlag.UT
        if clock is Clock.IDLE:
            flag = ResponseFlag.SI
            reason, key = f"for {format_duration(limits.idle)}", "stream_idle_timeout of the proxy filter"
            if self._route is not None and self._route.stream_idle is not None:
                key = "idle_timeout of the route"
            if state.stage is ExchangeStage.REQUEST and not state.unsettled:
                status = 408
                reason = f"the client sent nothing of the request {reason}"
            elif state.stage is ExchangeStage.REQUEST:
                reason = f"the host took nothing of the request {reason}"
            elif self.downstream.full or self.downstream.backlog().size:
                status = STALLED
                reason = f"the client took nothing of the response {reason}"
            else:
                reason = f"the host sent nothing of the response {reason}"
        elif clock is Clock.REQUEST:
            status, flag = 408, ResponseFlag.DT
            key = "request_timeout of the proxy filter"
            allowed = format_duration(self.downstream.settings.request_time)
            reason = f"not all of the request came within {allowed}"
        else:
            key = "timeout of the route, or x-mosn-global-timeout"
            what = "begin" if clock is Clock.BEGIN else "come to its end"
            reason = f"the response did not {what} within {format_duration(limits.begin)}"
        client = self._client
        if clock is Clock.BEGIN and client is not None and self._times.total_asked:
            self._client = None
            self._leave(client)
        self.fail(status, reason, flag, f"see {key}")
