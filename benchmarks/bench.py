"""
The machinery of a run: peers that are started when they are needed and stay up,
rounds that take turns, and failures that cost what failed and nothing else.
"""

from __future__ import annotations

__all__ = ["Bench", "Entry", "Lengths", "OutOfTime", "say"]

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hops import Nginx
from benchmarks.install import InstallError, Tools
from benchmarks.load import LoadError, LoadResult
from benchmarks.measure import busy_seconds, cpu_seconds, resident_bytes
from benchmarks.model import Cell, Round, Run
from benchmarks.processes import Peer, PeerError
from benchmarks.rows import make_peer, missing, title

REPEATS = 2  # of one disturbed round, so that a long disturbance does not take all patience


class OutOfTime(Exception):
    """The run has taken as long as it may."""


def say(text: str) -> None:
    """Print a line of progress."""
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Lengths:
    """
    How long everything takes.

    @ivar seconds: of a round.
    @ivar rounds: of a row.
    @ivar quick: whether to look at fewer points.
    @ivar patience: seconds, all together, for doing disturbed rounds again.
    @ivar minutes: after which nothing new is begun.
    """

    seconds: float = 3.0
    rounds: int = 3
    quick: bool = False
    patience: float = 30.0
    minutes: float = 12.8


@dataclass(frozen=True)
class Entry:
    """
    One thing to measure.

    @ivar peer: whose processes it is about.
    @ivar call: puts a load on it for so many seconds.
    @ivar also: further processes that have a part in the run.
    """

    part: str
    load: str
    row: str
    peer: Peer
    call: Callable[[float], LoadResult]
    x: float = 0.0
    title: str = ""
    also: tuple[int, ...] = ()


