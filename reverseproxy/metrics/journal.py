"""A bounded list of recent events."""

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
    A ring buffer of events, numbered from 1.

    Readers poll it, so that adding an event calls no other code, even if a thousand agents join at once.

    @ivar last: the number of the latest event; 0 if there is none.
    """

    def __init__(self, wall: Callable[[], float], most: int = MAX_EVENTS) -> None:
        """
        @param wall: returns the time in seconds since 1970.
        @param most: how many events are kept.
        """
        self._wall = wall
        self._events: deque[dict[str, Any]] = deque(maxlen=most)
        self.last = 0

    def __len__(self) -> int:
        return len(self._events)

    def add(self, kind: str, **facts: Any) -> None:
        """
        Add an event.

        @param facts: values of JSON.
        """
        self.last += 1
        self._events.append({"id": self.last, "time": self._wall(), "kind": kind, **facts})

    def since(self, number: int, most: int = 500) -> list[dict[str, Any]]:
        """
        Return the events after an event, the oldest first.

        @param number: the event's number; 0 for all that are kept.
        @param most: how many events to return.
        """
        fresh = min(max(self.last - number, 0), len(self._events))
        start = len(self._events) - fresh
        return list(islice(self._events, start, start + most))
