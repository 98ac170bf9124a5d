"""
Garbage collection in short pauses, however many connections there are.

Python frees what nobody refers to at once.  Only what refers to itself in a circle has to be looked
for, among all objects that there are: with ten thousand agents that is a million, and takes 0.3 s, in which
nobody is served.  It happens when there are a quarter more objects than the last time; those that are made
for an answer of the admin API count as well, so that somebody who opens the dashboard would stop everybody.

So what has been looked at once is not looked at again, until there is twice as much of everything: a look
is at what is new, and takes milliseconds.  What could be freed and is not is never more than what is needed,
also when that becomes less.
"""

from __future__ import annotations

__all__ = ["Collections", "leave_alone"]

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

FULL: Final = 2
"""The generation that all objects are in at last."""

GROWTH: Final = 2.0
"""How much more there is when all of it is looked at again."""


class Collections:
    """
    Decides what is looked at.

    The collector has three generations, and objects besides that it leaves alone; what a look at the
    oldest generation has left is put there, and is fetched from there when all shall be looked at.
    """

    def __init__(
        self, collector: Any = gc, size: Callable[[], int] = sys.getallocatedblocks, growth: float = GROWTH
    ) -> None:
        """
        @param collector: L{gc}.
        @param size: says how much there is.
        """
        self._collector = collector
        self._size = size
        self._growth = growth
        self._known = 0
        self._everything = False

    def begin(self) -> None:
        """Look at all that there is, once, and from now on at what is new; to be called once."""
        self._collector.collect()
        self._leave()
        self._known = self._size()
        self._collector.callbacks.append(self.told)

    def _leave(self) -> None:
        self._collector.freeze()

    def told(self, phase: str, info: Mapping[str, int]) -> None:
        """A look begins, or is over; for C{gc.callbacks}."""
        if info["generation"] != FULL:
            return
        if phase == "start":
            self._everything = self._size() >= self._growth * self._known
            if self._everything:
                self._collector.unfreeze()
            return
        self._leave()
        size = self._size()
        self._known = size if self._everything else min(self._known, size)


def leave_alone() -> None:
    """
    Let the garbage collector look no more at what there is, as it stays until the process ends.

    Modules, classes and the configuration are some hundred thousand objects.  To look
    at all of them takes tens of milliseconds, in which nobody is served.

    To be called once, when everything has been started.
    """
    Collections().begin()
