"""Tests for L{reverseproxy.tunnel.plugins}."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from twisted.internet.task import Clock
from twisted.plugin import pluginPackagePaths
from twisted.trial.unittest import SynchronousTestCase

import reverseproxy
import twisted.plugins
from reverseproxy.interfaces import (
    IConnectionValidator,
    ICredentialSource,
    Identity,
    IServerLister,
)
from reverseproxy.tunnel.plugins import find_credential_source, find_lister, find_validator, names

MODULE = "reverseproxy_plugins_under_test"

SOURCE = """
from twisted.internet.defer import succeed
from twisted.plugin import IPlugin
from zope.interface import implementer

from reverseproxy.interfaces import (
    IConnectionValidator, ICredentialPlugin, ICredentialSource, Identity, IServerLister, IServerListerPlugin,
    IValidatorPlugin,
)


@implementer(IConnectionValidator)
class Validator:
    def __init__(self, config):
        self.config = config

    def validate(self, credential, host_name, cluster_name):
        return succeed(Identity(credential) if credential == self.config["expected"] else None)


@implementer(IPlugin, IValidatorPlugin)
class ValidatorPlugin:
    def __init__(self, name):
        self.name = name

    def build(self, config):
        if "expected" not in config:
            raise ValueError("expected is missing")
        return Validator(config)


@implementer(ICredentialSource)
class Source:
    def fetch(self, cluster):
        return succeed("for " + cluster)


@implementer(IPlugin, ICredentialPlugin)
class CredentialPlugin:
    name = "third"

    def build(self, config):
        return Source()


@implementer(IServerLister)
class Lister:
    def __init__(self, *arguments):
        self.arguments = arguments

    def start(self, update):
        update(["a:1"])

    def stop(self):
        pass


@implementer(IPlugin, IServerListerPlugin)
class ListerPlugin:
    name = "third"

    def build(self, cluster, config, reactor):
        return Lister(cluster, config, reactor)


validator = ValidatorPlugin("third")
shadow = ValidatorPlugin("static")
credential = CredentialPlugin()
lister = ListerPlugin()
"""


def write_plugin(directory: str) -> str:
    """Write the module as somebody else would install it, without C{__init__.py}."""
    plugins = Path(directory, "twisted", "plugins")
    plugins.mkdir(parents=True)
    (plugins / f"{MODULE}.py").write_text(SOURCE)
    return os.path.abspath(directory)


class BuiltInTests(SynchronousTestCase):
    def test_names_begin_with_ours(self) -> None:
        found = names()
        self.assertEqual(found.validators[:2], ("static", "test"))
        self.assertEqual(found.credential_sources[:2], ("static", "test"))
        self.assertEqual(found.listers[:2], ("file", "dns"))

    def test_found(self) -> None:
        self.assertTrue(IConnectionValidator.providedBy(find_validator("static", {"tokens": []})))
        self.assertTrue(IConnectionValidator.providedBy(find_validator("test", {})))
        self.assertTrue(ICredentialSource.providedBy(find_credential_source("static", {"token": "x"})))
        self.assertTrue(ICredentialSource.providedBy(find_credential_source("test", {})))
        self.assertTrue(IServerLister.providedBy(find_lister("file", "c", {"path": "x"}, Clock())))
        self.assertTrue(IServerLister.providedBy(find_lister("dns", "c", {"name": "x", "port": 1}, Clock())))

    def test_unknown(self) -> None:
        self.assertRaisesRegex(
            ValueError, "no credential policy 'magic'.* known are: static, test", find_validator, "magic", {}
        )
        self.assertRaisesRegex(
            ValueError, "no credential policy ''.* known are: static, test", find_credential_source, "", {}
        )
        self.assertRaisesRegex(
            ValueError,
            "no server lister 'consul'.* known are: file, dns",
            find_lister,
            "consul",
            "c",
            {},
            Clock(),
        )

    def test_bad_config(self) -> None:
        self.assertRaises(ValueError, find_validator, "static", {})
        self.assertRaises(ValueError, find_credential_source, "static", {})
        self.assertRaises(ValueError, find_lister, "dns", "c", {}, Clock())


class ThirdPartyTests(SynchronousTestCase):
    def setUp(self) -> None:
        directory = write_plugin(self.mktemp())
        self.patch(sys, "path", [directory, *sys.path])
        # Twisted computes this when it is first asked for plug-ins.
        known = list(twisted.plugins.__path__)
        new = [path for path in pluginPackagePaths("twisted.plugins") if path not in known]
        self.patch(twisted.plugins, "__path__", known + new)
        self.addCleanup(sys.modules.pop, f"twisted.plugins.{MODULE}", None)

    def test_names(self) -> None:
        found = names()
        for kind in found:
            self.assertIn("third", kind)
            self.assertEqual(len(set(kind)), len(kind))

    def test_validator(self) -> None:
        validator = find_validator("third", {"expected": "x"})
        self.assertEqual(self.successResultOf(validator.validate("x", "", "c")), Identity("x"))
        self.assertIsNone(self.successResultOf(validator.validate("y", "", "c")))
        self.assertRaisesRegex(ValueError, "expected is missing", find_validator, "third", {})

    def test_credential_source(self) -> None:
        self.assertEqual(self.successResultOf(find_credential_source("third", {}).fetch("c")), "for c")

    def test_lister(self) -> None:
        clock = Clock()
        lister = find_lister("third", "c", {"a": 1}, clock)
        self.assertEqual(lister.arguments, ("c", {"a": 1}, clock))  # type: ignore[attr-defined]

    def test_ours_come_first(self) -> None:
        self.assertRaisesRegex(ValueError, "exactly one of", find_validator, "static", {})

    def test_unknown_names_theirs_too(self) -> None:
        self.assertRaisesRegex(ValueError, "known are: .*third", find_validator, "magic", {})


class ProcessTests(SynchronousTestCase):
    def test_found_on_the_module_path(self) -> None:
        directory = write_plugin(self.mktemp())
        root = str(Path(reverseproxy.__file__).parent.parent)
        result = subprocess.run(
            [sys.executable, "-c", "from reverseproxy.tunnel.plugins import names; print(names())"],
            env={**os.environ, "PYTHONPATH": os.pathsep.join([directory, root])},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        self.assertEqual(result.stdout.count("'third'"), 3, result.stderr)
