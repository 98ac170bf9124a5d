"""
What several workers cost, and how connections are shared out among them.

Runs a tunnel server with some numbers of workers, and an agent that answers by
itself, drives them with wrk, and reads the CPU time of all workers of the server::

    python -m benchmarks.workers [--seconds 2] [--rounds 5] [--workers 1 2 4] [--row 0]

With plain connections of HTTP/1 the agent is C{light_agent.c}, if there is a compiler, so that
it is not what is measured.  Servers with different numbers of workers run side by side, and
are driven one after the other in many short rounds, so that whatever else the machine does
meanwhile is the same for all of them.  The CPU of a request says more than the rate where cores are few.
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import json
import os
import re
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.processes import free_ports
from reverseproxy.wire.mosn.frames import ConnectionInit, encode

_TWISTD = (sys.executable, "-c", "from twisted.scripts.twistd import run; run()", "-n", "--pidfile=")
_TICK = os.sysconf("SC_CLK_TCK")


def _document(*listeners: dict[str, Any], router: dict[str, Any], **more: Any) -> dict[str, Any]:
    host = {"name": "all", "domains": ["*"], "routers": [{"match": {"prefix": "/"}, **router}]}
    routers = [{"router_config_name": "router", "virtual_hosts": [host]}]
    return {
        "servers": [{"default_log_level": "INFO", "listeners": list(listeners), "routers": routers}],
        "cluster_manager": {"clusters": [{"name": "edge", "lb_type": "LB_ROUNDROBIN"}]},
        **more,
    }


def _listener(name: str, port: int, kind: str, bind: bool = True) -> dict[str, Any]:
    proxy = {"downstream_protocol": "Http1", "router_config_name": "router"}
    return {
        "name": name,
        "address": f"127.0.0.1:{port}",
        "bind_port": bind,
        "filter_chains": [{"filters": [{"type": kind, "config": proxy if kind == "proxy" else {}}]}],
    }


def _start(directory: Path, name: str, document: dict[str, Any], workers: int) -> tuple[Any, Path]:
    config, log = directory / f"{name}.json", directory / f"{name}.log"
    config.write_text(json.dumps(document))
    options = ("reverseproxy", "--config", str(config), "--workers", str(workers))
    with log.open("wb") as output:
        return subprocess.Popen([*_TWISTD, *options], stdout=output, stderr=output, cwd=directory), log


def _wait(log: Path, pattern: str, count: int) -> list[str]:
    deadline = time.monotonic() + 60
    while len(found := re.findall(pattern, log.read_text())) < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"no {count} times {pattern!r} in the log:\n{log.read_text()}")
        time.sleep(0.05)
    return found


def _cpu(pids: list[int]) -> float:
    """Seconds of CPU that processes have used."""
    ticks = 0
    for pid in pids:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        ticks += int(fields[11]) + int(fields[12])
    return ticks / _TICK


def _connections(port: int, pids: list[int]) -> list[int]:
    """How many clients each worker has, by /proc."""
    inodes = set()
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        if fields[3] == "01" and int(fields[1].rpartition(":")[2], 16) == port:
            inodes.add(f"socket:[{fields[9]}]")
    counts: Counter[int] = Counter()
    for pid in pids:
        for descriptor in Path(f"/proc/{pid}/fd").iterdir():
            try:
                counts[pid] += os.readlink(descriptor) in inodes
            except OSError:
                continue
    return [counts[pid] for pid in pids]


class Setup:
    """
    A tunnel server with some workers, and an agent.

    @ivar name: for people.
    @ivar results: of each round: requests a second, microseconds of the workers' CPU for a
        request, and answers that were none.
    """

    def __init__(self, workers: int, agents: int, mux: bool, protocol: str = "Http1") -> None:
        self.name = f"{workers} worker{'s' if workers > 1 else ''}"
        self.results: list[tuple[float, float, int]] = []
        self._workers = workers
        self._directory = Path(tempfile.mkdtemp(prefix="workers-"))
        self._running: list[Any] = []
        try:
            self._begin(agents, mux, protocol)
        except BaseException:
            self.stop()
            raise

    def _begin(self, agents: int, mux: bool, protocol: str) -> None:
        self._client, tunnel, hosting = free_ports(3)
        document = _document(
            _listener("clients", self._client, "proxy"),
            _listener("tunnels", tunnel, "tunnel"),
            router={"route": {"cluster_name": "edge", "upstream_protocol": protocol}},
        )
        server, log = _start(self._directory, "server", document, self._workers)
        self._running.append(server)
        self._pids = [server.pid]
        if self._workers > 1:
            self._pids = [int(pid) for pid in _wait(log, r"is ready, process (\d+)", self._workers)]
        _wait(log, "listener tunnels listening", 1)
        self._start_agent(tunnel, hosting, agents, mux, protocol)
        _wait(log, r" joined with weight", agents)

    def _start_agent(self, tunnel: int, hosting: int, agents: int, mux: bool, protocol: str) -> None:
        compiler = shutil.which("cc")
        if not mux and protocol == "Http1" and compiler is not None:
            # One that leaves the cores to the workers.
            binary = self._directory / "light_agent"
            source = Path(__file__).with_name("light_agent.c")
            subprocess.run([compiler, "-O2", "-o", str(binary), str(source)], check=True)
            hello = encode(ConnectionInit("edge")).hex()
            self._running.append(subprocess.Popen([str(binary), str(tunnel), str(agents), hello]))
            return
        agent = {
            "enable": True,
            "hosting_listener": "hosting",
            "server_list": [f"127.0.0.1:{tunnel}"],
            "cluster": "edge",
            "connection_num": agents,
            "mux": mux,
        }
        hosted = _listener("hosting", hosting, "proxy", bind=False)
        hosted["filter_chains"][0]["filters"][0]["config"]["downstream_protocol"] = protocol
        document = _document(
            hosted,
            router={"direct_response": {"status": 200, "body": "hello"}},
            extends=[{"type": "tunnel_agent", "config": agent}],
        )
        self._running.append(_start(self._directory, "agent", document, 1)[0])

    def drive(self, clients: int, seconds: int) -> None:
        """Ask for a while."""
        wrk = shutil.which("wrk") or "wrk"
        load = [wrk, "-t1", f"-c{clients}", f"-d{seconds}s", f"http://127.0.0.1:{self._client}/"]
        before = _cpu(self._pids)
        output = subprocess.run(load, stdout=subprocess.PIPE, text=True, check=True).stdout
        cpu = _cpu(self._pids) - before
        requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
        bad = re.search(r"Non-2xx.*: (\d+)", output)
        self.results.append((requests / seconds, cpu / requests * 1e6, int(bad[1]) if bad else 0))

    def shares(self) -> list[int]:
        """How many clients each worker has."""
        return _connections(self._client, self._pids)

    def median(self) -> tuple[float, float, int]:
        """What is in the middle of all rounds, and all answers that were none."""
        rates, costs, bad = zip(*self.results, strict=True)
        return statistics.median(rates), statistics.median(costs), sum(bad)

    def stop(self) -> None:
        """End it."""
        for process in self._running:
            process.send_signal(signal.SIGTERM)
        for process in self._running:
            process.wait(60)
        shutil.rmtree(self._directory)


ROWS: tuple[tuple[str, int, bool, str, int], ...] = (
    ("128 clients on 64 plain connections", 64, False, "Http1", 128),
    ("32 clients on 64 plain connections", 64, False, "Http1", 32),
    ("16 clients on 1 plain connection", 1, False, "Http1", 16),
    ("32 clients on 1 connection with streams", 1, True, "Http1", 32),
    ("32 clients on 8 connections with streams", 8, True, "Http1", 32),
    ("32 clients on 1 connection with HTTP/2", 1, False, "Http2", 32),
)
"""What is compared: a name, the agent's connections, whether they carry streams, the protocol, clients."""


