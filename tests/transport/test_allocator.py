"""Tests for L{reverseproxy.transport.allocator}."""

from __future__ import annotations

import os
import subprocess
import sys

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.allocator import keep_memory

FAULTS = """
import resource
from reverseproxy.transport.allocator import keep_memory

def work():
    for _ in range(100):
        pieces = [bytes(200_000) for _ in range(8)]

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    work()
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

first = faults()
kept = keep_memory()
work()
print(kept, first, faults())
"""


class AllocatorTests(SynchronousTestCase):
    def test_memory_is_kept(self) -> None:
        """In a process of its own, as it holds for all of one."""
        done = subprocess.run(
            [sys.executable, "-c", FAULTS],
            capture_output=True,
            text=True,
            check=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(map(os.path.abspath, sys.path))},
        )
        kept, first, then = done.stdout.split()
        if kept == "True":
            self.assertLess(int(then), 100)
            self.assertLess(int(then), int(first) / 10)

    def test_other_libraries(self) -> None:
        self.patch(sys, "platform", "darwin")
        self.assertFalse(keep_memory())
