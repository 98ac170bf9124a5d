"""
What several workers cost, and how connections are shared out among them.

Runs a tunnel server with some numbers of workers, and an agent that answers by
itself, drives them with wrk, and reads the CPU time of all workers of the server::

    python -m benchmarks.workers [--seconds 3] [--connections 32]
"""

from __future__ import annotations

__all__ = ["main"]

import argparse
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

from benchmarks.processes import free_ports

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


def measure(workers: int, agents: int, mux: bool, seconds: float, connections: int) -> None:
    """Print a line on one combination."""
    directory = Path(tempfile.mkdtemp(prefix="workers-"))
    client, tunnel, hosting = free_ports(3)
    running = []
    try:
        document = _document(
            _listener("clients", client, "proxy"),
            _listener("tunnels", tunnel, "tunnel"),
            router={"route": {"cluster_name": "edge"}},
        )
        server, log = _start(directory, "server", document, workers)
        running.append(server)
        pids = [server.pid]
        if workers > 1:
            pids = [int(pid) for pid in _wait(log, r"is ready, process (\d+)", workers)]
        agent = {
            "enable": True,
            "hosting_listener": "hosting",
            "server_list": [f"127.0.0.1:{tunnel}"],
            "cluster": "edge",
            "connection_num": agents,
            "mux": mux,
        }
        document = _document(
            _listener("hosting", hosting, "proxy", bind=False),
            router={"direct_response": {"status": 200, "body": "hello"}},
            extends=[{"type": "tunnel_agent", "config": agent}],
        )
        running.append(_start(directory, "agent", document, 1)[0])
        _wait(log, r" joined with weight", agents * workers)
        wrk = shutil.which("wrk") or "wrk"
        load = [wrk, "-t1", f"-c{connections}", f"-d{seconds:g}s", f"http://127.0.0.1:{client}/"]
        before = _cpu(pids)
        driving = subprocess.Popen(load, stdout=subprocess.PIPE, text=True)
        time.sleep(seconds / 2)
        shares = _connections(client, pids)
        output = driving.communicate()[0]
        cpu = _cpu(pids) - before
        requests = int(re.search(r"(\d+) requests in", output)[1])  # type: ignore[index]
        bad = re.search(r"Non-2xx.*: (\d+)", output)
        print(
            f"{workers} workers, {agents} {'mux' if mux else 'plain'} connections: "
            f"{requests / seconds:.0f} r/s, {cpu / requests * 1e6:.0f} us of CPU a request, "
            f"clients {shares}, bad {bad[1] if bad else 0}",
            flush=True,
        )
    finally:
        for process in running:
            process.send_signal(signal.SIGTERM)
        for process in running:
            process.wait(60)
        shutil.rmtree(directory)


def main() -> None:
    """Measure all combinations."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--connections", type=int, default=32)
    options = parser.parse_args()
    for workers, agents, mux in (
        (1, 1, True),
        (2, 1, True),
        (2, 8, True),
        (4, 1, True),
        (1, 32, False),
        (2, 32, False),
        (2, 1, False),
    ):
        measure(workers, agents, mux, options.seconds, options.connections)


if __name__ == "__main__":
    main()
