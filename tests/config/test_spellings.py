"""Other names of keys: those of Go's fields, and those of MOSN's first version."""

from __future__ import annotations

import json
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config._base import spellings_of
from reverseproxy.config.models import TunnelAgentConfig
from tests.config.documents import AGENT, CONFIG, GONE, edited, parse, problems, text_problems, warnings
from tests.config.test_models import all_models

DURATIONS = {
    "reconnect_base_duration": "ReconnectBaseDuration",
    "connect_timeout_duration": "ConnectTimeoutDuration",
    "graceful_close_max_wait_duration": "GracefulCloseMaxWaitDuration",
}

FIRST_VERSION: dict[str, Any] = {
    "enable": True,
    "connection_num": 3,
    "cluster": "edge",
    "hosting_listener": "hosted",
    "server_list": ["127.0.0.1:9999"],
    "DynamicServerListConfig": {"DynamicServerLister": "dns", "config": {"name": "a.example:1"}},
    "connect_retry_times": 5,
    "reconnect_base_duration_ms": 3500,
    "connect_timeout_duration_ms": 250,
    "graceful_close_max_wait_duration_ms": 0,
}
"""An agent as MOSN's first version of the reverse channel has it."""


def agent(document: dict[str, Any]) -> TunnelAgentConfig:
    return parse(document).config.agents[0]


def with_agent(**keys: Any) -> dict[str, Any]:
    """The agent's document with more keys, or without those that are C{GONE}."""
    config = {**AGENT["extends"][0]["config"], **keys}
    return edited(AGENT, (CONFIG, {name: value for name, value in config.items() if value is not GONE}))


