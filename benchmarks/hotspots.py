"""
Show where our processes spend their time: C{python3 benchmarks/hotspots.py}.

Drives one row and prints the functions that cost most, for the server and for
the agent, either sampled by py-spy (little disturbance; what the interpreter's
C code does counts for the function that calls it) or counted by cProfile (exact
calls, but each call is made several times as expensive).  Both go by the clock: a
process that waits for a processor inside a system call is charged to that call.
"""

from __future__ import annotations

import argparse
import contextlib
import pstats
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # run as a script: what is beside it is a package
    sys.path[0] = str(HERE.parent)

from benchmarks.install import InstallError, install  # noqa: E402
from benchmarks.load import LOADS, LoadError, drive  # noqa: E402
from benchmarks.peers import Nginx, OurPair, PeerError  # noqa: E402
from benchmarks.run import ROWS, WORK, make_peer, say  # noqa: E402

ROLES = ("server", "agent")
SAMPLES_PER_SECOND = 250


def shorten(function: str) -> str:
    """Leave of a path what tells where a function is: the last three parts."""
    name, _, place = function.partition(" (")
    return f"{name} ({'/'.join(place.split('/')[-3:])}" if place else name


def summarize(stacks: str, top: int) -> str:
    """
    Sum up py-spy's raw output.

    @param stacks: lines of frames, outermost first, separated by semicolons, then a
        space and the number of samples.
    """
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    total = 0
    for line in stacks.splitlines():
        frames, _, number = line.rpartition(" ")
        count = int(number)
        names = [shorten(frame) for frame in frames.split(";")]
        own[names[-1]] += count
        for name in set(names):
            cumulative[name] += count
        total += count
    lines = [f"{total} samples", "  own %   with callees %   function"]
    lines += [
        f"{count / total * 100:7.1f} {cumulative[name] / total * 100:16.1f}   {name}"
        for name, count in own.most_common(top)
    ]
    return "\n".join(lines)


def summarize_calls(path: Path, top: int, requests: int) -> str:
    """Sum up a file of cProfile's."""
    stats = pstats.Stats(str(path)).stats  # type: ignore[attr-defined]
    total = sum(entry[2] for entry in stats.values())
    lines = [f"{total:.2f} s", "  own %   with callees %   calls/request   function"]
    ordered = sorted(stats.items(), key=lambda item: item[1][2], reverse=True)
    for (file, line, name), (_, calls, own, cumulative, _) in ordered[:top]:
        place = shorten(f"{name} ({file}:{line})") if line else name
        share, reach = own / total * 100, cumulative / total * 100
        lines.append(f"{share:7.1f} {reach:16.1f} {calls / max(1, requests):15.2f}   {place}")
    return "\n".join(lines)


def main(arguments: Sequence[str] | None = None) -> int:
    """The command; returns the exit status."""
    parser = argparse.ArgumentParser(description="Show where our two processes spend their time.")
    ours = [name for name in ROWS if name.startswith("ours")]
    parser.add_argument("--row", choices=ours, default="ours-http", help="default %(default)s")
    parser.add_argument(
        "--load", choices=[load.name for load in LOADS], default="1k", help="default %(default)s"
    )
    parser.add_argument("--seconds", type=int, default=5, help="default %(default)s")
    parser.add_argument("--top", type=int, default=25, help="functions to show (default %(default)s)")
    parser.add_argument("--with", dest="profiler", choices=("py-spy", "cprofile"), default="py-spy")
    options = parser.parse_args(arguments)
    load = next(load for load in LOADS if load.name == options.load)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    work = WORK / "hotspots"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    sampling = options.profiler == "py-spy"
    try:
        tools = install(WORK, say, envoy=False, also=("py-spy",) if sampling else ())
        with contextlib.ExitStack() as stack:
            backend = Nginx(tools)
            stack.callback(backend.stop)
            backend.start(work)
            backend.wait_ready()
            peer = make_peer(options.row, tools, backend)
            if not isinstance(peer, OurPair):
                raise TypeError(options.row)
            if not sampling:
                peer.twistd_options = {
                    role: ("--savestats", "--profiler=cprofile", f"--profile={work / role}.pstats")
                    for role in ROLES
                }
            stack.callback(peer.stop)
            peer.start(work)
            peer.wait_ready()
            samplers = []
            if sampling:
                drive(tools.wrk, peer.url, load, 1)
                spy = str(tools.python.with_name("py-spy"))
                for role, pid in zip(ROLES, peer.pids, strict=True):
                    # Nonblocking: stopping the process for each sample made those in system calls look
                    # several times as frequent as they are.
                    command = [
                        *(spy, "record", "--nonblocking", "--pid", str(pid), "--function", "--format", "raw"),
                        *("--rate", str(SAMPLES_PER_SECOND), "--duration", str(options.seconds)),
                        *("--output", str(work / f"{role}.raw")),
                    ]
                    with (work / f"{role}.spy.log").open("wb") as output:
                        sampler = subprocess.Popen(command, stdout=output, stderr=output, process_group=0)
                    stack.callback(sampler.kill)
                    samplers.append(sampler)
            result = drive(tools.wrk, peer.url, load, options.seconds + (1 if sampling else 0))
            for sampler in samplers:
                sampler.wait(30)
            peer.stop()
    except (InstallError, PeerError, LoadError, subprocess.TimeoutExpired) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    print(f"{options.row}, {load.title}, under {options.profiler}: {result.rate:,.0f} requests/s")
    for role in ROLES:
        print(f"\n{role}:")
        if sampling:
            print(summarize((work / f"{role}.raw").read_text(), options.top))
        else:
            print(summarize_calls(work / f"{role}.pstats", options.top, result.requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
