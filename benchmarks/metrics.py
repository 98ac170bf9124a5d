"""
What it costs to be seen: CPU of a request with an admin API that is scraped each second, against none.

Runs nginx and two sites, each a tunnel server and an agent, and lets one wrk for each of them have 1 KB from
it.  One site has an admin API, the other has none, and they work in turns of a fifth of a second: the wrk of
the other is stopped meanwhile (C{SIGSTOP}), so that whatever else the machine does comes to both.  Then a
reload gives the admin API to the other site, so that what two processes of the same kind differ by comes to
both, too; two such rounds make one ratio.  Now and then all are started anew, as where things happen to lie
in memory makes a difference.  Printed are the median of the ratios, and the interval in which it lies with
a probability of 95 %::

    python -m benchmarks.metrics [--seconds 8] [--pairs 20] [--restarts 5] [--every 1] [--relay] [--null]

All processes of both sites share one core, and what drives them and answers them has another.  With
C{--null}, neither site has an admin API, which shows what the measurement itself adds.  With C{--every 0},
nothing reads the metrics, which shows what counting alone costs.
"""

from __future__ import annotations

__all__ = ["main", "on_cpu", "ratio"]

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from http.client import HTTPConnection
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

PROMETHEUS = {"Accept": "application/openmetrics-text;version=1.0.0"}
"""The header fields of a scrape."""

CONNECTIONS = 32
TURN = 0.2
"""Seconds for which a site works before it is the turn of the other."""

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
        self._prometheus = HTTPConnection("127.0.0.1", admin, timeout=10)
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
        self._prometheus.close()  # it is opened again when it is needed

    def scrape(self) -> None:
        """Do what Prometheus does, which keeps its connection."""
        self._prometheus.request("GET", "/metrics", headers=PROMETHEUS)
        answer = self._prometheus.getresponse()
        answer.read()
        if answer.status != 200:
            raise RuntimeError(f"the metrics are answered with {answer.status}")

    def stop(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(60)


def start_service(directory: Path, port: int) -> subprocess.Popen[bytes]:
    """Start nginx, which answers with 1 KB."""
    config = directory / "nginx.conf"
    config.write_text(NGINX.format(directory=directory, port=port, body=BODY))
    nginx = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin") or "nginx"
    return subprocess.Popen([nginx, "-e", "stderr", "-p", str(directory), "-c", str(config)])


class Site:
    """
    A server and its agents.

    @ivar client: the port for clients.
    @ivar seen: whether it has an admin API.
    """

    def __init__(self, directory: Path, service: int, agents: int, relay: bool) -> None:
        directory.mkdir()
        self.client, tunnel, hosting, *admins = free_ports(5)
        self.seen = False
        self._ends: list[End] = []
        document = _document(
            _listener("clients", self.client, "proxy"),
            _listener("tunnels", tunnel, "tunnel"),
            router={"route": {"cluster_name": "edge"}},
        )
        self._ends.append(End(directory, "server", document, admins[0]))
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
        self._ends.append(End(directory, "agent", document, admins[1]))
        _wait(self._ends[0].log, r" joined with weight", 2 * agents)

    def pin(self, core: int) -> None:
        """Let it run on one core only."""
        for end in self._ends:
            os.sched_setaffinity(end.pid, {core})

    def show(self, seen: bool) -> None:
        """Switch the admin API on or off; a reload comes to it in either case, so that both are alike."""
        self.seen = seen
        for end in self._ends:
            end.show(seen)

    @property
    def used(self) -> float:
        """Seconds of CPU that it has used."""
        return sum(on_cpu(end.pid) for end in self._ends)

    def scrape(self) -> None:
        """Read the metrics of both ends."""
        for end in self._ends:
            end.scrape()

    def load(self, seconds: int) -> subprocess.Popen[str]:
        """Start to ask for as much as there is."""
        wrk = shutil.which("wrk") or "wrk"
        command = [wrk, "-t1", f"-c{CONNECTIONS}", f"-d{seconds}s", f"http://127.0.0.1:{self.client}/"]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self) -> None:
        """End it."""
        for end in self._ends:
            end.stop()


