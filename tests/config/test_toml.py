"""Tests for L{reverseproxy.config._toml}."""

from __future__ import annotations

import json
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config.loader import load
from reverseproxy.errors import ConfigError

TOML = """
[[servers]]
default_log_level = "INFO"  # with a comment

[[servers.listeners]]
name = "tunnels"
address = "127.0.0.1:${PORT:-9999}"
bind_port = true

[[servers.listeners.filter_chains]]
filters = [{ type = "tunnel", config = { max_hosts_per_agent = 8 } }]

[cluster_manager]
clusters = [{ name = "edge" }]
"""

JSON = {
    "servers": [
        {
            "default_log_level": "INFO",
            "listeners": [
                {
                    "name": "tunnels",
                    "address": "127.0.0.1:9999",
                    "bind_port": True,
                    "filter_chains": [
                        {"filters": [{"type": "tunnel", "config": {"max_hosts_per_agent": 8}}]}
                    ],
                }
            ],
        }
    ],
    "cluster_manager": {"clusters": [{"name": "edge"}]},
}


class TomlTests(SynchronousTestCase):
    def file(self, text: str, name: str = "server.toml") -> str:
        path = Path(self.mktemp())
        path.mkdir()
        (path / name).write_text(text)
        return str(path / name)

    def problem(self, text: str) -> str:
        path = self.file(text)
        with self.assertRaises(ConfigError) as caught:
            load(path)
        return str(caught.exception).replace(path, "FILE")

    def test_it_is_what_json_says(self) -> None:
        expected = load(self.file(json.dumps(JSON), "server.json")).config
        self.assertEqual(load(self.file(TOML)).config, expected)
        self.assertEqual(load(self.file(TOML, "server.TOML")).config, expected)

    def test_mistakes(self) -> None:
        for text, wanted in (
            ("", "FILE: is empty"),
            ("a = ", "not TOML: invalid value (at end of document)"),
            ("[servers]\n[servers]\n", "FILE: line 2, column 9: not TOML: cannot declare ('servers',) twice"),
            (TOML.replace("name = ", "nam = "), "FILE: cluster_manager.clusters[0].name: missing key"),
            (TOML.replace("true", "2026-01-02"), "servers[0].listeners[0].bind_port"),
            (
                TOML.replace('name = "edge"', 'name = "edge", spec = [nan]'),
                "FILE: cluster_manager.clusters[0].spec[0]: expected a finite number, got the number nan",
            ),
            ("a = " + "[" * 100_000, "is nested too deeply"),
            ("a = " + "9" * 10_000, "FILE: line 1, column 5: not TOML: an integer has too many digits"),
            ("a = 0x" + "f" * 5000, "FILE: line 1, column 5: not TOML: an integer has too many digits"),
        ):
            self.assertIn(wanted, self.problem(text), text[:50])
