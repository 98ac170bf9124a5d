"""
What it costs to be seen: CPU of a request with an admin API that is scraped each second, against none.

Runs a tunnel server and an agent, both with the admin API, and both without, and
lets wrk have 1 KB from each in turn, for many short rounds, so that whatever
else the machine does is shared between them::

    python -m benchmarks.metrics [--seconds 2] [--rounds 8] [--agents 1]
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import urllib.request
from pathlib import Path
from typing import Any

from benchmarks.processes import free_ports
from benchmarks.workers import _document, _listener, _start, _wait

BODY = "x" * 1024
CONNECTIONS = 32


def _on_cpu(pid: int) -> float:
    """Seconds that a process has been on a CPU."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def _admin(port: int) -> dict[str, Any]:
    return {"address": {"socket_address": {"address": "127.0.0.1", "port_value": port}}}


class Pair:
    """
    A server and its agents.

    @ivar seen: where they can be scraped.
    """

    def __init__(self, directory: Path, seen: bool, agents: int) -> None:
        self.client, tunnel, hosting, *admins = free_ports(5)
        self.seen = admins if seen else []
        directory.mkdir()
        more = [{"admin": _admin(port)} for port in self.seen] or [{}, {}]
        document = _document(
            _listener("clients", self.client, "proxy"),
            _listener("tunnels", tunnel, "tunnel"),
            router={"route": {"cluster_name": "edge"}},
            **more[0],
        )
        server, log = _start(directory, "server", document, 1)
        agent = {
            "enable": True,
            "hosting_listener": "hosting",
            "server_list": [f"127.0.0.1:{tunnel}"],
            "cluster": "edge",
            "connection_num": 2,
            "mux": True,
        }
        document = _document(
            _listener("hosting", hosting, "proxy", bind=False),
            router={"direct_response": {"status": 200, "body": BODY}},
            extends=[{"type": "tunnel_agent", "config": agent}] * agents,
            **more[1],
        )
        self._processes = [server, _start(directory, "agent", document, 1)[0]]
        _wait(log, r" joined with weight", 2 * agents)

    def scrape(self, done: threading.Event) -> None:
        """Do what Prometheus does, each second."""
        while not done.wait(1.0):
            for port in self.seen:
                with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
                    answer.read()

    def round(self, seconds: int) -> float:
        """
        Let wrk have as much as it can get.

        @return: microseconds of CPU of both processes for each request.
        """
        done = threading.Event()
        scraping = threading.Thread(target=self.scrape, args=(done,))
        scraping.start()
        before = sum(_on_cpu(process.pid) for process in self._processes)
        wrk = shutil.which("wrk") or "wrk"
        load = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{self.client}/"]
        try:
            output = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=True).stdout
            used = sum(_on_cpu(process.pid) for process in self._processes) - before
        finally:
            done.set()
            scraping.join()
        found = re.search(r"(\d+) requests in", output)
        if found is None or "Non-2xx" in output:
            raise RuntimeError(output)
        return used / int(found[1]) * 1e6

    def stop(self) -> None:
        """End both."""
        for process in self._processes:
            process.send_signal(signal.SIGTERM)
        for process in self._processes:
            process.wait(60)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=8)
    parser.add_argument("--agents", type=int, default=1)
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="metrics-"))
    pairs: list[Pair] = []
    try:
        pairs.append(Pair(directory / "off", False, options.agents))
        pairs.append(Pair(directory / "on", True, options.agents))
        for pair in pairs:
            pair.round(1)  # to get warm
        rounds = [[pair.round(options.seconds) for pair in pairs] for _ in range(options.rounds)]
    finally:
        for pair in pairs:
            pair.stop()
        shutil.rmtree(directory)
    off, on = (statistics.median(each[i] for each in rounds) for i in (0, 1))
    ratios = sorted(each[1] / each[0] for each in rounds)
    print(
        f"1 KB, {CONNECTIONS} clients: {off:.1f} us of CPU a request without, {on:.1f} us with metrics that "
        f"are scraped each second: {statistics.median(ratios) - 1:+.1%} "
        f"({ratios[0] - 1:+.1%} to {ratios[-1] - 1:+.1%} in {options.rounds} rounds)"
    )


if __name__ == "__main__":
    main()
