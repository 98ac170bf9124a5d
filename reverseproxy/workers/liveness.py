"""
Detect workers that hang, and kill them.

A hanging worker is worse than a dead one: the kernel goes on giving it clients, and its
siblings go on sending it requests.  So the supervisor pings each worker every second over
the channel, and kills one that does not answer; then the kernel closes its connections, and
a new worker takes its place.

Not every silent worker hangs.  On a busy machine a worker may not have been scheduled, which
shows in the CPU time that it has used meanwhile (Linux): it gets more time.  And if the
supervisor itself was stopped, as on a suspended machine, all workers are pinged anew.
"""

from __future__ import annotations

__all__ = [
    "LOOK",
    "PATIENCE",
    "STARVED",
    "STARTING",
    "ProcessStats",
    "LivenessChecks",
    "WorkerLiveness",
    "read_process_stats",
]

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

LOOK: Final = 0.5
"""Seconds between two checks of all workers."""

ASK: Final = 1.0
"""Seconds from an answer to the next ping."""

PATIENCE: Final = 2.5
"""Seconds that a worker has for its answer."""

STARVED: Final = 15.0
"""The same for a worker that waits for the CPU."""

STARTING: Final = 120.0
"""Seconds that a worker has to start."""

_LATE: Final = 3 * LOOK
"""With more seconds between two checks, the supervisor itself was stopped."""

_WORKED: Final = 0.4
"""A runnable worker that had the CPU for a smaller part of the time is starved."""


@dataclass(frozen=True, slots=True)
class ProcessStats:
    """
    The state of a process in the kernel.

    @ivar state: a letter: C{R} runnable, C{S} sleeping, C{T} stopped.
    @ivar used: CPU time in seconds.
    """

    state: str
    used: float


def read_process_stats(pid: int) -> ProcessStats | None:
    """Read the state of a process; L{None} if the system has no C{/proc}."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return ProcessStats(fields[0].decode("ascii"), ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None


class WorkerLiveness:
    """Decides whether one worker hangs; pure, given times and L{ProcessStats}."""

    def __init__(self, now: float, limit: float) -> None:
        """
        @param limit: seconds for the first answer.
        """
        self._asked: float | None = now
        self._limit = limit
        self._used: float | None = None
        self._next = now
        self._excused = now

    def heard(self, now: float) -> None:
        """Record a message of the worker."""
        self._asked = None
        self._limit = PATIENCE
        self._next = now + ASK

    def excuse(self, now: float, seconds: float) -> None:
        """Expect no answer for some seconds, as the worker has a long task."""
        self._excused = max(self._excused, now + seconds)

    def begin_again(self, now: float) -> None:
        """Restart the time for the answer, as the supervisor was stopped."""
        if self._asked is not None:
            self._asked = now
            self._used = None

    def due(self, now: float, stats: ProcessStats | None) -> bool:
        """Say whether to ping it now; called at each check."""
        if self._asked is not None or now < self._next:
            return False
        self._asked = now
        self._used = None if stats is None else stats.used
        return True

    def silent(self, now: float, stats: ProcessStats | None) -> float:
        """
        Return for how long it has hung.

        @return: seconds; 0.0 if it does not hang, as far as known.
        """
        if self._asked is None or now < self._excused:
            return 0.0
        seconds = now - self._asked
        if seconds < self._limit or (seconds < STARVED and self._starved(seconds, stats)):
            return 0.0
        return seconds

    def _starved(self, seconds: float, stats: ProcessStats | None) -> bool:
        if stats is None or self._used is None or stats.state != "R":
            return False
        return stats.used - self._used < _WORKED * seconds


class LivenessChecks:
    """
    Checks all workers periodically.

    A worker is identified by any hashable object, such as its process.
    """

    def __init__(
        self,
        clock: Any,
        ask: Callable[[Hashable], object],
        hangs: Callable[[Hashable, float], object],
        look: Callable[[int], ProcessStats | None] = read_process_stats,
    ) -> None:
        """
        @param ask: pings a worker.
        @param hangs: called with a worker that hangs, and the seconds.
        @param look: see L{read_process_stats}.
        """
        self._clock = clock
        self._ask = ask
        self._hangs = hangs
        self._look_at = look
        self._liveness: dict[Hashable, tuple[int, WorkerLiveness]] = {}
        self._last = 0.0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        if not self._loop.running:
            self._last = self._clock.seconds()
            self._loop.start(LOOK, now=False)

    def stop(self) -> None:
        """Stop."""
        if self._loop.running:
            self._loop.stop()

    def watch(self, worker: Hashable, pid: int) -> None:
        """Watch a worker that was started."""
        self._liveness[worker] = (pid, WorkerLiveness(self._clock.seconds(), STARTING))

    def forget(self, worker: Hashable) -> None:
        """Check a worker no more."""
        self._liveness.pop(worker, None)

    def heard(self, worker: Hashable) -> None:
        """Record a message of the worker."""
        if worker in self._liveness:
            self._liveness[worker][1].heard(self._clock.seconds())

    def excuse(self, seconds: float) -> None:
        """Expect no answers of any worker for some seconds."""
        for _, liveness in self._liveness.values():
            liveness.excuse(self._clock.seconds(), seconds)

    def _look(self) -> None:
        now = self._clock.seconds()
        if now - self._last > _LATE:
            for _, liveness in self._liveness.values():
                liveness.begin_again(now)
        self._last = now
        for worker, (pid, liveness) in list(self._liveness.items()):
            stats = self._look_at(pid)
            seconds = liveness.silent(now, stats)
            if seconds:
                del self._liveness[worker]
                self._hangs(worker, seconds)
            elif liveness.due(now, stats):
                self._ask(worker)
