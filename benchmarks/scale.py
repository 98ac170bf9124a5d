"""
What many connections of many agents cost one server: C{scale.py [--connections N] [--agents N] [PART ...]}.

Parts:

    memory    resident memory of the server for each idle reverse connection
    joins     how many connections join and leave in a second, and what CPU that takes
    idle      CPU that the server uses while nothing but idle connections are there
    picking   CPU to choose a host and give it back, by balancer and number of hosts
    recovery  how many connections are back at what time after the server was killed
              and started again, and how often agents dialled for that

The server is a process of its own, C{twistd reverseproxy}; so are its agents
(L{benchmarks.scale_peers}).
"""

from __future__ import annotations

__all__ = [
    "BALANCERS",
    "Limits",
    "Server",
    "Swarms",
    "idle",
    "joins",
    "memory",
    "picking",
    "recovery",
    "table",
]

import argparse
import json
import os
import select
import socket
import subprocess
import sys
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from twisted.logger import globalLogBeginner

if __name__ == "__main__":
    # run as a script: the project is beside the directory of what is beside it
    sys.path[0] = str(Path(__file__).resolve().parent.parent)

from benchmarks.measure import cpu_seconds, listens, resident_bytes
from benchmarks.scale_peers import CLUSTER, LOOPBACK, raise_limit

ROOT = Path(__file__).resolve().parent.parent

ATTEMPTS = 3
"""How often to look for ports that nobody takes before the server does."""

TWISTD = "from twisted.scripts.twistd import run; run()"

BALANCERS = (
    "LB_RANDOM",
    "LB_ROUNDROBIN",
    "LB_WEIGHTED_ROUNDROBIN",
    "LB_LEAST_REQUEST",
    "LB_LEAST_CONNECTION",
    "LB_PEAK_EWMA",
    "LB_MAGLEV",
    "LB_REQUEST_ROUNDROBIN",
)

PATIENCE = 120.0
"""Seconds that any step may take."""


@dataclass(frozen=True)
class Limits:
    """
    How much of everything.

    @ivar processes: of agents.
    @ivar joins_per_second: the server's C{max_joins_per_second}; L{None} leaves
        it to its default.
    """

    connections: int = 10_000
    agents: int = 1_000
    processes: int = 2
    mux: bool = False
    joins_per_second: int | None = None

    @property
    def files(self) -> int:
        """How many descriptors a process needs for that."""
        return self.connections + 1_000


