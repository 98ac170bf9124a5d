"""Tests for the keys of HTTP/2."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import Http2HostOptions, Http2Options, ProxyConfig
from tests.config.documents import CLUSTER, FILTER, TUNNEL_SERVER, edited, parse, problems


class Http2Tests(SynchronousTestCase):
    def document(self, **config: Any) -> Any:
        """A document whose first filter speaks HTTP/2."""
        proxy = {"downstream_protocol": "Http2", "router_config_name": "web", **config}
        return edited(TUNNEL_SERVER, (f"{FILTER}.config", proxy))

    def load(self, **config: Any) -> tuple[ProxyConfig, list[str]]:
        loaded = parse(self.document(**config))
        proxy = loaded.config.server.listeners[0].filter_chain.filters[0].config
        assert isinstance(proxy, ProxyConfig)
        return proxy, [str(warning) for warning in loaded.warnings if FILTER in str(warning)]

    def test_protocol_is_taken(self) -> None:
        proxy, warnings = self.load()
        self.assertEqual((proxy.protocols, proxy.http2, warnings), (("Http2",), Http2Options(), []))

    def test_both_forms_of_options(self) -> None:
        for options in ({"max_resets": 17}, {"Http2": {"max_resets": 17}}, {"http2": {"max_resets": 17}}):
            proxy, warnings = self.load(extend_config=options)
            self.assertEqual((proxy.http2.max_resets, warnings), (17, []))

    def test_streaming_is_always_on(self) -> None:
        for value in (True, False):
            self.assertEqual(self.load(extend_config={"http2_use_stream": value})[1], [])

    def test_bounds(self) -> None:
        for name, bad in (
            ("max_concurrent_streams", 0),
            ("max_header_list_size", 100),
            ("initial_window_size", 2**31),
            ("max_window_size", 1000),
            ("max_window_growth", 2**31),
            ("max_resets", 1),
            ("max_control_frames", 0),
        ):
            [problem] = problems(self.document(extend_config={"Http2": {name: bad}}))
            self.assertIn(f"{name}: {bad} is out of range", problem)


class WindowsTests(SynchronousTestCase):
    def test_windows_towards_hosts(self) -> None:
        place = f"{CLUSTER}.http2_windows"
        [cluster, *_] = parse(edited(TUNNEL_SERVER, (place, {}))).config.cluster_manager.clusters
        self.assertEqual(cluster.http2_windows, Http2HostOptions())
        value = {"initial_window_size": 2048, "max_window_size": 4096, "max_window_growth": 0}
        [cluster, *_] = parse(edited(TUNNEL_SERVER, (place, value))).config.cluster_manager.clusters
        self.assertEqual(cluster.http2_windows.model_dump(), value)

    def test_bounds(self) -> None:
        for name in ("initial_window_size", "max_window_size", "max_window_growth"):
            document = edited(TUNNEL_SERVER, (f"{CLUSTER}.http2_windows", {name: 2**31}))
            [problem] = problems(document)
            self.assertIn(f"{name}: {2**31} is out of range", problem)


class KeepaliveTests(SynchronousTestCase):
    def test_keepalive(self) -> None:
        place = f"{CLUSTER}.keepalive"
        for value, expected in (
            ({"interval": "10s", "timeout": "2s"}, (10.0, 2.0)),
            ({"interval": "10s"}, (10.0, 1.0)),
            ({"interval": "10s", "timeout": 0}, (10.0, 1.0)),
            ({}, (0.0, 1.0)),
        ):
            [cluster, *_] = parse(edited(TUNNEL_SERVER, (place, value))).config.cluster_manager.clusters
            self.assertEqual((cluster.keepalive.interval, cluster.keepalive.timeout), expected)
