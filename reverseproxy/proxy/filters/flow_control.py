"""
C{flowControlFilter}: limit the rate of requests.

As MOSN's C{pkg/filter/stream/flowcontrol}, for HTTP/1 and HTTP/2; in MOSN, requests
of HTTP/2 have no resource, so that no rule applies to them.
"""

from __future__ import annotations

__all__ = ["FlowControl"]

from collections.abc import Iterator

from twisted.internet.interfaces import IReactorTime

from reverseproxy.config.models import FlowControlConfig
from reverseproxy.proxy.filters.chain import FilteredRequest, LocalReply, Step
from reverseproxy.proxy.filters.flow_rules import BLOCKED, FlowRule, Window
from reverseproxy.proxy.flags import ResponseFlag

_MEMORY_ADAPTIVE = 2


class FlowControl:
    """Limits the rate of requests; it counts no more resources than its rules name."""

    before_route = False

    def __init__(self, config: FlowControlConfig, clock: IReactorTime, share: int) -> None:
        """
        @param share: how many processes there are.
        """
        self._clock = clock
        self._kind = config.limit_key_type
        self._rules: dict[str, list[tuple[FlowRule, Window | None]]] = {}
        windows: dict[tuple[str, int], Window] = {}
        for each in config.rules:
            if each.token_calculate_strategy == _MEMORY_ADAPTIVE:
                continue  # the file says that it may be ignored
            rule = FlowRule(each, share)
            window = None
            if rule.looks_back:
                window = windows.setdefault((rule.counted, rule.interval), Window(rule.interval))
            self._rules.setdefault(each.resource, []).append((rule, window))
        self._windows: dict[str, list[Window]] = {}
        for (resource, _), window in windows.items():
            self._windows.setdefault(resource, []).append(window)
        action = config.action
        self._refusal = LocalReply(
            action.status, "refused by flow control", action.body.encode("utf-8", "replace"), ResponseFlag.RL
        )

    def apply(self, request: FilteredRequest) -> Iterator[Step]:
        """See L{reverseproxy.proxy.filters.chain.RequestFilter}."""
        resource = self._resource(request)
        if not resource:
            return
        for rule, window in self._rules.get(resource, ()):
            wait = rule.check(window, self._clock.seconds())
            if wait == BLOCKED:
                yield self._refusal
                return
            if wait > 0.0:
                yield wait
        for window in self._windows.get(resource, ()):
            window.add(self._clock.seconds())

    def _resource(self, request: FilteredRequest) -> str:
        """Return the resource that a request is counted for; empty for one of RPC."""
        if self._kind == "PATH":
            return request.facts.path
        return request.facts.query if self._kind == "ARG" else request.target
