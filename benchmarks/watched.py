"""
Whether requests suffer while somebody watches: C{watched.py [--agents N] [--rate R] [--rounds N]}.

Ten thousand agents, each with a connection of its own, join one server with an admin
API, and requests go through them at a constant rate.  Time is cut into windows, four of which
make a round:

  - I{off}: nobody watches;
  - I{opening}: somebody opens the dashboard, which asks for all agents to begin with, page after page;
  - I{open}: it stays open, and asks what the page asks: the summary, the clusters, what can be
    seen of the agents, and events as they happen;
  - I{off} again.

In the second and the third, Prometheus reads the metrics each second besides.  What counts is the 99th
percentile of the times of requests of these two windows, as a ratio to the mean of the two windows
beside them in which nobody watched: what else the machine does changes slowly, and hits them alike.
By how much these two differ from each other says what such a ratio is worth.  Beside that stand
the CPU that the server took, and how long the turns of its reactor were (L{benchmarks.turns}).
"""

from __future__ import annotations

__all__ = ["Viewer", "Window", "judge", "watch"]

import argparse
import http.client
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load import Load, drive_steadily
from benchmarks.processes import free_ports
from benchmarks.scale import PATIENCE, Limits, Server, Swarms
from benchmarks.scale_peers import LOOPBACK, raise_limit
from benchmarks.turns import SIGNAL, share_above

API = "/api/tunnel/v1"
SERVED = Load("served", "6 bytes x 16 connections", "/", 6, 16)
SEEN = 30
"""Agents that a window shows at once."""

OFF, OPENING, OPEN = "off", "opening", "open"
ROUND = (OFF, OPENING, OPEN, OFF)
LONG = 500
"""From how many microseconds on a turn counts as a long one."""


