"""C{fault}: inject faults, as MOSN's C{pkg/filter/stream/faultinject} does."""

from __future__ import annotations

__all__ = ["FaultInjection"]

from collections.abc import Callable, Iterator

from reverseproxy.config.models import FaultConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, LocalReply, Step
from reverseproxy.proxy.flags import ResponseFlag
from reverseproxy.routing import ClusterRoute, RouteInput, header_test

Draw = Callable[[], float]
"""Gives random numbers from 0 to 1, less than 1."""


class _Plan:
    """One set of options."""

    def __init__(self, config: FaultConfig) -> None:
        self.config = config  # kept, as it is known by its identity
        self._matches: Callable[[RouteInput], bool] = header_test(config.headers)

    def is_for(self, request: FilteredRequest) -> bool:
        """Return whether the options apply to a request."""
        cluster, result = self.config.upstream_cluster, request.result
        if cluster and result is not None:
            name = result.cluster_name if isinstance(result, ClusterRoute) else ""
            if name != cluster:
                return False
        return self._matches(request.facts)


class FaultInjection:
    """Delays requests, or answers them with an error."""

    before_route = False

    def __init__(self, config: FaultConfig, draw: Draw) -> None:
        self._plan = _Plan(config)
        self._plans: dict[int, _Plan] = {}  # of routes
        self._draw = draw

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        plan = self._plan
        options = None if request.result is None else request.result.filters
        if options is not None and options.fault is not None:
            plan = self._plan_of(options.fault)
        if not plan.is_for(request):
            return
        delay, abort = plan.config.delay, plan.config.abort
        if delay.fixed_delay and self._hits(delay.percentage):
            request.flags |= ResponseFlag.DI
            yield delay.fixed_delay
        if self._hits(abort.percentage):
            yield LocalReply(abort.status, "fault injected", b"fault injected\n", ResponseFlag.FI)

    def _plan_of(self, config: FaultConfig) -> _Plan:
        """Return the options of a route, which are parsed once."""
        plan = self._plans.get(id(config))
        if plan is None:
            plan = self._plans[id(config)] = _Plan(config)
        return plan

    def _hits(self, percentage: int) -> bool:
        return percentage > 0 and self._draw() * 100 < percentage
