"""Tests of the bound for how deeply YAML may be nested."""

from __future__ import annotations

from typing import Any

import yaml
from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.config import nesting
from reverseproxy.config.nesting import MAX_DEPTH, check_nesting

BLOCK = "".join(" " * depth + "a:\n" for depth in range(200))


class _BoundedLoader(yaml.SafeLoader):
    """As the loader in C is since PyYAML 6.0.4, whose scanner has a bound of its own."""

    bound = 1000

    def fetch_flow_collection_start(self, token: Any) -> None:
        if self.flow_level >= self.bound:
            raise yaml.scanner.ScannerError("while increasing flow level", None, "too deep", self.get_mark())
        super().fetch_flow_collection_start(token)


class _TightLoader(_BoundedLoader):
    """Its bound is hardly above ours."""

    bound = MAX_DEPTH + 1


class NestingTests(SynchronousTestCase):
    """The bound and what is said of it are ours, whatever PyYAML's own are."""

    def each(self) -> Any:
        for loader in (nesting._Loader, yaml.SafeLoader, _BoundedLoader, _TightLoader):
            self.patch(nesting, "_Loader", loader)
            yield loader.__name__

    def test_too_deep(self) -> None:
        for name in self.each():
            for text in (
                "[" * (MAX_DEPTH + 1) + "]" * (MAX_DEPTH + 1),
                "[" * 30000 + "]" * 30000,
                "[" * 30000,
                "{" * 30000,
                "[{" * 1500,
                "{a: " * 1500,
                "[ " * 1500,
                "[\n" * 1500,
                "a: " + "[" * 1500,
                "- " * 1500 + "x",
                "? " * 1500,
                BLOCK,
                "[" * 1500 + "@",
                "[" * 100 + "@",
            ):
                with self.assertRaises(RecursionError, msg=f"{name}: {text[:20]}"):
                    check_nesting(text)

    def test_deep_enough(self) -> None:
        for _ in self.each():
            for text in (
                "[" * MAX_DEPTH + "]" * MAX_DEPTH,
                "{a: " * MAX_DEPTH + "}" * MAX_DEPTH,
                "- " * MAX_DEPTH + "x",
                "[[], " * 40 + "]" * 40,
                "[" + "[]," * 5000 + "]",
                BLOCK[: BLOCK.index(" " * MAX_DEPTH + "a:")],
            ):
                check_nesting(text)

    def test_not_yaml(self) -> None:
        """What is wrong otherwise is told as ever, with its place."""
        for name in self.each():
            for text, line in (("a: [1,\nb: 2", 1), ("[" * 20 + "@", 0), ("a: 'b", 0), ("a: b\n\tc: d", 1)):
                with self.assertRaises(yaml.MarkedYAMLError, msg=f"{name}: {text}") as caught:
                    check_nesting(text)
                self.assertIsNotNone(caught.exception.problem_mark)
                self.assertGreaterEqual(caught.exception.problem_mark.line, line)
