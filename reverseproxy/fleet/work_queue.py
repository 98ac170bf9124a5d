"""Much work in short turns of the reactor, so that requests are served meanwhile; in its order."""

from __future__ import annotations

__all__ = ["AT_ONCE", "WorkQueue"]

import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeVar

from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

AT_ONCE: Final = 100
"""Steps of one turn: a few milliseconds, where each makes or removes a host."""


class WorkQueue:
    """
    Takes steps, some of them at once, and the others in the next turns of the reactor.

    A step that raises costs itself; it may add others, which come after all that wait.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Callable[[Any], object], Iterator[Any], Callable[[Any], int]]] = deque()
        self._busy = False

    def add(
        self, step: Callable[[T], object], items: Iterable[T], size: Callable[[T], int] = lambda item: 1
    ) -> None:
        """
        Take a step for each item; the first ones now, unless others wait.

        @param items: left as they are until then.
        @param size: for how many steps that for an item counts.
        """
        self._waiting.append((step, iter(items), size))
        if not self._busy:
            self._turn()

    def finish(self) -> None:
        """Take all that wait, now."""
        self._go(sys.maxsize)

    def clear(self) -> None:
        """Take none of those that wait."""
        self._waiting.clear()

    def _turn(self) -> None:
        self._busy = True
        try:
            self._go(AT_ONCE)
        finally:
            self._busy = bool(self._waiting)
            if self._busy:
                self._clock.callLater(0, self._turn)

    def _go(self, most: int) -> None:
        while most > 0 and self._waiting:
            step, items, size = self._waiting[0]
            for item in items:
                most -= size(item)
                step(item)
                if most <= 0:
                    return
                if not self._waiting or self._waiting[0][1] is not items:
                    break  # it has finished, or cleared, them
            else:
                if self._waiting and self._waiting[0][1] is items:
                    self._waiting.popleft()
