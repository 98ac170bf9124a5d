"""Checks of stream filters that concern several keys."""

from __future__ import annotations

__all__ = ["check_filters"]

from collections.abc import Sequence
from typing import Final

from reverseproxy.config._checker import Checker
from reverseproxy.config._filters import (
    FaultConfig,
    HeaderToMetadataConfig,
    IpAccessConfig,
    PayloadLimitConfig,
    PerFilterConfig,
    StreamFilterConfig,
)
from reverseproxy.config._flow_control import FlowControlConfig, FlowRuleConfig
from reverseproxy.config._headers import HeaderMatcherConfig
from reverseproxy.config._listeners import ListenerConfig
from reverseproxy.config._nodes import Location
from reverseproxy.config._proxies import ProxyConfig
from reverseproxy.config._tcp_proxy import TcpProxyConfig
from reverseproxy.config._tree import Tree
from reverseproxy.config._tunnels import TunnelConfig
from reverseproxy.config._values import compile_regex
from reverseproxy.config.diagnostics import Diagnostics
from reverseproxy.config.models import Config

_PROTECTING: Final = (IpAccessConfig, PayloadLimitConfig, FlowControlConfig)
_WITHOUT_REQUESTS: Final = (TcpProxyConfig, TunnelConfig)
_RPC: Final = frozenset({"bolt", "boltv2", "dubbo"})
_MEMORY_ADAPTIVE: Final = 2
_WARM_UP: Final = 1


def check_filters(config: Config, tree: Tree, findings: Diagnostics) -> None:
    """
    Check all stream filters, and their options in routes.

    @param config: the models, without the values that are wrong by themselves.
    @param tree: the document.
    @param findings: gets errors and warnings.
    """
    _FilterChecker(config, tree, findings).run()


