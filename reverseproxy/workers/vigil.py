"""
Whether workers still run: a worker that hangs is worse than one that is gone.

The kernel goes on giving it its share of clients, and the others go on sending
it requests for its agents; nobody is told of anything.  So each worker is asked
every second, over the channel, and one that does not answer is ended by force:
then the kernel tells everybody, and another one takes its place.

Not everybody who is silent hangs.  On a machine that has much to do a worker may
not have been given the processor: that is seen by the little that it has used of
it meanwhile (Linux), and borne for longer.  And if it was the supervisor that
stood still, such as on a machine that was suspended, everybody is asked anew.
"""

from __future__ import annotations

__all__ = ["LOOK", "PATIENCE", "STARVED", "STARTING", "Life", "Rounds", "Vigil", "life_of"]

import os
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any, Final

from twisted.internet.task import LoopingCall
from twisted.logger import Logger

log = Logger()

LOOK: Final = 0.5
"""Seconds from one look at all workers to the next."""

ASK: Final = 1.0
"""Seconds from an answer to the next question."""

PATIENCE: Final = 2.5
"""Seconds that a worker has for its answer."""

STARVED: Final = 15.0
"""The same for one that waits for the processor."""

STARTING: Final = 120.0
"""Seconds in which a worker has to be ready that was started."""

_LATE: Final = 3 * LOOK
"""Seconds between two looks after which it was us who stood still."""

_WORKED: Final = 0.4
"""The part of the time for which a worker that is not starved has had the processor, if it wanted it."""


@dataclass(frozen=True, slots=True)
class Life:
    """
    What the kernel knows of a process.

    @ivar state: a letter: C{R} runs, or wants to; C{S} sleeps; C{T} is stopped.
    @ivar used: seconds of processor that it has used.
    """

    state: str
    used: float


def life_of(pid: int) -> Life | None:
    """Ask the kernel; L{None} where it does not tell."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            fields = file.read().rpartition(b")")[2].split()
        ticks = int(fields[11]) + int(fields[12])
        return Life(fields[0].decode("ascii"), ticks / os.sysconf("SC_CLK_TCK"))
    except (OSError, ValueError, IndexError):
        return None


class Vigil:
    """What is known of one worker: pure, given the time and what the kernel says."""

    def __init__(self, now: float, limit: float) -> None:
        """
        @param limit: seconds in which something has to come from it, to begin with.
        """
        self._asked: float | None = now
        self._limit = limit
        self._used: float | None = None
        self._next = now
        self._excused = now

    def heard(self, now: float) -> None:
        """Something has come from it."""
        self._asked = None
        self._limit = PATIENCE
        self._next = now + ASK

    def excuse(self, now: float, seconds: float) -> None:
        """Bear with its silence for a time, as it was given something to do that takes long."""
        self._excused = max(self._excused, now + seconds)

    def begin_again(self, now: float) -> None:
        """It was us who stood still: what it has not answered, it could not."""
        if self._asked is not None:
            self._asked = now
            self._used = None

    def due(self, now: float, life: Life | None) -> bool:
        """Whether it is to be asked now; called for each look."""
        if self._asked is not None or now < self._next:
            return False
        self._asked = now
        self._used = None if life is None else life.used
        return True

    def silent(self, now: float, life: Life | None) -> float:
        """
        Say for how long it has hung.

        @return: seconds; 0.0 if it has not, as far as can be told.
        """
        if self._asked is None or now < self._excused:
            return 0.0
        seconds = now - self._asked
        if seconds < self._limit or (seconds < STARVED and self._starved(seconds, life)):
            return 0.0
        return seconds

    def _starved(self, seconds: float, life: Life | None) -> bool:
        if life is None or self._used is None or life.state != "R":
            return False
        return life.used - self._used < _WORKED * seconds


class Rounds:
    """
    Looks at all workers, again and again.

    A worker is named by whatever is its own and nobody's after it.
    """

    def __init__(
        self,
        clock: Any,
        ask: Callable[[Hashable], object],
        hangs: Callable[[Hashable, float], object],
        look: Callable[[int], Life | None] = life_of,
    ) -> None:
        """
        @param ask: asks a worker whether it is there.
        @param hangs: told of one that hangs, and for how many seconds.
        @param look: see L{life_of}.
        """
        self._clock = clock
        self._ask = ask
        self._hangs = hangs
        self._look_at = look
        self._vigils: dict[Hashable, tuple[int, Vigil]] = {}
        self._last = 0.0
        self._loop = LoopingCall(self._look)
        self._loop.clock = clock

    def start(self) -> None:
        """Begin."""
        if not self._loop.running:
            self._last = self._clock.seconds()
            self._loop.start(LOOK, now=False)

    def stop(self) -> None:
        """Look no more."""
        if self._loop.running:
            self._loop.stop()

    def watch(self, worker: Hashable, pid: int) -> None:
        """Watch a worker that was started."""
        self._vigils[worker] = (pid, Vigil(self._clock.seconds(), STARTING))

    def forget(self, worker: Hashable) -> None:
        """It is gone."""
        self._vigils.pop(worker, None)

    def heard(self, worker: Hashable) -> None:
        """Something has come from it."""
        if worker in self._vigils:
            self._vigils[worker][1].heard(self._clock.seconds())

    def excuse(self, seconds: float) -> None:
        """Bear with everybody's silence for a time."""
        for _, vigil in self._vigils.values():
            vigil.excuse(self._clock.seconds(), seconds)

    def _look(self) -> None:
        now = self._clock.seconds()
        if now - self._last > _LATE:
            for _, vigil in self._vigils.values():
                vigil.begin_again(now)
        self._last = now
        for worker, (pid, vigil) in list(self._vigils.items()):
            life = self._look_at(pid)
            seconds = vigil.silent(now, life)
            if seconds:
                del self._vigils[worker]
                self._hangs(worker, seconds)
            elif vigil.due(now, life):
                self._ask(worker)
