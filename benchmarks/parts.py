"""
The parts of a run.  Each adds what it finds to the run's results.
"""

from __future__ import annotations

__all__ = [
    "EXTRA",
    "PARTS",
    "bolt",
    "core",
    "fleet",
    "growth",
    "http2",
    "idle",
    "long_wires",
    "memory",
    "profiles",
    "scale",
    "steady",
    "varied",
    "workers",
]

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from benchmarks.bench import Bench, Entry, say
from benchmarks.envoy import EnvoyPair
from benchmarks.flame import flame, own, place, read, without_waiting
from benchmarks.fleet import LOADS as FLEET_LOADS
from benchmarks.fleet import ROWS as FLEET
from benchmarks.fleet import FleetPair
from benchmarks.load import (
    BIG,
    GIANT,
    LOADS,
    SMALL,
    SPREAD,
    VARIED,
    Load,
    LoadResult,
    drive,
    drive_bolt,
    drive_h2,
    drive_steadily,
    transfer,
)
from benchmarks.long import DIRECTIONS, PATHS, RTTS, SIZE, LongPath
from benchmarks.measure import resident_bytes
from benchmarks.model import Cell, Profile, Round, median
from benchmarks.ours import OurPair, Setup
from benchmarks.processes import Peer, PeerError, Process
from benchmarks.rows import HTTP2, SATURATED, SMALL_ONLY, STEADY, missing, ours, title
from benchmarks.spy import Spy, SpyError
from benchmarks.targets import BASE, TARGETS, judge

HERE = Path(__file__).resolve().parent
PARTS = ("core", "varied", "steady", "http2", "profiles", "bolt", "memory", "growth", "workers", "scale")

EXTRA = ("long", "fleet")
"""Parts that are left out if they are not asked for: they say nothing of Envoy, or take long."""

STREAMS = 32  # of HTTP/2, outstanding on the one connection
BOLT_CONNECTIONS, BOLT_IN_FLIGHT = 4, 16
ROLES = ("server", "agent")
VARYING = (BASE, "ours-http-tcp", "ours-http")
GROWING = (BASE, "ours-http-tcp", "ours-http-tcp-mux")
# fewer than there are reverse connections, and more
CLIENTS_OF_WORKERS = (32, 128)
SCALE = ("picking", "memory", "joins", "recovery")
SCALE_TIMEOUT = 150.0
SAME_RATE = 0.85  # rates that differ by less are made one: the lower one


def _wrk(bench: Bench, peer: Peer, load: Load) -> Callable[[float], LoadResult]:
    return lambda seconds: drive(bench.tools.wrk, peer.url, load, seconds)


def _h2load(bench: Bench, peer: Peer) -> Callable[[float], LoadResult]:
    h2load = bench.tools.h2load
    if h2load is None:
        raise PeerError("h2load is not installed")
    log = bench.work / "h2load.log"
    return lambda seconds: drive_h2(h2load, peer.url_h2, SMALL.path, STREAMS, seconds, log)


def idle(bench: Bench, names: Sequence[str] = SATURATED) -> None:
    """Start all peers, and see how large they are before any load."""
    for name, peer in bench.peers(names).items():
        sizes = tuple(sum(resident_bytes(pid) for pid in family) for family in peer.processes())
        if sizes:
            nothing = LoadResult(seconds=1.0, requests=0, received=0, p50=0.0, p99=0.0)
            cell = Cell("idle", "idle", name, peer.title, rounds=[Round(nothing, resident=sizes)])
            bench.run.cells.append(cell)


def core(bench: Bench, names: Sequence[str] = SATURATED, loads: Sequence[Load] = LOADS) -> None:
    """As much as goes through, of small and of large resources."""
    for load in loads:
        entries = [
            Entry("core", load.name, name, peer, _wrk(bench, peer, load))
            for name, peer in bench.peers(names).items()
            if load is SMALL or name not in SMALL_ONLY
        ]
        # what is warm needs it no second time
        bench.measure(entries, warm=load is loads[0] and not bench.lengths.quick)
    for name in names:
        with suppress(PeerError, OSError):
            if evidence := bench.peer(name).evidence():
                say(f"{title(name)}: {evidence}")


