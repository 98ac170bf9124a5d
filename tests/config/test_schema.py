"""Tests for L{reverseproxy.config.schema}."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from jsonschema import Draft202012Validator
from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
from reverseproxy.config.schema import make_schema
from tests.config.documents import AGENT, CHAIN, LISTENER, TUNNEL_SERVER, edited

ROOT = Path(reverseproxy.__file__).resolve().parent.parent

WRONG = (
    (TUNNEL_SERVER, f"{LISTENER}.address", 80),
    (TUNNEL_SERVER, f"{LISTENER}.adress", ""),
    (TUNNEL_SERVER, f"{LISTENER}.bind_port", "yes"),
    (TUNNEL_SERVER, f"{LISTENER}.connection_idle_timeout", "soon"),
    (TUNNEL_SERVER, f"{LISTENER}.connection_idle_timeout", 15),
    (TUNNEL_SERVER, f"{CHAIN}.filters[0].type", "prxy"),
    (TUNNEL_SERVER, f"{CHAIN}.filters[0].config.router_config", ""),
    (TUNNEL_SERVER, "servers", {}),
    (AGENT, "extends[0].config.connection_num", "1"),
    (AGENT, "extends[0].config.reconnect_base_duration_ms", "3s"),
)

RIGHT = (
    (TUNNEL_SERVER, f"{LISTENER}.connection_idle_timeout", "1m30.5s"),
    (TUNNEL_SERVER, f"{LISTENER}.connection_idle_timeout", None),
    (TUNNEL_SERVER, f"{LISTENER}.ignore_unsupported", True),
    (TUNNEL_SERVER, "admin", {"address": {}}),
    (TUNNEL_SERVER, "cluster_manager", None),
    (AGENT, "extends[0].config.reconnect_base_duration_ms", 3000),
    (AGENT, "extends[0].config.ConnectionNum", 1),
)


class SchemaTests(SynchronousTestCase):
    def setUp(self) -> None:
        schema = make_schema()
        Draft202012Validator.check_schema(schema)
        self.validator = Draft202012Validator(schema)

    def errors(self, document: Any) -> list[str]:
        return [f"{error.json_path}: {error.message}" for error in self.validator.iter_errors(document)]

    def test_examples(self) -> None:
        files = [*ROOT.glob("examples/*/server.*"), *ROOT.glob("examples/*/agent.*")]
        files.append(ROOT / "reverseproxy" / "services" / "quickstart.json")
        self.assertGreaterEqual(len(files), 17)
        for file in files:
            text = file.read_text()
            document = yaml.safe_load(text) if file.suffix == ".yaml" else json.loads(text)
            self.assertEqual(self.errors(document), [], file)

    def test_right_and_wrong(self) -> None:
        for document, path, value in RIGHT:
            self.assertEqual(self.errors(edited(document, (path, value))), [], (path, value))
        for document, path, value in WRONG:
            self.assertNotEqual(self.errors(edited(document, (path, value))), [], (path, value))

    def test_its_own_name(self) -> None:
        self.assertEqual(self.errors({"$schema": "./reverseproxy.schema.json", **TUNNEL_SERVER}), [])

    def test_missing_key(self) -> None:
        document = json.loads(json.dumps(TUNNEL_SERVER))
        del document["servers"][0]["listeners"][0]["address"]
        self.assertTrue(any("'address' is a required property" in error for error in self.errors(document)))

    def test_every_key_is_described(self) -> None:
        schema = make_schema()
        for name, definition in schema["$defs"].items():
            for key, value in definition["properties"].items():
                self.assertTrue(value.get("description"), f"{name}.{key}")
