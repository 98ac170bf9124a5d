"""
The load: what wrk is asked to do, and what it answers.
"""

from __future__ import annotations

__all__ = ["BIG", "LOADS", "SMALL", "Load", "LoadError", "LoadResult", "drive", "parse"]

import json
import resource
import subprocess
from dataclasses import dataclass
from pathlib import Path

SCRIPT = Path(__file__).with_name("done.lua")


class LoadError(Exception):
    """wrk did not run, or said something that cannot be understood."""


@dataclass(frozen=True)
class Load:
    """
    One kind of load.

    @ivar name: how the command line calls it.
    @ivar title: how the report calls it.
    @ivar path: the path of the resource, on the backend.
    @ivar size: its size, bytes.
    @ivar connections: how many client connections ask for it, one request
        outstanding on each.
    """

    name: str
    title: str
    path: str
    size: int
    connections: int


SMALL = Load("1k", "1 KB x 32 connections", "/1k", 1024, 32)
BIG = Load("10m", "10 MB x 4 connections", "/10m", 10 * 1024 * 1024, 4)
LOADS = (SMALL, BIG)


@dataclass(frozen=True)
class LoadResult:
    """
    What one run of wrk measured.

    @ivar seconds: how long it lasted.
    @ivar requests: responses received whole.
    @ivar received: bytes received, headers and unfinished responses included.
    @ivar p50: median latency, seconds.
    @ivar p99: 99th percentile of latency, seconds.
    @ivar problems: what went wrong, in words; empty if nothing did.
    @ivar client_cpu: CPU time that wrk itself used, seconds.
    """

    seconds: float
    requests: int
    received: int
    p50: float
    p99: float
    problems: tuple[str, ...] = ()
    client_cpu: float = 0.0

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds

    @property
    def megabytes_per_second(self) -> float:
        """Megabytes (1,000,000 bytes) per second."""
        return self.received / self.seconds / 1e6


def parse(output: str, client_cpu: float = 0.0) -> LoadResult:
    """
    Read what wrk printed.

    @raise LoadError: if the line that C{done.lua} prints is not in it.
    """
    for line in reversed(output.splitlines()):
        if line.startswith('{"seconds"'):
            break
    else:
        raise LoadError(f"wrk printed no summary: {output.strip()[-500:]!r}")
    summary = json.loads(line)
    kinds = {
        "connect": "connections refused",
        "read": "failed reads",
        "write": "failed writes",
        "timeout": "timeouts",
        "status": "responses that are not 2xx or 3xx",
    }
    problems = [f"{summary[key]} {meaning}" for key, meaning in kinds.items() if summary[key]]
    if not summary["requests"]:
        problems.append("no request was answered")
    return LoadResult(
        seconds=summary["seconds"],
        requests=summary["requests"],
        received=summary["bytes"],
        p50=summary["p50"],
        p99=summary["p99"],
        problems=tuple(problems),
        client_cpu=client_cpu,
    )


def drive(wrk: Path, url: str, load: Load, seconds: float) -> LoadResult:
    """
    Put a load on a URL and wait for the result.

    @param wrk: the program.
    @param url: the root, without the load's path.
    @param seconds: how long; wrk takes whole seconds.
    @raise LoadError: if wrk fails.
    """
    duration = max(1, round(seconds))
    command = [
        *(str(wrk), "--threads=1", f"--connections={load.connections}", f"--duration={duration}s"),
        *("--timeout=10s", "--latency", f"--script={SCRIPT}", url + load.path),
    ]
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A process group of its own, so that an interrupt at the terminal goes to us alone and we end it
    # in order.  Not a session of its own: Linux may share the processors out between sessions first
    # (sched_autogroup), which took a sixth of the requests per second from pairs of processes.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        try:
            output, _ = process.communicate(timeout=duration + 30)
        except BaseException:
            process.kill()
            raise
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise LoadError(f"wrk ended with {process.returncode}: {output.strip()[-500:]!r}")
    return parse(output, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
