"""What tests need to have scenes played, see L{tests.mosn.player}."""

from __future__ import annotations

__all__ = ["SceneTestCase"]

import atexit
import json
import subprocess
import sys
from collections.abc import Iterable
from typing import Any, ClassVar

from twisted.trial.unittest import SynchronousTestCase

from tests.integration.harness import ROOT
from tests.mosn.cells import Cell


class _Player:
    """The process that plays, started for the first test that needs it."""

    _process: subprocess.Popen[str] | None = None

    def play(self, order: dict[str, Any]) -> str:
        """Have a scene played; what went wrong, if anything did."""
        process = self._process
        if process is None:
            process = self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.mosn.player"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                cwd=ROOT,
            )
            atexit.register(process.communicate)
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(order) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        assert line, "the process that plays has ended"
        error: str = json.loads(line)["error"]
        return error


_player = _Player()
"""Of this process: each of trial's has one."""


class SceneTestCase(SynchronousTestCase):
    """
    Scenes with one end of ours.

    @cvar end: which end is ours.
    @cvar mode: see L{tests.mosn.cells.MODES}.
    """

    end: ClassVar[str]
    mode: ClassVar[str]

    def play(self, scene: str, cell: Cell, fresh: bool = False) -> None:
        """
        Play a scene.

        @param scene: see L{tests.mosn.server_world} and L{tests.mosn.agent_world}.
        @param fresh: whether with a process of ours that nobody else uses.
        """
        order = {"end": self.end, "mode": self.mode, "scene": scene, "cell": cell, "fresh": fresh}
        error = _player.play(order)
        if error:
            self.fail(error)

    @classmethod
    def add_scenes(cls, scene: str, cells: Iterable[Cell]) -> None:
        """Add a test for each of these situations, with its name."""
        for cell in cells:
            name = f"test_{scene}_{cell.name}"
            test = _test_of(scene, cell)
            test.__name__ = name
            test.__qualname__ = f"{cls.__qualname__}.{name}"
            setattr(cls, name, test)


def _test_of(scene: str, cell: Cell) -> Any:
    def test(self: SceneTestCase) -> None:
        self.play(scene, cell)

    return test
