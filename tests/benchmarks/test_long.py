from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from benchmarks.load import LoadResult
from benchmarks.long import DIRECTIONS, PATHS
from benchmarks.longpeers import PeerFailed, accept, get_http1, move_http2, put_http1
from benchmarks.longwire import IN_FLIGHT, QUEUE, Direction, Relay
from benchmarks.model import Cell, Round, Run
from benchmarks.report import render

SIZE = 300_000
DELAY = 0.02


class DirectionTests(SynchronousTestCase):
    """Every byte arrives when it has been on its way for so long, at the rate of the wire."""

    def test_delay(self) -> None:
        wire = Direction(0.1)
        wire.put(b"one", 1.0)
        wire.put(b"two", 1.05)
        self.assertEqual((wire.due(1.09), wire.next_time(1.09), wire.held), ([], 1.1, 6))
        self.assertEqual(b"".join(wire.due(1.12)), b"one")
        self.assertEqual(b"".join(wire.due(1.2)), b"onetwo")
        wire.delivered(4)
        self.assertEqual((b"".join(wire.due(1.2)), wire.held), (b"wo", 2))
        wire.delivered(2)
        self.assertEqual((wire.due(9.0), wire.next_time(9.0), wire.held), ([], None, 0))

    def test_rate(self) -> None:
        wire = Direction(0.1, 1000.0)
        for _ in range(3):
            wire.put(bytes(100), 1.0)
        arrived = [at for at in (1.15, 1.25, 1.35, 1.45) for _ in wire.due(at)]
        self.assertEqual(arrived, [1.25, 1.35, 1.35, 1.45, 1.45, 1.45])
        self.assertFalse(wire.wants(1.29 - QUEUE))
        self.assertTrue(wire.wants(1.31 - QUEUE))

    def test_end(self) -> None:
        wire = Direction(0.1)
        wire.put(b"last", 1.0)
        wire.put(b"", 1.0)
        self.assertFalse(wire.wants(1.0))
        wire.delivered(sum(map(len, wire.due(1.2))))
        self.assertTrue(wire.finished)

    def test_a_receiver_that_takes_nothing_stops_the_sender(self) -> None:
        wire = Direction(0.1)
        self.assertTrue(wire.wants(1.0))
        wire.stopped = True
        self.assertFalse(wire.wants(1.0))
        wire.stopped = False
        wire.held = IN_FLIGHT
        self.assertFalse(wire.wants(1.0))


class TransferTests(SynchronousTestCase):
    """Bodies arrive whole, over a wire that takes its time."""

    def serve(self, http2: bool) -> int:
        """Serve one connection over a wire; return the wire's port."""
        listening = socket.create_server(("127.0.0.1", 0))
        self.addCleanup(listening.close)
        relay = Relay(listening.getsockname(), DELAY)
        over = threading.Event()

        def run() -> None:
            while not over.is_set():
                relay.turn(0.01)
            relay.close()

        threads = [
            threading.Thread(target=run),
            threading.Thread(target=accept, args=(listening, http2, SIZE, 1)),
        ]

        def stop() -> None:
            over.set()
            for thread in threads:
                thread.join()

        for thread in threads:
            thread.start()
        self.addCleanup(stop)
        return relay.port

    def check(self, http2: bool, move: Callable[[int], float]) -> None:
        begun = time.perf_counter()
        seconds = move(self.serve(http2))
        self.assertGreaterEqual(seconds, 2 * DELAY)
        self.assertLessEqual(seconds, time.perf_counter() - begun)

    def test_http1(self) -> None:
        self.check(False, lambda port: get_http1(port, SIZE))
        self.check(False, lambda port: put_http1(port, SIZE))

    def test_http2(self) -> None:
        self.check(True, lambda port: move_http2(port, SIZE, upload=False))
        self.check(True, lambda port: move_http2(port, SIZE, upload=True))

    def test_another_size(self) -> None:
        self.assertRaises(PeerFailed, move_http2, self.serve(True), SIZE - 1, False)


class ReportTests(SynchronousTestCase):
    def run_of(self, rates: dict[tuple[str, str, float], int]) -> Run:
        cells = [
            Cell(
                "long",
                way,
                name,
                PATHS[name].title,
                x,
                rounds=[Round(LoadResult(1.0, 1, rate * 1_000_000, 1.0, 1.0), (0.5,), (0.1,), (50_000_000,))],
            )
            for (name, way, x), rate in rates.items()
        ]
        return Run("2026-11-23T12:30:00+00:00", "run", "a machine", {}, {}, cells=cells)

    def rows(self, run: Run) -> list[list[str]]:
        text, _ = render(run, "results.json")
        section = text.partition("## Long wires")[2]
        return [
            [each.strip() for each in line.strip("|").split("|")]
            for line in section.splitlines()
            if line.startswith("|")
        ]

    def test_ratios_to_plain_connections_over_the_same_wire(self) -> None:
        rates = {("tcp", "down", 80.0): 200, ("tcp", "up", 80.0): 100, ("h2-client", "down", 80.0): 190}
        rates |= {("tunnel", "down", 80.0): 150, ("tunnel-mux", "down", 80.0): 120}
        heads, _, *rows = self.rows(self.run_of(rates))
        self.assertEqual(heads, ["path", "80 ms down", "80 ms up"])
        found = {row[0]: row[1:] for row in rows}
        self.assertEqual(found[PATHS["tcp"].title], ["200", "100"])
        self.assertEqual(found[PATHS["h2-client"].title], ["190 (0.95)", "-"])
        self.assertEqual(found[PATHS["tunnel-mux"].title], ["120 (0.80)", "-"])

    def test_nothing_was_measured(self) -> None:
        self.assertEqual(self.rows(self.run_of({})), [])

    def test_every_path_is_compared_with_a_plain_one_over_the_same_wire(self) -> None:
        self.assertEqual(DIRECTIONS, ("down", "up"))
        for path in PATHS.values():
            if path.plain:
                plain = PATHS[path.plain]
                self.assertEqual(
                    (plain.wire, plain.tls, plain.mux, plain.back), (path.wire, path.tls, False, "")
                )
            else:
                self.assertEqual((path.front, path.back, path.mux), ("", "", False))
