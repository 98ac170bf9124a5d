"""All workers replaced, one after the other, so that those that serve are never fewer than all but one."""

from __future__ import annotations

__all__ = ["Renewal"]

from collections import deque
from collections.abc import Callable, Iterable

from twisted.logger import Logger

log = Logger()


class Renewal:
    """
    Replaces workers in turn.

    The next one is replaced once another one has taken the place of the one before.
    """

    def __init__(self, replace: Callable[[int], bool]) -> None:
        """
        @param replace: lets one worker finish, and starts another one in its place;
            says whether that was possible.
        """
        self._replace = replace
        self._left: deque[int] = deque()
        self._current = 0

    @property
    def under_way(self) -> bool:
        """Whether there are any that wait for their turn, or have it."""
        return bool(self._current or self._left)

    def add(self, numbers: Iterable[int]) -> list[int]:
        """
        Replace some workers.

        @return: those that will be; those that wait for that already are not there twice.
        """
        wanted = [number for number in numbers if number not in self._left and number != self._current]
        self._left.extend(wanted)
        if not self._current:
            self._next()
        return wanted

    def ready(self, number: int) -> None:
        """A worker is ready to serve."""
        if number == self._current:
            self._next()

    def _next(self) -> None:
        before, self._current = self._current, 0
        while self._left and not self._current:
            number = self._left.popleft()
            if self._replace(number):
                self._current = number
            else:
                # It is about to be started anew anyhow.
                log.info("worker {number} is not ready, and so is not replaced", number=number)
        if before and not self._current:
            log.info("all workers that were to be replaced have been")