class Server:
    """A tunnel server in a process of its own."""

    def __init__(self, directory: Path, limits: Limits, joins_per_second: int | None) -> None:
        """@param joins_per_second: see L{Limits}."""
        # They stay bound, without listening, so that nobody else is given these ports.
        self._holders = (socket.socket(), socket.socket())
        for each in self._holders:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((LOOPBACK, 0))
        self.client, self.tunnel = (each.getsockname()[1] for each in self._holders)
        self._directory = directory
        self._process: subprocess.Popen[bytes] | None = None
        config: dict[str, Any] = {
            "mux": limits.mux,
            **dict.fromkeys(("max_hosts_per_agent", "max_hosts_per_credential", "max_hosts_per_address"), 0),
        }
        if joins_per_second is not None:
            config["max_joins_per_second"] = joins_per_second
        self._file = directory / "server.json"
        self._file.write_text(json.dumps(_document(self.client, self.tunnel, config)))

    @property
    def command(self) -> list[str]:
        """What runs twistd."""
        return [sys.executable, "-c", TWISTD]

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        """
        Start, and wait until it listens.

        @raise RuntimeError: if it does not.
        """
        with (self._directory / "server.log").open("ab") as log:
            self._process = subprocess.Popen(
                [*self.command, "-n", "--pidfile=", "reverseproxy", "-c", str(self._file)],
                cwd=self._directory,
                env={**os.environ, "PYTHONPATH": str(ROOT)},
                stdout=log,
                stderr=log,
            )
        deadline = time.monotonic() + PATIENCE
        while time.monotonic() < deadline and self._process.poll() is None:
            # One alone may be closed again: the server ends if the other is taken.
            if all(listens(self._process.pid, port) for port in (self.client, self.tunnel)):
                return
            time.sleep(0.02)
        raise RuntimeError(self.log)

    @property
    def log(self) -> str:
        """The end of its log."""
        return (self._directory / "server.log").read_text(errors="replace")[-2000:]

    def kill(self) -> None:
        """End it, without a chance to say so to anybody."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    def close(self) -> None:
        """End it for good."""
        self.kill()
        for each in self._holders:
            each.close()

    @property
    def memory(self) -> int:
        """Resident memory, bytes."""
        return resident_bytes(self.pid)

    @property
    def cpu(self) -> float:
        """CPU time used so far, seconds."""
        return sum(cpu_seconds(self.pid))

    def settle(self) -> None:
        """Wait until it has nothing to do."""
        before = self.cpu
        while True:
            time.sleep(0.3)
            now = self.cpu
            if now - before < 0.1:
                return
            before = now


def _document(client: int, tunnel: int, config: dict[str, Any]) -> dict[str, Any]:
    route = {"match": {"prefix": "/"}, "route": {"cluster_name": CLUSTER}}
    return {
        "servers": [
            {
                "default_log_level": "WARN",
                "routers": [
                    {
                        "router_config_name": "all",
                        "virtual_hosts": [{"name": "all", "domains": ["*"], "routers": [route]}],
                    }
                ],
                "listeners": [
                    {
                        "name": "clients",
                        "address": f"{LOOPBACK}:{client}",
                        "bind_port": True,
                        "filter_chains": [
                            {
                                "filters": [
                                    {
                                        "type": "proxy",
                                        "config": {
                                            "downstream_protocol": "Http1",
                                            "router_config_name": "all",
                                        },
                                    }
                                ]
                            }
                        ],
                    },
                    {
                        "name": "agents",
                        "address": f"{LOOPBACK}:{tunnel}",
                        "bind_port": True,
                        "filter_chains": [{"filters": [{"type": "tunnel", "config": config}]}],
                    },
                ],
            }
        ],
        "cluster_manager": {"clusters": [{"name": CLUSTER, "lb_type": "LB_ROUNDROBIN"}]},
    }


class _Child:
    """A process of L{benchmarks.scale_peers}."""

    def __init__(self, role: str, port: int, limits: Limits) -> None:
        command = [sys.executable, str(ROOT / "benchmarks" / "scale_peers.py"), role, str(port)]
        command += ["--files", str(limits.files), *(["--mux"] if limits.mux else [])]
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        self.pid = self._process.pid
        self.last: dict[str, Any] = {}

    def tell(self, command: str) -> None:
        """Give it a command."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{command}\n".encode())
        self._process.stdin.flush()

    @property
    def has_said(self) -> bool:
        """Whether there is a line that nobody has read yet."""
        return bool(select.select([self._process.stdout], [], [], 0)[0])

    def hear(self) -> dict[str, Any]:
        """
        Wait for its next line.

        @raise RuntimeError: if there is none in time.
        """
        output = self._process.stdout
        assert output is not None
        if select.select([output], [], [], PATIENCE)[0] and (line := output.readline()):
            self.last = json.loads(line)
            return self.last
        raise RuntimeError("the agents do not answer any more")

    def stop(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()


class Swarms:
    """Idle connections, in several processes."""

    def __init__(self, server: Server, limits: Limits) -> None:
        self._limits = limits
        self._children = [_Child("swarm", server.tunnel, limits) for _ in range(limits.processes)]

    def join(self, count: int) -> float:
        """
        Open connections.

        @return: how many seconds that took.
        @raise RuntimeError: if not all of them could join.
        """
        parts = _split(count, len(self._children))
        agents = max(self._limits.agents // len(self._children), 1)
        began = time.monotonic()
        for child, part in zip(self._children, parts, strict=True):
            child.tell(f"join {part} {agents}")
        for child in self._children:
            if child.hear()["failed"]:
                raise RuntimeError(f"connections could not join: {child.last}")
        return time.monotonic() - began

    def leave(self, count: int) -> None:
        """Close connections."""
        for child, part in zip(self._children, _split(count, len(self._children)), strict=True):
            child.tell(f"leave {part}")
            child.hear()

    def stop(self) -> None:
        """End the processes."""
        for child in self._children:
            child.stop()


def _split(count: int, parts: int) -> list[int]:
    return [(count + number) // parts for number in range(parts)]


def _started(directory: Path, limits: Limits, joins_per_second: int | None) -> Server:
    """Start a server, on other ports if somebody was faster to take these."""
    for _ in range(ATTEMPTS):
        server = Server(directory, limits, joins_per_second)
        try:
            server.start()
        except RuntimeError as error:
            server.close()
            if "Address already in use" not in str(error):
                raise
        else:
            return server
    raise RuntimeError(f"{ATTEMPTS} times somebody else had taken the ports")


@contextmanager
def running(limits: Limits, joins_per_second: int | None) -> Iterator[Server]:
    """A server that runs."""
    raise_limit(limits.files)
    with tempfile.TemporaryDirectory() as directory:
        server = _started(Path(directory), limits, joins_per_second)
        try:
            yield server
        finally:
            server.close()


@contextmanager
def swarming(limits: Limits) -> Iterator[tuple[Server, Swarms]]:
    """A server that lets any number of connections join in a second, and a swarm."""
    with running(limits, 0) as server:
        swarms = Swarms(server, limits)
        try:
            yield server, swarms
        except RuntimeError as error:
            raise RuntimeError(f"{error}; the server says:\n{server.log}") from error
        finally:
            swarms.stop()


def memory(limits: Limits, steps: int = 10) -> dict[str, Any]:
    """
    Take memory while connections are added.

    @return: C{bytes_per_connection}, from the first step to the last, and the
        C{curve} in bytes by number of connections.
    """
    with swarming(limits) as (server, swarms):
        server.settle()
        curve = [(0, server.memory)]
        for part in _split(limits.connections, steps):
            swarms.join(part)
            server.settle()
            curve.append((curve[-1][0] + part, server.memory))
        first, last = curve[0], curve[-1]
        return {
            "mux": limits.mux,
            "bytes_per_connection": round((last[1] - first[1]) / last[0]),
            "curve": curve,
        }


def joins(limits: Limits, rounds: int = 2) -> dict[str, Any]:
    """Let all connections join, and leave all at once, in turns; the last turn counts."""
    found: dict[str, Any] = {}
    with swarming(limits) as (server, swarms):
        count = limits.connections
        for _ in range(rounds):
            before = server.cpu
            seconds = swarms.join(count)
            server.settle()
            after = server.cpu
            swarms.leave(count)
            server.settle()
            left = server.cpu
            found = {
                "mux": limits.mux,
                "joins_per_second": round(count / seconds),
                "cpu_us_per_join": round((after - before) / count * 1e6),
                "cpu_us_per_leave": round((left - after) / count * 1e6),
                "leaves_per_cpu_second": round(count / max(left - after, 0.001)),
            }
    return found


def idle(limits: Limits, seconds: float = 10.0) -> dict[str, Any]:
    """Look what idle connections cost."""
    with swarming(limits) as (server, swarms):
        swarms.join(limits.connections)
        server.settle()
        before, began = server.cpu, time.monotonic()
        time.sleep(seconds)
        share = (server.cpu - before) / (time.monotonic() - began)
        return {
            "mux": limits.mux,
            "connections": limits.connections,
            "cpu_percent_of_a_core": round(share * 100, 1),
        }


def picking(sizes: Sequence[int] = (10, 100, 1_000, 10_000), requests: int = 20_000) -> list[dict[str, Any]]:
    """
    Choose hosts, in this process.

    A few requests are under way at any time, on hosts that can carry one each.

    @return: for each balancer and size, microseconds of CPU for a request
        (C{request}), and for a host to join or leave (C{change}).
    """
    from twisted.internet.task import Clock

    from reverseproxy.cluster.balancers.factory import make_balancer, make_tracker
    from reverseproxy.cluster.host import Host
    from reverseproxy.cluster.manager import Cluster
    from reverseproxy.config.models import ClusterConfig
    from reverseproxy.interfaces import PickContext

    class Bare(Host):
        is_reverse = True

        def connect(self, factory: object) -> Any:
            raise NotImplementedError

    found = []
    for kind in BALANCERS:
        for size in sizes:
            clock = Clock()
            config = ClusterConfig(name=CLUSTER, lb_type=kind)
            tracker = make_tracker(config, clock)
            cluster = Cluster(config, make_balancer(config, Random(1), clock, tracker), clock, tracker)
            hosts = [
                Bare(f"10.0.{number // 256}.{number % 256}:80", weight=number % 10 + 1, capacity=1)
                for number in range(size)
            ]
            for host in hosts:
                cluster.add_host(host)
            # Only this one goes by a key.
            key = kind == "LB_MAGLEV"
            contexts = [PickContext(hash_key=str(number).encode()) if key else None for number in range(1000)]
            under_way: deque[Any] = deque()
            cluster.release(_pick(cluster, contexts[0]))  # Some prepare themselves for the first one.
            began = time.process_time()
            for number in range(requests):
                under_way.append(_pick(cluster, contexts[number % 1000]))
                if len(under_way) >= min(size // 2, 32):
                    cluster.release(under_way.popleft())
            spent = time.process_time() - began
            changes = hosts[: min(size, 300)]
            began = time.process_time()
            for host in changes:
                cluster.remove_host(host)
            changed = time.process_time() - began
            found.append(
                {
                    "balancer": kind,
                    "hosts": size,
                    "request_us": round(spent / requests * 1e6, 2),
                    "leave_us": round(changed / len(changes) * 1e6, 2),
                }
            )
    return found


def _pick(cluster: Any, context: Any) -> Any:
    if context is not None:
        context.last = None
    host = cluster.acquire(context)
    assert host is not None
    return host


def recovery(limits: Limits, down: float = 10.0, watch: float = 90.0) -> dict[str, Any]:
    """
    Kill the server, start it again, and watch the agents come back.

    @param down: seconds for which there is no server.
    @param watch: seconds to watch after it is back, at the most.
    @return: C{curve}: seconds since the server was started again, the share of
        connections that serve, and dials and joins in a second;
        C{back}: after how many seconds what share of them was back.
    """
    with running(limits, limits.joins_per_second) as server:
        children = [_Child("agents", server.tunnel, limits) for _ in range(limits.processes)]
        try:
            agents = _split(limits.agents, len(children))
            each = limits.connections // limits.agents
            for child, part in zip(children, agents, strict=True):
                child.tell(f"start {part} {each}")
            wanted = limits.agents * each
            _until(children, lambda: _sum(children, "serving") == wanted)
            server.settle()
            server.kill()
            _for(children, down)
            server.start()
            began = time.monotonic()
            curve: list[dict[str, float]] = []
            back: dict[str, float] = {}
            before, dialled, at = 0, _sum(children, "dials"), began
            top = 0.0
            while at < began + watch:
                for child in children:
                    child.hear()
                # By their clock, which is ours: what was said before is not of now.
                now = min(child.last["time"] for child in children)
                serving, dials = _sum(children, "serving"), _sum(children, "dials")
                if now <= at:
                    dialled = dials
                    continue
                rate = (dials - dialled) / (now - at)
                top = max(top, rate)
                curve.append(
                    {
                        "seconds": round(now - began, 2),
                        "serving": round(serving / wanted, 4),
                        "dials_per_second": round(rate),
                        "joins_per_second": round((serving - before) / (now - at)),
                    }
                )
                before, dialled, at = serving, dials, now
                for share in (50, 90, 99, 100):
                    if serving * 100 >= share * wanted:
                        back.setdefault(f"{share} %", round(now - began, 1))
                if serving == wanted:
                    break
            return {
                "mux": limits.mux,
                "connections": wanted,
                "agents": limits.agents,
                "down": down,
                "back": back,
                "most_dials_per_second": round(top),
                "curve": curve,
            }
        finally:
            for child in children:
                child.stop()


def _sum(children: list[_Child], field: str) -> int:
    return sum(child.last.get(field, 0) for child in children)


def _until(children: list[_Child], done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + PATIENCE
    while not done():
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {_sum(children, 'serving')} connections serve")
        for child in children:
            child.hear()


def _for(children: list[_Child], seconds: float) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        for child in children:
            child.hear()


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Lay rows out in columns."""
    if not rows:
        return ""
    columns = list(rows[0])
    cells = [columns, *([str(row.get(column, "")) for column in columns] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )


PARTS: dict[str, Callable[[Limits], Any]] = {
    "memory": memory,
    "joins": joins,
    "idle": idle,
    "picking": lambda limits: picking(),
    "recovery": recovery,
}


def main(arguments: Sequence[str] | None = None) -> int:
    """The command."""
    parser = argparse.ArgumentParser(description="Measure what many connections cost.")
    parser.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all without any")
    parser.add_argument("--connections", type=int, default=Limits.connections)
    parser.add_argument("--agents", type=int, default=Limits.agents)
    parser.add_argument("--processes", type=int, default=Limits.processes)
    parser.add_argument(
        "--joins-per-second", type=int, help="the server's max_joins_per_second, for recovery"
    )
    parser.add_argument("--mux", action="store_true", help="connections that carry many streams")
    parser.add_argument("--json", type=Path, help="write the results into this file, too")
    options = parser.parse_args(arguments)
    globalLogBeginner.beginLoggingTo([], redirectStandardIO=False)
    limits = Limits(
        options.connections, options.agents, options.processes, options.mux, options.joins_per_second
    )
    results = {}
    for part in options.parts or PARTS:
        result = results[part] = PARTS[part](limits)
        print(f"\n{part}")
        rows = result if isinstance(result, list) else [result]
        curve = [] if isinstance(result, list) else result.get("curve", [])
        print(table([{key: value for key, value in row.items() if key != "curve"} for row in rows]))
        if curve and isinstance(curve[0], dict):
            print(table(curve))
        elif curve:
            print(table([{"connections": count, "bytes": size} for count, size in curve]))
    if options.json is not None:
        options.json.write_text(json.dumps(results, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
