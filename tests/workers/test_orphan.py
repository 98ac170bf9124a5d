"""Tests for L{reverseproxy.workers.orphan}, with a parent that is killed."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from typing import Final

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.workers.orphan import GRACE

CHILD: Final = """
import os, signal, sys
from reverseproxy.workers import orphan
parent = int(sys.argv[2])
if sys.argv[1] == "new":
    orphan.end_with_parent()
else:
    noticed = orphan.wake_with_parent(parent)
print(os.getpid(), flush=True)
while True:
    if sys.argv[1] == "notices" and os.getppid() != parent:
        noticed()
        signal.pause()
"""

PARENT: Final = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, "-c", sys.argv[1], sys.argv[2], str(os.getpid())])
child.wait()
"""


class OrphanTests(SynchronousTestCase):
    """A child's standard output is at its end when the child is."""

    def run_child(self, kind: str) -> tuple[subprocess.Popen[str], int]:
        path = os.pathsep.join(filter(None, sys.path))
        parent = subprocess.Popen(
            [sys.executable, "-c", PARENT, CHILD, kind],
            stdout=subprocess.PIPE,
            text=True,
            env={**os.environ, "PYTHONPATH": path},
        )
        self.addCleanup(parent.wait)
        self.addCleanup(parent.kill)
        assert parent.stdout is not None
        self.addCleanup(parent.stdout.close)
        return parent, int(parent.stdout.readline())

    def ends(self, parent: subprocess.Popen[str], seconds: float) -> bool:
        return bool(select.select([parent.stdout], [], [], seconds)[0])

    def test_one_that_has_not_begun(self) -> None:
        parent, _ = self.run_child("new")
        parent.kill()
        self.assertTrue(self.ends(parent, 20))

    def test_one_that_is_stopped_and_hangs(self) -> None:
        parent, child = self.run_child("hangs")
        os.kill(child, signal.SIGSTOP)
        parent.kill()
        self.assertTrue(self.ends(parent, 20))

    def test_one_that_notices(self) -> None:
        parent, child = self.run_child("notices")
        self.addCleanup(os.kill, child, signal.SIGKILL)
        os.kill(child, signal.SIGCONT)  # which says nothing as long as the parent is there
        parent.kill()
        self.assertFalse(self.ends(parent, 2 * GRACE))
