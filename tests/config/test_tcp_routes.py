"""Tests for the C{routes} of a C{tcp_proxy} filter, from the document to the decision."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import TcpProxyConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.tcp.router import TcpRouter
from tests.config.documents import AGENT, FILTER, edited, parse, problems

ROUTES = f"{FILTER}.config.routes"

ROUTE: dict[str, Any] = {
    "cluster": "service",
    "SourceAddrs": [{"Address": "10.0.0.0", "Length": 8}],
    "DestinationAddrs": [{"Address": "127.0.0.1", "Length": 32}, {"Address": "::", "Length": 0}],
    "SourcePort": "1-65535",
    "DestinationPort": "80, 1000-2000",
}


class RouteTests(SynchronousTestCase):
    def load(self, config: dict[str, Any]) -> tuple[TcpProxyConfig, list[str]]:
        """The filter, and what is said of it."""
        loaded = parse(edited(AGENT, (f"{FILTER}.config", config)))
        model = loaded.config.server.listeners[0].filter_chain.filters[0].config
        assert isinstance(model, TcpProxyConfig)
        return model, [str(warning) for warning in loaded.warnings]

    def routed(self, route: dict[str, Any], remote: str, local: str) -> bool:
        config, warnings = self.load({"routes": [route]})
        self.assertEqual(warnings, [])
        return TcpRouter(config).cluster_for(ConnectionInfo(remote, local)) == "service"

    def test_a_route_is_acted_on(self) -> None:
        self.assertTrue(self.routed(ROUTE, "10.1.2.3:4", "127.0.0.1:80"))
        self.assertTrue(self.routed(ROUTE, "10.1.2.3:4", "[::1]:1999"))
        self.assertFalse(self.routed(ROUTE, "11.1.2.3:4", "127.0.0.1:80"))
        self.assertFalse(self.routed(ROUTE, "10.1.2.3:4", "127.0.0.2:80"))
        self.assertFalse(self.routed(ROUTE, "10.1.2.3:4", "127.0.0.1:81"))

    def test_keys_in_any_case(self) -> None:
        lower = {key.lower(): value for key, value in ROUTE.items()}
        self.assertTrue(self.routed(lower, "10.1.2.3:4", "127.0.0.1:80"))

    def test_keys_with_underscores_are_unknown_as_in_mosn(self) -> None:
        route = {**ROUTE, "source_addrs": ROUTE["SourceAddrs"]}
        del route["SourceAddrs"]
        config, warnings = self.load({"routes": [route]})
        self.assertEqual(config.routes[0].source_addrs, ())
        self.assertEqual(len(warnings), 2)
        self.assertIn('source_addrs: unknown key, ignored; did you mean "SourceAddrs"?', warnings[1])
        self.assertIn("takes no connection", warnings[0])

    def test_routes_beside_a_cluster_do_not_count(self) -> None:
        # As MOSN's own sample has it, which is no reason for a warning.
        config, warnings = self.load({"cluster": "service", "routes": [ROUTE]})
        self.assertEqual(warnings, [])
        self.assertEqual(TcpRouter(config).cluster_for(ConnectionInfo("1.1.1.1:1", "2.2.2.2:2")), "service")

    def test_wrong_values(self) -> None:
        for key, value in (
            ("SourcePort", "80-"),
            ("SourcePort", "90-80"),
            ("SourcePort", "65536"),
            ("SourcePort", "http"),
            ("DestinationPort", 80),
            ("SourceAddrs", [{"Address": "10.0.0", "Length": 8}]),
            ("SourceAddrs", [{"Address": "10.0.0.0", "Length": 33}]),
            ("DestinationAddrs", [{"Address": "::1", "Length": 129}]),
            ("DestinationAddrs", [{"Length": 8}]),
        ):
            [problem] = problems(edited(AGENT, (f"{FILTER}.config", {"routes": [{**ROUTE, key: value}]})))
            self.assertTrue(problem.startswith(f"{ROUTES}[0].{key}"), problem)
