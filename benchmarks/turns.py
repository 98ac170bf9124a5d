"""
C{turns.py FILE OPTION ...}: runs twistd, and measures how long the turns of its reactor take.

A turn is what happens between two looks for events: so long, whoever has just sent something
waits before anybody notices.  What is measured is the CPU time of the reactor's thread, which other
processes of a busy machine do not change much.  On C{SIGRTMIN} what was measured since the last time
is written to FILE, as one line of JSON (L{Meter.take}).
"""

from __future__ import annotations

__all__ = ["BOUNDS", "SIGNAL", "Meter", "share_above"]

import gc
import json
import os
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

BOUNDS = (50, 100, 200, 300, 500, 750, 1000, 1500, 2000, 3000, 5000, 10_000, 50_000, 200_000)
"""Upper bounds of the buckets of turns but the last, in microseconds."""

SIGNAL = signal.SIGRTMIN
"""What makes the process write."""


class Meter:
    """
    Measures turns.

    It is what a poller is to a reactor, and gives everything on to the one that it is made of.
    """

    def __init__(self, poller: Any, clock: Callable[[], int] = time.thread_time_ns) -> None:
        self._poller = poller
        self._clock = clock
        self._began: int | None = None
        self._reset()

    def _reset(self) -> None:
        self._counts = [0] * (len(BOUNDS) + 1)
        self._times = [0] * (len(BOUNDS) + 1)
        self._longest = 0
        self._collecting = 0
        self._collections: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._poller, name)

    def poll(self, *arguments: Any) -> Any:
        """Wait for events; between two waits there is a turn."""
        if self._began is not None:
            self.note(self._clock() - self._began)
        events = self._poller.poll(*arguments)
        self._began = self._clock()
        return events

    def note(self, nanoseconds: int) -> None:
        """Count a turn."""
        place = bisect_left(BOUNDS, nanoseconds / 1000)
        self._counts[place] += 1
        self._times[place] += nanoseconds
        self._longest = max(self._longest, nanoseconds)

    def collected(self, phase: str, info: Mapping[str, int]) -> None:
        """Measure full garbage collections; for C{gc.callbacks}."""
        if info["generation"] == 2:
            if phase == "start":
                self._collecting = self._clock()
            else:
                self._collections.append(self._clock() - self._collecting)

    def take(self) -> dict[str, Any]:
        """
        Say what was measured since the last time.

        @return: C{turns} and C{seconds} by the bucket's bound in microseconds (C{inf} for the last one), the
            C{longest} turn in seconds, and C{collections}: seconds of each full garbage collection.
        """
        names = [*map(str, BOUNDS), "inf"]
        found = {
            "turns": {name: count for name, count in zip(names, self._counts, strict=True) if count},
            "seconds": {name: each / 1e9 for name, each in zip(names, self._times, strict=True) if each},
            "longest": self._longest / 1e9,
            "collections": [each / 1e9 for each in self._collections],
        }
        self._reset()
        return found


def share_above(found: Mapping[str, Any], bound: int) -> float:
    """
    Which share of all turns took longer.

    @param found: see L{Meter.take}.
    @param bound: one of L{BOUNDS}, microseconds.
    """
    turns = {float(name): count for name, count in found["turns"].items()}
    return sum(count for each, count in turns.items() if each > bound) / max(sum(turns.values()), 1)


def main() -> None:
    """Run twistd."""
    file = Path(sys.argv[1])
    from twisted.internet import reactor
    from twisted.scripts.twistd import run

    waiting: Any = reactor
    meter = waiting._poller = Meter(waiting._poller)
    gc.callbacks.append(meter.collected)

    def write(number: int, frame: object) -> None:
        part = file.with_suffix(".part")
        part.write_text(json.dumps(meter.take()))
        os.replace(part, file)

    signal.signal(SIGNAL, write)
    sys.argv[1:] = sys.argv[2:]
    run()


if __name__ == "__main__":
    main()