def steady(bench: Bench) -> None:
    """
    Latency at a constant rate: for each row of ours, half of the peak of the slower one of it and Envoy.
    """
    rates: dict[str, float] = {}
    peers = bench.peers((BASE, *STEADY))
    for name, peer in peers.items():
        cell = bench.run.find("core", SMALL.name, name)
        if cell is None:
            cell = Cell("peak", SMALL.name, name, peer.title)
            cell.rounds.append(bench.once(Entry("peak", "1k", name, peer, _wrk(bench, peer, SMALL)), 1))
        rates[name] = median(cell, lambda each: each.rate)
    for rate, names in group_rates(rates, BASE).items():
        entries = []
        for name in names:
            peer = peers[name]

            def ask(seconds: float, peer: Peer = peer, rate: float = rate) -> LoadResult:
                return drive_steadily(peer.front, SMALL, rate, seconds)

            entries.append(Entry("steady", SMALL.name, name, peer, ask, x=rate))
        bench.measure(entries, warm=False)


def varied(bench: Bench) -> None:
    """Requests and answers that differ from those before them on the same connection."""
    entries = [
        Entry("varied", VARIED.name, name, peer, _wrk(bench, peer, VARIED))
        for name, peer in bench.peers(VARYING).items()
    ]
    bench.measure(entries, rounds=min(2, bench.lengths.rounds), warm=False)


