"""Tests for L{benchmarks.idle}: connections that do nothing stay, few of them here."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.idle import Found, Plan, stay


class StayTests(SynchronousTestCase):
    def check(self, found: Found) -> None:
        self.assertEqual((found.deaths, found.failed), (0, 0), found)
        self.assertGreaterEqual(found.requests, 5)
        self.assertGreater(found.bytes_per_connection, 0)

    def test_one_agent_with_many_connections(self) -> None:
        # More than are dialled at a time, and longer than the first of them may be silent.
        self.check(stay(Plan(connections=300, seconds=3.0, own=1)))

    def test_many_agents(self) -> None:
        for mux in (True, False):
            self.check(stay(Plan(connections=100, seconds=1.0, mux=mux)))
