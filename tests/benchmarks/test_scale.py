"""Tests for L{benchmarks.scale}, with few of everything."""

from __future__ import annotations

import resource
import socket

from twisted.trial.unittest import SynchronousTestCase

from benchmarks import scale
from benchmarks.measure import listens
from benchmarks.scale import BALANCERS, Limits, joins, memory, picking, recovery, table
from benchmarks.scale_peers import raise_limit

FEW = Limits(connections=40, agents=4, processes=2)
FEW_WITH_STREAMS = Limits(connections=40, agents=4, processes=1, mux=True)


class RunTests(SynchronousTestCase):
    def test_memory(self) -> None:
        for limits in (FEW, FEW_WITH_STREAMS):
            found = memory(limits, steps=2)
            self.assertEqual([count for count, _ in found["curve"]], [0, 20, 40])
            self.assertEqual(found["mux"], limits.mux)
            self.assertTrue(all(size > 2**20 for _, size in found["curve"]))

    def test_joins(self) -> None:
        found = joins(FEW, rounds=1)
        self.assertGreater(found["joins_per_second"], 0)

    def test_recovery(self) -> None:
        found = recovery(FEW, down=0.3, watch=100.0)
        self.assertEqual(set(found["back"]), {"50 %", "90 %", "99 %", "100 %"})
        self.assertEqual(found["curve"][-1]["serving"], 1.0)

    def test_a_port_is_taken(self) -> None:
        """A server that can't bind both ports is no server, even if it has listened on one for a moment."""
        started: list[scale.Server] = []

        class Server(scale.Server):
            def start(self) -> None:
                started.append(self)
                if len(started) > 1:
                    super().start()
                    return
                with socket.create_server(("127.0.0.1", self.client)):
                    super().start()

        self.patch(scale, "Server", Server)
        with scale.running(FEW, 0) as server:
            self.assertEqual(len(started), 2)
            self.assertTrue(listens(server.pid, server.client))


class PartTests(SynchronousTestCase):
    def test_picking(self) -> None:
        found = picking(sizes=(2, 20), requests=100)
        self.assertEqual({row["balancer"] for row in found}, set(BALANCERS))
        self.assertEqual(len(found), 2 * len(BALANCERS))
        self.assertTrue(all(row["request_us"] > 0 for row in found))

    def test_table(self) -> None:
        self.assertEqual(table([{"a": 1, "bc": "x"}, {"a": 10}]), " a  bc\n 1   x\n10    ")
        self.assertEqual(table([]), "")

    def test_split(self) -> None:
        for count in range(20):
            for parts in range(1, 5):
                split = scale._split(count, parts)
                self.assertEqual((sum(split), len(split)), (count, parts))
                self.assertLessEqual(max(split) - min(split), 1)

    def test_descriptors(self) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.assertEqual(raise_limit(1), soft)
        self.assertEqual(resource.getrlimit(resource.RLIMIT_NOFILE), (soft, hard))
