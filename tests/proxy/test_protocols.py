from __future__ import annotations

from typing import Any

from twisted.internet.protocol import Protocol
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.cluster.manager import ClusterManager
from reverseproxy.config.models import ProxyConfig, RouterConfig
from reverseproxy.errors import ConfigError
from reverseproxy.interfaces import ConnectionInfo
from reverseproxy.proxy.detect import Detector
from reverseproxy.proxy.http.http1_server import Http1Proxy
from reverseproxy.proxy.http.http2_server import Http2Proxy
from reverseproxy.proxy.protocols import IDLE_TIMEOUT, ProxyPlan, build_proxy
from reverseproxy.proxy.rpc import protocols as xprotocols
from reverseproxy.proxy.rpc.server import RpcProxy
from reverseproxy.routing import Router

ACCEPTED = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80")
REVERSE = ConnectionInfo("10.9.9.9:1234", "10.0.0.1:80", reverse=True)


class _Plugin:
    name = "plugged"

    def build(self, options: Any) -> Any:
        if options.get("bad"):
            raise ValueError("bad is not good")
        protocol = xprotocols.find_xprotocol("dubbo")
        protocol.name = "plugged"
        return protocol


class ProtocolsTests(SynchronousTestCase):
    def build(
        self, protocol: str, idle_timeout: float | None = None, fallback: Any = None, **more: Any
    ) -> Any:
        self.patch(xprotocols, "getPlugins", lambda interface: [_Plugin()])
        config = ProxyConfig.model_validate(
            {"downstream_protocol": protocol, "router_config_name": "r", **more}
        )
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

    def problems(self, protocol: str, **more: Any) -> list[str]:
        with self.assertRaises(ConfigError) as caught:
            self.build(protocol, **more)
        return [str(problem) for problem in caught.exception.problems]

    def test_one(self) -> None:
        self.assertIsInstance(self.build("Http1")(ACCEPTED), Http1Proxy)
        self.assertIsInstance(self.build("Http2")(ACCEPTED), Http2Proxy)
        for name in ("bolt", "boltv2", "dubbo", "plugged"):
            proxy = self.build(name)(ACCEPTED)
            self.assertIsInstance(proxy, RpcProxy)
            self.assertEqual(proxy.protocol.name, name)

    def test_options(self) -> None:
        options = {"bolt": {"enable_bolt_goaway": True, "max_frame_size": 2000}}
        for name in ("bolt", "boltv2"):
            proxy = self.build(name, extend_config=options)(ACCEPTED)
            self.assertNotEqual(proxy.protocol.goaway(1), b"")
            self.assertEqual(proxy.settings.max_frame, 2000)
        proxy = self.build("dubbo", extend_config={"dubbo": {"max_frame_size": 3000}})(ACCEPTED)
        self.assertEqual(proxy.settings.max_frame, 3000)
        options = {"xprotocols": {"plugged": {"max_frame_size": 4000}}}
        proxy = self.build("plugged", extend_config=options)(ACCEPTED)
        self.assertEqual(proxy.settings.max_frame, 4000)

    def test_the_form_of_old(self) -> None:
        proxy = self.build("X", extend_config={"sub_protocol": "bolt"})(ACCEPTED)
        self.assertEqual(proxy.protocol.name, "bolt")

    def test_several(self) -> None:
        detector = self.build("Http1,dubbo,bolt")(ACCEPTED)
        self.assertIsInstance(detector, Detector)
        names = [candidate.name for candidate in detector._settings.candidates]
        self.assertEqual(names, ["Http1", "dubbo", "bolt"])
        detector = self.build("X", extend_config={"sub_protocol": "bolt,boltv2"})(ACCEPTED)
        self.assertEqual([each.name for each in detector._settings.candidates], ["bolt", "boltv2"])

    def test_auto(self) -> None:
        for protocol in ("Auto", "Http1,Auto"):
            names = [each.name for each in self.build(protocol)(ACCEPTED)._settings.candidates]
            self.assertEqual(names[:2], ["Http2", "Http1"])
            self.assertEqual(names[-4:], ["bolt", "boltv2", "dubbo", "plugged"])

    def test_idle_timeouts(self) -> None:
        for given, accepted, reverse in ((None, IDLE_TIMEOUT, None), (0.0, None, None), (7.0, 7.0, 7.0)):
            for protocol in ("bolt", "Http1"):
                build = self.build(protocol, given)
                self.assertEqual(build(ACCEPTED).settings.idle_timeout, accepted)
                self.assertEqual(build(REVERSE).settings.idle_timeout, reverse)
            detector = self.build("Auto", given)(REVERSE)
            self.assertEqual(detector._settings.idle_timeout, reverse)
            candidate = detector._settings.candidates[0].build(REVERSE)
            self.assertEqual(candidate.settings.idle_timeout, reverse)

    def test_fallback(self) -> None:
        fallback = lambda info: Protocol()  # noqa: E731
        for falls_back, wanted in ((True, fallback), (False, None)):
            build = self.build("Auto", fallback=fallback, fallback_for_unknown_protocol=falls_back)
            self.assertIs(build(ACCEPTED)._settings.fallback, wanted)

    def test_unknown(self) -> None:
        names = "Auto, Http1, Http2, bolt, boltv2, dubbo, plugged"
        known = f"neither built in nor of a plug-in; known are: {names}"
        self.assertEqual(
            self.problems("magic,Http1,tragic"),
            [
                f"config.downstream_protocol: there is no protocol 'magic', {known}",
                f"config.downstream_protocol: there is no protocol 'tragic', {known}",
            ],
        )
        [problem] = self.problems("X", extend_config={"sub_protocol": "magic"})
        self.assertIn("config.extend_config.sub_protocol: there is no protocol 'magic'", problem)

    def test_bad_options(self) -> None:
        options: dict[str, Any] = {"xprotocols": {"plugged": {"bad": True}}}
        place = "config.extend_config.xprotocols.plugged"
        self.assertEqual(self.problems("plugged", extend_config=options), [f"{place}: bad is not good"])
        options = {"xprotocols": {"plugged": {"max_frame_size": "1M"}}}
        self.assertEqual(
            self.problems("plugged", extend_config=options),
            [f"{place}: max_frame_size is a number of bytes, not '1M'"],
        )
