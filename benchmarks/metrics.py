"""
What it costs to be seen: CPU of a request with an admin API that is scraped each second, against none.

Runs a tunnel server, an agent and nginx behind it, and lets wrk have 1 KB from it in many short rounds,
without the admin API and with it: a reload switches it on and off, so that it is the same two
processes that are compared, with the same memory, and whatever else the machine does is shared
out between both.  Of each two rounds that lie side by side, the ratio is taken, and of all these
the median, with the interval in which it lies with a probability of 95 %; what two rounds of the
same kind differ by says how much of it is noise::

    python -m benchmarks.metrics [--seconds 2] [--rounds 12] [--agents 1] [--relay] [--pin]

With C{--pin}, the server and the agent share one core, and what drives them and answers them has another:
slower, but nothing moves between cores, so that rounds differ less.
"""

from __future__ import annotations

__all__ = ["compare", "main", "on_cpu"]

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import threading
import time
import urllib.request
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.model import interval
from benchmarks.processes import free_ports
from benchmarks.workers import _document, _listener, _start, _wait

BODY = "x" * 1024
NGINX = """
daemon off; worker_processes 1; pid {directory}/nginx.pid; error_log stderr crit;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    server {{
        listen 127.0.0.1:{port};
        keepalive_requests 1000000000;
        location / {{ return 200 "{body}"; }}
    }}
}}
"""
"""The service."""

CONNECTIONS = 32
SETTLE = 0.5
"""Seconds after a change, in which connections that were closed for it are made again."""


