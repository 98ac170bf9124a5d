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
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

HERE = Path(__file__).resolve().parent
if __name__ == "__main__":
    # run as a script: what is beside it is a package
    sys.path[0] = str(HERE.parent)

from benchmarks.bench import say  # noqa: E402
from benchmarks.flame import read, shorten  # noqa: E402
from benchmarks.hops import Nginx  # noqa: E402
from benchmarks.install import InstallError, install  # noqa: E402
from benchmarks.load import LOADS, LoadError, drive  # noqa: E402
from benchmarks.processes import PeerError  # noqa: E402
from benchmarks.rows import SATURATED, missing, ours  # noqa: E402
from benchmarks.spy import Spy, SpyError  # noqa: E402

WORK = HERE / ".work"
ROLES = ("server", "agent")


def summarize(text: str, top: int) -> str:
    """Sum up py-spy's raw output."""
    own: Counter[str] = Counter()
    cumulative: Counter[str] = Counter()
    for frames, count in read(text).items():
        names = [shorten(frame) for frame in frames]
        own[names[-1]] += count
        for name in set(names):
            cumulative[name] += count
    total = sum(own.values())
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
    choices = [name for name in SATURATED if name.startswith("ours")]
    parser.add_argument("--row", choices=choices, default="ours-http", help="default %(default)s")
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
    raw: dict[str, str] = {}
    try:
        tools = install(WORK, say, envoy=False, also=("py-spy",) if sampling else ())
        if why := missing(options.row, tools):
            raise PeerError(why)
        with contextlib.ExitStack() as stack:
            backend = Nginx(tools)
            stack.callback(backend.stop)
            backend.start(work)
            backend.wait_ready()
            peer = ours(options.row, tools, backend)
            if not sampling:
                peer.twistd_options = {
                    role: ("--savestats", "--profiler=cprofile", f"--profile={work / role}.pstats")
                    for role in ROLES
                }
            stack.callback(peer.stop)
            peer.start(work)
            peer.wait_ready()
            if sampling:
                drive(tools.wrk, peer.url, load, 1)
                pids = dict(zip(ROLES, peer.pids, strict=True))
                with Spy(tools.spy, work, pids, options.seconds) as spy:
                    result = drive(tools.wrk, peer.url, load, options.seconds + 1)
                    raw = spy.stacks()
            else:
                result = drive(tools.wrk, peer.url, load, options.seconds)
            peer.stop()
    except (InstallError, PeerError, LoadError, SpyError) as error:
        print(f"\n{error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("\ninterrupted; everything that was started has been stopped", file=sys.stderr)
        return 130
    print(f"{options.row}, {load.title}, under {options.profiler}: {result.rate:,.0f} requests/s")
    for role in ROLES:
        print(f"\n{role}:")
        if sampling:
            print(summarize(raw[role], options.top))
        else:
            print(summarize_calls(work / f"{role}.pstats", options.top, result.requests))
    return 0


if __name__ == "__main__":
    sys.exit(main())