def group_rates(peaks: dict[str, float], base: str) -> dict[float, list[str]]:
    """
    Choose rates at which rows are compared with another one.

    @param peaks: the peak rate of each row.
    @param base: the row that all are compared with.
    @return: for each rate, the rows to be measured at it, the base first.
    """
    halves = {
        name: min(peak, peaks.get(base, peak)) / 2 for name, peak in peaks.items() if name != base and peak
    }
    groups: dict[float, list[str]] = {}
    for name, half in sorted(halves.items(), key=lambda item: item[1]):
        near = next((rate for rate in groups if rate >= half * SAME_RATE), None)
        rate = near if near is not None else max(100.0, half // 100 * 100)
        groups.setdefault(rate, [base] if base in peaks else []).append(name)
    return groups


def http2(bench: Bench) -> None:
    """HTTP/2 outside, HTTP/1 at the service."""
    entries = [
        Entry("http2", SMALL.name, name, peer, _h2load(bench, peer))
        for name, peer in bench.peers(HTTP2).items()
    ]
    bench.measure(entries, rounds=min(2, bench.lengths.rounds), warm=not bench.lengths.quick)


@contextmanager
def _helper(
    bench: Bench, name: str, arguments: Sequence[str], timeout: float
) -> Iterator[tuple[Process, str]]:
    """
    Have a script of ours running that prints a line when it is ready.

    @return: the process, and the line.
    @raise PeerError: if it does not get ready.
    """
    process = Process(name, [sys.executable, "-u", *arguments], bench.work)
    try:
        deadline = time.monotonic() + timeout
        while not (lines := process.log.read_text(errors="replace").splitlines()):
            process.check()
            if time.monotonic() > deadline:
                raise PeerError(f"{name} was not ready in {timeout:.0f} s")
            time.sleep(0.02)
        yield process, lines[0]
    finally:
        process.stop()


class _Echo(Peer):
    """The bolt service, as the client sees it."""

    def __init__(self, process: Process, port: int) -> None:
        super().__init__("direct", "the service, direct")
        self._process = process
        self.front = port

    @property
    def pids(self) -> list[int]:
        """None: it is no proxy."""
        return []

    def start(self, directory: Path) -> None:
        """It runs."""


def bolt(bench: Bench) -> None:
    """Echoes of 1 KB in bolt, with N requests under way on each of four connections."""
    with _helper(bench, "bolt-service", [str(HERE / "bolt.py"), "serve"], 10) as (service, line):
        echo = _Echo(service, int(line))
        pair = ours("ours-bolt", bench.tools, echo)
        with bench.for_now(pair):
            entries = []
            for peer in (echo, pair):
                for count in (1, BOLT_IN_FLIGHT) if bench.lengths.quick else (1, BOLT_IN_FLIGHT, 64):

                    def ask(seconds: float, peer: Peer = peer, count: int = count) -> LoadResult:
                        return drive_bolt(peer.front, BOLT_CONNECTIONS, count, seconds)

                    x = BOLT_CONNECTIONS * count
                    entries.append(Entry("bolt", "echo", peer.name, peer, ask, x, also=(service.pid,)))
            bench.measure(entries, rounds=1, seconds=min(2, bench.lengths.seconds), warm=False)


def memory(bench: Bench) -> None:
    """What idle reverse connections take, and where the memory of a process that does nothing goes."""
    facts = bench.run.facts
    for name, statement in (
        ("python", "pass"),
        ("twisted", "import twisted.internet.epollreactor, twisted.internet.ssl, twisted.scripts.twistd"),
        ("reverseproxy", "import twisted.internet.epollreactor, twisted.scripts.twistd, reverseproxy.tap"),
    ):
        code = f"{statement}\nprint(open('/proc/self/status').read().split('VmRSS:')[1].split()[0])"
        output = subprocess.run(
            [str(bench.tools.python), "-c", code], capture_output=True, text=True, timeout=30, check=True
        ).stdout
        facts[f"import-{name}"] = int(output) * 1024
    more = 1000
    for name, mux in (("plain", False), ("mux", True)):
        if mux and "mux" not in bench.tools.features:
            continue
        sizes: list[list[int]] = []
        for count in (1, 1 + more):
            bench.check_time()
            say(f"a pair with {count:,} idle {name} connections")
            pair = ours(
                f"ours-{count}-{name}",
                bench.tools,
                bench.backend,
                Setup("http", "tcp", count, mux=mux),
            )
            with bench.for_now(pair):
                time.sleep(0.5)
                sizes.append([resident_bytes(pid) for pid in pair.pids])
        for index, role in enumerate(ROLES):
            facts[f"connections-{name}-{role}"] = (sizes[1][index] - sizes[0][index]) / more * 1000
    bench.check_time()
    sizes = []
    for count in (1, 1 + more):
        say(f"an Envoy pair with {count:,} idle connections")
        if why := missing(BASE, bench.tools):
            raise PeerError(why)
        envoy = EnvoyPair(f"envoy-{count}", f"Envoy pair, {count}", bench.tools, bench.backend, "http", count)
        with bench.for_now(envoy):
            time.sleep(0.5)
            sizes.append([resident_bytes(pid) for pid in envoy.pids])
    for index, role in enumerate(ROLES):
        facts[f"connections-envoy-{role}"] = (sizes[1][index] - sizes[0][index]) / more * 1000


def growth(bench: Bench) -> None:
    """How the figures change with what there is more of."""
    bench.attempt("growth: client connections", lambda: _client_connections(bench))
    bench.attempt("growth: body size", lambda: _sizes(bench))
    bench.attempt("growth: agents", lambda: _agents(bench))
    bench.attempt("growth: reverse connections", lambda: _reverse_connections(bench))


def _short(bench: Bench) -> float:
    return min(2.0, bench.lengths.seconds)


def _client_connections(bench: Bench) -> None:
    peers = bench.peers(GROWING)
    for count in (1, 32, 1000) if bench.lengths.quick else (1, 8, 32, 200, 1000):
        load = SMALL.over(count)
        entries = [
            Entry("connections", "1k", name, peer, _wrk(bench, peer, load), x=count)
            for name, peer in peers.items()
        ]
        bench.measure(entries, rounds=1, seconds=_short(bench), warm=False)


def _sizes(bench: Bench) -> None:
    peers = bench.peers((*GROWING, "ours-http-tcp-tls"))
    for load in SPREAD:
        entries = [
            Entry("sizes", load.name, name, peer, _wrk(bench, peer, load), x=load.size)
            for name, peer in peers.items()
        ]
        bench.measure(entries, rounds=1, seconds=_short(bench), warm=False)
    # so that the file is in memory for all of them
    transfer(bench.backend.front, GIANT)
    entries = []
    for name, peer in peers.items():

        def take(_: float, peer: Peer = peer) -> LoadResult:
            return transfer(peer.front, GIANT)

        entries.append(Entry("sizes", GIANT.name, name, peer, take, x=GIANT.size))
    bench.measure(entries, rounds=1, warm=False)


class _Alone(OurPair):
    """A tunnel server of ours whose agents are somebody else's."""

    def answers(self) -> bool:
        """It will when there are agents."""
        return True


def _agents(bench: Bench) -> None:
    server = _Alone(
        "ours-server",
        "ours, the server",
        bench.tools,
        bench.backend,
        Setup("http", "tcp"),
        server_only=True,
    )
    with bench.for_now(server):
        for count in (1, 100, 1000) if bench.lengths.quick else (1, 10, 100, 1000):
            bench.check_time()
            begun = time.monotonic()
            arguments = [str(HERE / "agents.py"), str(server.tunnel), "--agents", str(count)]
            with _helper(bench, f"light-agents-{count}", arguments, 30) as (agents, _):
                say(f"{count:,} agents joined within {time.monotonic() - begun:.1f} s")
                entry = Entry(
                    *("agents", "1k", server.name, server, _wrk(bench, server, SMALL)),
                    x=count,
                    also=(agents.pid,),
                )
                bench.measure([entry], rounds=1, seconds=_short(bench), warm=False)
            # they leave before the next ones come
            time.sleep(0.3)


def _reverse_connections(bench: Bench) -> None:
    counts = (1, 64) if bench.lengths.quick else (1, 4, 16, 64)
    pairs: list[tuple[str, int, Callable[[], Peer]]] = []
    for count in counts:
        for name, mux in (("ours-http-tcp", False), ("ours-http-tcp-mux", True)):
            if mux and "mux" not in bench.tools.features:
                continue

            def make(count: int = count, mux: bool = mux, name: str = name) -> Peer:
                setup = Setup("http", "tcp", count, mux=mux)
                return ours(f"{name}-{count}", bench.tools, bench.backend, setup)

            pairs.append((name, count, make))
        if not missing(BASE, bench.tools):

            def make_envoy(count: int = count) -> Peer:
                return EnvoyPair(f"{BASE}-{count}", BASE, bench.tools, bench.backend, "http", count)

            pairs.append((BASE, count, make_envoy))
    for name, count, make_peer in pairs:
        bench.check_time()
        try:
            with bench.for_now(make_peer()) as peer:
                entry = Entry(
                    *("reverse", "1k", name, peer, _wrk(bench, peer, SMALL)),
                    x=count,
                    title=title(name),
                )
                bench.measure([entry], rounds=1, seconds=_short(bench), warm=False)
        except PeerError as error:
            bench.run.cells.append(Cell("reverse", "1k", name, title(name), count, failure=str(error)))
            say(f"  {error}")


def workers(bench: Bench) -> None:
    """One worker and two."""
    for count in CLIENTS_OF_WORKERS:
        entries = [
            Entry("workers", f"1k-{count}", name, peer, _wrk(bench, peer, SMALL.over(count)))
            for name, peer in bench.peers(("ours-workers-1", "ours-workers-2")).items()
        ]
        bench.measure(entries, rounds=min(2, bench.lengths.rounds), warm=False)


def scale(bench: Bench) -> None:
    """Run the parts of C{scale.py}, and keep what they found."""
    connections, agents = (1_000, 100) if bench.lengths.quick else (10_000, 1_000)
    for part in SCALE:
        if part == "recovery" and bench.lengths.quick:
            bench.run.left_out["scale: recovery"] = "it takes more than a minute, and this is a quick run"
            continue
        bench.attempt(f"scale: {part}", partial(_scale, bench, part, connections, agents))


def _scale(bench: Bench, part: str, connections: int, agents: int) -> None:
    output = bench.work / f"scale-{part}.json"
    command = [
        *(str(bench.tools.python), str(HERE / "scale.py"), part, "--json", str(output)),
        *("--connections", str(connections), "--agents", str(agents)),
    ]
    process = Process(f"scale-{part}", command, bench.work)
    try:
        deadline = time.monotonic() + SCALE_TIMEOUT
        while process.running:
            if time.monotonic() > deadline:
                raise PeerError(f"scale.py {part} took longer than {SCALE_TIMEOUT:.0f} s")
            time.sleep(0.1)
    finally:
        process.kill_all()
    if not output.exists():
        raise PeerError(f"scale.py {part} failed: {process.tail().splitlines()[-1:]}")
    bench.run.scale[part] = json.loads(output.read_text())[part]


def long_wires(bench: Bench) -> None:
    """Single transfers over long wires, in both directions."""
    size = SIZE // 3 if bench.lengths.quick else SIZE
    command = [str(HERE / "longpeers.py"), "serve", "--size", str(size)]
    with _helper(bench, "long-service", command, 10) as (service, line):
        http1, http2 = map(int, line.split())
        for rtt in RTTS:
            for name in PATHS:
                bench.attempt(
                    f"long: {name} at {rtt * 1000:.0f} ms",
                    partial(_long, bench, name, (http1, http2), service, rtt, size),
                )


def _long(
    bench: Bench, name: str, services: tuple[int, int], service: Process, rtt: float, size: int
) -> None:
    path = LongPath(name, bench.tools, services, rtt)
    with bench.for_now(path):
        also = (service.pid, *(wire.pid for wire in path.wires))
        entries = [
            Entry(
                "long",
                way,
                name,
                path,
                lambda _, way=way: path.drive(size, way == "up"),
                rtt * 1000,
                also=also,
            )  # type: ignore[misc]
            for way in DIRECTIONS
        ]
        bench.measure(entries, rounds=1, warm=False)


def fleet(bench: Bench) -> None:
    """Requests to an agent's own server, and to another server of the fleet."""
    for name in FLEET:
        bench.attempt(name, partial(_fleet, bench, name))


def _fleet(bench: Bench, name: str) -> None:
    pair = FleetPair(name, bench.tools, bench.backend)
    with bench.for_now(pair):
        entries = [
            Entry("fleet", load.name, name, pair, _wrk(bench, pair, load), title=pair.title)
            for load in FLEET_LOADS
        ]
        bench.measure(entries, rounds=bench.lengths.rounds)


def profiles(bench: Bench, directory: Path) -> None:
    """
    See where our processes spend their time in the rows that missed a target, and with HTTP/2.

    @param directory: where flame graphs go.
    """
    wanted: list[tuple[str, str]] = []
    for target in TARGETS:
        load = BIG.name if target.load == BIG.name else SMALL.name
        if target.part != "idle" and judge(bench.run, target).missed and (target.row, load) not in wanted:
            wanted.append((target.row, load))
    wanted.append(("ours-h2", "h2"))
    for row, load in wanted:
        bench.check_time()
        say(f"sampling {title(row)}, {load}")
        try:
            bench.run.profiles.append(_profile(bench, row, load, directory))
        except (PeerError, SpyError) as error:
            bench.run.failures[f"profile of {row}, {load}"] = str(error)
            say(f"  {error}")


def _profile(bench: Bench, row: str, load: str, directory: Path) -> Profile:
    peer = bench.peer(row)
    if load == "h2":
        call = _h2load(bench, peer)
    else:
        call = _wrk(bench, peer, next(each for each in LOADS if each.name == load))
    seconds = max(1, round(bench.lengths.seconds))
    pids = dict(zip(ROLES, peer.pids, strict=True))
    with Spy(bench.tools.spy, bench.work, pids, seconds) as spy:
        taken = bench.once(Entry("profile", load, row, peer, call), seconds + 1)
        raw = spy.stacks()
    directory.mkdir(parents=True, exist_ok=True)
    roles, functions, flames = {}, {}, {}
    for role, text, cpu in zip(raw, raw.values(), taken.cpu, strict=True):
        stacks = without_waiting(read(text), max(0.0, 1.0 - cpu / taken.result.seconds))
        roles[role] = own(stacks, place)[:12]
        functions[role] = own(stacks)[:12]
        path = directory / f"flame-{row}-{load}-{role}.svg"
        path.write_text(flame(f"{title(row)}, {load}: the {role}", stacks))
        flames[role] = path.name
    return Profile(row, load, roles, functions, flames)