def on_cpu(pid: int) -> float:
    """Seconds that a process has been on a CPU, as the scheduler has counted them, in nanoseconds."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


class End:
    """
    A server or an agent, whose admin API is switched on and off.

    @ivar pid: its process.
    """

    def __init__(self, directory: Path, name: str, document: dict[str, Any], admin: int) -> None:
        self._document = document
        self._file = directory / f"{name}.json"
        self._admin = admin
        self._process, self.log = _start(directory, name, document, 1)
        self._changes = 0
        self.pid = self._process.pid

    def show(self, seen: bool) -> None:
        """Switch the admin API on or off."""
        where = {"address": {"socket_address": {"address": "127.0.0.1", "port_value": self._admin}}}
        self._file.write_text(json.dumps({**self._document, **({"admin": where} if seen else {})}))
        self._process.send_signal(signal.SIGHUP)
        self._changes += 1
        _wait(self.log, r"is in use, generation", self._changes)

    def scrape(self) -> None:
        """Do what Prometheus does."""
        with urllib.request.urlopen(f"http://127.0.0.1:{self._admin}/metrics", timeout=10) as answer:
            answer.read()

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


class Site:
    """A server and its agents."""

    def __init__(self, directory: Path, agents: int, relay: bool = False, pin: bool = False) -> None:
        core, *others = sorted(os.sched_getaffinity(0))
        if pin and others:
            os.sched_setaffinity(0, others)  # wrk and nginx inherit it
        self._client, tunnel, hosting, service, *admins = free_ports(6)
        config = directory / "nginx.conf"
        config.write_text(NGINX.format(directory=directory, port=service, body=BODY))
        nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
        self._service = subprocess.Popen([nginx, "-e", "stderr", "-p", str(directory), "-c", str(config)])
        self.ends: list[End] = []
        document = _document(
            _listener("clients", self._client, "proxy"),
            _listener("tunnels", tunnel, "tunnel"),
            router={"route": {"cluster_name": "edge"}},
        )
        self.ends.append(End(directory, "server", document, admins[0]))
        agent = {
            "enable": True,
            "hosting_listener": "hosting",
            "server_list": [f"127.0.0.1:{tunnel}"],
            "cluster": "edge",
            "connection_num": 2,
            "mux": True,
        }
        hosted = _listener("hosting", hosting, "tcp_proxy" if relay else "proxy", bind=False)
        if relay:
            hosted["filter_chains"][0]["filters"][0]["config"] = {"cluster": "service"}
        document = _document(
            hosted,
            router={"route": {"cluster_name": "service"}},
            extends=[{"type": "tunnel_agent", "config": agent}] * agents,
            cluster_manager={
                "clusters": [{"name": "service", "hosts": [{"address": f"127.0.0.1:{service}"}]}]
            },
        )
        self.ends.append(End(directory, "agent", document, admins[1]))
        if pin and others:
            for end in self.ends:
                os.sched_setaffinity(end.pid, {core})
        self._seen = False
        _wait(self.ends[0].log, r" joined with weight", 2 * agents)

    def _scrape(self, done: threading.Event) -> None:
        pause = 0.5
        while not done.wait(pause):
            pause = 1.0
            for end in self.ends:
                end.scrape()

    def round(self, seconds: int, seen: bool) -> float:
        """
        Let wrk have as much as it can get.

        @return: microseconds of CPU of both processes for each request.
        """
        if seen is not self._seen:
            self._seen = seen
            for end in self.ends:
                end.show(seen)
            time.sleep(SETTLE)
        done = threading.Event()
        scraping = threading.Thread(target=self._scrape, args=(done,)) if seen else None
        before = sum(on_cpu(end.pid) for end in self.ends)
        if scraping is not None:
            scraping.start()
        wrk = shutil.which("wrk") or "wrk"
        load = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{self._client}/"]
        try:
            output = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=True).stdout
            used = sum(on_cpu(end.pid) for end in self.ends) - before
        finally:
            done.set()
            if scraping is not None:
                scraping.join()
        found = re.search(r"(\d+) requests in", output)
        if found is None or "Non-2xx" in output:
            raise RuntimeError(output)
        return used / int(found[1]) * 1e6

    def stop(self) -> None:
        """End all."""
        for end in self.ends:
            end.stop()
        self._service.terminate()
        self._service.wait(60)


def compare(costs: Sequence[float]) -> tuple[list[float], list[float]]:
    """
    Compare rounds that lie side by side.

    @param costs: of one without, two with, two without, and so on.
    @return: how much more one with took than the one without beside it; and how much
        two of the same kind differ by, up or down: sorted.
    """
    more, noise = [], []
    for number, (one, other) in enumerate(pairwise(costs)):
        if number % 2:
            noise.append(other / one - 1)
        else:
            more.append((other / one if number % 4 == 0 else one / other) - 1)
    return sorted(more), sorted(noise)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=12, help="of each kind")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--relay", action="store_true", help="let the agent pass bytes on, instead of HTTP")
    parser.add_argument(
        "--pin", action="store_true", help="share cores out: one for both ends, others for the rest"
    )
    options = parser.parse_args()
    directory = Path(tempfile.mkdtemp(prefix="metrics-"))
    site = None
    try:
        site = Site(directory, options.agents, options.relay, options.pin)
        site.round(2, False)  # to get warm
        kinds = [False, True, True, False] * ((options.rounds + 1) // 2)
        costs = [site.round(options.seconds, seen) for seen in kinds]
    finally:
        if site is not None:
            site.stop()
        shutil.rmtree(directory)
    off, on = (
        statistics.median(cost for cost, seen in zip(costs, kinds, strict=True) if seen is wanted)
        for wanted in (False, True)
    )
    more, noise = compare(costs)
    low, high = interval(more)
    where = "the server" if options.relay else "both ends"
    print(
        f"1 KB, {CONNECTIONS} clients, HTTP at {where}: {off:.1f} us of CPU a request without, {on:.1f} us "
        f"with metrics that are scraped each second: {statistics.median(more):+.1%}, with a probability of "
        f"95 % from {low:+.1%} to {high:+.1%} (the median of {len(more)} pairs of rounds; two rounds of the "
        f"same kind differ by {statistics.median(map(abs, noise)):.1%})"
    )


if __name__ == "__main__":
    main()
