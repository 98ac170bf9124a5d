"""
Garbage collection in short pauses, however many connections there are.

CPython frees objects at once when the last reference goes.  Only reference cycles need the collector, which
traverses all objects: with ten thousand agents that is a million, and takes 0.3 s, in which no request is
served.  A full collection runs when there are a quarter more objects than at the last one; those made
for an answer of the admin API count as well, so that opening the dashboard would stop all requests.

So objects that have survived a collection are not traversed again until there are twice as many: a
collection traverses new objects only, and takes milliseconds.  The garbage that is not found meanwhile is
never more than the objects in use, also when these become fewer.
"""

from __future__ import annotations

__all__ = ["Collections", "leave_alone"]

import gc
import sys
from collections.abc import Callable, Mapping
from typing import Any, Final

FULL: Final = 2
"""The oldest generation."""

GROWTH: Final = 2.0
"""By which factor the memory must have grown before all objects are traversed again."""


class Collections:
    """
    Decides which objects the collector traverses.

    The collector has three generations, and a permanent one that it never traverses (C{gc.freeze}): what
    survives a collection of the oldest generation is put there, and is taken back before a full collection.
    """

    def __init__(
        self, collector: Any = gc, size: Callable[[], int] = sys.getallocatedblocks, growth: float = GROWTH
    ) -> None:
        """
        @param collector: L{gc}.
        @param size: returns how much memory is in use.
        """
        self._collector = collector
        self._size = size
        self._growth = growth
        self._known = 0
        self._everything = False

    def begin(self) -> None:
        """Traverse all objects once, and from now on new ones; to be called once."""
        self._collector.collect()
        self._leave()
        self._known = self._size()
        self._collector.callbacks.append(self.told)

    def _leave(self) -> None:
        self._collector.freeze()

    def told(self, phase: str, info: Mapping[str, int]) -> None:
        """Called by C{gc.callbacks} when a collection begins or ends."""
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
    Let the garbage collector skip all objects that exist now, as they stay until the process ends.

    Modules, classes and the configuration are some hundred thousand objects.  To traverse
    them takes tens of milliseconds, in which no request is served.

    To be called once, when everything has been started.
    """
    Collections().begin()
