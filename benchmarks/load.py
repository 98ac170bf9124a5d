"""
The load: what clients are asked to do, and what they answer.
"""

from __future__ import annotations

__all__ = [
    "BIG",
    "GIANT",
    "LOADS",
    "RESOURCES",
    "SMALL",
    "SPREAD",
    "VARIED",
    "Load",
    "LoadError",
    "LoadResult",
    "drive",
    "drive_bolt",
    "drive_h2",
    "drive_steadily",
    "parse",
    "parse_h2",
    "parse_json",
    "transfer",
]

import json
import re
import resource
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.rate import percentile

HERE = Path(__file__).parent
SCRIPT = HERE / "done.lua"
LOOPBACK = "127.0.0.1"


class LoadError(Exception):
    """A client did not run, or said something that cannot be understood."""


@dataclass(frozen=True)
class Load:
    """
    One kind of load of wrk's.

    @ivar name: how the command line calls it.
    @ivar title: how the report calls it.
    @ivar path: the path of the resource, on the backend.
    @ivar size: its size, bytes.
    @ivar connections: how many client connections ask for it, one request
        outstanding on each.
    @ivar variants: how many different requests there are; 0 if all are the same.
    """

    name: str
    title: str
    path: str
    size: int
    connections: int
    variants: int = 0

    def over(self, connections: int) -> Load:
        """The same over another number of connections."""
        return replace(self, connections=connections)


SMALL = Load("1k", "1 KB x 32 connections", "/1k", 1024, 32)
BIG = Load("10m", "10 MB x 4 connections", "/10m", 10 * 1024 * 1024, 4)
VARIED = Load("1k-varied", "1 KB x 32 connections, requests that differ", "/1k", 1024, 32, variants=61)
LOADS = (SMALL, BIG)
# bodies of growing size; the last one is one transfer
SPREAD = (
    SMALL.over(4),
    Load("64k", "64 KB x 4 connections", "/64k", 64 * 1024, 4),
    Load("1m", "1 MB x 4 connections", "/1m", 1024 * 1024, 4),
    BIG,
)
GIANT = Load("1g", "1 GB, one transfer", "/1g", 1_000_000_000, 1)
RESOURCES = {
    **{load.path: load.size for load in (SMALL, BIG, *SPREAD, GIANT)},
    **{f"{VARIED.path}-{number}": VARIED.size for number in range(1, VARIED.variants + 1)},
}


@dataclass(frozen=True)
class LoadResult:
    """
    What one run of a client measured.

    @ivar seconds: how long it lasted.
    @ivar requests: responses received whole.
    @ivar received: bytes received, headers and unfinished responses included.
    @ivar p50: median latency, seconds.
    @ivar p99: 99th percentile of latency, seconds.
    @ivar problems: what went wrong, in words; empty if nothing did.
    @ivar client_cpu: CPU time that the client itself used, seconds.
    @ivar extra: what else the client says of itself, by name.
    """

    seconds: float
    requests: int
    received: int
    p50: float
    p99: float
    problems: tuple[str, ...] = ()
    client_cpu: float = 0.0
    extra: dict[str, float] = field(default_factory=dict)

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


