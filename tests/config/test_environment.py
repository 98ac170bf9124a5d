"""Variables of the environment in configuration files."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config._environment import NO_VARIABLE, substitute
from reverseproxy.config.loader import load, loads
from reverseproxy.errors import ConfigError
from tests.config.documents import TUNNEL_SERVER

ENVIRON = {"PORT": "8080", "EMPTY": "", "dollar": "${PORT}"}


class SubstituteTests(SynchronousTestCase):
    def put(self, value: Any) -> Any:
        found, problems = substitute(value, ENVIRON)
        self.assertEqual([each for each in problems if each[1] != NO_VARIABLE], [])
        return found

    def test_no_variables(self) -> None:
        """What looks like a variable, and is none, is a warning; what is one in another is an error."""
        for text, wanted in (("${", 1), ("${1} ${a b}", 2), ("${PORT:?x}", 1), ("$${", 0), ("${PORT}", 0)):
            self.assertEqual([problem for _, problem in substitute(text, ENVIRON)[1]], [NO_VARIABLE] * wanted)
        [(keys, problem)] = substitute(["${NONE:-${PORT}}"], ENVIRON)[1]
        self.assertEqual(keys, (0,))
        self.assertIn("can't stand in what is used instead of NONE", problem)

    def test_texts(self) -> None:
        for text, wanted in {
            "0.0.0.0:${PORT}": "0.0.0.0:8080",
            "${PORT}${PORT}": "80808080",
            "${PORT:-1}": "8080",
            "${NONE:-1}": "1",
            "${NONE:-}": "",
            "${EMPTY}": "",
            "${EMPTY:-x}": "x",
            "$${PORT}": "${PORT}",
            "$$${PORT}": "$${PORT}",
            "${dollar}": "${PORT}",  # and no further
            "$PORT ${ {PORT} ${1} ${a b} ${PORT": "$PORT ${ {PORT} ${1} ${a b} ${PORT",
        }.items():
            self.assertEqual(self.put(text), wanted, text)

    def test_anywhere(self) -> None:
        value = {"a": ["${PORT}", {"b": "x${PORT}"}], "${PORT}": 1, "c": None}
        self.assertEqual(self.put(value), {"a": ["8080", {"b": "x8080"}], "${PORT}": 1, "c": None})

    def test_templates(self) -> None:
        value = {"substitution": "/${PORT}", "direct_response": {"body": "${PORT}"}}
        self.assertEqual(self.put(copy.deepcopy(value)), value)

    def test_not_set(self) -> None:
        """Each is told of, with its place."""
        value = {"a": ["${ONE}"], "b": "${TWO} ${PORT}"}
        found, problems = substitute(value, ENVIRON)
        self.assertEqual(found, {"a": ["${ONE}"], "b": "${TWO} 8080"})
        self.assertEqual([keys for keys, _ in problems], [("a", 0), ("b",)])
        self.assertIn("the environment variable ONE is not set; write ${ONE:-text}", problems[0][1])

    @given(
        st.recursive(st.none() | st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner))
    )
    def test_anything(self, value: Any) -> None:
        substitute(value, {})


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.document = copy.deepcopy(TUNNEL_SERVER)
        self.path = Path(self.mktemp())
        self.listener = self.document["servers"][0]["listeners"][0]
        self.listener["address"] = "127.0.0.1:${A_PORT_OF_A_TEST}"
        self.path.write_text(json.dumps(self.document))

    def test_set(self) -> None:
        self.patch(__import__("os"), "environ", {"A_PORT_OF_A_TEST": "1234"})
        loaded = load(str(self.path))
        self.assertEqual(loaded.config.server.listeners[0].address, "127.0.0.1:1234")
        self.assertEqual(loaded.warnings, ())

    def test_not_set(self) -> None:
        self.patch(__import__("os"), "environ", {})
        with self.assertRaises(ConfigError) as raised:
            load(str(self.path))
        first = raised.exception.problems[0]
        self.assertEqual((first.place.file, first.path), (str(self.path), "servers[0].listeners[0].address"))
        self.assertIn("the environment variable A_PORT_OF_A_TEST is not set", first.message)

    def test_what_is_no_file(self) -> None:
        """Nobody finds out by the admin API what the environment has."""
        self.document["servers"][0]["mosn_server_name"] = "${PATH}"
        self.listener["address"] = "127.0.0.1:0"
        (warning,) = loads(json.dumps(self.document), "body").warnings
        self.assertIn("${PATH} is taken as it is written", warning.message)
