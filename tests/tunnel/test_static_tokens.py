"""Tests for L{reverseproxy.tunnel.static_tokens}."""

from __future__ import annotations

import hmac
import json
import os
from typing import Any

from twisted.logger import LogLevel
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from reverseproxy.errors import CredentialMissing, OptionsError
from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialPlugin,
    ICredentialSource,
    Identity,
    IValidatorPlugin,
)
from reverseproxy.tunnel import static_tokens
from reverseproxy.tunnel.sample_policy import SampleCredentialPlugin, SampleValidatorPlugin
from reverseproxy.tunnel.static_credentials import StaticCredentialPlugin
from reverseproxy.tunnel.static_tokens import StaticValidatorPlugin
from tests.tunnel.logged import capture

ENTRIES = [
    {"agent": "anna", "token": "secret-a"},
    {"agent": "bert", "tokens": ["secret-b1", "secret-b2"], "clusters": ["c", "d"], "max_weight": 20},
]


class StaticValidatorTests(SynchronousTestCase):
    def build(self, **config: Any) -> Any:
        validator = StaticValidatorPlugin().build(config)
        verifyObject(IConnectionValidator, validator)
        return validator

    def write(self, text: str, name: str = "tokens.yaml") -> str:
        """Replace a file as careful operators do."""
        path = os.path.join(self.directory, name)
        with open(path + ".new", "w") as file:
            file.write(text)
        os.replace(path + ".new", path)
        return path

    def setUp(self) -> None:
        self.directory = self.mktemp()
        os.makedirs(self.directory)

    def test_tokens(self) -> None:
        validator = self.build(tokens=ENTRIES)
        bert = Identity("bert", frozenset({"c", "d"}), 20)
        for credential, identity in (
            ("secret-a", Identity("anna")),
            ("secret-b1", bert),
            ("secret-b2", bert),
            ("secret-b", None),
            ("secret-a\n", None),
            ("SECRET-A", None),
            ("", None),
            ("x" * 65535, None),
            ("\ud800", None),
        ):
            self.assertEqual(validator.validate(credential, "", "c"), identity)

    def test_no_tokens_let_nobody_in(self) -> None:
        self.assertIsNone(self.build(tokens=[]).validate("", "", "c"))

    def test_absent_clusters_and_no_clusters_differ(self) -> None:
        validator = self.build(
            tokens=[
                {"agent": "a", "token": "x", "clusters": None, "max_weight": None},
                {"agent": "b", "token": "y", "clusters": []},
            ]
        )
        self.assertEqual(validator.validate("x", "", "c"), Identity("a"))
        self.assertEqual(validator.validate("y", "", "c"), Identity("b", frozenset()))

    def test_every_entry_is_compared(self) -> None:
        lengths: list[tuple[int, int]] = []

        class Counting:
            @staticmethod
            def compare_digest(one: bytes, other: bytes) -> bool:
                lengths.append((len(one), len(other)))
                return hmac.compare_digest(one, other)

        validator = self.build(tokens=ENTRIES)
        self.patch(static_tokens, "hmac", Counting)
        for credential in ("secret-a", "secret-b2", "wrong", ""):
            lengths.clear()
            validator.validate(credential, "", "c")
            self.assertEqual(lengths, [(32, 32)] * 3)

    def test_files(self) -> None:
        yaml = "- {agent: anna, token: secret-a}\n- agent: bert\n  tokens: ['1', '2']\n"
        for name, text in (
            ("list.yaml", yaml),
            ("tokens", yaml),
            ("map.yml", "tokens:\n" + yaml),
            ("list.json", json.dumps(ENTRIES)),
            ("map.json", json.dumps({"tokens": ENTRIES})),
            ("bom.json", "\ufeff" + json.dumps(ENTRIES)),
        ):
            validator = self.build(file=self.write(text, name))
            self.assertEqual(validator.validate("secret-a", "", "c"), Identity("anna"), name)

    def test_revocation_and_rotation(self) -> None:
        validator = self.build(file=self.write("[{agent: anna, token: old}]"))
        self.write("[{agent: anna, tokens: [old, new]}]")
        with capture() as events:
            self.assertIsNotNone(validator.validate("old", "", "c"))
            self.assertIsNotNone(validator.validate("new", "", "c"))
            self.write("[{agent: anna, token: new}]")
            self.assertIsNone(validator.validate("old", "", "c"))
            self.write("[]")
            self.assertIsNone(validator.validate("new", "", "c"))
        self.assertEqual(events.levels(), [LogLevel.info] * 3)
        self.assertIn("has changed, 2 valid tokens now", events.text())

    def test_a_change_in_place(self) -> None:
        path = self.write("[{agent: anna, token: one}]")
        validator = self.build(file=path)
        with open(path, "w") as file:
            file.write("[{agent: anna, token: two}]")
        os.utime(path, ns=(1, 1))
        self.assertIsNone(validator.validate("one", "", "c"))
        self.assertIsNotNone(validator.validate("two", "", "c"))

    def test_a_file_that_did_not_change_is_not_read(self) -> None:
        validator = self.build(file=self.write("[{agent: anna, token: one}]"))

        def read_text(path: str, limit: int) -> str:
            raise AssertionError("read")

        self.patch(static_tokens, "read_text", read_text)
        self.assertIsNotNone(validator.validate("one", "", "c"))

    def test_a_broken_file_keeps_the_tokens(self) -> None:
        path = self.write("[{agent: anna, token: secret-a}]")
        validator = self.build(file=path)
        for text in (
            "",
            "[{agent: anna, token: secret-b",
            "[{agent: anna, token: secret-b}, {agent: bert}]",
            "- agent: anna\n\ttoken: secret-b",
            "secret-b",
            "\x00",
            "2020-99-99",
            "[" * 100000,
        ):
            self.write(text)
            with capture() as events:
                for _ in range(3):
                    self.assertIsNotNone(validator.validate("secret-a", "", "c"), text)
                    self.assertIsNone(validator.validate("secret-b", "", "c"), text)
            # Logged once, and without what is in the file.
            self.assertEqual(events.levels(), [LogLevel.error], text)
            self.assertIn("keeping 1 token: ", events.text())
            self.assertNotIn("secret", events.text())
        os.remove(path)
        with capture() as events:
            self.assertIsNotNone(validator.validate("secret-a", "", "c"))
        self.assertIn("keeping 1 token: No such file or directory", events.text())
        self.write("[{agent: anna, token")
        with capture() as events:
            self.assertIsNotNone(validator.validate("secret-a", "", "c"))
        self.assertIn("keeping 1 token: line 2, column 1: ", events.text())  # the file is named once
        self.write("[{agent: anna, token: secret-b}]")
        with capture():
            self.assertIsNotNone(validator.validate("secret-b", "", "c"))

    def test_broken_documents_are_told_by_their_line(self) -> None:
        for name, text, pattern in (
            ("x.json", '[\n{"agent": "secret-a"', "x.json: line 2, column [0-9]+: not valid JSON: "),
            ("x.json", "[" * 100000, "x.json: not a valid document"),
            ("x.yaml", "- agent: a\n- {secret-a", "x.yaml: line [23], column [0-9]+: not valid YAML"),
            ("x.yaml", "[" * 100000, "x.yaml: not a valid document"),
            ("x.yaml", "- " * 1000 + "x", "x.yaml: not a valid document"),
            ("x.yaml", "&a [*a]", "must be a mapping"),
        ):
            with self.assertRaisesRegex(ValueError, pattern) as caught:
                self.build(file=self.write(text, name))
            self.assertNotIn("secret-a", str(caught.exception))

    def test_not_utf8_and_too_large(self) -> None:
        path = os.path.join(self.directory, "binary")
        with open(path, "wb") as file:
            file.write(b"- {agent: a, token: \xff}")
        self.assertRaisesRegex(ValueError, "not UTF-8, at byte 20", self.build, file=path)
        self.patch(static_tokens, "MAX_TOKENS_FILE", 10)
        self.assertRaisesRegex(ValueError, "larger than the 10 bytes", self.build, file=path)

    def test_bad_config(self) -> None:
        for config, pattern in (
            ({}, "exactly one of file, tokens, got none of them"),
            ({"file": "x", "tokens": []}, "exactly one of file, tokens, got file and tokens"),
            ({"tokns": []}, "tokns: unknown key; the keys are file, tokens"),
            ({"file": 1}, "file: must be a string .* got int"),
            ({"file": ""}, "file: must be a string .* got an empty one"),
            ({"file": "/nonexistent/tokens"}, "can't read /nonexistent/tokens: No such file"),
            ({"tokens": "secret-a"}, "expected a list of entries with the keys agent, token"),
            ({"tokens": {"secret-a": "anna"}}, "unknown key .not shown, it might be a secret.; the keys are"),
            ({"tokens": ["secret-a"]}, r"tokens\[0\]: must be a mapping"),
            ({"tokens": [{"token": "secret-a"}]}, r"tokens\[0\].agent: missing key"),
            ({"tokens": [{"agent": "a", "token": 123456}]}, r"token: must be a string .* int; put quotes"),
            ({"tokens": [{"agent": "a", "token": ""}]}, r"tokens\[0\].token: must be .* an empty one"),
            ({"tokens": [{"agent": "a"}]}, r"tokens\[0\]: needs either token or tokens, got neither"),
            ({"tokens": [{"agent": "a", "token": "x", "tokens": ["y"]}]}, "either token or tokens, got both"),
            ({"tokens": [{"agent": "a", "tokens": []}]}, "at least one token"),
            ({"tokens": [{"agent": "a", "tokens": "secret-a"}]}, "at least one token"),
            ({"tokens": [{"agent": "a", "tokens": ["x", 5]}]}, r"tokens\[0\].tokens\[1\]: must be"),
            (
                {"tokens": [{"agent": "a", "token": "x", "cluster": "c"}]},
                r"tokens\[0\].cluster: unknown key; the keys",
            ),
            ({"tokens": [{"agent": "a", "token": "x", "clusters": "c"}]}, "clusters: must be a list"),
            ({"tokens": [{"agent": "a", "token": "x", "clusters": [True]}]}, r"clusters\[0\]: must be"),
            ({"tokens": [{"agent": "a", "token": "x", "max_weight": 0}]}, "1 to 128, not the number 0"),
            ({"tokens": [{"agent": "a", "token": "x", "max_weight": 129}]}, "1 to 128, not the number 129"),
            ({"tokens": [{"agent": "a", "token": "x", "max_weight": True}]}, "1 to 128, not true"),
            ({"tokens": [{"agent": "a", "token": "x", "max_weight": "5"}]}, '1 to 128, not the text "5"'),
            (
                {"tokens": [{"agent": "a", "token": "x"}, {"agent": "b", "tokens": ["secret-a", "x"]}]},
                r"tokens\[1\].tokens\[1\]: is the same as at tokens\[0\].token$",
            ),
        ):
            with self.subTest(config=config):
                with self.assertRaisesRegex(ValueError, pattern) as caught:
                    self.build(**config)
                self.assertNotIn("secret-a", str(caught.exception))

    def test_everything_at_once(self) -> None:
        """All that is wrong with a list or a file is told at once, each in its place."""
        entries = [
            {"agent": 5, "token": "secret-a", "max_weight": 0, "domains": ["a b", "c"], "ports": [0, 80]},
            "secret-b",
            {"agent": "b", "tokens": ["secret-a", ""], "clusters": "c", "weight": 5},
        ]
        paths = (
            "[0].agent",
            "[0].max_weight",
            "[0].domains[0]",
            "[0].ports[0]",
            "[1]",
            "[2].weight",
            "[2].tokens[1]",
            "[2].clusters",
            "[2].tokens[0]",
        )
        file = self.write(json.dumps(entries), "x.json")
        for config, name, begin in (
            ({"tokens": entries}, "", "tokens"),
            ({"tokens": {"tokens": entries}}, "", "tokens.tokens"),
            ({"file": file}, file, ""),
        ):
            error = self.assertRaises(OptionsError, self.build, **config)
            found = [(problem.file, problem.path) for problem in error.problems]
            self.assertEqual(found, [(name, begin + path) for path in paths])
            self.assertNotIn("secret", str(error))

    def test_values_that_are_not_what_their_tags_say(self) -> None:
        for tag in ("!!bool x", "!!int ''", "!!float ''", "!!timestamp x", "!!binary x"):
            path = self.write(f"- {{agent: a, token: {tag}}}")
            self.assertRaisesRegex(
                OptionsError, "not a valid document|not valid YAML|must be", self.build, file=path
            )

    def test_no_path(self) -> None:
        self.assertRaisesRegex(OptionsError, "is not a path", self.build, file="a\0b")

    def test_secrets_are_not_shown(self) -> None:
        validator = self.build(tokens=ENTRIES)
        self.assertNotIn("secret", repr(validator) + repr(validator._tokens))

    def test_plugins(self) -> None:
        for validator in (StaticValidatorPlugin(), SampleValidatorPlugin()):
            verifyObject(IValidatorPlugin, validator)
        for source in (StaticCredentialPlugin(), SampleCredentialPlugin()):
            verifyObject(ICredentialPlugin, source)


