from __future__ import annotations

import re
from typing import Any

from pydantic import ValidationError
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config import models
from reverseproxy.config._base import Model, keys_of, shape_of
from reverseproxy.config._tls import CIPHER_SUITES
from reverseproxy.config.models import (
    ClusterConfig,
    ClusterManagerConfig,
    Config,
    DirectResponseConfig,
    ExtendConfig,
    FilterChainConfig,
    FilterConfig,
    HostConfig,
    LbConfig,
    ListenerConfig,
    MatchConfig,
    ProxyConfig,
    RedirectConfig,
    RouteActionConfig,
    RouterConfig,
    ServerConfig,
    TcpProxyConfig,
    TlsContextConfig,
    TunnelAgentConfig,
    TunnelConfig,
)

_HOLLOW = re.compile(r"not acted on[:;,]?|,? ?as in MOSN[:;,]?")
"""What a reason may begin with, without being one."""


def all_models() -> list[type[Model]]:
    found: list[type[Model]] = [Config]
    for model in found:
        nested = [shape_of(field.annotation).model for _, field, _ in keys_of(model)]
        for entry in (*nested, *model.config_by_type.values()):
            if entry is not None and entry not in found:
                found.append(entry)
    return found


class FieldTests(SynchronousTestCase):
    """What must hold for every key."""

    def test_all_models_are_public(self) -> None:
        self.assertEqual({model.__name__ for model in all_models()}, set(models.__all__))

    def test_descriptions(self) -> None:
        for model in all_models():
            self.assertTrue(model.__doc__)
            for name, field, _ in keys_of(model):
                description = field.description or ""
                self.assertTrue(
                    description[:1].isupper() and description.endswith("."),
                    f"{model.__name__}.{name}: {description!r}",
                )

    def test_reasons(self) -> None:
        """What is not acted on says why, in so many words, and not only that MOSN does not do so either."""
        for model in all_models():
            for name, _, info in keys_of(model):
                reasons = [*info.later.values(), *info.skipped.values()]
                if not info.acted:
                    reasons.append(_HOLLOW.sub("", info.why))
                for reason in reasons:
                    self.assertGreaterEqual(len(reason.split()), 3, f"{model.__name__}.{name}: {reason}")
                    self.assertNotIn("yet", reason.split())

    def test_every_key_may_be_absent(self) -> None:
        """As in Go, nothing is required of a model; the loader demands what must be there."""
        for model in all_models():
            model()

    def test_names_differ_in_more_than_case(self) -> None:
        for model in all_models():
            names = [info.name.lower() for _, _, info in keys_of(model)]
            self.assertEqual(len(names), len(set(names)), model)

    def test_defaults_are_valid(self) -> None:
        for model in all_models():
            required = {name for name, _, info in keys_of(model) if info.required}
            defaults = {name: value for name, value in dict(model()).items() if name not in required}
            self.assertEqual(model(**defaults), model(), model)

    def test_fallbacks_are_choices(self) -> None:
        for model in all_models():
            for name, field, info in keys_of(model):
                if info.fallback:
                    self.assertIn(info.fallback, info.choices, name)
                    self.assertEqual(field.default, info.fallback)
                self.assertTrue(set(info.choices).isdisjoint({*info.later, *info.skipped}))


class DefaultTests(SynchronousTestCase):
    """Defaults that the rest relies upon."""

    def check(self, model: Model, **values: Any) -> None:
        for name, value in values.items():
            self.assertEqual(getattr(model, name), value, name)

    def test_agent(self) -> None:
        self.check(
            TunnelAgentConfig(),
            enable=False,
            connection_num=0,
            connect_retry_times=0,
            reconnect_base_duration=3.0,
            connect_timeout_duration=15.0,
            graceful_close_max_wait_duration=30.0,
            tls_context=None,
            host_name="",
            weight=10,
            reconnect_max_duration=60.0,
            stable_duration=30.0,
            dns_refresh_duration=30.0,
            dead_peer_timeout=5.0,
            announce=True,
        )

    def test_tunnel(self) -> None:
        self.check(
            TunnelConfig(),
            credential_policy="",
            handshake_timeout=15.0,
            publish_delay=0.02,
            max_pending_connections=4096,
            max_joins_per_second=1000,
            dead_peer_timeout=5.0,
        )

    def test_clusters(self) -> None:
        self.check(
            ClusterConfig(name="a"),
            lb_type="LB_ROUNDROBIN",
            connect_timeout=10.0,
            idle_timeout=None,
            max_pending_requests=1024,
            max_requests=0,
            lbconfig=LbConfig(choice_count=2, active_request_bias=1.0),
        )

    def test_server(self) -> None:
        self.check(ServerConfig(), graceful_timeout=30.0, default_log_level="INFO")
        self.check(
            ListenerConfig(address="a:1"),
            name="a:1",
            bind_port=False,
            network="tcp",
            connection_idle_timeout=None,
        )
        self.check(
            ProxyConfig().http1, max_header_size=8192, max_request_body_size=0, via="", x_forwarded="off"
        )

    def test_zero_values(self) -> None:
        """What is 0 in Go when a key is absent."""
        self.check(RedirectConfig(response_code=0), response_code=301)
        self.check(DirectResponseConfig(status=0), status=200)
        self.check(TlsContextConfig(min_version=""), min_version="TLS_AUTO")


