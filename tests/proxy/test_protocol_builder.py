"""Tests for L{reverseproxy.proxy.protocol_builder}: settings that change while connections are open."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ProxyConfig, RouterConfig
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.protocols import IDLE_TIMEOUT, ProxyPlan, build_proxy
from reverseproxy.routing import Router

ACCEPTED = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80")
REVERSE = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80", reverse=True)


def build(protocol: str, idle_timeout: float | None = None, fallback: Any = None, **more: Any) -> Any:
    config = ProxyConfig.model_validate({"downstream_protocol": protocol, "router_config_name": "r", **more})
    plan = ProxyPlan(
        listener="test",
        config=config,
        router=Router(RouterConfig(router_config_name="r")),
        clusters=ClusterManager(),
        clock=Clock(),
        filters=None,
        idle_timeout=idle_timeout,
        access_log=None,
        random=lambda: 0.0,
    )
    return build_proxy(plan, fallback)


def settings_of(protocol: Any) -> Any:
    return getattr(protocol, "settings", None) or protocol._settings


class ServedTests(SynchronousTestCase):
    def test_connections_that_are_open(self) -> None:
        """They have the settings of those that are made later, each kind its own."""
        for protocol in ("Http1", "Http2", "bolt", "dubbo"):
            old = build(protocol)
            accepted, reverse = old(ACCEPTED), old(REVERSE)
            new = build(protocol, 7.0, stream_idle_timeout="9s")
            self.assertTrue(old.take_over(new))
            for each in (accepted, reverse):
                self.assertEqual(settings_of(each).idle_timeout, 7.0)
                self.assertEqual(settings_of(each).stream_idle, 9.0)
                self.assertIs(settings_of(each), settings_of(old(each.info)))
            self.assertTrue(old.take_over(build(protocol)))
            self.assertEqual(settings_of(accepted).idle_timeout, IDLE_TIMEOUT)
            self.assertIsNone(settings_of(reverse).idle_timeout)

    def test_one_change_after_another(self) -> None:
        """However often: those of the first connection are never left behind."""
        old = build("Auto")
        [http1] = [each for each in old.parts if each.kind == "Http1"]
        first = http1(ACCEPTED)
        for seconds in (3.0, 4.0, 5.0):
            self.assertTrue(old.take_over(build("Auto", seconds)))
            self.assertEqual(settings_of(first).idle_timeout, seconds)
            detector = old(ACCEPTED)
            self.assertEqual(settings_of(detector).idle_timeout, seconds)
            names = [candidate.name for candidate in settings_of(detector).candidates]
            self.assertEqual(names[:2], ["Http2", "Http1"])
            self.assertIs(settings_of(detector).candidates[1].build, http1)

    def test_another_protocol(self) -> None:
        """Nothing changes then."""
        for before, after in (
            ("Http1", "Http2"),
            ("Http1", "Http1,Http2"),
            ("Http1,Http2", "Http1,bolt"),
            ("bolt", "boltv2"),
        ):
            old = build(before)
            self.assertFalse(old.take_over(build(after, 7.0)), (before, after))
            self.assertIn(settings_of(old(ACCEPTED)).idle_timeout, (IDLE_TIMEOUT, None))
        self.assertFalse(build("Http1").take_over(None))

    def test_what_is_behind(self) -> None:
        """A fallback goes on as well, if it can."""
        keys = {"fallback_for_unknown_protocol": True}
        behind = build("bolt")
        old = build("Http1,Http2", None, behind, **keys)
        protocol = behind(ACCEPTED)
        self.assertTrue(old.take_over(build("Http1,Http2", None, build("bolt", 7.0), **keys)))
        self.assertEqual(settings_of(protocol).idle_timeout, 7.0)
        self.assertFalse(old.take_over(build("Http1,Http2", None, build("dubbo"), **keys)))
        self.assertFalse(old.take_over(build("Http1,Http2")))
