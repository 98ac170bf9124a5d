"""What has happened lately, in order."""

from __future__ import annotations

__all__ = ["Journal"]

from collections import deque
from collections.abc import Callable
from itertools import islice
from typing import Any, Final

MAX_EVENTS: Final = 2000
"""How many events are kept."""


class Journal:
    """
    A ring of events, each with a number that grows by one.

    Nobody is told of an event: whoever wants to know looks from time to time,
    so that a thousand agents that come at once cost a thousand entries here.
    """

    def __init__(self, wall: Callable[[], float], most: int = MAX_EVENTS) -> None:
        """
        @param wall: tells the time in seconds since 1970.
        """
        self._wall = wall
        self._events: deque[dict[str, Any]] = deque(maxlen=most)
        self.last = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, kind: str, **facts: Any) -> None:
        """
        Note that something has happened.

        @param facts: what JSON has.
        """
        self.last += 1
        self._events.append({"id": self.last, "time": self._wall(), "kind": kind, **facts})

    def since(self, number: int, most: int = 500) -> list[dict[str, Any]]:
        """
        Say what has happened after an event.

        @param number: the event's number; 0 for all that is known.
        @param most: how many events to give; the oldest ones first.
        """
        fresh = min(max(self.last - number, 0), len(self._events))
        start = len(self._events) - fresh
        return list(islice(self._events, start, start + most))