class BehaviourTests(SynchronousTestCase):
    """What models do beside holding values."""

    def test_frozen(self) -> None:
        with self.assertRaises(ValidationError):
            Config().pid = "x"

    def test_unknown_attributes(self) -> None:
        with self.assertRaises(ValidationError):
            ClusterConfig(name="a", hots=())  # type: ignore[call-arg]

    def test_durations_in_code_are_seconds(self) -> None:
        self.assertEqual(ClusterConfig(name="a", connect_timeout=3).connect_timeout, 3.0)
        self.assertEqual(ClusterConfig(name="a", connect_timeout="3s").connect_timeout, 3.0)
        self.assertEqual(TcpProxyConfig(idle_timeout=3).idle_timeout, 3.0)
        for value in (None, True, [], "3", -1):
            with self.assertRaises(ValidationError):
                RouteActionConfig(timeout=value) if value != -1 else ClusterConfig(connect_timeout=-1)

    def test_filter_config_follows_the_type(self) -> None:
        for kind, model in FilterConfig.config_by_type.items():
            self.assertEqual(FilterConfig(type=kind).config, model())
            self.assertEqual(FilterConfig(type=kind, config=model()).config, model())
        self.assertIsNone(FilterConfig(type="grpc", config={"a": 1}).config)
        self.assertIsInstance(FilterConfig(type="tcp_proxy", config={"cluster": "a"}).config, TcpProxyConfig)
        with self.assertRaises(ValidationError):
            FilterConfig(type="tcp_proxy", config=ProxyConfig())

    def test_agents(self) -> None:
        agent = TunnelAgentConfig(cluster="a")
        config = Config(
            servers=[ServerConfig()],
            extends=(ExtendConfig(type="tunnel_agent", config=agent), ExtendConfig(type="other", config={})),
        )
        self.assertEqual(config.agents, (agent,))
        self.assertEqual(config.server, ServerConfig())

    def test_tls_contexts(self) -> None:
        off, on = TlsContextConfig(), TlsContextConfig(status=True)
        self.assertEqual(FilterChainConfig().tls_contexts, ())
        self.assertEqual(FilterChainConfig(tls_context=off).tls_contexts, ())
        self.assertEqual(FilterChainConfig(tls_context=on).tls_contexts, (on,))
        self.assertEqual(FilterChainConfig(tls_context_set=(on, off, on)).tls_contexts, (on, on))

    def test_tls_that_is_off_is_none(self) -> None:
        off = TlsContextConfig(server_name="x")
        self.assertIsNone(ClusterConfig(name="a", tls_context=off).tls_context)
        self.assertIsNone(TunnelAgentConfig(tls_context=off).tls_context)
        self.assertIsNone(ClusterManagerConfig(tls_context=off).tls_context)

    def test_shared_tls(self) -> None:
        shared, own = (TlsContextConfig(status=True, server_name=name) for name in ("shared", "own"))
        clusters = (
            ClusterConfig(name="a", cluster_manager_tls=True, tls_context=own),
            ClusterConfig(name="b", tls_context=own),
        )
        manager = ClusterManagerConfig(clusters=clusters, tls_context=shared)
        self.assertEqual([cluster.tls_context for cluster in manager.clusters], [shared, own])
        manager = ClusterManagerConfig(clusters=clusters)
        self.assertEqual([cluster.tls_context for cluster in manager.clusters], [None, own])

    def test_tls_values(self) -> None:
        context = TlsContextConfig(
            min_version="tlsV1_2",
            ecdh_curves="P256, X25519,",
            alpn="h2,http/1.1",
            cipher_suites="RSA-AES256-CBC-SHA",
        )
        self.assertEqual(context.min_version, "TLSv1_2")
        self.assertEqual(context.ecdh_curves, ("p256", "x25519"))
        self.assertEqual(context.alpn, ("h2", "http/1.1"))
        self.assertEqual(context.openssl_ciphers, "AES256-SHA")

    def test_cipher_suites(self) -> None:
        context = TlsContextConfig(
            cipher_suites=":".join([*CIPHER_SUITES, "AES256-GCM-SHA384", "AES128-SHA"])
        )
        self.assertEqual(context.openssl_ciphers, ":".join([*CIPHER_SUITES.values(), "AES128-SHA"]))

    def test_addresses(self) -> None:
        for address in ("a:1", "10.0.0.1:65535", "[::1]:1", "unix:/x", "unix:@x"):
            self.assertEqual(HostConfig(address=address).address, address)
        for address in (
            "a",
            "a:0",
            ":1",
            "a:b",
            "a:-1",
            "a:\u0661",
            "::1",
            "[::1]",
            "[::1",
            "unix:",
            "a:1:2",
        ):
            with self.assertRaises(ValidationError):
                HostConfig(address=address)

    def test_regex(self) -> None:
        MatchConfig(regex=r"^/\d+(?i:x)$")
        with self.assertRaises(ValidationError):
            MatchConfig(regex=r"(a)\1")

    def test_connection_manager_is_a_router(self) -> None:
        config = FilterConfig(type="connection_manager", config={"router_config_name": "a"}).config
        self.assertEqual(config, RouterConfig(router_config_name="a"))
