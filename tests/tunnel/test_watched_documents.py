"""Tests for L{reverseproxy.tunnel.watched_documents}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import OptionsError
from reverseproxy.tunnel.watched_documents import REPEATED, parse_document


class RepeatedKeyTests(SynchronousTestCase):
    """The last of several values would silently count, such as that of two tokens."""

    def places(self, name: str, text: str) -> list[str]:
        error = self.assertRaises(OptionsError, parse_document, name, text)
        self.assertNotIn("s3cret", str(error))
        self.assertEqual({problem.reason for problem in error.problems}, {REPEATED})
        self.assertEqual({problem.file for problem in error.problems}, {name})
        return [problem.path for problem in error.problems]

    def test_json(self) -> None:
        text = """
            {"tokens": [], "tokens": [
                {"agent": "a", "token": "s3cret-1", "token": "s3cret-2", "token": "s3cret-3"},
                {"agent": "b", "allow": {"s3cret-4": 1, "s3cret-4": 2}}
            ]}
        """
        self.assertEqual(self.places("t.json", text), ["tokens", "tokens[0].token", "tokens[1].allow"])

    def test_yaml(self) -> None:
        text = """
            tokens: []
            "tokens":
              - {agent: a, token: s3cret-1, token: s3cret-2, token: s3cret-3}
              - {agent: b, allow: {s3cret-4: 1, s3cret-4: 2}}
        """
        self.assertEqual(self.places("t.yaml", text), ["tokens", "tokens[0].token", "tokens[1].allow"])

    def test_aliases_and_merged_keys(self) -> None:
        """A key that overrides a merged one is none that is repeated; an alias is looked at once."""
        text = """
            - &a {agent: a, max_weight: 1}
            - &b {<<: *a, agent: b}
            - {<<: *b, agent: c, max_weight: 2}
            - [*a, *a]
        """
        found = parse_document("t.yaml", text)
        self.assertEqual([each["agent"] for each in found[:3]], ["a", "b", "c"])
        self.assertEqual(found[1:3], [{"agent": "b", "max_weight": 1}, {"agent": "c", "max_weight": 2}])
        self.assertEqual(self.places("t.yaml", "[&a {agent: 1, agent: 2}, *a]"), ["[0].agent"])
        self.assertEqual(self.places("t.yaml", "- &a [{agent: 1, agent: 2}, *a]"), ["[0][0].agent"])

    def test_no_document(self) -> None:
        self.assertIsNone(parse_document("t.yaml", "# nothing\n"))