class StaticSourceTests(SynchronousTestCase):
    def build(self, **config: Any) -> Any:
        source = StaticCredentialPlugin().build(config)
        verifyObject(ICredentialSource, source)
        return source

    def fails(self, source: Any, pattern: str) -> None:
        failure = self.failureResultOf(source.fetch("c"), CredentialMissing)
        self.assertRegex(failure.getErrorMessage(), pattern)

    def test_token(self) -> None:
        source = self.build(token="secret\n")
        self.assertEqual(self.successResultOf(source.fetch("c")), "secret\n")
        self.assertNotIn("secret", repr(source))

    def test_file_is_read_each_time(self) -> None:
        path = self.mktemp()
        source = self.build(file=path)
        self.fails(source, f"can't read the credential from {path}: No such file")
        for content, credential in (
            (b"one", "one"),
            (b"two\n", "two"),
            (b"three\r\n", "three"),
            (b" four \n\n", " four \n"),
            ("f\u00fcnf\n".encode(), "f\u00fcnf"),
        ):
            with open(path, "wb") as file:
                file.write(content)
            self.assertEqual(self.successResultOf(source.fetch("c")), credential)
        for content, pattern in (
            (b"", "it is empty"),
            (b"\n", "it is empty"),
            (b"secret\xff", "not UTF-8, at byte 6$"),
            (b"x" * 65536, "larger than the 65535 bytes"),
        ):
            with open(path, "wb") as file:
                file.write(content)
            self.fails(source, pattern)

    def test_environment_is_read_each_time(self) -> None:
        name = "REVERSEPROXY_TEST_CREDENTIAL"
        self.addCleanup(os.environ.pop, name, None)
        source = self.build(env=name)
        self.fails(source, f"{name} holds no credential, it is not set")
        os.environ[name] = ""
        self.fails(source, "it is empty")
        for credential in ("one", "two"):
            os.environ[name] = credential
            self.assertEqual(self.successResultOf(source.fetch("c")), credential)

    def test_bad_config(self) -> None:
        for config, pattern in (
            ({}, "exactly one of file, token, env, got none of them"),
            ({"token": "secret", "env": "X"}, "got token and env"),
            ({"path": "x"}, "path: unknown key; the keys are file, token, env"),
            ({"token": ""}, "token: must be a string that is not empty"),
            ({"token": 5}, "token: must be a string .* int"),
            ({"env": None}, "env: must be a string .* NoneType"),
        ):
            with self.assertRaisesRegex(ValueError, pattern) as caught:
                self.build(**config)
            self.assertNotIn("secret", str(caught.exception))


class SampleTests(SynchronousTestCase):
    """The policy that MOSN's sample registers."""

    def test_source(self) -> None:
        source = SampleCredentialPlugin().build({})
        verifyObject(ICredentialSource, source)
        self.assertEqual(self.successResultOf(source.fetch("clientCluster")), "prefix__clientCluster")

    def test_validator(self) -> None:
        with capture() as events:
            validator = SampleValidatorPlugin().build({})
        self.assertEqual(events.levels(), [LogLevel.warn])
        verifyObject(IConnectionValidator, validator)
        for credential in ("prefix__clientCluster", "prefix_"):
            self.assertEqual(validator.validate(credential, "", "c"), Identity(""))
        for credential in ("", "prefix", "xprefix_"):
            self.assertIsNone(validator.validate(credential, "", "c"))

    def test_no_options(self) -> None:
        for plugin in (SampleCredentialPlugin(), SampleValidatorPlugin()):
            self.assertRaisesRegex(ValueError, "x: unknown key; it has no keys", plugin.build, {"x": 1})
