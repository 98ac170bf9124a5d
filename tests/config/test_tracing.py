"""Tests for L{reverseproxy.config._tracing}."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.models import TracingOptions
from tests.config.documents import TUNNEL_SERVER, edited, parse, problems, warnings


def document(**tracing: Any) -> dict[str, Any]:
    return edited(TUNNEL_SERVER, ("tracing", tracing))


class TracingTests(SynchronousTestCase):
    def options(self, **tracing: Any) -> TracingOptions | None:
        found = parse(document(**tracing))
        self.assertEqual(found.warnings, ())
        assert found.config.tracing is not None
        return found.config.tracing.options

    def test_off(self) -> None:
        self.assertIsNone(parse(TUNNEL_SERVER).config.tracing)
        self.assertIsNone(self.options())
        self.assertIsNone(self.options(enable=False, driver="SkyWalking"))

    def test_mosn_s_keys(self) -> None:
        """Those of its driver otel."""
        found = self.options(
            enable=True,
            driver="otel",
            config={
                "service_name": "shop_sidecar",
                "report_method": "http",
                "endpoint": "127.0.0.1:6831",
                "config_map": {"zone": "b"},
            },
        )
        assert found is not None
        self.assertEqual(found.url, "http://127.0.0.1:6831/v1/traces")
        self.assertEqual((found.service_name, found.config_map), ("shop_sidecar", {"zone": "b"}))

    def test_defaults(self) -> None:
        found = self.options(enable=True)
        assert found is not None
        self.assertEqual(found.url, "http://127.0.0.1:4318/v1/traces")
        self.assertEqual((found.sample_rate, found.accept, found.propagation), (1.0, "trusted", ("w3c",)))

    def test_other_drivers(self) -> None:
        for driver in ("SOFATracer", "SkyWalking", "jaeger", "Zipkin"):
            self.assertIn(
                f'tracing.driver: "{driver}" is not supported, so that nothing is traced; write otel, which '
                "sends spans by OTLP over HTTP, and takes W3C's and B3's header fields",
                warnings(document(enable=True, driver=driver)),
            )

    def test_grpc(self) -> None:
        [warning] = warnings(document(enable=True, config={"report_method": "grpc"}))
        self.assertIn("4318", warning)

    def test_mistakes(self) -> None:
        for options, place, message in (
            ({"sample_rate": 1.5}, "sample_rate", "1.5 is no share"),
            ({"sample_rate": -1}, "sample_rate", "-1 is no share"),
            ({"propagation": ["w3c", "jaeger"]}, "propagation[1]", '"jaeger" is not known'),
            ({"endpoint": "collector"}, "endpoint", "has no port"),
            ({"endpoint": "ftp://collector"}, "endpoint", "no URL of http or https"),
            ({"headers": {"a": 1}}, "headers", "the value can't be used"),
            ({"config_map": []}, "config_map", "not an object of texts"),
        ):
            [found] = problems(document(enable=True, config=options))
            self.assertIn(f"tracing.config.{place}: ", found)
            self.assertIn(message, found)
