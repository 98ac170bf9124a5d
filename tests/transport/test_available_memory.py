"""Tests for L{reverseproxy.transport.available_memory}."""

from __future__ import annotations

from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from reverseproxy.transport.available_memory import available_memory
from reverseproxy.transport.memory import HELD, HELD_LIMIT, HELD_PART, MOST_HELD


class MemoryTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.root = Path(self.mktemp())
        (self.root / "proc/self").mkdir(parents=True)
        self.machine = available_memory(self.root)

    def group(self, path: str, limit: str) -> None:
        directory = self.root / "sys/fs/cgroup" / path
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "memory.max").write_text(limit)

    def belongs(self, path: str) -> None:
        (self.root / "proc/self/cgroup").write_text(f"12:cpu:/old\n0::{path}\n")

    def test_the_machine(self) -> None:
        assert self.machine is not None
        self.assertGreater(self.machine, 1 << 26)

    def test_a_group(self) -> None:
        self.belongs("/system.slice/reverseproxy.service")
        self.group("system.slice/reverseproxy.service", "33554432\n")
        self.assertEqual(available_memory(self.root), 32 << 20)

    def test_the_groups_above(self) -> None:
        self.belongs("/system.slice/reverseproxy.service")
        self.group("system.slice/reverseproxy.service", "max\n")
        self.group("system.slice", "16777216\n")
        self.assertEqual(available_memory(self.root), 16 << 20)

    def test_a_container(self) -> None:
        self.belongs("/")
        self.group("", "8388608\n")
        self.assertEqual(available_memory(self.root), 8 << 20)

    def test_what_is_no_group(self) -> None:
        self.belongs("/nowhere")
        self.assertEqual(available_memory(self.root), self.machine)
        (self.root / "proc/self/cgroup").write_text("rubbish\n")
        self.assertEqual(available_memory(self.root), self.machine)

    def test_what_streams_may_hold(self) -> None:
        memory = available_memory()
        assert memory is not None
        self.assertEqual((HELD.limit, HELD_LIMIT), (HELD_LIMIT, min(MOST_HELD, memory // HELD_PART)))
