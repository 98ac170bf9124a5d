"""Replace workers one after the other, so that at most one is missing at any time."""

from __future__ import annotations

__all__ = ["Renewal"]

from collections import deque
from collections.abc import Callable, Iterable

from twisted.logger import Logger

log = Logger()


class Renewal:
    """
    Replaces workers in turn.

    The next one is replaced when the successor of the previous one is ready.
    """

    def __init__(self, replace: Callable[[int], bool]) -> None:
        """
        @param replace: lets a worker finish, and starts its successor; returns false if
            the worker is not ready.
        """
        self._replace = replace
        self._left: deque[int] = deque()
        self._current = 0

    @property
    def under_way(self) -> bool:
        """Whether workers are being replaced, or are queued for it."""
        return bool(self._current or self._left)

    def add(self, numbers: Iterable[int]) -> list[int]:
        """
        Replace some workers.

        @return: those that were not queued already.
        """
        wanted = [number for number in numbers if number not in self._left and number != self._current]
        self._left.extend(wanted)
        if not self._current:
            self._next()
        return wanted

    def ready(self, number: int) -> None:
        """Replace the next one, if the successor of the present one is ready."""
        if number == self._current:
            self._next()

    def _next(self) -> None:
        before, self._current = self._current, 0
        while self._left and not self._current:
            number = self._left.popleft()
            if self._replace(number):
                self._current = number
            else:
                # It will be restarted anyway.
                log.info("worker {number} is not ready, and so is not replaced", number=number)
        if before and not self._current:
            log.info("all workers that were to be replaced have been")
