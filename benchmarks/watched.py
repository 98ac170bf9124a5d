"""
Whether requests suffer while somebody watches: C{watched.py [--agents N] [--rate R] [--rounds N]}.

Ten thousand agents, each with a connection of its own, join one server with an admin
API, and requests go through them at a constant rate.  In every other round somebody has the
dashboard open, which asks what the page asks: all agents to begin with, page after page, and then
the summary, the clusters, what can be seen of the agents, and events as they happen; and
Prometheus reads the metrics each second.  What counts is the 99th percentile of the times of
requests, with that and without.
"""

from __future__ import annotations

__all__ = ["Viewer", "watch"]

import argparse
import http.client
import json
import socket
import statistics
import sys
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.load import Load, drive_steadily
from benchmarks.processes import free_ports
from benchmarks.scale import Limits, Server, Swarms
from benchmarks.scale_peers import LOOPBACK, raise_limit

API = "/api/tunnel/v1"
SERVED = Load("served", "6 bytes x 16 connections", "/", 6, 16)
SEEN = 30
"""Agents that a window shows at once."""


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


class _Watched(Server):
    """A server with an admin API."""

    def __init__(self, directory: Path, limits: Limits) -> None:
        super().__init__(directory, limits, 0)
        [self.admin] = free_ports(1)
        document = json.loads(self._file.read_text())
        where = {"address": LOOPBACK, "port_value": self.admin}
        self._file.write_text(json.dumps({**document, "admin": {"address": {"socket_address": where}}}))


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


def watch(agents: int, rate: float, seconds: float, rounds: int, mux: bool = False) -> dict[str, Any]:
    """Measure."""
    with _running(Limits(agents, agents, 1, mux)) as server:
        drive_steadily(server.client, SERVED, rate, 2.0)  # to get warm
        p99s: list[float] = []
        answers = 0
        for seen in [False, True, True, False] * ((rounds + 1) // 2):
            if seen:
                with Viewer(server.admin) as viewer:
                    result = drive_steadily(server.client, SERVED, rate, seconds)
                answers += viewer.answers
            else:
                result = drive_steadily(server.client, SERVED, rate, seconds)
            if result.problems:
                raise RuntimeError(", ".join(result.problems))
            p99s.append(result.p99 * 1e3)
    pairs = list(enumerate(pairwise(p99s)))
    more = [one / other if number % 4 else other / one for number, (one, other) in pairs if number % 2 == 0]
    noise = [abs(other / one - 1) for number, (one, other) in pairs if number % 2]
    return {
        "agents": agents,
        "rate": rate,
        "p99_ms_unseen": round(statistics.median(p99s[0::4] + p99s[3::4]), 3),
        "p99_ms_seen": round(statistics.median(p99s[1::4] + p99s[2::4]), 3),
        "ratio": round(statistics.median(more), 3),
        "noise": round(statistics.median(noise), 3),
        "answers": answers,
        "p99s": [round(each, 3) for each in p99s],
    }


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="See whether requests suffer while somebody watches.")
    parser.add_argument("--agents", type=int, default=10_000)
    parser.add_argument("--rate", type=float, default=1_000.0, help="requests in a second")
    parser.add_argument("--seconds", type=float, default=8.0, help="of one round")
    parser.add_argument("--rounds", type=int, default=4, help="of each kind")
    parser.add_argument(
        "--mux", action="store_true", help="connections that carry streams, which are pinged, too"
    )
    options = parser.parse_args(arguments)
    found = watch(options.agents, options.rate, options.seconds, options.rounds, options.mux)
    print(json.dumps(found))
    return 0


if __name__ == "__main__":
    sys.exit(main())
