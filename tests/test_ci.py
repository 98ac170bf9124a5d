"""What the whole check says of a failure, of which only the end may be kept."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

ROOT = Path(__file__).resolve().parent.parent

FAILING = """
from twisted.trial.unittest import TestCase

class SomeTests(TestCase):
    def test_good(self):
        pass

    def test_wrong(self):
        self.fail("Traceback (most recent call last):\\nValueError: what it was\\n\\n--- server\\nlog: of it")

    def test_error(self):
        raise KeyError("k")

    def test_like_it(self):
        self.assertEqual(1, 2)
"""


def _script() -> Any:
    spec = importlib.util.spec_from_file_location("failures", ROOT / ".ci" / "failures.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class FailuresTests(SynchronousTestCase):
    def test_each_has_its_reason(self) -> None:
        directory = Path(self.mktemp())
        package = directory / "tests"
        package.mkdir(parents=True)
        (package / "__init__.py").touch()
        (package / "test_it.py").write_text(FAILING)
        report = subprocess.run(
            [sys.executable, "-m", "twisted.trial", "tests.test_it"],
            cwd=directory,
            capture_output=True,
            text=True,
            env={"PYTHONPATH": str(directory.resolve())},
        )
        found = _script().failures(report.stdout)
        self.assertEqual(
            found,
            {
                "tests.test_it.SomeTests.test_wrong": "ValueError: what it was",
                "tests.test_it.SomeTests.test_error": "builtins.KeyError: 'k'",
                "tests.test_it.SomeTests.test_like_it": "twisted.trial.unittest.FailTest: 1 != 2",
            },
        )

    def test_nothing_failed(self) -> None:
        self.assertEqual(_script().failures("tests.test_it\n---\nRan 1 tests in 0.1s\n\nPASSED\n"), {})
