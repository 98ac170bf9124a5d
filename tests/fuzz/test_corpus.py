"""Replay the inputs that fuzzing has found, and those that it starts with."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from tests.fuzz.__main__ import CORPUS
from tests.fuzz.targets import TARGETS, Target, pieces, same


class CorpusTests(SynchronousTestCase):
    def test_seeds(self) -> None:
        for name, target in TARGETS.items():
            inputs = target.seeds()
            self.assertTrue(inputs, name)
            for data in inputs:
                for first in range(8):
                    self.check(name, target, bytes((first,)) + data[1:])

    def test_found(self) -> None:
        known = {path.name for path in CORPUS.iterdir()}
        self.assertLessEqual(known, set(TARGETS), "a folder of no target")
        for name in sorted(known):
            for path in sorted(Path(CORPUS, name).iterdir()):
                self.check(name, TARGETS[name], path.read_bytes())

    def check(self, name: str, target: Target, data: bytes) -> None:
        try:
            target.check(data)
        except Exception as error:
            raise AssertionError(f"{name}: {data!r}") from error


class TargetTests(SynchronousTestCase):
    """A target that can't fail finds nothing."""

    def test_difference(self) -> None:
        self.assertRaises(AssertionError, same, [1], [2])

    def test_pieces(self) -> None:
        self.assertEqual(pieces(b"\1abcde"), (b"abcde", [b"ab", b"cd", b"e"]))
        self.assertEqual(pieces(b""), (b"", []))
