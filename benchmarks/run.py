"""
Run the benchmarks: C{python3 benchmarks/run.py}.

Installs what it needs, starts everything, drives it, prints a table, stops
everything.  See README.md beside this file.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import shutil
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # run as a script: what is beside it is a package
    sys.path[0] = str(HERE.parent)

from benchmarks.install import InstallError, Tools, install  # noqa: E402
from benchmarks.load import LOADS, SMALL, Load, LoadError, drive  # noqa: E402
from benchmarks.measure import busy_seconds, cpu_seconds, machine, resident_bytes  # noqa: E402
from benchmarks.peers import Direct, EnvoyPair, Nginx, OurPair, Peer, PeerError  # noqa: E402
from benchmarks.report import Cell, Measurement, render  # noqa: E402

WORK = HERE / ".work"
REPEATS = 2  # of one disturbed round, so that a long disturbance does not take all patience
ROWS = ("direct", "envoy-http", "envoy-tcp", "ours-http", "ours-http-tcp", "ours-tcp", "ours-http-tls")


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def make_peer(name: str, tools: Tools, backend: Nginx) -> Peer:
    """Make the peer of a row."""
    if name == "direct":
        return Direct(backend)
    if name == "envoy-http":
        return EnvoyPair(tools, backend, "http")
    if name == "envoy-tcp":
        return EnvoyPair(tools, backend, "tcp")
    if name == "ours-http":
        return OurPair(tools, backend, "http", "http")
    if name == "ours-http-tcp":
        return OurPair(tools, backend, "http", "tcp")
    if name == "ours-tcp":
        return OurPair(tools, backend, "tcp", "tcp")
    if name == "ours-http-tls":
        return OurPair(tools, backend, "http", "http", tls=True)
    raise ValueError(name)


def measure(tools: Tools, backend: Nginx, peer: Peer, load: Load, seconds: float) -> Measurement:
    """
    Put a load on a peer once, and read what it cost.

    @raise PeerError: if the peer is not ready or ended.
    @raise LoadError: if wrk failed.
    """
    peer.settle()
    everyone = [*peer.pids, *backend.pids]
    busy = busy_seconds()
    before = [cpu_seconds(pid) for pid in everyone]
    result = drive(tools.wrk, peer.url, load, seconds)
    peer.check()
    used = [cpu_seconds(pid) - earlier for pid, earlier in zip(everyone, before, strict=True)]
    busy = busy_seconds() - busy
    return Measurement(
        result=result,
        cpu=tuple(used[: len(peer.pids)]),
        resident=tuple(resident_bytes(pid) for pid in peer.pids),
        others=max(0.0, busy - sum(used) - result.client_cpu),
    )


class Patience:
    """Time that may be spent on doing disturbed rounds again, all together."""

    def __init__(self, seconds: float) -> None:
        self._left = seconds

    def measure(self, tools: Tools, backend: Nginx, peer: Peer, load: Load, seconds: float) -> Measurement:
        """
        Do what L{measure} does, and again if the machine was not quiet and there is time.

        @return: the run that was disturbed least.
        """
        best = measure(tools, backend, peer, load, seconds)
        for _ in range(REPEATS):
            if best.quiet or self._left < seconds:
                break
            begun = time.monotonic()
            time.sleep(1.0)
            again = measure(tools, backend, peer, load, seconds)
            best = min(best, again, key=lambda each: each.disturbance)
            self._left -= time.monotonic() - begun
        return best


def run(
    tools: Tools,
    names: Sequence[str],
    loads: Sequence[Load],
    seconds: float,
    rounds: int,
    patience: Patience,
    work: Path,
) -> list[tuple[Load, dict[str, Cell]]]:
    """
    Run everything.

    @raise PeerError: if the backend does not start.  What happens to other
        peers is in their rows.
    """
    if work.exists():
        shutil.rmtree(work)
    work.mkdir(parents=True)
    with contextlib.ExitStack() as stack:
        backend = Nginx(tools)
        stack.callback(backend.stop)
        backend.start(work)
        backend.wait_ready()
        peers: dict[str, Peer] = {}
        failures: dict[str, str] = {}
        for name in names:
            peer = peers[name] = make_peer(name, tools, backend)
            stack.callback(peer.stop)
            say(f"starting {peer.title}")
            try:
                peer.start(work)
                peer.wait_ready()
            except PeerError as error:
                failures[name] = str(error)
                say(f"  {error}")
                peer.stop()
        tables = []
        for load in loads:
            cells = {name: Cell(peer.title, failure=failures.get(name, "")) for name, peer in peers.items()}
            tables.append((load, cells))
            # round 0 warms up and does not count
            for number in range(rounds + 1):
                for name, cell in cells.items():
                    if cell.failure:
                        continue
                    try:
                        if not number:
                            measure(tools, backend, peers[name], load, 1)
                            continue
                        taken = patience.measure(tools, backend, peers[name], load, seconds)
                    except (PeerError, LoadError) as error:
                        cell.failure = failures[name] = str(error)
                        say(f"  {error}")
                        continue
                    cell.measurements.append(taken)
                    _progress(load, number, rounds, cell.title, taken)
        for peer in peers.values():
            if peer.name not in failures and peer.evidence():
                say(f"{peer.title}: {peer.evidence()}")
        return tables


def _progress(load: Load, number: int, rounds: int, title: str, taken: Measurement) -> None:
    figure = (
        f"{taken.result.rate:,.0f} requests/s, {sum(taken.cpu) / max(1, taken.result.requests) * 1e6:.0f} µs"
        if load is SMALL
        else f"{taken.result.megabytes_per_second:,.0f} MB/s, "
        f"{sum(taken.cpu) / max(1, taken.result.received) * 1e9:.2f} s/GB"
    )
    trouble = "".join(f" [{problem}]" for problem in taken.result.problems)
    if not taken.quiet:
        trouble += f" [others used {taken.disturbance:.2f} cores]"
    say(f"{load.title}, round {number} of {rounds}, {title}: {figure}{trouble}")


def main(arguments: Sequence[str] | None = None) -> int:
    """
    The command.

    @return: the exit status: 0, or 1 if something could not be measured.
    """
    parser = argparse.ArgumentParser(
        description="Compare this project's tunnel with Envoy's on this machine."
    )
    parser.add_argument("--seconds", type=int, default=5, help="length of one round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="rounds of every row (default %(default)s)")
    parser.add_argument(
        "--patience",
        type=int,
        default=60,
        help="seconds, all together, for repeating rounds that others disturbed (default %(default)s)",
    )
    parser.add_argument(
        "--only",
        action="append",
        default=[],
        choices=[*ROWS, *(load.name for load in LOADS)],
        help="a row or a load to run, instead of all of them; may be given several times",
    )
    parser.add_argument("--output", type=Path, help="write the report into this file too")
    options = parser.parse_args(arguments)
    if options.seconds < 1 or options.rounds < 1:
        parser.error("--seconds and --rounds must be at least 1")
    names = [name for name in ROWS if name in options.only] or list(ROWS)
    loads = [load for load in LOADS if load.name in options.only] or list(LOADS)

    # SIGTERM ends as an interrupt does: with everything stopped
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    WORK.mkdir(exist_ok=True)
    try:
        tools = install(
            WORK,
            say,
            ours=any(name.startswith("ours") for name in names),
            envoy=any(name.startswith("envoy") for name in names),
        )
        when = datetime.datetime.now(datetime.UTC)
        tables = run(
            tools, names, loads, options.seconds, options.rounds, Patience(options.patience), WORK / "run"
        )
        report = render(tables, machine(), tools.versions(), options.seconds, when)
    except (InstallError, PeerError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    print(report)
    if options.output is not None:
        options.output.write_text(report)
    return 0 if all(cell.valid for _, cells in tables for cell in cells.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