def take_turns(sites: Sequence[Site], seconds: int, every: float) -> list[float]:
    """
    Let the sites work in turns.

    @param seconds: for each of them.
    @param every: seconds of work after which the metrics of a site are read; 0 to read none.
    @return: microseconds of CPU of each site for a request.
    """
    before = [site.used for site in sites]
    loads = [site.load(seconds * len(sites)) for site in sites]
    try:
        for load in loads:
            load.send_signal(signal.SIGSTOP)
        worked = [0.0] * len(sites)
        due = [every / 2] * len(sites)
        while all(load.poll() is None for load in loads):
            for number, (site, load) in enumerate(zip(sites, loads, strict=True)):
                load.send_signal(signal.SIGCONT)
                began = time.monotonic()
                worked[number] += TURN
                time.sleep(TURN / 4)  # in the midst of its requests
                if site.seen and every and worked[number] >= due[number]:
                    due[number] += every
                    site.scrape()
                time.sleep(max(0.0, began + TURN - time.monotonic()))
                load.send_signal(signal.SIGSTOP)
    finally:
        for load in loads:
            load.send_signal(signal.SIGCONT)
    answered = [_answered(load.communicate()[0]) for load in loads]
    return [
        (site.used - known) / count * 1e6 for site, known, count in zip(sites, before, answered, strict=True)
    ]


def _answered(output: str) -> int:
    """Return the number of requests that wrk says it had answered."""
    found = re.search(r"(\d+) requests in", output)
    if found is None or "Non-2xx" in output:
        raise RuntimeError(output)
    return int(found[1])


def ratio(one: Sequence[float], other: Sequence[float]) -> float:
    """
    Compare two rounds.

    @param one: what a request costs at each of two sites, the first of which is seen.
    @param other: the same with the second one seen.
    @return: by which part more it costs to be seen: what the sites themselves differ by falls out.
    """
    return ((one[0] / one[1]) * (other[1] / other[0])) ** 0.5 - 1


class Comparison:
    """
    Pairs of rounds.

    @ivar more: what each pair says; see L{ratio}.
    @ivar off: microseconds of CPU of a request without metrics.
    @ivar on: the same with metrics.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self.more: list[float] = []
        self.off: list[float] = []
        self.on: list[float] = []

    def measure(self, pairs: int) -> None:
        """Start everything anew, and add the results of some pairs of rounds."""
        options = self._options
        core, *others = sorted(os.sched_getaffinity(0))
        with ExitStack() as started:
            directory = Path(started.enter_context(tempfile.TemporaryDirectory(prefix="metrics-")))
            (port,) = free_ports(1)
            if others:
                os.sched_setaffinity(0, others)  # what is started inherits it
                started.callback(os.sched_setaffinity, 0, {core, *others})
            # Before the agents, as these bring no host while the service can't be reached.
            service = start_service(directory, port)
            started.callback(service.wait, 60)
            started.callback(service.terminate)
            sites = []
            for name in ("one", "other"):
                site = Site(directory / name, port, options.agents, options.relay)
                started.callback(site.stop)
                sites.append(site)
                if others:
                    site.pin(core)
            for _ in range(pairs):
                rounds = []
                for number in range(2):
                    for place, site in enumerate(sites):
                        site.show(place == number and not options.null)
                    time.sleep(SETTLE)
                    take_turns(sites, 1, options.every)
                    rounds.append(take_turns(sites, options.seconds, options.every))
                    self.on.append(rounds[-1][number])
                    self.off.append(rounds[-1][1 - number])
                self.more.append(ratio(*rounds))
                print(f"{self.more[-1]:+.2%}", end=" ", flush=True)


def main() -> None:
    """Measure, and print a line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=int, default=8, help="of work of each site in a round")
    parser.add_argument("--pairs", type=int, default=20, help="of rounds")
    parser.add_argument("--restarts", type=int, default=5, help="how often all is started")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between scrapes; 0 for none")
    parser.add_argument("--agents", type=int, default=1)
    parser.add_argument("--relay", action="store_true", help="let the agent pass bytes on, instead of HTTP")
    parser.add_argument("--null", action="store_true", help="compare two sites without metrics")
    options = parser.parse_args()
    comparison = Comparison(options)
    for number in range(options.restarts):
        done = options.pairs * number // options.restarts
        comparison.measure(options.pairs * (number + 1) // options.restarts - done)
    low, high = interval(comparison.more)
    where = "the server" if options.relay else "both ends"
    what = "with metrics" + (f" that are read every {options.every:g} s" if options.every else "")
    print(
        f"\n1 KB, {CONNECTIONS} clients, HTTP at {where}: {statistics.median(comparison.off):.1f} us of CPU "
        f"a request without, {statistics.median(comparison.on):.1f} us "
        f"{'without as well' if options.null else what}: {statistics.median(comparison.more):+.1%}, with a "
        f"probability of 95 % from {low:+.1%} to {high:+.1%} ({len(comparison.more)} pairs of rounds)"
    )


if __name__ == "__main__":
    main()