class AgentTests(SynchronousTestCase):
    def test_first_version(self) -> None:
        document = edited(AGENT, (CONFIG, FIRST_VERSION))
        [plaintext] = warnings(document)
        self.assertIn("there is no TLS to the servers that are listed", plaintext)
        config = agent(document)
        self.assertEqual(config.reconnect_base_duration, 3.5)
        self.assertEqual(config.connect_timeout_duration, 0.25)
        self.assertEqual(config.graceful_close_max_wait_duration, 30.0)
        self.assertEqual(config.dynamic_server_list_config.dynamic_server_lister, "dns")
        self.assertEqual(config.dynamic_server_list_config.config, {"name": "a.example:1"})

    def test_names_of_go(self) -> None:
        """Each field of MOSN's AgentBootstrapConfig by its name in Go, in this case and others."""
        named = {
            "Enable": True,
            "ConnectionNumPerAddress": 2,
            "Cluster": "edge",
            "HostingListener": "hosted",
            "StaticServerList": ["127.0.0.1:9999"],
            "DynamicServerListConfig": {"DynamicServerLister": ""},
            "ConnectRetryTimes": 7,
            "ReconnectBaseDurationMs": 1,
            "ConnectTimeoutDuration": "4s",
            "CredentialPolicy": "static",
            "GracefulCloseMaxWaitDurationMs": 2000,
            "TLSContext": {"status": True, "insecure_skip": True},
        }
        for change in (str, str.lower, str.upper):
            document = edited(AGENT, (CONFIG, {change(name): value for name, value in named.items()}))
            config = agent(document)
            self.assertTrue(config.enable)
            self.assertEqual(config.connection_num, 2)
            self.assertEqual(config.cluster, "edge")
            self.assertEqual(config.hosting_listener, "hosted")
            self.assertEqual(config.server_list, ("127.0.0.1:9999",))
            self.assertEqual(config.connect_retry_times, 7)
            self.assertEqual(config.reconnect_base_duration, 0.001)
            self.assertEqual(config.connect_timeout_duration, 4.0)
            self.assertEqual(config.credential_policy, "static")
            self.assertEqual(config.graceful_close_max_wait_duration, 2.0)
            assert config.tls_context is not None
            self.assertFalse([warning for warning in warnings(document) if "unknown" in warning])

    def test_every_field_of_go_has_a_key(self) -> None:
        known = spellings_of(TunnelAgentConfig)
        for name in ("ConnectionNum", "connection_num_per_address", "ServerList", "static_server_list"):
            self.assertIn(name.lower(), known)
        for name, go in DURATIONS.items():
            for spelling, milliseconds in ((go, False), (f"{go}Ms", True), (f"{name}_ms", True)):
                self.assertEqual(known[spelling.lower()].field, name)
                self.assertEqual(known[spelling.lower()].milliseconds, milliseconds)

    def test_both_and_the_same(self) -> None:
        for keys in (
            {"reconnect_base_duration": "3s", "reconnect_base_duration_ms": 3000},
            {"reconnect_base_duration_ms": 3000, "reconnect_base_duration": "3s"},
            {
                "reconnect_base_duration": "3s",
                "ReconnectBaseDuration": "3000ms",
                "reconnect_base_duration_MS": 3000,
            },
            {"reconnect_base_duration": "3s", "reconnect_base_duration_ms": None},
            {"reconnect_base_duration_ms": None, "reconnect_base_duration": "3s"},
            {"connect_timeout_duration": 0, "connect_timeout_duration_ms": 0},
            {"ConnectionNum": 1, "ConnectionNumPerAddress": 1},
            {"StaticServerList": ["127.0.0.1:9999"]},
            {
                "dynamic_server_list_config": {"dynamic_server_lister": ""},
                "DynamicServerListConfig": {"DynamicServerLister": ""},
            },
        ):
            with self.subTest(keys=keys):
                document = with_agent(**keys)
                self.assertEqual(warnings(document), [])
                self.assertEqual(agent(document).reconnect_base_duration, 3.0)

    def test_both_and_different(self) -> None:
        """The error names both places."""
        for keys, wrong, right, name in (
            (
                {"reconnect_base_duration": "3s", "reconnect_base_duration_ms": 3},
                "reconnect_base_duration_ms",
                "reconnect_base_duration",
                "reconnect_base_duration",
            ),
            (
                {"ConnectTimeoutDurationMs": 5000, "Connect_Timeout_Duration": "6s"},
                "Connect_Timeout_Duration",
                "ConnectTimeoutDurationMs",
                "ConnectTimeoutDurationMs",
            ),
            (
                {"connection_num": GONE, "ConnectionNumPerAddress": 1, "ConnectionNum": 2},
                "ConnectionNum",
                "ConnectionNumPerAddress",
                "ConnectionNumPerAddress",
            ),
            (
                {"StaticServerList": ["127.0.0.1:9998"]},
                "StaticServerList",
                "server_list",
                "server_list",
            ),
            (
                {
                    "dynamic_server_list_config": {"dynamic_server_lister": "dns"},
                    "DynamicServerListConfig": {"DynamicServerLister": "file"},
                },
                "DynamicServerListConfig",
                "dynamic_server_list_config",
                "dynamic_server_list_config",
            ),
        ):
            with self.subTest(keys=keys):
                self.assertEqual(
                    problems(with_agent(**keys)),
                    [
                        f'{CONFIG}.{wrong}: is another name of "{name}", which says something else at '
                        f"{CONFIG}.{right}; write one of them"
                    ],
                )

    def test_last_of_one_name_counts(self) -> None:
        """Names that differ in case alone are one key, which occurs twice."""
        text = json.dumps(with_agent(reconnect_base_duration_ms=1)).replace(
            '"reconnect_base_duration_ms": 1',
            '"reconnect_base_duration_ms": 1, "Reconnect_Base_Duration_Ms": 2',
        )
        self.assertEqual(text_problems(text), [])
        self.assertEqual(agent(json.loads(text)).reconnect_base_duration, 0.002)

    def test_wrong_milliseconds(self) -> None:
        """Errors are at the key as it is written."""
        for value, problem in {
            "3s": 'expected a whole number of milliseconds, got the text "3s"',
            3.5: "expected a whole number of milliseconds, got the number 3.5",
            True: "expected a whole number of milliseconds, got true",
            -1: "-1ms is negative; write 0 or a longer duration",
            10**20: '"100000000000000000000ms" is too long; the longest duration is about 292 years',
        }.items():
            self.assertEqual(
                problems(with_agent(reconnect_base_duration_ms=value)),
                [f"{CONFIG}.reconnect_base_duration_ms: {problem}"],
            )

    def test_checks_name_the_key_as_written(self) -> None:
        self.assertEqual(
            warnings(with_agent(connection_num=GONE, ConnectionNumPerAddress=0)),
            [f"{CONFIG}.ConnectionNumPerAddress: is 0: this agent holds no connections"],
        )


class NanosecondTests(SynchronousTestCase):
    def test_too_few_to_be_meant(self) -> None:
        place = "servers[0].listeners[0].filter_chains[0].filters[0].config.idle_timeout"
        self.assertEqual(
            warnings(edited(AGENT, (place, 3000))),
            [
                f"{place}: 3000 counts nanoseconds, as in MOSN: sessions are closed at once; write a Go "
                'duration such as "8s" or "300ms"'
            ],
        )
        for value in (0, 1_000_000, "3ms", None):
            self.assertEqual(warnings(edited(AGENT, (place, value))), [])


class ModelTests(SynchronousTestCase):
    def test_each_name_is_of_one_key(self) -> None:
        for model in all_models():
            fields = model.model_fields
            count = sum(1 for _ in spellings_of(model))
            names = [spelling.field for spelling in spellings_of(model).values()]
            self.assertTrue(set(names) == set(fields) and count >= len(fields), model)
