"""Tests for L{reverseproxy.command.tokens}."""

from __future__ import annotations

import json
import os
import stat
from pathlib import Path
from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.command.tokens import TokenFile, TokenProblem
from reverseproxy.tunnel.static_tokens import StaticValidatorPlugin


class TokenTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.directory = Path(self.mktemp())
        self.directory.mkdir()
        self.path = self.directory / "tokens.json"
        self.file = TokenFile(str(self.path))

    def add(self, agent: str = "a", *clusters: str, another: bool = False, output: Path | None = None) -> str:
        return self.file.add(agent, clusters, None, another, None if output is None else str(output))

    def entries(self) -> Any:
        return json.loads(self.path.read_text())

    def test_the_policy_takes_it(self) -> None:
        token = self.add("a", "edge")
        validator = StaticValidatorPlugin().build({"file": str(self.path)})
        identity = validator.validate(token, "", "")
        self.assertEqual((identity.name, identity.clusters), ("a", frozenset({"edge"})))
        self.file.revoke("a", None)
        self.assertIsNone(validator.validate(token, "", ""))

    def test_nobody_else_may_read_it(self) -> None:
        output = self.directory / "token"
        token = self.add(output=output)
        self.assertEqual(output.read_text(), f"{token}\n")
        for path in (self.path, output):
            self.assertEqual(stat.S_IMODE(path.stat().st_mode), 0o600)

    def test_the_mode_stays(self) -> None:
        self.add()
        self.path.chmod(0o640)
        self.add("b")
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o640)
        self.assertEqual(os.listdir(self.directory), ["tokens.json"])

    def test_links_are_followed(self) -> None:
        self.add()
        link = self.directory / "link.json"
        link.symlink_to("tokens.json")
        TokenFile(str(link)).add("b", (), None, False, None)
        self.assertTrue(link.is_symlink())
        self.assertEqual([entry["agent"] for entry in self.entries()], ["a", "b"])

    def test_changing_without_a_gap(self) -> None:
        old = self.add("a", "edge")
        self.assertIn("--another", str(self.assertRaises(TokenProblem, self.add)))
        new = self.add(another=True)
        self.assertEqual(self.entries(), [{"agent": "a", "clusters": ["edge"], "tokens": [old, new]}])
        (line,) = self.file.describe()
        first = line.rpartition(": ")[2].split(", ")[0]
        self.assertEqual(self.file.revoke("a", first), 1)
        self.assertEqual(self.entries(), [{"agent": "a", "clusters": ["edge"], "tokens": [new]}])

    def test_revoking_what_is_not_there(self) -> None:
        self.add()
        before = self.path.read_text()
        error = self.assertRaises(TokenProblem, self.file.revoke, "b", None)
        self.assertIn("there are tokens of a", str(error))
        self.assertRaises(TokenProblem, self.file.revoke, "a", "0" * 12)
        self.assertEqual(self.path.read_text(), before)

    def test_output_that_can_t_be(self) -> None:
        """The token is not good either then."""
        there = self.directory / "there"
        there.write_text("needed")
        for output in (there, self.directory / "absent" / "token"):
            self.assertRaises(TokenProblem, self.add, output=output)
            self.assertFalse(self.path.exists())
        self.assertEqual(there.read_text(), "needed")

    def test_file_that_can_t_be(self) -> None:
        output = self.directory / "token"
        file = TokenFile(str(self.directory / "absent" / "tokens.json"))
        self.assertRaises(TokenProblem, file.add, "a", (), None, False, str(output))
        self.assertFalse(output.exists())
        self.assertRaises(TokenProblem, file.describe)

    def test_what_is_no_file_of_tokens(self) -> None:
        for text in ("{", "[1]", '[{"agent": "a"}]', '{"token": []}'):
            self.path.write_text(text)
            self.assertRaises(TokenProblem, self.add)
            self.assertRaises(TokenProblem, self.file.describe)
            self.assertEqual(self.path.read_text(), text)

    def test_wrong_agents(self) -> None:
        self.assertRaises(TokenProblem, self.add, "")
        self.assertRaises(TokenProblem, self.add, "a", "")
        self.assertFalse(self.path.exists())

    def test_yaml(self) -> None:
        path = self.directory / "tokens.yaml"
        path.write_text("tokens:\n- agent: a\n  token: b#c\n")
        file = TokenFile(str(path))
        token = file.add("ü", (), 5, False, None)
        self.assertEqual(
            yaml.safe_load(path.read_text()),
            {"tokens": [{"agent": "a", "token": "b#c"}, {"agent": "ü", "token": token, "max_weight": 5}]},
        )
        self.assertIn("weight up to 5", file.describe()[1])

    def test_comments_of_yaml(self) -> None:
        path = self.directory / "tokens.yaml"
        for text in ("# mine\n- agent: a\n  token: b\n", "- agent: a\n  token: b # mine\n"):
            path.write_text(text)
            error = self.assertRaises(TokenProblem, TokenFile(str(path)).revoke, "a", None)
            self.assertIn("has comments", str(error))
            self.assertEqual(path.read_text(), text)