class Viewer:
    """
    Does what a browser does that shows the dashboard, and Prometheus.

    @ivar answers: how many questions were answered.
    """

    def __init__(self, port: int) -> None:
        self.answers = 0
        self._port = port
        self._done = threading.Event()
        self._threads = [threading.Thread(target=work) for work in (self._look, self._scrape, self._listen)]

    def __enter__(self) -> Viewer:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    def _ask(self, connection: http.client.HTTPConnection, path: str) -> bytes:
        connection.request("GET", path)
        answer = connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise RuntimeError(f"{path}: {answer.status} {body[:200]!r}")
        self.answers += 1
        return body

    def _connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(LOOPBACK, self._port, timeout=30)

    def _look(self) -> None:
        connection = self._connect()
        ids: list[str] = []
        after: str | None = ""
        while after is not None and not self._done.is_set():
            page = json.loads(self._ask(connection, f"{API}/agents?limit=100&after={after}"))
            ids += [agent["id"] for agent in page["items"]]
            after = page["next"]
        number = 0
        while not self._done.wait(2.0):
            self._ask(connection, f"{API}/summary")
            start = number * SEEN % max(len(ids), 1)
            self._ask(connection, f"{API}/agents?ids={','.join(ids[start : start + SEEN])}")
            if number % 2:
                self._ask(connection, f"{API}/clusters")
            number += 1
        connection.close()

    def _scrape(self) -> None:
        connection = self._connect()
        while not self._done.wait(1.0):
            self._ask(connection, "/metrics")
        connection.close()

    def _listen(self) -> None:
        with socket.create_connection((LOOPBACK, self._port), timeout=0.2) as connection:
            connection.sendall(f"GET {API}/events HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
            while not self._done.is_set():
                with suppress(TimeoutError):
                    connection.recv(65536)


class _Viewing:
    """L{Viewer} in a process of its own, which gives way to others, as a browser is on another machine."""

    def __init__(self, port: int) -> None:
        command = [sys.executable, str(Path(__file__).resolve()), "--view", str(port)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def stop(self) -> int:
        """End it; how many answers it has had."""
        output, _ = self._process.communicate(timeout=PATIENCE)
        if self._process.returncode:
            raise RuntimeError("the viewer has failed")
        return int(output)


def _view(port: int) -> int:
    """Watch until standard input ends."""
    os.nice(10)
    with Viewer(port) as viewer:
        sys.stdin.read()
    print(viewer.answers)
    return 0


class _Watched(Server):
    """A server with an admin API, whose turns are measured."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        super().__init__(directory, limits, 0)
        [self.admin] = free_ports(1)
        document = json.loads(self._file.read_text())
        where = {"address": LOOPBACK, "port_value": self.admin}
        self._file.write_text(json.dumps({**document, "admin": {"address": {"socket_address": where}}}))
        self._turns = directory / "turns.json"

    @property
    def command(self) -> list[str]:
        """What runs twistd."""
        return [sys.executable, str(Path(__file__).with_name("turns.py")), str(self._turns)]

    def turns(self) -> dict[str, Any]:
        """How long turns were since this was asked before; see L{benchmarks.turns.Meter.take}."""
        self._turns.unlink(missing_ok=True)
        os.kill(self.pid, SIGNAL)
        deadline = time.monotonic() + PATIENCE
        while not self._turns.exists():
            if time.monotonic() > deadline:
                raise RuntimeError("the server does not say how long its turns were")
            time.sleep(0.01)
        found: dict[str, Any] = json.loads(self._turns.read_text())
        return found


@contextmanager
def _running(limits: Limits) -> Iterator[_Watched]:
    raise_limit(limits.files)
    with tempfile.TemporaryDirectory() as directory:
        server = _Watched(Path(directory), limits)
        server.start()
        swarms = Swarms(server, limits)
        try:
            swarms.join(limits.connections)
            server.settle()
            yield server
        finally:
            swarms.stop()
            server.kill()


@dataclass(frozen=True)
class Window:
    """
    What one window was like.

    @ivar p99: the 99th percentile of the times of requests, seconds.
    @ivar cpu: the server's CPU, seconds for each second.
    @ivar longest: its longest turn, seconds.
    @ivar long: which share of its turns were long.
    """

    kind: str
    p99: float
    cpu: float
    longest: float
    long: float


def judge(windows: Sequence[Window]) -> dict[str, Any]:
    """
    Compare windows.

    @param windows: whole rounds, see L{ROUND}.
    @return: by kind, the medians; the medians of the ratios to the windows around; and how much these
        differ from each other (C{noise}).
    """
    rounds = [windows[start : start + len(ROUND)] for start in range(0, len(windows), len(ROUND))]
    ratios: dict[str, list[float]] = {OPENING: [], OPEN: []}
    noise = []
    for first, *seen, last in rounds:
        usual = (first.p99 + last.p99) / 2
        for each in seen:
            ratios[each.kind].append(each.p99 / usual)
        noise.append(abs(first.p99 - last.p99) / usual)
    return {
        "windows": {kind: _medians([each for each in windows if each.kind == kind]) for kind in ROUND[:3]},
        "ratio": {kind: round(statistics.median(each), 3) for kind, each in ratios.items()},
        "ratios": {kind: [round(one, 3) for one in each] for kind, each in ratios.items()},
        "noise": round(statistics.median(noise), 3),
    }


def _medians(windows: Sequence[Window]) -> Mapping[str, float]:
    def median(name: str) -> float:
        return statistics.median(getattr(each, name) for each in windows)

    return {
        "p99_ms": round(median("p99") * 1e3, 3),
        "cpu": round(median("cpu"), 4),
        "longest_turn_ms": round(median("longest") * 1e3, 3),
        "long_turns": round(median("long"), 5),
    }


def watch(agents: int, rate: float, seconds: float, rounds: int, mux: bool = False) -> dict[str, Any]:
    """Measure."""
    windows: list[Window] = []
    answers = 0
    with _running(Limits(agents, agents, 1, mux)) as server:
        drive_steadily(server.client, SERVED, rate, 2.0)  # to get warm
        viewing: _Viewing | None = None
        for kind in ROUND * rounds:
            if kind == OPENING:
                viewing = _Viewing(server.admin)
            elif kind == OFF and viewing is not None:
                answers += viewing.stop()
                viewing = None
            server.turns()
            cpu, began = server.cpu, time.monotonic()
            result = drive_steadily(server.client, SERVED, rate, seconds)
            if result.problems:
                raise RuntimeError(", ".join(result.problems))
            cpu, passed, turns = server.cpu - cpu, time.monotonic() - began, server.turns()
            windows.append(Window(kind, result.p99, cpu / passed, turns["longest"], share_above(turns, LONG)))
    return {"agents": agents, "rate": rate, "answers": answers, **judge(windows)}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="See whether requests suffer while somebody watches.")
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1_000.0, help="requests in a second")
    parser.add_argument("--seconds", type=float, default=4.0, help="of one window")
    parser.add_argument("--rounds", type=int, default=8, help="of four windows each")
    parser.add_argument(
        "--mux", action="store_true", help="connections that carry streams, which are pinged, too"
    )
    parser.add_argument("--view", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.view is not None:
        return _view(options.view)
    found = watch(options.agents, options.rate, options.seconds, options.rounds, options.mux)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