def compare(row: tuple[str, int, bool, str, int], numbers: list[int], rounds: int, seconds: int) -> None:
    """Print a line for each number of workers, as it compares with one, in the same minutes."""
    name, agents, mux, protocol, clients = row
    setups: list[Setup] = []
    try:
        setups.extend(Setup(workers, agents, mux, protocol) for workers in numbers)
        for setup in setups:
            setup.drive(clients, 1)  # to get warm
            setup.results.clear()
        # One after the other, again and again: what else the machine does is the same for all.
        for _ in range(rounds):
            for setup in setups:
                setup.drive(clients, seconds)
        first = setups[0].median()
        for setup in setups:
            rate, cost, bad = setup.median()
            print(
                f"{name}: {setup.name}: {rate:.0f} r/s ({rate / first[0]:.2f}), "
                f"{cost:.0f} us of CPU a request ({cost / first[1]:.2f}), bad {bad}",
                flush=True,
            )
    finally:
        for setup in setups:
            setup.stop()


def main() -> None:
    """Compare numbers of workers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=2, help="for each round")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument(
        "--row", type=int, action="append", help=f"from 0 to {len(ROWS) - 1}; all if not given"
    )
    options = parser.parse_args()
    for number, row in enumerate(ROWS):
        if options.row is None or number in options.row:
            compare(row, options.workers, options.rounds, options.seconds)


if __name__ == "__main__":
    main()