class _FilterChecker(Checker):
    """Runs all checks; keeps the types of filters that the requests of each router pass."""

    def __init__(self, config: Config, tree: Tree, findings: Diagnostics) -> None:
        super().__init__(config, tree, findings)
        self._passed: dict[str, set[str]] = {}
        for listener in config.servers[0].listeners:
            types = {each.type for each in listener.stream_filters}
            for chain in listener.filter_chains:
                for entry in chain.filters:
                    if isinstance(entry.config, ProxyConfig):
                        self._passed.setdefault(entry.config.router_config_name, set()).update(types)

    def run(self) -> None:
        """Run all checks."""
        for index, listener in enumerate(self._config.servers[0].listeners):
            self._listener(("servers", 0, "listeners", index), listener)
        for index, router in enumerate(self._config.servers[0].routers):
            passed = self._passed.get(router.router_config_name)
            place = ("servers", 0, "routers", index, "virtual_hosts")
            for number, host in enumerate(router.virtual_hosts):
                self._of_routes((*place, number, "per_filter_config"), host.per_filter_config, passed)
                for position, rule in enumerate(host.routers):
                    where = (*place, number, "routers", position, "per_filter_config")
                    self._of_routes(where, rule.per_filter_config, passed)

    # at listeners

    def _listener(self, location: Location, listener: ListenerConfig) -> None:
        entries = [entry for chain in listener.filter_chains for entry in chain.filters]
        blind = [entry.type for entry in entries if isinstance(entry.config, _WITHOUT_REQUESTS)]
        spoken = {
            name
            for entry in entries
            if isinstance(entry.config, ProxyConfig)
            for name in entry.config.protocols
        }
        hosted = any(
            agent.enable and agent.hosting_listener == listener.name for agent in self._config.agents
        )
        for index, each in enumerate(listener.stream_filters):
            place = (*location, "stream_filters", index)
            self._filter(place, each, blind, spoken)
            if isinstance(each.config, IpAccessConfig) and hosted and not each.config.header:
                self._warn(
                    place, "requests that come by way of a tunnel agent come from the address of its server"
                )

    def _filter(
        self, location: Location, entry: StreamFilterConfig, blind: Sequence[str], spoken: set[str]
    ) -> None:
        """
        Check a filter.

        @param blind: network filters of its listener that don't handle requests.
        @param spoken: the protocols of its listener.
        """
        if not entry.type:
            if not self._tree.get((*location, "go_plugin_config")):
                self._error((*location, "type"), "missing key: the kind of filter")
            return
        if blind and isinstance(entry.config, _PROTECTING):
            self._tree.unsupported(
                location, f"looks at requests, and {blind[0]} has none: its connections are not looked at"
            )
        config, place = entry.config, (*location, "config")
        match config:
            case PayloadLimitConfig():
                self._payload(place, config)
            case FaultConfig():
                self._headers((*place, "headers"), config.headers)
            case FlowControlConfig():
                self._flow(place, config)
                if spoken and spoken <= _RPC and config.rules:
                    names = " and ".join(sorted(spoken))
                    self._warn(location, f"requests of {names} have no path or query: no rule is for them")
            case HeaderToMetadataConfig():
                self._labels((*place, "request_rules"), config)

    def _payload(self, location: Location, config: PayloadLimitConfig) -> None:
        if not config.max_entity_size:
            self._warn((*location, "max_entity_size"), "is 0: nothing is limited")

    def _headers(self, location: Location, headers: Sequence[HeaderMatcherConfig]) -> None:
        for index, header in enumerate(headers):
            if header.regex:
                try:
                    compile_regex(header.value)
                except ValueError as error:
                    self._error((*location, index, "value"), str(error))

    def _labels(self, location: Location, config: HeaderToMetadataConfig) -> None:
        for index, rule in enumerate(config.request_rules):
            given = (rule.on_header_present is not None) + (rule.on_header_missing is not None)
            if given != 1:
                self._error((*location, index), "write either on_header_present or on_header_missing")

    def _flow(self, location: Location, config: FlowControlConfig) -> None:
        if config.rules and not config.global_switch:
            self._warn((*location, "global_switch"), "is not true: no rule counts, as in MOSN")
        for index, rule in enumerate(config.rules):
            self._flow_rule((*location, "rules", index), rule)

    def _flow_rule(self, location: Location, rule: FlowRuleConfig) -> None:
        """Check a rule for mistakes, with which MOSN ignores it."""
        if rule.token_calculate_strategy == _MEMORY_ADAPTIVE:
            problem = "2 (MemoryAdaptive) is not supported: there would be no such rule"
            self._tree.unsupported((*location, "token_calculate_strategy"), problem)
        elif rule.token_calculate_strategy == _WARM_UP:
            if not rule.warm_up_period_sec:
                self._error((*location, "warm_up_period_sec"), "must be above 0 for tokenCalculateStrategy 1")
            if rule.warm_up_cold_factor == 1:
                self._error(
                    (*location, "warm_up_cold_factor"), "must be above 1 for tokenCalculateStrategy 1"
                )
            if not rule.threshold:
                self._error((*location, "threshold"), "must be above 0 for tokenCalculateStrategy 1")
        if rule.relation_strategy and not rule.ref_resource:
            self._error((*location, "ref_resource"), "missing key: what relationStrategy 1 counts instead")

    # at routes

    def _of_routes(self, location: Location, config: PerFilterConfig, passed: set[str] | None) -> None:
        """
        Check the options of filters in routes.

        @param passed: the types of filters that the router's requests pass; L{None} if no listener
            uses the router.
        """
        reason = "has no effect: no listener whose requests come here has this filter"
        if config.payload_limit is not None:
            self._payload((*location, "payload_limit"), config.payload_limit)
            if passed is not None and "payload_limit" not in passed:
                self._tree.unsupported((*location, "payload_limit"), reason)
        if config.fault is not None:
            self._headers((*location, "fault", "headers"), config.fault.headers)
            if passed is not None and "fault" not in passed:
                self._warn((*location, "fault"), reason)
