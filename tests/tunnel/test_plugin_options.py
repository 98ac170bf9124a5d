"""Tests for L{reverseproxy.tunnel.plugin_options}."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.errors import ConfigError, OptionsError
from reverseproxy.problems import PART, Place
from reverseproxy.tunnel.plugin_options import Options


class OptionsTests(SynchronousTestCase):
    def told(self, options: Options) -> list[str]:
        """What is wrong."""
        return [str(problem) for problem in options.findings.errors]

    def test_keys(self) -> None:
        """Unknown keys are named, unless they may be secrets."""
        self.assertEqual(self.told(Options({"a": 1}, ("a", "b"))), [])
        self.assertEqual(self.told(Options({"c": 1}, ("a", "b"))), ["c: unknown key; the keys are a, b"])
        self.assertEqual(self.told(Options({"c": 1}, ())), ["c: unknown key; it has no keys"])
        for key in ("s3cret", "x" * 25, 5, None, True):
            told = self.told(Options({key: 1}, ("a",), place=PART / "x"))
            hidden = "x: unknown key (not shown, it might be a secret); the keys are a"
            self.assertEqual(told, [hidden])

    def test_seconds(self) -> None:
        self.assertEqual(Options({}, ("interval",)).seconds("interval", 2.0, 0.1), 2.0)
        self.assertEqual(Options({"interval": 7}, ("interval",)).seconds("interval", 2.0, 0.1), 7.0)
        for bad in (True, "7", None, 0, 0.09, 3601, float("nan"), float("inf")):
            options = Options({"interval": bad}, ("interval",))
            self.assertEqual(options.seconds("interval", 2.0, 0.1, 3600), 2.0)
            [told] = self.told(options)
            self.assertIn("interval: must be a number of seconds, 0.1 to 3600, not ", told)

    def test_everything_at_once(self) -> None:
        """Each problem is a typed one; the error is of both kinds that callers may expect."""
        options = Options({"a": "", "b": [1, "x", ""], "c": 5}, ("a", "b"), place=Place("f"))
        options.text("a")
        options.texts("b", "none")
        options.only_key(("a", "b"))
        error = self.assertRaises(OptionsError, options.raise_errors)
        self.assertIsInstance(error, ValueError)
        self.assertIsInstance(error, ConfigError)
        self.assertEqual(
            [(problem.file, problem.path) for problem in error.problems],
            [("f", "c"), ("f", "a"), ("f", "b[0]"), ("f", "b[2]"), ("f", "")],
        )
        self.assertTrue(error.brief.endswith("; and 2 more"))

    def test_one_key(self) -> None:
        for values, key, told in (
            ({"a": 1}, "a", []),
            ({}, "", ["needs exactly one of a, b, got none of them"]),
            ({"a": 1, "b": 2}, "", ["needs exactly one of a, b, got a and b"]),
            ({"c": 1}, "", ["c: unknown key; the keys are a, b"]),
        ):
            options = Options(values, ("a", "b"))
            self.assertEqual(options.only_key(("a", "b")), key)
            self.assertEqual(self.told(options), told)