_UNITS = {"B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}


def parse_h2(output: str, log: str, client_cpu: float = 0.0) -> LoadResult:
    """
    Read what h2load printed, and its log.

    @param log: a line for each request: when it began, its status, and how long
        it took in microseconds.
    @raise LoadError: if something is missing.
    """
    finished = re.search(r"finished in ([0-9.]+)(us|ms|s), ", output)
    counts = re.search(r"requests: .* (\d+) succeeded, (\d+) failed, (\d+) errored, (\d+) timeout", output)
    codes = re.search(r"status codes: (\d+) 2xx, (\d+) 3xx, (\d+) 4xx, (\d+) 5xx", output)
    traffic = re.search(r"traffic: .*?\((\d+)\) total", output)
    if finished is None or counts is None or codes is None or traffic is None:
        raise LoadError(f"h2load printed no summary: {output.strip()[-500:]!r}")
    seconds = float(finished[1]) * {"us": 1e-6, "ms": 1e-3, "s": 1.0}[finished[2]]
    succeeded, failed, _errored, timeouts = (int(each) for each in counts.groups())
    times = [int(fields[2]) for line in log.splitlines() if len(fields := line.split()) == 3]
    problems = []
    if failed:
        problems.append(f"{failed} failed requests")
    if timeouts:
        problems.append(f"{timeouts} timeouts")
    if strange := sum(int(each) for each in codes.groups()[2:]):
        problems.append(f"{strange} responses that are not 2xx or 3xx")
    if not succeeded:
        problems.append("no request was answered")
    return LoadResult(
        seconds=seconds,
        requests=succeeded,
        received=int(traffic[1]),
        p50=percentile(times, 0.5) / 1e6,
        p99=percentile(times, 0.99) / 1e6,
        problems=tuple(problems),
        client_cpu=client_cpu,
    )


def parse_json(output: str, name: str, client_cpu: float = 0.0) -> LoadResult:
    """
    Read what one of our own clients printed.

    @param name: of the client.
    @raise LoadError: if its last line is not what it should be.
    """
    try:
        figures = json.loads(output.strip().splitlines()[-1])
        requests = figures.pop("requests", None)
        if requests is None:
            requests = figures["counted"]
        result = LoadResult(
            seconds=figures.pop("seconds"),
            requests=requests,
            received=figures.pop("bytes", 0),
            p50=figures.pop("p50"),
            p99=figures.pop("p99"),
            problems=tuple(figures.pop("problems")),
            client_cpu=client_cpu,
            extra=figures,
        )
    except (ValueError, IndexError, KeyError, TypeError, AttributeError) as error:
        raise LoadError(f"{name} printed no summary: {output.strip()[-500:]!r}") from error
    if not result.requests:
        return replace(result, problems=(*result.problems, "no request was answered"))
    return result


def _call(command: Sequence[str], timeout: float) -> tuple[str, float]:
    """
    Run a client.

    @return: what it printed, and the CPU seconds that it used.
    @raise LoadError: if it fails.
    """
    name = Path(command[1] if command[0] == sys.executable else command[0]).name
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    # A process group of its own, so that an interrupt at the terminal goes to us alone and we end it
    # in order.  Not a session of its own: Linux may share the processors out between sessions first
    # (sched_autogroup), which took a sixth of the requests per second from pairs of processes.
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, process_group=0
    ) as process:
        try:
            output, _ = process.communicate(timeout=timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            raise LoadError(f"{name} did not end within {timeout:.0f} s") from None
        except BaseException:
            process.kill()
            raise
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if process.returncode:
        raise LoadError(f"{name} ended with {process.returncode}: {output.strip()[-500:]!r}")
    return output, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def drive(wrk: Path, url: str, load: Load, seconds: float) -> LoadResult:
    """
    Put a load on a URL with wrk and wait for the result.

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
    if load.variants:
        command += ["--", "varied", str(load.variants)]
    return parse(*_call(command, duration + 30))


def drive_h2(h2load: Path, url: str, path: str, streams: int, seconds: float, log: Path) -> LoadResult:
    """
    Put a load of HTTP/2 on a URL over one connection.

    @param streams: how many requests are outstanding.
    @param log: a file to use.
    @raise LoadError: if h2load fails.
    """
    log.unlink(missing_ok=True)
    duration = max(1, round(seconds))
    command = [
        *(str(h2load), "-t", "1", "-c", "1", "-m", str(streams), "-D", str(duration)),
        *(f"--log-file={log}", url + path),
    ]
    output, cpu = _call(command, duration + 30)
    return parse_h2(output, log.read_text() if log.exists() else "", cpu)


def drive_steadily(port: int, load: Load, rate: float, seconds: float) -> LoadResult:
    """
    Ask at a constant rate.

    @param rate: requests per second.
    @raise LoadError: if the client fails.
    """
    command = [
        *(sys.executable, str(HERE / "rate.py"), str(port)),
        *("--rate", f"{rate:.3f}", "--seconds", f"{seconds:g}", "--connections", str(load.connections)),
        *("--path", load.path, "--size", str(load.size)),
    ]
    output, cpu = _call(command, seconds + 30)
    return parse_json(output, "rate.py", cpu)


def drive_bolt(port: int, connections: int, in_flight: int, seconds: float) -> LoadResult:
    """
    Put a load of bolt on a port: echoes of 1 KB.

    @param in_flight: requests outstanding on each connection.
    @raise LoadError: if the client fails.
    """
    command = [
        *(sys.executable, str(HERE / "bolt.py"), "drive", str(port), "--seconds", f"{seconds:g}"),
        *("--connections", str(connections), "--in-flight", str(in_flight)),
    ]
    output, cpu = _call(command, seconds + 30)
    return parse_json(output, "bolt.py", cpu)


def transfer(port: int, load: Load, timeout: float = 30.0) -> LoadResult:
    """
    Ask for a resource once and take it as fast as it comes.

    @raise LoadError: if it does not come whole.
    """
    buffer = memoryview(bytearray(1 << 20))
    cpu, start = time.process_time(), time.perf_counter()
    received, needed = 0, 0
    try:
        with socket.create_connection((LOOPBACK, port), timeout=timeout) as connection:
            connection.sendall(f"GET {load.path} HTTP/1.1\r\nHost: {LOOPBACK}\r\n\r\n".encode())
            while not needed or received < needed:
                size = connection.recv_into(buffer)
                if not size:
                    raise LoadError(f"the connection was closed after {received:,} bytes")
                if not needed:
                    head, end, _ = bytes(buffer[:size]).partition(b"\r\n\r\n")
                    if not end or b" 200 " not in head[:16]:
                        raise LoadError(f"the answer began {head[:100]!r}")
                    needed = len(head) + len(end) + load.size
                received += size
                if time.perf_counter() - start > timeout:
                    raise LoadError(f"{received:,} bytes came in {timeout:.0f} s")
    except OSError as error:
        raise LoadError(f"after {received:,} bytes: {error!r}") from error
    seconds = time.perf_counter() - start
    return LoadResult(
        seconds=seconds,
        requests=1,
        received=received,
        p50=seconds,
        p99=seconds,
        client_cpu=time.process_time() - cpu,
    )
