"""Long work in slices, one in each turn of the reactor, so that requests are served in between."""

from __future__ import annotations

__all__ = ["AT_ONCE", "WorkQueue"]

import sys
from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from functools import partial
from typing import Any, Final, TypeVar

from twisted.internet.interfaces import IReactorTime

T = TypeVar("T")

AT_ONCE: Final = 100
"""Steps in one slice: a few milliseconds, where each adds or removes a host."""


class WorkQueue:
    """
    Runs steps in their order, some of them at once, and the others in later turns of the reactor.

    An exception in a step ends the slice, but loses no other step. A step may add further ones, which
    come last.
    """

    def __init__(self, clock: IReactorTime) -> None:
        self._clock = clock
        self._waiting: deque[tuple[Callable[[Any], object], Iterator[Any], Callable[[Any], int]]] = deque()
        self._busy = False
        self._keys: set[Hashable] = set()  # of work that waits to begin

    def add(
        self, step: Callable[[T], object], items: Iterable[T], size: Callable[[T], int] = lambda item: 1
    ) -> None:
        """
        Run a step for each item; the first ones at once, unless others wait.

        @param items: consumed as the steps are run.
        @param size: how many steps that of an item counts for.
        """
        self._waiting.append((step, iter(items), size))
        if not self._busy:
            self._turn()

    def add_once(self, key: Hashable, items: Callable[[], Iterable[T]], step: Callable[[T], object]) -> None:
        """
        Run a step for each of many items, unless the same work waits to begin.

        @param key: identifies the work.
        @param items: returns the items when the work begins.
        """
        if key not in self._keys:
            self._keys.add(key)
            self.add(partial(self._begin, items, step), [key])

    def _begin(self, items: Callable[[], Iterable[T]], step: Callable[[T], object], key: Hashable) -> None:
        self._keys.discard(key)
        self.add(step, items())

    def finish(self) -> None:
        """Run all steps that wait, now."""
        self._go(sys.maxsize)

    def clear(self) -> None:
        """Discard all steps that wait."""
        self._waiting.clear()
        self._keys.clear()

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
                    break  # the step has called L{finish} or L{clear}
            else:
                if self._waiting and self._waiting[0][1] is items:
                    self._waiting.popleft()
