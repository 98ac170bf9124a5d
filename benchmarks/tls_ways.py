"""
Whether it pays that OpenSSL has the socket: C{python -m benchmarks.tls_ways [--rounds N] [--seconds N]}.

TLS of our connections can go through memory, as it does everywhere else, or OpenSSL can read from
the socket and write to it by itself (L{reverseproxy.tls.socket_records}).  The latter is code that has
to earn its place.  For each row of the benchmark with TLS this runs two pairs of processes, which
differ in that alone, lets wrk have as much as it can get from one and then the other in many short
rounds, and compares the CPU that a request, or a gigabyte, has taken.  Two rounds lie side by side, so that
whatever else the machine does is shared out between both; what two rounds of the same kind differ
by says how much of a ratio is noise.  It needs wrk and nginx.
"""

from __future__ import annotations

__all__ = ["judge", "main"]

import argparse
import os
import shutil
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.hops import Nginx
from benchmarks.install import Tools
from benchmarks.load import BIG, SMALL, Load, drive
from benchmarks.metrics import compare, on_cpu
from benchmarks.ours import OurPair, Setup

ROWS = {
    "ours-http-tcp-tls": Setup("http", "tcp", tls=True),
    "ours-http-tls": Setup("http", "http", tls=True),
    "ours-http-tcp-tls-mux": Setup("http", "tcp", 1, mux=True, tls=True),
}
"""Those of C{rows.py} with these names."""

LOADS = (SMALL, BIG)

RUN = """
import sys
from reverseproxy.tls import transport
assert callable(transport.can_have_socket)
transport.can_have_socket = lambda *arguments: False
from twisted.scripts.twistd import run
sys.argv[0] = "twistd"
run()
"""
"""What runs twistd so that TLS goes through memory, and no socket is given to OpenSSL."""


class Pair(OurPair):
    """
    A server and an agent.

    @ivar memory: whether TLS goes through memory.
    """

    memory = False

    def _run(self, directory: Path, role: str, command: Sequence[str]) -> None:
        if self.memory:
            command = [sys.executable, "-c", RUN, *command[1:]]
        super()._run(directory, role, command)

    def cpu(self) -> float:
        """Seconds that both processes have been on a CPU."""
        return sum(on_cpu(pid) for pid in self.pids)


def _tools() -> Tools:
    path = f"{os.environ['PATH']}:/usr/sbin"
    nginx, wrk = shutil.which("nginx", path=path), shutil.which("wrk", path=path)
    if nginx is None or wrk is None:
        raise SystemExit("expected nginx and wrk to be installed")
    python = Path(sys.executable)
    return Tools(python=python, twistd=python.with_name("twistd"), nginx=Path(nginx), wrk=Path(wrk))


def judge(costs: Sequence[float]) -> tuple[float, float, float, float]:
    """
    Compare rounds that lie side by side.

    @param costs: of one with the socket, two through memory, two with the socket, and so on.
    @return: how much more memory costs, the first and the last quarter of that, and by how much two
        rounds of the same kind differ: ratios, less 1.
    """
    more, noise = compare(costs)
    quarter = len(more) // 4
    return statistics.median(more), more[quarter], more[-1 - quarter], statistics.median(map(abs, noise))


def _measure(pair: Pair, wrk: Path, load: Load, seconds: int) -> float:
    """Return the CPU of a request in microseconds; if it is large, that of a gigabyte in seconds."""
    pair.settle()
    before = pair.cpu()
    result = drive(wrk, pair.url, load, seconds)
    used = pair.cpu() - before
    if result.problems:
        raise RuntimeError(", ".join(result.problems))
    return used / result.requests * 1e6 if load is SMALL else used / result.received * 1e9


def _row(name: str, loads: Sequence[Load], seconds: int, rounds: int, directory: Path) -> None:
    tools = _tools()
    service = Nginx(tools)
    pairs: list[Pair] = []
    service.start(directory)
    try:
        for memory in (False, True):
            way = "memory" if memory else "socket"
            pair = Pair(f"{name}-{way}", f"{name}, {way}", tools, service, ROWS[name])
            pair.memory = memory
            pairs.append(pair)
            pair.start(directory)
            pair.wait_ready()
        for load in loads:
            for pair in pairs:
                _measure(pair, tools.wrk, load, 1)  # to get warm
            kinds = [0, 1, 1, 0] * ((rounds + 1) // 2)
            costs = [_measure(pairs[kind], tools.wrk, load, seconds) for kind in kinds]
            unit = "us of CPU a request" if load is SMALL else "s of CPU a GB"
            bound, copied = (
                statistics.median(cost for cost, kind in zip(costs, kinds, strict=True) if kind == wanted)
                for wanted in (0, 1)
            )
            more, low, high, noise = judge(costs)
            print(
                f"{name}, {load.title}: {bound:.2f} {unit} with the socket, {copied:.2f} through memory: "
                f"{more:+.1%} (half of the pairs from {low:+.1%} to {high:+.1%}; two rounds of the same kind "
                f"differ by {noise:.1%})",
                flush=True,
            )
    finally:
        for pair in reversed(pairs):
            pair.stop()
        service.stop()


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, and print a line for each row and load."""
    parser = argparse.ArgumentParser(description="See whether it pays that OpenSSL has the socket.")
    parser.add_argument("--seconds", type=int, default=1, help="of one round")
    parser.add_argument("--rounds", type=int, default=12, help="of each kind")
    parser.add_argument("--row", action="append", choices=ROWS, help="instead of all")
    parser.add_argument(
        "--load", action="append", choices=[load.name for load in LOADS], help="instead of both"
    )
    options = parser.parse_args(arguments)
    # This checkout, in whatever environment there is.
    os.environ["PYTHONPATH"] = str(Path(__file__).resolve().parent.parent)
    loads = [load for load in LOADS if load.name in (options.load or [load.name])]
    for name in options.row or ROWS:
        with tempfile.TemporaryDirectory(prefix="tls-ways-") as directory:
            _row(name, loads, options.seconds, options.rounds, Path(directory))
    return 0


if __name__ == "__main__":
    sys.exit(main())