class Bench:
    """
    A run under way.

    @ivar backend: the service behind all peers.
    """

    def __init__(self, tools: Tools, run: Run, work: Path, lengths: Lengths) -> None:
        self.tools = tools
        self.run = run
        self.work = work
        self.lengths = lengths
        self.backend = Nginx(tools)
        self._patience = lengths.patience
        self._deadline = time.monotonic() + lengths.minutes * 60
        self._peers: dict[str, Peer] = {}
        self._dead: dict[str, str] = {}
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> Bench:
        try:
            self.start(self.backend)
        except BaseException:
            self._stack.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    @property
    def left(self) -> float:
        """Seconds until nothing new is begun."""
        return self._deadline - time.monotonic()

    def check_time(self) -> None:
        """
        See whether there is time to begin something.

        @raise OutOfTime: if not.
        """
        if self.left <= 0:
            raise OutOfTime(f"{self.lengths.minutes:g} minutes were over")

    def attempt(self, name: str, call: Callable[[], object]) -> None:
        """Do a part of the run; if it fails, note it and go on."""
        say(f"== {name}")
        try:
            self.check_time()
            call()
        except OutOfTime as error:
            self.run.left_out[name] = str(error)
            say(f"  left out from here: {error}")
        except (PeerError, LoadError, InstallError) as error:
            self.run.failures[name] = str(error)
            say(f"  {error}")
        except Exception as error:  # a mistake of ours must not cost the other parts
            self.run.failures[name] = repr(error)
            say(f"  {error!r}")

    def start(self, peer: Peer) -> None:
        """
        Start a peer that stays up until the end of the run.

        @raise PeerError: if it does not serve.
        """
        self._stack.callback(peer.stop)
        try:
            peer.start(self.work)
            peer.wait_ready()
        except BaseException:
            peer.stop()
            raise

    @contextlib.contextmanager
    def for_now(self, peer: Peer) -> Iterator[Peer]:
        """
        Have a peer up for a while.

        @raise PeerError: if it does not serve.
        """
        try:
            peer.start(self.work)
            peer.wait_ready()
            yield peer
        finally:
            peer.stop()

    def peer(self, name: str) -> Peer:
        """
        The peer of a row, started if it was not yet.

        @raise PeerError: if it does not serve, or if there is none here.
        """
        if name in self._dead:
            raise PeerError(self._dead[name])
        if name not in self._peers:
            if why := missing(name, self.tools):
                self._dead[name] = self.run.left_out[name] = why
                say(f"leaving out {title(name)}: {why}")
                raise PeerError(why)
            say(f"starting {title(name)}")
            try:
                peer = make_peer(name, self.tools, self.backend)
                self.start(peer)
            except PeerError as error:
                self._dead[name] = self.run.failures[name] = str(error)
                say(f"  {error}")
                raise
            self._peers[name] = peer
        return self._peers[name]

    def peers(self, names: Sequence[str]) -> dict[str, Peer]:
        """Those of several rows that are there."""
        found = {}
        for name in names:
            with contextlib.suppress(PeerError):
                found[name] = self.peer(name)
        return found

    def once(self, entry: Entry, seconds: float) -> Round:
        """
        Put a load on a peer once, and read what it cost.

        @raise PeerError: if the peer is not ready or ended.
        @raise LoadError: if the client failed.
        """
        peer = entry.peer
        peer.settle()
        families = peer.processes()
        everyone = [pid for family in families for pid in family]
        others = [*self.backend.pids, *entry.also]
        busy = busy_seconds()
        before = {pid: cpu_seconds(pid) for pid in (*everyone, *others)}
        result = entry.call(seconds)
        peer.check()
        after = {pid: cpu_seconds(pid) for pid in before}
        busy = busy_seconds() - busy
        user = {pid: after[pid][0] - before[pid][0] for pid in before}
        system = {pid: after[pid][1] - before[pid][1] for pid in before}
        used = sum(user.values()) + sum(system.values())
        return Round(
            result,
            cpu=tuple(sum(user[pid] + system[pid] for pid in family) for family in families),
            system=tuple(sum(system[pid] for pid in family) for family in families),
            resident=tuple(sum(resident_bytes(pid) for pid in family) for family in families),
            others=max(0.0, busy - used - result.client_cpu),
        )

    def _patiently(self, entry: Entry, seconds: float) -> Round:
        """Do it again if the machine was not quiet and there is time; the least disturbed one counts."""
        best = self.once(entry, seconds)
        for _ in range(REPEATS):
            if best.quiet or self._patience < seconds or self.left <= 0:
                break
            begun = time.monotonic()
            time.sleep(1.0)
            best = min(best, self.once(entry, seconds), key=lambda each: each.disturbance)
            self._patience -= time.monotonic() - begun
        return best

    def measure(
        self,
        entries: Sequence[Entry],
        rounds: int | None = None,
        seconds: float | None = None,
        warm: bool = True,
    ) -> list[Cell]:
        """
        Measure several things in turns.

        @param warm: whether to begin with a second of each that does not count.
        @raise OutOfTime: if the time is over; what was measured is kept.
        """
        rounds = self.lengths.rounds if rounds is None else rounds
        seconds = self.lengths.seconds if seconds is None else seconds
        cells = [
            Cell(each.part, each.load, each.row, each.title or each.peer.title, each.x) for each in entries
        ]
        try:
            for number in range(0 if warm else 1, rounds + 1):
                for entry, cell in zip(entries, cells, strict=True):
                    if cell.failure:
                        continue
                    self.check_time()
                    try:
                        if number:
                            taken = self._patiently(entry, seconds)
                            cell.rounds.append(taken)
                            say(f"{_name(entry)}, round {number} of {rounds}: {_figures(taken)}")
                        else:
                            self.once(entry, 1)
                    except (PeerError, LoadError) as error:
                        cell.failure = str(error)
                        say(f"{_name(entry)}: {error}")
        finally:
            self.run.cells += [cell for cell in cells if cell.rounds or cell.failure]
        return cells


def _name(entry: Entry) -> str:
    x = f" at {entry.x:,.0f}" if entry.x else ""
    return f"{entry.part} {entry.load}{x}, {entry.title or entry.peer.title}"


def _figures(taken: Round) -> str:
    if taken.result.received > 20_000 * taken.result.requests:
        text = f"{taken.megabytes:,.0f} MB/s, {taken.cpu_per_gigabyte:.2f} s/GB"
    else:
        text = f"{taken.rate:,.0f} requests/s, {taken.cpu_per_request:.0f} µs, p99 {taken.p99:.2f} ms"
    trouble = "".join(f" [{problem}]" for problem in taken.result.problems)
    if not taken.quiet:
        trouble += f" [others used {taken.disturbance:.2f} cores]"
    return text + trouble
